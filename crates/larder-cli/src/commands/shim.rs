//! `larder shim`

use std::io;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::args::{ShimCommand, ShimInstallArgs};
use crate::output;
use crate::shim::Program;

/// Does what is asked for.
pub(crate) fn run(command: ShimCommand) -> anyhow::Result<()> {
    match command {
        ShimCommand::Install(args) => install(&args),
    }
}

/// Makes the links. None is made if one can't be, unless that turns out in the middle.
fn install(args: &ShimInstallArgs) -> anyhow::Result<()> {
    let larder = std::env::current_exe().context("cannot tell where larder is")?;
    let directory = &args.directory;
    fs_err::create_dir_all(directory)?;
    if !args.force {
        for program in Program::ALL {
            let link = directory.join(program.name());
            if fs_err::symlink_metadata(&link).is_ok() && !is_link_to(&link, &larder) {
                bail!(
                    "`{}` is there already: `--force` replaces it",
                    link.display()
                );
            }
        }
    }
    for program in Program::ALL {
        replace(&directory.join(program.name()), &larder)?;
        output::tell(&format!(
            "{} -> {}",
            directory.join(program.name()).display(),
            larder.display()
        ));
    }
    Ok(())
}

fn is_link_to(link: &Path, target: &Path) -> bool {
    fs_err::read_link(link).is_ok_and(|found| found == target)
}

/// Makes a link in one step, in place of what is there.
fn replace(link: &Path, target: &Path) -> io::Result<()> {
    let mut name = link.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = Path::new(&name);
    match fs_err::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs_err::os::unix::fs::symlink(target, temporary)?;
    fs_err::rename(temporary, link)
}
