use proptest::prelude::*;
use regex::bytes::Regex;

use super::*;

#[test]
fn a_single_pattern_matches_as_in_moby() {
    for (pattern, path, expected) in [
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/", "dir/file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "file", false),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("**/dir", "dir/file", true),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir2/file", true),
        ("**file", "file", true),
        ("**file", "dir/file", true),
        ("**/file", "dir/dir/file", true),
        ("**/file*", "dir/dir/file.txt", true),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/file*.txt*", "dir/dir/file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("**/*.txt", "file.txt", true),
        ("**/**/*.txt", "file.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt", "a/file.txt", true),
        ("a/*.txt**", "a/file.txt", true),
        ("a[b-d]e", "ae", false),
        ("a[b-d]e", "ace", true),
        ("a[^b-d]e", "aze", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcdef", false),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abcZdef", true),
        ("a\\\\", "a\\", true),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "dir/foo/bar", true),
        ("abc/**", "abc", false),
        ("abc/**", "abc/def/ghi", true),
        ("**/.foo", "bar.foo", false),
        ("a(b)c/def", "a(b)c/def", true),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        (
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            true,
        ),
        ("dist/*.whl", "dist/proxy.whl", true),
        ("dir", "dir/sub/file", true),
        ("*/c", "a/c/d", true),
    ] {
        let matcher = PatternMatcher::new([pattern]).unwrap();
        let found = matcher.matches_or_parent_matches(path.as_bytes());
        assert_eq!(found, expected, "`{pattern}` on `{path}`");
    }
}

#[test]
fn the_last_match_decides() {
    for (patterns, path, expected) in [
        ("* !*.md README*", "a.md", false),
        ("* !*.md README*", "README.md", true),
        ("!fileutils.go *.go", "fileutils.go", true),
        ("*.go !fileutils.go", "fileutils.go", false),
        ("docs !docs/README.md", "docs/a/README.md", true),
        ("docs !docs/README.md", "docs/README.md", false),
        ("docs/ !docs/README.md", "docs/README.md", false),
        ("**/lib !src/lib/util.py", "src/lib/util.py", false),
        ("**/lib !src/lib/util.py", "src/lib/data.bin", true),
        ("a !a/b a/b/c", "a/b/c/d", true),
        ("a !a/b a/b/c", "a/b/d", false),
    ] {
        let matcher = PatternMatcher::new(patterns.split(' ')).unwrap();
        let found = matcher.matches_or_parent_matches(path.as_bytes());
        assert_eq!(found, expected, "`{patterns}` on `{path}`");
    }
}

#[test]
fn malformed_patterns_are_refused() {
    for bad in ["!", "a[", "a\\", "[]", "b/[x-]"] {
        let error = PatternMatcher::new([bad]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
    }
    assert!(PatternMatcher::new(["", "  "]).unwrap().is_empty());
}

#[test]
fn a_directory_is_left_out_only_if_nothing_beneath_can_match() {
    for (pattern, dir, expected) in [
        ("src/main.py", "src", true),
        ("src/main.py", "srcs", false),
        ("src/main.py", "src/main.py", false),
        ("src/*.py", "src", true),
        ("src/*.py", "lib", false),
        ("src/**/*.py", "src/a/b", true),
        ("s*/x", "src", true),
        ("s*/x", "tests", false),
        ("**/x", "any/where", true),
    ] {
        let included = PatternMatcher::new([pattern]).unwrap();
        assert_eq!(
            included.may_match_below(dir.as_bytes()),
            expected,
            "{pattern} {dir}"
        );
        let excluded = PatternMatcher::new(["*".to_owned(), format!("!{pattern}")]).unwrap();
        assert_eq!(
            excluded.may_except_below(dir.as_bytes()),
            expected,
            "{pattern} {dir}"
        );
    }
}

#[test]
fn ignore_files_are_normalized() {
    let text = b"\xef\xbb\xbf# comment\n\n  a/ \n/b\n! /c/../d\n#x\n ./e//f\r\n!\n/\n";
    let patterns = read_ignore_file(text);
    assert_eq!(patterns, ["a", "b", "!d", "e/f", "!", "/"]);
}

/// The regular expression that moby's matcher would make of a cleaned pattern without escapes.
fn moby_regex(pattern: &str) -> Regex {
    let mut out = String::from("^");
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '*' if rest.starts_with('*') => {
                rest = &rest[1..];
                rest = rest.strip_prefix('/').unwrap_or(rest);
                out.push_str(if rest.is_empty() { ".*" } else { "(.*/)?" });
            }
            '*' => out.push_str("[^/]*"),
            '?' => out.push_str("[^/]"),
            '[' | ']' | '^' => out.push(c),
            c => out.push_str(&regex::escape(&c.to_string())),
        }
    }
    out.push('$');
    Regex::new(&out).unwrap()
}

