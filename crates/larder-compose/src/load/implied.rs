//! Dependencies that services have without saying so in `depends_on`.

use crate::node::{Map, Node, Value};

/// Adds to `depends_on` the services whose namespaces, links or volumes a service uses.
pub(super) fn dependencies(tree: &mut Node) {
    let Value::Map(map) = &mut tree.value else {
        return;
    };
    let Some(Node {
        value: Value::Map(services),
        ..
    }) = map.get_mut("services")
    else {
        return;
    };
    for entry in services.iter_mut() {
        if let Value::Map(service) = &mut entry.node.value {
            add(service);
        }
    }
}

fn add(service: &mut Map) {
    let mut needed: Vec<(String, bool)> = Vec::new();
    for link in texts(service, "links") {
        needed.push((before_colon(&link), true));
    }
    for key in ["network_mode", "ipc", "pid", "uts", "cgroup"] {
        let text = service.get(key).and_then(Node::as_text);
        if let Some(name) = text.and_then(|text| text.strip_prefix("service:")) {
            needed.push((name.to_owned(), true));
        }
    }
    for volume in texts(service, "volumes_from") {
        if !volume.starts_with("container:") {
            needed.push((before_colon(&volume), false));
        }
    }
    for (name, restarts) in needed {
        require(service, &name, restarts);
    }
}

fn require(service: &mut Map, name: &str, restarts: bool) {
    let at = service.iter().next().map(|entry| entry.at.clone());
    let Some(at) = at else {
        return;
    };
    if service.get("depends_on").and_then(Node::as_map).is_none() {
        let nothing = Node::new(Value::Map(Map::default()), at.clone());
        service.set("depends_on", nothing);
    }
    let Some(Node {
        value: Value::Map(known),
        ..
    }) = service.get_mut("depends_on")
    else {
        return;
    };
    if known.get(name).is_none() {
        let mut dependency = Map::default();
        dependency.set("condition", Node::text("service_started", &at));
        dependency.set("restart", Node::new(Value::Bool(restarts), at.clone()));
        dependency.set("required", Node::new(Value::Bool(true), at.clone()));
        known.set(name, Node::new(Value::Map(dependency), at));
    }
}

fn texts(service: &Map, key: &str) -> Vec<String> {
    let items = service.get(key).and_then(Node::as_list).unwrap_or_default();
    items.iter().filter_map(Node::scalar).collect()
}

fn before_colon(text: &str) -> String {
    text.split(':').next().unwrap_or_default().to_owned()
}
