//! What RUN steps can be lent of the host: its CA certificates and proxy settings. None of it
//! enters a layer, a config or a key.

use std::path::{Path, PathBuf};

use larder_exec::{MountPoint, MountSource, mount};

use crate::error::{BuildError, Result};

/// Where the host's certificates appear in a step.
const BUNDLE: &str = "/run/larder/ca-certificates.crt";
/// Where apt is told of them, since it has no variable for it.
const APT_CONFIG: &str = "/run/larder/apt.conf";

/// Variables by which programs find CA certificates: OpenSSL, Python's requests, pip, curl, git,
/// Node.js, cargo, the AWS tools.
const BUNDLE_VARIABLES: [&str; 8] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
];

/// Variables that name proxies; each is known in lower and in upper case.
const PROXY_VARIABLES: [&str; 5] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "all_proxy",
];

/// Where distributions keep the bundle of all CA certificates.
const HOST_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];

/// The environment of this program, handed in.
pub(crate) type Variables<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

/// Adds the host's CA certificates and proxy settings to a step. Variables that the step has
/// already stay.
pub(crate) fn lend(
    env: &mut Vec<String>,
    mounts: &mut Vec<MountPoint>,
    host: Variables<'_>,
) -> Result<()> {
    for lower in PROXY_VARIABLES {
        let upper = lower.to_ascii_uppercase();
        if let Some(value) = host(lower).or_else(|| host(&upper)) {
            add(env, lower, &value);
            add(env, &upper, &value);
        }
    }
    let Some(bundle) = bundle(host) else {
        return Ok(());
    };
    let fd = mount::bind(&bundle, mount::Access::ReadOnly)?;
    mounts.push(MountPoint {
        target: BUNDLE.to_owned(),
        source: MountSource::Bind(fd),
        readonly: true,
    });
    for name in BUNDLE_VARIABLES {
        add(env, name, BUNDLE);
    }
    let apt = format!("Acquire::https::CaInfo \"{BUNDLE}\";\n");
    let content = MountSource::Secret {
        content: apt.into_bytes(),
        mode: 0o444,
        uid: 0,
        gid: 0,
    };
    mounts.push(MountPoint {
        target: APT_CONFIG.to_owned(),
        source: content,
        readonly: true,
    });
    add(env, "APT_CONFIG", APT_CONFIG);
    Ok(())
}

/// Returns whether a proxy that would be lent is on the host's loopback, where only who has the host's
/// network can reach it.
pub(crate) fn has_local_proxy(host: Variables<'_>) -> bool {
    let mut names = PROXY_VARIABLES.iter().filter(|name| **name != "no_proxy");
    names.any(|lower| {
        let proxy = host(lower).or_else(|| host(&lower.to_ascii_uppercase()));
        proxy.is_some_and(|proxy| is_local(&proxy))
    })
}

/// Returns whether a proxy, `[scheme://][user@]host[:port]`, is on the loopback.
fn is_local(proxy: &str) -> bool {
    let address = proxy.split_once("://").map_or(proxy, |(_, rest)| rest);
    let address = address.split('/').next().unwrap_or_default();
    let address = address.rsplit('@').next().unwrap_or_default();
    let host = match address.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => address.split(':').next().unwrap_or_default(),
    };
    let ip = host.parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// Returns the host's bundle: the one that `SSL_CERT_FILE` names, else where the distribution
/// keeps it.
fn bundle(host: Variables<'_>) -> Option<PathBuf> {
    let named = host("SSL_CERT_FILE").map(PathBuf::from);
    named
        .into_iter()
        .chain(HOST_BUNDLES.map(PathBuf::from))
        .find(|path| is_filled(path))
}

fn is_filled(path: &Path) -> bool {
    fs_err::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0)
}

/// Sets the proxies that build arguments name, in both cases.
pub(crate) fn set_proxies(env: &mut Vec<String>, proxies: &larder_llb::pb::ProxyEnv) {
    let values = [
        ("http_proxy", &proxies.http_proxy),
        ("https_proxy", &proxies.https_proxy),
        ("ftp_proxy", &proxies.ftp_proxy),
        ("no_proxy", &proxies.no_proxy),
        ("all_proxy", &proxies.all_proxy),
    ];
    for (name, value) in values.into_iter().filter(|(_, value)| !value.is_empty()) {
        add(env, &name.to_ascii_uppercase(), value);
        add(env, name, value);
    }
}

fn add(env: &mut Vec<String>, name: &str, value: &str) {
    let is_set = env.iter().any(|entry| {
        entry
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('='))
    });
    if !is_set {
        env.push(format!("{name}={value}"));
    }
}

/// Returns the error for a secret that a step needs and nobody gave.
pub(crate) fn missing_secret(id: &str) -> BuildError {
    BuildError::new(
        crate::ErrorClass::NotFound,
        format!("secret {id}: not found"),
    )
    .with_hint(format!(
        "give it with `--secret id={id},src=FILE` or `--secret id={id},env=NAME`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_of_the_loopback_are_known() {
        for (proxy, expected) in [
            ("http://127.0.0.1:3128", true),
            ("localhost:80", true),
            ("http://u:p@[::1]:3128/", true),
            ("http://proxy.example:3128", false),
            ("http://localhost.example", false),
            ("", false),
        ] {
            let host = |name: &str| (name == "HTTPS_PROXY").then(|| proxy.to_owned());
            assert_eq!(has_local_proxy(&host), expected, "{proxy}");
        }
    }

    #[test]
    fn what_the_step_has_set_stays() {
        let mut env = vec!["http_proxy=mine".to_owned(), "PIP_CERT=/own".to_owned()];
        let host = |name: &str| (name == "HTTP_PROXY").then(|| "host".to_owned());
        let mut mounts = Vec::new();
        lend(&mut env, &mut mounts, &host).unwrap();
        assert!(env.contains(&"http_proxy=mine".to_owned()));
        assert!(env.contains(&"HTTP_PROXY=host".to_owned()));
        assert!(env.contains(&"PIP_CERT=/own".to_owned()));
        assert!(!env.contains(&format!("PIP_CERT={BUNDLE}")));
    }
}
