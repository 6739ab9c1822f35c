//! COPY, ADD, WORKDIR and here-documents: actions on a fresh snapshot.

use std::cell::OnceCell;
use std::collections::HashMap;

use larder_llb::{Vertex, pb};
use larder_store::{ActiveImage, ActiveSnapshot, ActiveTree, NewSnapshot, RecordType};
use larder_tree::beneath::Root;
use larder_tree::copy::{self, CopyOptions, FileAttributes, MkdirOptions, ModeChange};
use larder_tree::erofs::Past;
use larder_tree::quota::Quota;
use larder_tree::sink::Sink;
use larder_tree::{quota, users};
use pb::file_action::Action;

use crate::config::LayersConfig;
use crate::error::{BuildError, ErrorClass, Result};
use crate::progress::VertexProgress;
use crate::solve::WorkError;
use crate::worker::{BuildWorker, ResultRef};

pub(crate) mod many;

/// Permission bits that an action takes.
const MODE_MASK: i32 = 0o7777;
/// What is said where a source of a copy is missing.
pub(crate) const CHECKSUM_FAILED: &str = "failed to calculate checksum of ref";

/// Does the actions of `file`. Returns a result for each of `outputs`.
pub(crate) fn run(
    worker: &BuildWorker<'_>,
    vertex: &Vertex,
    file: &pb::FileOp,
    outputs: &[usize],
    inputs: &[ResultRef],
    progress: &VertexProgress<'_>,
) -> Result<Vec<ResultRef>, WorkError> {
    let mut op = FileOp {
        worker,
        vertex,
        file,
        inputs,
        progress,
        makes_images: false,
        states: HashMap::new(),
        past: OnceCell::new(),
    };
    op.makes_images = op.is_better_an_image()?;
    let mut results = HashMap::new();
    for (position, action) in file.actions.iter().enumerate() {
        op.act(position, action)?;
        if let Ok(output) = usize::try_from(action.output) {
            results.insert(output, op.read(op.index_of(position), None)?);
        }
    }
    let result = |output: &usize| {
        results
            .get(output)
            .cloned()
            .ok_or_else(|| BuildError::invalid(format!("the step has no output {output}")).into())
    };
    outputs.iter().map(result).collect()
}

/// A tree that an action has made.
enum State {
    /// Still writable, for the next action.
    Active(Writable),
    Committed(ResultRef),
}

/// A tree that is being written.
enum Writable {
    Directory {
        tree: ActiveTree,
        active: ActiveSnapshot,
    },
    Image(Box<ActiveImage>),
}

impl Writable {
    fn commit(self) -> Result<ResultRef> {
        match self {
            Self::Directory { active, .. } => BuildWorker::commit(active),
            Self::Image(image) => Ok(ResultRef::Snapshot(image.commit_soon()?)),
        }
    }
}

/// Where an action does what it does.
struct Target<'a, S> {
    tree: &'a S,
    quota: &'a dyn Quota,
    /// Where names of users are looked up, if that is possible.
    names: Option<&'a Root>,
}

impl<S> Target<'_, S> {
    /// Takes the room for `length` bytes at `path`, with the directories that lead there.
    fn take(&self, path: &str, length: usize) -> Result<()> {
        let bytes = quota::content_bytes(length as u64) + quota::directories_bytes(path.as_ref());
        let failed = |error| larder_tree::Error::io(format!("cannot write `{path}`"), error);
        Ok(self.quota.take(bytes).map_err(failed)?)
    }
}

struct FileOp<'a> {
    worker: &'a BuildWorker<'a>,
    vertex: &'a Vertex,
    file: &'a pb::FileOp,
    inputs: &'a [ResultRef],
    progress: &'a VertexProgress<'a>,
    /// Whether what is written goes into images, where it can.
    makes_images: bool,
    /// What the actions have made, by the index that other actions name it with.
    states: HashMap<i64, State>,
    /// What the step made in the last build.
    past: OnceCell<Option<Past>>,
}

