//! What comes from web servers: ADD of URLs, contexts and named contexts.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use larder_testkit::{Base, WebAnswer, WebRequest, WebServer, project};

/// A file as a [`Site`] serves it.
#[derive(Debug, Clone, Default)]
struct Page {
    body: Vec<u8>,
    headers: Vec<(&'static str, String)>,
}

impl Page {
    fn new(body: impl AsRef<[u8]>) -> Self {
        Self {
            body: body.as_ref().to_vec(),
            headers: Vec::new(),
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn etag(self, etag: &str) -> Self {
        self.with("ETag", format!("\"{etag}\""))
    }
}

/// A web server whose files can change.
struct Site {
    server: WebServer,
    pages: Arc<Mutex<BTreeMap<String, Page>>>,
}

impl Site {
    fn start() -> Self {
        let pages: Arc<Mutex<BTreeMap<String, Page>>> = Arc::default();
        let served = Arc::clone(&pages);
        let server = WebServer::start(move |request, _| {
            let pages = served.lock().unwrap();
            let path = request.target.split('?').next().unwrap();
            pages
                .get(path)
                .map_or(WebAnswer::status(404), |page| answer(request, page))
        });
        Self { server, pages }
    }

    fn put(&self, path: &str, page: Page) {
        self.pages.lock().unwrap().insert(path.to_owned(), page);
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.host())
    }

    /// Returns the methods of all requests since the last call, and forgets them.
    fn requests(&self) -> Vec<String> {
        let requests = self.server.take_requests().into_iter();
        requests.map(|request| request.method).collect()
    }
}

fn answer(request: &WebRequest, page: &Page) -> WebAnswer {
    let etag = page.headers.iter().find(|(name, _)| *name == "ETag");
    let is_known = etag.is_some_and(|(_, etag)| request.header("if-none-match") == Some(etag));
    let plain = WebAnswer::status(if is_known { 304 } else { 200 });
    let headers = page.headers.iter();
    let answer = headers.fold(plain, |answer, (name, value)| answer.header(name, value));
    if is_known {
        answer
    } else {
        answer.body(&page.body)
    }
}

const STAT: &str = "RUN stat -c '%n %a %u:%g %Y %s' /in/* && cat /in/*";

#[test]
fn a_file_is_added_once_and_asked_for_in_each_build() {
    let project = project!(Base::Busybox);
    let site = Site::start();
    let page = Page::new("one\n")
        .etag("1")
        .with("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    site.put("/d/f.txt", page.clone());
    let url = site.url("/d/f.txt?v=1");
    project.write(&[(
        "Dockerfile",
        &format!("FROM busybox\nADD {url} /in/\n{STAT}\n"),
    )]);
    let run = project.build(&["-t", "x"]).success();
    let _ = run.says("/in/f.txt 600 0:0 784111777 4\n").says(" one\n");
    assert_eq!(site.requests(), ["GET"]);
    let again = project.build(&["-t", "x"]).success();
    assert_eq!(again.cached_count(), 3, "{}", again.stderr);
    assert_eq!(site.requests(), ["HEAD"]);
    // Another tag for the same content is a download, and still a hit.
    site.put(
        "/d/f.txt",
        Page {
            headers: page.headers[1..].to_vec(),
            ..page.clone()
        }
        .etag("2"),
    );
    let renamed = project.build(&[]).success();
    assert_eq!(renamed.cached_count(), 3, "{}", renamed.stderr);
    assert_eq!(site.requests(), ["HEAD", "GET"]);
    site.put("/d/f.txt", Page::new("two\n").etag("3"));
    let changed = project.build(&[]).success();
    let _ = changed
        .says("/in/f.txt 600 0:0 0 4\n")
        .says(&format!("not cached: `{url}` changed (ETag)"));
    // What was there before is still known.
    site.put("/d/f.txt", page);
    let _ = site.requests();
    let back = project.build(&[]).success();
    assert_eq!(back.cached_count(), 3, "{}", back.stderr);
    assert_eq!(site.requests(), ["HEAD"]);
}
