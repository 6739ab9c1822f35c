//! What comes from web servers: ADD of URLs, contexts and named contexts.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use fs_err as fs;
use larder_oci::Digest;
use larder_testkit::{
    Base, Larder, OciArchive, Project, Run, Scratch, WebAnswer, WebRequest, WebServer, project,
};

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
        let content = Arc::clone(&pages);
        let server = WebServer::start(move |request, _| {
            let pages = content.lock().unwrap();
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
    assert_eq!(again.cached_count(), 4, "{}", again.stderr);
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
    assert_eq!(renamed.cached_count(), 4, "{}", renamed.stderr);
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
    assert_eq!(back.cached_count(), 4, "{}", back.stderr);
    assert_eq!(site.requests(), ["HEAD"]);
}

/// Builds from `context` (or standard input) in the project's state root.
fn build(project: &Project, args: &[&str], input: &[u8]) -> Run {
    let mut command = project.larder().command(["build", "--progress=plain"]);
    let mut child = command
        .args(args)
        .current_dir(project.context())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A build that fails early does not read it all.
    let _ = child.stdin.take().unwrap().write_all(input);
    let start = std::time::Instant::now();
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        elapsed: start.elapsed(),
    }
}

/// Returns an archive of `files`, compressed by `tar` as `flags` say.
fn archive(project: &Project, name: &str, files: &[(&str, &str)], flags: &[&str]) -> Vec<u8> {
    let directory = project.scratch().context(name, files);
    let mut tar = Command::new("tar");
    let numbers = ["--owner=7", "--group=8", "--mtime=@5", "--sort=name"];
    tar.args(numbers).arg("-c").args(flags).arg("-C");
    let output = tar.arg(directory).arg(".").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn servers_that_fail_are_told_of_with_what_to_do() {
    let project = project!(Base::Busybox);
    let site = Site::start();
    let ended = |run: Run, expected: &str| {
        assert!(
            run.exit(1).stderr.ends_with(expected),
            "expected the end\n{expected}"
        );
    };
    let fails = |url: &str, flags: &str, expected: &str, hint: &str| {
        let add = format!("ADD {flags}{url} /in/");
        project.write(&[("Dockerfile", &format!("FROM busybox\n{add}\n"))]);
        let run = project.build(&[]).exit(1);
        let expected = format!(
            "\
Dockerfile:2
--------------------
   1 |     FROM busybox
   2 | >>> {add}
   3 |     
--------------------
ERROR: failed to build: failed to solve: {expected}
hint: {hint}
"
        );
        assert!(
            run.stderr.ends_with(&expected),
            "{expected}\n---\n{}",
            run.stderr
        );
    };
    let url = site.url("/none");
    fails(
        &url,
        "",
        &format!("failed to load cache key: {url}: invalid response status 404"),
        "check the URL",
    );
    let dead = "http://127.0.0.1:9/f";
    fails(
        dead,
        "",
        &format!(
            "failed to load cache key: {dead}: cannot reach `127.0.0.1:9`: error sending request: \
             client error (Connect): tcp connect error: Connection refused (os error 111)"
        ),
        "check the URL, the network and the proxy settings; a file with `--checksum` that is in \
         the cache needs no server",
    );
    site.put("/f", Page::new("x"));
    let (url, wanted) = (site.url("/f"), Digest::sha256("y"));
    fails(
        &url,
        &format!("--checksum={wanted} "),
        &format!(
            "digest mismatch for {url}: {} (expected: {wanted})",
            Digest::sha256("x")
        ),
        "if the file is the one that is wanted, change `--checksum`; else find out who changed it",
    );
    ended(
        build(&project, &[&site.url("/none")], b""),
        &format!(
            "failed to load cache key: {}: invalid response status 404\nhint: check the URL\n",
            site.url("/none")
        ),
    );
}

#[test]
fn what_has_a_checksum_and_is_cached_needs_no_server() {
    let project = project!(Base::Busybox);
    let site = Site::start();
    site.put("/f", Page::new("x"));
    let (url, sum) = (site.url("/f"), Digest::sha256("x"));
    let text =
        format!("FROM busybox\nADD --checksum={sum} --chmod=755 --chown=3:4 {url} /in/g\n{STAT}\n");
    project.write(&[("Dockerfile", &text)]);
    let run = project.build(&[]).success();
    let _ = run.says("/in/g 755 3:4 0 1\n");
    assert_eq!(site.requests(), ["GET"]);
    let again = project.build(&[]).success();
    assert_eq!(again.cached_count(), 4, "{}", again.stderr);
    assert!(site.requests().is_empty());
}

#[test]
fn secrets_go_to_their_host_and_nowhere_else() {
    let project = project!(Base::Busybox);
    let other = WebServer::start(|_, _| WebAnswer::status(200).body("secret file\n"));
    let there = format!("http://{}/there", other.host());
    let server = WebServer::start(move |request, _| match request.header("authorization") {
        Some("Bearer t0ken" | "Basic k3y") => WebAnswer::status(302).header("Location", &there),
        _ => WebAnswer::status(401),
    });
    let url = format!("http://{}/f", server.host());
    project.write(&[(
        "Dockerfile",
        &format!("FROM busybox\nADD {url} /in/\n{STAT}\n"),
    )]);
    let _ = project.build(&[]).exit(1).says(
        "invalid response status 401\nhint: give a token with `--secret id=HTTP_AUTH_TOKEN_127.0.0.1,…`",
    );
    let _ = server.take_requests();
    let scratch = project.scratch();
    for (name, value) in [("TOKEN", "t0ken\n"), ("HEADER", "Basic k3y")] {
        let file = scratch.join(name);
        fs::write(&file, value).unwrap();
        let secret = format!("id=HTTP_AUTH_{name}_127.0.0.1,src={}", file.display());
        let run = project
            .build(&["--no-cache", "--secret", &secret])
            .success();
        let run = run.says(" secret file\n");
        let value = value.trim();
        assert!(!run.stderr.contains(value), "{}", run.stderr);
        let asked = server.take_requests();
        assert!(
            asked
                .iter()
                .all(|request| request.header("authorization").is_some())
        );
        for request in other.take_requests() {
            assert_eq!(request.header("authorization"), None);
        }
        let mut grep = Command::new("grep");
        grep.args(["-r", "-l", value]).arg(project.larder().root());
        let kept = grep.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&kept.stdout), "");
    }
}

