//! Docker's command lines, put into larder's.
//!
//! The program answers to the name it is called by: `docker`, `docker-compose` and
//! `docker-buildx` are links to it, made by `larder shim install`. What such a line asks for is a
//! pure function of its words; larder's own parser reads the result.

mod flags;
mod verbs;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

pub(crate) use verbs::listed;

/// One of Docker's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// `docker`
    Docker,
    /// `docker-compose`, which is also the plug-in for `docker compose`
    Compose,
    /// `docker-buildx`, the plug-in for `docker buildx`
    Buildx,
}

/// What a command line of Docker's comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Call {
    /// Larder's command line, without the program.
    pub(crate) words: Vec<OsString>,
    /// The directory that takes the place of `DOCKER_CONFIG`.
    pub(crate) docker_config: Option<PathBuf>,
}

impl Program {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Docker, Self::Compose, Self::Buildx];

    /// Returns its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Compose => "docker-compose",
            Self::Buildx => "docker-buildx",
        }
    }

    /// Returns the program that a process was started as, by the first of its arguments; `None` if
    /// that is larder itself.
    pub(crate) fn called(argument: &OsStr) -> Option<Self> {
        let name = Path::new(argument).file_name()?;
        Self::ALL.into_iter().find(|program| name == program.name())
    }

    /// Puts a command line into larder's words.
    ///
    /// # Errors
    /// Names what larder has not.
    pub(crate) fn call(self, words: &[OsString]) -> Result<Call, String> {
        if self != Self::Docker
            && words
                .first()
                .is_some_and(|word| word == "docker-cli-plugin-metadata")
        {
            return Ok(larder(&["docker", "plugin", self.name()], &[]));
        }
        let (flags, words) = match self {
            // As a plug-in it gets docker's own flags first, then its name.
            Self::Docker | Self::Buildx => flags::leading(words)?,
            Self::Compose => (flags::Leading::default(), words),
        };
        let mut call = match self {
            Self::Docker => verbs::docker(words, flags.version)?,
            Self::Buildx => verbs::buildx(without_first(words, "buildx"), flags.version)?,
            Self::Compose => verbs::compose(without_first(words, "compose")),
        };
        if flags.debug {
            call.words.insert(0, "--debug".into());
        }
        call.docker_config = flags.config;
        Ok(call)
    }
}

/// Returns larder's words `verb`, then `rest` as it stands.
fn larder(verb: &[&str], rest: &[OsString]) -> Call {
    let words = verb.iter().map(OsString::from);
    Call {
        words: words.chain(rest.iter().cloned()).collect(),
        docker_config: None,
    }
}

