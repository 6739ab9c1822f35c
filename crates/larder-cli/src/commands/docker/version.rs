//! `docker version` and `info`, and what plug-ins say of themselves.

use std::fmt::Write as _;

use anyhow::{anyhow, bail};
use larder_oci::Platform;
use serde_json::json;

use super::super::Context;
use crate::output;
use crate::table::{Format, Listing, Row};

const LARDER: &str = env!("CARGO_PKG_VERSION");
/// The versions of Docker's tools whose command lines larder answers: scripts compare them.
const DOCKER: &str = "29.0.0";
const BUILDX: &str = "v0.30.0";
const COMPOSE: &str = "v5.0.0";
/// The BuildKit whose Dockerfiles, cache keys and formats larder's equal.
pub(super) const BUILDKIT: &str = "v0.26.0";

const VERSION: Listing = Listing {
    fields: &[("Client", "CLIENT"), ("Server", "SERVER")],
    columns: &["Client", "Server"],
};

const INFO: Listing = Listing {
    fields: &[
        ("ServerVersion", "SERVER VERSION"),
        ("Images", "IMAGES"),
        ("Containers", "CONTAINERS"),
        ("Driver", "DRIVER"),
        ("OSType", "OS TYPE"),
        ("Architecture", "ARCHITECTURE"),
        ("Platforms", "PLATFORMS"),
        ("NCPU", "CPUS"),
        ("DockerRootDir", "ROOT DIR"),
        ("OperatingSystem", "OPERATING SYSTEM"),
    ],
    columns: &["ServerVersion"],
};

/// Prints the line by which a program of Docker's tells its version.
pub(super) fn line(program: &str) -> anyhow::Result<()> {
    let line = match program {
        "docker-buildx" => format!("github.com/docker/buildx {BUILDX} larder-{LARDER}\n"),
        _ => format!("Docker version {DOCKER}, build larder-{LARDER}\n"),
    };
    Ok(output::print(&line)?)
}

/// Prints the line by which Docker Compose tells its version.
pub(super) fn compose(short: bool, as_json: bool) -> anyhow::Result<()> {
    let line = match (short, as_json) {
        (true, _) => COMPOSE.trim_start_matches('v').to_owned(),
        (false, true) => json!({ "version": COMPOSE }).to_string(),
        (false, false) => format!("Docker Compose version {COMPOSE}"),
    };
    Ok(output::print(&(line + "\n"))?)
}

/// Prints what Docker's command line asks of its plug-ins.
pub(super) fn plugin(program: &str) -> anyhow::Result<()> {
    let (version, description) = match program {
        "docker-buildx" => (BUILDX, "Docker Buildx, by larder"),
        "docker-compose" => (COMPOSE, "Docker Compose, by larder"),
        other => bail!("`{other}` is no plug-in"),
    };
    let metadata = json!({
        "SchemaVersion": "0.1.0",
        "Vendor": "Larder",
        "Version": version,
        "ShortDescription": description,
    });
    Ok(output::print(&format!("{metadata:#}\n"))?)
}

/// Prints who answers, and as what.
pub(super) fn version(format: Option<&str>) -> anyhow::Result<()> {
    let platform = Platform::host();
    let of = |part: &str| {
        json!({
            "Version": DOCKER,
            "Os": platform.os,
            "Arch": platform.architecture,
            "Platform": { "Name": format!("larder {LARDER} ({part})") },
            "BuildKit": BUILDKIT,
        })
    };
    let fields = json!({ "Client": of("client"), "Server": of("the same process") });
    let text = match format {
        Some(format) => rendered(&VERSION, format, fields)?,
        None => format!(
            "Client: larder {LARDER}\n \
             Version:       {DOCKER} (the command lines that larder answers)\n \
             OS/Arch:       {platform}\n \
             Context:       default\n\n\
             Server: larder {LARDER}, in the same process\n \
             Version:       {DOCKER}\n \
             OS/Arch:       {platform}\n \
             BuildKit API:  compatible with {BUILDKIT}\n \
             buildx:        {BUILDX}\n \
             Compose:       {COMPOSE}\n"
        ),
    };
    Ok(output::print(&text)?)
}

/// Prints where larder keeps what, and how much.
pub(super) fn info(format: Option<&str>, context: &Context<'_>) -> anyhow::Result<()> {
    let engine = context.engine()?;
    let platform = Platform::host();
    let images = engine.images()?.len();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let (driver, root) = (engine.snapshotter(), engine.root().display());
    let platforms: Vec<String> = engine.platforms().iter().map(ToString::to_string).collect();
    if let Some(format) = format {
        let fields = json!({
            "ServerVersion": DOCKER,
            "Images": images,
            "Containers": 0,
            "Driver": driver,
            "OSType": platform.os,
            "Architecture": std::env::consts::ARCH,
            "Platforms": platforms,
            "NCPU": cpus,
            "DockerRootDir": root.to_string(),
            "OperatingSystem": format!("larder {LARDER}"),
        });
        return Ok(output::print(&rendered(&INFO, format, fields)?)?);
    }
    let mut text = format!("Client: larder {LARDER}\n Context:    default\n\nServer:\n");
    for (name, value) in [
        ("Containers", "0".to_owned()),
        ("Images", images.to_string()),
        ("Server Version", DOCKER.to_owned()),
        ("Storage Driver", driver.to_owned()),
        ("Operating System", format!("larder {LARDER}")),
        ("OSType", platform.os.clone()),
        ("Architecture", std::env::consts::ARCH.to_owned()),
        ("Platforms", platforms.join(", ")),
        ("CPUs", cpus.to_string()),
        ("Docker Root Dir", root.to_string()),
    ] {
        writeln!(text, " {name}: {value}").expect("a String takes all");
    }
    Ok(output::print(&text)?)
}

fn rendered(listing: &Listing, format: &str, fields: serde_json::Value) -> anyhow::Result<String> {
    let format = listing.parse_format(format);
    let format = format.map_err(|problem| anyhow!(problem).context("`--format`"))?;
    let row = match fields {
        serde_json::Value::Object(row) => row,
        _ => Row::new(),
    };
    Ok(match format {
        Format::Json => format!("{}\n", serde_json::Value::Object(row)),
        other => listing.render(&other, &[row]),
    })
}
