use std::io::{Read, Write};

use larder_store::ErrorKind;

use crate::support::{TestStore, digest, leftovers};

#[test]
fn a_blob_is_stored_under_its_digest() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let name = lease.put_blob(b"hello").unwrap();
    assert_eq!(name, digest("hello"));
    assert_eq!(lease.put_blob(b"hello").unwrap(), name);
    assert!(store.has_blob(&name).unwrap());
    assert_eq!(store.read_blob(&name, 5).unwrap(), b"hello");
    assert_eq!(
        store.read_blob(&name, 4).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    let mut text = String::new();
    store
        .open_blob(&name)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "hello");
    lease.release().unwrap();
    assert_eq!(leftovers(&store), Vec::<String>::new());
    store.assert_sound();
}

#[test]
fn a_missing_blob_is_not_found() {
    let store = TestStore::new();
    let absent = digest("absent");
    assert!(!store.has_blob(&absent).unwrap());
    assert_eq!(
        store.open_blob(&absent).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert!(!store.lease().unwrap().hold_blobs(&[absent]).unwrap());
}

#[test]
fn other_bytes_than_expected_are_refused_and_dropped() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    for arrived in ["hellO", "hell", "hello!"] {
        let mut writer = lease.blob_writer(Some((digest("hello"), 5))).unwrap();
        assert_eq!(writer.offset(), 0, "{arrived}");
        let kind = match writer.write_all(arrived.as_bytes()) {
            Ok(()) => writer.commit().unwrap_err().kind(),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
                writer.restart().unwrap();
                ErrorKind::Corrupt
            }
        };
        assert_eq!(kind, ErrorKind::Corrupt, "{arrived}");
        assert!(!store.has_blob(&digest("hello")).unwrap());
    }
    drop(lease);
    assert_eq!(leftovers(&store), Vec::<String>::new());
}

#[test]
fn a_broken_download_goes_on_where_it_ended() {
    let store = TestStore::new();
    let expected = Some((digest("hello"), 5));
    let mut first = store
        .lease()
        .unwrap()
        .blob_writer(expected.clone())
        .unwrap();
    first.write_all(b"hel").unwrap();
    drop(first);

    let other = store.again();
    let lease = other.lease().unwrap();
    let mut second = lease.blob_writer(expected.clone()).unwrap();
    assert_eq!(second.offset(), 3);
    let third = lease.blob_writer(expected).unwrap();
    assert_eq!(third.offset(), 0, "only one resumes");
    second.write_all(b"lo").unwrap();
    assert_eq!(second.commit().unwrap(), digest("hello"));
    assert_eq!(store.read_blob(&digest("hello"), 5).unwrap(), b"hello");
}

#[test]
fn many_may_write_the_same_blob() {
    let store = TestStore::new();
    let bytes = vec![7; 1 << 20];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let store = store.again();
            let bytes = &bytes;
            scope.spawn(move || {
                let lease = store.lease().unwrap();
                let expected = (larder_oci::Digest::sha256(bytes), bytes.len() as u64);
                let mut writer = lease.blob_writer(Some(expected)).unwrap();
                let offset = writer.offset() as usize;
                writer.write_all(&bytes[offset..]).unwrap();
                writer.commit().unwrap();
            });
        }
    });
    assert!(store.has_blob(&larder_oci::Digest::sha256(&bytes)).unwrap());
    assert_eq!(leftovers(&store), Vec::<String>::new());
    store.assert_sound();
}

#[test]
fn damage_is_noticed_when_a_blob_is_read_whole() {
    let store = TestStore::new();
    let name = store.lease().unwrap().put_blob(b"hello").unwrap();
    std::fs::write(store.root().join("blobs/sha256").join(name.hex()), "hellO").unwrap();
    assert_eq!(
        store.read_blob(&name, 9).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

#[test]
fn old_rests_of_downloads_are_swept() {
    let store = TestStore::new();
    let mut writer = store
        .lease()
        .unwrap()
        .blob_writer(Some((digest("hello"), 5)))
        .unwrap();
    writer.write_all(b"hel").unwrap();
    drop(writer);
    let partial = store.root().join("partial").join(digest("hello").hex());
    // The clock of the test stands in 2023, before the file was written.
    store.sweep().unwrap();
    assert!(partial.exists());
    store.advance(crate::support::DAY * 365 * 30);
    store.sweep().unwrap();
    assert!(!partial.exists());
}
