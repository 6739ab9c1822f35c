//! Variables: defaults, overrides, types, validation.

use larder_bake::ListFormat;

use super::support::{argument, error, file, options, pairs, plan, read, read_all, strings};

fn value(block: &str, expression: &str, environment: &[(&str, &str)]) -> Option<String> {
    let value = argument(block, expression, environment);
    value.unwrap_or_else(|error| panic!("{block} {environment:?}: {error}"))
}

fn failure(block: &str, environment: &[(&str, &str)]) -> String {
    argument(block, "FOO", environment).unwrap_err().to_string()
}

#[test]
fn the_environment_overrides_primitive_defaults() {
    for (default, given, expected) in [
        ("\"a\"", "b", "b"),
        ("\"a\"", "", ""),
        ("3", "5.1", "5.1"),
        ("true", "0", "false"),
        ("false", "T", "true"),
        ("null", "x", "x"),
    ] {
        let block = format!("variable \"FOO\" {{ default = {default} }}");
        let value = value(&block, "FOO", &[("FOO", given)]);
        assert_eq!(value.as_deref(), Some(expected), "{default} {given}");
    }
    for (default, given, expected) in [
        ("3", "NaN", "failed to parse `FOO` as number"),
        ("3", "x", "failed to parse `FOO` as number"),
        ("true", "maybe", "failed to parse `FOO` as bool"),
        ("[]", "x", "unsupported type list for variable `FOO`"),
    ] {
        let block = format!("variable \"FOO\" {{ default = {default} }}");
        let error = failure(&block, &[("FOO", given)]);
        assert!(error.contains(expected), "{default} {given}: {error}");
    }
}

#[test]
fn a_variable_without_a_default_is_empty() {
    assert_eq!(
        value("variable \"FOO\" {}", "equal(FOO, \"\")", &[]).as_deref(),
        Some("true")
    );
    assert_eq!(
        value("variable \"FOO\" {}", "FOO", &[("FOO", "x")]).as_deref(),
        Some("x")
    );
}

#[test]
fn null_leaves_the_argument_to_the_dockerfile() {
    assert_eq!(
        value("variable \"FOO\" { default = null }", "FOO", &[]),
        None
    );
}

#[test]
fn attributes_override_defaults_but_not_the_environment() {
    let block = "variable \"FOO\" { default = \"a\" }\nFOO = \"b\"\n";
    assert_eq!(value(block, "FOO", &[]).as_deref(), Some("b"));
    assert_eq!(value(block, "FOO", &[("FOO", "c")]).as_deref(), Some("c"));
    assert_eq!(
        value("FOO = \"b\"", "FOO", &[("FOO", "c")]).as_deref(),
        Some("b")
    );
}

#[test]
fn flags_override_the_environment() {
    let mut options = options(&[("FOO", "environment")]);
    options.variables = pairs(&[("FOO", "flag")]);
    let text = "variable \"FOO\" {}\ntarget \"default\" { args = { v = FOO } }";
    let files = vec![file("docker-bake.hcl", text)];
    let definition =
        larder_bake::Definition::read(files, &super::support::Services::default(), options)
            .unwrap();
    let plan = definition.plan(&[], &[]).unwrap();
    assert_eq!(plan.targets["default"].args["v"].as_deref(), Some("flag"));
}

#[test]
fn variables_refer_to_each_other() {
    let block = r#"
        variable "FOO" { default = upper("${BASE}def") }
        variable "BASE" { default = "abc" }
    "#;
    assert_eq!(value(block, "FOO", &[]).as_deref(), Some("ABCDEF"));
    assert_eq!(
        value(block, "FOO", &[("BASE", "new")]).as_deref(),
        Some("NEWDEF")
    );
    let cycle = "variable \"FOO\" { default = BAR }\nvariable \"BAR\" { default = FOO }\n";
    assert!(failure(cycle, &[]).contains("variable cycle not allowed for"));
}

