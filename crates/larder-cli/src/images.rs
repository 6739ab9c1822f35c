//! Images, as `larder images` and `larder history` show them.

use jiff::Timestamp;
use larder_oci::Digest;
use serde_json::{Value, json};

use crate::table::{Format, Listing, Row};
use crate::units::{human_duration, human_size};

/// Significant digits of sizes.
const SIZE_DIGITS: usize = 3;
/// Digits of an id that is cut.
const SHORT_ID_LENGTH: usize = 12;
/// Characters of an instruction that is cut.
const SHORT_TEXT_LENGTH: usize = 45;
const NO_NAME: &str = "<none>";

/// The listing of `larder images`.
pub(crate) const IMAGES: Listing = Listing {
    fields: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("Digest", "DIGEST"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Size", "SIZE"),
    ],
    columns: &["Repository", "Tag", "ID", "CreatedSince", "Size"],
};

/// The listing of `larder history`.
pub(crate) const HISTORY: Listing = Listing {
    fields: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
    columns: &["ID", "CreatedSince", "CreatedBy", "Size", "Comment"],
};

/// The fields of `larder inspect`, as `docker inspect` names them.
pub(crate) const INSPECT: Listing = Listing {
    fields: &[
        ("Id", "ID"),
        ("RepoTags", "REPO TAGS"),
        ("Created", "CREATED"),
        ("Author", "AUTHOR"),
        ("Config", "CONFIG"),
        ("Architecture", "ARCHITECTURE"),
        ("Variant", "VARIANT"),
        ("Os", "OS"),
        ("Platforms", "PLATFORMS"),
        ("Size", "SIZE"),
        ("RootFS", "ROOT FS"),
        ("Descriptor", "DESCRIPTOR"),
        ("Manifest", "MANIFEST"),
        ("Metadata", "METADATA"),
    ],
    columns: &["Id", "RepoTags", "Size"],
};

/// A name of an image, or an image without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageRow {
    /// As people write it, `python`; `None` for an image without a name.
    pub(crate) repository: Option<String>,
    pub(crate) tag: Option<String>,
    /// The manifest's or index's digest.
    pub(crate) digest: Digest,
    /// The config's digest.
    pub(crate) id: Digest,
    pub(crate) created_at: Option<Timestamp>,
    pub(crate) size_bytes: u64,
}

/// A step that an image was made in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HistoryRow {
    /// The image's id, for its last step only.
    pub(crate) id: Option<Digest>,
    pub(crate) created_at: Option<Timestamp>,
    pub(crate) created_by: String,
    pub(crate) size_bytes: u64,
    pub(crate) comment: String,
}

/// How to show a listing of images.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) format: Format,
    /// Whether ids and instructions are cut.
    pub(crate) truncate: bool,
    pub(crate) now: Timestamp,
}

impl View {
    /// Renders images, in the order given.
    pub(crate) fn images(&self, images: &[ImageRow]) -> String {
        let rows: Vec<Row> = images.iter().map(|image| self.image(image)).collect();
        IMAGES.render(&self.format, &rows)
    }

    /// Renders the steps of an image, in the order given.
    pub(crate) fn history(&self, steps: &[HistoryRow]) -> String {
        let rows: Vec<Row> = steps.iter().map(|step| self.step(step)).collect();
        HISTORY.render(&self.format, &rows)
    }

    /// Returns an id as it is shown.
    pub(crate) fn id(&self, id: &Digest) -> String {
        if self.truncate {
            id.hex().chars().take(SHORT_ID_LENGTH).collect()
        } else {
            id.to_string()
        }
    }

    fn image(&self, image: &ImageRow) -> Row {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| NO_NAME.to_owned());
        row(json!({
            "Repository": or_none(&image.repository),
            "Tag": or_none(&image.tag),
            "Digest": image.digest.to_string(),
            "ID": self.id(&image.id),
            "CreatedSince": self.since(image.created_at),
            "CreatedAt": time(image.created_at),
            "Size": human_size(image.size_bytes, SIZE_DIGITS),
        }))
    }

    fn step(&self, step: &HistoryRow) -> Row {
        let id = step.id.as_ref().map(|id| self.id(id));
        row(json!({
            "ID": id.unwrap_or_else(|| "<missing>".to_owned()),
            "CreatedSince": self.since(step.created_at),
            "CreatedAt": time(step.created_at),
            "CreatedBy": self.shorten(&step.created_by.replace('\t', " ")),
            "Size": human_size(step.size_bytes, SIZE_DIGITS),
            "Comment": step.comment,
        }))
    }

    fn shorten(&self, text: &str) -> String {
        if !self.truncate || text.chars().count() <= SHORT_TEXT_LENGTH {
            return text.to_owned();
        }
        let kept: String = text.chars().take(SHORT_TEXT_LENGTH - 1).collect();
        kept + "…"
    }

    fn since(&self, at: Option<Timestamp>) -> String {
        at.map_or_else(
            || "N/A".to_owned(),
            |at| format!("{} ago", human_duration(self.now.duration_since(at))),
        )
    }
}

fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(String::new, |at| {
        at.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
    })
}

fn row(fields: Value) -> Row {
    match fields {
        Value::Object(row) => row,
        _ => Row::new(),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn view(listing: &Listing, format: &str, truncate: bool) -> View {
        View {
            format: listing.parse_format(format).unwrap(),
            truncate,
            now: "2026-11-22T12:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn images_look_as_docker_s_do() {
        let image = ImageRow {
            repository: Some("python".to_owned()),
            tag: Some("3.11-slim".to_owned()),
            digest: Digest::sha256("manifest"),
            id: Digest::sha256("config"),
            created_at: "2026-11-20T10:00:00Z".parse().ok(),
            size_bytes: 125_300_000,
        };
        let nameless = ImageRow {
            repository: None,
            tag: None,
            created_at: None,
            ..image.clone()
        };
        let images = [image, nameless];
        assert_snapshot!(view(&IMAGES, "table", true).images(&images), @r"
        REPOSITORY   TAG         IMAGE ID       CREATED      SIZE
        python       3.11-slim   b79606fb3afe   2 days ago   125MB
        <none>       <none>      b79606fb3afe   N/A          125MB
        ");
        assert_eq!(
            view(&IMAGES, "{{.ID}}", false).images(&images[..1]),
            format!("{}\n", Digest::sha256("config"))
        );
    }

    #[test]
    fn history_is_cut_unless_told_otherwise() {
        let steps = [
            HistoryRow {
                id: Some(Digest::sha256("config")),
                created_at: "2026-11-22T11:59:30Z".parse().ok(),
                created_by: "RUN /bin/sh -c pip install -r requirements.txt # buildkit".to_owned(),
                size_bytes: 12_300_000,
                comment: "buildkit.dockerfile.v0".to_owned(),
            },
            HistoryRow {
                id: None,
                created_at: None,
                created_by: "CMD [\"sh\"]".to_owned(),
                size_bytes: 0,
                comment: String::new(),
            },
        ];
        assert_snapshot!(view(&HISTORY, "table", true).history(&steps), @r#"
        IMAGE          CREATED          CREATED BY                                      SIZE      COMMENT
        b79606fb3afe   30 seconds ago   RUN /bin/sh -c pip install -r requirements.t…   12.3MB    buildkit.dockerfile.v0
        <missing>      N/A              CMD ["sh"]                                      0B        
        "#);
        let full = view(&HISTORY, "{{.CreatedBy}}", false).history(&steps);
        assert!(full.contains("requirements.txt # buildkit"));
    }
}
