//! Files from web servers as sources: what their attributes say, and what enters their keys.

use larder_oci::{Digest, go_json};
use serde::Serialize;

use crate::pb;

/// The name of a file that no other name can be found for.
const NO_NAME: &str = "download";
/// The headers that a definition may set; others are dropped, as BuildKit does.
const HEADERS: [&str; 2] = ["Accept", "User-Agent"];

/// A source `http://…` or `https://…`.
///
/// Which fields enter its key: the file's name, mode, owner, content and time, the name of the
/// secret, and headers. The URL does not: the content tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSource {
    /// Where the file is.
    pub url: String,
    /// What it must be.
    pub checksum: Option<Digest>,
    /// What it is to be called, if that is asked for.
    pub filename: Option<String>,
    /// Its permission bits; 0 for those that are usual.
    pub perm: u32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The secret that has the value of `Authorization`.
    pub auth_header_secret: Option<String>,
    /// Further headers of the request, sorted by name.
    pub headers: Vec<HttpHeader>,
    /// Who must have signed it.
    pub signature: Option<HttpSignature>,
}

/// A signature that a file must have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpSignature {
    /// The OpenPGP keys of who may have signed, in their armor.
    pub public_keys: String,
    /// The detached signature, in its armor.
    pub signature: String,
}

/// A header of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HttpHeader {
    /// Its name, as Go writes it.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// An attribute of a source that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HttpSourceError(String);

impl HttpSource {
    /// Reads the attributes of a source; `None` for one of another kind.
    ///
    /// # Errors
    /// When an attribute can't be read, or asks for what there is not.
    pub fn parse(source: &pb::SourceOp) -> Option<Result<Self, HttpSourceError>> {
        let url = &source.identifier;
        let is_http = url.starts_with("http://") || url.starts_with("https://");
        is_http.then(|| Self::of(source))
    }

    fn of(source: &pb::SourceOp) -> Result<Self, HttpSourceError> {
        let mut http = Self {
            url: source.identifier.clone(),
            checksum: None,
            filename: None,
            perm: 0,
            uid: 0,
            gid: 0,
            auth_header_secret: None,
            headers: Vec::new(),
            signature: None,
        };
        let text = |value: &String| Some(value.clone()).filter(|text| !text.is_empty());
        for (attr, value) in &source.attrs {
            let bad = |problem| HttpSourceError(format!("`{attr}` of an http source {problem}"));
            let number = || number(value).ok_or_else(|| bad("is no number"));
            match attr.as_str() {
                "http.checksum" => {
                    let digest = value.parse().map_err(|_| bad("is no digest"))?;
                    http.checksum = Some(digest);
                }
                "http.filename" => http.filename = text(value),
                "http.perm" => http.perm = number()?,
                "http.uid" => http.uid = number()?,
                "http.gid" => http.gid = number()?,
                "http.authheadersecret" => http.auth_header_secret = text(value),
                "http.sig.pubkey" => {
                    let signature = http.signature.get_or_insert_default();
                    signature.public_keys.clone_from(value);
                }
                "http.sig.signature" => {
                    let signature = http.signature.get_or_insert_default();
                    signature.signature.clone_from(value);
                }
                // It may ask for a check: nothing is fetched without it.
                signature if signature.starts_with("http.sig.") => {
                    return Err(bad("is not known to larder"));
                }
                other => http.headers.extend(header(other, value)),
            }
        }
        let is_half = |signature: &HttpSignature| {
            signature.public_keys.is_empty() != signature.signature.is_empty()
        };
        if http.signature.as_ref().is_some_and(is_half) {
            let problem = "http signature verification requires both pubkey and signature";
            return Err(HttpSourceError(problem.to_owned()));
        }
        http.headers.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(http)
    }

    /// Names what is asked of the server: requests with one name have one answer.
    pub fn request_id(&self) -> Digest {
        let mut parts = vec![self.url.as_str()];
        parts.extend(self.filename.as_deref());
        let numbers = format!("{} {} {}", self.perm, self.uid, self.gid);
        parts.push(&numbers);
        parts.push(self.auth_header_secret.as_deref().unwrap_or_default());
        for header in &self.headers {
            parts.extend([header.name.as_str(), header.value.as_str()]);
        }
        let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        Digest::sha256(format!("{lengths:?}\0{}", parts.join("\0")))
    }

    /// Returns what the file is called: as asked for, else as the server's `Content-Disposition`
    /// says, else as the URL ends.
    pub fn file_name(&self, disposition: Option<&str>) -> String {
        if let Some(filename) = &self.filename {
            return safe_name(filename);
        }
        let told = disposition.and_then(disposition_name);
        let told = told.filter(|name| !name.is_empty() && !name.ends_with('/'));
        safe_name(&told.or_else(|| url_name(&self.url)).unwrap_or_default())
    }

