//! Keys in files, and the signing that an agent does with them.

use std::io;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use larder_engine::request::SshAgent;
use rsa::RsaPrivateKey;
use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs1v15::SigningKey;
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::sha2::{Sha256, Sha512};
use rsa::signature::{SignatureEncoding as _, Signer as _};
use ssh_key::private::{KeypairData, RsaKeypair};
use ssh_key::{Algorithm, HashAlg, PrivateKey, Signature};

/// BuildKit's bound on a key's file.
const MAX_KEY_BYTES: u64 = 100 << 10;

// Messages of the agent protocol (draft-ietf-sshm-ssh-agent, section 7).
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// Asks for an RSA signature over SHA-256.
const RSA_SHA2_256: u32 = 2;
/// Asks for an RSA signature over SHA-512.
const RSA_SHA2_512: u32 = 4;

/// Keys, as an agent has them.
pub(super) struct Keys(Vec<Key>);

struct Key {
    /// As servers know it.
    public: Vec<u8>,
    private: PrivateKey,
}

impl Keys {
    /// Reads the keys in `paths`.
    pub(super) fn read(paths: &[impl AsRef<Path>]) -> anyhow::Result<Self> {
        let keys = paths.iter().map(|path| read(path.as_ref()));
        Ok(Self(keys.collect::<anyhow::Result<_>>()?))
    }
}

fn read(path: &Path) -> anyhow::Result<Key> {
    let shown = path.display();
    let metadata = fs_err::metadata(path)?;
    if metadata.len() > MAX_KEY_BYTES {
        bail!("`{shown}` is larger than 100 KiB");
    }
    let text =
        fs_err::read_to_string(path).with_context(|| format!("`{shown}` is no private key"))?;
    let private = parse(&text).with_context(|| format!("`{shown}` is no private key"))?;
    let encrypted = || {
        anyhow!(
            "`{shown}` is encrypted\nhint: let an agent have it (`ssh-add {shown}`), and pass \
             `--ssh default`"
        )
    };
    let private = private
        .filter(|key| !key.is_encrypted())
        .ok_or_else(encrypted)?;
    let public = private.public_key().to_bytes()?;
    Ok(Key { public, private })
}

/// Parses a key of OpenSSH, or an RSA key in PEM; `None` for an encrypted one in PEM.
fn parse(text: &str) -> anyhow::Result<Option<PrivateKey>> {
    let text = text.trim();
    let rsa = match text.lines().next().unwrap_or_default() {
        "-----BEGIN OPENSSH PRIVATE KEY-----" => return Ok(Some(PrivateKey::from_openssh(text)?)),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----" => return Ok(None),
        "-----BEGIN RSA PRIVATE KEY-----" if text.contains("ENCRYPTED") => return Ok(None),
        "-----BEGIN RSA PRIVATE KEY-----" => RsaPrivateKey::from_pkcs1_pem(text)?,
        "-----BEGIN PRIVATE KEY-----" => RsaPrivateKey::from_pkcs8_pem(text)
            .context("only RSA keys are read in this form: convert it with `ssh-keygen -p -f`")?,
        first if first.starts_with("-----BEGIN ") => {
            bail!("`{first}` is not supported: convert it with `ssh-keygen -p -f`")
        }
        _ => bail!("there is no `-----BEGIN`"),
    };
    let keypair = KeypairData::from(RsaKeypair::try_from(rsa)?);
    Ok(Some(PrivateKey::new(keypair, "")?))
}