fn without_first<'a>(words: &'a [OsString], first: &str) -> &'a [OsString] {
    match words.split_first() {
        Some((word, rest)) if word == first => rest,
        _ => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the words that a line such as `docker build .` comes to.
    fn call(line: &str) -> Result<Call, String> {
        let mut words = line.split_whitespace().map(OsString::from);
        let program = Program::called(&words.next().unwrap()).expect("one of Docker's programs");
        program.call(&words.collect::<Vec<_>>())
    }

    #[track_caller]
    fn check(line: &str, expected: &str) {
        let call = call(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let words: Vec<_> = call
            .words
            .iter()
            .map(|word| word.to_str().unwrap())
            .collect();
        assert_eq!(words.join(" "), expected, "{line}");
    }

    #[test]
    fn programs_are_told_by_their_names() {
        for (argument, expected) in [
            ("docker", Some(Program::Docker)),
            ("/usr/local/bin/docker-compose", Some(Program::Compose)),
            ("./docker-buildx", Some(Program::Buildx)),
            ("/opt/docker/larder", None),
            ("dockerd", None),
            ("", None),
        ] {
            assert_eq!(
                Program::called(OsStr::new(argument)),
                expected,
                "{argument}"
            );
        }
    }

    #[test]
    fn docker_s_lines_become_larder_s() {
        for (line, expected) in [
            ("docker build -t a .", "build -t a ."),
            ("docker builder build .", "build ."),
            ("docker image build .", "build ."),
            ("docker buildx build --push .", "build --push ."),
            ("docker buildx b .", "build ."),
            ("docker buildx bake -f x api", "bake -f x api"),
            ("docker buildx f", "bake"),
            ("docker buildx du --verbose", "du --verbose"),
            ("docker buildx prune --filter id=x", "prune --filter id=x"),
            ("docker builder prune -af", "prune -af"),
            ("docker buildx ls", "docker builders"),
            (
                "docker buildx inspect --bootstrap",
                "docker builder --bootstrap",
            ),
            ("docker buildx version", "docker buildx-version"),
            (
                "docker buildx imagetools inspect a:1",
                "docker imagetools-inspect a:1",
            ),
            ("docker images -q", "images -q"),
            ("docker image ls", "images"),
            ("docker image rm a", "rmi a"),
            ("docker rmi a", "rmi a"),
            ("docker image prune -f", "docker image-prune -f"),
            ("docker image tag a b", "tag a b"),
            ("docker run --rm a ls -l", "run --rm a ls -l"),
            ("docker compose -f c.yaml up", "compose -f c.yaml up"),
            ("docker system df", "docker df"),
            ("docker system info", "docker info"),
            ("docker version", "docker version"),
            ("docker --version", "docker line docker"),
            ("docker", "docker verbs"),
            ("docker --help", "docker verbs"),
            (
                "docker-compose build --no-cache",
                "compose build --no-cache",
            ),
            ("docker-compose compose build", "compose build"),
            ("docker-compose --version", "docker compose-version"),
            (
                "docker compose version --short",
                "docker compose-version --short",
            ),
            ("docker-buildx build .", "build ."),
            ("docker-buildx buildx du", "du"),
            (
                "docker-buildx docker-cli-plugin-metadata",
                "docker plugin docker-buildx",
            ),
            (
                "docker-compose docker-cli-plugin-metadata",
                "docker plugin docker-compose",
            ),
        ] {
            check(line, expected);
        }
    }

    #[test]
    fn flags_may_come_first() {
        check("docker -D build .", "--debug build .");
        check("docker -l debug --context default build .", "build .");
        check(
            "docker --log-level=info -cdefault build -c 5 .",
            "build -c 5 .",
        );
        check(
            "docker buildx --builder default -D du",
            "--debug du --builder default",
        );
        check("docker buildx --builder=default du", "du --builder=default");
        check("docker-buildx --config /c buildx du", "du");
        let call = call("docker --config /c build .").unwrap();
        assert_eq!(call.docker_config.as_deref(), Some(Path::new("/c")));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (line, expected) in [
            (
                "docker ps -a",
                "`docker ps` is not available: larder runs no containers in the background",
            ),
            (
                "docker swarm init",
                "`docker swarm` is not available in larder",
            ),
            (
                "docker image import x",
                "`docker image import` is not available in larder",
            ),
            ("docker image", "`docker image` needs a command: "),
            (
                "docker buildx create --use",
                "`docker buildx create` is not available: there is one builder, in this process",
            ),
            (
                "docker buildx imagetools create a",
                "`docker buildx imagetools create` is not available in larder",
            ),
            (
                "docker-buildx create",
                "`docker buildx create` is not available",
            ),
            (
                "docker --context prod build .",
                "`--context prod`: larder has no contexts but `default`",
            ),
            (
                "docker -H tcp://x:1 build .",
                "`--host`: larder builds in its own process",
            ),
            (
                "docker --tlsverify build .",
                "`--tlsverify`: larder builds in its own process",
            ),
            ("docker --nope build .", "unknown flag: --nope"),
            ("docker --config", "flag needs an argument: --config"),
        ] {
            let error = call(line).unwrap_err();
            assert!(error.starts_with(expected), "{line}: {error}");
        }
    }
}