    /// Returns the op's digest for a file of that name, content and time (as HTTP writes times, if
    /// the server told one).
    pub fn cache_digest(
        &self,
        filename: &str,
        checksum: &Digest,
        last_modified: Option<&str>,
    ) -> Digest {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Key<'a> {
            filename: &'a str,
            perm: u32,
            #[serde(rename = "UID")]
            uid: u32,
            #[serde(rename = "GID")]
            gid: u32,
            checksum: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            last_mod_time: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            auth_header_secret: Option<&'a str>,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            header: &'a [HttpHeader],
        }
        let key = Key {
            filename,
            perm: self.perm,
            uid: self.uid,
            gid: self.gid,
            checksum: checksum.as_str(),
            last_mod_time: last_modified,
            auth_header_secret: self.auth_header_secret.as_deref(),
            header: &self.headers,
        };
        let key = Digest::sha256(go_json(&key));
        Digest::sha256(format!("buildkit.source.v0:{key}"))
    }
}

/// Returns the last part of a URL's path, decoded; `None` if it has none.
pub fn url_name(url: &str) -> Option<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['#', '?']).next()?;
    let (_, path) = rest.split_once('/')?;
    let decoded = decode(path)?;
    let base = decoded.trim_end_matches('/').rsplit('/').next()?;
    (!matches!(base, "" | ".")).then(|| base.to_owned())
}

