//! Values of flags. Errors say what is wrong with the value; the flag is named by the caller.

use std::net::IpAddr;
use std::path::PathBuf;

use jiff::SignedDuration;
use larder_engine::Volume;
use larder_engine::request::{
    Entitlement, LayoutImage, NamedContext, NetworkMode, Ulimit, is_behind_ssh,
};
use larder_oci::{Digest, ImageRef, Platform};

use crate::units;

/// `KEY=VALUE`, or `KEY` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyValue {
    pub(crate) key: String,
    pub(crate) value: Option<String>,
}

/// A variable of `larder run`'s environment: `NAME=VALUE`, or `NAME` to take larder's own.
pub(crate) type EnvArg = KeyValue;

/// Which images are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ImageFilter {
    /// Those without a name, or those with one.
    Dangling(bool),
    /// Those of a name.
    Reference(String),
}

/// A line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostArg {
    pub(crate) name: String,
    /// An address, or `host-gateway`.
    pub(crate) address: String,
}

/// A secret and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretArg {
    pub(crate) id: String,
    pub(crate) source: SecretSource,
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSource {
    File(PathBuf),
    Env(String),
    /// The variable of the secret's name if it is set, else the file of that name.
    ById,
}

/// An SSH agent, or keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SshArg {
    pub(crate) id: String,
    /// A socket, or keys; the user's own agent if there are none.
    pub(crate) paths: Vec<PathBuf>,
}

impl Default for SshArg {
    /// Returns the user's own agent.
    fn default() -> Self {
        Self {
            id: "default".to_owned(),
            paths: Vec::new(),
        }
    }
}

pub(crate) fn image_ref(text: &str) -> Result<ImageRef, String> {
    text.parse::<ImageRef>().map_err(|error| error.to_string())
}

pub(crate) fn platform(text: &str) -> Result<Platform, String> {
    text.parse::<Platform>().map_err(|error| error.to_string())
}

pub(crate) fn size(text: &str) -> Result<u64, String> {
    units::parse_size(text)
}

pub(super) fn duration(text: &str) -> Result<SignedDuration, String> {
    units::parse_duration(text)
}

pub(super) fn key_value(text: &str) -> Result<KeyValue, String> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    if key.is_empty() {
        return Err("the name before `=` is empty".to_owned());
    }
    Ok(KeyValue {
        key: key.to_owned(),
        value,
    })
}

pub(crate) fn named_context(text: &str) -> Result<(String, NamedContext), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
        .ok_or("expected `NAME=DIR`, `NAME=URL`, `NAME=docker-image://IMAGE` or `NAME=oci-layout://DIR`")?;
    Ok((name.to_owned(), named_context_value(value)?))
}

/// Reads what a named context is.
pub(crate) fn named_context_value(value: &str) -> Result<NamedContext, String> {
    if let Some(image) = value.strip_prefix("docker-image://") {
        image_ref(image)?;
        return Ok(NamedContext::Image(image.to_owned()));
    }
    if let Some(layout) = value.strip_prefix("oci-layout://") {
        return layout_image(layout).map(NamedContext::OciLayout);
    }
    if value.starts_with("target:") {
        return Err("other targets are contexts in `larder bake` only".to_owned());
    }
    if is_url(value) {
        return Ok(NamedContext::Remote(value.to_owned()));
    }
    Ok(NamedContext::Directory(PathBuf::from(value)))
}

/// Reads `DIR[:TAG][@DIGEST]`.
fn layout_image(text: &str) -> Result<LayoutImage, String> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let (directory, tag) = match rest.split_once(':') {
        Some((directory, tag)) => (directory, Some(tag)),
        None => (rest, None),
    };
    if directory.is_empty() {
        return Err("expected `oci-layout://DIR[:TAG][@DIGEST]`".to_owned());
    }
    let digest = digest.map(str::parse::<Digest>).transpose();
    Ok(LayoutImage {
        directory: PathBuf::from(directory),
        tag: tag.map(str::to_owned),
        digest: digest.map_err(|error| error.to_string())?,
    })
}

