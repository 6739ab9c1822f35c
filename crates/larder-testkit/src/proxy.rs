use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

/// Longer than any test waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(60);
const BUFFER_BYTES: usize = 1 << 16;

/// A proxy before a registry: passes requests on, does to some what a test says, and keeps count.
///
/// ```no_run
/// # use larder_testkit::{Fault, FaultProxy, On};
/// # fn main() -> anyhow::Result<()> {
/// let proxy = FaultProxy::start("127.0.0.1:5000")?;
/// proxy.inject(On::new("PATCH", "/blobs/uploads/").after(1), Fault::answer(503));
/// # Ok(())
/// # }
/// ```
///
/// It speaks plain HTTP/1.1, one request a connection, and ends with the test.
pub struct FaultProxy {
    host: String,
    shared: Arc<Shared>,
}

/// A request that came, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Bytes of content that came with it.
    pub request_bytes: u64,
    /// What it was answered with; `None` if it was not.
    pub status: Option<u16>,
    /// Bytes of content that were answered with.
    pub answer_bytes: u64,
}

/// Which requests a [`Fault`] befalls.
#[derive(Debug, Clone)]
pub struct On {
    method: &'static str,
    target: String,
    skipped_count: usize,
    count: usize,
}

impl On {
    /// Returns the next request with `method` (any if it is empty) whose path or query contains
    /// `target`.
    pub fn new(method: &'static str, target: impl Into<String>) -> Self {
        Self {
            method,
            target: target.into(),
            skipped_count: 0,
            count: 1,
        }
    }

    /// Lets the first `count` of them pass.
    #[must_use]
    pub fn after(mut self, count: usize) -> Self {
        self.skipped_count = count;
        self
    }

    /// Takes `count` of them.
    #[must_use]
    pub fn times(mut self, count: usize) -> Self {
        self.count = count;
        self
    }

    fn is_met_by(&self, exchange: &Exchange) -> bool {
        (self.method.is_empty() || self.method == exchange.method)
            && exchange.target.contains(&self.target)
    }
}

/// What is done to a request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Is answered so; the registry does not hear of it.
    Answer {
        /// The status.
        status: u16,
        /// Further headers.
        headers: Vec<(String, String)>,
        /// The content.
        body: Vec<u8>,
    },
    /// Breaks off after so many bytes of its content; the registry gets these.
    CutRequest(u64),
    /// The registry gets it, and the client no answer.
    LoseAnswer,
    /// The answer breaks off after so many bytes of its content.
    CutAnswer(u64),
    /// Waits first.
    Delay(Duration),
    /// Has a header of the answer replaced, or added.
    SetHeader(&'static str, String),
    /// Has one bit of the answer's content flipped.
    FlipBit,
}

impl Fault {
    /// Returns an answer without content.
    pub fn answer(status: u16) -> Self {
        Self::Answer {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }
}

#[derive(Default)]
struct Shared {
    upstream: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    faults: Vec<(On, Fault)>,
    exchanges: Vec<Exchange>,
}

impl FaultProxy {
    /// Starts a proxy before the registry at `upstream` (`address:port`).
    pub fn start(upstream: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let host = listener.local_addr()?.to_string();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            state: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&serving);
                // Whoever hangs up wants nothing any more.
                thread::spawn(move || shared.serve(&stream));
            }
        });
        Ok(Self { host, shared })
    }

    /// Returns `127.0.0.1:port`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Does `fault` to the requests that `on` describes. Of several faults for one request, the
    /// first counts.
    pub fn inject(&self, on: On, fault: Fault) {
        self.shared.state().faults.push((on, fault));
    }

    /// Returns all requests since the start, or since [`FaultProxy::forget`].
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.state().exchanges.clone()
    }

    /// Returns how many requests had `method` (any if it is empty) and `target` in path or query.
    pub fn count(&self, method: &'static str, target: &str) -> usize {
        let on = On::new(method, target);
        let exchanges = self.exchanges();
        exchanges.iter().filter(|one| on.is_met_by(one)).count()
    }

    /// Returns how many bytes of blobs were sent to the registry.
    pub fn uploaded_bytes(&self) -> u64 {
        let exchanges = self.exchanges();
        let uploads = exchanges
            .iter()
            .filter(|one| one.target.contains("/blobs/uploads/"));
        uploads.map(|one| one.request_bytes).sum()
    }

    /// Forgets requests and faults.
    pub fn forget(&self) {
        *self.shared.state() = State::default();
    }
}

/// A header's name in lower case, and its value.
type Header = (String, String);

/// The first line and the headers of a message.
struct Head {
    first: String,
    headers: Vec<Header>,
}

