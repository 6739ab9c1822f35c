//! Files from web servers.

use std::time::Duration;

use larder_registry::{
    Config, Error, ErrorKind, RetryPolicy, Secret, Validator, WebAnswer, WebClient, WebFile,
    WebRequest,
};
use larder_testkit::{WebAnswer as Answer, WebServer as Server};

const BODY: &str = "what the server has, and a bit more";

fn client() -> WebClient {
    WebClient::new(Config {
        retry: RetryPolicy {
            attempts_count: 3,
            first_delay: Duration::from_millis(1),
            longest_delay: Duration::from_secs(1),
        },
        ..Config::default()
    })
}

fn request(url: &str) -> WebRequest<'_> {
    WebRequest {
        url,
        headers: &[],
        authorization: None,
    }
}

/// Fetches `/f` from a server; returns the answer, with what arrived.
async fn fetch(server: &Server, known: &[Validator]) -> Result<(WebAnswer, Vec<u8>), Error> {
    let url = format!("http://{}/f", server.host());
    let mut sink = Vec::new();
    let answer = client().fetch(&request(&url), known, &mut sink).await?;
    Ok((answer, sink))
}

fn methods(server: &Server) -> Vec<String> {
    let requests = server.requests().into_iter();
    requests.map(|request| request.method).collect()
}

#[tokio::test]
async fn a_file_is_fetched_with_what_is_said_of_it() {
    let server = Server::start(|_, _| {
        Answer::status(200)
            .body(BODY)
            .header("ETag", "W/\"1\"")
            .header("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
            .header("Date", "Mon, 07 Nov 1994 08:49:37 GMT")
            .header("Content-Disposition", "attachment; filename=x")
    });
    let (answer, bytes) = fetch(&server, &[]).await.unwrap();
    assert_eq!(bytes, BODY.as_bytes());
    let file = WebFile {
        etag: Some("\"1\"".to_owned()),
        last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned()),
        date: Some("Mon, 07 Nov 1994 08:49:37 GMT".to_owned()),
        disposition: Some("attachment; filename=x".to_owned()),
        size_bytes: Some(BODY.len() as u64),
    };
    assert_eq!(answer, WebAnswer::Fetched(file));
    assert_eq!(methods(&server), ["GET"]);
}