/// Returns whether a context or a file is elsewhere: a URL, or what git takes for one.
pub(crate) fn is_url(text: &str) -> bool {
    text.contains("://") || text.starts_with("github.com/") || is_behind_ssh(text)
}

pub(crate) fn image_filter(text: &str) -> Result<ImageFilter, String> {
    match text.split_once('=') {
        Some(("dangling", "true" | "1")) => Ok(ImageFilter::Dangling(true)),
        Some(("dangling", "false" | "0")) => Ok(ImageFilter::Dangling(false)),
        Some(("reference", name)) if name.contains(['*', '?', '[']) => {
            Err("patterns are not supported yet, only `NAME` and `NAME:TAG`".to_owned())
        }
        Some(("reference", name)) => {
            image_ref(name)?;
            Ok(ImageFilter::Reference(name.to_owned()))
        }
        _ => Err("expected `dangling=true`, `dangling=false` or `reference=NAME[:TAG]`".to_owned()),
    }
}

pub(crate) fn entitlement(text: &str) -> Result<Entitlement, String> {
    text.parse()
}

pub(crate) fn network(text: &str) -> Result<NetworkMode, String> {
    match text {
        "" | "default" => Ok(NetworkMode::Default),
        "host" => Ok(NetworkMode::Host),
        "none" => Ok(NetworkMode::None),
        _ => Err("expected default, host or none".to_owned()),
    }
}

/// Parses `host:ip`, `host=ip`, `host:[::1]` and `host:host-gateway`.
pub(crate) fn host(text: &str) -> Result<HostArg, String> {
    let expected = "expected `HOST:IP` or `HOST=IP`";
    let (name, address) = text.split_once(['=', ':']).ok_or(expected)?;
    let address = address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(address);
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(expected.to_owned());
    }
    if address != "host-gateway" && address.parse::<IpAddr>().is_err() {
        return Err(format!("`{address}` is no IP address"));
    }
    Ok(HostArg {
        name: name.to_owned(),
        address: address.to_owned(),
    })
}

