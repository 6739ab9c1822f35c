//! The tar format, against GNU tar's and Python's.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use larder_tree::ErrorKind;
use larder_tree::tar::{Header, Kind, Reader, Segment, Writer, Xattrs};
use proptest::prelude::*;
use rustix::fs::Timespec;

use crate::support::{TIME, Tree, archive, has, has_user_xattrs, headers, line, run};

fn args(list: &[&str]) -> Vec<OsString> {
    list.iter().map(OsString::from).collect()
}

fn tar(tree: &Tree, list: &[&str]) -> Vec<u8> {
    let list = args(list);
    let list: Vec<&OsStr> = list.iter().map(OsString::as_os_str).collect();
    run(tree.path(), "tar", &list, b"")
}

/// Headers of every kind that the writer has to treat in its own way.
fn samples() -> Vec<(Header, Vec<u8>)> {
    let with = |path: &str, change: &dyn Fn(&mut Header)| {
        let mut header = Header::file(path, 3);
        change(&mut header);
        (header, b"abc".to_vec())
    };
    let deep = format!("{}/{}", "d".repeat(120), "f".repeat(90));
    let mut samples = vec![
        with("plain", &|_| {}),
        with(&deep, &|_| {}),
        with(&"n".repeat(150), &|_| {}),
        with(&format!("{}/", "n".repeat(99)), &|header| {
            header.kind = Kind::Directory;
        }),
        with("umlaut-ü", &|_| {}),
        with("big-ids", &|header| {
            (header.uid, header.gid) = (3_000_000, u32::MAX);
        }),
        with("before-1970", &|header| header.mtime.tv_sec = -5),
        with("late", &|header| header.mtime.tv_sec = 1 << 40),
        with("modes", &|header| header.mode = 0o7777),
        with("xattrs", &|header| {
            header.xattrs = Xattrs::from([
                (b"user.b".to_vec(), b"2\n=\xff".to_vec()),
                (b"user.a".to_vec(), Vec::new()),
            ]);
        }),
        with(&deep.replace('d', "e"), &|header| {
            header.xattrs = Xattrs::from([(b"user.a".to_vec(), b"1".to_vec())]);
        }),
        with("link", &|header| {
            header.kind = Kind::Symlink("t".repeat(140).into());
        }),
        with("hard", &|header| {
            header.kind = Kind::HardLink("plain".into());
        }),
        with("char", &|header| header.kind = Kind::CharDevice(1, 3)),
        with("block", &|header| {
            header.kind = Kind::BlockDevice(259, 70_000);
        }),
        with("fifo", &|header| header.kind = Kind::Fifo),
    ];
    for (header, data) in &mut samples {
        if header.kind != Kind::File {
            header.size = 0;
            data.clear();
        }
    }
    samples
}

#[test]
fn what_is_written_is_read() {
    let samples = samples();
    let mut writer = Writer::new(Vec::new());
    for (header, data) in &samples {
        writer.append(header).unwrap();
        writer.write_all(data).unwrap();
    }
    let packed = writer.finish().unwrap();
    let mut reader = Reader::new(packed.as_slice());
    for (header, data) in &samples {
        let mut found = reader.next_entry().unwrap().unwrap();
        let path = found.path.into_os_string().into_vec();
        let path = path.strip_suffix(b"/").unwrap_or(&path).to_vec();
        found.path = OsString::from_vec(path).into();
        let mut expect = header.clone();
        expect.path = expect.path.components().collect();
        assert_eq!(found, expect);
        let mut contents = Vec::new();
        reader.contents().read_to_end(&mut contents).unwrap();
        assert_eq!(&contents, data);
    }
    assert_eq!(reader.next_entry().unwrap(), None);
    assert_eq!(reader.next_entry().unwrap(), None);
}

#[test]
fn an_extended_header_is_written_only_where_one_is_needed() {
    let blocks = |header: &Header| {
        let mut writer = Writer::new(Vec::new());
        writer.append(header).unwrap();
        writer.write_all(&vec![0; header.size as usize]).unwrap();
        // Less the blocks of contents and the two at the end.
        writer.finish().unwrap().len() / 512 - header.size.div_ceil(512) as usize - 2
    };
    let expect = |path: &str| match path {
        "plain" | "modes" | "hard" | "char" | "block" | "fifo" => 1,
        // These fit: one fills the field, one can be split.
        path if path.ends_with('/') || path.starts_with("ddd") => 1,
        _ => 3,
    };
    for (header, _) in samples() {
        let path = header.path.to_str().unwrap();
        assert_eq!(blocks(&header), expect(path), "{path}");
    }
}

