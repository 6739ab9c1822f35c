//! The standard library: results as Go's cty and buildx have them.

use super::support::argument;

/// Evaluates `expression`, and compares what it comes to as JSON, an error with `error: …`.
fn check(expression: &str, expected: &str) {
    let value = argument(
        "",
        &format!("jsonencode({expression})"),
        &[("HOME", "/root")],
    );
    let shown = value.map_or_else(
        |error| {
            format!(
                "error: {}",
                error.to_string().rsplit(": ").next().unwrap_or_default()
            )
        },
        Option::unwrap_or_default,
    );
    assert_eq!(shown, expected, "{expression}");
}

#[test]
fn numbers() {
    for (expression, expected) in [
        ("absolute(-1.5)", "1.5"),
        ("add(1, 2)", "3"),
        ("subtract(1, 2)", "-1"),
        ("multiply(1.5, 2)", "3"),
        ("divide(7, 2)", "3.5"),
        ("divide(1, 0)", "error: division by zero"),
        ("modulo(10, 4)", "2"),
        ("modulo(-10, 4)", "-2"),
        ("ceil(1.1)", "2"),
        ("floor(-1.1)", "-2"),
        ("int(-1.9)", "-1"),
        ("log(8, 2)", "3"),
        ("pow(2, 10)", "1024"),
        ("pow(2, 0.5)", "1.4142135623730951"),
        ("signum(-3)", "-1"),
        ("signum(0)", "0"),
        ("negate(3)", "-3"),
        ("max(1, 3, 2)", "3"),
        ("min(1, 3, 2)", "1"),
        ("min()", "error: at least one number is required"),
        ("parseint(\"ff\", 16)", "255"),
        ("parseint(\"-FF\", 16)", "-255"),
        (
            "parseint(\"12\", 2)",
            "error: cannot parse `12` as a number of base 2",
        ),
        (
            "parseint(\"\", 10)",
            "error: cannot parse `` as a number of base 10",
        ),
        ("greaterthan(2, 1)", "true"),
        ("greaterthanorequalto(1, 1)", "true"),
        ("lessthan(2, 1)", "false"),
        ("lessthanorequalto(1, 2)", "true"),
        ("equal(\"a\", \"a\")", "true"),
        ("equal(null, null)", "true"),
        ("notequal(1, 2)", "true"),
        ("and(true, false)", "false"),
        ("or(true, false)", "true"),
        ("not(true)", "false"),
    ] {
        check(expression, expected);
    }
}

#[test]
fn text() {
    for (expression, expected) in [
        ("upper(\"aé\")", "\"AÉ\""),
        ("lower(\"AÉ\")", "\"aé\""),
        ("title(\"hello wORLD\")", "\"Hello WORLD\""),
        ("title(\"o'neil x-y\")", "\"O'Neil X-Y\""),
        ("trim(\"?!hello?!\", \"!?\")", "\"hello\""),
        ("trimprefix(\"helloworld\", \"hello\")", "\"world\""),
        ("trimsuffix(\"helloworld\", \"world\")", "\"hello\""),
        ("trimspace(\"  a \\n\")", "\"a\""),
        ("chomp(\"a\\r\\n\\n\")", "\"a\""),
        ("indent(2, \"a\\nb\\nc\")", "\"a\\n  b\\n  c\""),
        ("replace(\"1.2.3\", \".\", \"-\")", "\"1-2-3\""),
        ("reverse(\"añb\")", "\"bña\""),
        ("strlen(\"añb\")", "3"),
        ("strlen(\"e\\u0301\")", "1"),
        ("substr(\"hello\", 1, 3)", "\"ell\""),
        ("substr(\"hello\", -3, -1)", "\"llo\""),
        ("substr(\"hello\", 10, 1)", "\"\""),
        ("split(\",\", \"a,b,\")", "[\"a\",\"b\",\"\"]"),
        ("split(\"\", \"ab\")", "[\"a\",\"b\"]"),
        ("join(\"-\", [\"a\"], [\"b\", 1])", "\"a-b-1\""),
        ("sanitize(\"foo/bar.é\")", "\"foo_bar__\""),
        ("basename(\"/foo/bar\")", "\"bar\""),
        ("basename(\"\")", "\".\""),
        ("basename(\"/\")", "\"/\""),
        ("dirname(\"/foo/bar\")", "\"/foo\""),
        ("dirname(\"foo\")", "\".\""),
        ("dirname(\"/\")", "\"/\""),
        ("homedir()", "\"/root\""),
    ] {
        check(expression, expected);
    }
}

