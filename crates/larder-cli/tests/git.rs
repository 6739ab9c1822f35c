//! Sources and contexts from git repositories, by git's own server.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use fs_err as fs;
use larder_testkit::{Base, GitRepository, GitServer, Larder, OciArchive, Project, Run, project};

/// A project, repositories, and who serves them.
struct Served {
    project: Project,
    server: GitServer,
}

impl Served {
    fn new(project: Project) -> Self {
        larder_testkit::install(&["git"]).unwrap();
        let directory = project.scratch().join("served");
        fs::create_dir(&directory).unwrap();
        let server = GitServer::start(&directory);
        Self { project, server }
    }

    /// Makes a repository, served as `NAME`.
    fn repository(&self, name: &str) -> GitRepository {
        GitRepository::create(&self.project.scratch().join("served").join(name))
    }

    /// Returns the address of a repository.
    fn url(&self, name: &str) -> String {
        self.server.url(&format!("{name}/.git"))
    }

    /// Builds `FROM scratch` and `steps`, and writes the files to a directory of their own.
    fn files(&self, steps: &str, flags: &[&str]) -> (Run, std::path::PathBuf) {
        let out = self.project.scratch().join("out");
        let _ = fs::remove_dir_all(&out);
        let dockerfile = format!("FROM scratch\n{steps}\n");
        self.project.write(&[("Dockerfile", &dockerfile)]);
        let output = format!("--output={}", out.display());
        let run = self.project.build(&[&[&*output], flags].concat());
        (run, out)
    }

    /// Returns all paths that `steps` make, sorted.
    fn listing(&self, steps: &str, flags: &[&str]) -> Vec<String> {
        let (run, out) = self.files(steps, flags);
        let _ = run.success();
        listing(&out)
    }
}

/// Returns the files below a directory, sorted.
fn listing(directory: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    let relative = found
        .iter()
        .map(|path| path.strip_prefix(directory).unwrap());
    let mut names: Vec<String> = relative.map(|path| path.display().to_string()).collect();
    names.sort();
    names
}

macro_rules! served {
    () => {
        Served::new(project!(Base::Busybox))
    };
}

#[test]
fn add_puts_a_repository_in_place_and_asks_for_nothing_twice() {
    let served = served!();
    let repository = served.repository("a");
    let first = repository.commit(&[("f", "one\n"), ("d/g", "g\n")]);
    let url = served.url("a");
    let steps = format!("ADD {url} /src/");
    let mut seen = 0;
    assert_eq!(served.listing(&steps, &[]), ["src/d/g", "src/f"]);
    assert_eq!(
        served.server.asked(&mut seen),
        (1, 1),
        "one look, one fetch"
    );

    let (run, _) = served.files(&steps, &[]);
    assert_eq!(run.success().cached_count(), 2);
    assert_eq!(served.server.asked(&mut seen), (1, 0), "one look");

    let by_commit = format!("ADD {url}#{first} /src/");
    let (run, _) = served.files(&by_commit, &[]);
    assert!(run.success().cached_count() >= 1);
    let (run, _) = served.files(&format!("{by_commit}\nADD {url}#{first}:d /d/"), &[]);
    let _ = run.success();
    assert_eq!(
        served.server.asked(&mut seen),
        (0, 0),
        "nothing for a commit that is here"
    );

    let second = repository.commit(&[("f", "two\n")]);
    let (run, out) = served.files(&steps, &[]);
    let run = run.success().says(&second);
    assert_eq!(fs::read_to_string(out.join("src/f")).unwrap(), "two\n");
    assert!(
        run.stderr.contains("not cached: `f` changed"),
        "{}",
        run.stderr
    );
    let (run, out) = served.files(&by_commit, &[]);
    assert_eq!(run.success().cached_count(), 2);
    assert_eq!(fs::read_to_string(out.join("src/f")).unwrap(), "one\n");
}

