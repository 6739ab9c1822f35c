//! The wire types as Go's `encoding/json` writes them: what BuildKit hashes into cache keys, and
//! shows to people. Fields come in the order of their declaration and are left out where they are
//! zero; bytes are base64, enums numbers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

use crate::pb;
use pb::file_action::Action;
use pb::op::Op;
use pb::user_opt::User;

pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

pub(crate) fn base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

pub(crate) fn base64_list<S: Serializer>(
    list: &[Vec<u8>],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter().map(|bytes| STANDARD.encode(bytes)))
}

impl Serialize for pb::Op {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Go<'a> {
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            inputs: &'a [pb::Input],
            #[serde(rename = "Op")]
            op: Body<'a>,
            #[serde(skip_serializing_if = "Option::is_none")]
            platform: Option<&'a pb::Platform>,
            #[serde(skip_serializing_if = "Option::is_none")]
            constraints: Option<&'a pb::WorkerConstraints>,
        }
        Go {
            inputs: &self.inputs,
            op: Body(self.op.as_ref()),
            platform: self.platform.as_ref(),
            constraints: self.constraints.as_ref(),
        }
        .serialize(serializer)
    }
}

/// An object with one field, named for what the op is; with none for no op.
struct Body<'a>(Option<&'a Op>);

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            None => one_of::<S, ()>(serializer, None),
            Some(Op::Exec(op)) => one_of(serializer, Some(("exec", op))),
            Some(Op::Source(op)) => one_of(serializer, Some(("source", op))),
            Some(Op::File(op)) => one_of(serializer, Some(("file", op))),
            Some(Op::Build(op)) => one_of(serializer, Some(("build", op))),
            Some(Op::Merge(op)) => one_of(serializer, Some(("merge", op))),
            Some(Op::Diff(op)) => one_of(serializer, Some(("diff", op))),
            Some(Op::Passthrough(op)) => one_of(serializer, Some(("passthrough", op))),
        }
    }
}

impl Serialize for pb::FileAction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Go<'a> {
            input: i64,
            #[serde(rename = "secondaryInput")]
            secondary_input: i64,
            output: i64,
            #[serde(rename = "Action")]
            action: ActionBody<'a>,
        }
        Go {
            input: self.input,
            secondary_input: self.secondary_input,
            output: self.output,
            action: ActionBody(self.action.as_ref()),
        }
        .serialize(serializer)
    }
}

struct ActionBody<'a>(Option<&'a Action>);

impl Serialize for ActionBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            None => one_of::<S, ()>(serializer, None),
            Some(Action::Copy(action)) => one_of(serializer, Some(("copy", action))),
            Some(Action::Mkfile(action)) => one_of(serializer, Some(("mkfile", action))),
            Some(Action::Mkdir(action)) => one_of(serializer, Some(("mkdir", action))),
            Some(Action::Rm(action)) => one_of(serializer, Some(("rm", action))),
            Some(Action::Symlink(action)) => one_of(serializer, Some(("symlink", action))),
        }
    }
}

/// Go's type writes it under `User`, the id left out where it is zero.
impl Serialize for pb::UserOpt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Go<'a> {
            #[serde(rename = "User")]
            user: GoUser<'a>,
        }
        #[derive(Serialize)]
        struct GoUser<'a> {
            #[serde(rename = "byName", skip_serializing_if = "Option::is_none")]
            by_name: Option<&'a pb::NamedUserOpt>,
            #[serde(rename = "byId", skip_serializing_if = "is_zero")]
            by_id: u32,
        }
        let (by_name, by_id) = match &self.user {
            Some(User::ByName(named)) => (Some(named), 0),
            Some(User::ById(id)) => (None, *id),
            None => (None, 0),
        };
        let user = GoUser { by_name, by_id };
        Go { user }.serialize(serializer)
    }
}

fn one_of<S: Serializer, T: Serialize>(
    serializer: S,
    field: Option<(&str, &T)>,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(field)
}
