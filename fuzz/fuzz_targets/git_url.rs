//! Addresses of git repositories: what is understood is said in an op, and read back from it.
#![no_main]

use larder_llb::git::{GitRef, GitSource, Remote};
use libfuzzer_sys::fuzz_target;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fuzz_target!(|text: &str| {
    if let Some(Ok(named)) = GitRef::parse(text) {
        let _shown = named.redacted();
        for keep_git_dir in [false, true] {
            let source = GitSource::new(&named, keep_git_dir);
            let read = GitSource::of_op(&source.to_op()).expect("what was made can be read");
            // Directories that mean all of it are left out.
            assert_eq!(GitSource::of_op(&read.to_op()).as_ref(), Ok(&read));
            let _key = read.cache_digest(COMMIT, &read.reference);
        }
    }
    if let Ok(remote) = Remote::parse(text) {
        let _shown = (
            remote.redacted(),
            remote.without_user(),
            remote.credentials(),
        );
    }
});