#[test]
fn references_lead_to_their_commits() {
    let served = served!();
    let repository = served.repository("a");
    let first = repository.commit(&[("f", "one")]);
    repository.git(["tag", "light"]);
    repository.git(["tag", "--annotate", "--message", "x", "heavy"]);
    repository.git(["branch", "side/one"]);
    let second = repository.commit(&[("f", "two")]);
    repository.git(["tag", "main"]);
    repository.git(["tag", "--force", "main", &first]);
    let url = served.url("a");
    for (suffix, expected) in [
        ("", "two"),
        ("#main", "two"),
        ("#light", "one"),
        ("#heavy", "one"),
        ("#side/one", "one"),
        ("?branch=side/one", "one"),
        ("?tag=main", "one"),
        ("?tag=heavy", "one"),
        ("#refs/heads/main", "two"),
        (&format!("#{first}"), "one"),
        (&format!("?checksum={}", &second), "two"),
        (&format!("?ref=main&checksum={}", &second[..9]), "two"),
        (&format!("?ref=heavy&commit={first}"), "one"),
        (
            &format!("?fetch-by-commit=1&ref=main&checksum={first}"),
            "one",
        ),
    ] {
        let (run, out) = served.files(&format!("ADD {url}{suffix} /"), &[]);
        let _ = run.success();
        let text = fs::read_to_string(out.join("f")).unwrap();
        assert_eq!(text, expected, "{suffix}");
    }
    for (suffix, expected) in [
        ("#none", "repository does not contain ref none".to_owned()),
        ("#side", "repository does not contain ref side".to_owned()),
        (
            "?ref=main&checksum=abcdef",
            format!("expected checksum to match abcdef, got {second}"),
        ),
        (
            &format!("#{}", "1".repeat(40)),
            "is no commit of http://".to_owned(),
        ),
        ("#main:none", "failed to open subdir none".to_owned()),
        ("#main:f", "failed to open subdir f".to_owned()),
    ] {
        let (run, _) = served.files(&format!("ADD {url}{suffix} /"), &[]);
        let run = run.exit(1).says(&expected).says("Dockerfile:2");
        let root = served.project.larder().root().display().to_string();
        assert!(!run.stderr.contains(&root), "{}", run.stderr);
    }
    let flag = format!("ADD --checksum={first} {url}#main /");
    let _ = served.files(&flag, &[]).0.exit(1).says("expected checksum");
}

#[test]
fn commits_that_no_reference_names_are_found() {
    let served = served!();
    let repository = served.repository("a");
    let first = repository.commit(&[("f", "one")]);
    repository.commit(&[("f", "two")]);
    let url = served.url("a");
    repository.git(["config", "uploadpack.allowAnySHA1InWant", "false"]);
    // What was fetched without its ancestors is no hindrance.
    let _ = served.files(&format!("ADD {url}#main /"), &[]).0.success();
    let (run, out) = served.files(&format!("ADD {url}#{first} /"), &[]);
    let _ = run.success();
    assert_eq!(fs::read_to_string(out.join("f")).unwrap(), "one");
}

#[test]
fn a_part_of_a_repository_is_no_way_out_of_it() {
    let served = served!();
    let repository = served.repository("a");
    let secret = served.project.scratch().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("token"), "x").unwrap();
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, repository.path().join(name)).unwrap();
    };
    link(secret.to_str().unwrap(), "out");
    link("d", "in");
    link("../../../../..", "up");
    repository.commit(&[("d/e/f", "f"), ("top", "t")]);
    let url = served.url("a");
    let part = |path: &str| served.listing(&format!("ADD {url}#main:{path} /"), &[]);
    assert_eq!(part("d"), ["e/f"]);
    assert_eq!(part("/d/e/"), ["f"]);
    assert_eq!(part("in/e"), ["f"]);
    assert_eq!(part("../d"), ["e/f"]);
    assert_eq!(part("up/d"), ["e/f"]);
    let whole = part("up");
    assert!(whole.contains(&"top".to_owned()) && !whole.contains(&"token".to_owned()));
    let (run, _) = served.files(&format!("ADD {url}#main:out /"), &[]);
    let _ = run.exit(1).says("failed to open subdir out");
}