#[test]
fn types_convert_defaults() {
    for (constraint, default, expression, expected) in [
        ("number", "\"99\"", "FOO + 1", "100"),
        ("bool", "\"true\"", "and(FOO, true)", "true"),
        (
            "list(number)",
            "[\"2\", \"3\"]",
            "join(\"\", [for v in FOO: v + 1])",
            "34",
        ),
        (
            "set(string)",
            "[\"b\", \"a\", \"b\"]",
            "join(\"\", FOO)",
            "ab",
        ),
        ("map(string)", "{ a = 1 }", "FOO.a", "1"),
        ("tuple([number, string])", "[1, 2]", "FOO[1]", "2"),
        ("object({a = string})", "{ a = 1 }", "FOO.a", "1"),
        ("any", "[1]", "FOO[0]", "1"),
    ] {
        let block = format!("variable \"FOO\" {{\n type = {constraint}\n default = {default}\n}}");
        assert_eq!(
            value(&block, expression, &[]).as_deref(),
            Some(expected),
            "{constraint}"
        );
        let null = format!("variable \"FOO\" {{\n type = {constraint}\n}}");
        let is_null = value(&null, "equal(FOO, null)", &[]);
        assert_eq!(is_null.as_deref(), Some("true"), "{constraint}");
    }
    for (constraint, default) in [
        ("number", "\"oops\""),
        ("list(number)", "[\"oops\"]"),
        ("bool", "99"),
        ("tuple([number])", "[1, 2]"),
        ("object({a = string})", "{}"),
    ] {
        let block = format!("variable \"FOO\" {{\n type = {constraint}\n default = {default}\n}}");
        let error = failure(&block, &[]);
        assert!(
            error.contains("invalid type: `FOO` default value"),
            "{constraint}: {error}"
        );
    }
    for constraint in [
        "boolean",
        "BOOL",
        "lower(\"bool\")",
        "list()",
        "list(x)",
        "1",
    ] {
        let error = failure(&format!("variable \"FOO\" {{ type = {constraint} }}"), &[]);
        assert!(error.contains("not a valid type"), "{constraint}: {error}");
    }
}

#[test]
fn typed_variables_are_overridden_by_csv() {
    for (constraint, given, expression, expected) in [
        ("bool", "true", "FOO", "true"),
        ("number", "99", "FOO", "99"),
        ("string", "\"hello\"", "FOO", "\"hello\""),
        ("list(string)", "hi,there", "join(\"-\", FOO)", "hi-there"),
        ("list(string)", "\"a,b\",c", "join(\"-\", FOO)", "a,b-c"),
        (
            "list(number)",
            "3,1,4",
            "join(\"-\", [for v in FOO: v + 1])",
            "4-2-5",
        ),
        ("set(number)", "3,1,4", "join(\"-\", FOO)", "1-3-4"),
        (
            "map(number)",
            "foo:1,bar:2",
            "join(\"-\", values(FOO))",
            "2-1",
        ),
        (
            "tuple([number,string])",
            "99,bottles",
            "format(\"%d %s\", FOO[0], FOO[1])",
            "99 bottles",
        ),
    ] {
        let block = format!("variable \"FOO\" {{ type = {constraint} }}");
        let value = value(&block, expression, &[("FOO", given)]);
        assert_eq!(value.as_deref(), Some(expected), "{constraint}");
    }
    for (constraint, given, expected) in [
        ("list(string)", "\"hello,world", "from CSV"),
        ("object({message: string})", "x", "unsupported type"),
        ("list(list(number))", "1,2", "unsupported type"),
        ("map(list(number))", "foo:1", "unsupported type"),
        ("list(number)", "1,1z", "failed to parse element `1z`"),
        ("map(number)", "foo:1:1", "expected one k/v pair"),
        ("number", "1z", "failed to parse"),
    ] {
        let block = format!("variable \"FOO\" {{ type = {constraint} }}");
        let error = failure(&block, &[("FOO", given)]);
        assert!(error.contains(expected), "{constraint}: {error}");
    }
}

#[test]
fn typed_variables_are_overridden_by_json() {
    let list = "variable \"FOO\" { type = list(number) }";
    let length = |environment: &[(&str, &str)]| value(list, "length(FOO)", environment).unwrap();
    assert_eq!(length(&[("FOO_JSON", "[3, 1, 4]")]), "3");
    assert_eq!(length(&[("FOO", "1,2"), ("FOO_JSON", "[3, 4, 5]")]), "3");
    let objects = "variable \"FOO\" { type = object({m = list(string)}) }";
    let given = [("FOO_JSON", "{\"m\": [\"hi\", \"there\"]}")];
    assert_eq!(
        value(objects, "join(\"-\", FOO.m)", &given).as_deref(),
        Some("hi-there")
    );
    for json in ["hello", "{}", "[\"x\"]"] {
        let error = failure(list, &[("FOO_JSON", json)]);
        assert!(
            error.contains("failed to convert `FOO` from JSON"),
            "{json}: {error}"
        );
    }
    // A variable of that name is another variable.
    let both = format!("{list}\nvariable \"FOO_JSON\" {{ type = list(number) }}");
    let value = value(&both, "length(FOO)", &[("FOO", "1,2"), ("FOO_JSON", "3")]);
    assert_eq!(value.as_deref(), Some("2"));
}

