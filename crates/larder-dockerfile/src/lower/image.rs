//! Where stages begin: images, named contexts, and what base images order.

use std::sync::Arc;

use larder_llb::pb;
use larder_oci::{ImageConfig, ImageRef, Platform};

use super::dag::Node;
use super::stages::State;
use super::{DEFAULT_PATH, Lowered, Lowering, StepInfo, range};
use crate::error::{Error, ErrorKind};
use crate::golang;
use crate::instruction::InstructionKind;
use crate::options::{
    ImageRequest, LocalContext, LowerOptions, NamedContext, ResolveMode, ResolvedImage,
};
use crate::suggest::with_suggestion;

const SCRATCH: &str = "scratch";
/// Images whose names people misspell.
const COMMON_IMAGES: [&str; 7] = [
    "alpine", "busybox", "centos", "debian", "fedora", "golang", "ubuntu",
];

/// What a stage begins with.
enum Origin {
    Scratch,
    /// A directory, with the name of its context.
    Local(String, LocalContext),
    /// An image, with the name of its context if it has one.
    Image(ImageRequest, Option<String>),
    /// What another Dockerfile builds, with the name of its context.
    Input(String, Arc<Lowered>),
}

/// Finds what the state begins with, before anything is looked up.
fn origin(options: &LowerOptions, state: &State) -> Result<Origin, Error> {
    let default = options.target_platform();
    let platform = state.platform.as_ref().unwrap_or(default);
    if let Some((name, context)) = &state.context {
        return context_origin(name, context, platform);
    }
    if state.base_name == SCRATCH {
        return Ok(Origin::Scratch);
    }
    let image_ref = parse_ref(&state.base_name).map_err(|error| {
        let name = golang::quote(&state.base_name);
        error.map_message(|text| format!("failed to parse stage name {name}: {text}"))
    })?;
    let named = named_context(options, &image_ref.to_string(), Some(platform))?;
    if let Some((name, context)) = named {
        return context_origin(&name, &context, platform);
    }
    let prefix = if options.multi_platform {
        format!("{platform} ")
    } else {
        String::new()
    };
    let request = ImageRequest {
        log_name: format!("[{prefix}internal] load metadata for {image_ref}"),
        platform: platform.clone(),
        image_ref,
    };
    Ok(Origin::Image(request, None))
}

fn context_origin(
    name: &str,
    context: &NamedContext,
    platform: &Platform,
) -> Result<Origin, Error> {
    match context {
        NamedContext::Local(local) => Ok(Origin::Local(name.to_owned(), local.clone())),
        NamedContext::Image(text) if text == SCRATCH => Ok(Origin::Scratch),
        NamedContext::Image(text) => {
            let image_ref = parse_ref(text)?;
            let request = ImageRequest {
                log_name: format!("[context {name}] load metadata for {text}"),
                platform: platform.clone(),
                image_ref,
            };
            Ok(Origin::Image(request, Some(name.to_owned())))
        }
        NamedContext::Input(lowered) => Ok(Origin::Input(name.to_owned(), Arc::clone(lowered))),
        NamedContext::Other(url) => Err(Error::unsupported(format!(
            "build context `{name}` is not available: larder can't use `{url}` as a named context yet, \
             only directories and docker-image:// references"
        ))),
    }
}

fn parse_ref(text: &str) -> Result<ImageRef, Error> {
    text.parse()
        .map_err(|error: larder_oci::ImageRefError| Error::dockerfile(error.to_string()))
}

/// Returns the image to look up for a state; `None` when it begins with something else.
pub(super) fn request(
    options: &LowerOptions,
    state: &State,
) -> Result<Option<ImageRequest>, Error> {
    if state.base.is_some() {
        return Ok(None);
    }
    match origin(options, state).map_err(|error| error.at(state.lines))? {
        Origin::Image(request, _) => Ok(Some(request)),
        Origin::Scratch | Origin::Local(..) | Origin::Input(..) => Ok(None),
    }
}