#[test]
fn submodules_come_along() {
    let served = served!();
    let inner = served.repository("inner");
    let inner_commit = inner.commit(&[("i", "inner")]);
    let middle = served.repository("middle");
    middle.git(["submodule", "--quiet", "add", &served.url("inner"), "deep"]);
    middle.commit(&[("m", "middle")]);
    inner.commit(&[("i", "later")]);
    let outer = served.repository("outer");
    outer.git([
        "submodule",
        "--quiet",
        "add",
        "--name",
        "x",
        &served.url("middle"),
        "sub/m",
    ]);
    let modules = "[submodule \"x\"]\n\tpath = sub/m\n\turl = ../../middle/.git\n";
    outer.commit(&[("o", "outer"), (".gitmodules", modules)]);
    let url = served.url("outer");
    let all = [
        ".gitmodules",
        "o",
        "sub/m/.gitmodules",
        "sub/m/deep/i",
        "sub/m/m",
    ];
    assert_eq!(served.listing(&format!("ADD {url} /"), &[]), all);
    let (run, out) = served.files(&format!("ADD {url}#main:sub/m/deep /"), &[]);
    let _ = run.success();
    assert_eq!(
        fs::read_to_string(out.join("i")).unwrap(),
        "inner",
        "{inner_commit}"
    );
    let without = format!("ADD {url}?submodules=false /");
    assert_eq!(served.listing(&without, &[]), [".gitmodules", "o"]);

    for (modules, expected) in [
        ("", "no url found for submodule path 'sub/m'"),
        (
            "[submodule \"x\"]\n\tpath = sub/m\n\turl = /etc\n",
            "url of submodule path 'sub/m'",
        ),
        (
            "[submodule \"x\"]\n\tpath = sub/m\n\turl = ext::sh -c \"touch /tmp/x\"\n",
            "url of submodule path 'sub/m'",
        ),
        (
            "[submodule \"x\"]\n\tpath = sub/m\n\turl = ../../../../../etc\n",
            "leads nowhere",
        ),
    ] {
        outer.commit(&[(".gitmodules", modules)]);
        let _ = served
            .files(&format!("ADD {url} /"), &[])
            .0
            .exit(1)
            .says(expected);
    }
    let left_out = "[submodule \"x\"]\n\tpath = sub/m\n\turl = /etc\n\tupdate = none\n";
    outer.commit(&[(".gitmodules", left_out)]);
    assert_eq!(
        served.listing(&format!("ADD {url} /"), &[]),
        [".gitmodules", "o"]
    );
}

#[test]
fn git_is_kept_where_it_is_asked_for() {
    let served = served!();
    let repository = served.repository("a");
    repository.commit(&[("f", "one")]);
    let commit = repository.commit(&[("f", "two")]);
    repository.git(["tag", "--annotate", "--message", "x", "v1"]);
    let url = served.url("a");
    for (add, name) in [
        (format!("ADD --keep-git-dir=true {url} /src"), "main"),
        (format!("ADD {url}?keep-git-dir=1&tag=v1 /src"), "v1"),
        (format!("ADD --keep-git-dir {url}#{commit} /src"), "HEAD"),
    ] {
        let (run, out) = served.files(&add, &[]);
        let _ = run.success();
        let git = |args: &[&str]| {
            let mut command = std::process::Command::new("git");
            command
                .args(["-c", "safe.directory=*"])
                .args(args)
                .current_dir(out.join("src"));
            let output = command.output().unwrap();
            assert!(output.status.success(), "{add}: {args:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        assert_eq!(git(&["rev-parse", "HEAD"]), commit);
        assert_eq!(git(&["rev-parse", &format!("{name}^{{commit}}")]), commit);
        assert_eq!(git(&["status", "--porcelain"]), "");
        assert_eq!(git(&["rev-list", "--count", "HEAD"]), "1");
        assert_eq!(git(&["remote", "get-url", "origin"]), url);
        git(&["fsck", "--strict"]);
        let root = served.project.larder().root().to_str().unwrap().to_owned();
        for file in listing(&out) {
            let bytes = fs::read(out.join(&file)).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(&root), "{file} tells where the store is");
        }
    }
    let plain = served.listing(&format!("ADD {url} /src"), &[]);
    assert_eq!(plain, ["src/f"]);
    let _ = served
        .files(
            &format!("ADD --keep-git-dir=false {url}?keep-git-dir=1 /"),
            &[],
        )
        .0
        .exit(1)
        .says("inconsistent keep-git-dir configuration");
}

#[test]
fn files_are_those_of_a_checkout() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    let served = served!();
    let repository = served.repository("a");
    let attributes = "hidden export-ignore\nwindows.txt text eol=crlf\nid export-subst\n";
    fs::write(repository.path().join("run"), "#!").unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    fs::set_permissions(repository.path().join("run"), mode).unwrap();
    std::os::unix::fs::symlink("run", repository.path().join("link")).unwrap();
    repository.commit(&[
        (".gitattributes", attributes),
        ("hidden", "h"),
        ("windows.txt", "a\n"),
        ("id", "$Format:%H$"),
    ]);
    let url = served.url("a");
    let (run, out) = served.files(&format!("ADD {url}?mtime=commit /"), &[]);
    let _ = run.success();
    assert_eq!(
        listing(&out),
        [
            ".gitattributes",
            "hidden",
            "id",
            "link",
            "run",
            "windows.txt"
        ]
    );
    assert_eq!(fs::read(out.join("windows.txt")).unwrap(), b"a\r\n");
    assert_eq!(fs::read(out.join("id")).unwrap(), b"$Format:%H$");
    let metadata = |name: &str| fs::symlink_metadata(out.join(name)).unwrap();
    assert_eq!(metadata("run").mode() & 0o7777, 0o755);
    assert_eq!(metadata("hidden").mode() & 0o7777, 0o644);
    assert_eq!(metadata("hidden").mtime(), 1_600_000_000);
    assert_eq!(
        fs::read_link(out.join("link")).unwrap().to_str(),
        Some("run")
    );
    let (run, _) = served.files(&format!("ADD {url} /now/"), &[]);
    let _ = run.success();
    assert!(metadata("now/hidden").mtime() > 1_700_000_000);
}

