//! The short form of ports: `[[IP:]HOST:]CONTAINER[/PROTOCOL]`, where numbers may be ranges.

use std::cell::Cell;

use crate::error::{At, Error, Result};
use crate::node::{KeyPath, Map, Node, Value};

use super::{default, object};

/// The most ports that the services of a file may have together: a few ranges are many ports.
const MAX_PORTS: usize = 100_000;

/// Counts the ports of a file.
#[derive(Debug, Default)]
pub(super) struct Budget(Cell<usize>);

pub(super) fn to_long(service: &mut Map, budget: &Budget, path: &KeyPath<'_>) -> Result<()> {
    let path = path.key("ports");
    let Some(Node {
        value: Value::List(items),
        ..
    }) = service.get_mut("ports")
    else {
        return Ok(());
    };
    let mut ports = Vec::new();
    for (index, mut item) in std::mem::take(items).into_iter().enumerate() {
        let index = format!("[{index}]");
        if let Value::Map(port) = &mut item.value {
            long(port, &item.at, &path.key(&index))?;
            ports.push(item);
        } else {
            let text = item.scalar().unwrap_or_default();
            let Some(parsed) = short(&text, &item.at) else {
                let message = format!("invalid port specification `{text}`");
                return Err(Error::file(&item.at, path.key(&index), message));
            };
            budget.0.set(budget.0.get() + parsed.len());
            if budget.0.get() > MAX_PORTS {
                let message = format!("more than {MAX_PORTS} ports in one file");
                return Err(Error::file(&item.at, path.key(&index), message));
            }
            ports.extend(parsed);
        }
    }
    *items = ports;
    Ok(())
}

fn long(port: &mut Map, at: &At, path: &KeyPath<'_>) -> Result<()> {
    let Some(target) = port.get("target").and_then(Node::scalar) else {
        return Err(Error::file(at, path, "`target` is missing"));
    };
    let Some(number) = number(&target).filter(|number| *number > 0) else {
        return Err(Error::file(
            at,
            path.key("target"),
            format!("`{target}` is no port"),
        ));
    };
    port.set("target", Node::new(Value::Int(number.into()), at.clone()));
    if let Some(published) = port.get("published").and_then(Node::scalar) {
        port.set("published", Node::text(published, at));
    }
    default(port, "protocol", at, Value::Text("tcp".to_owned()));
    default(port, "mode", at, Value::Text("ingress".to_owned()));
    Ok(())
}

/// Returns one port for each number of the container's range.
fn short(text: &str, at: &At) -> Option<Vec<Node>> {
    let (addresses, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return None;
    }
    let (host, container) = match addresses.rsplit_once(':') {
        Some((host, container)) => (Some(host), container),
        None => (None, addresses),
    };
    let (address, published) = match host.map(|host| host.rsplit_once(':').unwrap_or(("", host))) {
        Some((address, published)) => (address, published),
        None => ("", ""),
    };
    let address = match address.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None => address,
    };
    if !address.is_empty() {
        address.parse::<std::net::IpAddr>().ok()?;
    }
    let (first, last) = range(container).filter(|(first, _)| *first > 0)?;
    let published = match published {
        "" => None,
        published => Some(range(published)?),
    };
    let count = last - first;
    let mut ports = Vec::new();
    for offset in 0..=count {
        let target = first.checked_add(offset)?;
        let published = match published {
            None => None,
            Some((from, to)) if to - from == count => Some((from + offset).to_string()),
            Some((from, to)) if count == 0 => Some(format!("{from}-{to}")),
            Some(_) => return None,
        };
        let mut value = object(
            at,
            [
                ("mode", Value::Text("ingress".to_owned())),
                ("target", Value::Int(target.into())),
                ("protocol", Value::Text(protocol.clone())),
            ],
        );
        if let Value::Map(map) = &mut value {
            if let Some(published) = published {
                map.set("published", Node::text(published, at));
            }
            if !address.is_empty() {
                map.set("host_ip", Node::text(address, at));
            }
        }
        ports.push(Node::new(value, at.clone()));
    }
    Some(ports)
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

fn number(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}
