//! Times layers as directories and as EROFS images, in CPU seconds.
//!
//! `cargo run --release --example erofs_bench [FILES] [ROUNDS]` makes a context of that many files
//! (50,000 by default), 2 KB each, ten to a directory; copies it, and unpacks its archive, in both
//! forms.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use larder_tree::apply::{ApplyOptions, LayerForm, apply_layer};
use larder_tree::beneath::Root;
use larder_tree::context::{ScanOptions, StatCache, Tree, scan};
use larder_tree::copy::{CopyOptions, copy};
use larder_tree::diff::{DigestWriter, LayerOptions, Style, write_layer};
use larder_tree::erofs::{Image, Reader};
use larder_tree::sink::Sink;

/// How `/proc` counts the time of a process.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let count: usize = arguments.next().map_or(Ok(50_000), |text| text.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let dir = tempfile::tempdir_in(std::env::var_os("BENCH_DIR").unwrap_or("/tmp".into()))?;
    let at = |name: &str| dir.path().join(name);
    make_context(&at("context"), count)?;
    let options = ScanOptions {
        started_at_nanos: i64::MAX,
        ..ScanOptions::default()
    };
    let tree = scan(Root::open(&at("context"))?, &options, StatCache::default())?;
    let mut layer = Vec::new();
    let context = Root::open(&at("context"))?;
    let options = LayerOptions::default();
    write_layer(&context, None, Style::Tree, &mut layer, &options)?;

    for _ in 0..rounds {
        let path = at("directory");
        for (name, is_copy) in [
            ("copy to a directory", true),
            ("unpack to a directory", false),
        ] {
            fs::create_dir(&path)?;
            let root = Root::open(&path)?;
            step(name, || fill(&root, is_copy.then_some(&tree), &layer))?;
            step("tar of the directory", || {
                let mut digest = DigestWriter::new(io::sink());
                write_layer(&root, None, Style::Overlay, &mut digest, &options)?;
                Ok(())
            })?;
            step("remove the directory", || Ok(fs::remove_dir_all(&path)?))?;
        }
        let path = at("image");
        for (name, is_copy) in [("copy to an image", true), ("unpack to an image", false)] {
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)?;
            step(name, || {
                let image = Image::new(file);
                fill(&image, is_copy.then_some(&tree), &layer)?;
                image.finish()?;
                Ok(())
            })?;
            step("tar of the image", || {
                let image = Reader::open(File::open(&path)?)?;
                let mut digest = DigestWriter::new(io::sink());
                write_layer(&image, None, Style::Overlay, &mut digest, &options)?;
                Ok(())
            })?;
            let bytes = fs::metadata(&path)?.blocks() * 512;
            writeln!(io::stdout(), "{:>12} MB", bytes >> 20)?;
            step("remove the image", || Ok(fs::remove_file(&path)?))?;
        }
    }
    Ok(())
}

fn fill(sink: &impl Sink, tree: Option<&Tree>, layer: &[u8]) -> Result<(), Box<dyn Error>> {
    if let Some(tree) = tree {
        let options = CopyOptions {
            src: "/".to_owned(),
            dest: "/".to_owned(),
            dir_copy_contents: true,
            create_dest_path: true,
            ..CopyOptions::default()
        };
        copy(tree, sink, &options)?;
    } else {
        let mut ignore = |_| {};
        apply_layer(
            sink,
            layer,
            LayerForm::Overlay,
            ApplyOptions::new(&mut ignore),
        )?;
    }
    Ok(())
}

fn make_context(path: &Path, count: usize) -> io::Result<()> {
    fs::create_dir(path)?;
    for index in 0..count {
        let parent = path.join(format!("pkg{:03}/mod{:02}", index / 200, index / 10 % 20));
        if index % 10 == 0 {
            fs::create_dir_all(&parent)?;
        }
        let text = format!("{index}\n").repeat(1024);
        fs::write(
            parent.join(format!("file{index}.py")),
            &text.as_bytes()[..2048],
        )?;
    }
    Ok(())
}

fn step(
    name: &str,
    run: impl FnOnce() -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let (clock, before) = (Instant::now(), cpu()?);
    run()?;
    let after = cpu()?;
    let (user, system) = (after.0 - before.0, after.1 - before.1);
    let clock = clock.elapsed().as_secs_f64();
    writeln!(
        io::stdout(),
        "{name:24} {:5.2} s CPU ({user:.2} user, {system:.2} system), {clock:.2} s",
        user + system
    )?;
    Ok(())
}

/// Returns what this process has used: seconds as a user, and in the kernel.
fn cpu() -> Result<(f64, f64), Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no name of the process")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let seconds = |index: usize| -> Result<f64, Box<dyn Error>> {
        Ok(fields[index].parse::<f64>()? / TICKS_PER_SECOND)
    };
    Ok((seconds(11)?, seconds(12)?))
}