#[test]
fn credentials_open_repositories_and_are_seen_nowhere() {
    let served = served!();
    let repository = served.repository("a");
    repository.commit(&[("f", "f")]);
    let secret = ["tok", "en-", "4711"].concat();
    // `x-access-token:token-4711`.
    let basic = "basic eC1hY2Nlc3MtdG9rZW46dG9rZW4tNDcxMQ==";
    served.server.require(basic);
    let url = served.url("a");
    let add = format!("ADD {url} /");
    let _ = served
        .files(&add, &[])
        .0
        .exit(1)
        .says("failed to fetch remote")
        .says("hint: give a token as the secret `GIT_AUTH_TOKEN`");
    let file = served.project.scratch().join("token");
    fs::write(&file, format!("{secret}\n")).unwrap();
    let larder = |name: &str, value: &str| {
        let larder = served.project.larder().clone().with_env("SECRET", value);
        let flag = format!("--secret=id={name},env=SECRET");
        build(&served, &larder, &add, &[&flag])
    };
    let host = served.server.host();
    let _ = larder("GIT_AUTH_TOKEN.other.test", &secret).exit(1);
    let _ = larder("GIT_AUTH_TOKEN", "wrong").exit(1);
    for (name, value) in [
        (format!("GIT_AUTH_TOKEN.{host}"), secret.clone()),
        ("GIT_AUTH_TOKEN".to_owned(), secret.clone()),
        ("GIT_AUTH_HEADER".to_owned(), basic.to_owned()),
    ] {
        let run = larder(&name, &value).success();
        assert!(!run.stderr.contains(&secret), "{}", run.stderr);
    }
    let from_file = format!("--secret=id=GIT_AUTH_TOKEN,src={}", file.display());
    let (run, _) = served.files(
        &format!("{add}\nADD {url}#main:none /"),
        &[&from_file, "--no-cache"],
    );
    let run = run.exit(1);
    assert!(!run.stderr.contains(&secret), "{}", run.stderr);

    // Credentials in the address itself are sent, and neither shown nor kept.
    let own = url.replace("http://", &format!("http://x-access-token:{secret}@"));
    let (run, _) = served.files(&format!("ADD --keep-git-dir {own} /src"), &[]);
    let _ = run.success();
    let out = served.project.scratch().join("out");
    let config = fs::read_to_string(out.join("src/.git/config")).unwrap();
    assert!(
        config.contains("xxxxx:xxxxx@") && !config.contains(&secret),
        "{config}"
    );
    let (run, _) = served.files(&format!("ADD {own}#none /"), &[]);
    let message = run.exit(1).stderr;
    let error = message.lines().last().unwrap_or_default();
    assert!(
        error.contains("xxxxx:xxxxx@") && !error.contains(&secret),
        "{message}"
    );
}

