//! Compressed streams, against the tools that others read them with.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use larder_oci::Digest;
use larder_tree::ErrorKind;
use larder_tree::compression::{
    ChunkCache, ChunkKey, Compression, Decoder, Encoder, Format, KnownChunk, LayerEncoder, Mark,
    Threads,
};

use crate::support::{Tree, has, run};

/// Text that compresses about as well as a layer does.
fn sample(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let word = (state >> 33) % 1500;
        bytes.extend_from_slice(format!("word{word} ").as_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(step).collect()
}

fn encode(input: &[u8], compression: Compression, threads: usize, write_size: usize) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), compression, threads).unwrap();
    for part in input.chunks(write_size) {
        encoder.write_all(part).unwrap();
    }
    encoder.finish().unwrap()
}

fn decode(packed: &[u8]) -> (Format, larder_tree::Result<Vec<u8>>) {
    let mut decoder = Decoder::new(packed).unwrap();
    let mut output = Vec::new();
    let result = decoder.read_to_end(&mut output);
    let result = result.map_err(|error| larder_tree::Error::io("cannot decode", error));
    (decoder.format(), result.map(|_| output))
}

#[test]
fn output_depends_on_the_input_alone() {
    let input = sample(3 << 20);
    for compression in [
        Compression::gzip(),
        Compression::Gzip { level: Some(1) },
        Compression::zstd(),
    ] {
        let packed = encode(&input, compression, 1, usize::MAX);
        assert!(packed.len() < input.len() / 2);
        for (threads, write_size) in [(1, 4096), (2, 100_000), (5, 1 << 20)] {
            let again = encode(&input, compression, threads, write_size);
            assert!(again == packed, "{compression:?} with {threads} threads");
        }
        let (_, output) = decode(&packed);
        assert!(output.unwrap() == input);
    }
}

#[test]
fn streams_of_any_length_come_back() {
    for length in [0, 1, 511, 128 << 10, (512 << 10) + 1] {
        let input = sample(length);
        for (compression, format) in [
            (Compression::gzip(), Format::Gzip),
            (Compression::Gzip { level: Some(0) }, Format::Gzip),
            (Compression::Gzip { level: Some(9) }, Format::Gzip),
            (Compression::zstd(), Format::Zstd),
            (Compression::Uncompressed, Format::Plain),
        ] {
            let (found, output) = decode(&encode(&input, compression, 2, 70_000));
            assert_eq!(found, format);
            assert!(output.unwrap() == input, "{compression:?} of {length}");
        }
    }
}

#[test]
fn other_tools_read_our_gzip() {
    if !has("gzip") || !has("python3") {
        return;
    }
    let tree = Tree::new();
    tree.dir("d", 0o755)
        .file("d/f", 0o644, sample(2 << 20))
        .file("g", 0o644, "end");
    let layer = tree.layer(None, larder_tree::diff::Style::Tree);
    let packed = encode(&layer, Compression::gzip(), 2, 1 << 16);
    run(tree.path(), "gzip", &[OsStr::new("-t")], &packed);
    let script = "
import sys, tarfile
tar = tarfile.open(fileobj=sys.stdin.buffer, mode='r|gz')
for info in tar:
    print(info.name, len(tar.extractfile(info).read()) if info.isreg() else '-')
";
    let args = [OsStr::new("-c"), OsStr::new(script)];
    let listed = run(tree.path(), "python3", &args, &packed);
    assert_eq!(
        String::from_utf8(listed).unwrap(),
        "d -\nd/f 2097152\ng 3\n"
    );
}

