//! A small HTTP server that says what a test tells it to, and forwards the rest.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread;

/// A request that the server got.
#[derive(Debug, Clone)]
pub struct WebRequest {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The content, where it is text.
    pub body: String,
    /// The content's bytes.
    pub bytes: Vec<u8>,
}

impl WebRequest {
    /// Returns the value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Returns whether it is about a blob of a registry.
    pub fn is_blob(&self) -> bool {
        self.target.contains("/blobs/")
    }

    /// Sends the request to the registry at `host`, without the headers named.
    pub fn forward(&self, host: &str, without: &[&str]) -> WebAnswer {
        let kept: Vec<(&str, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| !["host", "connection", "content-length"].contains(name))
            .filter(|(name, _)| !without.contains(name))
            .collect();
        let body = self.body.as_bytes();
        let response = crate::request(host, &self.method, &self.target, &kept, body)
            .unwrap_or_else(|error| panic!("cannot forward a request: {error:#}"));
        WebAnswer {
            status: response.status,
            headers: response.headers,
            body: response.body,
            ..WebAnswer::default()
        }
    }
}

/// What the server answers.
#[derive(Debug, Clone, Default)]
pub struct WebAnswer {
    /// The status.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub body: Vec<u8>,
    /// Closes the connection after so many bytes of the body.
    pub cut_after: Option<usize>,
    /// Does not tell the body's length: the connection's end is the body's.
    pub without_length: bool,
    /// Waits at a barrier after so many bytes of the body.
    pub meeting: Option<(usize, Arc<Barrier>)>,
}

impl WebAnswer {
    /// Returns an answer without content.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// Returns a success with JSON.
    pub fn json(text: &str) -> Self {
        Self::status(200)
            .header("Content-Type", "application/json")
            .body(text)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers
            .push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// Sets the content.
    #[must_use]
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// Sets [`WebAnswer::cut_after`].
    #[must_use]
    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.cut_after = Some(bytes);
        self
    }

    /// Sets [`WebAnswer::without_length`].
    #[must_use]
    pub fn without_length(mut self) -> Self {
        self.without_length = true;
        self
    }

    /// Sets [`WebAnswer::meeting`].
    #[must_use]
    pub fn meet_after(mut self, bytes: usize, barrier: &Arc<Barrier>) -> Self {
        self.meeting = Some((bytes, Arc::clone(barrier)));
        self
    }

    fn write(&self, head_only: bool, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", self.status);
        let has_length = self
            .headers
            .iter()
            .any(|(name, _)| name == "content-length");
        for (name, value) in &self.headers {
            if name != "connection" && !(self.without_length && name == "content-length") {
                head.extend([name.as_str(), ": ", value.as_str(), "\r\n"]);
            }
        }
        if !has_length && !self.without_length {
            head.extend(["content-length: ", &self.body.len().to_string(), "\r\n"]);
        }
        stream.write_all(head.as_bytes())?;
        stream.write_all(b"\r\n")?;
        if !head_only {
            let end = self.cut_after.unwrap_or(usize::MAX).min(self.body.len());
            let mut rest = &self.body[..end];
            if let Some((bytes, barrier)) = &self.meeting {
                let (first, second) = rest.split_at(*bytes);
                stream.write_all(first)?;
                stream.flush()?;
                barrier.wait();
                rest = second;
            }
            stream.write_all(rest)?;
        }
        stream.flush()
    }
}

/// A server on a free loopback port, a thread for each connection. It ends with the test.
pub struct WebServer {
    host: String,
    requests: Arc<Mutex<Vec<WebRequest>>>,
}

impl WebServer {
    /// Answers each request as `handler` says, which also gets how many came before it.
    pub fn start<F>(handler: F) -> Self
    where
        F: Fn(&WebRequest, usize) -> WebAnswer + Send + Sync + 'static,
    {
        let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| {
            let host = listener.local_addr()?.to_string();
            Ok((listener, host))
        });
        let (listener, host) = bound.unwrap_or_else(|error| panic!("no loopback port: {error}"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (handler, seen) = (Arc::new(handler), Arc::clone(&requests));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (handler, seen) = (Arc::clone(&handler), Arc::clone(&seen));
                thread::spawn(move || serve(stream, &*handler, &seen));
            }
        });
        Self { host, requests }
    }

    /// Returns `127.0.0.1:port`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns all requests since the last call.
    pub fn take_requests(&self) -> Vec<WebRequest> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *requests)
    }

    /// Returns all requests so far.
    pub fn requests(&self) -> Vec<WebRequest> {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn serve(
    mut stream: TcpStream,
    handler: &(dyn Fn(&WebRequest, usize) -> WebAnswer + Send + Sync),
    seen: &Mutex<Vec<WebRequest>>,
) {
    // A client may hang up, or speak TLS: then there is nobody to tell.
    let Some(request) = read(&stream) else {
        return;
    };
    let number = {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push(request.clone());
        seen.len() - 1
    };
    let _ = handler(&request, number).write(request.method == "HEAD", &mut stream);
}

fn read(stream: &TcpStream) -> Option<WebRequest> {
    let mut reader = BufReader::new(stream);
    let mut first = Vec::new();
    reader.read_until(b'\n', &mut first).ok()?;
    let first = String::from_utf8(first).ok()?;
    let [method, target, _version] = first.split_whitespace().collect::<Vec<_>>()[..] else {
        return None;
    };
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(Ok(0), |(_, value)| value.parse()).ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(WebRequest {
        method: method.to_owned(),
        target: target.to_owned(),
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
        bytes: body,
    })
}