#[test]
fn collections() {
    for (expression, expected) in [
        ("length([1, 2])", "2"),
        ("length({a = 1})", "1"),
        ("keys({b = 1, a = 2})", "[\"a\",\"b\"]"),
        ("values({b = 1, a = 2})", "[2,1]"),
        ("lookup({a = 1}, \"a\", 2)", "1"),
        ("lookup({a = 1}, \"b\", 2)", "2"),
        ("merge({a = 1, b = 1}, {b = 2})", "{\"a\":1,\"b\":2}"),
        ("zipmap([\"a\", \"b\"], [1, 2])", "{\"a\":1,\"b\":2}"),
        (
            "zipmap([\"a\"], [])",
            "error: there are 1 keys for 0 values",
        ),
        ("concat([1], [2, 3])", "[1,2,3]"),
        ("contains([1, 2], 2)", "true"),
        ("contains([1, 2], \"2\")", "false"),
        ("distinct([1, 2, 1])", "[1,2]"),
        ("compact([\"a\", \"\", \"b\"])", "[\"a\",\"b\"]"),
        ("reverselist([1, 2])", "[2,1]"),
        ("sort([\"b\", \"a\"])", "[\"a\",\"b\"]"),
        ("flatten([[1, [2]], 3, []])", "[1,2,3]"),
        ("element([1, 2, 3], 4)", "2"),
        ("element([], 0)", "error: the list is empty"),
        ("index({a = 1}, \"a\")", "1"),
        ("hasindex([1], 1)", "false"),
        ("indexof([\"a\", \"b\"], \"b\")", "1"),
        ("indexof([\"a\"], \"b\")", "error: item not found"),
        ("slice([1, 2, 3], 1, 3)", "[2,3]"),
        ("slice([1], 1, 3)", "error: a list of 1 has no slice 1 to 3"),
        ("chunklist([1, 2, 3], 2)", "[[1,2],[3]]"),
        ("coalesce(null, 1)", "1"),
        ("coalesce(null)", "error: all arguments are null"),
        ("coalescelist([], [1])", "[1]"),
        ("range(3)", "[0,1,2]"),
        ("range(1, 4)", "[1,2,3]"),
        ("range(4, 0, -2)", "[4,2]"),
        ("range(0, 1, 0.5)", "[0,0.5]"),
        ("range(3, 1)", "[3,2]"),
        (
            "range(1, 3, -1)",
            "error: the step does not lead to the end",
        ),
        ("length(range(1025))", "error: more than 1024 numbers"),
        ("setunion([2, 1], [3])", "[1,2,3]"),
        ("setintersection([1, 2], [2, 3])", "[2]"),
        ("setsubtract([1, 2], [2])", "[1]"),
        ("setsymmetricdifference([1, 2], [2, 3])", "[1,3]"),
        ("sethaselement([1], 1)", "true"),
        (
            "setproduct([1, 2], [\"a\", \"b\"])",
            "[[1,\"a\"],[1,\"b\"],[2,\"a\"],[2,\"b\"]]",
        ),
    ] {
        check(expression, expected);
    }
}

#[test]
fn encodings_and_digests() {
    for (expression, expected) in [
        (
            "jsondecode(\"{\\\"a\\\": [1, null, \\\"<\\\"]}\")",
            r#"{"a":[1,null,"\u003c"]}"#,
        ),
        (
            "csvdecode(\"a,b\\n1,2\\n3,4\")",
            r#"[{"a":"1","b":"2"},{"a":"3","b":"4"}]"#,
        ),
        (
            "csvdecode(\"a,b\\n1\")",
            "error: a row has 1 fields, the header 2",
        ),
        ("base64encode(\"hi there\")", "\"aGkgdGhlcmU=\""),
        ("base64decode(\"aGkgdGhlcmU=\")", "\"hi there\""),
        ("urlencode(\"a b&c=é\")", "\"a+b%26c%3D%C3%A9\""),
        ("md5(\"a\")", "\"0cc175b9c0f1b6a831c399e269772661\""),
        (
            "sha1(\"a\")",
            "\"86f7e437faa5a7fce15d1ddcb9eaeaea377667b8\"",
        ),
        (
            "sha256(\"a\")",
            "\"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb\"",
        ),
        ("substr(sha512(\"a\"), 0, 16)", "\"1f40fc92da241694\""),
        (
            "uuidv5(\"dns\", \"www.example.com\")",
            "\"2ed6657d-e927-568b-95e1-2665a8aea6a2\"",
        ),
        ("uuidv4()", "\"abababab-abab-4bab-abab-abababababab\""),
    ] {
        check(expression, expected);
    }
}