#[test]
fn every_format_is_recognised_and_decoded() {
    let input = sample(300_000);
    let tree = Tree::new();
    for (program, format) in [
        ("gzip", Format::Gzip),
        ("bzip2", Format::Bzip2),
        ("xz", Format::Xz),
        ("zstd", Format::Zstd),
    ] {
        if !has(program) {
            continue;
        }
        let packed = run(tree.path(), program, &[OsStr::new("-c")], &input);
        let (found, output) = decode(&packed);
        assert_eq!(found, format);
        assert!(output.unwrap() == input, "{program}");
        // Several streams one after the other are one.
        let (_, output) = decode(&packed.repeat(2));
        assert!(output.unwrap() == input.repeat(2), "{program}");
        for length in [packed.len() / 2, packed.len() - 1] {
            let error = decode(&packed[..length]).1.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{program}: {error}");
        }
        let mut corrupt = packed.clone();
        let middle = corrupt.len() / 2;
        for byte in &mut corrupt[middle..middle + 8] {
            *byte ^= 0x55;
        }
        let error = decode(&corrupt).1.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{program}: {error}");
    }
}

#[test]
fn a_stream_that_unpacks_to_too_much_is_refused() {
    let packed = encode(&vec![0; 4 << 20], Compression::gzip(), 1, 1 << 20);
    assert!(packed.len() < 20_000);
    let mut decoder = Decoder::new(packed.as_slice()).unwrap().with_limit(1 << 20);
    let error = std::io::copy(&mut decoder, &mut std::io::sink()).unwrap_err();
    let error = larder_tree::Error::io("cannot decode", error);
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn errors_of_the_stream_itself_stay_what_they_are() {
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
            if self.0 == head.len() {
                return Err(std::io::Error::from_raw_os_error(5));
            }
            buffer[0] = head[self.0];
            self.0 += 1;
            Ok(1)
        }
    }
    let mut decoder = Decoder::new(Broken(0)).unwrap();
    assert_eq!(decoder.format(), Format::Gzip);
    let error = decoder.read(&mut [0; 10]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5));
}

/// Keeps what was packed, as a store does.
#[derive(Default)]
struct Cache {
    streams: Mutex<Vec<Vec<u8>>>,
    chunks: Mutex<HashMap<ChunkKey, (u32, Range<u64>)>>,
    marks: Mutex<HashMap<(u32, u64), Mark>>,
    written: Mutex<Vec<(ChunkKey, Range<u64>)>>,
    marked: Mutex<Vec<(u64, Mark)>>,
    misses: AtomicUsize,
    used_marks: AtomicUsize,
}

impl ChunkCache for Cache {
    fn get(&self, key: &ChunkKey) -> Option<KnownChunk> {
        let known = self.chunks.lock().unwrap().get(key).cloned();
        let missed = usize::from(known.is_none());
        self.misses.fetch_add(missed, Ordering::Relaxed);
        let (stream, place) = known?;
        let streams = self.streams.lock().unwrap();
        let bytes = &streams[stream as usize][place.start as usize..place.end as usize];
        Some(KnownChunk {
            bytes: bytes.to_vec(),
            stream,
            offset: place.start,
        })
    }

    fn written(&self, key: &ChunkKey, place: Range<u64>) {
        self.written.lock().unwrap().push((*key, place));
    }

    fn mark(&self, stream: u32, end: u64) -> Option<Mark> {
        let mark = self.marks.lock().unwrap().get(&(stream, end)).cloned();
        let used = usize::from(mark.is_some());
        self.used_marks.fetch_add(used, Ordering::Relaxed);
        mark
    }

    fn marked(&self, end: u64, mark: Mark) {
        self.marked.lock().unwrap().push((end, mark));
    }
}

