//! Agents that are lent to processes: a socket that answers two questions and no others.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use larder_exec::Cancel;
use larder_exec::mount::{self, Access};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Gid, Mode, Uid};

use crate::error::{BuildError, ErrorClass, Result};
use crate::request::{SshAgent, SshProvider};
use crate::task::Tasks;

/// The socket's name in its directory.
const NAME: &str = "agent";
/// A socket takes no room.
const DIRECTORY_BYTES: u64 = 64 << 10;
/// OpenSSH's bound on a message.
const MAX_MESSAGE_BYTES: usize = 256 << 10;
/// As many processes as may talk to an agent at once.
const MAX_CONNECTIONS: usize = 64;
/// How long a process may take to read an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Which keys there are (draft-ietf-sshm-ssh-agent, section 7).
const REQUEST_IDENTITIES: u8 = 11;
/// Please sign.
const SIGN_REQUEST: u8 = 13;
/// No.
const FAILURE: u8 = 5;

/// Returns the agent `id`.
///
/// # Errors
/// If there is none.
pub(crate) fn required(provider: &dyn SshProvider, id: &str) -> Result<Arc<dyn SshAgent>> {
    find(provider, id)?.ok_or_else(|| {
        let message = format!("no SSH key {id:?} forwarded from the client");
        let hint = format!("lend an agent or a key: `--ssh {id}`");
        BuildError::new(ErrorClass::NotFound, message).with_hint(hint)
    })
}

/// Returns the agent `id`, if there is one.
pub(crate) fn find(provider: &dyn SshProvider, id: &str) -> Result<Option<Arc<dyn SshAgent>>> {
    provider.agent(id).map_err(|source| {
        BuildError::new(
            ErrorClass::NotFound,
            format!("cannot reach SSH agent {id:?}"),
        )
        .with_source(source)
    })
}

/// An agent's socket, as long as this lives. It lies in memory.
pub(crate) struct AgentSocket {
    directory: OwnedFd,
    stop: Cancel,
    thread: Option<JoinHandle<()>>,
}

impl AgentSocket {
    /// Makes the socket, with an owner and permission bits, and answers what is asked there.
    pub(crate) fn serve(agent: Arc<dyn SshAgent>, owner: (u32, u32), mode: u32) -> Result<Self> {
        let directory = mount::tmpfs(Some(DIRECTORY_BYTES), 0o755)?;
        let failed = |source: std::io::Error| {
            BuildError::new(
                ErrorClass::Exhausted,
                "cannot make the socket of an SSH agent",
            )
            .with_source(source)
        };
        let own = format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd());
        let listener = UnixListener::bind(own).map_err(failed)?;
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&directory, NAME, Some(uid), Some(gid), flags)
            .and_then(|()| {
                let mode = Mode::from_raw_mode(mode);
                rustix::fs::chmodat(&directory, NAME, mode, rustix::fs::AtFlags::empty())
            })
            .map_err(|errno| failed(errno.into()))?;
        let stop = Cancel::new()?;
        let stopped = stop.clone();
        let thread = Tasks::spawn_owned("ssh agent", move || serve(&listener, &*agent, &stopped));
        Ok(Self {
            directory,
            stop,
            thread: Some(thread.map_err(failed)?),
        })
    }

    /// Returns a mount of the socket.
    pub(crate) fn mount(&self) -> Result<OwnedFd> {
        Ok(mount::bind_beneath(
            self.directory.as_fd(),
            NAME,
            Access::ReadWrite,
        )?)
    }

    /// Returns a path by which processes that this one starts reach the socket.
    pub(crate) fn path(&self) -> String {
        format!(
            "/proc/{}/fd/{}/{NAME}",
            std::process::id(),
            self.directory.as_raw_fd()
        )
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // What it was doing is of no use to anybody any more.
            let _ = thread.join();
        }
    }
}

/// A process that talks to the agent.
struct Connection {
    stream: UnixStream,
    /// What it has said of its next message.
    said: Vec<u8>,
}

/// Answers until `stop` is raised.
fn serve(listener: &UnixListener, agent: &dyn SshAgent, stop: &Cancel) {
    let mut connections: Vec<Connection> = Vec::new();
    loop {
        let mut watched = vec![
            PollFd::new(stop, PollFlags::IN),
            PollFd::new(listener, PollFlags::IN),
        ];
        let streams = connections.iter();
        watched.extend(streams.map(|it| PollFd::new(&it.stream, PollFlags::IN)));
        if let Err(errno) = poll(&mut watched, None)
            && errno != rustix::io::Errno::INTR
        {
            tracing::warn!(%errno, "an SSH agent is not served any more");
            return;
        }
        let ready: Vec<bool> = watched.iter().map(|it| !it.revents().is_empty()).collect();
        drop(watched);
        if ready[0] {
            return;
        }
        let mut heard = ready[2..].iter();
        connections.retain_mut(|connection| match heard.next() {
            Some(true) => connection.answer(agent).is_ok(),
            _ => true,
        });
        if ready[1]
            && let Ok((stream, _)) = listener.accept()
            && connections.len() < MAX_CONNECTIONS
            && stream.set_write_timeout(Some(WRITE_TIMEOUT)).is_ok()
        {
            connections.push(Connection {
                stream,
                said: Vec::new(),
            });
        }
    }
}

