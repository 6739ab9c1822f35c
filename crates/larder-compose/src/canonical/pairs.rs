//! `NAME=value` lists, which become mappings.

use crate::error::{Error, Result};
use crate::node::{Entry, KeyPath, Map, Node, Value};

/// Makes a list of `NAME=value` a mapping; a name alone gets nothing as its value. Values of
/// mappings become text.
pub(super) fn to_map(map: &mut Map, key: &str, path: &KeyPath<'_>) -> Result<()> {
    let Some(node) = map.get_mut(key) else {
        return Ok(());
    };
    match &mut node.value {
        Value::List(items) => {
            let mut pairs = Map::default();
            for (index, item) in items.iter().enumerate() {
                let text = item.scalar().unwrap_or_default();
                let (name, value) = match text.split_once('=') {
                    Some((name, value)) => (name, Value::Text(value.to_owned())),
                    None => (text.as_str(), Value::Null),
                };
                if name.is_empty() {
                    let key = path.key(key);
                    let index = format!("[{index}]");
                    let message = "expected `NAME=value`";
                    return Err(Error::file(&item.at, key.key(&index), message));
                }
                pairs.set(name, Node::new(value, item.at.clone()));
            }
            node.value = Value::Map(pairs);
        }
        Value::Map(pairs) => {
            for entry in pairs.iter_mut() {
                if let Some(text) = entry.node.scalar() {
                    entry.node.value = Value::Text(text);
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Makes `extra_hosts` a list of `name=address`, whichever of its forms it has.
pub(super) fn hosts_to_list(map: &mut Map, path: &KeyPath<'_>) -> Result<()> {
    let Some(node) = map.get_mut("extra_hosts") else {
        return Ok(());
    };
    let mut hosts = Vec::new();
    match &node.value {
        Value::List(items) => {
            for item in items {
                let text = item.as_text().unwrap_or_default();
                let Some((name, address)) = text.split_once(['=', ':']) else {
                    let key = path.key("extra_hosts");
                    return Err(Error::file(
                        &item.at,
                        key,
                        format!("`{text}` is not of the form `name=address`"),
                    ));
                };
                hosts.push(host(name, address, item));
            }
        }
        Value::Map(map) => {
            for Entry { key, node, .. } in map {
                let addresses = match node.as_list() {
                    Some(addresses) => addresses,
                    None => std::slice::from_ref(node),
                };
                for address in addresses {
                    hosts.push(host(key, address.as_text().unwrap_or_default(), address));
                }
            }
        }
        _ => return Ok(()),
    }
    node.value = Value::List(hosts);
    Ok(())
}

fn host(name: &str, address: &str, from: &Node) -> Node {
    let bare = address
        .strip_prefix('[')
        .and_then(|address| address.strip_suffix(']'))
        .unwrap_or(address);
    Node::text(format!("{}={}", name.trim(), bare.trim()), &from.at)
}