impl Cache {
    /// Packs a layer, checks all that is said of it, and keeps it. Returns how many chunks were
    /// not known, and how many marks were used.
    fn pack(self: &Arc<Self>, input: &[u8], compression: Compression) -> (Vec<u8>, usize, usize) {
        let shared: Arc<dyn ChunkCache> = self.clone();
        let threads = Threads::new(2);
        let mut encoder = LayerEncoder::new(Vec::new(), compression, &threads, &shared).unwrap();
        encoder.write_all(input).unwrap();
        let layer = encoder.finish().unwrap();
        assert_eq!(layer.digest, Digest::sha256(&layer.out));
        assert_eq!(layer.size_bytes, layer.out.len() as u64);
        assert_eq!(layer.diff_id, Digest::sha256(input));
        assert_eq!(layer.tar_bytes, input.len() as u64);
        assert!(decode(&layer.out).1.unwrap() == input);
        let mut streams = self.streams.lock().unwrap();
        let number = streams.len() as u32;
        streams.push(layer.out.clone());
        let mut chunks = self.chunks.lock().unwrap();
        // What is repeated is known by its first place.
        for (key, place) in self.written.lock().unwrap().drain(..).rev() {
            chunks.insert(key, (number, place));
        }
        for (end, mark) in self.marked.lock().unwrap().drain(..) {
            self.marks.lock().unwrap().insert((number, end), mark);
        }
        let counts = [&self.misses, &self.used_marks];
        let [misses, used_marks] = counts.map(|count| count.swap(0, Ordering::Relaxed));
        (layer.out, misses, used_marks)
    }
}

#[test]
fn known_chunks_are_not_compressed_again() {
    for compression in [Compression::gzip(), Compression::zstd()] {
        let cache = Arc::new(Cache::default());
        let input = sample(4 << 20);
        let (first, misses, _) = cache.pack(&input, compression);
        assert!(misses >= 8);
        let (again, misses, _) = cache.pack(&input, compression);
        assert!(again == first);
        assert_eq!(misses, 0);
        assert!(first == encode(&input, compression, 1, usize::MAX));
        let mut changed = input.clone();
        changed.splice(1_000_000..1_000_000, *b"inserted");
        let (_, misses, _) = cache.pack(&changed, compression);
        assert!(misses <= 3);
    }
}

#[test]
fn what_a_layer_begins_with_like_another_is_not_hashed_again() {
    let input = [noise(20 << 20, 1), sample(1 << 20)].concat();
    // How many marks of one layer the next one uses.
    let used = |first: &[u8], second: &[u8]| {
        let cache = Arc::new(Cache::default());
        assert_eq!(cache.pack(first, Compression::gzip()).2, 0);
        cache.pack(second, Compression::gzip()).2
    };
    assert_eq!(used(&input, &input), 2);
    let changed_at = |at: usize| {
        let mut changed = input.clone();
        changed[at] ^= 1;
        changed
    };
    assert_eq!(used(&input, &changed_at(12 << 20)), 1);
    assert_eq!(used(&input, &changed_at(0)), 0);
    assert_eq!(used(&input, &input[..18 << 20]), 2);
    assert_eq!(used(&input, &[&input[..], b"more"].concat()), 2);
    assert_eq!(used(&input, &input[1 << 20..]), 0);
    // What is repeated stands where it did not stand before.
    let twice = [&input[..10 << 20], &input[..10 << 20]].concat();
    assert_eq!(used(&twice, &twice), 1);
    let zeros = vec![0; 9 << 20];
    assert_eq!(used(&zeros, &zeros), 0);
}

#[test]
fn layers_that_share_parts_get_their_own_digests() {
    let cache = Arc::new(Cache::default());
    let (a, b) = (noise(10 << 20, 1), noise(10 << 20, 2));
    for layer in [
        [&a[..], &b].concat(),
        [&b[..], &a].concat(),
        [&a[..], &b].concat(),
        [&a[..], &a, &b].concat(),
        [&a[..], &b[..9 << 20], &a[1 << 20..]].concat(),
        [&a[..], &b].concat(),
    ] {
        cache.pack(&layer, Compression::gzip());
    }
    // Without marks nothing is held back for ever.
    cache.marks.lock().unwrap().clear();
    let (_, misses, used) = cache.pack(&[&a[..], &b, &a, &b].concat(), Compression::gzip());
    assert!(misses <= 4, "{misses}");
    assert_eq!(used, 0);
}

#[test]
fn levels_out_of_range_are_refused() {
    let error = Encoder::new(Vec::new(), Compression::Gzip { level: Some(10) }, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
