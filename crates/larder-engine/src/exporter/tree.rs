//! The file trees of a result: as one tar, or in a directory.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use larder_oci::{Mount, MountKind, Sha256};
use larder_tree::beneath::Root;
use larder_tree::context::{Kind, Tree};
use larder_tree::copy::{self, CopyOptions};
use larder_tree::diff::{LayerOptions, write_trees};
use rustix::fs::{Mode, OFlags};

use super::attest::Attests;
use super::{Export, Part};
use crate::attest::Subject;
use crate::error::{BuildError, ErrorClass, Result};
use crate::ops::local::whole_tree;
use crate::output;
use crate::progress::VertexProgress;
use crate::request::{Destination, TreeOutput};

/// How much of a file is read at once.
const READ_BYTES: usize = 1 << 17;

impl Export<'_> {
    /// Writes the trees as one tar.
    pub(crate) fn to_tar(&self, output: TreeOutput<Destination>) -> Result<()> {
        let mut vertex = self
            .reporter
            .begin_internal("exporting to client tarball", "tar");
        let status = vertex.status("sending tarball", 0);
        let options = LayerOptions {
            clamp_mtime: self.source_date_epoch(),
        };
        let is_split = output.platform_split.unwrap_or(self.multi_platform);
        let done = self.check_overlap(is_split).and_then(|()| {
            let open = |part: &Part<'_>| {
                let directory = directory_of(part, is_split);
                Ok((directory, self.open(part)?))
            };
            let trees: Vec<(PathBuf, Option<Root>)> =
                self.parts.iter().map(open).collect::<Result<_>>()?;
            let statements = self.statements(&trees, is_split, &output.attestation_prefix)?;
            output::write(output.destination, |out: &mut dyn Write| {
                Ok(write_trees(&trees, &statements, out, &options)?)
            })
        });
        status.done();
        match &done {
            Ok(()) => vertex.complete(),
            Err(error) => vertex.fail(&error.full_message()),
        };
        done
    }

    /// Copies the trees into a directory, which is made if absent. What is there stays, apart from
    /// files of the same names.
    pub(crate) fn to_directory(&self, output: &TreeOutput<PathBuf>) -> Result<()> {
        let mut vertex = self
            .reporter
            .begin_internal("exporting to client directory", "local");
        let is_split = output.platform_split.unwrap_or(self.multi_platform);
        let copied = self.check_overlap(is_split).and_then(|()| {
            let mut parts = self.parts.iter();
            parts
                .try_for_each(|part| self.copy_to(part, &output.destination, is_split, &vertex))?;
            self.write_statements(output, is_split)
        });
        match &copied {
            Ok(()) => vertex.complete(),
            Err(error) => vertex.fail(&error.full_message()),
        };
        copied
    }

    fn copy_to(
        &self,
        part: &Part<'_>,
        directory: &Path,
        is_split: bool,
        vertex: &VertexProgress<'_>,
    ) -> Result<()> {
        let status = vertex.status(
            if is_split {
                format!("copying files {}", part.platform)
            } else {
                "copying files".to_owned()
            },
            0,
        );
        let directory = directory.join(directory_of(part, is_split));
        let failed = |source| {
            BuildError::new(
                ErrorClass::Invalid,
                format!("cannot make the directory `{}`", directory.display()),
            )
            .with_source(source)
        };
        std::fs::create_dir_all(&directory).map_err(failed)?;
        if let Some(source) = self.open(part)? {
            let owner = Some((
                rustix::process::getuid().as_raw(),
                rustix::process::getgid().as_raw(),
            ));
            let options = CopyOptions {
                owner,
                ..whole_tree()
            };
            copy::copy(&Tree::view(source)?, &Root::open(&directory)?, &options)?;
        }
        status.done();
        Ok(())
    }

    /// Writes what is said of the trees beside their files.
    fn write_statements(&self, output: &TreeOutput<PathBuf>, is_split: bool) -> Result<()> {
        let open = |part: &Part<'_>| Ok((directory_of(part, is_split), self.open(part)?));
        if self.parts.iter().all(|part| !says_anything(part)) {
            return Ok(());
        }
        let trees: Vec<(PathBuf, Option<Root>)> =
            self.parts.iter().map(open).collect::<Result<_>>()?;
        for (path, bytes) in self.statements(&trees, is_split, &output.attestation_prefix)? {
            let path = output.destination.join(path);
            let destination = Destination::File(path);
            output::write(destination, |out| {
                out.write_all(&bytes).map_err(output::failed)
            })?;
        }
        Ok(())
    }

    /// Returns the files that say something of trees, by their paths. All that a tree holds is what
    /// they are about. Without directories of their own, they are named for their platforms.
    fn statements(
        &self,
        trees: &[(PathBuf, Option<Root>)],
        is_split: bool,
        prefix: &str,
    ) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        let mut files = BTreeMap::new();
        for (part, (directory, root)) in self.parts.iter().zip(trees) {
            if !says_anything(part) {
                continue;
            }
            let subjects = match root {
                Some(root) => subjects(root)?,
                None => Vec::new(),
            };
            for said in part.said(self.lease.store(), &[], false, self.source_date_epoch())? {
                let mut name = format!("{prefix}{}", said.file_name);
                if self.multi_platform && !is_split {
                    let platform = part.platform.to_string().replace('/', "_");
                    let (stem, extension) = name.rsplit_once('.').unwrap_or((&name, ""));
                    name = format!("{stem}.{platform}.{extension}");
                }
                let path = directory.join(&name);
                let is_taken = root
                    .as_ref()
                    .is_some_and(|root| root.symlink_metadata(&name).is_ok());
                let statement = format!("{:#}", said.statement(&subjects));
                if is_taken || files.insert(path, statement.into_bytes()).is_some() {
                    return Err(BuildError::invalid(format!(
                        "duplicate attestation path name {name}"
                    )));
                }
            }
        }
        Ok(files)
    }

    /// Checks that no file of a platform would overwrite that of another.
    fn check_overlap(&self, is_split: bool) -> Result<()> {
        if is_split || self.parts.len() < 2 {
            return Ok(());
        }
        let mut seen: HashMap<PathBuf, &Part<'_>> = HashMap::new();
        for part in &self.parts {
            let Some(root) = self.open(part)? else {
                continue;
            };
            let tree = Tree::view(root)?;
            let entries = tree.entries()?.into_iter();
            for file in entries.filter(|entry| !entry.attributes().is_dir()) {
                if let Some(other) = seen.insert(file.path().to_owned(), part) {
                    return Err(BuildError::invalid(format!(
                        "cannot overwrite {} from {} with {} when split option is disabled",
                        file.path().display(),
                        other.platform,
                        part.platform
                    )));
                }
            }
        }
        Ok(())
    }

    /// Opens a tree for reading; `None` for an empty one.
    fn open(&self, part: &Part<'_>) -> Result<Option<Root>> {
        let Some(snapshot) = &part.snapshot else {
            return Ok(None);
        };
        let mount: Mount = self.lease.store().view(snapshot)?;
        debug_assert!(matches!(
            mount.kind,
            MountKind::Bind { .. } | MountKind::Overlay { .. }
        ));
        Ok(Some(Root::from_fd(larder_exec::mount::open(&mount)?)))
    }
}

