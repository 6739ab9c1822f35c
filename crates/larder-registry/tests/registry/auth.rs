//! Token servers, and who gets to see what.

use std::future::ready;
use std::sync::{Arc, Mutex};

use larder_oci::{Descriptor, media_type};
use larder_registry::{
    Client, Config, CredentialSource, Credentials, CredentialsFuture, ErrorKind,
};
use larder_testkit::{WebAnswer as Answer, WebRequest as Request, WebServer as Server};

use crate::{Recorder, busybox, config, fetch};

const BLOB: &[u8] = b"the blob";

fn blob() -> Descriptor {
    Descriptor::of(media_type::LAYER, BLOB)
}

/// The same credentials everywhere.
struct Login(Credentials);

impl CredentialSource for Login {
    fn credentials<'a>(&'a self, _host: &'a str) -> CredentialsFuture<'a> {
        Box::pin(ready(Ok(Some(self.0.clone()))))
    }
}

fn password() -> Credentials {
    Credentials::Password {
        username: "ali".to_owned(),
        password: "open sesame".to_owned().into(),
    }
}

/// Starts a registry that serves [`BLOB`] to who shows the token that `valid` holds, and sends
/// others to `realm`.
fn registry(realm: String, valid: Arc<Mutex<String>>) -> Server {
    Server::start(move |request, _| {
        let expected = format!("Bearer {}", valid.lock().unwrap());
        if request.header("authorization") == Some(&expected) {
            return Answer::status(200).body(BLOB);
        }
        let challenge = format!(
            "Bearer realm=\"http://{realm}/token\",service=\"a registry\",\
             scope=\"repository:library/busybox:pull\""
        );
        Answer::status(401)
            .header("WWW-Authenticate", &challenge)
            .body(r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#)
    })
}

fn token_server<F>(answer: F) -> Server
where
    F: Fn(&Request, usize) -> Answer + Send + Sync + 'static,
{
    Server::start(answer)
}

fn valid(token: &str) -> Arc<Mutex<String>> {
    Arc::new(Mutex::new(token.to_owned()))
}

fn client_with(host: &str, credentials: Option<Credentials>) -> (Client, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let mut config = Config {
        observer: recorder.clone(),
        ..config(host)
    };
    if let Some(credentials) = credentials {
        config.credentials = Arc::new(Login(credentials));
    }
    (Client::new(config), recorder)
}

#[tokio::test]
async fn who_has_no_login_gets_a_token_too_and_uses_it_again() {
    let tokens = token_server(|_, _| Answer::json(r#"{"token":"t1","expires_in":300}"#));
    let registry = registry(tokens.host().to_owned(), valid("t1"));
    let (client, recorder) = client_with(registry.host(), None);
    for _ in 0..3 {
        assert_eq!(
            fetch(&client, registry.host(), &blob()).await.unwrap(),
            BLOB
        );
    }
    let requests = tokens.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].method, "GET");
    let query = "/token?service=a+registry&scope=repository%3Alibrary%2Fbusybox%3Apull";
    assert_eq!(requests[0].target, query);
    assert_eq!(requests[0].header("authorization"), None);
    assert_eq!(registry.requests().len(), 4);
    let heard = recorder.tokens.lock().unwrap().clone();
    let expected = format!("repository:library/busybox:pull for {}", registry.host());
    assert_eq!(heard, [expected]);
}

#[tokio::test]
async fn a_password_goes_to_the_token_server_and_not_to_the_registry() {
    let tokens = token_server(|_, _| Answer::json(r#"{"access_token":"t1"}"#));
    let registry = registry(tokens.host().to_owned(), valid("t1"));
    let (client, _) = client_with(registry.host(), Some(password()));
    assert_eq!(
        fetch(&client, registry.host(), &blob()).await.unwrap(),
        BLOB
    );
    let request = &tokens.requests()[0];
    assert_eq!(
        request.header("authorization"),
        Some("Basic YWxpOm9wZW4gc2VzYW1l")
    );
    assert!(
        request.target.ends_with("&account=ali"),
        "{}",
        request.target
    );
    for request in registry.requests() {
        let shown = request.header("authorization");
        assert!(matches!(shown, None | Some("Bearer t1")), "{shown:?}");
    }
    let debug = format!("{client:?}");
    assert!(
        !debug.contains("sesame") && !debug.contains("t1"),
        "{debug}"
    );
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_oauth2() {
    let tokens = token_server(|_, _| Answer::json(r#"{"access_token":"t1"}"#));
    let registry = registry(tokens.host().to_owned(), valid("t1"));
    let login = Credentials::IdentityToken("refresh&me".to_owned().into());
    let (client, _) = client_with(registry.host(), Some(login));
    assert_eq!(
        fetch(&client, registry.host(), &blob()).await.unwrap(),
        BLOB
    );
    let request = &tokens.requests()[0];
    assert_eq!(request.method, "POST");
    assert_eq!(
        request.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    let expected = "grant_type=refresh_token&refresh_token=refresh%26me&client_id=larder\
        &service=a+registry&scope=repository%3Alibrary%2Fbusybox%3Apull";
    assert_eq!(request.body, expected);
}

#[tokio::test]
async fn a_token_that_has_expired_is_replaced() {
    let tokens = token_server(|_, number| Answer::json(&format!(r#"{{"token":"t{number}"}}"#)));
    let valid = valid("t0");
    let registry = registry(tokens.host().to_owned(), Arc::clone(&valid));
    let (client, _) = client_with(registry.host(), None);
    assert!(fetch(&client, registry.host(), &blob()).await.is_ok());
    *valid.lock().unwrap() = "t1".to_owned();
    assert!(fetch(&client, registry.host(), &blob()).await.is_ok());
    assert_eq!(tokens.requests().len(), 2);
}

#[tokio::test]
async fn a_busy_token_server_is_asked_again() {
    let tokens = token_server(|_, number| match number {
        0 => Answer::status(503),
        _ => Answer::json(r#"{"token":"t1"}"#),
    });
    let registry = registry(tokens.host().to_owned(), valid("t1"));
    let (client, _) = client_with(registry.host(), None);
    assert!(fetch(&client, registry.host(), &blob()).await.is_ok());
}

#[tokio::test]
async fn who_is_refused_is_told_so() {
    let refusals = [
        (
            Answer::status(401).body(r#"{"errors":[{"code":"X","message":"bad\npassword"}]}"#),
            "x: bad password",
        ),
        (Answer::status(403), "403 Forbidden"),
        (Answer::json("{}"), "answered without one"),
        (Answer::json(r#"{"token":""}"#), "answered without one"),
        (Answer::json(r#"{"token":"a\nb"}"#), "no header can carry"),
        // The registry refuses this one.
        (
            Answer::json(r#"{"token":"other"}"#),
            "unauthorized: authentication required",
        ),
    ];
    for (answer, reason) in refusals {
        let tokens = token_server(move |_, _| answer.clone());
        let registry = registry(tokens.host().to_owned(), valid("t1"));
        let (client, _) = client_with(registry.host(), Some(password()));
        let error = fetch(&client, registry.host(), &blob()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains(reason), "{error}");
        assert!(error.to_string().contains("pull access denied"), "{error}");
        assert!(registry.requests().len() <= 2);
    }
}

#[tokio::test]
async fn challenges_without_an_answer_are_refused() {
    for (challenge, reason) in [
        ("Negotiate", "does not say how to authenticate"),
        ("Bearer service=\"x\"", "names no token server"),
        (
            "Bearer realm=\"file:///etc/passwd\"",
            "names no token server",
        ),
    ] {
        let registry =
            Server::start(move |_, _| Answer::status(401).header("WWW-Authenticate", challenge));
        let (client, _) = client_with(registry.host(), Some(password()));
        let error = client.resolve(&busybox(registry.host())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[tokio::test]
async fn another_server_does_not_see_the_token() {
    let storage = Server::start(|request, number| {
        let whole = Answer::status(200).body(BLOB);
        match (request.header("range"), number) {
            (None, _) => whole.cut_after(3),
            // The address has expired: the registry will give another.
            (Some(_), 1) => Answer::status(403),
            (Some(_), _) => Answer::status(206)
                .header(
                    "Content-Range",
                    &format!("bytes 3-{}/{}", BLOB.len() - 1, BLOB.len()),
                )
                .body(&BLOB[3..]),
        }
    });
    let address = storage.host().to_owned();
    let tokens = token_server(|_, _| Answer::json(r#"{"token":"t1"}"#));
    let token_host = tokens.host().to_owned();
    let registry = Server::start(move |request, _| match request.header("authorization") {
        None => {
            let challenge = format!("Bearer realm=\"http://{token_host}/token\"");
            Answer::status(401).header("WWW-Authenticate", &challenge)
        }
        Some(_) if request.target.starts_with("/here") => {
            Answer::status(307).header("Location", &format!("http://{address}/signed"))
        }
        Some(_) => Answer::status(307).header("Location", "/here"),
    });
    let (client, _) = client_with(registry.host(), Some(password()));
    assert_eq!(
        fetch(&client, registry.host(), &blob()).await.unwrap(),
        BLOB
    );
    assert_eq!(storage.requests().len(), 3);
    for request in storage.requests() {
        assert_eq!(request.header("authorization"), None);
        assert_eq!(request.header("referer"), None);
    }
}

#[tokio::test]
async fn redirects_have_an_end() {
    for (location, reason) in [
        ("/again", "redirects without end"),
        ("ftp://elsewhere/", "something less safe"),
        ("http://[", "redirects to nowhere"),
    ] {
        let registry = Server::start(move |_, _| Answer::status(302).header("Location", location));
        let (client, _) = client_with(registry.host(), None);
        let error = client.resolve(&busybox(registry.host())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(reason), "{error}");
        assert!(registry.requests().len() <= 11);
    }
}
