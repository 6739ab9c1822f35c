//! SSH agents and keys that flags name.

mod keys;

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use larder_engine::request::{SshAgent, SshProvider, is_behind_ssh};

use self::keys::Keys;
use crate::args::SshArg;
use crate::environment::Environment;

/// OpenSSH's bound on a message.
const MAX_MESSAGE_BYTES: usize = 256 << 10;
/// Where the user's own agent is.
const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";

/// Adds the user's own agent where no other is given and the context needs one.
pub(crate) fn for_context(context: &str, mut agents: Vec<SshArg>) -> Vec<SshArg> {
    if agents.is_empty() && is_behind_ssh(context) {
        agents.push(SshArg::default());
    }
    agents
}

/// The agents of a command line.
pub(crate) struct FlagSsh(BTreeMap<String, Arc<dyn SshAgent>>);

impl FlagSsh {
    /// Finds the agents and reads the keys, so that a wrong path is told before the build begins.
    pub(crate) fn new(args: Vec<SshArg>, env: &Environment) -> anyhow::Result<Self> {
        let mut agents = BTreeMap::new();
        for SshArg { id, paths } in args {
            let agent = agent(&paths, env).with_context(|| format!("`--ssh`: agent `{id}`"))?;
            ensure!(
                agents.insert(id.clone(), agent).is_none(),
                "`--ssh`: agent `{id}` is given twice"
            );
        }
        Ok(Self(agents))
    }
}

impl SshProvider for FlagSsh {
    fn agent(&self, id: &str) -> io::Result<Option<Arc<dyn SshAgent>>> {
        Ok(self.0.get(id).cloned())
    }
}

fn agent(paths: &[PathBuf], env: &Environment) -> anyhow::Result<Arc<dyn SshAgent>> {
    let own;
    let paths = match paths {
        [] => {
            let path = env.path(AGENT_VARIABLE);
            own = [path.context("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set")?];
            &own
        }
        paths => paths,
    };
    let sockets = paths.iter().map(|path| is_socket(path));
    let sockets: Vec<bool> = sockets.collect::<anyhow::Result<_>>()?;
    match (paths, sockets.contains(&true)) {
        ([path], true) => Ok(Arc::new(Socket(path.clone()))),
        (_, true) if sockets.contains(&false) => bail!("invalid combination of keys and sockets"),
        (_, true) => bail!("only single socket allowed"),
        (paths, false) => Ok(Arc::new(Keys::read(paths)?)),
    }
}

fn is_socket(path: &Path) -> anyhow::Result<bool> {
    let metadata = fs_err::metadata(path)?;
    Ok(metadata.file_type().is_socket())
}

/// An agent behind a socket.
struct Socket(PathBuf);

impl SshAgent for Socket {
    fn answer(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.0)?;
        let length = u32::try_from(request.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], request].concat())?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_MESSAGE_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut reply = vec![0; length];
        stream.read_exact(&mut reply)?;
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agents(paths: &[&Path], env: &[(&str, &str)]) -> anyhow::Result<FlagSsh> {
        let arg = SshArg {
            id: "k".to_owned(),
            paths: paths.iter().map(PathBuf::from).collect(),
        };
        FlagSsh::new(vec![arg], &Environment::of(env))
    }

    #[test]
    fn sockets_and_keys_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let file = directory.path().join("file");
        fs_err::write(&file, "no key").unwrap();
        assert!(agents(&[&socket], &[]).is_ok());
        let from_env = agents(&[], &[("SSH_AUTH_SOCK", socket.to_str().unwrap())]).unwrap();
        assert!(from_env.agent("k").unwrap().is_some());
        assert!(from_env.agent("other").unwrap().is_none());
        for (paths, expected) in [
            (&[][..], "make sure SSH_AUTH_SOCK is set"),
            (&[&*socket, &*socket], "only single socket allowed"),
            (
                &[&*socket, &*file],
                "invalid combination of keys and sockets",
            ),
            (&[Path::new("/does/not/exist")], "/does/not/exist"),
            (&[&*file], "is no private key"),
        ] {
            let error = format!("{:#}", agents(paths, &[]).err().unwrap());
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("agent `k`"), "{error}");
        }
        let twice = vec![SshArg::default(), SshArg::default()];
        let env = Environment::of(&[("SSH_AUTH_SOCK", socket.to_str().unwrap())]);
        assert!(FlagSsh::new(twice, &env).is_err());
    }

    #[test]
    fn a_socket_is_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 5];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(&[0, 0, 0, 2, 12, 7]).unwrap();
            request
        });
        assert_eq!(Socket(path).answer(&[11]).unwrap(), [12, 7]);
        assert_eq!(server.join().unwrap(), [0, 0, 0, 1, 11]);
    }
}