/// Returns whether anything is said of a part where it is no image.
fn says_anything(part: &Part<'_>) -> bool {
    Attests::Of { inline: false }.any(part)
}

/// Returns the files of a tree with the digests of their bytes, sorted.
fn subjects(root: &Root) -> Result<Vec<Subject>> {
    let tree = Tree::view(root.try_clone()?)?;
    let mut subjects = Vec::new();
    for entry in tree.entries()? {
        if entry.attributes().kind != Kind::File {
            continue;
        }
        let path = entry.path();
        let file = root.open_file(path, OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty())?;
        let mut sum = Sha256::new();
        let mut file = std::fs::File::from(file);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = file.read(&mut buffer).map_err(|source| {
                BuildError::internal(format!("cannot read `{}`", path.display()))
                    .with_source(source)
            })?;
            if count == 0 {
                break;
            }
            sum.update(&buffer[..count]);
        }
        subjects.push(Subject {
            name: path.to_string_lossy().into_owned(),
            digest: sum.finish(),
        });
    }
    Ok(subjects)
}

/// Returns the directory that a platform's tree lies in.
fn directory_of(part: &Part<'_>, is_split: bool) -> PathBuf {
    if is_split {
        PathBuf::from(part.platform.to_string().replace('/', "_"))
    } else {
        PathBuf::new()
    }
}
