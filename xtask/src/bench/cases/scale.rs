//! Many steps, and many records.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use fs_err as fs;
use larder_testkit::write_tree;
use rusqlite::Connection;

use super::copy_example;
use crate::bench::Place;
use crate::bench::measure::{measure, peak_bytes};
use crate::bench::report::Row;
use crate::bench::tool::Tool;
use crate::run::output;

const COPIES_COUNT: usize = 2050;
/// How many records the store has when look-ups are measured.
const RECORD_COUNTS: [i64; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// How many of the records made up are one chain.
const CHAIN_LENGTH: i64 = 20;

/// A chain of steps that copy a small file each: built, built again, listed, and removed.
pub(super) fn copies(tool: &Tool, place: &Place) -> Result<Vec<Row>> {
    let label = |what: &str| format!("{COPIES_COUNT} COPY steps: {what}");
    let Some(larder) = tool.larder(&place.state) else {
        // Buildah 1.28 ends at the 129th: "max depth exceeded".
        let works = ["build", "no change", "first du", "prune of all"];
        let without = works.map(|work| Row::without(label(work), "can't: 128 layers at most"));
        return Ok(without.into());
    };
    let context = place.contexts.join("copies");
    let mut dockerfile = "FROM busybox\n".to_owned();
    for step in 0..COPIES_COUNT {
        writeln!(dockerfile, "COPY files/{step} /{step}")?;
    }
    write_tree(&context, &[("Dockerfile", &dockerfile)]);
    fs::create_dir(context.join("files"))?;
    for step in 0..COPIES_COUNT {
        fs::write(context.join(format!("files/{step}")), format!("{step}\n"))?;
    }
    let command = || tool.build(&place.state, &context, false);
    let build = Row::measure(label("build"), 1, |_| measure(&mut command()))?;
    let again = Row::measure(label("no change"), tool.runs(), |_| measure(&mut command()))?
        .with_peak(peak_bytes(&command())?);
    let du = Row::measure(label("first du"), 1, |_| measure(larder().arg("du")))?;
    output(larder().args(["rmi", "bench"]))?;
    let prune = Row::measure(label("prune of all"), 1, |_| {
        measure(larder().args(["prune", "--all", "--force"]))
    })?;
    Ok(vec![build, again, du, prune])
}

/// The example service with nothing changed, in stores with more and more records of other builds.
pub(super) fn lookups(tool: &Tool, place: &Place) -> Result<Vec<Row>> {
    let label = |count: i64| format!("no change, {count} records");
    if tool.larder(&place.state).is_none() {
        let without = |count| Row::without(label(count), "can't: its store has no such records");
        return Ok(RECORD_COUNTS.map(without).into());
    }
    let context = place.contexts.join("smartdiet");
    copy_example(&context, "requirements.txt")?;
    let command = || tool.build(&place.state, &context, false);
    measure(&mut command())?;
    let mut rows = Vec::new();
    let mut present = 0;
    for count in RECORD_COUNTS {
        add_records(&place.state, present, count)?;
        present = count;
        // The first one's collector looks at what has grown.
        measure(&mut command())?;
        let row = Row::measure(label(count), tool.quick_runs(), |_| measure(&mut command()))?;
        rows.push(row.with_peak(peak_bytes(&command())?));
    }
    Ok(rows)
}

/// Adds the records `from..to` of builds that never were: snapshots without files, and all that the
/// store knows of such.
fn add_records(state: &Path, from: i64, to: i64) -> Result<()> {
    let mut db = Connection::open(state.join("larder.db"))?;
    let now = "SELECT unixepoch('now') * 1000000000";
    let now: i64 = db.query_row(now, [], |row| row.get(0))?;
    db.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF")?;
    // Numbers of keys go on after those of the store's own.
    let key: i64 = db.query_row("SELECT max(id) + 1 FROM keys", [], |row| row.get(0))?;
    let key = format!("{} + i", key - from);
    let numbers = format!(
        "WITH RECURSIVE n (i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {to})"
    );
    let id = "printf('%025d', i)";
    let is_lowest = format!("i % {CHAIN_LENGTH} = 0");
    let op = "'sha256:' || printf('%064x', i)";
    let transaction = db.transaction()?;
    for (into, select) in [
        (
            "snapshots (id, form, diff_id, tar_bytes, record_type, description, size_bytes, \
               created_at, last_used_at, usage_count)",
            format!(
                "{id}, 'directory', {op}, 2048, 'regular', '[stage 2/7] RUN make ' || i, 8192, \
                   {now} - i, {now}, 1 FROM n"
            ),
        ),
        (
            "snapshot_parents (child, position, parent)",
            format!("{id}, 0, printf('%025d', i - 1) FROM n WHERE NOT {is_lowest}"),
        ),
        (
            "layer_blobs (snapshot, digest, media_type, size_bytes)",
            format!("{id}, {op}, 'application/vnd.oci.image.layer.v1.tar+gzip', 512 FROM n"),
        ),
        (
            "keys (id, op, output, root)",
            format!("{key}, {op}, 0, {is_lowest} FROM n"),
        ),
        (
            "links (parent, input, op, output, selector, child)",
            format!("{key} - 1, 0, {op}, 0, '', {key} FROM n WHERE NOT {is_lowest}"),
        ),
        (
            "results (key, snapshot, created_at)",
            format!("{key}, {id}, {now} FROM n"),
        ),
        (
            "origins (digest, repository, noted_at)",
            format!("{op}, 'registry.example/team/app', {now} - i FROM n"),
        ),
        (
            "steps (scope, step, key, parts, created_at)",
            format!("'manifests', {op}, -1, zeroblob(64), {now} FROM n"),
        ),
        (
            "builds (scope, report, created_at)",
            format!("'scope ' || i, zeroblob(256), {now} FROM n WHERE {is_lowest}"),
        ),
    ] {
        transaction.execute_batch(&format!("INSERT INTO {into} {numbers} SELECT {select}"))?;
    }
    transaction.commit()?;
    Ok(())
}
