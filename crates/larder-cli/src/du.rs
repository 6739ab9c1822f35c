//! What the cache holds, as `larder du` and `larder prune` show it.

use std::fmt::Write;

use jiff::Timestamp;
use larder_engine::{SnapshotId, UsageRecord};
use serde_json::json;

use crate::table::{Format, Listing, Row};
use crate::text::one_line;
use crate::units::{human_duration, human_size};

/// Significant digits of sizes.
const SIZE_DIGITS: usize = 4;
/// Where values of the detailed form begin.
const VALUE_COLUMN: usize = 14;

const LISTING: Listing = Listing {
    fields: &[
        ("ID", "ID"),
        ("Parents", "PARENTS"),
        ("CreatedAt", "CREATED AT"),
        ("Mutable", "MUTABLE"),
        ("Reclaimable", "RECLAIMABLE"),
        ("Shared", "SHARED"),
        ("Size", "SIZE"),
        ("Description", "DESCRIPTION"),
        ("UsageCount", "USAGE COUNT"),
        ("LastUsedAt", "LAST ACCESSED"),
        ("Type", "TYPE"),
    ],
    columns: &["ID", "Reclaimable", "Size", "LastUsedAt"],
};

/// How to show records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DuFormat {
    /// One block of lines a record.
    Pretty,
    /// As any listing.
    Listing(Format),
}

impl DuFormat {
    /// Parses `--format`.
    ///
    /// # Errors
    /// Says what of the format is not understood.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "pretty" => Ok(Self::Pretty),
            text => LISTING.parse_format(text).map(Self::Listing),
        }
    }

    /// Returns the format of a plain command, or of one with `--verbose`.
    pub(crate) fn default(verbose: bool) -> Self {
        if verbose {
            Self::Pretty
        } else {
            Self::Listing(LISTING.table())
        }
    }

    /// Whether the sums belong below the records.
    pub(crate) fn has_summary(&self) -> bool {
        *self == Self::Pretty || *self == Self::Listing(LISTING.table())
    }

    /// Renders records, the smallest first.
    pub(crate) fn render(&self, records: &[UsageRecord], now: Timestamp) -> String {
        let mut records: Vec<&UsageRecord> = records.iter().collect();
        records.sort_by_key(|record| record.size_bytes);
        match self {
            Self::Pretty => records.iter().map(|record| pretty(record, now)).collect(),
            Self::Listing(format) => {
                let marks = matches!(format, Format::Table(_));
                let rows: Vec<Row> = records
                    .iter()
                    .map(|record| row(record, now, marks))
                    .collect();
                LISTING.render(format, &rows)
            }
        }
    }
}

/// Returns the sums over all records.
pub(crate) fn summary(records: &[UsageRecord]) -> String {
    let sum = |wanted: &dyn Fn(&UsageRecord) -> bool| -> u64 {
        let sizes = records.iter().filter(|record| wanted(record));
        sizes.map(|record| record.size_bytes).sum()
    };
    let total = sum(&|_| true);
    let shared = sum(&|record| record.shared);
    let mut text = String::new();
    let mut line = |name: &str, bytes: u64| {
        // The values stand at column 16, by tabs of 8.
        let tabs = if name.len() < 8 { "\t\t" } else { "\t" };
        writeln!(text, "{name}{tabs}{}", human_size(bytes, SIZE_DIGITS))
            .expect("a String takes all");
    };
    if shared > 0 {
        line("Shared:", shared);
        line("Private:", total - shared);
    }
    line("Reclaimable:", sum(&|record| !record.in_use));
    line("Total:", total);
    text
}

/// Returns the last line of `larder prune`.
pub(crate) fn freed(bytes: u64) -> String {
    format!("Total:\t{}\n", human_size(bytes, SIZE_DIGITS))
}

/// Returns what `larder prune` asks before it goes on.
pub(crate) fn prune_question(all: bool) -> String {
    let what = if all { "all" } else { "all dangling" };
    format!(
        "WARNING! This will remove {what} build cache. Are you sure you want to continue? [y/N] "
    )
}

/// Whether an answer says yes.
pub(crate) fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// Returns the fields of a record; `marks` adds a `*` to the id of a mutable one and to the size
/// of a shared one.
fn row(record: &UsageRecord, now: Timestamp, marks: bool) -> Row {
    let mark = |is_set: bool| if marks && is_set { "*" } else { "" };
    let fields = json!({
        "ID": format!("{}{}", record.id, mark(record.mutable)),
        "Parents": parents(record),
        "CreatedAt": time(record.created_at),
        "Mutable": record.mutable,
        "Reclaimable": !record.in_use,
        "Shared": record.shared,
        "Size": format!("{}{}", human_size(record.size_bytes, SIZE_DIGITS), mark(record.shared)),
        "Description": record.description,
        "UsageCount": record.usage_count,
        "LastUsedAt": last_used(record, now),
        "Type": record.record_type.as_str(),
    });
    match fields {
        serde_json::Value::Object(row) => row,
        _ => Row::new(),
    }
}