fn build(served: &Served, larder: &Larder, steps: &str, flags: &[&str]) -> Run {
    let dockerfile = format!("FROM scratch\n{steps}\n");
    served.project.write(&[("Dockerfile", &dockerfile)]);
    let context = served.project.context();
    let args = ["build", "--progress=plain", "--no-cache"];
    let all = args.iter().copied().chain(flags.iter().copied());
    larder.run(all.chain(context.to_str()))
}

#[test]
fn du_tells_of_repositories_and_prune_takes_them() {
    let served = served!();
    let repository = served.repository("a");
    repository.commit(&[("f", "f")]);
    let url = served.url("a");
    let _ = served.files(&format!("ADD {url} /"), &[]).0.success();
    let larder = served.project.larder();
    let text = larder.run(["du", "--verbose"]).success().text();
    assert!(
        text.contains(&format!("shared git repo for {url}")),
        "{text}"
    );
    assert!(text.contains(&format!("git snapshot for {url}#")), "{text}");
    let _ = larder.run(["prune", "--all", "--force"]).success();
    let text = larder.run(["du", "--verbose"]).success().text();
    assert!(!text.contains("git"), "{text}");
    let mut seen = served.server.requests().len();
    let _ = served.files(&format!("ADD {url} /"), &[]).0.success();
    assert_eq!(served.server.asked(&mut seen), (1, 1), "fetched again");
}

#[test]
fn builds_at_once_fetch_once() {
    let served = served!();
    let repository = served.repository("a");
    let commit = repository.commit(&[("f", "f")]);
    let url = served.url("a");
    let dockerfile = format!("FROM scratch\nADD {url}#{commit} /\n");
    served.project.write(&[("Dockerfile", &dockerfile)]);
    std::thread::scope(|scope| {
        let builds: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| served.project.build(&[])))
            .collect();
        for build in builds {
            let _ = build.join().unwrap().success();
        }
    });
    let mut seen = 0;
    assert_eq!(served.server.asked(&mut seen).1, 1);
}