/// Finds the named context for a stage or image. Names are compared as image references, without
/// `:latest`; one for a platform, `name::os/architecture`, comes first.
pub(super) fn named_context(
    options: &LowerOptions,
    name: &str,
    platform: Option<&Platform>,
) -> Result<Option<(String, NamedContext)>, Error> {
    if options.named_contexts.is_empty()
        || name.eq_ignore_ascii_case(SCRATCH)
        || name.eq_ignore_ascii_case("context")
    {
        return Ok(None);
    }
    let wanted = context_name(name)
        .ok_or_else(|| Error::dockerfile(format!("invalid context name {name}")))?;
    let platform = platform.unwrap_or_else(|| options.target_platform());
    let for_platform = format!("{wanted}::{platform}");
    let find = |wanted: &str| {
        let mut contexts = options.named_contexts.iter();
        contexts.find(|(key, _)| {
            let (name, platform) = key.split_once("::").unwrap_or((key, ""));
            let separator = if platform.is_empty() { "" } else { "::" };
            let name = context_name(name).unwrap_or_else(|| name.to_owned());
            format!("{name}{separator}{platform}") == wanted
        })
    };
    if let Some((_, context)) = find(&for_platform) {
        return Ok(Some((for_platform, context.clone())));
    }
    Ok(find(&wanted).map(|(_, context)| (wanted.clone(), context.clone())))
}

fn context_name(name: &str) -> Option<String> {
    let image_ref: ImageRef = name.parse().ok()?;
    let familiar = image_ref.familiar();
    Some(
        familiar
            .strip_suffix(":latest")
            .unwrap_or(&familiar)
            .to_owned(),
    )
}

/// The config that building from nothing begins with.
fn empty_config(platform: &Platform) -> ImageConfig {
    let mut config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
        variant: platform.variant.clone(),
        ..ImageConfig::default()
    };
    "/".clone_into(&mut config.config.working_dir);
    config.config.env.push(format!("PATH={DEFAULT_PATH}"));
    config
}

/// An image without layers is as good as scratch.
fn has_layers(config: &ImageConfig) -> bool {
    !config.rootfs.diff_ids.is_empty() || config.history.iter().any(|entry| !entry.empty_layer)
}

