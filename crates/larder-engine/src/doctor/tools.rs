//! Package managers: how they are called, and where they keep what they have downloaded.

use super::shell::{self, Command};

/// A package manager.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    /// Where it caches as root, in the images that it is mostly used in.
    pub(super) caches: &'static [&'static str],
    /// Whether two of its processes must not share a cache.
    pub(super) locked: bool,
    /// The variables that move its cache.
    pub(super) moved_by: &'static [&'static str],
    /// The flags and variables that turn its cache off.
    pub(super) off_flags: &'static [&'static str],
    pub(super) off_variables: &'static [&'static str],
    /// The files that name what it installs; empty where no file does.
    pub(super) manifests: &'static [&'static str],
}

/// A call of a package manager that may download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) tool: &'static Tool,
    /// As findings name it, `pip install`.
    pub(super) verb: String,
    /// Whether it reads no file but those that name packages.
    pub(super) packages_only: bool,
    /// Those files, where the call names them; else the tool's.
    pub(super) manifests: Vec<String>,
    pub(super) command: Command,
}

const NONE: Tool = Tool {
    name: "",
    caches: &[],
    locked: false,
    moved_by: &[],
    off_flags: &[],
    off_variables: &[],
    manifests: &[],
};

pub(super) const PIP: Tool = Tool {
    name: "pip",
    caches: &["/root/.cache/pip"],
    locked: true,
    moved_by: &["PIP_CACHE_DIR", "XDG_CACHE_HOME"],
    off_flags: &["--no-cache-dir"],
    off_variables: &["PIP_NO_CACHE_DIR"],
    ..NONE
};
const UV: Tool = Tool {
    name: "uv",
    caches: &["/root/.cache/uv"],
    moved_by: &["UV_CACHE_DIR", "XDG_CACHE_HOME"],
    off_flags: &["--no-cache", "--no-cache-dir", "-n"],
    off_variables: &["UV_NO_CACHE"],
    manifests: &["pyproject.toml", "uv.lock"],
    ..NONE
};
const POETRY: Tool = Tool {
    name: "poetry",
    caches: &["/root/.cache/pypoetry"],
    moved_by: &["POETRY_CACHE_DIR", "XDG_CACHE_HOME"],
    off_flags: &["--no-cache"],
    manifests: &["pyproject.toml", "poetry.lock"],
    ..NONE
};
pub(super) const APT: Tool = Tool {
    name: "apt",
    caches: &["/var/cache/apt", "/var/lib/apt"],
    locked: true,
    ..NONE
};
const APK: Tool = Tool {
    name: "apk",
    caches: &["/etc/apk/cache"],
    locked: true,
    off_flags: &["--no-cache"],
    ..NONE
};
const DNF: Tool = Tool {
    name: "dnf",
    caches: &["/var/cache/dnf"],
    locked: true,
    ..NONE
};
const YUM: Tool = Tool {
    name: "yum",
    caches: &["/var/cache/yum"],
    ..DNF
};
const NPM: Tool = Tool {
    name: "npm",
    caches: &["/root/.npm"],
    moved_by: &["npm_config_cache", "NPM_CONFIG_CACHE"],
    manifests: &["package.json", "package-lock.json"],
    ..NONE
};
const YARN: Tool = Tool {
    name: "yarn",
    caches: &[
        "/usr/local/share/.cache/yarn",
        "/root/.yarn",
        "/root/.cache/yarn",
    ],
    moved_by: &["YARN_CACHE_FOLDER"],
    manifests: &["package.json", "yarn.lock"],
    ..NONE
};
const PNPM: Tool = Tool {
    name: "pnpm",
    caches: &["/root/.local/share/pnpm/store", "/pnpm/store"],
    moved_by: &["PNPM_HOME"],
    manifests: &["package.json", "pnpm-lock.yaml"],
    ..NONE
};
const CARGO: Tool = Tool {
    name: "cargo",
    caches: &["/usr/local/cargo/registry", "/root/.cargo"],
    moved_by: &["CARGO_HOME"],
    ..NONE
};
const GO: Tool = Tool {
    name: "go",
    caches: &["/go/pkg/mod", "/root/.cache/go-build"],
    moved_by: &["GOMODCACHE", "GOPATH", "GOCACHE"],
    manifests: &["go.mod", "go.sum"],
    ..NONE
};
const MAVEN: Tool = Tool {
    name: "maven",
    caches: &["/root/.m2"],
    manifests: &["pom.xml"],
    ..NONE
};
const GRADLE: Tool = Tool {
    name: "gradle",
    caches: &["/root/.gradle"],
    moved_by: &["GRADLE_USER_HOME"],
    ..NONE
};
const BUNDLER: Tool = Tool {
    name: "bundler",
    caches: &["/usr/local/bundle/cache", "/root/.gem", "/root/.bundle"],
    moved_by: &["BUNDLE_PATH", "GEM_HOME"],
    manifests: &["Gemfile", "Gemfile.lock"],
    ..NONE
};
const COMPOSER: Tool = Tool {
    name: "composer",
    caches: &["/tmp/cache", "/root/.composer", "/root/.cache/composer"],
    moved_by: &["COMPOSER_CACHE_DIR", "COMPOSER_HOME"],
    off_flags: &["--no-cache"],
    manifests: &["composer.json", "composer.lock"],
    ..NONE
};

