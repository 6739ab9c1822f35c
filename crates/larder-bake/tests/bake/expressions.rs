//! Expressions and templates of HCL.

use super::support::argument;

const BEFORE: &str = r#"
list = ["a", "b", "c"]
object = { x = { y = "deep" }, n = 2 }
variable "EMPTY" { default = "" }
function "twice" {
  params = [text]
  result = "${text}${text}"
}
function "count" {
  params = [first]
  variadic_params = rest
  result = length(rest)
}
"#;

fn check(expression: &str, expected: &str) {
    let value = argument(BEFORE, expression, &[]);
    let value = value.unwrap_or_else(|error| panic!("{expression}: {error}"));
    assert_eq!(value.as_deref(), Some(expected), "{expression}");
}

#[test]
fn operators_have_their_precedence() {
    for (expression, expected) in [
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("7 / 2", "3.5"),
        ("-7 % 3", "-1"),
        ("0.1 + 0.2", "0.3"),
        ("9007199254740993 + 1", "9007199254740994"),
        ("1e3", "1000"),
        ("-(1 - 3)", "2"),
        ("1 < 2 && 2 <= 2 && 3 > 2 && 3 >= 3", "true"),
        ("!true || 1 == 1", "true"),
        ("\"1\" == 1", "false"),
        ("\"1\" + 1", "2"),
        ("null == null", "true"),
        ("[1, 2] != [1, 2]", "false"),
        ("{a = 1} == {a = 1}", "true"),
    ] {
        check(expression, expected);
    }
}

#[test]
fn conditionals_take_one_branch() {
    check("EMPTY != \"\" ? EMPTY : \"none\"", "none");
    check("true ? 1 : 1 / 0", "1");
    check("false ? \"a\" : true ? \"b\" : \"c\"", "b");
}

#[test]
fn values_are_reached_by_traversal() {
    for (expression, expected) in [
        ("list[1]", "b"),
        ("list.2", "c"),
        ("object.x.y", "deep"),
        ("object[\"x\"][\"y\"]", "deep"),
        ("{ a = [1, 2] }.a[0]", "1"),
        ("join(\",\", [{n = 1}, {n = 2}][*].n)", "1,2"),
        ("join(\",\", [{n = [1]}, {n = [2]}].*.n[0])", "1"),
        ("length(null[*])", "0"),
        ("length(\"one\"[*])", "1"),
    ] {
        check(expression, expected);
    }
}

#[test]
fn for_makes_lists_and_objects() {
    for (expression, expected) in [
        ("join(\",\", [for v in list : upper(v)])", "A,B,C"),
        (
            "join(\",\", [for i, v in list : \"${i}${v}\" if v != \"b\"])",
            "0a,2c",
        ),
        (
            "jsonencode({for v in list : v => upper(v)})",
            r#"{"a":"A","b":"B","c":"C"}"#,
        ),
        (
            "jsonencode({for v in [\"aa\", \"ab\", \"b\"] : substr(v, 0, 1) => v...})",
            r#"{"a":["aa","ab"],"b":["b"]}"#,
        ),
        (
            "join(\",\", [for k, v in {b = 1, a = 2} : \"${k}${v}\"])",
            "a2,b1",
        ),
        (
            "join(\",\", [for a in [1, 2] : join(\"\", [for b in [a, 3] : a * b])])",
            "13,46",
        ),
    ] {
        check(expression, expected);
    }
}

#[test]
fn templates_hold_expressions() {
    for (expression, expected) in [
        (r#""a-${1 + 1}-${true}""#, "a-2-true"),
        (r#""$${x} %%{y} \"q\" \u00e9""#, "${x} %{y} \"q\" é"),
        (
            r#""%{ if EMPTY == "" }empty%{ else }full%{ endif }""#,
            "empty",
        ),
        (r#""%{ for v in list ~} ${v}; %{ endfor }""#, "a; b; c; "),
        (r#""%{ for i, v in list }${i}${v}%{ endfor }""#, "0a1b2c"),
        (r#""a ${~ "b" ~} c""#, "abc"),
        ("<<EOT\n  FROM a\n    RUN b\nEOT\n", "  FROM a\n    RUN b\n"),
        (
            "<<-EOT\n    FROM a\n      RUN ${1 + 1}\n    EOT\n",
            "FROM a\n  RUN 2\n",
        ),
    ] {
        check(expression, expected);
    }
}

#[test]
fn a_template_of_one_expression_keeps_its_type() {
    check(r#"length("${list}")"#, "3");
    assert_eq!(argument("", r#""${null}""#, &[]).unwrap(), None);
}

#[test]
fn functions_are_defined_by_files() {
    check("twice(twice(\"ab\"))", "abababab");
    check("count(1)", "0");
    check("count(1, list...)", "3");
}

#[test]
fn comments_are_of_three_kinds() {
    check("1 /* one */ + 1 # two\n", "2");
    check("3 // three\n", "3");
}

#[test]
fn mistakes_are_told() {
    for (expression, expected) in [
        ("nothing", "there is no variable named `nothing`"),
        (
            "lst[0]",
            "there is no variable named `lst` (did you mean list?)",
        ),
        ("list[3]", "the list has no index 3: it has 3 elements"),
        (
            "list[-1]",
            "a whole number that is not negative is required",
        ),
        ("list[\"a\"]", "a number is required"),
        ("object.z", "the object has no attribute `z`"),
        ("list.a", "cannot take `.a` of a list"),
        ("null.a", "cannot take `.a` of null"),
        (
            "\"${null}x\"",
            "a string is required, and the value is null",
        ),
        ("\"${list}x\"", "a string is required, not a list"),
        ("1 / 0", "division by zero"),
        ("null + 1", "a number is required, and the value is null"),
        ("\"x\" > 1", "a number is required"),
        ("null ? 1 : 2", "a bool is required, and the value is null"),
        ("[for v in 1 : v]", "cannot iterate over a number"),
        (
            "{for v in list : \"k\" => v}",
            "two elements have the key `k`",
        ),
        (
            "uper(\"a\")",
            "there is no function named `uper` (did you mean upper?)",
        ),
        ("twice()", "`twice` takes 1 arguments, not 0"),
        ("count()", "`count` takes at least 1 arguments, not 0"),
        ("upper(1, 2)", "`upper`: 1 arguments are required, not 2"),
        ("list", "`args`: `v`: a string is required, not a list"),
    ] {
        let error = argument(BEFORE, expression, &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{expression}: {error}");
    }
}
