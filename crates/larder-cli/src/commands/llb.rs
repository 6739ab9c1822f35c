//! `larder llb`: builds and shows LLB definitions.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use larder_engine::request::{
    BuildRequest, ContextSource, ImageOutput, Llb, LlbInput, NoCache, NoCacheSteps, Output,
};

use super::build::secrets::FlagSecrets;
use super::build::ssh::FlagSsh;
use super::build::{self, input, outputs, plan, report};
use super::{Context, policy};
use crate::args::{CacheFromArg, KeyValue, LlbBuildArgs, LlbCommand, LlbDumpArgs};
use crate::exit::{self, Code};
use crate::output;

/// How large a definition may be.
const MAX_BYTES: u64 = 32 << 20;

/// Does what is asked for with a definition. Returns the exit code.
pub(crate) fn run(command: LlbCommand, context: &Context<'_>) -> anyhow::Result<Code> {
    match command {
        LlbCommand::Build(args) => run_build(*args, context),
        LlbCommand::Dump(args) => dump(&args),
    }
}

fn run_build(args: LlbBuildArgs, context: &Context<'_>) -> anyhow::Result<Code> {
    let mode = plan::display_mode(args.progress, args.quiet, context.env)?;
    let mut notes = Vec::new();
    let display = plan::display_options(context, &mut notes);
    notes.extend(args.cache_to.iter().filter_map(|to| to.note.clone()));
    for note in &notes {
        output::tell(&format!("WARNING: {note}"));
    }
    let metadata_file = args.metadata_file.clone();
    let request = request(args, context)?;
    let (outcome, _) = build::build(request, mode, display, context)?;
    if let Some(file) = metadata_file {
        fs_err::write(file, report::metadata(&outcome, &[]))?;
    }
    build::tell(&outcome, mode)?;
    Ok(exit::SUCCESS)
}

fn request(args: LlbBuildArgs, context: &Context<'_>) -> anyhow::Result<BuildRequest> {
    let mut outputs = outputs::of(&args.outputs)?;
    if args.outputs.is_empty() && !args.tags.is_empty() {
        outputs.push(Output::Image(ImageOutput::default()));
    }
    let locals = directories("--local", args.locals)?;
    let layouts = directories("--oci-layout", args.layouts)?;
    let llb = LlbInput::new(&definition(&args.file)?, locals)?.with_layouts(layouts);
    let steps = if args.no_cache {
        NoCacheSteps::All
    } else {
        NoCacheSteps::None
    };
    let cache_imports = args.cache_from.into_iter();
    let source_policy = match &args.source_policy_file {
        Some(file) => policy::read(file).context("`--source-policy-file`")?,
        None => context.source_policy()?,
    };
    Ok(BuildRequest {
        llb: Some(llb),
        build_args: plan::epoch(context.env).into_iter().collect(),
        no_cache: NoCache {
            steps,
            keep_cache_mounts: false,
        },
        entitlements: args.allowed,
        secrets: Arc::new(FlagSecrets::new(args.secrets, context.env)?),
        ssh: Arc::new(FlagSsh::new(args.ssh, context.env)?),
        tags: args.tags,
        outputs,
        cache_imports: cache_imports
            .flat_map(|CacheFromArg(imports)| imports)
            .collect(),
        cache_exports: args.cache_to.into_iter().map(|to| to.export).collect(),
        source_policy,
        ..BuildRequest::new(ContextSource::Empty)
    })
}

fn directories(flag: &str, given: Vec<KeyValue>) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut directories = BTreeMap::new();
    for KeyValue { key, value } in given {
        let Some(directory) = value.map(PathBuf::from) else {
            bail!("`{flag}`: `{key}` needs a directory: `{key}=DIR`");
        };
        input::require_directory(flag, &directory)?;
        directories.insert(key, directory);
    }
    Ok(directories)
}

fn dump(args: &LlbDumpArgs) -> anyhow::Result<Code> {
    let llb = Llb::read(&definition(&args.file)?)?;
    let text = if args.dot {
        llb.to_dot()
    } else {
        llb.to_json()
    };
    output::print(&text?)?;
    Ok(exit::SUCCESS)
}

/// Reads a definition.
fn definition(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        if output::stdin_is_terminal() {
            bail!("a definition is expected in a file, or on standard input");
        }
        io::stdin()
            .take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .context("cannot read standard input")?;
    } else {
        fs_err::File::open(file)?
            .take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > MAX_BYTES {
        bail!("the definition has more than {MAX_BYTES} bytes, as none has");
    }
    Ok(bytes)
}