/// Resources that can be limited, as `getrlimit(2)` names them; `as` would hit larder's own
/// preparations.
const LIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Parses `nofile=1024:2048`. `-1` means unlimited.
pub(crate) fn ulimit(text: &str) -> Result<Ulimit, String> {
    let (name, limits) = text
        .split_once('=')
        .ok_or("expected `NAME=SOFT[:HARD]`, as in `nofile=1024:2048`")?;
    if !LIMITS.contains(&name) {
        return Err(format!(
            "`{name}` is no resource (expected one of {})",
            LIMITS.join(", ")
        ));
    }
    let limit = |text: &str| match text {
        "infinity" => Ok(-1),
        text => text
            .parse::<i64>()
            .ok()
            .filter(|limit| *limit >= -1)
            .ok_or_else(|| format!("`{text}` is no limit")),
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (limit(soft)?, limit(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err("the soft limit is above the hard limit".to_owned());
    }
    Ok(Ulimit {
        name: name.to_owned(),
        soft,
        hard,
    })
}

/// Parses `id=ID[,src=FILE|,env=NAME][,type=file|env]`.
pub(super) fn secret(text: &str) -> Result<SecretArg, String> {
    let (mut id, mut kind, mut value) = (None, None, None);
    for field in csv_fields(text)? {
        let (key, text) = field
            .split_once('=')
            .ok_or_else(|| format!("`{field}` is not of the form `key=value`"))?;
        match key.to_ascii_lowercase().as_str() {
            "id" => id = Some(text.to_owned()),
            "source" | "src" => value = Some(text.to_owned()),
            "env" => (kind, value) = (Some("env".to_owned()), Some(text.to_owned())),
            "type" if matches!(text, "file" | "env") => kind = Some(text.to_owned()),
            "type" => return Err(format!("`{text}` is no type of secret (file, env)")),
            _ => {
                return Err(format!(
                    "`{key}` is unknown (expected id, src, env or type)"
                ));
            }
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or("`id` is missing")?;
    let source = match (kind.as_deref(), value) {
        (Some("env"), name) => SecretSource::Env(name.unwrap_or_else(|| id.clone())),
        (_, Some(path)) => SecretSource::File(PathBuf::from(path)),
        (Some(_), None) => SecretSource::File(PathBuf::from(&id)),
        (None, None) => SecretSource::ById,
    };
    Ok(SecretArg { id, source })
}

/// Parses `ID`, `ID=SOCKET` or `ID=KEY,KEY`.
pub(crate) fn ssh(text: &str) -> Result<SshArg, String> {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let mut ssh = SshArg::default();
    if !id.is_empty() {
        id.clone_into(&mut ssh.id);
    }
    for path in paths.split(',').filter(|path| !path.is_empty()) {
        match path {
            "raw=false" => {}
            "raw" | "raw=true" => return Err("`raw` is not supported: only agents are".to_owned()),
            path => ssh.paths.push(PathBuf::from(path)),
        }
    }
    Ok(ssh)
}

/// Parses `HOST:TARGET[:ro]`, or `TARGET` alone.
pub(crate) fn volume(text: &str) -> Result<Volume, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err("expected `HOST:TARGET[:ro]` or `TARGET`".to_owned()),
    };
    if !target.starts_with('/') {
        return Err(format!("the target `{target}` is not an absolute path"));
    }
    let readonly = match options {
        "" | "rw" => false,
        "ro" => true,
        _ => return Err(format!("`{options}` is unknown (expected ro or rw)")),
    };
    let source = match source {
        Some("") => return Err("the directory before `:` is empty".to_owned()),
        source => source.map(PathBuf::from),
    };
    Ok(Volume {
        source,
        target: target.to_owned(),
        readonly,
    })
}

/// A condition on records, `type=exec.cachemount`; a key alone asks for its presence.
pub(super) fn filter(text: &str) -> Result<String, String> {
    let key_end = text.find(['=', '!', '~']).unwrap_or(text.len());
    if key_end == 0 {
        return Err("expected `key=value`".to_owned());
    }
    Ok(text.to_owned())
}

/// Splits a line of comma-separated values; a field in double quotes may hold commas.
pub(super) fn csv_fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let field = fields.last_mut().expect("there is always a field");
        match character {
            '"' if quoted && characters.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    if quoted {
        return Err("a double quote is not closed".to_owned());
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_sockets_or_keys() {
        for (text, id, paths) in [
            ("default", "default", &[][..]),
            ("", "default", &[]),
            ("k=", "k", &[]),
            ("k=/s", "k", &["/s"]),
            ("k=/a,/b", "k", &["/a", "/b"]),
            ("k=/s,raw=false", "k", &["/s"]),
        ] {
            let paths = paths.iter().map(PathBuf::from).collect();
            let id = id.to_owned();
            assert_eq!(ssh(text), Ok(SshArg { id, paths }), "{text}");
        }
        assert!(ssh("k=/s,raw=true").is_err());
    }

    #[test]
    fn secrets_come_from_files_and_variables() {
        let env = |name: &str| SecretSource::Env(name.to_owned());
        let file = |path: &str| SecretSource::File(PathBuf::from(path));
        for (text, id, source) in [
            ("id=a", "a", SecretSource::ById),
            ("id=a,src=/f", "a", file("/f")),
            ("id=a,source=f", "a", file("f")),
            ("id=a,env=TOKEN", "a", env("TOKEN")),
            ("type=env,id=a", "a", env("a")),
            ("type=file,id=a", "a", file("a")),
            ("\"id=a\",\"src=x,y\"", "a", file("x,y")),
        ] {
            let id = id.to_owned();
            assert_eq!(secret(text), Ok(SecretArg { id, source }), "{text}");
        }
        for bad in [
            "",
            "id=",
            "a",
            "src=x",
            "id=a,kind=b",
            "id=a,type=ssh",
            "\"id=a",
        ] {
            assert!(secret(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_have_a_soft_and_a_hard_value() {
        for (text, soft, hard) in [
            ("nofile=1024:2048", 1024, 2048),
            ("nofile=5", 5, 5),
            ("core=0:-1", 0, -1),
            ("stack=infinity", -1, -1),
        ] {
            let ulimit = ulimit(text).unwrap();
            assert_eq!((ulimit.soft, ulimit.hard), (soft, hard), "{text}");
        }
        for bad in [
            "nofile",
            "as=1",
            "nofile=2:1",
            "nofile=-1:1",
            "nofile=x",
            "nofile=1:2:3",
        ] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_have_addresses_of_both_families() {
        for (text, name, address) in [
            ("a:1.2.3.4", "a", "1.2.3.4"),
            ("a=1.2.3.4", "a", "1.2.3.4"),
            ("a:::1", "a", "::1"),
            ("a=[::1]", "a", "::1"),
            ("a:host-gateway", "a", "host-gateway"),
        ] {
            let host = host(text).unwrap();
            assert_eq!((&*host.name, &*host.address), (name, address), "{text}");
        }
        for bad in ["a", "a:", ":1.2.3.4", "a:b", "a b:1.2.3.4"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn volumes_are_directories_of_the_host_or_anonymous() {
        for (text, source, target, readonly) in [
            ("/a:/b", Some("/a"), "/b", false),
            ("a:/b:ro", Some("a"), "/b", true),
            ("/a:/b:rw", Some("/a"), "/b", false),
            ("/b", None, "/b", false),
        ] {
            let expected = Volume {
                source: source.map(PathBuf::from),
                target: target.to_owned(),
                readonly,
            };
            assert_eq!(volume(text), Ok(expected), "{text}");
        }
        for bad in ["", "b", "/a:b", ":/b", "/a:/b:z", "/a:/b:ro:x"] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn images_are_filtered_by_name() {
        assert_eq!(
            image_filter("dangling=true"),
            Ok(ImageFilter::Dangling(true))
        );
        let reference = ImageFilter::Reference("a:1".to_owned());
        assert_eq!(image_filter("reference=a:1"), Ok(reference));
        for bad in [
            "dangling",
            "dangling=x",
            "reference=a*",
            "reference=A",
            "label=x",
        ] {
            assert!(image_filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn contexts_are_of_many_kinds() {
        let value = |text| named_context(text).unwrap().1;
        let layout = |directory: &str, tag: Option<&str>, digest: Option<Digest>| {
            NamedContext::OciLayout(LayoutImage {
                directory: directory.into(),
                tag: tag.map(str::to_owned),
                digest,
            })
        };
        let remote = |url: &str| NamedContext::Remote(url.to_owned());
        let digest = Digest::sha256("x");
        let pinned = format!("a=oci-layout://d:1@{digest}");
        for (text, expected) in [
            ("a=b=c", NamedContext::Directory("b=c".into())),
            (
                "a=docker-image://x:1",
                NamedContext::Image("x:1".to_owned()),
            ),
            ("a=oci-layout://d/e", layout("d/e", None, None)),
            ("a=oci-layout:///d:v1", layout("/d", Some("v1"), None)),
            (&pinned, layout("d", Some("1"), Some(digest.clone()))),
            ("a=https://x.test/f", remote("https://x.test/f")),
            ("a=git@host:x", remote("git@host:x")),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
        for bad in [
            "a",
            "=b",
            "a=",
            "a=docker-image://X:",
            "a=oci-layout://",
            "a=oci-layout://d@x",
            "a=target:b",
        ] {
            assert!(named_context(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn quotes_hold_fields_together() {
        assert_eq!(csv_fields("a,b").unwrap(), ["a", "b"]);
        assert_eq!(csv_fields("\"a,b\",c").unwrap(), ["a,b", "c"]);
        assert_eq!(csv_fields("\"a\"\"b\"").unwrap(), ["a\"b"]);
        assert_eq!(csv_fields("").unwrap(), [""]);
        assert!(csv_fields("\"a").is_err());
    }
}
