use larder_oci::ImageRef;

use crate::{Config, Error, ErrorKind};

/// Docker Hub's name in image references, and the host that serves it.
pub(crate) const DOCKER_HUB: &str = "docker.io";
pub(crate) const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// One place that serves a repository: a mirror, or the registry itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Whose section of the configuration applies.
    pub(crate) config_name: String,
    /// `host[:port]`.
    pub(crate) host: String,
    /// The repository, below the mirror's path if it has one.
    pub(crate) repository: String,
    /// For a mirror: the registry that it mirrors.
    pub(crate) namespace: Option<String>,
    /// What is done there.
    pub(crate) access: Access,
}

/// What is done at an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    /// Logging in.
    None,
    Pull,
    Push,
    /// Pushing, with blobs taken from another repository.
    Mount(String),
}

impl Endpoint {
    /// Returns the scope of a token that lets one do that.
    pub(crate) fn scope(&self) -> String {
        let repository = &self.repository;
        match &self.access {
            Access::None => String::new(),
            Access::Pull => format!("repository:{repository}:pull"),
            Access::Push => format!("repository:{repository}:pull,push"),
            Access::Mount(from) => {
                format!("repository:{repository}:pull,push repository:{from}:pull")
            }
        }
    }

    pub(crate) fn is_push(&self) -> bool {
        matches!(self.access, Access::Push | Access::Mount(_))
    }

    /// Returns the same endpoint, for pushing with blobs taken from the repository `from`.
    pub(crate) fn mounting(&self, from: &str) -> Self {
        Self {
            access: Access::Mount(from.to_owned()),
            ..self.clone()
        }
    }

    /// Returns path and query of what `suffix` names in the repository, such as
    /// `manifests/latest`.
    pub(crate) fn target(&self, suffix: &str) -> String {
        let query = match &self.namespace {
            Some(namespace) => format!("?ns={namespace}"),
            None => String::new(),
        };
        format!("/v2/{}/{suffix}{query}", self.repository)
    }
}

/// Returns where to look for `image_ref`, in this order: never empty, the registry itself last.
///
/// # Errors
/// `Config`, if a mirror is not a host with a path.
pub(crate) fn pull_endpoints(
    config: &Config,
    image_ref: &ImageRef,
) -> Result<Vec<Endpoint>, Error> {
    let registry = image_ref.registry();
    let mut endpoints = Vec::new();
    if let Some(section) = config.registries.get(registry) {
        for mirror in &section.mirrors {
            endpoints.push(mirror_endpoint(mirror, image_ref)?);
        }
    }
    endpoints.push(origin(registry, image_ref.repository(), Access::Pull));
    Ok(endpoints)
}

/// Returns where to push `image_ref`: to the registry itself, never to a mirror.
pub(crate) fn push_endpoint(image_ref: &ImageRef) -> Endpoint {
    origin(image_ref.registry(), image_ref.repository(), Access::Push)
}

/// Returns where to log in at `registry`.
pub(crate) fn login_endpoint(registry: &str) -> Endpoint {
    origin(registry, "", Access::None)
}

fn origin(registry: &str, repository: &str, access: Access) -> Endpoint {
    Endpoint {
        config_name: registry.to_owned(),
        host: host_of(registry).to_owned(),
        repository: repository.to_owned(),
        namespace: None,
        access,
    }
}

/// Returns the host that serves what is named after `registry`.
fn host_of(registry: &str) -> &str {
    if registry == DOCKER_HUB {
        DOCKER_HUB_HOST
    } else {
        registry
    }
}

fn mirror_endpoint(mirror: &str, image_ref: &ImageRef) -> Result<Endpoint, Error> {
    let (host, path) = mirror.split_once('/').unwrap_or((mirror, ""));
    let host_char = |c: char| c.is_ascii_alphanumeric() || ".-:[]_".contains(c);
    let path_char = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let path = path.trim_matches('/');
    let climbs = path.split('/').any(|part| part == "." || part == "..");
    if host.is_empty()
        || host.ends_with(':')
        || !host.chars().all(host_char)
        || !path.chars().all(path_char)
        || climbs
    {
        let message = format!(
            "mirror `{mirror}` of {} is not a host with an optional port and path",
            image_ref.registry()
        );
        return Err(Error::new(ErrorKind::Config, message));
    }
    let repository = match path {
        "" => image_ref.repository().to_owned(),
        path => format!("{path}/{}", image_ref.repository()),
    };
    Ok(Endpoint {
        config_name: host.to_owned(),
        host: host_of(host).to_owned(),
        repository,
        namespace: Some(image_ref.registry().to_owned()),
        access: Access::Pull,
    })
}

/// Returns whether `host` (`name[:port]`) is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    name == "localhost"
        || name
            .parse()
            .is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RegistryConfig;

    fn check(mirrors: &[&str], image_ref: &str, expected: &[&str]) {
        let mut config = Config::default();
        let image_ref: ImageRef = image_ref.parse().unwrap();
        let section = RegistryConfig {
            mirrors: mirrors.iter().map(|&mirror| mirror.to_owned()).collect(),
            ..RegistryConfig::default()
        };
        config
            .registries
            .insert(image_ref.registry().to_owned(), section);
        let endpoints = pull_endpoints(&config, &image_ref).unwrap();
        let urls: Vec<String> = endpoints
            .iter()
            .map(|endpoint| endpoint.host.clone() + &endpoint.target("tags"))
            .collect();
        assert_eq!(urls, expected);
    }

    #[test]
    fn mirrors_come_before_the_registry() {
        check(
            &[],
            "python",
            &["registry-1.docker.io/v2/library/python/tags"],
        );
        check(&[], "ghcr.io/a/b", &["ghcr.io/v2/a/b/tags"]);
        check(
            &["m1:5000", "harbor.example/proxy/"],
            "python",
            &[
                "m1:5000/v2/library/python/tags?ns=docker.io",
                "harbor.example/v2/proxy/library/python/tags?ns=docker.io",
                "registry-1.docker.io/v2/library/python/tags",
            ],
        );
    }

    #[test]
    fn pushes_go_to_the_registry_itself() {
        let endpoint = push_endpoint(&"python".parse().unwrap());
        assert_eq!(endpoint.host, "registry-1.docker.io");
        assert_eq!(endpoint.scope(), "repository:library/python:pull,push");
        assert_eq!(
            endpoint.mounting("library/debian").scope(),
            "repository:library/python:pull,push repository:library/debian:pull"
        );
    }

    #[test]
    fn a_mirror_is_a_host_and_a_path() {
        for bad in ["", "/x", "https://m1", "user@m1", "m1/../x", "m1/a?b"] {
            let image_ref = "python".parse().unwrap();
            let error = mirror_endpoint(bad, &image_ref).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{bad}");
        }
    }

    #[test]
    fn this_machine_has_many_names() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:1",
            "127.1.2.3",
            "[::1]:80",
            "[::1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "10.0.0.1", "registry", "[fe80::1]:80"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
