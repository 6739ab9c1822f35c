//! Going through a case.

use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;
use larder_testkit::{Base, Larder, OciArchive, Run, Scratch, User};

use super::case::{Case, Section};
use super::entry::{Entry, Kind, words};
use super::image::{self, Tree};
use super::{files, observe};

/// Sections that write files, or change what the next build finds.
const INPUTS: [&str; 8] = [
    "Dockerfile",
    "file",
    "context",
    "dir",
    "archive",
    "stdin",
    "import",
    "store",
];
/// Sections that compare the last build with what is expected.
const EXPECTATIONS: [&str; 10] = [
    "tree", "layers", "config", "history", "digest", "steps", "output", "warnings", "says", "error",
];
/// Those of them, and of the inputs, that need the image as an archive.
const OF_ARCHIVES: [&str; 6] = ["tree", "layers", "config", "history", "digest", "import"];

/// Fills the sections of failed cases with what was found, when set.
const WRITE: &str = "LARDER_CONFORMANCE_WRITE";

/// How a case is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As root, snapshots being overlays, and layers what larder chooses.
    Root,
    /// As root, all layers but those of RUN being EROFS images.
    Erofs,
    /// As root, snapshots being copies.
    Native,
    /// As a user with subordinate ids.
    Rootless,
}

impl Form {
    pub(crate) const ALL: [Self; 4] = [Self::Root, Self::Erofs, Self::Native, Self::Rootless];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Erofs => "erofs",
            Self::Native => "native",
            Self::Rootless => "rootless",
        }
    }

    /// Returns the configuration that larder runs with.
    fn config(self) -> &'static str {
        match self {
            Self::Root | Self::Rootless => "",
            Self::Erofs => "[store]\nlayers = \"erofs\"\n",
            Self::Native => "[worker.oci]\nsnapshotter = \"native\"\n",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What all cases of a form share.
pub(crate) struct Setup {
    form: Form,
    user: Option<User>,
    /// Keeps the binary where every user reaches it.
    _programs: Scratch,
    binary: PathBuf,
    base: PathBuf,
    base_layers: Vec<Vec<Entry>>,
}

impl Setup {
    /// # Errors
    /// When the form can't be run here.
    pub(crate) fn new(form: Form) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "no root");
        let base = Base::Busybox.archive().context("no base image")?;
        let user = match form {
            Form::Rootless => Some(User::with_subordinate_ids().context("no ordinary user")?),
            Form::Root | Form::Erofs | Form::Native => None,
        };
        let programs = Scratch::new();
        if form == Form::Erofs {
            let config = programs.join("larder.toml");
            fs::write(&config, form.config())?;
            let larder = Larder::new(env!("CARGO_BIN_EXE_larder"), &programs);
            let info = larder.with_env("LARDER_CONFIG", config).run(["info"]);
            ensure!(info.code == Some(0), "{}", info.stderr.trim_end());
        }
        let mut binary = PathBuf::from(env!("CARGO_BIN_EXE_larder"));
        if user.is_some() {
            let copy = programs.join("larder");
            fs::copy(&binary, &copy)?;
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(programs.path(), open)?;
            binary = copy;
        }
        Ok(Self {
            form,
            user,
            _programs: programs,
            binary,
            base_layers: image::layers(&OciArchive::open(&base)?)?,
            base,
        })
    }

    pub(crate) fn form(&self) -> Form {
        self.form
    }
}

/// Runs a case.
///
/// # Errors
/// Says all that was not as expected.
pub(crate) fn run(setup: &Setup, case: &Case) -> Result<()> {
    let found = observed(setup, case)?;
    let mut report = String::new();
    for (section, found) in case.sections.iter().zip(&found) {
        if let Some(difference) = found {
            report.push_str(&difference.report(section));
        }
    }
    if report.is_empty() {
        return Ok(());
    }
    if std::env::var_os(WRITE).is_some() && setup.form == Form::Root {
        let texts = case.sections.iter().zip(found);
        let text = |(section, found): (&Section, Option<Difference>)| {
            found.map_or_else(|| section.text.clone(), |found| found.actual)
        };
        case.rewrite(&texts.map(text).collect::<Vec<_>>())?;
    }
    bail!("{}\n{report}", case.path.display())
}

/// What was found in the place of what a section expects.
pub(crate) struct Difference {
    pub(crate) expected: String,
    pub(crate) actual: String,
    /// What the build said.
    pub(crate) stderr: String,
}

impl Difference {
    fn report(&self, section: &Section) -> String {
        let diff = similar::TextDiff::from_lines(&self.expected, &self.actual);
        let lines = diff
            .unified_diff()
            .context_radius(usize::MAX / 2)
            .to_string();
        let (_, lines) = lines.split_once('\n').unwrap_or(("", &lines));
        format!(
            "=== {} {} (- expected, + found)\n{lines}\n--- the build said\n{}\n",
            section.name, section.argument, self.stderr
        )
    }
}

