//! `larder images`, `rmi`, `tag`, `inspect` and `history`

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use larder_engine::{ImageDetails, ImageInfo};
use larder_oci::ImageRef;
use serde_json::{Value, json};

use super::Context;
use crate::args::{HistoryArgs, ImageFilter, ImagesArgs, InspectArgs, RmiArgs, TagArgs};
use crate::images::{HISTORY, HistoryRow, IMAGES, INSPECT, ImageRow, View};
use crate::output;
use crate::table::{Format, Listing, Row};

/// Lists images, the latest stored first.
pub(crate) fn list(args: &ImagesArgs, context: &Context<'_>) -> anyhow::Result<()> {
    let view = view(&IMAGES, args.format.as_deref(), args.no_trunc)?;
    let mut wanted: Vec<Wanted> = Vec::new();
    wanted.extend(args.name.as_deref().map(Wanted::parse).transpose()?);
    let mut dangling = None;
    for filter in &args.filters {
        match filter {
            ImageFilter::Dangling(asked) => dangling = Some(*asked),
            ImageFilter::Reference(name) => wanted.push(Wanted::parse(name)?),
        }
    }
    let engine = context.engine()?;
    let mut rows = Vec::new();
    for info in engine.images()? {
        let names = names(&info, &wanted);
        let is_dangling = info.names.is_empty();
        if names.is_empty() || dangling.is_some_and(|dangling| dangling != is_dangling) {
            continue;
        }
        let size_bytes = engine
            .image(info.manifest.digest.as_str(), None)?
            .size_bytes;
        rows.extend(
            names
                .into_iter()
                .map(|name| image_row(&info, name.as_ref(), size_bytes)),
        );
    }
    let text = if args.quiet {
        let ids = rows.iter().map(|row| view.id(&row.id) + "\n");
        let mut ids: Vec<String> = ids.collect();
        ids.dedup();
        ids.concat()
    } else {
        view.images(&rows)
    };
    Ok(output::print(&text)?)
}

