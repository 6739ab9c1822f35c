//! What the services that are on use.

use std::collections::BTreeSet;

use crate::node::Node;

use super::{MountKind, Project, Service};

impl Project {
    /// Returns the names of the `volumes`, `networks`, `secrets` or `configs` that services use,
    /// sorted; none for another `section`.
    pub fn in_use(&self, section: &str) -> BTreeSet<&str> {
        let services = self.services.values();
        services
            .flat_map(|service| self.used_by(service, section))
            .collect()
    }

    fn used_by<'a>(&'a self, service: &'a Service, section: &str) -> Vec<&'a str> {
        let build = service.build.as_ref();
        match section {
            "networks" => self.attached(service),
            "volumes" => {
                let mounts = service.mounts.iter();
                let volumes = mounts.filter(|mount| mount.kind == MountKind::Volume);
                volumes
                    .filter_map(|mount| mount.source.as_deref())
                    .collect()
            }
            "secrets" => {
                let secrets = build.map(|build| &build.secrets).into_iter().flatten();
                let secrets = service.secrets.iter().chain(secrets);
                secrets.map(|grant| grant.source.as_str()).collect()
            }
            "configs" => {
                let configs = service.configs.iter();
                configs.map(|grant| grant.source.as_str()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns the networks that a service is attached to: `default` if it says nothing.
    pub(crate) fn attached<'a>(&'a self, service: &'a Service) -> Vec<&'a str> {
        let map = service.node(&self.tree);
        let key = |key: &str| map.and_then(|map| map.get(key));
        let networks = key("networks").and_then(Node::as_map);
        let names: Vec<&str> = networks
            .into_iter()
            .flatten()
            .map(|entry| entry.key.as_str())
            .collect();
        let has_mode = key("network_mode").and_then(Node::as_text).is_some();
        let has_provider = key("provider").is_some_and(|node| !node.is_null());
        if names.is_empty() && !has_mode && !has_provider {
            return vec!["default"];
        }
        names
    }

    pub(crate) fn uses_default_network(&self) -> bool {
        self.in_use("networks").contains("default")
    }
}
