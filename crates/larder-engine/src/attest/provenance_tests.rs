use insta::assert_snapshot;
use larder_dockerfile::{
    Dockerfile, ImageRequest, ImageResolver, LowerOptions, ResolveError, ResolvedImage,
};
use larder_oci::ImageConfig;

use super::*;
use crate::request::ContextSource;

/// Every image exists.
struct Images;

impl ImageResolver for Images {
    fn resolve_image_config(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let mut config = ImageConfig {
            architecture: request.platform.architecture.clone(),
            os: "linux".to_owned(),
            ..ImageConfig::default()
        };
        config.rootfs.diff_ids.push(Digest::sha256("layer"));
        Ok(ResolvedImage {
            image_ref: request.image_ref.clone(),
            digest: Digest::sha256(request.image_ref.familiar()),
            config,
        })
    }
}

const DOCKERFILE: &str = "\
FROM busybox AS tools
RUN --network=none --mount=type=secret,id=key,required=true a
FROM reg.example:5000/base:1
ARG MODE
COPY --from=tools /a /b
RUN --mount=type=secret,id=key,env=KEY --mount=type=secret,id=other b
";

fn lowered(text: &str) -> Lowered {
    let options = LowerOptions {
        build_platform: Platform::linux("amd64", ""),
        build_args: [("MODE".to_owned(), "fast".to_owned())].into(),
        ..LowerOptions::default()
    };
    let dockerfile = Dockerfile::parse(text.as_bytes(), "Dockerfile").unwrap();
    dockerfile.lower(&options, &Images).unwrap()
}

fn request() -> RequestFacts {
    let mut request = BuildRequest::new(ContextSource::Empty);
    request.build_args = vec![("MODE".to_owned(), "fast".to_owned())];
    request.target = Some("app".to_owned());
    RequestFacts {
        file_name: "Dockerfile".to_owned(),
        ..RequestFacts::of(&request)
    }
}

fn made_with(options: &Provenance, request: &RequestFacts, text: &str, at: i64) -> (String, Value) {
    let lowered = lowered(text);
    let time = |seconds| Timestamp::from_second(seconds).unwrap();
    let layer = Descriptor::of("application/vnd.oci.image.layer.v1.tar+gzip", b"layer");
    let facts = Facts {
        request,
        lowered: &lowered,
        platform: &Platform::linux("amd64", ""),
        further: Vec::new(),
        times: Some((time(at), time(at + 5))),
        layers: &[layer],
        fetched: &BTreeMap::new(),
    };
    let (kind, mut predicate) = predicate(options, &facts);
    // The host's own platform is not what is tested.
    let host = Platform::host().to_string();
    let text = predicate.to_string().replace(&host, "linux/host");
    predicate = serde_json::from_str(&text).unwrap();
    (kind.to_owned(), predicate)
}

fn made(options: &Provenance) -> (String, Value) {
    made_with(options, &request(), DOCKERFILE, 1_000_000_000)
}

/// Returns a predicate without its id, which depends on the host.
fn pretty(value: &Value) -> String {
    let id = &value["runDetails"]["metadata"]["invocationId"];
    let id = id
        .as_str()
        .or(value["metadata"]["buildInvocationID"].as_str());
    format!("{value:#}").replace(id.unwrap(), "[ID]")
}

