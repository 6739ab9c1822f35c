//! The short forms of devices: `SOURCE[:TARGET[:PERMISSIONS]]`, and `gpus: all`.

use crate::error::{Error, Result};
use crate::node::{KeyPath, Map, Node, Value};

use super::object;

/// What a device may be used for, by default: read, written, made.
const PERMISSIONS: &str = "rwm";
/// What `all` of something is, as a number.
const ALL: i64 = -1;

pub(super) fn to_long(service: &mut Map, path: &KeyPath<'_>) -> Result<()> {
    let path = path.key("devices");
    if let Some(Node {
        value: Value::List(items),
        ..
    }) = service.get_mut("devices")
    {
        for (index, item) in items.iter_mut().enumerate() {
            let Value::Text(text) = &item.value else {
                continue;
            };
            let parts: Vec<&str> = text.split(':').collect();
            let (source, target, permissions) = match parts[..] {
                [source] => (source, source, PERMISSIONS),
                [source, target] => (source, target, PERMISSIONS),
                [source, target, permissions] => (source, target, permissions),
                _ => {
                    let message = format!("`{text}` is no device: SOURCE[:TARGET[:PERMISSIONS]]");
                    let index = format!("[{index}]");
                    return Err(Error::file(&item.at, path.key(&index), message));
                }
            };
            let text = |text: &str| Value::Text(text.to_owned());
            item.value = object(
                &item.at,
                [
                    ("source", text(source)),
                    ("target", text(target)),
                    ("permissions", text(permissions)),
                ],
            );
        }
    }
    Ok(())
}

/// Makes `gpus: all`, and `count: all`, numbers.
pub(super) fn count_gpus(service: &mut Map) {
    if let Some(node) = service.get_mut("gpus") {
        if node.as_text() == Some("all") {
            let item = object(&node.at, [("count", Value::Int(ALL))]);
            node.value = Value::List(vec![Node::new(item, node.at.clone())]);
        }
        count(node);
    }
    let mut node = service.get_mut("deploy");
    for key in ["resources", "reservations", "devices"] {
        node = node.and_then(|node| match &mut node.value {
            Value::Map(map) => map.get_mut(key),
            _ => None,
        });
    }
    if let Some(node) = node {
        count(node);
    }
}

fn count(node: &mut Node) {
    if let Value::List(items) = &mut node.value {
        for item in items {
            if let Value::Map(device) = &mut item.value
                && let Some(count) = device.get_mut("count")
                && count.as_text() == Some("all")
            {
                count.value = Value::Int(ALL);
            }
        }
    }
}
