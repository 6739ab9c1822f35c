//! `larder compose build --print`: the targets as a bake definition.

use larder_compose::{BuildTarget, Dockerfile, Origin, TargetContext};
use serde_json::{Map, Value, json};

/// Returns the definition by which `buildx bake` builds the same, and pushes it if `pushes`.
pub(super) fn definition(targets: &[BuildTarget], pushes: bool) -> String {
    let wanted = targets.iter().filter(|target| target.is_wanted);
    let names: Vec<&str> = wanted.map(|target| target.name.as_str()).collect();
    let all: Map<String, Value> = targets
        .iter()
        .map(|target| (target.name.clone(), fields(target, pushes)))
        .collect();
    let definition = json!({
        "group": {"default": {"targets": names}},
        "target": all,
    });
    format!("{definition:#}\n")
}

fn fields(target: &BuildTarget, pushes: bool) -> Value {
    let mut fields = Map::new();
    let mut set = |key: &str, value: Value| {
        let is_empty = match &value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !is_empty {
            fields.insert(key.to_owned(), value);
        }
    };
    set("context", json!(location(&target.context)));
    set("contexts", pairs(&target.contexts, location));
    match &target.dockerfile {
        Dockerfile::Default => set("dockerfile", json!("Dockerfile")),
        Dockerfile::Path(path) => set("dockerfile", json!(path.to_string_lossy())),
        Dockerfile::Inline(text) => set("dockerfile-inline", json!(escaped(text))),
    }
    set("args", pairs(&target.args, |value| escaped(value)));
    set("labels", pairs(&target.labels, Clone::clone));
    set("tags", json!(target.tags));
    set("cache-from", json!(target.cache_from));
    set("cache-to", json!(target.cache_to));
    set("target", json!(target.target));
    let secrets = target.secrets.iter().map(|secret| match &secret.origin {
        Origin::File(path) => format!("id={},type=file,src={}", secret.id, path.display()),
        Origin::Environment(name) => format!("id={},type=env,env={name}", secret.id),
        Origin::Content(_) | Origin::External => format!("id={}", secret.id),
    });
    set("secret", secrets.collect());
    set("ssh", json!(target.ssh));
    set("platforms", json!(target.platforms));
    set("pull", json!(target.pull));
    set("no-cache", json!(target.no_cache));
    set("network", json!(target.network));
    set("no-cache-filter", json!(target.no_cache_filter));
    set(
        "shm-size",
        json!(target.shm_size_bytes.map(|size| size.to_string())),
    );
    let ulimits = target.ulimits.iter();
    let ulimits = ulimits.map(|limit| format!("{}={}:{}", limit.name, limit.soft, limit.hard));
    set("ulimits", ulimits.collect());
    set("entitlements", json!(target.entitlements));
    set("extra-hosts", pairs(&target.extra_hosts, Clone::clone));
    let is_pushed = pushes && target.is_named;
    let output = match (target.platforms.len(), is_pushed) {
        (2.., _) => format!("type=image,push={is_pushed}"),
        (_, true) => "type=registry".to_owned(),
        (_, false) => "type=docker".to_owned(),
    };
    set("output", json!([output]));
    Value::Object(fields)
}

fn pairs<T>(pairs: &[(String, T)], text: impl Fn(&T) -> String) -> Value {
    let pairs = pairs
        .iter()
        .map(|(name, value)| (name.clone(), json!(text(value))));
    Value::Object(pairs.collect())
}

fn location(context: &TargetContext) -> String {
    match context {
        TargetContext::Directory(directory) => directory.to_string_lossy().into_owned(),
        TargetContext::Target(target) => format!("target:{target}"),
        TargetContext::Image(image) => format!("docker-image://{image}"),
        TargetContext::OciLayout(layout) => format!("oci-layout://{layout}"),
        TargetContext::Remote(url) => url.clone(),
    }
}

/// Bake interpolates `${`.
fn escaped(text: &str) -> String {
    text.replace("${", "$${")
}
