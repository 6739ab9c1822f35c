//! Packs a directory as a gzip layer, as an export does, and says how long that took: from
//! nothing, and with all of its chunks known.
//!
//! `cargo run --release -p larder-tree --example layer_bench -- DIR FILE`
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement for developers"
)]

use std::collections::HashMap;
use std::ops::Range;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use fs_err::File;
use larder_oci::Digest;
use larder_tree::beneath::Root;
use larder_tree::bulk::{BulkFile, BulkSource};
use larder_tree::compression::{
    ChunkCache, ChunkKey, Compression, KnownChunk, LayerEncoder, Mark, Threads,
};
use larder_tree::diff::{LayerOptions, Style, write_layer};
use rustix::time::{ClockId, clock_gettime};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, file] = &args[..] else {
        panic!("usage: layer_bench DIR FILE");
    };
    let threads = Threads::new(std::thread::available_parallelism().unwrap().get());
    println!("{:12} {:>8} {:>8} {:>8}", "run", "s", "CPU s", "MB out");
    let chunks = Arc::new(Chunks::default());
    let mut first = None;
    for run in ["first", "all known"] {
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let (digest, bytes) = pack(dir.as_ref(), file.as_ref(), &threads, &chunks);
        println!(
            "{run:12} {:>8.2} {:>8.2} {:>8.0}",
            start.elapsed().as_secs_f64(),
            cpu_seconds() - cpu,
            bytes as f64 / 1e6
        );
        assert_eq!(*first.get_or_insert_with(|| digest.clone()), digest);
        chunks.keep(file.as_ref());
    }
}

/// Returns the digest and the length of the blob.
fn pack(dir: &Path, file: &Path, threads: &Threads, chunks: &Arc<Chunks>) -> (Digest, u64) {
    let new = file.with_extension("new");
    let out = BulkFile::new(File::create(&new).unwrap().into_parts().0, 0);
    let cache: Arc<dyn ChunkCache> = chunks.clone();
    let mut layer = LayerEncoder::new(out, Compression::gzip(), threads, &cache).unwrap();
    let root = Root::open(dir).unwrap();
    let options = LayerOptions::default();
    write_layer(&root, None, Style::Tree, &mut layer, &options).unwrap();
    let layer = layer.finish().unwrap();
    drop(layer.out);
    fs_err::rename(new, file).unwrap();
    (layer.digest, layer.size_bytes)
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// The chunks of the last run.
#[derive(Default)]
struct Chunks {
    known: Mutex<HashMap<ChunkKey, Range<u64>>>,
    marks: Mutex<HashMap<u64, Mark>>,
    written: Mutex<HashMap<ChunkKey, Range<u64>>>,
    marked: Mutex<HashMap<u64, Mark>>,
    file: Mutex<Option<Arc<BulkSource>>>,
}

impl Chunks {
    fn keep(&self, file: &Path) {
        *self.known.lock().unwrap() = std::mem::take(&mut self.written.lock().unwrap());
        *self.marks.lock().unwrap() = std::mem::take(&mut self.marked.lock().unwrap());
        *self.file.lock().unwrap() = {
            let file = File::open(file).unwrap().into_parts().0;
            Some(Arc::new(BulkSource::new(file)))
        };
    }
}

impl ChunkCache for Chunks {
    fn get(&self, key: &ChunkKey) -> Option<KnownChunk> {
        let place = self.known.lock().unwrap().get(key)?.clone();
        let file = self.file.lock().unwrap().clone()?;
        let length = (place.end - place.start) as usize;
        Some(KnownChunk {
            bytes: file.read_at(place.start, length).ok()?,
            stream: 0,
            offset: place.start,
        })
    }

    fn written(&self, key: &ChunkKey, place: Range<u64>) {
        self.written.lock().unwrap().insert(*key, place);
    }

    fn mark(&self, _stream: u32, end: u64) -> Option<Mark> {
        self.marks.lock().unwrap().get(&end).cloned()
    }

    fn marked(&self, end: u64, mark: Mark) {
        self.marked.lock().unwrap().insert(end, mark);
    }
}
