//! The base images, and the registry that serves them.

use larder_testkit::{Base, EntryKind, OciArchive, Registry, skip};

#[test]
fn busybox_has_a_shell_and_nothing_of_this_machine() {
    let path = match Base::Busybox.archive() {
        Ok(path) => path,
        Err(error) => skip!("no base image: {error:#}"),
    };
    let archive = OciArchive::open(&path).unwrap();
    let config = archive.config().unwrap();
    assert_eq!(config.config.cmd, Some(vec!["sh".to_owned()]));
    let layers = archive.layers().unwrap();
    let [layer] = &layers[..] else {
        panic!("{} layers", layers.len())
    };
    let find = |path: &str| layer.iter().find(|entry| entry.path == path);
    assert_eq!(
        find("bin/sh").unwrap().kind,
        EntryKind::Symlink("busybox".to_owned())
    );
    assert_eq!(find("tmp/").or(find("tmp")).unwrap().mode, 0o1777);
    assert!(
        layer
            .iter()
            .all(|entry| entry.uid == 0 && entry.mtime == 1_735_689_600)
    );
    assert!(find("etc/resolv.conf").is_none());
    assert_eq!(Base::Busybox.archive().unwrap(), path, "made once");
}

#[test]
fn a_registry_serves_what_was_pushed() {
    let (registry, path) = match Registry::start().and_then(|r| Ok((r, Base::Busybox.archive()?))) {
        Ok(both) => both,
        Err(error) => skip!("no registry: {error:#}"),
    };
    let pushed = registry
        .push_archive(&path, "library/busybox", "latest")
        .unwrap();
    let manifest = "/v2/library/busybox/manifests/latest";
    let accept = [("Accept", pushed.media_type.as_str())];
    let served = registry.request("GET", manifest, &accept, &[]).unwrap();
    assert_eq!(
        served.header("docker-content-digest"),
        Some(pushed.digest.as_str())
    );
    assert_eq!(served.body.len() as u64, pushed.size_bytes);
}
