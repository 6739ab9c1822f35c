//! LLB as the JSON that protobuf's mapping gives: defaults left out, 64-bit numbers as text,
//! bytes in base64, enums by name.

use std::collections::BTreeMap;

use larder_llb::{Definition, Vertex, pb};
use larder_oci::Digest;
use serde_json::{Map, Value, json};

/// Returns `def`, `metadata` and `source`, by digest.
pub(crate) fn definition(definition: &Definition) -> Value {
    let encoded = definition.to_pb();
    let mut def = Map::new();
    let mut metadata = Map::new();
    let mut locations = Map::new();
    for vertex in definition.vertices() {
        let digest = vertex.digest.to_string();
        def.insert(digest.clone(), op(vertex));
        locations.insert(digest, location(definition, vertex));
    }
    let tail = encoded.def.last().expect("no case is empty");
    let result = definition.result().expect("no case is empty");
    assert_eq!(result.index, 0);
    let tail_op = json!({"inputs": [{"digest": result.vertex.to_string()}]});
    def.insert(Digest::sha256(tail).to_string(), tail_op);
    for (digest, entry) in &encoded.metadata {
        metadata.insert(digest.clone(), op_metadata(entry));
    }
    json!({"def": def, "metadata": metadata, "source": {"locations": locations}})
}

/// Replaces digests by names that do not depend on what a session adds to them, and random
/// progress group ids by what they join.
pub(crate) fn renamed(graph: &Value) -> Value {
    let def = graph["def"].as_object().unwrap();
    let mut names = BTreeMap::new();
    for digest in def.keys() {
        name(digest, def, &mut names);
    }
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (digest, entry) in graph["metadata"].as_object().unwrap() {
        if let Some(id) = entry["progress_group"]["id"].as_str() {
            let members = groups.entry(id.to_owned()).or_default();
            members.push(names[digest].clone());
            members.sort();
        }
    }
    let mut text = graph.to_string();
    for (digest, name) in &names {
        text = text.replace(digest, name);
    }
    for (id, members) in groups {
        text = text.replace(&id, &format!("group of {}", members.join("+")));
    }
    serde_json::from_str::<Value>(&text).map(sorted).unwrap()
}

/// Orders fields, so that a difference reads well.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<String, Value> =
                fields.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            fields.into_iter().collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

/// Names a vertex by its content, with its inputs' names in place of their digests.
fn name(digest: &str, def: &Map<String, Value>, names: &mut BTreeMap<String, String>) -> String {
    if let Some(known) = names.get(digest) {
        return known.clone();
    }
    let mut op = def[digest].clone();
    if let Some(inputs) = op.get_mut("inputs").and_then(Value::as_array_mut) {
        for input in inputs {
            let below = input["digest"].as_str().unwrap().to_owned();
            input["digest"] = name(&below, def, names).into();
        }
    }
    let text = sorted(op).to_string();
    let name = Digest::sha256(text).hex()[..12].to_owned();
    names.insert(digest.to_owned(), name.clone());
    name
}

/// Returns the digests of the vertices that stand on no local source.
pub(crate) fn without_local_source(graph: &Value) -> Vec<String> {
    fn is_free(digest: &str, def: &Map<String, Value>) -> bool {
        let op = &def[digest];
        let local = op["source"]["identifier"].as_str();
        let inputs = op["inputs"].as_array();
        let inputs = inputs.into_iter().flatten();
        !local.is_some_and(|identifier| identifier.starts_with("local://"))
            && inputs
                .map(|input| input["digest"].as_str().unwrap())
                .all(|input| is_free(input, def))
    }
    let def = graph["def"].as_object().unwrap();
    let digests = def.keys().filter(|digest| is_free(digest, def));
    digests.cloned().collect()
}

/// A JSON object whose default values are left out.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let is_default = match &value {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Number(number) => number.as_i64() == Some(0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(_) => false,
        };
        if !is_default {
            self.0.insert(name.to_owned(), value);
        }
        self
    }

    /// A 64-bit number.
    fn long(self, name: &str, value: i64) -> Self {
        let text = (value != 0).then(|| value.to_string());
        self.put(name, text)
    }

    fn done(self) -> Value {
        self.0.into()
    }
}