/// Removes names, and images with their last one.
pub(crate) fn remove(args: &RmiArgs, context: &Context<'_>) -> anyhow::Result<()> {
    let engine = context.engine()?;
    let images = if args.all {
        let ids = engine.images()?;
        ids.into_iter()
            .map(|info| info.manifest.digest.to_string())
            .collect()
    } else {
        args.images.clone()
    };
    let force = args.force || args.all;
    let mut failed = None;
    for image in &images {
        match engine.remove_image(image, force) {
            Ok((names, removed)) => output::print(&removed_text(&names, removed.as_ref()))?,
            // The others are removed all the same.
            Err(error) => {
                let error = anyhow::Error::new(error);
                if let Some(earlier) = failed.replace(error) {
                    output::tell(&format!("ERROR: {earlier:#}"));
                }
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Gives an image further names.
pub(crate) fn tag(args: &TagArgs, context: &Context<'_>) -> anyhow::Result<()> {
    let engine = context.engine()?;
    for name in &args.names {
        engine.tag_image(&args.image, name)?;
    }
    Ok(())
}

/// Prints images in full.
pub(crate) fn inspect(args: &InspectArgs, context: &Context<'_>) -> anyhow::Result<()> {
    let format = args.format.as_deref().unwrap_or("json");
    let format = parse_format(&INSPECT, format)?;
    let engine = context.engine()?;
    let images: Vec<Row> = args
        .images
        .iter()
        .map(|image| Ok(inspected(&engine.image(image, args.platform.as_ref())?)))
        .collect::<anyhow::Result<_>>()?;
    let text = match format {
        Format::Json => {
            let list = images.into_iter().map(Value::Object).collect();
            format!("{:#}\n", Value::Array(list))
        }
        other => INSPECT.render(&other, &images),
    };
    Ok(output::print(&text)?)
}

/// Prints how an image was made, the last step first.
pub(crate) fn history(args: &HistoryArgs, context: &Context<'_>) -> anyhow::Result<()> {
    let view = view(&HISTORY, args.format.as_deref(), args.no_trunc)?;
    let rows = history_rows(
        &context
            .engine()?
            .image(&args.image, args.platform.as_ref())?,
    );
    let text = if args.quiet {
        let ids = rows.iter().map(|row| match &row.id {
            Some(id) => view.id(id) + "\n",
            None => "<missing>\n".to_owned(),
        });
        ids.collect()
    } else {
        view.history(&rows)
    };
    Ok(output::print(&text)?)
}

/// The images that `larder images NAME` asks for.
struct Wanted {
    name: ImageRef,
    /// Whether a tag was given; without, all tags are meant.
    has_tag: bool,
}

impl Wanted {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let name: ImageRef = text.parse()?;
        let last = text.rsplit('/').next().unwrap_or(text);
        Ok(Self {
            has_tag: last.contains([':', '@']),
            name,
        })
    }

    fn takes(&self, name: &ImageRef) -> bool {
        let same_repository =
            name.registry() == self.name.registry() && name.repository() == self.name.repository();
        same_repository && (!self.has_tag || name == &self.name)
    }
}

/// Returns the names to list an image under; `None` stands for an image without any.
fn names(info: &ImageInfo, wanted: &[Wanted]) -> Vec<Option<ImageRef>> {
    let names: Vec<ImageRef> = info
        .names
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    if names.is_empty() && wanted.is_empty() {
        return vec![None];
    }
    let is_taken = |name: &ImageRef| wanted.iter().all(|wanted| wanted.takes(name));
    names.into_iter().filter(is_taken).map(Some).collect()
}

fn image_row(info: &ImageInfo, name: Option<&ImageRef>, size_bytes: u64) -> ImageRow {
    ImageRow {
        repository: name.map(ImageRef::familiar_name),
        tag: name.and_then(ImageRef::tag).map(str::to_owned),
        digest: info.manifest.digest.clone(),
        id: info.config.clone(),
        created_at: info.created_at,
        size_bytes,
    }
}

/// Says what went, as `docker rmi` does.
fn removed_text(names: &[String], removed: Option<&ImageInfo>) -> String {
    let familiar = |name: &String| match name.parse::<ImageRef>() {
        Ok(name) => name.familiar(),
        Err(_) => name.clone(),
    };
    let untagged = names
        .iter()
        .map(|name| format!("Untagged: {}\n", familiar(name)));
    let deleted = removed.map(|info| format!("Deleted: {}\n", info.config));
    untagged.chain(deleted).collect()
}

/// Returns an image's fields, named as `docker inspect` names them.
fn inspected(image: &ImageDetails) -> Row {
    let familiar = |name: &String| name.parse::<ImageRef>().map(|name| name.familiar());
    let names: Vec<String> = image.info.names.iter().flat_map(familiar).collect();
    let fields = json!({
        "Id": image.manifest.config.digest,
        "RepoTags": names,
        "Created": image.config.created,
        "Author": image.config.author,
        "Config": image.config.config,
        "Architecture": image.config.architecture,
        "Variant": image.config.variant,
        "Os": image.config.os,
        "Platforms": image.platforms,
        "Size": image.size_bytes,
        "RootFS": { "Type": image.config.rootfs.kind, "Layers": image.config.rootfs.diff_ids },
        "Descriptor": image.info.manifest,
        "Manifest": image.manifest,
        "Metadata": { "StoredAt": image.info.stored_at.to_string() },
    });
    match fields {
        Value::Object(row) => row,
        _ => Row::new(),
    }
}

fn history_rows(image: &ImageDetails) -> Vec<HistoryRow> {
    let mut sizes = image.manifest.layers.iter().map(|layer| layer.size_bytes);
    let mut rows: Vec<HistoryRow> = image
        .config
        .history
        .iter()
        .map(|entry| HistoryRow {
            id: None,
            created_at: entry.created.as_deref().and_then(|at| at.parse().ok()),
            created_by: entry.created_by.clone(),
            size_bytes: if entry.empty_layer {
                0
            } else {
                sizes.next().unwrap_or(0)
            },
            comment: entry.comment.clone(),
        })
        .collect();
    rows.reverse();
    if let Some(last) = rows.first_mut() {
        last.id = Some(image.manifest.config.digest.clone());
    }
    rows
}

fn view(listing: &Listing, format: Option<&str>, no_trunc: bool) -> anyhow::Result<View> {
    Ok(View {
        format: parse_format(listing, format.unwrap_or("table"))?,
        truncate: !no_trunc,
        now: Timestamp::now(),
    })
}

fn parse_format(listing: &Listing, text: &str) -> anyhow::Result<Format> {
    listing
        .parse_format(text)
        .map_err(|problem| anyhow!(problem))
        .context("`--format`")
}