#[test]
fn headers_that_tar_cannot_hold_are_refused() {
    let check = |header: &Header| {
        let error = Writer::new(Vec::new()).append(header).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    };
    check(&Header::file(OsString::from_vec(b"a\0b".to_vec()), 0));
    check(&Header::file("f", u64::MAX));
    check(&Header::new("c", Kind::CharDevice(1 << 22, 0), 0o644));
    for name in ["user.a=b", "user.a\0b"] {
        let mut header = Header::file("f", 0);
        header.xattrs.insert(name.into(), b"value".to_vec());
        check(&header);
    }
    let mut writer = Writer::new(Vec::new());
    writer.append(&Header::file("f", 2)).unwrap();
    writer.write_all(b"1").unwrap();
    assert!(writer.write_all(b"23").is_err());
    let mut writer = Writer::new(Vec::new());
    writer.append(&Header::file("f", 2)).unwrap();
    assert!(writer.finish().is_err());
}

#[test]
fn gnu_tar_reads_what_we_write() {
    if !has("tar") {
        return;
    }
    let samples: Vec<_> = samples()
        .into_iter()
        .filter(|(header, _)| !header.path.as_os_str().as_bytes().starts_with(b"hard"))
        .collect();
    let entries: Vec<_> = samples
        .iter()
        .map(|(h, data)| (h.clone(), data.as_slice()))
        .collect();
    let tree = Tree::new();
    let list = args(&["-t", "--quoting-style=literal"]);
    let list: Vec<&OsStr> = list.iter().map(OsString::as_os_str).collect();
    let names = run(tree.path(), "tar", &list, &archive(&entries));
    let names: Vec<&[u8]> = names.split(|byte| *byte == b'\n').collect();
    let expect = samples
        .iter()
        .map(|(header, _)| header.path.as_os_str().as_bytes());
    assert_eq!(names[..names.len() - 1], expect.collect::<Vec<_>>());
}

#[test]
fn every_format_of_gnu_tar_is_read() {
    if !has("tar") {
        return;
    }
    let tree = Tree::new();
    tree.file("file", 0o644, vec![7; 1000])
        .symlink("link", "file")
        .link("more", "file");
    for (format, dir_length) in [
        ("v7", 50),
        ("oldgnu", 60),
        ("gnu", 120),
        ("ustar", 90),
        ("posix", 120),
    ] {
        let dir = "d".repeat(dir_length);
        let long = format!("{dir}/{}", "f".repeat(40));
        tree.dir(&dir, 0o755).file(&long, 0o640, "long");
        let packed = tar(&tree, &["-c", "--sort=name", "--format", format, "."]);
        let found = headers(&packed);
        let names: Vec<_> = found.iter().map(|header| header.path.clone()).collect();
        let expect: [PathBuf; 6] = [
            "./".into(),
            format!("./{dir}/").into(),
            format!("./{long}").into(),
            "./file".into(),
            "./link".into(),
            "./more".into(),
        ];
        assert_eq!(names, expect, "{format}");
        assert_eq!(found[2].mode, 0o640);
        assert_eq!(found[3].size, 1000);
        assert_eq!(found[3].mtime.tv_sec, TIME);
        assert_eq!(found[4].kind, Kind::Symlink("file".into()));
        assert_eq!(found[5].kind, Kind::HardLink("./file".into()));
        tree.root().remove_all(&dir).unwrap();
    }
}

#[test]
fn long_and_non_utf8_names_are_read() {
    if !has("tar") {
        return;
    }
    let tree = Tree::new();
    let name = OsString::from_vec(b"latin-\xe4\xf6".to_vec());
    let long = "x".repeat(200);
    let target = "y".repeat(300);
    tree.file(&name, 0o644, "1")
        .file(&long, 0o644, "2")
        .symlink("z", &target);
    for format in ["gnu", "posix"] {
        let found = headers(&tar(&tree, &["-c", "--sort=name", "--format", format, "."]));
        let names: Vec<_> = found
            .iter()
            .skip(1)
            .map(|header| header.path.clone())
            .collect();
        let expect = [
            PathBuf::from(".").join(&name),
            format!("./{long}").into(),
            "./z".into(),
        ];
        assert_eq!(names, expect, "{format}");
        assert_eq!(found[3].kind, Kind::Symlink(target.clone().into()));
    }
}