const CONTEXT: [(&str, &str); 4] = [
    (
        "Dockerfile",
        "FROM busybox\nCOPY . /in/\nRUN stat -c '%n %a %u:%g %Y' /in/a.txt && cat /in/a.txt\n",
    ),
    (
        "Other",
        "FROM busybox\nCOPY a.txt /in/\nRUN echo other && cat /in/a.txt\n",
    ),
    ("a.txt", "from the archive\n"),
    (".dockerignore", "a.txt\n"),
];

#[test]
fn a_context_is_fetched_once_and_built_as_it_is() {
    let project = project!(Base::Busybox);
    let site = Site::start();
    let packed = archive(&project, "packed", &CONTEXT, &["-z"]);
    site.put("/c.tgz", Page::new(&packed).etag("1"));
    let url = site.url("/c.tgz");
    let run = build(&project, &[&url], b"").success();
    let run = run
        .says("[internal] load remote build context")
        .says("/in/a.txt 644 7:8 5\n")
        .says(" from the archive\n");
    assert!(!run.stderr.contains("#1 ..."), "{}", run.stderr);
    assert_eq!(site.requests(), ["GET"]);
    let again = build(&project, &[&url], b"").success();
    assert_eq!(again.cached_count(), 5, "{}", again.stderr);
    assert_eq!(site.requests(), ["HEAD"]);
    // The Dockerfile may be another one of the context, or come from elsewhere.
    let mine = project.scratch().join("Mine");
    fs::write(&mine, "FROM busybox\nCOPY a.txt /\nRUN echo mine\n").unwrap();
    let mine = mine.to_str().unwrap();
    site.put(
        "/dockerfile",
        Page::new("FROM busybox\nCOPY a.txt /\nRUN echo fetched\n"),
    );
    let fetched = site.url("/dockerfile");
    let stdin = b"FROM busybox\nCOPY a.txt /\nRUN echo stdin\n";
    for (file, expected) in [
        ("Other", "other"),
        (mine, "mine"),
        (&fetched, "fetched"),
        ("-", "stdin"),
    ] {
        let run = build(&project, &["-f", file, &url], stdin).success();
        let _ = run.says(&format!(" {expected}\n"));
    }
    // What is no archive is the Dockerfile; the context has it as `context`.
    let text = "FROM busybox\nCOPY . /in\nRUN ls /in && echo alone\n";
    site.put("/text", Page::new(text));
    let run = build(&project, &[&site.url("/text")], b"").success();
    let _ = run.says(" context\n").says(" alone\n");
    project.write(&[("a.txt", "local\n")]);
    let run = build(&project, &["-f", &fetched, "."], b"").success();
    let _ = run.says(" fetched\n");
}