#[tokio::test]
async fn what_is_unchanged_costs_one_request() {
    let etag = |etag: &str| Validator::Etag(etag.to_owned());
    let modified = |size_bytes| Validator::Modified {
        last_modified: "Sun, 06 Nov 1994 08:49:37 GMT".to_owned(),
        size_bytes,
    };
    let time = ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    let later = ("Last-Modified", "Sun, 06 Nov 1994 08:49:38 GMT");
    let size = BODY.len() as u64;
    for (status, header, known, expected) in [
        (
            200,
            ("ETag", "\"2\""),
            vec![etag("\"1\""), etag("\"2\"")],
            Some(1),
        ),
        (200, ("ETag", "W/\"1\""), vec![etag("\"1\"")], Some(0)),
        (304, ("X", ""), vec![etag("\"1\"")], Some(0)),
        (304, ("X", ""), vec![etag("\"1\""), etag("\"2\"")], None),
        (200, ("ETag", "\"3\""), vec![etag("\"1\"")], None),
        (200, ("X", ""), vec![etag("\"1\"")], None),
        (200, time, vec![modified(size)], Some(0)),
        (304, ("X", ""), vec![modified(size)], Some(0)),
        (200, time, vec![modified(size + 1)], None),
        (200, later, vec![modified(size)], None),
        (200, ("X", ""), vec![modified(size)], None),
        (405, ("ETag", "\"1\""), vec![etag("\"1\"")], None),
    ] {
        let server = Server::start(move |request, _| match request.method.as_str() {
            "HEAD" => Answer::status(status).header(header.0, header.1).body(BODY),
            _ => Answer::status(200).body(BODY),
        });
        let (answer, bytes) = fetch(&server, &known).await.unwrap();
        let shown = format!("{status} {header:?} {known:?}");
        if let Some(index) = expected {
            assert!(
                matches!(answer, WebAnswer::Unchanged(at, _) if at == index),
                "{shown}"
            );
            assert_eq!(methods(&server), ["HEAD"], "{shown}");
            assert!(bytes.is_empty(), "{shown}");
        } else {
            assert!(matches!(answer, WebAnswer::Fetched(_)), "{shown}");
            assert_eq!(methods(&server), ["HEAD", "GET"], "{shown}");
            assert_eq!(bytes, BODY.as_bytes(), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_server_without_head_is_asked_by_get() {
    let server = Server::start(|request, _| {
        let is_known = request.header("if-none-match") == Some("\"1\"");
        match request.method.as_str() {
            "HEAD" => Answer::status(501),
            _ if is_known => Answer::status(304).header("ETag", "\"1\""),
            _ => Answer::status(200).body(BODY),
        }
    });
    let known = [Validator::Etag("\"1\"".to_owned())];
    let (answer, bytes) = fetch(&server, &known).await.unwrap();
    assert!(matches!(answer, WebAnswer::Unchanged(0, _)));
    assert!(bytes.is_empty());
}

#[tokio::test]
async fn what_breaks_off_is_taken_up_where_the_server_can() {
    for (etag, ranges) in [("\"1\"", true), ("\"1\"", false), ("W/\"1\"", false)] {
        let server = Server::start(move |request, number| {
            let whole = Answer::status(200).body(BODY).header("ETag", etag);
            match (request.header("range"), number) {
                (_, 0) => whole.cut_after(9),
                (Some("bytes=9-"), _) if ranges => {
                    assert_eq!(request.header("if-range"), Some("\"1\""));
                    let last = BODY.len() - 1;
                    Answer::status(206)
                        .body(&BODY[9..])
                        .header("Content-Range", &format!("bytes 9-{last}/{}", BODY.len()))
                }
                _ => whole,
            }
        });
        let (answer, bytes) = fetch(&server, &[]).await.unwrap();
        assert_eq!(bytes, BODY.as_bytes(), "{etag} {ranges}");
        let WebAnswer::Fetched(file) = answer else {
            panic!("nothing was known");
        };
        assert_eq!(file.size_bytes, Some(BODY.len() as u64), "{etag} {ranges}");
        assert_eq!(server.requests().len(), 2);
        let asked = server.requests()[1].header("range").is_some();
        assert_eq!(asked, etag.starts_with('"'), "{etag}");
    }
}

#[tokio::test]
async fn lies_about_parts_and_lengths_are_found_out() {
    // Another part than was asked for.
    let server = Server::start(|request, number| match (request.header("range"), number) {
        (_, 0) => Answer::status(200)
            .body(BODY)
            .header("ETag", "\"1\"")
            .cut_after(9),
        (Some(_), _) => Answer::status(206)
            .body("xyz")
            .header("Content-Range", "bytes 3-5/6"),
        _ => Answer::status(200).body(BODY),
    });
    assert_eq!(fetch(&server, &[]).await.unwrap().1, BODY.as_bytes());
    // Less than was told, each time.
    let short = Server::start(|_, _| {
        Answer::status(200)
            .body(BODY)
            .header("Content-Length", "99")
    });
    let error = fetch(&short, &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(short.requests().len(), 3);
    // More than was told: what was told counts.
    let long = Server::start(|_, _| Answer::status(200).body(BODY).header("Content-Length", "4"));
    assert_eq!(fetch(&long, &[]).await.unwrap().1, b"what");
    // Without a length the connection's end is the file's.
    let open = Server::start(|_, _| Answer::status(200).body(BODY).without_length());
    assert_eq!(fetch(&open, &[]).await.unwrap().1, BODY.as_bytes());
    let packed = Server::start(|_, _| {
        Answer::status(200)
            .body("x")
            .header("Content-Encoding", "br")
    });
    assert_eq!(
        fetch(&packed, &[]).await.unwrap_err().kind(),
        ErrorKind::Unsupported
    );
}

#[tokio::test]
async fn errors_are_told_by_what_helps_and_tried_again_where_that_helps() {
    for (status, kind, count) in [
        (404, ErrorKind::NotFound, 1),
        (401, ErrorKind::Denied, 1),
        (403, ErrorKind::Denied, 1),
        (503, ErrorKind::Unavailable, 3),
        (400, ErrorKind::Unsupported, 1),
    ] {
        let server = Server::start(move |_, _| Answer::status(status).body("reasons"));
        let error = fetch(&server, &[]).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(
            error.to_string(),
            format!("invalid response status {status}")
        );
        assert_eq!(server.requests().len(), count, "{status}");
    }
    let mut sink = Vec::new();
    for (url, kind) in [
        ("http://127.0.0.1:9/user", ErrorKind::Unavailable),
        ("ftp://127.0.0.1/f", ErrorKind::Config),
        ("http://", ErrorKind::Config),
    ] {
        let error = client()
            .fetch(&request(url), &[], &mut sink)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{url}");
        assert!(!error.to_string().contains("user"), "{error}");
    }
}

#[tokio::test]
async fn authorization_stays_with_its_server() {
    let other = Server::start(|_, _| Answer::status(200).body("there"));
    let there = format!("http://{}/x", other.host());
    let server = Server::start(move |request, _| match request.target.as_str() {
        "/f" => Answer::status(302).header("Location", "/g"),
        "/g" => Answer::status(302).header("Location", &there),
        _ => Answer::status(302).header("Location", "/loop"),
    });
    let url = format!("http://{}/f", server.host());
    let secret = Secret::from("Bearer t0ken".to_owned());
    let own = [("accept".to_owned(), "x/y".to_owned())];
    let mut sink = Vec::new();
    let request = WebRequest {
        url: &url,
        headers: &own,
        authorization: Some(&secret),
    };
    client().fetch(&request, &[], &mut sink).await.unwrap();
    assert_eq!(sink, b"there");
    for request in server.requests() {
        assert_eq!(request.header("authorization"), Some("Bearer t0ken"));
        assert_eq!(request.header("accept"), Some("x/y"));
    }
    assert_eq!(other.requests()[0].header("authorization"), None);
    assert!(!format!("{request:?}").contains("t0ken"));
    let url = format!("http://{}/loop", server.host());
    let endless = WebRequest {
        url: &url,
        ..request
    };
    let error = client().fetch(&endless, &[], &mut sink).await.unwrap_err();
    assert!(
        error.to_string().contains("redirects without end"),
        "{error}"
    );
}