#[test]
fn nanoseconds_and_attributes_are_read_from_pax() {
    if !has("tar") || !has_user_xattrs() {
        return;
    }
    let tree = Tree::new();
    tree.file("f", 0o644, "").xattr("f", "user.key", b"a\0=\nb");
    let packed = tar(
        &tree,
        &[
            "-c",
            "--format=posix",
            "--xattrs",
            "--mtime=@1700000000.123456789",
            "f",
        ],
    );
    let found = headers(&packed);
    let time = Timespec {
        tv_sec: TIME,
        tv_nsec: 123_456_789,
    };
    assert_eq!(found[0].mtime, time);
    let expect = Xattrs::from([(b"user.key".to_vec(), b"a\0=\nb".to_vec())]);
    assert_eq!(found[0].xattrs, expect);
}

#[test]
fn every_sparse_format_is_read() {
    if !has("tar") {
        return;
    }
    let tree = Tree::new();
    let file = std::fs::File::create(tree.path().join("sparse")).unwrap();
    let offsets = (0..40).map(|at| 65_536 * (2 * at + 1));
    for offset in offsets {
        file.write_all_at(&[b'x'; 5000], offset).unwrap();
    }
    file.set_len(65_536 * 100).unwrap();
    let expect = std::fs::read(tree.path().join("sparse")).unwrap();
    for format in [
        &["--format=oldgnu"][..],
        &["--format=gnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let list = [&["-c", "-S", "sparse"], format].concat();
        let packed = [tar(&tree, &list)].concat();
        assert!(packed.len() < 600_000, "{format:?}: not sparse");
        let mut reader = Reader::new(packed.as_slice());
        let header = reader.next_entry().unwrap().unwrap();
        assert_eq!(header.path, PathBuf::from("sparse"), "{format:?}");
        assert_eq!(header.size, expect.len() as u64);
        assert!(reader.segments().len() >= 40);
        let mut contents = Vec::new();
        reader.contents().read_to_end(&mut contents).unwrap();
        assert!(contents == expect, "{format:?}: contents differ");
        assert_eq!(reader.next_entry().unwrap(), None);
    }
}

#[test]
fn tars_of_python_are_read_and_ours_by_python() {
    if !has("python3") {
        return;
    }
    let tree = Tree::new();
    let script = "
import io, sys, tarfile
for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w', format=form) as tar:
        info = tarfile.TarInfo('a/' * 45 + 'file')
        info.size, info.mtime, info.mode, info.uid = 5, 1700000000, 0o604, 1000
        tar.addfile(info, io.BytesIO(b'hello'))
    open(f'{form}.tar', 'wb').write(out.getvalue())
tar = tarfile.open(fileobj=sys.stdin.buffer, mode='r|')
for info in tar:
    size = len(tar.extractfile(info).read()) if info.isreg() else 0
    link = f' -> {info.linkname}' if info.linkname else ''
    owner = f'{info.uid}:{info.gid}'
    print(info.type.decode(), f'{info.mode:o}', owner, size, int(info.mtime), info.name + link)
";
    let samples = samples();
    let entries: Vec<_> = samples
        .iter()
        .map(|(h, data)| (h.clone(), data.as_slice()))
        .collect();
    let args = [OsStr::new("-c"), OsStr::new(script)];
    let listed = run(tree.path(), "python3", &args, &archive(&entries));
    let listed = String::from_utf8(listed).unwrap();
    let expect: String = samples.iter().map(|(header, _)| line(header)).collect();
    assert_eq!(listed, expect);
    for format in 0..3 {
        let packed = std::fs::read(tree.path().join(format!("{format}.tar"))).unwrap();
        let mut reader = Reader::new(packed.as_slice());
        let header = reader.next_entry().unwrap().unwrap();
        assert_eq!(header.path, PathBuf::from("a/".repeat(45) + "file"));
        assert_eq!((header.mode, header.uid, header.size), (0o604, 1000, 5));
        assert_eq!(reader.next_entry().unwrap(), None);
    }
}

#[test]
fn archives_cut_short_are_errors() {
    let samples = samples();
    let entries: Vec<_> = samples
        .iter()
        .map(|(h, data)| (h.clone(), data.as_slice()))
        .collect();
    let packed = archive(&entries);
    let read_all = |bytes: &[u8]| -> larder_tree::Result<usize> {
        let mut reader = Reader::new(bytes);
        let mut count = 0;
        while reader.next_entry()?.is_some() {
            count += 1;
        }
        Ok(count)
    };
    assert_eq!(read_all(&packed).unwrap(), samples.len());
    let mut ends = 0;
    for length in (0..packed.len()).step_by(64) {
        match read_all(&packed[..length]) {
            // Between two entries the archive could end.
            Ok(_) => {
                ends += 1;
                assert_eq!(length % 512, 0, "{length}");
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}"),
        }
    }
    assert!(ends <= 2 * samples.len());
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(
        changes in prop::collection::vec((0..24_000_usize, any::<u8>()), 1..30),
        fix_checksums in any::<bool>(),
    ) {
        let samples = samples();
        let entries: Vec<_> = samples.iter().map(|(h, data)| (h.clone(), data.as_slice())).collect();
        let mut packed = archive(&entries);
        for (at, byte) in changes {
            let at = at % packed.len();
            packed[at] = byte;
            let block = at - at % 512;
            if fix_checksums {
                let flag = packed[block + 156];
                retype(&mut packed[block..], flag);
            }
        }
        let mut reader = Reader::new(packed.as_slice());
        while let Ok(Some(header)) = reader.next_entry() {
            if header.size < 1 << 20 {
                let _ = std::io::copy(&mut reader.contents(), &mut std::io::sink());
            }
        }
    }
}

#[test]
fn what_is_no_tar_is_an_error() {
    let check = |bytes: &[u8], kind: ErrorKind| {
        let mut reader = Reader::new(bytes);
        let error = loop {
            match reader.next_entry() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("taken for an archive"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), kind, "{error}");
    };
    check(&[b'x'; 1024], ErrorKind::InvalidInput);
    check(b"short", ErrorKind::InvalidInput);
    let mut packed = archive(&[(Header::file("f", 0), b"")]);
    // A lone block of zeros, then another header.
    let again = [vec![0; 512], packed.clone()].concat();
    check(&again, ErrorKind::InvalidInput);
    packed[0] = b'g';
    check(&packed, ErrorKind::InvalidInput);
    // An extended header beyond all reason.
    let mut huge = Header::file("f", 2 << 20);
    huge.kind = Kind::File;
    let mut writer = Writer::new(Vec::new());
    writer.append(&huge).unwrap();
    writer.write_all(&vec![b'x'; 2 << 20]).unwrap();
    let mut packed = writer.finish().unwrap();
    retype(&mut packed, b'x');
    check(&packed, ErrorKind::LimitExceeded);
    retype(&mut packed, b'M');
    check(&packed, ErrorKind::Unsupported);
}

/// Changes the type of the first entry.
fn retype(packed: &mut [u8], flag: u8) {
    packed[156] = flag;
    packed[148..156].fill(b' ');
    let sum: u32 = packed[..512].iter().map(|byte| u32::from(*byte)).sum();
    packed[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn hostile_sparse_maps_are_refused() {
    let pax_file = |records: &str, data: &[u8]| {
        let mut header = Header::file("x", records.len() as u64);
        header.mode = 0;
        let mut packed = archive(&[(header, records.as_bytes()), (Header::file("f", 0), data)]);
        retype(&mut packed, b'x');
        packed
    };
    let record = |key: &str, value: &str| {
        let body = format!(" {key}={value}\n");
        let length = body.len() + 2;
        assert!(length > 9 && length < 100);
        format!("{length}{body}")
    };
    let map =
        |map: &str, size: &str| record("GNU.sparse.map", map) + &record("GNU.sparse.size", size);
    for (records, kind) in [
        (map("0,3", "3"), None),
        (map("1,1,2,1", "9"), None),
        (map("0,4", "3"), Some(ErrorKind::InvalidInput)),
        (map("2,1,1,1", "9"), Some(ErrorKind::InvalidInput)),
        (map("0,9", "9"), Some(ErrorKind::InvalidInput)),
        (map("0", "9"), Some(ErrorKind::InvalidInput)),
        (map("0,-1", "9"), Some(ErrorKind::InvalidInput)),
        (
            map("18446744073709551615,2", "9"),
            Some(ErrorKind::InvalidInput),
        ),
        (
            map("0,3", "9999999999999999"),
            Some(ErrorKind::LimitExceeded),
        ),
        (
            record("GNU.sparse.map", "0,3"),
            Some(ErrorKind::InvalidInput),
        ),
        (
            record("GNU.sparse.major", "1") + &record("GNU.sparse.realsize", "9"),
            Some(ErrorKind::InvalidInput),
        ),
    ] {
        let packed = pax_file(&records, b"abc");
        let result = Reader::new(packed.as_slice()).next_entry();
        assert_eq!(result.err().map(|error| error.kind()), kind, "{records}");
    }
    let packed = pax_file(&map("1,1,3,1", "5"), b"ab");
    let mut reader = Reader::new(packed.as_slice());
    reader.next_entry().unwrap();
    let segment = |offset| Segment { offset, length: 1 };
    assert_eq!(reader.segments(), [segment(1), segment(3)]);
    let mut contents = Vec::new();
    reader.contents().read_to_end(&mut contents).unwrap();
    assert_eq!(contents, b"\0a\0b\0");
}