#[test]
fn patterns() {
    for (expression, expected) in [
        (
            "regex(\"[a-z]+\", \"53453453.345345aaabbbccc23454\")",
            "\"aaabbbccc\"",
        ),
        (
            "regex(\"(\\\\d+)-(\\\\d+)\", \"2019-02\")",
            "[\"2019\",\"02\"]",
        ),
        (
            "regex(\"(?P<y>\\\\d+)-(?P<m>\\\\d+)\", \"2019-02\")",
            r#"{"m":"02","y":"2019"}"#,
        ),
        (
            "regex(\"z\", \"a\")",
            "error: the pattern did not match any part of the text",
        ),
        ("regexall(\"[ab]\", \"abc\")", "[\"a\",\"b\"]"),
        (
            "regex_replace(\"-ab-axxb-\", \"a(x*)b\", \"$${1}W\")",
            "\"-W-xxW-\"",
        ),
        (
            "regex(\"(\", \"a\")",
            "error: `(` is no valid regular expression",
        ),
    ] {
        check(expression, expected);
    }
}

#[test]
fn formats() {
    for (expression, expected) in [
        ("format(\"Hello, %s!\", \"Ander\")", "\"Hello, Ander!\""),
        ("format(\"%d%%\", 5)", "\"5%\""),
        (
            "format(\"%05d|%-5d|%5d|%+d\", 42, 42, 42, 42)",
            "\"00042|42   |   42|+42\"",
        ),
        (
            "format(\"%x %X %b %o\", 255, 255, 5, 8)",
            "\"ff FF 101 10\"",
        ),
        ("format(\"%.2f\", 1.005)", "\"1.00\""),
        ("format(\"%e\", 12345.678)", "\"1.234568e+04\""),
        ("format(\"%q %t\", \"a\", true)", "\"\\\"a\\\" true\""),
        ("format(\"%v %v %v\", 1, \"a\", [1])", "\"1 a [1]\""),
        ("format(\"%#v\", \"a\")", "\"\\\"a\\\"\""),
        ("format(\"%[2]s %[1]s\", \"a\", \"b\")", "\"b a\""),
        ("format(\"%.2s\", \"abc\")", "\"ab\""),
        (
            "format(\"%s\")",
            "error: the format asks for 1 values, not 0",
        ),
        (
            "format(\"x\", 1)",
            "error: the format asks for 0 values, not 1",
        ),
        ("format(\"%y\", 1)", "error: `%y` is no verb of a format"),
        (
            "formatlist(\"%s:%s\", [\"a\", \"b\"], \"c\")",
            "[\"a:c\",\"b:c\"]",
        ),
    ] {
        check(expression, expected);
    }
}