impl SshAgent for Keys {
    fn answer(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        match request.split_first() {
            Some((&REQUEST_IDENTITIES, _)) => {
                let mut reply = vec![IDENTITIES_ANSWER];
                reply.extend((self.0.len() as u32).to_be_bytes());
                for key in &self.0 {
                    put(&mut reply, &key.public);
                    put(&mut reply, key.private.comment().as_bytes());
                }
                Ok(reply)
            }
            Some((&SIGN_REQUEST, mut rest)) => {
                let (public, data) = (take(&mut rest)?, take(&mut rest)?);
                let flags = rest
                    .first_chunk()
                    .map_or(0, |flags| u32::from_be_bytes(*flags));
                let key = self.0.iter().find(|key| key.public == public);
                let key = key.ok_or(io::ErrorKind::NotFound)?;
                let signature = sign(&key.private, data, flags).map_err(io::Error::other)?;
                let mut reply = vec![SIGN_RESPONSE];
                put(
                    &mut reply,
                    &Vec::try_from(signature).map_err(io::Error::other)?,
                );
                Ok(reply)
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

fn sign(key: &PrivateKey, data: &[u8], flags: u32) -> anyhow::Result<Signature> {
    let KeypairData::Rsa(rsa) = key.key_data() else {
        return Ok(key.try_sign(data)?);
    };
    // `ssh-key` makes another key of it.
    let (public, private) = (&rsa.public, &rsa.private);
    let primes = vec![(&private.p).try_into()?, (&private.q).try_into()?];
    let (n, e) = ((&public.n).try_into()?, (&public.e).try_into()?);
    let key = RsaPrivateKey::from_components(n, e, (&private.d).try_into()?, primes)?;
    let (hash, signature) = if flags & RSA_SHA2_512 != 0 {
        let signer = SigningKey::<Sha512>::new(key);
        (HashAlg::Sha512, signer.try_sign(data)?)
    } else if flags & RSA_SHA2_256 != 0 {
        let signer = SigningKey::<Sha256>::new(key);
        (HashAlg::Sha256, signer.try_sign(data)?)
    } else {
        // SHA-1, which no server should want any more.
        bail!("a signature over SHA-1 is asked for");
    };
    let algorithm = Algorithm::Rsa { hash: Some(hash) };
    Ok(Signature::new(algorithm, signature.to_vec())?)
}

/// Adds a string of the protocol: its length, and its bytes.
fn put(message: &mut Vec<u8>, string: &[u8]) {
    message.extend((string.len() as u32).to_be_bytes());
    message.extend(string);
}

/// Takes a string off a message.
fn take<'a>(message: &mut &'a [u8]) -> io::Result<&'a [u8]> {
    let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (length, rest) = message.split_first_chunk().ok_or_else(short)?;
    let length = u32::from_be_bytes(*length) as usize;
    let (string, rest) = rest.split_at_checked(length).ok_or_else(short)?;
    *message = rest;
    Ok(string)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rsa::signature::Verifier as _;
    use ssh_key::PublicKey;

    use super::*;

    /// Makes a key with OpenSSH's own tool; `None` where that is missing.
    fn make(directory: &Path, kind: &[&str], passphrase: &str) -> Option<std::path::PathBuf> {
        let path = directory.join(kind.join(""));
        let made = Command::new("ssh-keygen")
            .args(["-q", "-C", "me", "-N", passphrase, "-f"])
            .arg(&path)
            .args(kind)
            .status();
        made.is_ok_and(|status| status.success()).then_some(path)
    }

    #[test]
    fn keys_of_openssh_are_listed_and_sign() {
        let directory = tempfile::tempdir().unwrap();
        for (kind, flags) in [
            (&["-t", "ed25519"][..], 0),
            (&["-t", "ecdsa"], 0),
            (&["-t", "rsa", "-b", "2048"], RSA_SHA2_256),
            (&["-t", "rsa", "-b", "2048", "-m", "PEM"], RSA_SHA2_512),
            (&["-t", "rsa", "-b", "2048", "-m", "PKCS8"], RSA_SHA2_512),
        ] {
            let Some(path) = make(directory.path(), kind, "") else {
                larder_testkit::skip!("no ssh-keygen");
            };
            let keys = Keys::read(&[&path]).unwrap();
            let public = fs_err::read_to_string(path.with_extension("pub"));
            let public: PublicKey = public.unwrap().parse().unwrap();
            let listed = keys.answer(&[REQUEST_IDENTITIES]).unwrap();
            let mut rest = &listed[5..];
            assert_eq!((listed[0], listed[4]), (IDENTITIES_ANSWER, 1));
            assert_eq!(take(&mut rest).unwrap(), public.to_bytes().unwrap());

            let mut request = vec![SIGN_REQUEST];
            put(&mut request, &public.to_bytes().unwrap());
            put(&mut request, b"data");
            request.extend(flags.to_be_bytes());
            let reply = keys.answer(&request).unwrap();
            assert_eq!(reply[0], SIGN_RESPONSE);
            let mut rest = &reply[1..];
            let signature = Signature::try_from(take(&mut rest).unwrap()).unwrap();
            public.key_data().verify(b"data", &signature).unwrap();
            if flags != 0 {
                let name = if flags == RSA_SHA2_256 { "256" } else { "512" };
                assert!(signature.algorithm().as_str().ends_with(name));
                let end = request.len() - 4;
                request[end..].fill(0);
                assert!(keys.answer(&request).is_err());
            }
        }
    }

    #[test]
    fn what_can_t_be_used_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let encrypted = make(directory.path(), &["-t", "ed25519"], "secret");
        let Some(encrypted) = encrypted else {
            larder_testkit::skip!("no ssh-keygen");
        };
        let text = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs_err::write(&path, text).unwrap();
            path
        };
        let ec = text("ec", "-----BEGIN EC PRIVATE KEY-----\n");
        let pem = text("pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n");
        let none = text("none", "hello");
        for (path, expected) in [
            (&encrypted, "is encrypted\nhint: let an agent have it"),
            (&pem, "is encrypted"),
            (&ec, "convert it with `ssh-keygen -p -f`"),
            (&none, "is no private key"),
        ] {
            let error = Keys::read(&[path]).err().map(|error| format!("{error:#}"));
            let error = error.unwrap();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn bad_messages_are_refused() {
        let keys = Keys(Vec::new());
        let listed = keys.answer(&[REQUEST_IDENTITIES]).unwrap();
        assert_eq!(listed, [IDENTITIES_ANSWER, 0, 0, 0, 0]);
        for request in [
            &[][..],
            &[SIGN_REQUEST],
            &[SIGN_REQUEST, 255, 255, 255, 255],
            &[SIGN_REQUEST, 0, 0, 0, 1, 7, 0, 0, 0, 0],
            &[17],
        ] {
            assert!(keys.answer(request).is_err(), "{request:?}");
        }
    }
}