#[test]
fn values_are_validated() {
    let block = r#"
        variable "FOO" {
          default = 1
          validation {
            condition = FOO > 0
            error_message = "FOO must be positive."
          }
          validation {
            condition = FOO < MAX
            error_message = "FOO must be below ${MAX}."
          }
        }
        variable "MAX" { default = 10 }
    "#;
    assert_eq!(value(block, "FOO", &[]).as_deref(), Some("1"));
    assert!(failure(block, &[("FOO", "0")]).contains("validation failed: FOO must be positive."));
    assert!(failure(block, &[("FOO", "12")]).contains("validation failed: FOO must be below 10."));
}

#[test]
fn builtins_are_there_and_stay_what_they_are() {
    let text = r#"
        variable "BAKE_LOCAL_PLATFORM" { default = "x" }
        target "default" {
          context = BAKE_CMD_CONTEXT
          platforms = [BAKE_LOCAL_PLATFORM]
        }
    "#;
    let target = &plan(text, &[]).targets["default"];
    assert_eq!(target.context.as_deref(), Some("."));
    assert_eq!(target.platforms, Some(strings(&["linux/amd64"])));
}

#[test]
fn variables_are_listed() {
    let text = r#"
        variable "TAG" {
          default = "latest"
          description = "of the image"
        }
        variable "LIST" {
          type = list(string)
          default = ["a"]
        }
        variable "NOTHING" { default = null }
    "#;
    let definition = read(text).unwrap();
    assert_eq!(
        definition.list_variables(ListFormat::Table),
        "VARIABLE\tTYPE\t\tVALUE\tDESCRIPTION\n\
         LIST\t\tlist of string\t[\"a\"]\t\n\
         NOTHING\t\t\t\t<null>\t\n\
         TAG\t\t\t\tlatest\tof the image\n"
    );
    insta::assert_snapshot!(definition.list_variables(ListFormat::Json), @r#"
    [
      {
        "name": "LIST",
        "type": "list of string",
        "value": "[\"a\"]"
      },
      {
        "name": "NOTHING"
      },
      {
        "name": "TAG",
        "description": "of the image",
        "value": "latest"
      }
    ]
    "#);
}

#[test]
fn files_share_variables() {
    let files = || {
        vec![
            file(
                "a.hcl",
                "variable \"FOO\" { default = \"abc\" }\ntarget \"app\" { args = { v1 = \"pre-${FOO}\" } }",
            ),
            file(
                "b.hcl",
                "target \"app\" { args = { v2 = \"${FOO}-post\" } }",
            ),
            file(
                "c.json",
                "{\"variable\": {\"FOO\": {\"default\": \"json\"}}}",
            ),
        ]
    };
    for (environment, v1, v2) in [
        (&[][..], "pre-json", "json-post"),
        (&[("FOO", "def")], "pre-def", "def-post"),
    ] {
        let plan = read_all(files(), environment)
            .unwrap()
            .plan(&strings(&["app"]), &[])
            .unwrap();
        let args = &plan.targets["app"].args;
        assert_eq!(args["v1"].as_deref(), Some(v1));
        assert_eq!(args["v2"].as_deref(), Some(v2));
    }
}

#[test]
fn wrong_blocks_are_told() {
    for (text, expected) in [
        (
            "variable \"A\" { defalt = 1 }",
            "variables have no attribute `defalt`",
        ),
        (
            "variable \"A\" { description = 1 }",
            "`description` must be a plain text",
        ),
        (
            "variable \"A\" {\n check {\n }\n}",
            "variables have no blocks `check`",
        ),
        (
            "variable \"A\" {\n validation {\n }\n}",
            "`condition` is missing",
        ),
        ("variable {\n}", "`variable` must be followed by one name"),
        ("function \"f\" { result = 1 }", "`f`: `params` is missing"),
        ("function \"f\" { params = [] }", "`f`: `result` is missing"),
        (
            "function \"f\" {\n params = [1]\n result = 1\n}",
            "each parameter must be a name",
        ),
    ] {
        let error = error(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
    let cycle =
        "function \"f\" {\n params = []\n result = f()\n}\ntarget \"default\" { context = f() }";
    assert!(error(cycle).contains("function cycle not allowed for `f`"));
}