fn pretty(record: &UsageRecord, now: Timestamp) -> String {
    let parents = parents(record)
        .into_iter()
        .flat_map(|id| ["\n - ", id])
        .collect();
    let lines = [
        ("ID:", record.id.to_string()),
        ("Parents:", parents),
        ("Created at:", time(record.created_at)),
        ("Mutable:", record.mutable.to_string()),
        ("Reclaimable:", (!record.in_use).to_string()),
        ("Shared:", record.shared.to_string()),
        ("Size:", human_size(record.size_bytes, SIZE_DIGITS)),
        ("Description:", one_line(&record.description)),
        ("Usage count:", record.usage_count.to_string()),
        ("Last used:", last_used(record, now)),
        ("Type:", record.record_type.as_str().to_owned()),
    ];
    let mut text = String::new();
    for (name, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        // The parents stand on lines of their own.
        let width = if value.starts_with('\n') {
            0
        } else {
            VALUE_COLUMN
        };
        writeln!(text, "{name:width$}{value}").expect("a String takes all");
    }
    text.push('\n');
    text
}

fn parents(record: &UsageRecord) -> Vec<&str> {
    record.parents.iter().map(SnapshotId::as_str).collect()
}

fn last_used(record: &UsageRecord, now: Timestamp) -> String {
    record.last_used_at.map_or_else(String::new, |at| {
        format!("{} ago", human_duration(now.duration_since(at)))
    })
}

/// Returns a time as Go prints it.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use larder_engine::RecordType;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T10:46:57.6Z".parse().unwrap()
    }

    fn records() -> Vec<UsageRecord> {
        let base = UsageRecord {
            id: "6rn8o2f2ikuc9w4q5hxrltls0".parse().unwrap(),
            parents: Vec::new(),
            created_at: "2026-11-22T10:43:57.362562158Z".parse().unwrap(),
            last_used_at: Some("2026-11-22T10:43:57.5Z".parse().unwrap()),
            usage_count: 1,
            size_bytes: 5_242_880,
            mutable: false,
            in_use: true,
            shared: true,
            description: "pulled from docker.io/library/busybox:latest".to_owned(),
            record_type: RecordType::Regular,
        };
        let mount = UsageRecord {
            id: "ostpu7tpw6jwb4yd5g8l0kba7".parse().unwrap(),
            parents: vec![base.id.clone()],
            last_used_at: None,
            size_bytes: 4096,
            mutable: true,
            in_use: false,
            shared: false,
            description: "cached mount /root/.cache/pip".to_owned(),
            record_type: RecordType::CacheMount,
            ..base.clone()
        };
        vec![base, mount]
    }

    #[test]
    fn the_table_marks_what_is_mutable_or_shared() {
        assert_snapshot!(DuFormat::default(false).render(&records(), now()), @r"
        ID                           RECLAIMABLE   SIZE       LAST ACCESSED
        ostpu7tpw6jwb4yd5g8l0kba7*   true          4.096kB    
        6rn8o2f2ikuc9w4q5hxrltls0    false         5.243MB*   3 minutes ago
        ");
    }

    #[test]
    fn the_detailed_form_leaves_out_what_is_not_known() {
        assert_snapshot!(DuFormat::default(true).render(&records(), now()), @r"
        ID:           ostpu7tpw6jwb4yd5g8l0kba7
        Parents:
         - 6rn8o2f2ikuc9w4q5hxrltls0
        Created at:   2026-11-22 10:43:57.362562158 +0000 UTC
        Mutable:      true
        Reclaimable:  true
        Shared:       false
        Size:         4.096kB
        Description:  cached mount /root/.cache/pip
        Usage count:  1
        Type:         exec.cachemount

        ID:           6rn8o2f2ikuc9w4q5hxrltls0
        Created at:   2026-11-22 10:43:57.362562158 +0000 UTC
        Mutable:      false
        Reclaimable:  false
        Shared:       true
        Size:         5.243MB
        Description:  pulled from docker.io/library/busybox:latest
        Usage count:  1
        Last used:    3 minutes ago
        Type:         regular
        ");
    }

    #[test]
    fn json_has_the_keys_of_buildx() {
        let format = DuFormat::parse("json").unwrap();
        assert!(!format.has_summary());
        assert_snapshot!(format.render(&records()[1..], now()), @r#"{"CreatedAt":"2026-11-22 10:43:57.362562158 +0000 UTC","Description":"cached mount /root/.cache/pip","ID":"ostpu7tpw6jwb4yd5g8l0kba7","LastUsedAt":"","Mutable":true,"Parents":["6rn8o2f2ikuc9w4q5hxrltls0"],"Reclaimable":true,"Shared":false,"Size":"4.096kB","Type":"exec.cachemount","UsageCount":1}"#);
    }

    #[test]
    fn sums_tell_shared_and_private_apart_only_if_something_is_shared() {
        assert_eq!(
            summary(&records()),
            "Shared:\t\t5.243MB\nPrivate:\t4.096kB\nReclaimable:\t4.096kB\nTotal:\t\t5.247MB\n"
        );
        assert_eq!(
            summary(&records()[1..]),
            "Reclaimable:\t4.096kB\nTotal:\t\t4.096kB\n"
        );
    }

    #[test]
    fn only_yes_is_yes() {
        for (answer, expected) in [("y\n", true), ("YES", true), ("", false), ("yep", false)] {
            assert_eq!(is_yes(answer), expected, "{answer}");
        }
        assert!(prune_question(false).contains("all dangling build cache"));
        assert!(prune_question(true).contains("remove all build cache"));
    }
}
