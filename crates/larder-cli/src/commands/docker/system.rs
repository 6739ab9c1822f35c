//! `docker system df` and `prune`, and `docker image prune`.

use std::fmt::Write as _;

use anyhow::{anyhow, bail};
use larder_engine::{Engine, ImageInfo, PruneRequest};
use serde_json::json;

use super::super::{Context, records};
use crate::args::{DfArgs, DockerPruneArgs};
use crate::output;
use crate::table::{Listing, Row};
use crate::units::human_size;

/// Significant digits of sizes.
const SIZE_DIGITS: usize = 4;

const LISTING: Listing = Listing {
    fields: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
    columns: &["Type", "TotalCount", "Active", "Size", "Reclaimable"],
};

/// Prints what takes disk space. What images share with the cache counts as the cache's.
pub(super) fn df(args: &DfArgs, context: &Context<'_>) -> anyhow::Result<()> {
    if args.verbose {
        bail!(
            "`docker system df --verbose` is not available: see `docker images` and `docker buildx du --verbose`"
        );
    }
    let format = LISTING.parse_format(args.format.as_deref().unwrap_or_default());
    let format = format.map_err(|problem| anyhow!(problem).context("`--format`"))?;
    let engine = context.engine()?;
    let images = engine.images()?;
    let named = images
        .iter()
        .filter(|image| !image.names.is_empty())
        .count();
    let mut image_bytes = 0;
    for image in &images {
        image_bytes += engine
            .image(image.manifest.digest.as_str(), None)?
            .size_bytes;
    }
    let records = engine.disk_usage(&[])?;
    let bytes = |wanted: &dyn Fn(bool) -> bool| -> u64 {
        let wanted = records.iter().filter(|record| wanted(record.in_use));
        wanted.map(|record| record.size_bytes).sum()
    };
    let in_use = records.iter().filter(|record| record.in_use).count();
    let size = |bytes: u64| human_size(bytes, SIZE_DIGITS);
    let share = |part: u64, of: u64| match (part * 100).checked_div(of) {
        Some(percent) => format!("{} ({percent}%)", size(part)),
        None => size(part),
    };
    let row = |kind: &str, total: usize, active: usize, bytes: u64, reclaimable: String| -> Row {
        let fields = json!({
            "Type": kind,
            "TotalCount": total.to_string(),
            "Active": active.to_string(),
            "Size": size(bytes),
            "Reclaimable": reclaimable,
        });
        fields.as_object().cloned().unwrap_or_default()
    };
    let (all, free) = (bytes(&|_| true), bytes(&|in_use| !in_use));
    let rows = [
        row("Images", images.len(), named, image_bytes, size(0)),
        row("Containers", 0, 0, 0, size(0)),
        row("Local Volumes", 0, 0, 0, size(0)),
        row("Build Cache", records.len(), in_use, all, share(free, all)),
    ];
    Ok(output::print(&LISTING.render(&format, &rows))?)
}

/// Removes images without a name, or all, after asking.
pub(super) fn image_prune(args: &DockerPruneArgs, context: &Context<'_>) -> anyhow::Result<()> {
    refuse(args, "docker image prune")?;
    let what = if args.all {
        "all images"
    } else {
        "all dangling images"
    };
    let question =
        format!("WARNING! This will remove {what}.\nAre you sure you want to continue? [y/N] ");
    if !args.force && !records::confirmed(&question)? {
        return Ok(());
    }
    let deleted = remove_images(&context.engine()?, args.all)?;
    // Layers belong to the cache, which may still use them.
    Ok(output::print(&(deleted + "Total reclaimed space: 0B\n"))?)
}

/// Removes images without a name, or all, and what `docker builder prune` removes, after asking.
pub(super) fn prune(args: &DockerPruneArgs, context: &Context<'_>) -> anyhow::Result<()> {
    refuse(args, "docker system prune")?;
    let (images, cache) = if args.all {
        ("all images", "all build cache")
    } else {
        ("all dangling images", "unused build cache")
    };
    let question = format!(
        "WARNING! This will remove:\n  - {images}\n  - {cache}\n\nAre you sure you want to continue? [y/N] "
    );
    if !args.force && !records::confirmed(&question)? {
        return Ok(());
    }
    let engine = context.engine()?;
    let deleted = remove_images(&engine, args.all)?;
    let request = PruneRequest {
        all: args.all,
        keep_cache_mounts: true,
        ..PruneRequest::default()
    };
    let mut count = 0;
    let freed = engine.prune(&request, &mut |_| count += 1)?;
    let cache = match count {
        0 => String::new(),
        count => format!("Deleted build cache objects: {count}\n\n"),
    };
    let total = human_size(freed, SIZE_DIGITS);
    Ok(output::print(&format!(
        "{deleted}{cache}Total reclaimed space: {total}\n"
    ))?)
}

fn refuse(args: &DockerPruneArgs, command: &str) -> anyhow::Result<()> {
    if args.volumes {
        bail!(
            "`{command} --volumes` is not available: `docker compose down --volumes` removes a project's"
        );
    }
    if !args.filters.is_empty() {
        bail!("`{command} --filter` is not available: see `docker builder prune --filter`");
    }
    Ok(())
}

/// Removes images, and returns what docker says of that.
fn remove_images(engine: &Engine, all: bool) -> anyhow::Result<String> {
    let wanted = |image: &ImageInfo| all || image.names.is_empty();
    let mut text = String::new();
    for image in engine.images()?.into_iter().filter(wanted) {
        let (names, removed) = engine.remove_image(image.manifest.digest.as_str(), true)?;
        for name in names {
            writeln!(text, "untagged: {name}").expect("a String takes all");
        }
        if let Some(removed) = removed {
            writeln!(text, "deleted: {}", removed.config).expect("a String takes all");
        }
    }
    if text.is_empty() {
        return Ok(text);
    }
    Ok(format!("Deleted Images:\n{text}\n"))
}
