//! A small HTTP server that says what a test tells it to, and forwards the rest.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request that the server got.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_blob(&self) -> bool {
        self.target.contains("/blobs/")
    }

    /// Sends the request to the registry at `host`, without the headers named.
    pub(crate) fn forward(&self, host: &str, without: &[&str]) -> Answer {
        let kept: Vec<(&str, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| !["host", "connection", "content-length"].contains(name))
            .filter(|(name, _)| !without.contains(name))
            .collect();
        let body = self.body.as_bytes();
        let response =
            larder_testkit::request(host, &self.method, &self.target, &kept, body).unwrap();
        Answer {
            status: response.status,
            headers: response.headers,
            body: response.body,
            ..Answer::default()
        }
    }
}

/// What the server answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Closes the connection after so many bytes of the body.
    pub(crate) cut_after: Option<usize>,
    /// Does not tell the body's length: the connection's end is the body's.
    pub(crate) without_length: bool,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(crate) fn json(text: &str) -> Self {
        Self::status(200)
            .header("Content-Type", "application/json")
            .body(text)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers
            .push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    pub(crate) fn cut_after(mut self, bytes: usize) -> Self {
        self.cut_after = Some(bytes);
        self
    }

    pub(crate) fn without_length(mut self) -> Self {
        self.without_length = true;
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
            stream.write_all(&self.body[..end])?;
        }
        stream.flush()
    }
}

/// A server on a free loopback port, a thread for each connection. It ends with the test.
pub(crate) struct Server {
    host: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers each request as `handler` says, which also gets how many came before it.
    pub(crate) fn start<F>(handler: F) -> Self
    where
        F: Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
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
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Returns all requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    handler: &(dyn Fn(&Request, usize) -> Answer + Send + Sync),
    seen: &Mutex<Vec<Request>>,
) {
    // A client may hang up, or speak TLS: then there is nobody to tell.
    let Some(request) = read(&stream) else {
        return;
    };
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.len() - 1
    };
    let _ = handler(&request, number).write(request.method == "HEAD", &mut stream);
}

fn read(stream: &TcpStream) -> Option<Request> {
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
    let length = length.map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers,
        body: String::from_utf8(body).ok()?,
    })
}
