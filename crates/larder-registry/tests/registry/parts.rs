//! Large blobs that take their time: they come by several requests at once.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use larder_oci::{Descriptor, media_type};
use larder_registry::{Client, ErrorKind, RegistryConfig};
use larder_testkit::{WebAnswer as Answer, WebRequest as Request, WebServer as Server};

use crate::{client, config, fetch};

/// What comes before the server waits to be asked for more. So little makes the smallest parts.
const FIRST_BYTES: usize = 100_000;
const PART_BYTES: u64 = 1 << 20;

fn blob() -> (Vec<u8>, Descriptor) {
    let bytes: Vec<u8> = (0..6_000_000_u32)
        .map(|at| (at.wrapping_mul(at) >> 7) as u8)
        .collect();
    let descriptor = Descriptor::of(media_type::LAYER, &bytes);
    (bytes, descriptor)
}

/// What a server says to a request for a part of a blob.
type Answering = fn(&[u8], Range<usize>) -> Answer;

/// Returns the bytes that a request asks for.
fn range(request: &Request, size: usize) -> Option<Range<usize>> {
    let (first, last) = request
        .header("range")?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    let end = last.parse().map_or(size, |last: usize| last + 1);
    Some(first.parse().unwrap()..end)
}

fn part(bytes: &[u8], range: Range<usize>) -> Answer {
    let (first, last) = (range.start, range.end - 1);
    Answer::status(206)
        .header(
            "Content-Range",
            &format!("bytes {first}-{last}/{}", bytes.len()),
        )
        .body(&bytes[range])
}

/// Starts a server that sends the beginning of `bytes`, and no more until it is asked for what follows.
/// What it answers to that, `answer` says.
fn waiting<F>(bytes: Vec<u8>, answer: F) -> Server
where
    F: Fn(&[u8], Range<usize>) -> Answer + Send + Sync + 'static,
{
    let (barrier, was_asked) = (Arc::new(Barrier::new(2)), AtomicBool::new(false));
    Server::start(move |request, _| {
        let Some(range) = range(request, bytes.len()) else {
            return Answer::status(200)
                .body(&bytes)
                .meet_after(FIRST_BYTES, &barrier);
        };
        if !was_asked.swap(true, Ordering::Relaxed) {
            barrier.wait();
        }
        answer(&bytes, range)
    })
}

#[tokio::test]
async fn what_comes_slowly_is_asked_for_in_parts() {
    let (bytes, descriptor) = blob();
    let size = bytes.len();
    let server = waiting(bytes.clone(), part);
    let fetched = fetch(&client(server.host()), server.host(), &descriptor).await;
    assert!(fetched.unwrap() == bytes);

    let requests = server.requests();
    let mut parts: Vec<_> = requests.iter().filter_map(|it| range(it, size)).collect();
    parts.sort_by_key(|part| part.start);
    assert_eq!(parts.len(), requests.len() - 1);
    assert!(parts.len() > 3, "{parts:?}");
    // The first request's own part ends where the second begins.
    assert!(parts[0].start as u64 <= PART_BYTES + FIRST_BYTES as u64);
    for pair in parts.windows(2) {
        assert_eq!(pair[0].end, pair[1].start);
        assert_eq!(pair[0].len() as u64, PART_BYTES);
    }
    assert_eq!(parts[parts.len() - 1].end, size);
}

#[tokio::test]
async fn parts_that_can_t_be_had_come_with_the_rest() {
    let (bytes, descriptor) = blob();
    let refusals: [Answering; 5] = [
        |bytes, _| Answer::status(200).body(bytes),
        |_, _| Answer::status(416),
        |_, _| Answer::status(429).header("Retry-After", "3600"),
        |bytes, range| part(bytes, 0..range.end),
        |bytes, range| part(bytes, range).cut_after(1000),
    ];
    for refuse in refusals {
        let size = bytes.len();
        let server = waiting(bytes.clone(), move |bytes, range| {
            if range.end == size {
                part(bytes, range)
            } else {
                refuse(bytes, range)
            }
        });
        let fetched = fetch(&client(server.host()), server.host(), &descriptor).await;
        assert!(fetched.unwrap() == bytes);
        let requests = server.requests();
        let last = requests.iter().filter_map(|it| it.header("range"));
        assert_eq!(last.filter(|it| it.ends_with('-')).count(), 1);
    }
}

#[tokio::test]
async fn other_bytes_in_a_part_are_found_out() {
    let (bytes, descriptor) = blob();
    let server = waiting(bytes.clone(), |bytes, range| {
        let mut answer = part(bytes, range);
        answer.body[10] ^= 1;
        answer
    });
    let error = fetch(&client(server.host()), server.host(), &descriptor).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_registry_that_is_asked_for_one_blob_at_once_is_asked_for_one_part() {
    let (bytes, descriptor) = blob();
    let barrier = Arc::new(Barrier::new(2));
    let (body, meeting) = (bytes.clone(), Arc::clone(&barrier));
    let server = Server::start(move |_, _| {
        Answer::status(200)
            .body(&body)
            .meet_after(FIRST_BYTES, &meeting)
    });
    // Longer than the client waits before it would ask for more.
    std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(800));
        barrier.wait();
    });
    let mut config = config(server.host());
    let section = RegistryConfig {
        max_concurrency: Some(1),
        ..config.registries[server.host()].clone()
    };
    config.registries.insert(server.host().to_owned(), section);
    let fetched = fetch(&Client::new(config), server.host(), &descriptor).await;
    assert!(fetched.unwrap() == bytes);
    assert_eq!(server.requests().len(), 1);
}