fn naive_matches(patterns: &[String], path: &str) -> bool {
    let mut matched = false;
    for pattern in patterns {
        let (exception, text) = match pattern.strip_prefix('!') {
            Some(text) => (true, text),
            None => (false, pattern.as_str()),
        };
        let regex = moby_regex(&clean(text));
        let ends = path.match_indices('/').map(|(end, _)| end);
        let mut candidates = ends.chain([path.len()]).map(|end| &path[..end]);
        if candidates.any(|candidate| regex.is_match(candidate.as_bytes())) {
            matched = !exception;
        }
    }
    matched
}

fn any_pattern() -> impl Strategy<Value = String> {
    // `**` stands as a whole name: elsewhere moby takes a pattern that begins with it for a suffix.
    let name = prop_oneof![
        4 => "[ab]{1,2}",
        2 => "[ab]?\\*[ab]?",
        1 => "[ab]?\\?",
        1 => "\\[\\^?a\\][ab]?",
        2 => Just("**".to_owned()),
    ];
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    (any::<bool>(), path)
        .prop_map(|(exception, path)| if exception { format!("!{path}") } else { path })
}

fn any_path() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab]{1,2}", 1..5).prop_map(|names| names.join("/"))
}

/// Walks down `path` as a walk of a tree would, with the short cuts.
fn matches_in_walk(matcher: &PatternMatcher, path: &str) -> bool {
    let mut info = MatchInfo::default();
    for (end, _) in path.match_indices('/') {
        let dir = &path.as_bytes()[..end];
        let (found, below) = matcher.matches_dir(dir, &info);
        if found && !matcher.may_except_below(dir) {
            return true;
        }
        if !found && !matcher.may_match_below(dir) {
            return false;
        }
        info = below;
    }
    matcher.matches(path.as_bytes(), &info)
}

proptest! {
    #[test]
    fn agrees_with_a_naive_matcher(
        patterns in prop::collection::vec(any_pattern(), 0..4),
        path in any_path(),
    ) {
        let matcher = PatternMatcher::new(&patterns).unwrap();
        let found = matcher.matches_or_parent_matches(path.as_bytes());
        prop_assert_eq!(found, naive_matches(&patterns, &path));
    }

    #[test]
    fn a_walk_without_exceptions_agrees(
        patterns in prop::collection::vec(any_pattern(), 0..4),
        path in any_path(),
    ) {
        let plain = patterns.iter().map(|pattern| pattern.trim_start_matches('!'));
        let matcher = PatternMatcher::new(plain).unwrap();
        let expected = matcher.matches_or_parent_matches(path.as_bytes());
        prop_assert_eq!(matches_in_walk(&matcher, &path), expected);
    }

    #[test]
    fn short_cuts_do_not_change_a_walk(
        patterns in prop::collection::vec(any_pattern(), 0..5),
        path in any_path(),
    ) {
        let matcher = PatternMatcher::new(&patterns).unwrap();
        let mut info = MatchInfo::default();
        for (end, _) in path.match_indices('/') {
            info = matcher.matches_dir(&path.as_bytes()[..end], &info).1;
        }
        let expected = matcher.matches(path.as_bytes(), &info);
        prop_assert_eq!(matches_in_walk(&matcher, &path), expected);
    }

    #[test]
    fn no_pattern_panics(pattern in "[a/*?\\[\\]\\\\!^.é-]{0,12}", path in "[a/é.\n]{0,8}") {
        if let Ok(matcher) = PatternMatcher::new([&pattern]) {
            matcher.matches_or_parent_matches(path.as_bytes());
            matcher.may_match_below(path.as_bytes());
        }
        if let Ok(glob) = Glob::new(&pattern) {
            glob.matches(path.as_bytes());
        }
    }
}

#[test]
fn hostile_patterns_take_linear_time() {
    let pattern = "**/*a".repeat(200) + "b";
    let path = "a/".repeat(2000);
    let matcher = PatternMatcher::new([pattern]).unwrap();
    assert!(!matcher.matches_or_parent_matches(&path.as_bytes()[..path.len() - 1]));
}
