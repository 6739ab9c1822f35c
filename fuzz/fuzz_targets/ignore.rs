//! An ignore file, then a zero byte, then a path: what a directory promises holds.
#![no_main]

use larder_tree::pattern::{Glob, MatchInfo, PatternMatcher, read_ignore_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let (text, path) = (parts.next().unwrap_or_default(), parts.next());
    let patterns = read_ignore_file(text);
    let path = path.unwrap_or(b"a/b/c.py");
    for pattern in &patterns {
        if let Ok(glob) = Glob::new(pattern) {
            let _ = glob.matches(path);
        }
    }
    let Ok(matcher) = PatternMatcher::new(&patterns) else {
        return;
    };
    let names: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b"." && *name != b"..")
        .collect();
    let mut parent = MatchInfo::default();
    // What the directory above promised of all that is beneath it.
    let mut promised = None;
    for depth in 1..=names.len() {
        let path = names[..depth].join(&b'/');
        let (is_match, info) = matcher.matches_dir(&path, &parent);
        assert_eq!(is_match, matcher.matches(&path, &parent));
        assert!(promised.is_none_or(|promised| promised == is_match));
        let may_change = match is_match {
            true => matcher.may_except_below(&path),
            false => matcher.may_match_below(&path),
        };
        promised = (!may_change).then_some(is_match);
        parent = info;
    }
});
