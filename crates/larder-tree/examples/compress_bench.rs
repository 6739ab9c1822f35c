//! Compresses the files beneath the given directories, as one stream, and says how fast.
//!
//! `cargo run --release -p larder-tree --example compress_bench -- [--threads N] DIR...`
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement for developers"
)]

use std::io::{self, Write};
use std::path::Path;

use larder_tree::compression::{Compression, Encoder};

/// As much as is read.
const MAX_BYTES: usize = 512 << 20;

fn main() {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let mut threads = 1;
    if args.first().is_some_and(|arg| arg == "--threads") {
        threads = args[1].parse().unwrap();
        args.drain(..2);
    }
    let mut input = Vec::new();
    for dir in &args {
        read_all(dir.as_ref(), &mut input);
    }
    println!("{:28} {:>9} {:>8}", "compression", "MB/CPU-s", "ratio %");
    for compression in [
        Compression::gzip(),
        Compression::Gzip { level: Some(1) },
        Compression::Gzip { level: Some(2) },
        Compression::Gzip { level: Some(6) },
        Compression::zstd(),
        Compression::Zstd { level: 3 },
    ] {
        let mut best = f64::MAX;
        let cpu = || {
            let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
        };
        let mut packed_bytes = 0;
        for _ in 0..2 {
            let start = cpu();
            let mut encoder = Encoder::new(Count(0), compression, threads).unwrap();
            encoder.write_all(&input).unwrap();
            packed_bytes = encoder.finish().unwrap().0;
            best = best.min(cpu() - start);
        }
        println!(
            "{:28} {:>9.0} {:>8.2}",
            format!("{compression:?}"),
            input.len() as f64 / 1e6 / best,
            packed_bytes as f64 * 100.0 / input.len() as f64
        );
    }
}

fn read_all(path: &Path, input: &mut Vec<u8>) {
    if path.is_dir() && !path.is_symlink() {
        let entries = fs_err::read_dir(path).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in &paths {
            read_all(path, input);
        }
    } else if path.is_file() && !path.is_symlink() && input.len() < MAX_BYTES {
        input.extend(fs_err::read(path).unwrap_or_default());
        input.truncate(MAX_BYTES);
    }
}

struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