/// Decodes `%XX`; `None` for what is not encoded so, or no text.
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                (high * 16 + low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

/// Reads a number as Go does: `0755` and `0o755` are octal, `0x1ed` is hexadecimal.
pub(crate) fn number(text: &str) -> Option<u32> {
    let prefixed = |prefix: &str, radix| {
        let rest = text.strip_prefix(prefix)?;
        u32::from_str_radix(rest, radix).ok()
    };
    prefixed("0x", 16)
        .or_else(|| prefixed("0o", 8))
        .or_else(|| prefixed("0b", 2))
        .or_else(|| prefixed("0", 8))
        .or_else(|| text.parse().ok())
}

fn header(attr: &str, value: &str) -> Option<HttpHeader> {
    let name = attr.strip_prefix("http.header.")?;
    let known = HEADERS
        .iter()
        .find(|known| known.eq_ignore_ascii_case(name));
    known.map(|name| HttpHeader {
        name: (*name).to_owned(),
        value: value.to_owned(),
    })
}

/// Returns a name that is one file's in one directory.
fn safe_name(name: &str) -> String {
    let base = name.trim().trim_end_matches('/').rsplit('/').next();
    let base = base.unwrap_or_default();
    if matches!(base, "" | "." | "..") || base.chars().any(char::is_control) {
        return NO_NAME.to_owned();
    }
    base.to_owned()
}

/// Returns the `filename` that a `Content-Disposition` has.
fn disposition_name(value: &str) -> Option<String> {
    let mut parameters = parameters(value)?;
    // The encoded one comes first.
    let encoded = parameters.iter().position(|(name, _)| name == "filename*");
    if let Some(at) = encoded
        && let Some(name) = decode_extended(&parameters.swap_remove(at).1)
    {
        return Some(name);
    }
    let plain = parameters.into_iter().find(|(name, _)| name == "filename");
    plain.map(|(_, value)| value)
}

/// Reads `charset'language'percent-encoded`.
fn decode_extended(value: &str) -> Option<String> {
    let mut parts = value.splitn(3, '\'');
    let charset = parts.next()?.to_ascii_lowercase();
    let encoded = parts.nth(1)?;
    matches!(charset.as_str(), "utf-8" | "us-ascii").then(|| decode(encoded))?
}

/// Reads the parameters behind a header's first word; their names in lower case.
fn parameters(value: &str) -> Option<Vec<(String, String)>> {
    let (_, mut rest) = value.split_once(';')?;
    let mut parameters = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        if rest.is_empty() {
            return Some(parameters);
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = if let Some(quoted) = after.trim_start().strip_prefix('"') {
            unquote(quoted)?
        } else {
            let end = after.find(';').unwrap_or(after.len());
            (after[..end].trim().to_owned(), &after[end..])
        };
        parameters.push((name.trim().to_ascii_lowercase(), value));
        rest = after;
    }
}

/// Reads a quoted text, without its first quote; returns what is behind it, too.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()? {
                (_, c @ ('"' | '\\')) => value.push(c),
                // Some write Windows' paths unescaped.
                (_, c) => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(url: &str, attrs: &[(&str, &str)]) -> HttpSource {
        let attrs = attrs.iter();
        let source = pb::SourceOp {
            identifier: url.to_owned(),
            attrs: attrs
                .map(|(name, value)| (format!("http.{name}"), (*value).to_owned()))
                .collect(),
        };
        HttpSource::parse(&source).unwrap().unwrap()
    }

    #[test]
    fn attributes_are_those_of_the_definition() {
        let sum = Digest::sha256("x");
        let http = source(
            "https://x.test/a",
            &[
                ("checksum", sum.as_str()),
                ("filename", "f"),
                ("perm", "0755"),
                ("uid", "7"),
                ("gid", "0x10"),
                ("authheadersecret", "s"),
                ("header.user-agent", "u"),
                ("header.accept", "a"),
                ("header.cookie", "dropped"),
            ],
        );
        assert_eq!(http.checksum, Some(sum));
        assert_eq!((http.perm, http.uid, http.gid), (0o755, 7, 16));
        let headers = http.headers.iter();
        let headers: Vec<_> = headers
            .map(|header| (&*header.name, &*header.value))
            .collect();
        assert_eq!(headers, [("Accept", "a"), ("User-Agent", "u")]);
        let bad = |attr: &str, value: &str| {
            let attrs = [(attr.to_owned(), value.to_owned())].into();
            let identifier = "http://x".to_owned();
            let parsed = HttpSource::parse(&pb::SourceOp { identifier, attrs });
            parsed.unwrap().unwrap_err().to_string()
        };
        assert_eq!(
            bad("http.perm", "x"),
            "`http.perm` of an http source is no number"
        );
        assert!(bad("http.checksum", "md5:1").contains("is no digest"));
        let half = "http signature verification requires both pubkey and signature";
        assert_eq!(bad("http.sig.pubkey", "x"), half);
        assert_eq!(bad("http.sig.signature", "x"), half);
        assert!(bad("http.sig.policy", "x").contains("is not known"));
        let signed = [("sig.pubkey", "k"), ("sig.signature", "s")];
        let signed = source("https://x.test/a", &signed);
        let plain = source("https://x.test/a", &[]);
        assert_eq!(signed.signature.as_ref().unwrap().signature, "s");
        // Who has signed changes nothing of the file.
        assert_eq!(signed.request_id(), plain.request_id());
        let other = pb::SourceOp {
            identifier: "local://http".to_owned(),
            ..pb::SourceOp::default()
        };
        assert_eq!(HttpSource::parse(&other), None);
    }

    #[test]
    fn names_come_from_the_definition_the_server_or_the_url() {
        let url = "https://x.test/d/a%20b.txt?q";
        for (filename, disposition, expected) in [
            ("f", Some("attachment; filename=x"), "f"),
            ("d/f ", None, "f"),
            ("..", None, "download"),
            ("a\nb", None, "download"),
            ("", None, "a b.txt"),
            ("", Some("attachment; filename=x.txt; size=3"), "x.txt"),
            (
                "",
                Some("attachment; filename=\"../d/x; \\\"y\\\".txt\""),
                "x; \"y\".txt",
            ),
            (
                "",
                Some("inline; filename=a; FileName*=UTF-8''%e2%82%ac.txt"),
                "€.txt",
            ),
            ("", Some("inline; filename*=latin1''%e2; filename=a"), "a"),
            ("", Some("attachment; filename=\"d/\""), "a b.txt"),
            ("", Some("attachment; filename=\"unclosed"), "a b.txt"),
            ("", Some("attachment"), "a b.txt"),
            ("", Some("attachment; filename=.."), "download"),
        ] {
            let attrs = [("filename", filename)];
            let name = source(url, &attrs).file_name(disposition);
            assert_eq!(name, expected, "{filename:?} {disposition:?}");
        }
        assert_eq!(source("https://x.test", &[]).file_name(None), "download");
    }

    #[test]
    fn urls_name_files() {
        for (url, name) in [
            ("https://example.com/a.tar", Some("a.tar")),
            ("https://example.com/a.tar?x=1/2#f/g", Some("a.tar")),
            ("https://example.com/d/", Some("d")),
            ("https://example.com/a%2Fb", Some("b")),
            ("https://example.com/%zz", None),
            ("https://example.com/", None),
            ("https://example.com?x=/y", None),
            ("https://example.com/.", None),
        ] {
            assert_eq!(url_name(url).as_deref(), name, "{url}");
        }
    }

    #[test]
    fn keys_are_buildkit_s_json() {
        let sum = Digest::sha256("x");
        let expect = |http: &HttpSource, time, json: String| {
            let key = Digest::sha256(json);
            let expected = Digest::sha256(format!("buildkit.source.v0:{key}"));
            assert_eq!(http.cache_digest("f<", &sum, time), expected);
        };
        let plain = source("https://x.test/a", &[]);
        expect(
            &plain,
            None,
            format!(r#"{{"Filename":"f\u003c","Perm":0,"UID":0,"GID":0,"Checksum":"{sum}"}}"#),
        );
        let full = source(
            "https://x.test/b",
            &[
                ("perm", "0600"),
                ("uid", "1"),
                ("gid", "2"),
                ("authheadersecret", "s"),
                ("header.accept", "a"),
            ],
        );
        let time = "Sun, 06 Nov 1994 08:49:37 GMT";
        expect(
            &full,
            Some(time),
            format!(
                r#"{{"Filename":"f\u003c","Perm":384,"UID":1,"GID":2,"Checksum":"{sum}","LastModTime":"{time}","AuthHeaderSecret":"s","Header":[{{"Name":"Accept","Value":"a"}}]}}"#
            ),
        );
        // The URL is not in the key, and is what is asked for.
        let other = source("https://x.test/c", &[]);
        assert_eq!(
            other.cache_digest("f", &sum, None),
            plain.cache_digest("f", &sum, None)
        );
        assert_ne!(other.request_id(), plain.request_id());
    }
}