impl FileOp<'_> {
    fn index_of(&self, position: usize) -> i64 {
        (self.inputs.len() + position) as i64
    }

    fn act(&mut self, position: usize, action: &pb::FileAction) -> Result<(), WorkError> {
        let writable = self.write(action.input)?;
        match &writable {
            Writable::Directory { tree, active } => {
                let names = if self.names_inputs(action) {
                    None
                } else {
                    Some(view(active)?)
                };
                let (quota, names) = (active.quota(), names.as_ref());
                match tree {
                    ActiveTree::Upper(tree) => {
                        self.change(&Target { tree, quota, names }, action)?;
                    }
                    ActiveTree::Whole(tree) => {
                        self.change(&Target { tree, quota, names }, action)?;
                    }
                }
            }
            Writable::Image(image) => self.change(
                &Target {
                    tree: image.tree(),
                    quota: image.quota(),
                    names: None,
                },
                action,
            )?,
        }
        self.states
            .insert(self.index_of(position), State::Active(writable));
        Ok(())
    }

    fn change<S: Sink>(
        &mut self,
        target: &Target<'_, S>,
        action: &pb::FileAction,
    ) -> Result<(), WorkError> {
        let tree = target.tree;
        match &action.action {
            Some(Action::Copy(copy)) => self.copy(target, action, copy)?,
            Some(Action::Mkdir(mkdir)) => {
                target.take(&mkdir.path, 0)?;
                let options = MkdirOptions {
                    mode: (mkdir.mode & MODE_MASK) as u32,
                    make_parents: mkdir.make_parents,
                    attributes: self.attributes(
                        target.names,
                        mkdir.owner.as_ref(),
                        mkdir.timestamp,
                    )?,
                };
                copy::mkdir(tree, &mkdir.path, &options).map_err(BuildError::from)?;
            }
            Some(Action::Mkfile(mkfile)) => {
                target.take(&mkfile.path, mkfile.data.len())?;
                let attributes =
                    self.attributes(target.names, mkfile.owner.as_ref(), mkfile.timestamp)?;
                let mode = (mkfile.mode & MODE_MASK) as u32;
                copy::mkfile(tree, &mkfile.path, mode, &mkfile.data, attributes)
                    .map_err(BuildError::from)?;
            }
            Some(Action::Rm(rm)) => {
                target.take(&rm.path, 0)?;
                copy::remove(tree, &rm.path, rm.allow_not_found, rm.allow_wildcard)
                    .map_err(BuildError::from)?;
            }
            Some(Action::Symlink(symlink)) => {
                target.take(&symlink.newpath, symlink.oldpath.len())?;
                let attributes =
                    self.attributes(target.names, symlink.owner.as_ref(), symlink.timestamp)?;
                copy::symlink(tree, &symlink.oldpath, &symlink.newpath, attributes)
                    .map_err(BuildError::from)?;
            }
            None => return Err(BuildError::invalid("a file action of an unknown kind").into()),
        }
        Ok(())
    }

    /// Returns whether what this op writes is better an image than a directory: if it copies many files. Names
    /// of users can't be looked up in an image that is being written.
    fn is_better_an_image(&self) -> Result<bool, WorkError> {
        let worker = self.worker;
        let mut actions = self.file.actions.iter();
        if !worker.store().makes_images() || !actions.all(|action| self.names_inputs(action)) {
            return Ok(false);
        }
        if worker.engine.config.store.layers == LayersConfig::Erofs {
            return Ok(true);
        }
        for action in &self.file.actions {
            let (Some(Action::Copy(copy)), Some(source)) =
                (&action.action, self.input(action.secondary_input))
            else {
                continue;
            };
            let unpacks = copy.attempt_unpack_docker_compatibility;
            let many = worker.tree(&self.inputs[source], |tree| {
                many::makes_many(tree, &copy.src, unpacks)
            });
            if many.map_err(|error| lost(Some(source), error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the input of the op that `index` names, if it names one.
    fn input(&self, index: i64) -> Option<usize> {
        let input = usize::try_from(index).ok();
        input.filter(|&input| input < self.inputs.len())
    }

    /// Returns whether all users that an action names are looked up in inputs of the op.
    fn names_inputs(&self, action: &pb::FileAction) -> bool {
        let Some(owner) = owner_of(action) else {
            return true;
        };
        let mut users = [&owner.user, &owner.group].into_iter().flatten();
        users.all(|it| match &it.user {
            Some(pb::user_opt::User::ByName(named)) => self.input(named.input).is_some(),
            Some(pb::user_opt::User::ById(_)) | None => true,
        })
    }

    /// Returns a writable tree that begins as what `index` names: what an action before has left,
    /// if no other action needs it.
    fn write(&mut self, index: i64) -> Result<Writable, WorkError> {
        let uses = self
            .file
            .actions
            .iter()
            .flat_map(|action| [action.input, action.secondary_input]);
        let is_shared = uses.filter(|&used| used == index).count() > 1;
        if !is_shared
            && matches!(self.states.get(&index), Some(State::Active(_)))
            && let Some(State::Active(writable)) = self.states.remove(&index)
        {
            return Ok(writable);
        }
        let input = self.input(index);
        let parent = if index == -1 {
            None
        } else {
            let result = self.read(index, input)?;
            let snapshot = self.worker.snapshot_of(&result);
            Some(snapshot.map_err(|error| lost(input, error))?)
        };
        let new = NewSnapshot {
            parent: parent.as_ref(),
            description: &self.vertex.name(),
            record_type: RecordType::Regular,
        };
        let lease = &self.worker.lease;
        if self.makes_images
            && let Some(image) = lease.prepare_image(&new).map_err(BuildError::from)?
        {
            return Ok(Writable::Image(Box::new(image)));
        }
        let active = lease.prepare(&new).map_err(BuildError::from)?;
        let tree = active.tree().map_err(BuildError::from)?;
        Ok(Writable::Directory { tree, active })
    }

    /// Returns what `index` names, which no action changes any more.
    fn read(&mut self, index: i64, input: Option<usize>) -> Result<ResultRef, WorkError> {
        if let Some(input) = input.or_else(|| self.input(index)) {
            return Ok(self.inputs[input].clone());
        }
        let committed = match self.states.remove(&index) {
            Some(State::Committed(result)) => result,
            Some(State::Active(writable)) => writable.commit()?,
            None => return Err(BuildError::invalid("a file action reads what is not there").into()),
        };
        self.states
            .insert(index, State::Committed(committed.clone()));
        Ok(committed)
    }

    fn copy<S: Sink>(
        &mut self,
        target: &Target<'_, S>,
        action: &pb::FileAction,
        copy: &pb::FileActionCopy,
    ) -> Result<(), WorkError> {
        let attributes = self.attributes(target.names, copy.owner.as_ref(), copy.timestamp)?;
        let mode = match (copy.mode_str.as_str(), copy.mode) {
            ("", -1) => None,
            ("", mode) => Some(ModeChange::octal((mode & MODE_MASK) as u32)),
            (text, _) => Some(text.parse().map_err(BuildError::from)?),
        };
        let options = CopyOptions {
            src: copy.src.clone(),
            dest: copy.dest.clone(),
            owner: attributes.owner,
            mode,
            follow_symlink: copy.follow_symlink,
            dir_copy_contents: copy.dir_copy_contents,
            unpack_archives: copy.attempt_unpack_docker_compatibility,
            create_dest_path: copy.create_dest_path,
            allow_wildcard: copy.allow_wildcard,
            allow_empty_wildcard: copy.allow_empty_wildcard,
            timestamp: attributes.timestamp,
            include_patterns: copy.include_patterns.clone(),
            exclude_patterns: copy.exclude_patterns.clone(),
            always_replace_existing_dest_paths: copy.always_replace_existing_dest_paths,
            required_paths: copy.required_paths.clone(),
        };
        let index = action.secondary_input;
        if index == -1 {
            return Err(BuildError::invalid("a copy has no source").into());
        }
        let input = self.input(index);
        let source = self.read(index, input)?;
        self.worker.tree(&source, |tree| {
            let past = self.past();
            let copied = copy::copy_again(tree, target.tree, &options, target.quota, past);
            copied.map(drop).map_err(|error| match error.kind() {
                // Nothing had asked for the content before, where a missing source shows else.
                larder_tree::ErrorKind::NotFound => {
                    BuildError::from(error).context(CHECKSUM_FAILED)
                }
                _ => error.into(),
            })
        })?;
        Ok(())
    }

    /// Returns the image that the step made in the last build, to take over what has not changed.
    fn past(&self) -> Option<&Past> {
        let open = || {
            // Who ignores the cache may doubt what is in it.
            if self.vertex.ignores_cache() {
                return None;
            }
            let key = self.worker.history.key_before(self.vertex)?;
            let past = self.worker.lease.past(key);
            past.unwrap_or_else(|error| {
                tracing::debug!(%error, "nothing is taken over");
                None
            })
        };
        self.past.get_or_init(open).as_ref()
    }

    /// Returns owner and time. Names are looked up in the tree that the op names, or else in
    /// `target`. A name that is not there stands for root, as in BuildKit; the user is warned.
    fn attributes(
        &self,
        target: Option<&Root>,
        owner: Option<&pb::ChownOpt>,
        timestamp: i64,
    ) -> Result<FileAttributes, WorkError> {
        let timestamp = (timestamp != -1).then_some(timestamp);
        let Some(owner) = owner else {
            return Ok(FileAttributes {
                owner: None,
                timestamp,
            });
        };
        let user = owner.user.as_ref().and_then(|user| user.user.as_ref());
        let group = owner.group.as_ref().and_then(|group| group.user.as_ref());
        let user_root = self.names_root(user)?;
        let group_root = self.names_root(group)?;
        let found = users::resolve_owner(
            user.map(|user| (id(user), user_root.as_ref().or(target))),
            group.map(|group| (id(group), group_root.as_ref().or(target))),
        )
        .map_err(BuildError::from)?;
        for name in &found.missing {
            self.progress.warn(format!(
                "`--chown`: `{name}` is not in the image: 0 is taken"
            ));
        }
        Ok(FileAttributes {
            owner: Some((found.uid, found.gid)),
            timestamp,
        })
    }

    /// Opens the tree in which a name is looked up; `None` for `target`, or for a number.
    fn names_root(&self, user: Option<&pb::user_opt::User>) -> Result<Option<Root>, WorkError> {
        let Some(pb::user_opt::User::ByName(named)) = user else {
            return Ok(None);
        };
        let Some(input) = self.input(named.input) else {
            return Ok(None);
        };
        let view = self
            .worker
            .open_view(&self.inputs[input])
            .map_err(|error| lost(Some(input), error))?;
        Ok(Some(Root::from_fd(view)))
    }
}

/// Opens what a snapshot shows that nobody is writing to at the moment.
fn view(active: &ActiveSnapshot) -> Result<Root> {
    let mount = active.view()?;
    Ok(Root::from_fd(larder_exec::mount::open(&mount)?))
}

/// Returns whom an action gives its files to.
fn owner_of(action: &pb::FileAction) -> Option<&pb::ChownOpt> {
    match action.action.as_ref()? {
        Action::Copy(copy) => copy.owner.as_ref(),
        Action::Mkfile(mkfile) => mkfile.owner.as_ref(),
        Action::Mkdir(mkdir) => mkdir.owner.as_ref(),
        Action::Symlink(symlink) => symlink.owner.as_ref(),
        Action::Rm(_) => None,
    }
}

fn id(user: &pb::user_opt::User) -> users::Id<'_> {
    match user {
        pb::user_opt::User::ById(id) => users::Id::Number(*id),
        pb::user_opt::User::ByName(named) => users::Id::Name(&named.name),
    }
}

/// Tells the loss of an input from other failures.
fn lost(input: Option<usize>, error: BuildError) -> WorkError {
    match input {
        Some(input) if error.class() == ErrorClass::NotFound => WorkError::InputLost(input, error),
        _ => WorkError::Failed(error),
    }
}