/// Goes through a case; returns for each section what differs, if something does.
pub(crate) fn observed(setup: &Setup, case: &Case) -> Result<Vec<Option<Difference>>> {
    let expects = |section: &Section| EXPECTATIONS.contains(&section.name.as_str());
    ensure!(
        case.sections.iter().any(expects),
        "the case expects nothing"
    );
    let mut runner = Runner::new(setup)?;
    let mut found = Vec::new();
    for index in 0..case.sections.len() {
        let section = &case.sections[index];
        let header = || format!("=== {} {}", section.name, section.argument);
        found.push(runner.go(&case.sections[index..]).with_context(header)?);
    }
    Ok(found)
}

/// A build that has ended.
pub(crate) struct Built {
    pub(crate) run: Run,
    pub(crate) archive: Option<OciArchive>,
}

impl Built {
    fn image(&self) -> Result<&OciArchive> {
        self.archive.as_ref().context("the build failed")
    }
}

struct Runner<'a> {
    setup: &'a Setup,
    scratch: Scratch,
    larder: Larder,
    stores: usize,
    stdin: Option<PathBuf>,
    built: Option<Built>,
    /// Of the images that were built, one after the other.
    digests: Vec<String>,
}

impl<'a> Runner<'a> {
    fn new(setup: &'a Setup) -> Result<Self> {
        let scratch = setup
            .user
            .as_ref()
            .map_or_else(Scratch::new, Scratch::owned_by);
        let mut larder = Larder::new(&setup.binary, &scratch);
        if let Some(user) = setup.user {
            larder = larder.with_user(user);
        }
        if !setup.form.config().is_empty() {
            let config = scratch.join("larder.toml");
            fs::write(&config, setup.form.config())?;
            larder = larder.with_env("LARDER_CONFIG", config);
        }
        let mut runner = Self {
            setup,
            scratch,
            larder,
            stores: 0,
            stdin: None,
            built: None,
            digests: Vec::new(),
        };
        runner.open_store()?;
        runner.write("context", &[])?;
        Ok(runner)
    }

    /// Goes on in a store that holds the base image and nothing else.
    fn open_store(&mut self) -> Result<()> {
        self.stores += 1;
        let root = self.scratch.join(format!("root-{}", self.stores));
        self.larder = self.larder.clone().with_root(root);
        self.import(&self.setup.base, Base::Busybox.image_name())
    }

    fn import(&self, archive: &std::path::Path, name: &str) -> Result<()> {
        // By standard input, since a user may not reach the archive.
        let mut import = self.larder.command(["import", "-", name]);
        import.stdin(Stdio::from(fs::File::open(archive)?.into_parts().0));
        let run = Run::of(&mut import);
        ensure!(run.code == Some(0), "the import failed: {}", run.stderr);
        Ok(())
    }

    fn write(&self, dir: &str, entries: &[Entry]) -> Result<()> {
        let owner = self.setup.user.map_or((0, 0), |user| (user.uid, user.gid));
        files::write(&self.scratch.join(dir), entries, owner)
    }

    /// Goes through the first section of `rest`.
    fn go(&mut self, rest: &[Section]) -> Result<Option<Difference>> {
        let section = &rest[0];
        match section.name.as_str() {
            "not" => {}
            "build" => self.build(rest)?,
            "import" => {
                if self.built.is_none() {
                    self.build(rest)?;
                }
                self.open_store()?;
                self.import(&self.archive(), &section.argument)?;
                self.built = None;
            }
            "store" => {
                self.open_store()?;
                self.built = None;
            }
            name if INPUTS.contains(&name) => {
                self.built = None;
                self.input(section)?;
            }
            name if EXPECTATIONS.contains(&name) => {
                if self.built.is_none() {
                    self.build(rest)?;
                }
                return self.compare(section);
            }
            name => bail!("there is no section `{name}`"),
        }
        Ok(None)
    }

    fn input(&mut self, section: &Section) -> Result<()> {
        let file = |path: &str| -> Result<Entry> {
            let mut entry = Entry::parse(path)?;
            entry.kind = Kind::File(section.text.clone().into_bytes());
            Ok(entry)
        };
        let argument = section.argument.as_str();
        match section.name.as_str() {
            "Dockerfile" if argument.is_empty() => self.write("context", &[file("Dockerfile")?]),
            "Dockerfile" | "file" => self.write("context", &[file(argument)?]),
            "context" => self.write("context", &files::parse(section.lines())?),
            "dir" => self.write(argument, &files::parse(section.lines())?),
            "archive" => {
                let content = files::archive(argument, &files::parse(section.lines())?)?;
                self.write("context", &[Entry::new(argument, Kind::File(content))])
            }
            _ => {
                let path = self.scratch.join("stdin");
                fs::write(&path, &section.text)?;
                self.stdin = Some(path);
                Ok(())
            }
        }
    }

