//! What of a service larder can't do, told before it is started.

use anyhow::bail;
use larder_compose::{Port, Service};

use super::spec::wrong;

/// Keys that are honoured, and those that ask for what is so anyway or concern nobody here.
const KNOWN: [&str; 42] = [
    "annotations",
    "attach",
    "build",
    "command",
    "configs",
    "container_name",
    "depends_on",
    "deploy",
    "develop",
    "entrypoint",
    "env_file",
    "environment",
    "expose",
    "extra_hosts",
    "healthcheck",
    "hostname",
    "image",
    "isolation",
    "label_file",
    "labels",
    "links",
    "logging",
    "network_mode",
    "networks",
    "platform",
    "ports",
    "profiles",
    "pull_policy",
    "restart",
    "runtime",
    "scale",
    "secrets",
    "shm_size",
    "stdin_open",
    "stop_grace_period",
    "stop_signal",
    "tmpfs",
    "tty",
    "ulimits",
    "user",
    "volumes",
    "working_dir",
];

/// Returns what to warn of.
///
/// # Errors
/// Names file, line and key of what the service can't do without.
pub(super) fn check(service: &Service) -> anyhow::Result<Vec<String>> {
    if service.scale != 1 {
        let problem = "only one container of a service is supported";
        let key = if has_key(service, "scale") {
            "scale"
        } else {
            "deploy"
        };
        return Err(wrong(service, key, problem));
    }
    if has_key(service, "provider") {
        bail!(wrong(service, "provider", "providers are not supported"));
    }
    let mut warnings = Vec::new();
    for (key, at) in &service.keys {
        if !KNOWN.contains(&key.as_str()) && !key.starts_with("x-") {
            warnings.push(format!("{at}: {}.{key} has no effect", service.key()));
        }
    }
    warnings.extend(
        service
            .ports
            .iter()
            .filter_map(|port| remapped(service, port)),
    );
    Ok(warnings)
}

fn has_key(service: &Service, key: &str) -> bool {
    service.keys.iter().any(|(name, _)| name == key)
}

/// Services share the host's network, so a port has one number.
fn remapped(service: &Service, port: &Port) -> Option<String> {
    let published = port.published.as_deref()?;
    let target = port.target.to_string();
    if published == target {
        return None;
    }
    let problem = format!(
        "services share the host's network: port {target} of the container is port {target} of the host, not {published}"
    );
    Some(wrong(service, "ports", &problem).to_string())
}