impl Connection {
    /// Reads what was said, and answers each message that is complete.
    ///
    /// # Errors
    /// When the connection is to end.
    fn answer(&mut self, agent: &dyn SshAgent) -> std::io::Result<()> {
        let mut buffer = [0; 16 << 10];
        let length = self.stream.read(&mut buffer)?;
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.said.extend_from_slice(&buffer[..length]);
        while let Some(message) = take_message(&mut self.said)? {
            let reply = reply(agent, &message);
            let length = u32::try_from(reply.len()).map_err(std::io::Error::other)?;
            let framed = [&length.to_be_bytes()[..], &reply].concat();
            self.stream.write_all(&framed)?;
        }
        Ok(())
    }
}

/// Takes a message off what was said, if it is complete.
fn take_message(said: &mut Vec<u8>) -> std::io::Result<Option<Vec<u8>>> {
    let Some((length, rest)) = said.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length == 0 || length > MAX_MESSAGE_BYTES {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    if rest.len() < length {
        return Ok(None);
    }
    let message = rest[..length].to_vec();
    said.drain(..4 + length);
    Ok(Some(message))
}

/// Returns what is answered to a message: the agent's answer where it may be asked, else no.
fn reply(agent: &dyn SshAgent, message: &[u8]) -> Vec<u8> {
    let refused = vec![FAILURE];
    if !matches!(message.first(), Some(&(REQUEST_IDENTITIES | SIGN_REQUEST))) {
        return refused;
    }
    match agent.answer(message) {
        Ok(reply) if (1..=MAX_MESSAGE_BYTES).contains(&reply.len()) => reply,
        Ok(_) => refused,
        Err(error) => {
            tracing::debug!(%error, "an SSH agent did not answer");
            refused
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Notes what it is asked, and says it back.
    #[derive(Default)]
    struct Echo(Mutex<Vec<Vec<u8>>>);

    impl SshAgent for Echo {
        fn answer(&self, request: &[u8]) -> std::io::Result<Vec<u8>> {
            self.0.lock().unwrap().push(request.to_vec());
            Ok(request.to_vec())
        }
    }

    fn frame(message: &[u8]) -> Vec<u8> {
        [&(message.len() as u32).to_be_bytes()[..], message].concat()
    }

    fn talk(agent: &Arc<Echo>, said: &[&[u8]]) -> Vec<u8> {
        let (mut here, there) = UnixStream::pair().unwrap();
        let mut connection = Connection {
            stream: there,
            said: Vec::new(),
        };
        for part in said {
            here.write_all(part).unwrap();
            connection.answer(&**agent).unwrap();
        }
        drop(connection);
        let mut told = Vec::new();
        here.read_to_end(&mut told).unwrap();
        told
    }

    #[test]
    fn two_questions_are_passed_on_and_no_others() {
        let agent = Arc::new(Echo::default());
        let mut said = Vec::new();
        let mut expected = Vec::new();
        for question in 0..=255u8 {
            let message = [question, 1, 2];
            let passed = matches!(question, REQUEST_IDENTITIES | SIGN_REQUEST);
            said.extend(frame(&message));
            expected.extend(frame(if passed { &message } else { &[FAILURE] }));
        }
        assert_eq!(talk(&agent, &[&said]), expected);
        assert_eq!(agent.0.lock().unwrap().len(), 2);
    }

    #[test]
    fn messages_come_in_pieces_and_together() {
        let agent = Arc::new(Echo::default());
        let (one, two) = (frame(&[11]), frame(&[13, 9]));
        let all = [one.clone(), two.clone()].concat();
        assert_eq!(talk(&agent, &[&all]), all);
        assert_eq!(talk(&agent, &[&all[..3], &all[3..7], &all[7..]]), all);
    }

    #[test]
    fn messages_are_bounded() {
        for length in [0, MAX_MESSAGE_BYTES as u32 + 1, u32::MAX] {
            let mut said = length.to_be_bytes().to_vec();
            assert!(take_message(&mut said).is_err(), "{length}");
        }
    }

    #[test]
    fn a_socket_serves_as_long_as_it_lives() {
        let agent = Arc::new(Echo::default());
        let served = AgentSocket::serve(agent, (0, 0), 0o600);
        let Ok(socket) = served else {
            // Nothing can be mounted in memory without root.
            return;
        };
        let path = socket.path();
        let mut clients: Vec<_> = (0..3)
            .map(|_| UnixStream::connect(&path).unwrap())
            .collect();
        for client in &mut clients {
            client.write_all(&frame(&[11])).unwrap();
            let mut reply = [0; 5];
            client.read_exact(&mut reply).unwrap();
            assert_eq!(reply, [0, 0, 0, 1, 11]);
        }
        drop(socket);
        assert!(UnixStream::connect(&path).is_err());
    }
}