#[test]
fn times() {
    for (expression, expected) in [
        ("timestamp()", "\"2024-02-29T12:34:56Z\""),
        (
            "timeadd(\"2024-02-29T12:34:56Z\", \"24h\")",
            "\"2024-03-01T12:34:56Z\"",
        ),
        (
            "timeadd(\"2024-01-01T00:00:00+02:00\", \"-1h30m\")",
            "\"2023-12-31T22:30:00+02:00\"",
        ),
        (
            "timeadd(\"2024-01-01T00:00:00Z\", \"1.5h\")",
            "\"2024-01-01T01:30:00Z\"",
        ),
        (
            "timeadd(\"2024-01-01T00:00:00Z\", \"1x\")",
            "error: `1x` is no duration",
        ),
        (
            "timeadd(\"yesterday\", \"1h\")",
            "error: `yesterday` is no time in RFC 3339",
        ),
        ("formatdate(\"YYYYMMDD\", timestamp())", "\"20240229\""),
        (
            "formatdate(\"EEEE, DD-MMM-YY hh:mm:ss ZZZ\", \"2018-01-02T23:12:01Z\")",
            "\"Tuesday, 02-Jan-18 23:12:01 UTC\"",
        ),
        (
            "formatdate(\"EEE D MMMM, H:m AA 'o''clock' ZZZZZ\", \"2018-01-02T15:02:01-08:00\")",
            "\"Tue 2 January, 3:2 PM o'clock -08:00\"",
        ),
        (
            "formatdate(\"Q\", timestamp())",
            "error: `Q` means nothing in the format of a date",
        ),
        (
            "formattimestamp(\"X\", \"2015-10-21T00:00:00Z\")",
            "\"1445385600\"",
        ),
        (
            "formattimestamp(\"YYYY-MM-DD'T'hh:mm:ssZ\", -1)",
            "\"1969-12-31T23:59:59Z\"",
        ),
        (
            "formattimestamp(\"YYYY\", 1.2)",
            "error: a whole number is required",
        ),
        (
            "unixtimestampparse(1690328596)",
            r#"{"day":25,"hour":23,"iso_week":30,"iso_year":2023,"minute":43,"month":7,"month_name":"July","rfc3339":"2023-07-25T23:43:16Z","second":16,"weekday":2,"weekday_name":"Tuesday","year":2023,"year_day":206}"#,
        ),
    ] {
        check(expression, expected);
    }
}

#[test]
fn networks_and_versions() {
    for (expression, expected) in [
        ("cidrhost(\"10.12.127.0/20\", 16)", "\"10.12.112.16\""),
        ("cidrhost(\"10.12.127.0/20\", -1)", "\"10.12.127.255\""),
        (
            "cidrhost(\"10.0.0.0/30\", 4)",
            "error: the network has no host 4",
        ),
        (
            "cidrhost(\"fd00:fd12:3456:7890::/64\", 34)",
            "\"fd00:fd12:3456:7890::22\"",
        ),
        ("cidrnetmask(\"172.16.0.0/12\")", "\"255.240.0.0\""),
        (
            "cidrnetmask(\"::/0\")",
            "error: only IPv4 networks have a mask",
        ),
        ("cidrsubnet(\"172.16.0.0/12\", 4, 2)", "\"172.18.0.0/16\""),
        ("cidrsubnet(\"10.1.2.0/24\", 4, 15)", "\"10.1.2.240/28\""),
        (
            "cidrsubnet(\"10.1.2.0/24\", 9, 0)",
            "error: the network has not that many bits left",
        ),
        (
            "cidrsubnets(\"10.1.0.0/16\", 4, 4, 8, 4)",
            r#"["10.1.0.0/20","10.1.16.0/20","10.1.32.0/24","10.1.48.0/20"]"#,
        ),
        (
            "cidrsubnets(\"10.0.0.0/31\", 1, 1, 1)",
            "error: the network has no room left",
        ),
        ("cidrhost(\"0.0.0.0/0\", 1)", "\"0.0.0.1\""),
        ("cidrsubnet(\"::/0\", 128, 1)", "\"::1/128\""),
        ("semvercmp(\"1.2.3\", \">= 1.0.0, < 2\")", "true"),
    ] {
        check(expression, expected);
    }
}

#[test]
fn some_look_before_they_evaluate() {
    for (expression, expected) in [
        ("try({}.a, \"fallback\")", "\"fallback\""),
        ("try(1, 2)", "1"),
        ("can({}.a)", "false"),
        ("can(1)", "true"),
        ("convert(\"1\", number)", "1"),
        ("convert([1, 1], set(string))", "[\"1\"]"),
        (
            "convert({a = 1}, object({a = string, b = optional(number)}))",
            r#"{"a":"1","b":null}"#,
        ),
        ("convert(\"x\", number)", "error: a number is required"),
    ] {
        check(expression, expected);
    }
}

#[test]
fn what_is_missing_is_named() {
    for name in ["bcrypt", "rsadecrypt", "byteslen", "bytesslice"] {
        let error = argument("", &format!("{name}(\"a\")"), &[]).unwrap_err();
        assert_eq!(error.kind(), larder_bake::ErrorKind::Unsupported);
        assert!(
            error
                .to_string()
                .contains(&format!("the function `{name}` is not supported"))
        );
    }
}