impl Tool {
    /// Returns the directories to mount for this tool: all where it has several at once.
    pub(super) fn wanted(&self) -> &'static [&'static str] {
        match self.name {
            "apt" | "go" => self.caches,
            _ => &self.caches[..1],
        }
    }
}

/// Returns what a command installs with, if it is a package manager that may download.
pub(super) fn recognize(command: &Command) -> Option<Use> {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    let program = shell::base_name(words[0]);
    let rest = &words[1..];
    let rest = match (program, rest) {
        (program, ["-m", "pip", rest @ ..]) if program.starts_with("python") => {
            return pip(command, rest);
        }
        (_, rest) => rest,
    };
    if is_pip(program) {
        return pip(command, rest);
    }
    let (verb, arguments) = verb(rest);
    let (tool, packages_only): (&'static Tool, bool) = match (program, verb) {
        ("uv", "sync") => (&UV, rest.contains(&"--no-install-project")),
        ("uv", "pip" | "add" | "tool") => (&UV, installs_packages(arguments)),
        ("poetry", "install" | "add" | "sync") => (&POETRY, rest.contains(&"--no-root")),
        (
            "apt-get" | "apt" | "aptitude",
            "install" | "upgrade" | "dist-upgrade" | "full-upgrade",
        ) => (&APT, !arguments.iter().any(|word| is_path(word))),
        ("apk", "add" | "upgrade") => (&APK, !arguments.iter().any(|word| is_path(word))),
        ("dnf" | "microdnf", "install" | "update" | "upgrade" | "groupinstall") => (&DNF, true),
        ("yum", "install" | "update" | "upgrade" | "groupinstall") => (&YUM, true),
        ("npm", "install" | "i" | "ci" | "add" | "clean-install") => (&NPM, true),
        ("yarn", "" | "install" | "add") => (&YARN, true),
        ("pnpm", "install" | "i" | "add" | "fetch") => (&PNPM, true),
        (
            "cargo",
            "build" | "install" | "test" | "check" | "run" | "clippy" | "bench" | "doc" | "fetch"
            | "chef",
        ) => (&CARGO, false),
        ("go", "build" | "install" | "test" | "run" | "get" | "vet") => (&GO, false),
        ("go", "mod") if matches!(arguments, ["download", ..]) => (&GO, true),
        ("mvn" | "mvnw", verb) if !verb.is_empty() => (
            &MAVEN,
            rest.iter()
                .all(|word| word.starts_with(['-', 'd']) && *word != "deploy"),
        ),
        ("gradle" | "gradlew", verb) if !verb.is_empty() => (&GRADLE, false),
        ("bundle", "install" | "update") => (&BUNDLER, true),
        ("composer", "install" | "update" | "require") => (&COMPOSER, true),
        _ => return None,
    };
    Some(Use {
        tool,
        verb: format!("{program} {verb}").trim_end().to_owned(),
        packages_only,
        manifests: tool.manifests.iter().map(|&name| name.to_owned()).collect(),
        command: command.clone(),
    })
}

