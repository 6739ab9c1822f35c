//! Times scans, digests and copies of a build context.
//!
//! `cargo run --release --example context_bench [FILES]` makes a context of that many files
//! (50,000 by default), 2 KB each, ten to a directory, and prints what each step takes.

use std::error::Error;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Instant;

use larder_tree::beneath::Root;
use larder_tree::checksum::{Manifest, content_digest};
use larder_tree::context::{ScanOptions, StatCache, Tree, scan};
use larder_tree::copy::{CopyOptions, copy};

fn main() -> Result<(), Box<dyn Error>> {
    let count = match std::env::args().nth(1) {
        Some(argument) => argument.parse()?,
        None => 50_000,
    };
    let dir = tempfile::tempdir_in(std::env::var_os("BENCH_DIR").unwrap_or("/tmp".into()))?;
    let (context, cache_file) = (dir.path().join("context"), dir.path().join("cache"));
    fs::create_dir(&context)?;
    for index in 0..count {
        let parent = context.join(format!("pkg{:03}/mod{:02}", index / 200, index / 10 % 20));
        if index % 10 == 0 {
            fs::create_dir_all(&parent)?;
        }
        let text = format!("{index}\n").repeat(1024);
        fs::write(
            parent.join(format!("file{index}.py")),
            &text.as_bytes()[..2048],
        )?;
    }

    let excludes = ["**/node_modules", "**/*.pyc", "*.md", ".git", "!keep.md"].map(str::to_owned);
    let options = ScanOptions {
        excludes: &excludes,
        started_at_nanos: i64::MAX,
        ..ScanOptions::default()
    };
    let root = || Root::open(&context);
    for name in ["cold", "warm", "warm again"] {
        let cache = step(&format!("{name}: load cache"), || {
            Ok(StatCache::load(&cache_file))
        })?;
        let tree = step(&format!("{name}: scan"), || scan(root()?, &options, cache))?;
        step(&format!("{name}: digest"), || content_digest(&tree, &[]))?;
        let cache = step(&format!("{name}: updated cache"), || {
            Ok(tree.updated_cache())
        })?;
        if let Some(cache) = cache {
            step(&format!("{name}: save cache"), || cache.save(&cache_file))?;
        }
        if name == "warm again" {
            let manifest = step("manifest", || Manifest::of(&tree, &[]))?;
            let encoded = step("manifest: encode", || Ok(manifest.encode()))?;
            writeln!(io::stdout(), "manifest: {} bytes", encoded.len())?;
            copy_to(&dir.path().join("out"), &tree)?;
        }
    }
    let view = Tree::view(Root::open(&dir.path().join("out"))?)?;
    step("view: list and digest", || content_digest(&view, &[]))?;
    Ok(())
}

fn copy_to(path: &Path, tree: &Tree) -> Result<(), Box<dyn Error>> {
    fs::create_dir(path)?;
    let destination = Root::open(path)?;
    let options = CopyOptions {
        src: "/".to_owned(),
        dest: "/".to_owned(),
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        ..CopyOptions::default()
    };
    let stats = step("copy", || copy(tree, &destination, &options))?;
    writeln!(io::stdout(), "{stats:?}")?;
    Ok(())
}

/// Runs `work` and prints its wall and processor time.
fn step<T>(name: &str, work: impl FnOnce() -> larder_tree::Result<T>) -> Result<T, Box<dyn Error>> {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let result = work()?;
    let wall = start.elapsed().as_secs_f64() * 1e3;
    let cpu = (cpu_seconds() - cpu) * 1e3;
    writeln!(
        io::stdout(),
        "{name:24} {wall:9.2} ms wall {cpu:9.2} ms cpu"
    )?;
    Ok(result)
}

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
