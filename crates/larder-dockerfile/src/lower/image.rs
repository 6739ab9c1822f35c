//! Where stages begin: images, named contexts, and what base images order.

use std::collections::BTreeMap;
use std::sync::Arc;

use larder_llb::git::{GitRef, GitSource};
use larder_llb::pb;
use larder_oci::{ImageConfig, ImageRef, Platform};

use super::dag::{Node, NodeRef};
use super::remote::{CONTEXT_FILE, git_node, http_node};
use super::stages::State;
use super::{DEFAULT_PATH, Lowered, Lowering, StepInfo, range};
use crate::error::{Error, ErrorKind};
use crate::golang;
use crate::instruction::InstructionKind;
use crate::options::{
    ImageRequest, LocalContext, LowerOptions, NamedContext, OciLayout, ResolveMode, ResolvedImage,
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
    /// A file on a web server, with the name of its context and its URL.
    Http(String, String),
    /// A git repository.
    Git(GitRef),
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
        layout: None,
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
                layout: None,
            };
            Ok(Origin::Image(request, Some(name.to_owned())))
        }
        NamedContext::OciLayout(layout) => {
            // The reference stands for the image in messages only.
            let (bare, _) = name.split_once("::").unwrap_or((name, ""));
            let image_ref = parse_ref(&format!("{bare}@{}", layout.digest))?;
            let request = ImageRequest {
                log_name: format!("[context {name}] load metadata for {image_ref}"),
                platform: platform.clone(),
                image_ref,
                layout: Some(layout.clone()),
            };
            Ok(Origin::Image(request, Some(name.to_owned())))
        }
        NamedContext::Input(lowered) => Ok(Origin::Input(name.to_owned(), Arc::clone(lowered))),
        NamedContext::Http(url) => Ok(Origin::Http(name.to_owned(), url.clone())),
        NamedContext::Git(named) => Ok(Origin::Git(named.clone())),
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
        Origin::Scratch
        | Origin::Local(..)
        | Origin::Input(..)
        | Origin::Http(..)
        | Origin::Git(_) => Ok(None),
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
                self.begin_with(id, node, platform);
            }
            Origin::Http(name, url) => {
                let shown = format!("[context {name}] {url}");
                let node = http_node(&url, CONTEXT_FILE, None, shown);
                let node = self.dag.add(node.at(self.stages.states[id].lines));
                self.begin_with(id, node, platform);
            }
            Origin::Git(named) => {
                let shown = format!("[internal] load git source {}", named.redacted());
                let node = git_node(&GitSource::new(&named, false), shown);
                let node = self.dag.add(node.at(self.stages.states[id].lines));
                self.begin_with(id, node, platform);
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

    /// Begins a state with files that are no image.
    fn begin_with(&mut self, id: usize, files: NodeRef, platform: Platform) {
        let state = &mut self.stages.states[id];
        state.output = Some(files);
        state.image = empty_config(&platform);
        state.image_platform = Some(platform.clone());
        state.platform = Some(platform);
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
        let pinned = match &request.layout {
            Some(_) => request.image_ref.clone(),
            None => image.image_ref.with_digest(image.digest),
        };
        let is_as_asked = image.image_ref == request.image_ref;
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
        let name = match (&request.layout, context) {
            (Some(_), context) => {
                let name = context.unwrap_or_default();
                format!("[context {name}] OCI load from client")
            }
            (None, Some(name)) => format!("[context {name}] {}", request.image_ref),
            (None, None) => self.next_step(id, &format!("FROM {pinned}")),
        };
        let node = match &request.layout {
            Some(layout) => layout_node(&request.image_ref, layout, name),
            None => image_node(&pinned, self.options.resolve_mode, name),
        };
        let state = &self.stages.states[id];
        let mut node = node.command(&state.code).at(state.lines);
        node.platform = Some(platform);
        node.step = Some(StepInfo {
            context: None,
            stage: state.name.clone(),
            ordinal: state.step_index,
            lines: range(state.lines),
            instruction: state.code.clone(),
            env: BTreeMap::new(),
            base_image: Some(if is_as_asked {
                state.base_name.clone()
            } else {
                image.image_ref.to_string()
            }),
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

fn image_node(pinned: &ImageRef, resolve_mode: ResolveMode, name: String) -> Node {
    let mut source = pb::SourceOp {
        identifier: format!("docker-image://{pinned}"),
        ..pb::SourceOp::default()
    };
    let mode = match resolve_mode {
        ResolveMode::Default => None,
        ResolveMode::Pull => Some("pull"),
        ResolveMode::Local => Some("local"),
    };
    if let Some(mode) = mode {
        let attr = "image.resolvemode".to_owned();
        source.attrs.insert(attr, mode.to_owned());
    }
    let mut node = Node::new(pb::op::Op::Source(source), name);
    node.cap("source.image");
    if mode.is_some() {
        node.cap("source.image.resolvemode");
    }
    node
}

fn layout_node(image_ref: &ImageRef, layout: &OciLayout, name: String) -> Node {
    let mut attrs = BTreeMap::from([("oci.store".to_owned(), layout.store.clone())]);
    if let Some(session) = &layout.session {
        attrs.insert("oci.session".to_owned(), session.clone());
    }
    let source = pb::SourceOp {
        identifier: format!("oci-layout://{image_ref}"),
        attrs: attrs.into_iter().collect(),
    };
    let mut node = Node::new(pb::op::Op::Source(source), name);
    node.cap("source.ocilayout");
    node
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