#[test]
fn hostile_repositories_are_held_back() {
    let served = served!();
    let repository = served.repository("a");
    repository.commit(&[("f", "f")]);
    let url = served.url("a");
    // A tree that brings a `.git` of its own.
    let blob = repository.git(["hash-object", "-w", "f"]);
    let entry = |mode: &str, kind: &str, hash: &str, name: &str| {
        fs::write(
            repository.path().join("tree"),
            format!("{mode} {kind} {hash}\t{name}\n"),
        )
        .unwrap();
        let mktree = "git mktree < tree";
        let output = std::process::Command::new("sh")
            .args(["-c", mktree])
            .current_dir(repository.path())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let inner = entry("100644", "blob", &blob, "config");
    for name in [".git", ".GIT", ".."] {
        let tree = entry("040000", "tree", &inner, name);
        let commit = repository.git(["commit-tree", "-m", "x", &tree]);
        repository.git(["update-ref", "refs/heads/bad", &commit]);
        let (run, _) = served.files(&format!("ADD {url}#bad /"), &[]);
        let _ = run.exit(1).says("which no repository may have");
    }
    for bad in ["--upload-pack=touch", "a..b^{}", "x*"] {
        let (run, _) = served.files(&format!("ADD {url}#{bad} /"), &[]);
        let _ = run.exit(1);
    }
}

#[test]
fn a_machine_without_git_says_so() {
    let served = served!();
    let larder = served.project.larder().clone().with_env("PATH", "/nowhere");
    let run = build(&served, &larder, "ADD http://127.0.0.1:1/a.git /", &[]);
    let _ = run
        .exit(1)
        .says("cannot run `git`: it is not installed")
        .says("hint: install git");
}

/// Runs `larder build ARGS…`.
fn build_context(served: &Served, args: &[&str]) -> Run {
    let all = ["build", "--progress=plain"].iter().chain(args);
    served.project.larder().run(all.copied())
}

#[test]
fn repositories_are_contexts() {
    let served = served!();
    let repository = served.repository("a");
    let dockerfile = "FROM busybox\nCOPY . /in\nRUN cd /in && find * .git/HEAD; cat name\n";
    let other = "FROM busybox\nCOPY name /\nRUN echo other $(cat /name)\n";
    let first = repository.commit(&[
        ("Dockerfile", dockerfile),
        ("Other", other),
        ("name", "the top\n"),
        ("sub/Dockerfile", dockerfile),
        ("sub/name", "the part\n"),
    ]);
    let url = served.url("a");
    let run = build_context(&served, &[&url]).success();
    let run = run
        .says(" the top\n")
        .says(" sub/name\n")
        .says("find: .git/HEAD")
        .says(&format!("[internal] load git source {url}"));
    assert!(!run.stderr.contains("transferring context"));
    let mut seen = 0;
    assert_eq!(served.server.asked(&mut seen), (1, 1));
    let run = build_context(&served, &[&url]).success();
    assert!(run.cached_count() >= 3, "{}", run.stderr);
    assert_eq!(served.server.asked(&mut seen), (1, 0));

    let part = format!("{url}#main:sub");
    let _ = build_context(&served, &[&part])
        .success()
        .says(" the part\n");
    let run = build_context(&served, &["-f", "Other", &url]).success();
    let _ = run.says(" other the top\n");
    let local = served.project.scratch().join("Mine");
    fs::write(
        &local,
        "FROM busybox\nCOPY name /\nRUN echo mine; cat /name\n",
    )
    .unwrap();
    let run = build_context(&served, &["-f", local.to_str().unwrap(), &url]).success();
    let _ = run.says(" mine\n").says(" the top\n");
    let keep = "--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=1";
    let run = build_context(&served, &[keep, &url]).success();
    let _ = run.says(" .git/HEAD\n");

    repository.commit(&[("name", "later\n")]);
    let _ = build_context(&served, &[&url]).success().says(" later\n");
    let mut seen = served.server.requests().len();
    let pinned = format!("{url}#{first}");
    let _ = build_context(&served, &["--no-cache", &pinned])
        .success()
        .says(" the top\n");
    assert_eq!(served.server.asked(&mut seen), (0, 0));
    let _ = build_context(&served, &[&format!("{url}#none")])
        .exit(1)
        .says("repository does not contain ref none");
    let _ = build_context(&served, &[&format!("{url}?what=1")])
        .exit(1)
        .says("invalid git context");
    let _ = build_context(&served, &["ftp://127.0.0.1/a"])
        .exit(1)
        .says("unsupported context source `ftp://127.0.0.1/a`");
}

#[test]
fn repositories_are_named_contexts_and_those_of_bake_and_compose() {
    let served = served!();
    let repository = served.repository("a");
    let dockerfile = "FROM busybox\nCOPY name /\nRUN cat /name\n";
    repository.commit(&[("Dockerfile", dockerfile), ("name", "from afar\n")]);
    let url = served.url("a");
    let directory = served.project.context();
    served.project.write(&[
        (
            "Dockerfile",
            "FROM busybox\nCOPY --from=x name /\nRUN cat /name\n",
        ),
        (
            "docker-bake.hcl",
            &format!("target \"default\" {{ context = \"{url}\" }}\n"),
        ),
        (
            "compose.yaml",
            &format!("services:\n  a:\n    build: {url}\n"),
        ),
    ]);
    let run = served.project.build(&[&format!("--build-context=x={url}")]);
    let _ = run.success().says(" from afar\n");
    for args in [
        &["bake", "--progress=plain", "--no-cache"][..],
        &["compose", "--progress=plain", "build", "--no-cache"][..],
    ] {
        let mut command = served.project.larder().command(args.iter().copied());
        let run = Run::of(command.current_dir(&directory)).success();
        let _ = run.says(" from afar\n");
    }
}

#[test]
fn images_are_dated_by_their_sources() {
    const COMMITTED: &str = "2020-09-13T12:26:40Z";
    let served = served!();
    let repository = served.repository("a");
    repository.commit(&[("Dockerfile", "FROM busybox\nCOPY Dockerfile /\n")]);
    let url = served.url("a");
    let archive = served.project.scratch().join("image.tar");
    let output = format!("--output=type=oci,dest={}", archive.display());
    let created = || {
        let image = OciArchive::open(&archive).unwrap();
        image.config().unwrap().created.unwrap()
    };
    let of_context = "--build-arg=SOURCE_DATE_EPOCH=context";
    let _ = build_context(&served, &[&output, of_context, &url]).success();
    assert_eq!(created(), COMMITTED);

    let stages =
        format!("FROM scratch AS src\nADD {url}#main /\nFROM busybox\nCOPY --from=src / /\n");
    served.project.write(&[("Dockerfile", &stages)]);
    let of_stage = "--build-arg=SOURCE_DATE_EPOCH=src";
    let run = served.project.build(&[&output, of_stage]).success();
    let _ = run.says("[internal] resolve SOURCE_DATE_EPOCH source stage src");
    assert_eq!(created(), COMMITTED);
    let named = format!("--build-context=lib={url}");
    let of_named = "--build-arg=SOURCE_DATE_EPOCH=lib";
    let run = served.project.build(&[&output, of_named, &named]);
    let _ = run.success();
    assert_eq!(created(), COMMITTED);
    // A directory has no time.
    let _ = served.project.build(&[&output, of_context]).success();
    assert_ne!(created(), COMMITTED);
    let unknown = "--build-arg=SOURCE_DATE_EPOCH=none";
    let run = served.project.build(&[unknown]).exit(1);
    let _ = run.says("invalid SOURCE_DATE_EPOCH: \"none\"");
}

#[test]
fn bake_files_may_be_in_a_repository() {
    let served = served!();
    let repository = served.repository("a");
    let file = "variable \"OUT\" {}\n\
         target \"default\" {\n  output = [\"type=local,dest=${OUT}\"]\n  \
         contexts = { lib = \"lib\", here = \"${BAKE_CMD_CONTEXT}\" }\n}\n\
         target \"app\" {\n  inherits = [\"default\"]\n  context = \"app\"\n  contexts = { here = \"cwd://\" }\n}\n";
    repository.commit(&[
        ("docker-bake.hcl", file),
        (
            "deploy/other$.hcl",
            "target \"app\" { args = { NAME = \"other\" } }\n",
        ),
        (
            "Dockerfile",
            "FROM scratch\nCOPY top /\nCOPY --from=lib f /lib\nCOPY --from=here h /h\n",
        ),
        ("top", "top"),
        ("lib/f", "lib"),
        (
            "app/Dockerfile",
            "FROM scratch\nARG NAME=app\nCOPY f /$NAME\nCOPY --from=here h /h\n",
        ),
        ("app/f", "app"),
    ]);
    served
        .project
        .write(&[("h", "here"), ("lib/f", "not this one")]);
    let out = served.project.scratch().join("out");
    let bake = |args: &[&str]| {
        let _ = fs::remove_dir_all(&out);
        fs::create_dir(&out).unwrap();
        let mut command = served
            .project
            .larder()
            .command(["bake", "--progress=plain"]);
        command.args(args).env("OUT", &out);
        command.arg(format!(
            "--allow=fs.write={}",
            served.project.scratch().join("").display()
        ));
        let run = Run::of(command.current_dir(served.project.context()));
        (run, listing(&out))
    };
    let url = served.url("a");
    let (run, found) = bake(&[&url]);
    let _ = run.success();
    assert_eq!(found, ["h", "lib", "top"]);
    assert_eq!(fs::read_to_string(out.join("lib")).unwrap(), "lib");
    let (run, found) = bake(&[&url, "app"]);
    let _ = run.success();
    assert_eq!(found, ["app", "h"]);
    let files = ["-f", "docker-bake.hcl", "-f", "deploy/other$.hcl"];
    let (run, found) = bake(&[&files[..], &[&url, "app"]].concat());
    let _ = run.success();
    assert_eq!(found, ["h", "other"]);

    let (run, _) = bake(&[&url, "--print"]);
    assert!(run.success().text().contains("\"context\": \".\""));
    let (run, _) = bake(&[&url, "-f", "none.hcl"]);
    let _ = run.exit(1).says("none.hcl");
}