impl Head {
    /// Reads a head; `None` where there is none, or it is not HTTP.
    fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut first = Vec::new();
        reader.read_until(b'\n', &mut first).ok()?;
        let first = String::from_utf8(first).ok()?.trim_end().to_owned();
        first.contains("HTTP/1").then_some(())?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => {
                    headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
                }
                None => return Some(Self { first, headers }),
            }
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(own, _)| own != name);
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    fn length(&self) -> Option<u64> {
        self.get("content-length")?.parse().ok()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            text.extend([name, ": ", value, "\r\n"]);
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one request. `None` says that somebody hung up, or was hung up on.
    fn serve(&self, client: &TcpStream) -> Option<()> {
        client.set_read_timeout(Some(TIMEOUT)).ok()?;
        let mut from_client = BufReader::new(client);
        let head = Head::read(&mut from_client)?;
        let [method, target, _version] = head.first.split(' ').collect::<Vec<_>>()[..] else {
            return None;
        };
        let exchange = Exchange {
            method: method.to_owned(),
            target: target.to_owned(),
            request_bytes: 0,
            status: None,
            answer_bytes: 0,
        };
        let (number, fault) = self.note(exchange);
        let done = self.exchange(number, &head, &mut from_client, client, fault.as_ref());
        let _ = client.shutdown(Shutdown::Both);
        done
    }

    /// Keeps a request; returns its number, and what is to be done to it.
    fn note(&self, exchange: Exchange) -> (usize, Option<Fault>) {
        let mut state = self.state();
        let mut chosen = None;
        for (on, fault) in &mut state.faults {
            if chosen.is_some() || on.count == 0 || !on.is_met_by(&exchange) {
                continue;
            }
            if on.skipped_count > 0 {
                on.skipped_count -= 1;
            } else {
                on.count -= 1;
                chosen = Some(fault.clone());
            }
        }
        state.exchanges.push(exchange);
        (state.exchanges.len() - 1, chosen)
    }

    fn change(&self, number: usize, change: impl FnOnce(&mut Exchange)) {
        // The test may have had all forgotten meanwhile.
        if let Some(exchange) = self.state().exchanges.get_mut(number) {
            change(exchange);
        }
    }

    fn exchange(
        &self,
        number: usize,
        head: &Head,
        from_client: &mut impl Read,
        mut client: &TcpStream,
        fault: Option<&Fault>,
    ) -> Option<()> {
        let length = head.length().unwrap_or(0);
        let request_bytes = |count| self.change(number, |one| one.request_bytes += count);
        match fault {
            Some(Fault::Delay(delay)) => thread::sleep(*delay),
            Some(Fault::Answer {
                status,
                headers,
                body,
            }) => {
                copy(from_client, &mut std::io::sink(), length, request_bytes)?;
                let mut answer = Head {
                    first: format!("HTTP/1.1 {status} X"),
                    headers: headers.clone(),
                };
                answer.set("content-length", &body.len().to_string());
                answer.set("connection", "close");
                self.change(number, |one| one.status = Some(*status));
                client.write_all(&answer.bytes()).ok()?;
                return client.write_all(body).ok();
            }
            _ => {}
        }
        let upstream = TcpStream::connect(&self.upstream).ok()?;
        upstream.set_read_timeout(Some(TIMEOUT)).ok()?;
        let mut passed = Head {
            first: head.first.clone(),
            headers: head.headers.clone(),
        };
        passed.set("connection", "close");
        (&upstream).write_all(&passed.bytes()).ok()?;
        if let Some(Fault::CutRequest(bytes)) = fault {
            return copy(
                from_client,
                &mut &upstream,
                length.min(*bytes),
                request_bytes,
            );
        }
        copy(from_client, &mut &upstream, length, request_bytes)?;
        let mut from_upstream = BufReader::new(&upstream);
        let mut answer = Head::read(&mut from_upstream)?;
        if matches!(fault, Some(Fault::LoseAnswer)) {
            return None;
        }
        answer.set("connection", "close");
        if let Some(Fault::SetHeader(name, value)) = fault {
            answer.set(name, value);
        }
        let status = answer.first.split(' ').nth(1)?.parse().ok()?;
        self.change(number, |one| one.status = Some(status));
        client.write_all(&answer.bytes()).ok()?;
        if head.first.starts_with("HEAD ") || status == 204 {
            return Some(());
        }
        let length = answer.length().unwrap_or(u64::MAX);
        let end = match fault {
            Some(Fault::CutAnswer(bytes)) => length.min(*bytes),
            _ => length,
        };
        let answer_bytes = |count| self.change(number, |one| one.answer_bytes += count);
        let mut flipped = Flipped(matches!(fault, Some(Fault::FlipBit)), from_upstream);
        copy(&mut flipped, &mut client, end, answer_bytes)
    }
}

/// Passes bytes on, the first of them changed if so wanted.
struct Flipped<R>(bool, R);

impl<R: Read> Read for Flipped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.1.read(buffer)?;
        if count > 0 && std::mem::take(&mut self.0) {
            buffer[0] ^= 1;
        }
        Ok(count)
    }
}

/// Copies `length` bytes, fewer if there are no more, and tells of each part.
fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    length: u64,
    on_part: impl Fn(u64),
) -> Option<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut left = length;
    while left > 0 {
        let wanted = left.min(BUFFER_BYTES as u64) as usize;
        let count = from.read(&mut buffer[..wanted]).ok()?;
        if count == 0 {
            break;
        }
        on_part(count as u64);
        to.write_all(&buffer[..count]).ok()?;
        left -= count as u64;
    }
    Some(())
}
