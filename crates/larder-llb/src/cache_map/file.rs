//! The cache map of a file op.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use larder_oci::{Digest, go_json};
use serde::Serialize;

use super::path::{absolute, base_name, has_wildcards, without_nested};
use super::{CacheMap, InputKeys, Selector};
use crate::pb;
use pb::file_action::Action;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Key {
    r#type: &'static str,
    actions: Vec<String>,
    #[serde(rename = "indexes", skip_serializing_if = "Vec::is_empty")]
    indexes: Vec<[i64; 3]>,
}

/// What actions read of one input.
#[derive(Default)]
struct Reads {
    selectors: Vec<Selector>,
    /// Whether an action changes the input: then it is keyed by how it was made.
    is_changed: bool,
}

pub(super) fn cache_map(file: &pb::FileOp, input_count: usize) -> CacheMap {
    let reads = reads_of(file, input_count);
    let are_told: Vec<bool> = reads.iter().map(Reads::are_told_by_names).collect();
    let key_of = |action: &pb::FileAction| {
        let mut keyed = action.clone();
        if let Some(Action::Copy(copy)) = &mut keyed.action
            && let Some(input) = input_of(action.secondary_input, input_count)
            && are_told[input]
        {
            copy.src = base_name(&copy.src).to_owned();
        }
        STANDARD.encode(action_json(&keyed))
    };
    let indexes: Vec<[i64; 3]> = file
        .actions
        .iter()
        .map(|action| [action.input, action.secondary_input, action.output])
        .collect();
    let key = Key {
        r#type: "buildkit.file.v0",
        actions: file.actions.iter().map(key_of).collect(),
        indexes: if are_default(&indexes) {
            Vec::new()
        } else {
            indexes
        },
    };
    CacheMap {
        digest: Digest::sha256(go_json(&key)),
        inputs: reads.iter().map(Reads::keys).collect(),
    }
}

/// See [`super::content`].
pub(super) fn content(
    file: &pb::FileOp,
    input_count: usize,
    input: usize,
) -> Option<Vec<Selector>> {
    reads_of(file, input_count).get(input)?.content()
}

/// Returns what the actions read, input by input.
fn reads_of(file: &pb::FileOp, input_count: usize) -> Vec<Reads> {
    let mut reads: Vec<Reads> = Vec::new();
    reads.resize_with(input_count, Reads::default);
    for action in &file.actions {
        if let Some(input) = input_of(action.input, input_count) {
            reads[input].is_changed = true;
        }
        let owner = match &action.action {
            Some(Action::Copy(copy)) => &copy.owner,
            Some(Action::Mkfile(mkfile)) => &mkfile.owner,
            Some(Action::Mkdir(mkdir)) => &mkdir.owner,
            // BuildKit does not look at the owner of a symbolic link here.
            Some(Action::Symlink(_) | Action::Rm(_)) | None => &None,
        };
        for (input, path) in owner_lookups(owner.as_ref()) {
            if let Some(input) = input_of(input, input_count) {
                reads[input].selectors.push(Selector {
                    path: path.to_owned(),
                    follow_links: true,
                    ..Selector::default()
                });
            }
        }
        if let Some(Action::Copy(copy)) = &action.action
            && let Some(input) = input_of(action.secondary_input, input_count)
        {
            reads[input].selectors.push(Selector {
                wildcard: copy.allow_wildcard && has_wildcards(&copy.src),
                path: copy.src.clone(),
                follow_links: copy.follow_symlink,
                include_patterns: copy.include_patterns.clone(),
                exclude_patterns: copy.exclude_patterns.clone(),
                required_paths: copy.required_paths.clone(),
            });
        }
    }
    reads
}

/// Returns the input that `index` of an action names; `None` for an action's output and for none.
fn input_of(index: i64, input_count: usize) -> Option<usize> {
    usize::try_from(index)
        .ok()
        .filter(|&index| index < input_count)
}

