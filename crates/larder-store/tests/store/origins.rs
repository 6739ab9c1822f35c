use std::time::Duration;

use crate::support::{TestStore, digest};

#[test]
fn origins_are_told_latest_first() {
    let store = TestStore::new();
    let (one, two) = (digest("one"), digest("two"));
    store.add_origin("a.example/app", &[&one, &two]).unwrap();
    store.advance(Duration::from_secs(1));
    store.add_origin("b.example/app", &[&one]).unwrap();
    store.add_origin("a.example/app", &[&one]).unwrap();
    assert_eq!(
        store.origins(&one).unwrap(),
        ["b.example/app", "a.example/app"]
    );
    assert_eq!(store.origins(&two).unwrap(), ["a.example/app"]);
    assert_eq!(store.origins(&digest("three")).unwrap(), [""; 0]);
}
