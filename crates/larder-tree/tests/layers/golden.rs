//! Layers must be, to the byte, what BuildKit makes of the same trees.

use larder_oci::Digest;
use larder_tree::diff::Style;
use rustix::fs::FileType;

use crate::support::{Tree, is_root, listing};

const LAYERS: &str = include_str!("../golden/layers.txt");
const PACK: &[u8] = include_bytes!("../golden/pack.tar.gz");

struct Golden<'a> {
    case: &'a str,
    digest: &'a str,
    length: usize,
    entries: Vec<&'a str>,
}

fn goldens() -> Vec<Golden<'static>> {
    let mut goldens = Vec::new();
    let mut lines = LAYERS.lines().skip(2).peekable();
    while let Some(line) = lines.next() {
        let case = line.strip_prefix("# ").unwrap();
        let (digest, length) = lines.next().unwrap().split_once(' ').unwrap();
        let mut entries = Vec::new();
        while let Some(entry) = lines.next_if(|line| !line.starts_with('#')) {
            entries.push(entry);
        }
        let length = length.strip_suffix(" bytes").unwrap().parse().unwrap();
        goldens.push(Golden {
            case,
            digest,
            length,
            entries,
        });
    }
    goldens
}

fn contents(case: &str, path: &str) -> Vec<u8> {
    let text = match (case, path) {
        (_, "raw/pack.tar.gz") => return PACK.to_vec(),
        (_, path) if path.ends_with("data.bin") => return vec![b'D'; 5000],
        ("run-chain", "one") | ("add-tar", "un/in/one") => "1",
        ("run-chain", "two") => "2",
        ("add-tar", "un/in/two") => "22",
        ("run-chain", "d/x") => "3",
        ("run-chain", "d/y") => "4",
        ("run-links", "h1") => "x",
        ("guide", "installed") => "one==1\ntwo==2",
        ("copy-chown-chmod", "a") => "alpha",
        (_, path) => match path.rsplit('/').next().unwrap() {
            "a.txt" => "alpha",
            "b.txt" => "beta",
            "requirements.txt" => "one==1\ntwo==2",
            "run.sh" => "#!/bin/sh\necho run",
            "util.py" => "x = 1",
            "main.py" => "print(\"main\")",
            "notes.md" => "# notes",
            other => panic!("no contents for `{other}`"),
        },
    };
    let end = if case == "add-tar" { "" } else { "\n" };
    format!("{text}{end}").into_bytes()
}

/// Makes the upper directory, and the lower tree, that lead to these entries.
fn build(golden: &Golden<'_>) -> (Tree, Tree) {
    let (upper, lower) = (Tree::new(), Tree::new());
    for entry in &golden.entries {
        let fields: Vec<_> = entry.splitn(6, ' ').collect();
        let [flag, mode, owner, _, mtime, name] = fields[..] else {
            panic!("malformed golden entry `{entry}`");
        };
        let mode = u32::from_str_radix(mode, 8).unwrap();
        let (path, link) = name.split_once(" -> ").unwrap_or((name, ""));
        if let Some((dir, victim)) = path.rsplit_once(".wh.") {
            let victim = format!("{dir}{victim}");
            if dir.is_empty() {
                upper.whiteout(&victim);
            } else {
                // This directory was removed and made anew.
                lower.dir(dir, 0o755);
                upper.xattr(dir, "trusted.overlay.opaque", b"y");
            }
            lower.file(&victim, 0o644, "gone");
            continue;
        }
        match flag {
            "0" => upper.file(path, mode, contents(golden.case, path)),
            "1" => upper.link(path, link),
            "2" => upper.symlink(path, link),
            "5" => upper.dir(path, mode),
            "6" => upper.node(path, FileType::Fifo, 0),
            other => panic!("unknown type `{other}`"),
        };
        if flag != "1" {
            let (uid, gid) = owner.split_once(':').unwrap();
            upper.owner(path, uid.parse().unwrap(), gid.parse().unwrap());
            if flag == "0" {
                // Giving it away has dropped these bits.
                let at = upper.path().join(path);
                let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
                std::fs::set_permissions(at, mode).unwrap();
            }
            upper.time(path, mtime.parse().unwrap());
        }
    }
    upper.settle();
    (upper, lower)
}

#[test]
fn layers_are_those_of_buildkit() {
    if !is_root() {
        return;
    }
    let goldens = goldens();
    assert_eq!(goldens.len(), 27);
    for golden in goldens {
        let (upper, lower) = build(&golden);
        let layer = upper.layer(Some(&lower), Style::Overlay);
        assert_eq!(
            listing(&layer).lines().collect::<Vec<_>>(),
            golden.entries,
            "{}",
            golden.case
        );
        assert_eq!(layer.len(), golden.length, "{}", golden.case);
        assert_eq!(
            Digest::sha256(&layer).as_str(),
            golden.digest,
            "{}",
            golden.case
        );
    }
}