#[test]
fn a_short_provenance_has_what_was_built_from_what() {
    let (kind, predicate) = made(&Provenance {
        mode: ProvenanceMode::Min,
        builder_id: "https://ci.example/7".to_owned(),
        ..Provenance::default()
    });
    assert_eq!(kind, "https://slsa.dev/provenance/v1");
    assert_snapshot!(pretty(&predicate), @r#"
    {
      "buildDefinition": {
        "buildType": "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md",
        "resolvedDependencies": [
          {
            "uri": "pkg:docker/busybox@latest?platform=linux%2Famd64",
            "digest": {
              "sha256": "3726e854f7e14d58c1dc2b1156c3759b194984a1e8484ee0f3e637bc0212cad8"
            }
          },
          {
            "uri": "pkg:docker/reg.example:5000/base@1?platform=linux%2Famd64",
            "digest": {
              "sha256": "f3cb463df5aba0c49312b94b36c02a9dc788bada26a9faa59bfecb3cae7aa6d0"
            }
          }
        ],
        "externalParameters": {
          "configSource": {
            "path": "Dockerfile"
          },
          "request": {
            "frontend": "dockerfile.v0",
            "args": {
              "target": "app"
            },
            "locals": [
              {
                "name": "context"
              },
              {
                "name": "dockerfile"
              }
            ]
          }
        },
        "internalParameters": {
          "builderPlatform": "linux/host"
        }
      },
      "runDetails": {
        "builder": {
          "id": "https://ci.example/7"
        },
        "metadata": {
          "invocationId": "[ID]",
          "startedOn": "2001-09-09T01:46:40Z",
          "finishedOn": "2001-09-09T01:46:45Z",
          "buildkit_metadata": {},
          "buildkit_completeness": {
            "request": false,
            "resolvedDependencies": false
          }
        }
      }
    }
    "#);
}

#[test]
fn a_long_one_has_the_graph_and_the_file() {
    let (_, predicate) = made(&Provenance {
        is_reproducible: true,
        ..Provenance::default()
    });
    let definition = &predicate["buildDefinition"];
    let request = &definition["externalParameters"]["request"];
    assert_eq!(request["args"]["build-arg:MODE"], "fast");
    assert_eq!(
        request["secrets"],
        json!([{"id": "key"}, {"id": "other", "optional": true}])
    );
    let metadata = &predicate["runDetails"]["metadata"];
    assert_eq!(metadata["buildkit_completeness"]["request"], true);
    assert_eq!(metadata["buildkit_reproducible"], true);

    let config = &definition["internalParameters"]["buildConfig"];
    let steps = config["llbDefinition"].as_array().unwrap();
    for (number, step) in steps.iter().enumerate() {
        assert_eq!(step["id"], format!("step{number}"));
        for input in step["inputs"].as_array().into_iter().flatten() {
            let (input, _) = input.as_str().unwrap()[4..].split_once(':').unwrap();
            assert!(input.parse::<usize>().unwrap() < number, "{step}");
        }
    }
    let last = steps.len() - 1;
    assert_eq!(steps[last]["op"], json!({"Op": {}}));
    let result = steps[last]["inputs"][0].as_str().unwrap().to_owned();
    assert_eq!(result, format!("step{}:0", last - 1));
    assert_eq!(
        config["digestMapping"].as_object().unwrap().len(),
        steps.len()
    );

    let own = &metadata["buildkit_metadata"];
    assert_eq!(own["layers"][&result][0].as_array().unwrap().len(), 1);
    assert_eq!(own["source"]["infos"][0]["filename"], "Dockerfile");
    let step = result.split(':').next().unwrap();
    let place = &own["source"]["locations"][step]["locations"][0]["ranges"][0];
    assert_eq!(place["start"]["line"], 6);
}

#[test]
fn the_older_version_says_the_same_in_other_places() {
    let (kind, predicate) = made(&Provenance {
        mode: ProvenanceMode::Min,
        version: SlsaVersion::V02,
        ..Provenance::default()
    });
    assert_eq!(kind, "https://slsa.dev/provenance/v0.2");
    assert_snapshot!(pretty(&predicate), @r#"
    {
      "builder": {
        "id": ""
      },
      "buildType": "https://mobyproject.org/buildkit@v1",
      "materials": [
        {
          "uri": "pkg:docker/busybox@latest?platform=linux%2Famd64",
          "digest": {
            "sha256": "3726e854f7e14d58c1dc2b1156c3759b194984a1e8484ee0f3e637bc0212cad8"
          }
        },
        {
          "uri": "pkg:docker/reg.example:5000/base@1?platform=linux%2Famd64",
          "digest": {
            "sha256": "f3cb463df5aba0c49312b94b36c02a9dc788bada26a9faa59bfecb3cae7aa6d0"
          }
        }
      ],
      "invocation": {
        "configSource": {
          "entryPoint": "Dockerfile"
        },
        "parameters": {
          "frontend": "dockerfile.v0",
          "args": {
            "target": "app"
          },
          "locals": [
            {
              "name": "context"
            },
            {
              "name": "dockerfile"
            }
          ]
        },
        "environment": {
          "platform": "linux/host"
        }
      },
      "metadata": {
        "buildInvocationID": "[ID]",
        "buildStartedOn": "2001-09-09T01:46:40Z",
        "buildFinishedOn": "2001-09-09T01:46:45Z",
        "completeness": {
          "parameters": false,
          "environment": true,
          "materials": false
        },
        "reproducible": false,
        "https://mobyproject.org/buildkit@v1#metadata": {}
      }
    }
    "#);
}

#[test]
fn only_what_differs_changes_a_provenance() {
    let options = Provenance::default();
    let id = |value: &Value| value["runDetails"]["metadata"]["invocationId"].clone();
    let (_, first) = made(&options);
    assert_eq!(first, made(&options).1);
    assert_eq!(id(&first).as_str().unwrap().len(), 25);
    let later = made_with(&options, &request(), DOCKERFILE, 1_000_000_001).1;
    let other = made_with(&options, &request(), "FROM busybox\n", 1_000_000_000).1;
    let mut request = request();
    request.args.insert("target".to_owned(), "x".to_owned());
    let asked = made_with(&options, &request, DOCKERFILE, 1_000_000_000).1;
    for changed in [later, other, asked] {
        assert_ne!(id(&changed), id(&first));
    }
}

#[test]
fn what_is_closed_and_without_network_is_hermetic() {
    let remote = RequestFacts::default();
    let is_hermetic = |request: &RequestFacts, text: &str| {
        let (_, predicate) = made_with(&Provenance::default(), request, text, 0);
        let metadata = &predicate["runDetails"]["metadata"];
        let complete = &metadata["buildkit_completeness"]["resolvedDependencies"];
        (
            complete.clone(),
            metadata.get("buildkit_hermetic").is_some(),
        )
    };
    let offline = "FROM busybox\nRUN --network=none a\n";
    assert_eq!(is_hermetic(&remote, offline), (true.into(), true));
    assert_eq!(
        is_hermetic(&remote, "FROM busybox\nRUN a\n"),
        (true.into(), false)
    );
    assert_eq!(is_hermetic(&request(), offline), (false.into(), false));
    assert_eq!(
        is_hermetic(&remote, "FROM busybox\nCOPY a /\n"),
        (false.into(), false)
    );
}

#[test]
fn clients_leave_out_details() {
    for version in [SlsaVersion::V1, SlsaVersion::V02] {
        let (_, whole) = made(&Provenance {
            version,
            ..Provenance::default()
        });
        let text = without_details(whole).to_string();
        for absent in ["buildConfig", "metadata", "nvocationI"] {
            assert!(!text.contains(absent), "{text}");
        }
        assert!(text.contains("pkg:docker/busybox@latest"), "{text}");
    }
}

#[test]
fn sources_are_pinned_by_what_came_of_them() {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let lowered = lowered(
        "FROM scratch\nADD https://u:p@git.example/a.git#main /a\nADD https://h.example/b /b\n\
         ADD https://u:p@h.example/c /c\n",
    );
    let sources = lowered.definition.vertices().iter().filter_map(|vertex| {
        let Some(pb::op::Op::Source(source)) = &vertex.op.op else {
            return None;
        };
        let pin = match &source.identifier {
            id if id.starts_with("git://") => material::commit(commit),
            id if id.ends_with("/b") => material::pair(&Digest::sha256("b")),
            _ => return None,
        };
        Some((vertex.digest.clone(), pin))
    });
    let platform = Platform::linux("amd64", "");
    let inputs = material::inputs(&lowered, &platform, &sources.collect());
    assert!(inputs.is_open, "one is pinned by nothing");
    let steps = Steps::new(&lowered.definition).build_config().to_string();
    assert!(!steps.contains("u:p@"), "{steps}");
    let materials = inputs.materials.iter().map(Material::to_json);
    assert_eq!(
        Value::Array(materials.collect()),
        json!([
            {"uri": "https://h.example/b", "digest": {"sha256": Digest::sha256("b").hex()}},
            {"uri": "https://xxxxx:xxxxx@git.example/a.git#main", "digest": {"sha1": commit}},
            {"uri": "https://xxxxx:xxxxx@h.example/c"},
        ])
    );
}

#[test]
fn a_context_from_afar_is_where_the_dockerfile_is() {
    let url = "https://u:p@git.example/a.git#main";
    let request = BuildRequest::new(ContextSource::Remote(url.to_owned()));
    let request = RequestFacts::of(&request);
    let text = format!("FROM scratch\nADD {url} /\n");
    let (_, predicate) = made_with(&Provenance::default(), &request, &text, 0);
    let external = &predicate["buildDefinition"]["externalParameters"];
    assert_eq!(
        external["configSource"],
        json!({"uri": "https://xxxxx:xxxxx@git.example/a.git#main", "path": ""})
    );
    assert_eq!(external["request"].get("locals"), None);
}

#[test]
fn the_repository_of_the_context_is_told() {
    let mut request = request();
    request.vcs = Some(Vcs {
        source: Some("https://git.example/a".to_owned()),
        revision: Some("0123".to_owned()),
        context: Some(".".to_owned()),
        dockerfile: None,
    });
    let told = json!({
        "localdir:context": ".",
        "revision": "0123",
        "source": "https://git.example/a",
    });
    let options = |version| Provenance {
        mode: ProvenanceMode::Min,
        version,
        ..Provenance::default()
    };
    let (_, v1) = made_with(&options(SlsaVersion::V1), &request, DOCKERFILE, 0);
    assert_eq!(
        v1["runDetails"]["metadata"]["buildkit_metadata"]["vcs"],
        told
    );
    let (_, v02) = made_with(&options(SlsaVersion::V02), &request, DOCKERFILE, 0);
    assert_eq!(
        v02["metadata"][format!("{BUILD_TYPE_V02}#metadata")]["vcs"],
        told
    );
}
