//! `larder push` and `pull`

use anyhow::{Context as _, ensure};
use larder_engine::event::{BuildEvent, StatusEvent};
use larder_engine::request::PushOptions;
use larder_engine::{CancelFlag, Engine, Pushed, PushedBlob};
use larder_oci::{Digest, ImageRef};

use super::Context;
use crate::args::{PullArgs, PushArgs};
use crate::exit;
use crate::output;
use crate::signals::{self, Stop};

/// Digits of a layer's digest that are shown.
const SHORT_ID_LENGTH: usize = 12;

/// Pushes an image, or all with one name.
pub(crate) fn push(args: &PushArgs, context: &Context<'_>) -> anyhow::Result<()> {
    let (name, has_tag) = parse_name(&args.name)?;
    ensure!(
        !(args.all_tags && has_tag),
        "`--all-tags` pushes all tags of a name, so `{}` must have none",
        args.name
    );
    ensure!(
        name.digest().is_none(),
        "`{}` is pushed by its tag, not by a digest",
        args.name
    );
    let engine = context.engine_for(&name, args.insecure)?;
    let names = if args.all_tags {
        tags_of(&engine, &name)?
    } else {
        if !has_tag && !args.quiet {
            output::print("Using default tag: latest\n")?;
        }
        vec![name.clone()]
    };
    if !args.quiet {
        let repository = format!("{}/{}", name.registry(), name.repository());
        output::print(&format!("The push refers to repository [{repository}]\n"))?;
    }
    let cancel = CancelFlag::new();
    let _listener = listen(&cancel)?;
    for name in &names {
        let tell = |status: &StatusEvent| pushed_line(status, args.quiet);
        let outcome = engine.push(
            name,
            args.platform.as_ref(),
            PushOptions::default(),
            &sink(tell),
            &cancel,
        )?;
        if args.quiet {
            output::print(&format!("{name}\n"))?;
            continue;
        }
        let lines = outcome.blobs.iter().filter_map(found_line);
        let tag = name.tag().unwrap_or_default();
        let manifest = &outcome.descriptor;
        output::print(&format!(
            "{}{tag}: digest: {} size: {}\n",
            lines.collect::<String>(),
            manifest.digest,
            manifest.size_bytes
        ))?;
    }
    Ok(())
}

/// Pulls an image.
pub(crate) fn pull(args: &PullArgs, context: &Context<'_>) -> anyhow::Result<()> {
    let (name, has_tag) = parse_name(&args.name)?;
    let engine = context.engine_for(&name, args.insecure)?;
    let what = match (name.digest(), name.tag()) {
        (Some(digest), _) => digest.as_str(),
        (None, tag) => tag.unwrap_or_default(),
    };
    if !args.quiet {
        let default = if has_tag {
            ""
        } else {
            "Using default tag: latest\n"
        };
        let from = name.repository();
        output::print(&format!("{default}{what}: Pulling from {from}\n"))?;
    }
    let cancel = CancelFlag::new();
    let _listener = listen(&cancel)?;
    let tell = |status: &StatusEvent| pulled_line(status, args.quiet);
    let outcome = engine.pull(&name, args.platform.as_ref(), &sink(tell), &cancel)?;
    if !args.quiet {
        let known = outcome.layers.iter().filter(|(_, is_here)| *is_here);
        let known = known.map(|(layer, _)| format!("{}: Already exists\n", short(&layer.digest)));
        let status = if outcome.is_new {
            "Downloaded newer image for"
        } else {
            "Image is up to date for"
        };
        output::print(&format!(
            "{}Digest: {}\nStatus: {status} {}\n",
            known.collect::<String>(),
            outcome.target,
            name.familiar()
        ))?;
    }
    Ok(output::print(&format!("{name}\n"))?)
}

/// Reads a name; tells too whether it says which image is meant.
fn parse_name(text: &str) -> anyhow::Result<(ImageRef, bool)> {
    let name: ImageRef = text.parse()?;
    let last = text.rsplit('/').next().unwrap_or(text);
    Ok((name, last.contains([':', '@'])))
}

/// Returns the names of stored images that differ from `name` in their tag only.
fn tags_of(engine: &Engine, name: &ImageRef) -> anyhow::Result<Vec<ImageRef>> {
    let images = engine.images()?;
    let mut names: Vec<ImageRef> = images
        .iter()
        .flat_map(|info| &info.names)
        .filter_map(|text| text.parse().ok())
        .filter(|other: &ImageRef| {
            other.registry() == name.registry() && other.repository() == name.repository()
        })
        .collect();
    names.sort();
    ensure!(
        !names.is_empty(),
        "no image of the local store is named `{}`",
        name.familiar_name()
    );
    Ok(names)
}

fn listen(cancel: &CancelFlag) -> anyhow::Result<signals::Listener> {
    let on_signal = cancel.clone();
    signals::listen(move |stop| match stop {
        Stop::Cancel => on_signal.set(),
        Stop::Force => std::process::exit(i32::from(exit::CANCELED)),
    })
    .context("cannot listen for signals")
}

/// Returns a sink that shows the line that `tell` makes of a part that is done.
fn sink(
    tell: impl Fn(&StatusEvent) -> Option<String> + Send + Sync,
) -> impl Fn(BuildEvent) + Send + Sync {
    move |event| {
        if let BuildEvent::Status(status) = event
            && status.completed.is_some()
            && let Some(line) = tell(&status)
        {
            // Who can't be told now can't be told the outcome either, and that is an error.
            let _ = output::print(&line);
        }
    }
}

fn pushed_line(status: &StatusEvent, is_quiet: bool) -> Option<String> {
    let digest: Digest = status.id.strip_prefix("pushing ")?.parse().ok()?;
    (!is_quiet).then(|| format!("{}: Pushed\n", short(&digest)))
}

/// Returns the line about a blob that needed no bytes.
fn found_line(blob: &PushedBlob) -> Option<String> {
    let id = short(&blob.descriptor.digest);
    match &blob.pushed {
        Pushed::Existed => Some(format!("{id}: Layer already exists\n")),
        Pushed::Mounted(from) => Some(format!("{id}: Mounted from {from}\n")),
        Pushed::Uploaded => None,
    }
}

fn pulled_line(status: &StatusEvent, is_quiet: bool) -> Option<String> {
    let digest: Digest = status.id.strip_prefix("extracting ")?.parse().ok()?;
    (!is_quiet).then(|| format!("{}: Pull complete\n", short(&digest)))
}

fn short(digest: &Digest) -> String {
    digest.hex().chars().take(SHORT_ID_LENGTH).collect()
}