fn op(vertex: &Vertex) -> Value {
    let inputs: Vec<Value> = vertex
        .op
        .inputs
        .iter()
        .map(|input| {
            let fields = Fields::default().put("digest", input.digest.clone());
            fields.long("index", input.index).done()
        })
        .collect();
    let mut fields = Fields::default().put("inputs", inputs);
    fields = match vertex.op.op.as_ref().unwrap() {
        pb::op::Op::Exec(exec) => fields.put("exec", exec_op(exec)),
        pb::op::Op::Source(source) => {
            let attrs: Map<String, Value> = source
                .attrs
                .iter()
                .map(|(k, v)| (k.clone(), v.clone().into()))
                .collect();
            let attrs = (!attrs.is_empty()).then_some(attrs);
            let source = Fields::default()
                .put("identifier", source.identifier.clone())
                .put("attrs", attrs);
            fields.put("source", source.done())
        }
        pb::op::Op::File(file) => {
            let actions: Vec<Value> = file.actions.iter().map(file_action).collect();
            fields.put("file", Fields::default().put("actions", actions).done())
        }
        pb::op::Op::Merge(merge) => {
            let inputs = merge.inputs.iter();
            let inputs = inputs.map(|input| Fields::default().long("input", input.input).done());
            fields.put("merge", json!({"inputs": inputs.collect::<Vec<_>>()}))
        }
        other => panic!("unexpected op {other:?}"),
    };
    if let Some(platform) = &vertex.op.platform {
        let platform = Fields::default()
            .put("Architecture", platform.architecture.clone())
            .put("OS", platform.os.clone())
            .put("Variant", platform.variant.clone());
        fields = fields.put("platform", platform.done());
    }
    let constraints = vertex.op.constraints.as_ref();
    fields
        .put("constraints", constraints.map(|_| json!({})))
        .done()
}

fn exec_op(exec: &pb::ExecOp) -> Value {
    let meta = exec.meta.as_ref().unwrap();
    let meta = Fields::default()
        .put("args", meta.args.clone())
        .put("env", meta.env.clone())
        .put("cwd", meta.cwd.clone())
        .put("user", meta.user.clone())
        .put("hostname", meta.hostname.clone())
        .put(
            "removeMountStubsRecursive",
            meta.remove_mount_stubs_recursive,
        );
    let mounts: Vec<Value> = exec.mounts.iter().map(mount).collect();
    let secrets: Vec<Value> = exec
        .secretenv
        .iter()
        .map(|secret| {
            Fields::default()
                .put("ID", secret.id.clone())
                .put("name", secret.name.clone())
                .put("optional", secret.optional)
                .done()
        })
        .collect();
    let network = match exec.network() {
        pb::NetMode::Unset => None,
        other => Some(other.as_str_name()),
    };
    Fields::default()
        .put("meta", meta.done())
        .put("mounts", mounts)
        .put("network", network)
        .put("secretenv", secrets)
        .done()
}

fn mount(mount: &pb::Mount) -> Value {
    let kind = match mount.mount_type() {
        pb::MountType::Bind => None,
        other => Some(other.as_str_name()),
    };
    let cache = mount.cache_opt.as_ref().map(|cache| {
        let sharing = match cache.sharing() {
            pb::CacheSharingOpt::Shared => None,
            other => Some(other.as_str_name()),
        };
        let fields = Fields::default().put("ID", cache.id.clone());
        fields.put("sharing", sharing).done()
    });
    let secret = mount.secret_opt.as_ref().map(|secret| {
        Fields::default()
            .put("ID", secret.id.clone())
            .put("uid", secret.uid)
            .put("gid", secret.gid)
            .put("mode", secret.mode)
            .put("optional", secret.optional)
            .done()
    });
    let tmpfs = mount.tmpfs_opt.as_ref();
    let tmpfs = tmpfs.map(|tmpfs| Fields::default().long("size", tmpfs.size).done());
    Fields::default()
        .long("input", mount.input)
        .put("selector", mount.selector.clone())
        .put("dest", mount.dest.clone())
        .long("output", mount.output)
        .put("readonly", mount.readonly)
        .put("mountType", kind)
        .put("TmpfsOpt", tmpfs)
        .put("cacheOpt", cache)
        .put("secretOpt", secret)
        .done()
}