impl Lowering<'_> {
    /// Looks up the images that the target needs, and adds what they order with ONBUILD, which
    /// may ask for more. Returns which states are needed.
    pub(super) fn resolve_stages(&mut self) -> Result<Vec<bool>, Error> {
        loop {
            let reachable = self.stages.reachable();
            for id in (0..reachable.len()).filter(|&id| reachable[id]) {
                let state = &self.stages.states[id];
                if state.base.is_none() && !state.resolved {
                    let lines = state.lines;
                    self.resolve(id).map_err(|error| error.at(lines))?;
                }
            }
            let mut new_sources = false;
            for id in (0..reachable.len()).filter(|&id| reachable[id]) {
                new_sources |= self.take_triggers(id)?;
            }
            if !new_sources {
                return Ok(reachable);
            }
        }
    }

    fn take_triggers(&mut self, id: usize) -> Result<bool, Error> {
        let state = &mut self.stages.states[id];
        if std::mem::replace(&mut state.triggers_taken, true) {
            return Ok(false);
        }
        let triggers: Vec<String> = match state.base {
            None => std::mem::take(&mut state.image.config.on_build),
            Some(base) => {
                let commands = self.stages.states[base].commands.iter();
                let triggers = commands.filter_map(|command| match &command.instruction.kind {
                    InstructionKind::Onbuild(trigger) => Some(trigger.clone()),
                    _ => None,
                });
                triggers.collect()
            }
        };
        if self.stages.states[id].dispatched {
            return Ok(false);
        }
        self.stages.add_triggers(id, &triggers)
    }

    /// Gives a state that is not built from another stage what it begins with.
    fn resolve(&mut self, id: usize) -> Result<(), Error> {
        let state = &self.stages.states[id];
        let default = self.options.target_platform();
        let platform = state.platform.clone().unwrap_or_else(|| default.clone());
        let (replaced, is_stage, paths) = (state.context.is_some(), state.is_stage, state.paths);
        match origin(self.options, state)? {
            Origin::Scratch => {
                let state = &mut self.stages.states[id];
                state.image = empty_config(default);
                state.platform = Some(default.clone());
            }
            Origin::Local(name, local) => {
                let node = self.locals.add_named(&mut self.dag, &name, &local, paths);
                let state = &mut self.stages.states[id];
                state.output = Some(node);
                state.image = empty_config(&platform);
                state.image_platform = Some(platform.clone());
                state.platform = Some(platform);
            }
            Origin::Image(request, context) => self.resolve_image(id, &request, context)?,
            Origin::Input(name, lowered) => self.resolve_input(id, &name, &lowered, platform),
        }
        let state = &mut self.stages.states[id];
        state.resolved = true;
        // What stands in for a whole stage, or is only read, has no instructions.
        state.dispatched = replaced || !is_stage;
        Ok(())
    }

    fn resolve_image(
        &mut self,
        id: usize,
        request: &ImageRequest,
        context: Option<String>,
    ) -> Result<(), Error> {
        let image = self.look_up(id, request)?;
        let mut platform = request.platform.clone();
        let state = &mut self.stages.states[id];
        if state.platform.is_none() && self.options.platform.is_none() {
            platform = detected_platform(&image.config, platform, &self.options.build_platform);
        }
        let pinned = request.image_ref.with_digest(image.digest);
        state.image = image.config.clone();
        state.image.created = None;
        state.base_image = Some((pinned.clone(), image.config.clone()));
        state.platform = Some(platform.clone());
        if !has_layers(&image.config) {
            return Ok(());
        }
        state.image_platform = Some(platform.clone());
        if context.is_none() {
            self.lint.enter(state.lines, &state.lint);
            let config = &image.config;
            self.lint.base_platform(&state.base_name, &platform, config);
        }
        let mut source = pb::SourceOp {
            identifier: format!("docker-image://{pinned}"),
            ..pb::SourceOp::default()
        };
        let mode = match self.options.resolve_mode {
            ResolveMode::Default => None,
            ResolveMode::Pull => Some("pull"),
            ResolveMode::Local => Some("local"),
        };
        if let Some(mode) = mode {
            let attr = "image.resolvemode".to_owned();
            source.attrs.insert(attr, mode.to_owned());
        }
        let name = match context {
            Some(name) => format!("[context {name}] {}", request.image_ref),
            None => self.next_step(id, &format!("FROM {pinned}")),
        };
        let state = &self.stages.states[id];
        let mut node = Node::new(pb::op::Op::Source(source), name)
            .command(&state.code)
            .at(state.lines);
        node.platform = Some(platform);
        node.cap("source.image");
        if mode.is_some() {
            node.cap("source.image.resolvemode");
        }
        node.step = Some(StepInfo {
            context: None,
            stage: state.name.clone(),
            ordinal: state.step_index,
            lines: range(state.lines),
            instruction: state.code.clone(),
            env: std::collections::BTreeMap::new(),
            base_image: Some(state.base_name.clone()),
        });
        let output = self.dag.add(node);
        self.stages.states[id].output = Some(output);
        Ok(())
    }

    /// Begins a state with what another Dockerfile builds: its tree, its config with the history,
    /// the image it stands on.
    fn resolve_input(&mut self, id: usize, name: &str, lowered: &Arc<Lowered>, platform: Platform) {
        let has_tree = lowered.definition.result().is_some();
        let node = has_tree.then(|| self.dag.add(Node::input(name, lowered)));
        let config = &lowered.config;
        let platform = if config.os.is_empty() || config.architecture.is_empty() {
            platform
        } else {
            config.platform()
        };
        let state = &mut self.stages.states[id];
        state.output = node;
        state.image = ImageConfig {
            created: None,
            ..config.clone()
        };
        state.base_image.clone_from(&lowered.base);
        state.image_platform = has_tree.then(|| platform.clone());
        state.platform = Some(platform);
    }

    fn look_up(&mut self, id: usize, request: &ImageRequest) -> Result<ResolvedImage, Error> {
        let key = (request.image_ref.clone(), request.platform.clone());
        if let Some(known) = self.resolved.get(&key) {
            return Ok(known.clone());
        }
        let found = self.resolver.resolve_image_config(request);
        let image = found.map_err(|cause| {
            let name = &self.stages.states[id].base_name;
            let names = self.stages.names().chain(COMMON_IMAGES);
            let message = with_suggestion(format!("{name}: {cause}"), name, names);
            Error::new(ErrorKind::Image, message).caused_by(cause)
        })?;
        self.resolved.insert(key, image.clone());
        Ok(image)
    }
}

/// Without a platform asked for, an image for another one that the build can run is taken as it
/// is.
fn detected_platform(config: &ImageConfig, wanted: Platform, build: &Platform) -> Platform {
    let same = |platform: &Platform| {
        platform.os == config.os && platform.architecture == config.architecture
    };
    if !same(&wanted) && same(build) {
        return build.clone();
    }
    wanted
}