    fn archive(&self) -> PathBuf {
        self.scratch.join("image.tar")
    }

    /// Builds, for the sections after `rest` begins: with the flags of a `build`, else without any.
    fn build(&mut self, rest: &[Section]) -> Result<()> {
        let is_build = rest[0].name == "build";
        let of_this = rest[usize::from(is_build)..].iter().take_while(|section| {
            let name = section.name.as_str();
            name == "import" || EXPECTATIONS.contains(&name)
        });
        let of_this: Vec<&str> = of_this.map(|section| section.name.as_str()).collect();
        let mut words = if is_build {
            words(&rest[0].argument)?
        } else {
            Vec::new()
        };
        let dir = self.scratch.path().to_string_lossy().into_owned();
        for word in &mut words {
            *word = word.replace("$DIR", &dir);
        }
        let variables = words.iter().position(|word| word.starts_with(['-', '+']));
        let mut flags = words.split_off(variables.unwrap_or(words.len()));
        let attributes = flags.extract_if(.., |flag| flag.starts_with('+'));
        let attributes: String = attributes.map(|flag| flag.replacen('+', ",", 1)).collect();
        let context = match flags.iter().position(|flag| flag == "--") {
            Some(end) => flags.drain(end..).nth(1).context("no context after `--`")?,
            None => format!("{dir}/context"),
        };
        let archive = self.archive();
        let exports = of_this.iter().any(|name| OF_ARCHIVES.contains(name));
        if exports {
            let output = format!(
                "type=oci,compression=uncompressed{attributes},dest={}",
                archive.display()
            );
            flags.extend(["--output".to_owned(), output]);
        }
        let mut command = self.larder.command(["build", "--progress", "plain"]);
        for variable in &words {
            let (name, value) = variable.split_once('=').context("flags begin with `-`")?;
            command.env(name, value);
        }
        command.args(flags).arg(context);
        if let Some(stdin) = self.stdin.take() {
            command.stdin(Stdio::from(fs::File::open(stdin)?.into_parts().0));
        }
        let mut run = Run::of(&mut command);
        run.stderr = run.stderr.replace(&dir, "$DIR");
        let succeeds = run.code == Some(0);
        if !succeeds && !of_this.contains(&"error") {
            bail!("the build failed with {:?}:\n{}", run.code, run.stderr);
        }
        let archive = if exports && succeeds {
            let archive = OciArchive::open(&archive)?;
            self.digests
                .push(archive.manifest_descriptor()?.digest.to_string());
            Some(archive)
        } else {
            None
        };
        self.built = Some(Built { run, archive });
        Ok(())
    }

    fn compare(&self, section: &Section) -> Result<Option<Difference>> {
        let built = self.built.as_ref().context("nothing was built")?;
        let (expected, actual) = match section.name.as_str() {
            "tree" => {
                let (image, base) = self.trees(built)?;
                let found = match section.argument.as_str() {
                    "" => image.changes_to(&base),
                    dir => image.below(dir),
                };
                observe::tree(section, found)?
            }
            "layers" => {
                let layers = image::layers(built.image()?)?;
                let base_count = self.base_count(&layers);
                observe::layers(section, layers.into_iter().skip(base_count))?
            }
            "digest" => {
                let [.., before, last] = &self.digests[..] else {
                    bail!("there are no two images to compare");
                };
                let found = if before == last { "same" } else { "other" };
                (format!("{}\n", section.argument), format!("{found}\n"))
            }
            "config" => observe::config(section, &built.image()?.config()?)?,
            "history" => observe::history(section, &built.image()?.config()?),
            "steps" => (section.text.clone(), observe::steps(&built.run)),
            "output" => (section.text.clone(), observe::output(section, &built.run)),
            "warnings" => (section.text.clone(), observe::warnings(&built.run)),
            "says" => observe::says(section, &built.run),
            _ => observe::error(section, &built.run),
        };
        Ok((expected != actual).then(|| Difference {
            expected,
            actual,
            stderr: built.run.stderr.clone(),
        }))
    }

    /// Returns what the image holds, and what the base image does if it stands on it.
    fn trees(&self, built: &Built) -> Result<(Tree, Tree)> {
        let layers = image::layers(built.image()?)?;
        let base = Tree::of(&layers[..self.base_count(&layers)])?;
        Ok((Tree::of(&layers)?, base))
    }

    fn base_count(&self, layers: &[Vec<Entry>]) -> usize {
        let base = &self.setup.base_layers;
        if layers.starts_with(base) {
            base.len()
        } else {
            0
        }
    }
}