fn file_action(action: &pb::FileAction) -> Value {
    use pb::file_action::Action;
    let fields = Fields::default()
        .long("input", action.input)
        .long("secondaryInput", action.secondary_input)
        .long("output", action.output);
    let fields = match action.action.as_ref().unwrap() {
        Action::Copy(copy) => fields.put("copy", copy_action(copy)),
        Action::Mkdir(mkdir) => {
            let mkdir = Fields::default()
                .put("path", mkdir.path.clone())
                .put("mode", mkdir.mode)
                .put("makeParents", mkdir.make_parents)
                .put("owner", mkdir.owner.as_ref().map(owner))
                .long("timestamp", mkdir.timestamp);
            fields.put("mkdir", mkdir.done())
        }
        Action::Mkfile(mkfile) => {
            let mkfile = Fields::default()
                .put("path", mkfile.path.clone())
                .put("mode", mkfile.mode)
                .put("data", base64(&mkfile.data))
                .long("timestamp", mkfile.timestamp);
            fields.put("mkfile", mkfile.done())
        }
        other => panic!("unexpected action {other:?}"),
    };
    fields.done()
}

fn copy_action(copy: &pb::FileActionCopy) -> Value {
    Fields::default()
        .put("src", copy.src.clone())
        .put("dest", copy.dest.clone())
        .put("owner", copy.owner.as_ref().map(owner))
        .put("mode", copy.mode)
        .put("followSymlink", copy.follow_symlink)
        .put("dirCopyContents", copy.dir_copy_contents)
        .put(
            "attemptUnpackDockerCompatibility",
            copy.attempt_unpack_docker_compatibility,
        )
        .put("createDestPath", copy.create_dest_path)
        .put("allowWildcard", copy.allow_wildcard)
        .put("allowEmptyWildcard", copy.allow_empty_wildcard)
        .long("timestamp", copy.timestamp)
        .put("includePatterns", copy.include_patterns.clone())
        .put("excludePatterns", copy.exclude_patterns.clone())
        .put("modeStr", copy.mode_str.clone())
        .put("requiredPaths", copy.required_paths.clone())
        .done()
}

fn owner(owner: &pb::ChownOpt) -> Value {
    let user = |user: &pb::UserOpt| match user.user.as_ref().unwrap() {
        pb::user_opt::User::ById(id) => json!({"byID": id}),
        pb::user_opt::User::ByName(named) => {
            let fields = Fields::default().put("name", named.name.clone());
            json!({"byName": fields.long("input", named.input).done()})
        }
    };
    Fields::default()
        .put("user", owner.user.as_ref().map(user))
        .put("group", owner.group.as_ref().map(user))
        .done()
}

fn op_metadata(metadata: &pb::OpMetadata) -> Value {
    let description: Map<String, Value> = metadata
        .description
        .iter()
        .map(|(k, v)| (k.clone(), v.clone().into()))
        .collect();
    let caps: Map<String, Value> = metadata
        .caps
        .iter()
        .map(|(k, &v)| (k.clone(), v.into()))
        .collect();
    let group = metadata.progress_group.as_ref().map(|group| {
        Fields::default()
            .put("id", group.id.clone())
            .put("name", group.name.clone())
            .put("weak", group.weak)
            .done()
    });
    Fields::default()
        .put("ignore_cache", metadata.ignore_cache)
        .put(
            "description",
            (!description.is_empty()).then_some(description),
        )
        .put("caps", (!caps.is_empty()).then_some(caps))
        .put("progress_group", group)
        .done()
}

fn location(definition: &Definition, vertex: &Vertex) -> Value {
    let line = |line: u32| json!({"line": line});
    let locations: Vec<Value> = definition
        .locations(&vertex.digest)
        .iter()
        .map(|(source, ranges)| {
            let ranges: Vec<Value> = ranges
                .iter()
                .map(|range| json!({"start": line(range.start), "end": line(range.end)}))
                .collect();
            let fields = Fields::default().put("sourceIndex", *source);
            fields.put("ranges", ranges).done()
        })
        .collect();
    Fields::default().put("locations", locations).done()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= chunk.len() {
                digit as char
            } else {
                '='
            });
        }
    }
    out
}
