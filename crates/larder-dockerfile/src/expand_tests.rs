use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

impl Variables for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(String::as_str)
    }
}

fn variables() -> BTreeMap<String, String> {
    [
        ("A", "1"),
        ("E", ""),
        ("S", "a b"),
        ("P", "/usr/local/bin:/usr/bin:/bin"),
        ("F", "a.tar.gz"),
        ("X", "abcabc"),
        ("ü", "umlaut"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn check(word: &str, expected: &str) {
    let result = Expander::new('\\').expand(word, &variables());
    assert_eq!(result.map(|r| r.text).as_deref(), Ok(expected), "{word}");
}

#[test]
fn expands_every_form() {
    for (word, expected) in [
        ("x$A", "x1"),
        ("${A}x", "1x"),
        ("$AB", ""),
        ("$nope", ""),
        ("$", "$"),
        ("$ü", "umlaut"),
        ("${nope:-q}", "q"),
        ("${nope-q}", "q"),
        ("${E:-q}", "q"),
        ("${E-q}", ""),
        ("${A:-q}", "1"),
        ("${A:+q}", "q"),
        ("${E:+q}", ""),
        ("${E+q}", "q"),
        ("${nope+q}", ""),
        ("${nope:-${nope2:-$A}}", "1"),
        ("${A:?bad}", "1"),
        ("${P%%:*}", "/usr/local/bin"),
        ("${P%:*}", "/usr/local/bin:/usr/bin"),
        ("${P##*:}", "/bin"),
        ("${P#*:}", "/usr/bin:/bin"),
        ("${F%.gz}", "a.tar"),
        ("${F%%.*}", "a"),
        ("${F#?}", ".tar.gz"),
        ("${F#zz}", "a.tar.gz"),
        ("${X/b/Z}", "aZcabc"),
        ("${X//b/Z}", "aZcaZc"),
        ("${X/b*/}", "a"),
        ("${X//*/x}", "x"),
        ("${X//?/x}", "xxxxxx"),
        ("${X///-}", "-a-b-c-a-b-c-"),
        ("${P//\\//_}", "_usr_local_bin:_usr_bin:_bin"),
        ("${nope/a/b}", ""),
        ("'$A'", "$A"),
        ("\"$A\"", "1"),
        ("\"\\$A\"", "$A"),
        ("\"a\\b\\\"\"", "a\\b\""),
        ("\\$A", "$A"),
        ("a\\ b", "a b"),
        ("trailing\\", "trailing"),
        ("\"it's\"", "it's"),
        ("$1$@", ""),
        ("", ""),
    ] {
        check(word, expected);
    }
}

#[test]
fn reports_what_is_wrong() {
    for (word, expected) in [
        ("${", "missing '}'"),
        ("${}", "bad substitution"),
        ("${:x}", "bad substitution"),
        ("${A", "missing '}'"),
        ("${A:-x", "missing '}'"),
        ("${A/x", "missing '/' in ${}"),
        ("${A/x/y", "missing '}'"),
        ("${A!x}", "unsupported modifier (!) in substitution"),
        ("${A:/x}", "unsupported modifier (:/) in substitution"),
        ("${nope:?}", "nope: is not allowed to be unset"),
        ("${E:?}", "E: is not allowed to be empty"),
        ("${nope?say so}", "nope: say so"),
        ("'", "matching single-quote"),
        ("\"", "matching double-quote"),
        ("${A#\\x}", "invalid escape '\\x'"),
    ] {
        let error = Expander::new('\\').expand(word, &variables()).unwrap_err();
        assert!(error.contains(expected), "{word}: {error}");
        assert!(error.starts_with("failed to process \""), "{error}");
    }
}

#[test]
fn splits_words_after_expansion() {
    let words = |word: &str| {
        Expander::new('\\')
            .expand(word, &variables())
            .unwrap()
            .words
    };
    assert_eq!(words("$S \"$S\" x\\ y ''"), ["a", "b", "a b", "x y"]);
}

#[test]
fn options_keep_what_they_name() {
    let raw = Expander {
        raw_quotes: true,
        keep_unset: true,
        ..Expander::new('\\')
    };
    let expanded = raw.expand("echo \"$A\" '$A' $x ${y} ${z:-1}", &variables());
    assert_eq!(expanded.unwrap().text, "echo \"1\" '$A' $x ${y} ${z:-1}");
    let ignore = Expander {
        ignore_quotes: true,
        ..Expander::new('\\')
    };
    let expanded = ignore.expand("it's $A", &variables()).unwrap();
    assert_eq!(expanded.text, "it's 1");
    let backtick = Expander::new('`').expand("C:\\x`$A", &variables());
    assert_eq!(backtick.unwrap().text, "C:\\x$A");
}

#[test]
fn nesting_and_growth_are_bounded() {
    let deep = "${a:-".repeat(10_000) + &"}".repeat(10_000);
    let error = Expander::new('\\').expand(&deep, &NoVariables);
    assert!(error.unwrap_err().contains("nest deeper"));
    let big = BTreeMap::from([("a".to_owned(), "x".repeat(100_000))]);
    let error = Expander::new('\\').expand(&"$a".repeat(1000), &big);
    assert!(error.unwrap_err().contains("longer than"));
    let error = Expander::new('\\').expand("${a//x/${a}}", &big);
    assert!(error.is_err());
}

proptest! {
    #[test]
    fn never_panics(
        word in "[$\\{\\}:\\-+?#%/*'\"\\\\ aAX!é]{0,40}|\\PC{0,20}",
        raw_quotes: bool,
        raw_escapes: bool,
        keep_unset: bool,
    ) {
        let options = Expander { raw_quotes, raw_escapes, keep_unset, ..Expander::new('\\') };
        let _ = options.expand(&word, &variables());
    }
}