#[test]
fn images_are_dated_by_when_a_context_was_modified() {
    let project = project!(Base::Busybox);
    let site = Site::start();
    let page = Page::new("FROM busybox\nCOPY context /\n");
    site.put(
        "/text",
        page.with("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
    );
    let archive = project.scratch().join("image.tar");
    let output = format!("--output=type=oci,dest={}", archive.display());
    let dated = "--build-arg=SOURCE_DATE_EPOCH=context";
    let _ = build(&project, &[&output, dated, &site.url("/text")], b"").success();
    let image = OciArchive::open(&archive).unwrap();
    let created = image.config().unwrap().created.unwrap();
    assert_eq!(created, "1994-11-06T08:49:37Z");
}

#[test]
fn archives_on_standard_input_may_be_compressed_in_any_way() {
    let project = project!(Base::Busybox);
    for flag in ["", "-z", "-j", "-J", "--zstd"] {
        let flags = Some(flag).filter(|flag| !flag.is_empty());
        let packed = archive(&project, "packed", &CONTEXT, flags.as_slice());
        let run = build(&project, &["--no-cache", "-"], &packed).success();
        let _ = run
            .says("/in/a.txt 644 7:8 5\n")
            .says(" from the archive\n");
        let other = ["--no-cache", "-f", "Other", "-"];
        let other = build(&project, &other, &packed).success();
        let _ = other.says(" other\n");
        let again = build(&project, &["-"], &packed).success();
        assert_eq!(again.cached_count(), 5, "{}", again.stderr);
    }
    let run = build(&project, &["-f", "Other", "-"], b"FROM busybox\n").exit(1);
    let _ = run.says("both stdin and flag correspond to Dockerfiles");
}

#[test]
fn a_named_context_may_be_a_file_on_a_server() {
    let project = project!(Base::Busybox);
    let site = Site::start();
    site.put("/f.txt", Page::new("named\n").etag("1"));
    project.write(&[(
        "Dockerfile",
        "FROM busybox\nCOPY --from=file context /f\n\
         RUN --mount=from=file,target=/m cat /f /m/context\n",
    )]);
    let context = format!("file={}", site.url("/f.txt"));
    let run = project.build(&["--build-context", &context]).success();
    let _ = run.says(" named\n");
    let again = project.build(&["--build-context", &context]).success();
    assert_eq!(again.cached_count(), 4, "{}", again.stderr);
    assert_eq!(site.requests(), ["GET", "HEAD"]);
}

#[test]
fn an_image_may_lie_in_a_directory() {
    let project = project!(Base::Busybox);
    let layout = project.scratch().join("layout");
    fs::create_dir(&layout).unwrap();
    let base = Base::Busybox.archive().unwrap();
    let unpacked = Command::new("tar")
        .arg("-xf")
        .arg(base)
        .arg("-C")
        .arg(&layout)
        .status();
    assert!(unpacked.unwrap().success());
    // A state root of its own: it has no image.
    let scratch = Scratch::new();
    let larder = Larder::new(env!("CARGO_BIN_EXE_larder"), &scratch);
    let index = fs::read_to_string(layout.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    project.write(&[(
        "Dockerfile",
        "FROM base AS one\nRUN echo one\nFROM scratch\nCOPY --from=base /bin/busybox /b\nCOPY --from=one /bin/busybox /c\n",
    )]);
    let context = project.context();
    for (value, cached) in [
        (format!("{}", layout.display()), 0),
        (format!("{}:latest", layout.display()), 4),
        (format!("{}@{digest}", layout.display()), 4),
    ] {
        let mut run = larder.command(["build", "--progress=plain", "--build-context"]);
        let run = run.arg(format!("base=oci-layout://{value}")).arg(&context);
        let run = Run::of(run).success();
        let run = run.says("[context base] OCI load from client");
        assert_eq!(run.cached_count(), cached, "{}", run.stderr);
    }
    for (value, expected) in [
        (
            "/does/not/exist".to_owned(),
            "build context `base`: `/does/not/exist` is no OCI layout",
        ),
        (
            format!("{}@sha256:{}", layout.display(), "0".repeat(64)),
            "cannot read blob `sha256:000",
        ),
    ] {
        let mut run = larder.command(["build", "--build-context"]);
        let run = run.arg(format!("base=oci-layout://{value}")).arg(&context);
        let _ = Run::of(run).exit(1).says(expected);
    }
}

#[test]
fn a_url_is_asked_for_once_in_a_run() {
    let project = project!(Base::Busybox);
    let site = Site::start();
    site.put("/f", Page::new("x").etag("1"));
    let url = site.url("/f");
    project.write(&[
        (
            "Dockerfile",
            &format!(
                "FROM busybox AS a\nADD {url} /a\nFROM busybox AS b\nADD {url} /b/\n\
                 FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b/f /b\nRUN cat /a /b && echo\n"
            ),
        ),
        ("docker-bake.hcl", "group \"default\" { targets = [\"a\", \"b\"] }\ntarget \"a\" { target = \"a\" }\ntarget \"b\" { target = \"b\" }\n"),
    ]);
    let run = project.build(&[]).success();
    let _ = run.says(" xx\n");
    assert_eq!(site.requests(), ["GET"]);
    let mut bake = project.larder().command(["bake"]);
    let _ = Run::of(bake.current_dir(project.context())).success();
    assert_eq!(site.requests(), ["HEAD"]);
}

#[test]
fn downloads_go_by_the_proxy_of_the_environment() {
    let project = project!(Base::Busybox);
    let proxy = WebServer::start(|request, _| match request.target.as_str() {
        "http://files.test/f" => WebAnswer::status(200).body("by proxy\n"),
        _ => WebAnswer::status(502),
    });
    project.write(&[(
        "Dockerfile",
        &format!("FROM busybox\nADD http://files.test/f /in/\n{STAT}\n"),
    )]);
    let mut build = project.command(&[]);
    build.env("http_proxy", format!("http://{}", proxy.host()));
    let _ = Run::of(build.env_remove("HTTP_PROXY"))
        .success()
        .says(" by proxy\n");
}

#[test]
fn an_interrupt_ends_a_download() {
    let project = project!(Base::Busybox);
    let (asked, was_asked) = std::sync::mpsc::channel();
    let asked = Mutex::new(asked);
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = Mutex::new(ended);
    let server = WebServer::start(move |_, _| {
        let _ = asked.lock().unwrap().send(());
        // Until the test is over.
        let _ = ended.lock().unwrap().recv();
        WebAnswer::status(200)
    });
    let add = format!("FROM busybox\nADD http://{}/f /in/\n", server.host());
    project.write(&[("Dockerfile", &add)]);
    let mut build = project.command(&[]);
    let child = build.stderr(Stdio::piped()).spawn().unwrap();
    was_asked
        .recv_timeout(std::time::Duration::from_secs(60))
        .unwrap();
    let pid = child.id().to_string();
    let killed = Command::new("kill").args(["-INT", &pid]).status();
    assert!(killed.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    drop(end);
}

#[test]
fn bake_and_compose_take_contexts_from_elsewhere() {
    let project = project!(Base::Busybox);
    let site = Site::start();
    let files = [
        (
            "Dockerfile",
            "FROM busybox\nCOPY a.txt /\nCOPY --from=more context /more\nRUN cat /a.txt /more\n",
        ),
        ("sub/Other", "FROM busybox\nCOPY a.txt /\nRUN echo other\n"),
        ("a.txt", "from afar\n"),
    ];
    let packed = archive(&project, "packed", &files, &["-J"]);
    site.put("/c.txz", Page::new(packed));
    site.put("/more", Page::new("more\n"));
    let (context, more) = (site.url("/c.txz"), site.url("/more"));
    let hcl = format!(
        "target \"default\" {{\n  context = \"{context}\"\n  contexts = {{ more = \"{more}\" }}\n}}\n\
         target \"other\" {{\n  context = \"{context}\"\n  dockerfile = \"sub/Other\"\n}}\n\
         target \"inline\" {{\n  context = \"{context}\"\n  dockerfile-inline = \"FROM busybox\\nCOPY a.txt /\\nRUN echo inline\"\n}}\n"
    );
    let compose = format!(
        "services:\n  app:\n    build:\n      context: {context}\n      additional_contexts:\n        more: {more}\n  other:\n    build:\n      context: {context}\n      dockerfile: sub/Other\n  inline:\n    build:\n      context: {context}\n      dockerfile_inline: |\n        FROM busybox\n        COPY a.txt /\n        RUN echo inline\n"
    );
    project.write(&[("docker-bake.hcl", &hcl), ("compose.yaml", &compose)]);
    let run = |words: &[&str]| {
        let mut command = project.larder().command(words);
        Run::of(command.current_dir(project.context())).success()
    };
    let no_cache = "*.no-cache=true";
    for (target, expected) in [
        ("default", " more\n"),
        ("other", " other\n"),
        ("inline", " inline\n"),
    ] {
        let bake = [
            "bake",
            "--progress=plain",
            "-f",
            "docker-bake.hcl",
            "--set",
            no_cache,
            target,
        ];
        let _ = run(&bake).says(expected);
    }
    for (service, expected) in [
        ("app", " more\n"),
        ("other", " other\n"),
        ("inline", " inline\n"),
    ] {
        let build = [
            "compose",
            "--progress=plain",
            "build",
            "--no-cache",
            service,
        ];
        let _ = run(&build).says(expected);
    }
}

#[test]
fn bake_files_may_be_on_a_web_server() {
    let project = project!(Base::Busybox);
    let site = Site::start();
    let out = project.scratch().join("out");
    let file = format!(
        "target \"default\" {{\n  dockerfile-inline = \"FROM scratch\\nCOPY f /\"\n  \
         output = [\"type=local,dest={}\"]\n}}\n",
        out.display()
    );
    let mut archive = tar::Builder::new(Vec::new());
    for (name, text) in [("docker-bake.hcl", &*file), ("f", "of the archive")] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        archive
            .append_data(&mut header, name, text.as_bytes())
            .unwrap();
    }
    site.put("/a.tar", Page::new(archive.into_inner().unwrap()));
    site.put("/file.hcl", Page::new(&file));
    project.write(&[("f", "of the working directory")]);
    let consent = format!("--allow=fs.write={}", project.scratch().join("").display());
    for (url, flags, expected) in [
        ("/a.tar", &[][..], "of the archive"),
        (
            "/file.hcl",
            &["--set", "default.context=cwd://."],
            "of the working directory",
        ),
    ] {
        let mut command = project.larder().command(["bake", &consent, &site.url(url)]);
        let _ = Run::of(command.args(flags).current_dir(project.context())).success();
        assert_eq!(fs::read_to_string(out.join("f")).unwrap(), expected);
    }
}