fn is_pip(program: &str) -> bool {
    let version = program.strip_prefix("pip");
    version.is_some_and(|version| version.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

fn pip(command: &Command, arguments: &[&str]) -> Option<Use> {
    let (verb, arguments) = verb(arguments);
    if !matches!(verb, "install" | "wheel" | "download") || arguments.contains(&"--no-index") {
        return None;
    }
    Some(Use {
        tool: &PIP,
        verb: format!("pip {verb}"),
        packages_only: installs_packages(arguments),
        manifests: values_of(arguments, &["-r", "--requirement", "-c", "--constraint"]),
        command: command.clone(),
    })
}

/// Returns the first word that is no flag, and what follows it.
fn verb<'a, 'w>(words: &'a [&'w str]) -> (&'w str, &'a [&'w str]) {
    match words.iter().position(|word| !word.starts_with('-')) {
        Some(at) => (words[at], &words[at + 1..]),
        None => ("", &[]),
    }
}

/// Whether no argument is a directory or file to install, apart from lists of packages.
fn installs_packages(arguments: &[&str]) -> bool {
    let lists = values_of(arguments, &["-r", "--requirement", "-c", "--constraint"]);
    let editable = arguments
        .iter()
        .any(|word| matches!(*word, "-e" | "--editable"));
    let is_local = |word: &&str| is_path(word) && !lists.iter().any(|list| list == word);
    !editable && !arguments.iter().any(is_local)
}

/// Whether an argument names a file or directory.
fn is_path(word: &str) -> bool {
    let is_dot = word == "." || word.starts_with("./") || word.starts_with("../");
    let is_file = [".whl", ".deb", ".apk", ".rpm", ".tgz", ".tar.gz"];
    let is_archive = is_file.iter().any(|suffix| word.ends_with(suffix));
    is_dot || word.starts_with(".[") || word.starts_with('/') || is_archive && !word.contains("://")
}

/// Returns the values of flags: `-r a`, `-ra`, `--requirement=a`.
fn values_of(arguments: &[&str], flags: &[&str]) -> Vec<String> {
    let mut values = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(word) = arguments.next() {
        if flags.contains(word) {
            values.extend(arguments.next().map(|value| (*value).to_owned()));
            continue;
        }
        let joined = flags.iter().find_map(|flag| {
            let value = word.strip_prefix(flag)?;
            if flag.starts_with("--") {
                value.strip_prefix('=')
            } else {
                Some(value)
            }
        });
        values.extend(joined.map(str::to_owned));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(script: &str, expected: &[(&str, bool)]) {
        let commands = shell::commands(script);
        let uses: Vec<Use> = commands.iter().filter_map(recognize).collect();
        let found: Vec<(&str, bool)> = uses
            .iter()
            .map(|found| (found.verb.as_str(), found.packages_only))
            .collect();
        assert_eq!(found, expected, "{script}");
    }

    #[test]
    fn package_managers_are_recognized() {
        check("pip install -r requirements.txt", &[("pip install", true)]);
        check(
            "python3.11 -m pip --quiet install x",
            &[("pip install", true)],
        );
        check("/venv/bin/pip3 install .", &[("pip install", false)]);
        check("pip install -e '.[dev]'", &[("pip install", false)]);
        check("pip install --no-index x; pip list; pipx install y", &[]);
        check(
            "apt-get update && apt-get -y install a",
            &[("apt-get install", true)],
        );
        check("apt-get install -y ./a.deb", &[("apt-get install", false)]);
        check("npm ci && npm run build", &[("npm ci", true)]);
        check(
            "yarn && yarn --frozen-lockfile && yarn build",
            &[("yarn", true), ("yarn", true)],
        );
        check("pnpm i; pnpm run x", &[("pnpm i", true)]);
        check(
            "uv sync --frozen --no-install-project; uv run x",
            &[("uv sync", true)],
        );
        check("uv pip install -r r.txt", &[("uv pip", true)]);
        check(
            "poetry install --no-root; poetry build",
            &[("poetry install", true)],
        );
        check(
            "cargo build --release; cargo --version",
            &[("cargo build", false)],
        );
        check(
            "go mod download; go build ./...; go version",
            &[("go mod", true), ("go build", false)],
        );
        check(
            "./mvnw -q package; mvn --version",
            &[("mvnw package", false)],
        );
        check(
            "mvn dependency:go-offline",
            &[("mvn dependency:go-offline", true)],
        );
        check("./gradlew build", &[("gradlew build", false)]);
        check("bundle install; bundle exec x", &[("bundle install", true)]);
        check(
            "composer install; composer dump-autoload",
            &[("composer install", true)],
        );
        check(
            "dnf install -y a; apk add --no-cache b",
            &[("dnf install", true), ("apk add", true)],
        );
        check("echo pip install x", &[]);
    }

    #[test]
    fn lists_of_packages_are_named() {
        let commands =
            shell::commands("pip install -r a.txt -rb.txt --requirement=c.txt -c d.txt x");
        let found = recognize(&commands[0]).unwrap();
        assert_eq!(found.manifests, ["a.txt", "b.txt", "c.txt", "d.txt"]);
        assert!(found.packages_only);
        let commands = shell::commands("npm ci");
        let found = recognize(&commands[0]).unwrap();
        assert_eq!(found.manifests, ["package.json", "package-lock.json"]);
    }
}
