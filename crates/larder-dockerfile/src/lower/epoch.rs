//! `SOURCE_DATE_EPOCH`: a number of seconds, or what has the time.

use std::collections::BTreeMap;

use larder_llb::git::GitSource;
use larder_llb::{Definition, pb};

use super::env::Env;
use super::remote::{CONTEXT_FILE, http_op};
use super::stages::global_args;
use crate::dockerfile::{Dockerfile, Stage};
use crate::error::Error;
use crate::expand::Variables as _;
use crate::golang;
use crate::instruction::InstructionKind;
use crate::options::{
    ImageRequest, ImageResolver, LowerOptions, NamedContext, ResolveError, ResolvedImage,
};

const NAME: &str = "SOURCE_DATE_EPOCH";
/// Stands for the build context.
const CONTEXT: &str = "context";

/// What has the time that `SOURCE_DATE_EPOCH` asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum EpochSource {
    /// Files that have none.
    Untimed,
    /// A git repository, or a file on a web server; and what its vertex is called.
    Source(pb::SourceOp, String),
}

impl Dockerfile {
    /// Returns what is to be asked for the time, if `SOURCE_DATE_EPOCH` is neither a number nor
    /// empty. [`Dockerfile::lower`] takes only the number that comes of it.
    ///
    /// # Errors
    /// When nothing has that name, or what has it is no source.
    pub fn epoch_source(&self, options: &LowerOptions) -> Result<Option<EpochSource>, Error> {
        let (global, _) = global_args(self, options)?;
        let Some(text) = text(options, &global) else {
            return Ok(None);
        };
        if text.parse::<i64>().is_ok() {
            return Ok(None);
        }
        if text == CONTEXT {
            let name = "[internal] resolve main build context metadata".to_owned();
            return Ok(Some(match &options.remote_context {
                Some(definition) => source_of(definition, name),
                None => EpochSource::Untimed,
            }));
        }
        if let Some(context) = options.named_contexts.get(text) {
            let name = format!("[internal] resolve {NAME} named context {text}");
            return Ok(Some(match context {
                NamedContext::Git(named) => {
                    EpochSource::Source(GitSource::new(named, false).to_op(), name)
                }
                NamedContext::Http(url) => {
                    EpochSource::Source(http_op(url, CONTEXT_FILE, None), name)
                }
                _ => EpochSource::Untimed,
            }));
        }
        let wanted = text.to_lowercase();
        let mut stages = self.stages.iter();
        match stages.find(|stage| stage.from.name.as_deref() == Some(&wanted)) {
            Some(stage) => self.stage_source(stage, &wanted, options).map(Some),
            None => Err(invalid(text)),
        }
    }

    /// Returns the only thing that a stage is made of.
    fn stage_source(
        &self,
        stage: &Stage,
        name: &str,
        options: &LowerOptions,
    ) -> Result<EpochSource, Error> {
        if stage.from.base != "scratch" {
            let message = format!("{NAME} stage must use FROM scratch");
            return Err(Error::options(message).at(stage.from.lines));
        }
        let mut adds = 0;
        for instruction in &stage.instructions {
            match &instruction.kind {
                InstructionKind::Arg(_) => {}
                InstructionKind::Copy(copy) if copy.is_add => adds += 1,
                _ => {
                    let keyword = instruction.keyword.to_uppercase();
                    let message = format!(
                        "{NAME} stage does not meet source-only requirements: unsupported {keyword} instruction"
                    );
                    return Err(Error::options(message).at(instruction.lines));
                }
            }
        }
        if adds != 1 {
            let message = format!("{NAME} stage must contain exactly one remote ADD");
            return Err(Error::options(message).at(stage.from.lines));
        }
        let mut options = LowerOptions {
            target: Some(name.to_owned()),
            named_contexts: BTreeMap::new(),
            ..options.clone()
        };
        options.build_args.insert(NAME.to_owned(), String::new());
        let lowered = self.lower(&options, &NoImages)?;
        let log = format!("[internal] resolve {NAME} source stage {name}");
        match source_of(&lowered.definition, log) {
            EpochSource::Untimed => {
                let message = format!("{NAME} source must be a single HTTP(S) or Git ADD");
                Err(Error::options(message).at(stage.from.lines))
            }
            source @ EpochSource::Source(..) => Ok(source),
        }
    }
}

/// Knows no image: a stage that is one source needs none.
struct NoImages;

impl ImageResolver for NoImages {
    fn resolve_image_config(&self, _: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        Err(format!("{NAME} stage must use FROM scratch").into())
    }
}

/// Returns the number of seconds, if there is one.
pub(super) fn seconds(options: &LowerOptions, global: &Env) -> Result<Option<i64>, Error> {
    let number = |text: &str| text.parse().map_err(|_| invalid(text));
    text(options, global).map(number).transpose()
}

/// Reads the build's or the Dockerfile's global arguments.
fn text<'a>(options: &'a LowerOptions, global: &'a Env) -> Option<&'a str> {
    let given = options.build_args.get(NAME).map(String::as_str);
    given
        .or_else(|| global.get(NAME))
        .filter(|value| !value.is_empty())
}

/// Returns what a graph begins with, if that is one source that has a time.
fn source_of(definition: &Definition, name: String) -> EpochSource {
    let sources = definition
        .vertices()
        .iter()
        .filter_map(|vertex| match &vertex.op.op {
            Some(pb::op::Op::Source(source)) => Some(source),
            _ => None,
        });
    match sources.collect::<Vec<_>>()[..] {
        [source] if is_remote(&source.identifier) => EpochSource::Source(source.clone(), name),
        _ => EpochSource::Untimed,
    }
}

fn is_remote(identifier: &str) -> bool {
    let schemes = ["git://", "http://", "https://"];
    schemes.iter().any(|scheme| identifier.starts_with(scheme))
}

fn invalid(text: &str) -> Error {
    Error::options(format!("invalid {NAME}: {}", golang::quote(text)))
}