impl Reads {
    /// Returns whether the base names in the op tell which action reads what: contents come in the order
    /// of the paths, without plain ones below others, and only names that ascend, too, tell which is
    /// which.
    fn are_told_by_names(&self) -> bool {
        if self.is_changed || self.selectors.len() < 2 {
            return !self.is_changed;
        }
        let told = without_redundant(&self.selectors);
        let mut told: Vec<&str> = told.iter().map(|it| it.path.as_str()).collect();
        told.dedup();
        let is_told = |path: &str| path == absolute(path) && told.binary_search(&path).is_ok();
        let names = told.iter().map(|path| base_name(path));
        self.selectors.iter().all(|it| is_told(&it.path)) && names.is_sorted_by(|a, b| a < b)
    }

    fn content(&self) -> Option<Vec<Selector>> {
        let is_read = !self.is_changed && !self.selectors.is_empty();
        is_read.then(|| without_redundant(&self.selectors))
    }

    fn keys(&self) -> InputKeys {
        let Some(content) = self.content() else {
            return InputKeys::default();
        };
        let paths = self.selectors.iter().map(|it| it.path.as_str());
        let mut paths: Vec<&str> = paths.collect();
        paths.sort_unstable_by(|a, b| b.cmp(a));
        InputKeys {
            selector: Some(Digest::sha256(paths.join("\0"))),
            content: Some(content),
        }
    }
}

/// Returns the inputs, with the files, in which the names of `owner` are looked up.
fn owner_lookups(owner: Option<&pb::ChownOpt>) -> impl Iterator<Item = (i64, &'static str)> {
    let named = |user: Option<&pb::UserOpt>| match user?.user.as_ref()? {
        pb::user_opt::User::ByName(named) => Some(named.input),
        pb::user_opt::User::ById(_) => None,
    };
    let user = owner.and_then(|owner| named(owner.user.as_ref()));
    let group = owner.and_then(|owner| named(owner.group.as_ref()));
    let user = user.map(|input| (input, "/etc/passwd"));
    user.into_iter()
        .chain(group.map(|input| (input, "/etc/group")))
}

/// Returns whether the actions form the usual chain: the first works on input 0, each next one on
/// the result of the one before, and only the last makes an output.
///
/// The first versions of the key had no indexes; those of the usual chain must stay as they were,
/// with their quirk: the result of the action before is counted from the number of actions.
fn are_default(indexes: &[[i64; 3]]) -> bool {
    let count = indexes.len() as i64;
    !indexes.is_empty()
        && (0..)
            .zip(indexes)
            .all(|(position, &[input, secondary, output])| {
                input
                    == (if position == 0 {
                        0
                    } else {
                        count + position - 1
                    })
                    && matches!(secondary, -1 | 1)
                    && output == (if position == count - 1 { 0 } else { -1 })
            })
}

/// Returns the JSON of an action itself, without its indexes.
fn action_json(action: &pb::FileAction) -> Vec<u8> {
    match &action.action {
        Some(Action::Copy(copy)) => go_json(copy),
        Some(Action::Mkfile(mkfile)) => go_json(mkfile),
        Some(Action::Mkdir(mkdir)) => go_json(mkdir),
        Some(Action::Rm(rm)) => go_json(rm),
        Some(Action::Symlink(symlink)) => go_json(symlink),
        None => b"null".to_vec(),
    }
}

/// Returns the selectors sorted by path, without those that another one covers.
fn without_redundant(selectors: &[Selector]) -> Vec<Selector> {
    let plain_paths = |follow_links: bool| {
        let plain = selectors
            .iter()
            .filter(|selector| selector.is_plain() && selector.follow_links == follow_links);
        without_nested(
            &plain
                .map(|selector| selector.path.clone())
                .collect::<Vec<_>>(),
        )
        .into_iter()
        .map(move |path| Selector {
            path,
            follow_links,
            ..Selector::default()
        })
    };
    let mut kept: Vec<Selector> = plain_paths(false).chain(plain_paths(true)).collect();
    kept.extend(
        selectors
            .iter()
            .filter(|selector| !selector.is_plain())
            .cloned(),
    );
    kept.sort_by(|a, b| a.path.cmp(&b.path));
    kept
}
