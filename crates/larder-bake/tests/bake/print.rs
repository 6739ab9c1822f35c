//! `--print`

use super::support::plan;

#[test]
fn groups_come_first_and_keys_have_their_order() {
    let text = r#"
        group "default" {
          description = "both"
          targets = ["web", "db"]
        }
        target "web" {
          tags = ["web"]
          contexts = { base = "target:base" }
          args = { b = 1, a = "<&>" }
        }
        target "db" { context = "./db" }
        target "base" {}
    "#;
    insta::assert_snapshot!(plan(text, &[]).to_json(), @r#"
    {
      "group": {
        "default": {
          "description": "both",
          "targets": [
            "db",
            "web"
          ]
        }
      },
      "target": {
        "base": {
          "context": ".",
          "dockerfile": "Dockerfile",
          "output": [
            {
              "type": "cacheonly"
            }
          ]
        },
        "db": {
          "context": "db",
          "dockerfile": "Dockerfile"
        },
        "web": {
          "context": ".",
          "contexts": {
            "base": "target:base"
          },
          "dockerfile": "Dockerfile",
          "args": {
            "a": "\u003c\u0026\u003e",
            "b": "1"
          },
          "tags": [
            "web"
          ]
        }
      }
    }
    "#);
}

#[test]
fn what_is_printed_reads_as_the_same() {
    let text = r#"
        target "default" {
          args = { a = "$${x} %%{y}" }
          labels = { l = "$${z}" }
          dockerfile-inline = "RUN echo $${HOME}"
          secret = ["id=a,src=f"]
          cache-from = ["type=local,src=x"]
          output = ["type=local,dest=out"]
        }
    "#;
    let printed = plan(text, &[]).to_json();
    assert!(printed.contains("$${x} %%{y}"), "{printed}");
    let files = vec![super::support::file("docker-bake.json", &printed)];
    let again = super::support::read_all(files, &[])
        .unwrap()
        .plan(&[], &[])
        .unwrap();
    assert_eq!(again.to_json(), printed);
    assert_eq!(
        again.targets["default"].args["a"].as_deref(),
        Some("${x} %{y}")
    );
}
