//! Loading projects: files in, model and text out.

use insta::assert_snapshot;
use larder_compose::{Condition, ErrorKind, HealthTest, MountKind, Restart};

use crate::support::{self, Directory};

#[test]
fn a_project_is_shown_in_its_long_forms() {
    let directory = Directory::new(&[(
        "compose.yaml",
        r#"
services:
  api:
    build: .
    image: ${REGISTRY:-local}/api
    command: python -m "my app"
    ports: ["8000:8000", "127.0.0.1:9000-9001:9000-9001/udp", 53]
    environment: [A=1, FROM_SHELL, UNSET_ONE]
    volumes: [./app:/app:ro, /app/.venv, data:/data]
    depends_on: [db]
    x-note: ignored
  db:
    image: postgres:16
    healthcheck: {test: pg_isready, interval: 5s}
volumes:
  data:
"#,
    )]);
    let project = directory.with(&[("FROM_SHELL", "s$x")]).load().unwrap();
    assert_snapshot!(directory.redact(&project.to_yaml(true).unwrap()), @r#"
    name: [name]
    services:
      api:
        build:
          context: [dir]
          dockerfile: Dockerfile
        command:
          - python
          - -m
          - my app
        depends_on:
          db:
            condition: service_started
            required: true
        environment:
          A: "1"
          FROM_SHELL: s$$x
          UNSET_ONE: null
        image: local/api
        networks:
          default: null
        ports:
          - mode: ingress
            target: 8000
            published: "8000"
            protocol: tcp
          - mode: ingress
            host_ip: 127.0.0.1
            target: 9000
            published: "9000"
            protocol: udp
          - mode: ingress
            host_ip: 127.0.0.1
            target: 9001
            published: "9001"
            protocol: udp
          - mode: ingress
            target: 53
            protocol: tcp
        volumes:
          - type: bind
            source: [dir]/app
            target: /app
            read_only: true
            bind:
              create_host_path: true
          - type: volume
            target: /app/.venv
            volume: {}
          - type: volume
            source: data
            target: /data
            volume: {}
        x-note: ignored
      db:
        healthcheck:
          test:
            - CMD-SHELL
            - pg_isready
          interval: 5s
        image: postgres:16
        networks:
          default: null
    networks:
      default:
        name: [name]_default
    volumes:
      data:
        name: [name]_data
    "#);
}

#[test]
fn later_files_override_earlier_ones() {
    let directory = Directory::new(&[
        (
            "a.yaml",
            "services: {web: {image: a, ports: ['80:80'], environment: {A: '1', B: '1'}, command: x}}",
        ),
        (
            "sub/b.yaml",
            "services: {web: {build: ./web, ports: !override ['81:80'], environment: [B=2], command: !reset null}}",
        ),
    ]);
    let project = directory.files(&["a.yaml", "sub/b.yaml"]).load().unwrap();
    let web = &project.services["web"];
    assert_eq!(web.image.as_deref(), Some("a"));
    assert_eq!(web.command, None);
    assert_eq!(web.ports.len(), 1);
    assert_eq!(web.ports[0].published.as_deref(), Some("81"));
    let environment = web.resolve_environment(&project.variables).unwrap();
    assert_eq!(environment, support::pairs(&[("A", "1"), ("B", "2")]));
    // Paths of all files are relative to the first one's directory.
    let context = &web.build.as_ref().unwrap().context;
    assert_eq!(directory.redact(context), "[dir]/web");
}

#[test]
fn usual_files_are_found_upwards_with_their_override() {
    let directory = Directory::new(&[
        ("compose.yaml", "services: {a: {image: x}}"),
        ("docker-compose.yml", "services: {b: {image: x}}"),
        ("compose.override.yaml", "services: {a: {image: y}}"),
        ("deep/er/file", ""),
    ]);
    let mut options = directory.options();
    options.working_directory.push("deep/er");
    let project = options.load().unwrap();
    assert_eq!(project.services["a"].image.as_deref(), Some("y"));
    assert_eq!(
        directory.redact(&project.directory.to_string_lossy()),
        "[dir]"
    );
    let warning = project.warnings[0].to_string();
    assert!(
        warning.contains("compose.yaml, docker-compose.yml; using compose.yaml"),
        "{warning}"
    );

    let empty = Directory::new(&[]);
    let error = empty.options().load().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn variables_come_from_the_shell_then_from_env_files() {
    let directory = Directory::new(&[
        (
            "compose.yaml",
            "services: {a: {image: '${A}-${B}-${C}-${D:-none}', profiles: [p]}, b: {image: $COMPOSE_PROJECT_NAME}}",
        ),
        (
            ".env",
            "A=dotenv\nB=dotenv\nCOMPOSE_PROJECT_NAME=named\nCOMPOSE_PROFILES=p,q\nC=$A!",
        ),
        ("other.env", "D=other\nA=other"),
        ("last.env", "D=last"),
    ]);
    let project = directory.with(&[("A", "shell")]).load().unwrap();
    assert_eq!(project.name, "named");
    assert_eq!(
        project.services["a"].image.as_deref(),
        Some("shell-dotenv-shell!-none")
    );
    assert_eq!(project.services["b"].image.as_deref(), Some("named"));

    let mut options = directory.options();
    options.env_files = vec!["other.env".into(), "last.env".into()];
    options.profiles = vec!["*".to_owned()];
    let project = options.load().unwrap();
    assert_eq!(project.services["a"].image.as_deref(), Some("other---last"));
    assert_eq!(project.warnings.len(), 2, "{:?}", project.warnings);

    let named = directory.with(&[("COMPOSE_ENV_FILES", "other.env,last.env")]);
    let image = named.load().unwrap().services["b"].image.clone();
    assert_eq!(image, Some(project.name));
}

#[test]
fn files_are_named_by_the_environment_too() {
    let directory = Directory::new(&[
        ("one.yaml", "services: {a: {image: x}}"),
        ("two.yaml", "name: second\nservices: {b: {image: x}}"),
    ]);
    let project = directory
        .with(&[("COMPOSE_FILE", "one.yaml:two.yaml")])
        .load()
        .unwrap();
    assert_eq!(project.name, "second");
    assert_eq!(project.services.len(), 2);
}

#[test]
fn services_extend_others() {
    let directory = Directory::new(&[
        (
            "compose.yaml",
            r"
services:
  base: {image: x, environment: {A: base, B: base}, command: [run]}
  here: {extends: base, environment: {B: here}}
  there:
    extends: {file: lib/common.yaml, service: worker}
    environment: {C: there}
",
        ),
        (
            "lib/common.yaml",
            r"
services:
  root: {build: ./src, env_file: root.env}
  worker: {extends: {service: root}, environment: [A=worker], volumes: ['./data:/data']}
",
        ),
    ]);
    let project = directory.options().load().unwrap();
    let here = &project.services["here"];
    let environment = here.resolve_environment(&project.variables).unwrap();
    assert_eq!(environment, support::pairs(&[("A", "base"), ("B", "here")]));
    assert_eq!(here.command.as_deref(), Some(&["run".to_owned()][..]));
    let there = &project.services["there"];
    let build = there.build.as_ref().unwrap();
    assert_eq!(directory.redact(&build.context), "[dir]/lib/src");
    let source = there.mounts[0].source.as_deref().unwrap();
    assert_eq!(directory.redact(source), "[dir]/lib/data");
    assert_eq!(there.environment.len(), 2);
    let missing = there.resolve_environment(&project.variables).unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("services.there.env_file: env file"),
        "{missing}"
    );
}

#[test]
fn other_projects_are_included() {
    let directory = Directory::new(&[
        (
            "compose.yaml",
            "include: [db/compose.yaml, {path: [q/a.yaml, q/b.yaml], project_directory: ., env_file: q/q.env}]\nservices: {api: {image: x, depends_on: [db, queue]}}",
        ),
        (
            "db/compose.yaml",
            "name: other\nservices: {db: {build: ., image: $IMAGE, volumes: ['data:/d']}}\nvolumes: {data: }",
        ),
        ("db/.env", "IMAGE=postgres"),
        ("q/a.yaml", "services: {queue: {build: ./q, image: a}}"),
        ("q/b.yaml", "services: {queue: {image: $Q}}"),
        ("q/q.env", "Q=rabbit"),
    ]);
    let project = directory.options().load().unwrap();
    let db = &project.services["db"];
    assert_eq!(db.image.as_deref(), Some("postgres"));
    assert_eq!(
        directory.redact(&db.build.as_ref().unwrap().context),
        "[dir]/db"
    );
    let queue = &project.services["queue"];
    assert_eq!(queue.image.as_deref(), Some("rabbit"));
    assert_eq!(
        directory.redact(&queue.build.as_ref().unwrap().context),
        "[dir]/q"
    );
    let order = project.in_order(&["api"]).unwrap();
    let order: Vec<&str> = order.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(order, ["db", "queue", "api"]);
}

#[test]
fn anchors_and_merge_keys_are_resolved() {
    let directory = Directory::new(&[(
        "compose.yaml",
        r"
x-base: &base
  image: x
  environment: &env {A: '1', B: '1'}
services:
  a: {<<: *base, command: [a]}
  b:
    <<: [{image: y}, *base]
    environment: {<<: *env, B: '2'}
",
    )]);
    let project = directory.options().load().unwrap();
    assert_eq!(project.services["a"].image.as_deref(), Some("x"));
    let b = &project.services["b"];
    assert_eq!(b.image.as_deref(), Some("y"));
    let environment = b.resolve_environment(&project.variables).unwrap();
    assert_eq!(environment, support::pairs(&[("A", "1"), ("B", "2")]));
}

#[test]
fn profiles_turn_services_on() {
    let directory = Directory::new(&[(
        "compose.yaml",
        "services: {a: {image: x}, b: {image: x, profiles: [dev, test]}, c: {image: x, profiles: [ops], depends_on: [b]}}",
    )]);
    let names = |profiles: &[&str]| {
        let mut options = directory.options();
        options.profiles = profiles.iter().map(ToString::to_string).collect();
        let project = options.load().unwrap();
        project.services.into_keys().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&[]), "a");
    assert_eq!(names(&["dev"]), "a b");
    assert_eq!(names(&["*"]), "a b c");
    let mut project = directory.options().load().unwrap();
    project.enable(&["c"]).unwrap();
    let error = project.in_order(&["c"]).unwrap_err().to_string();
    assert!(error.contains("service `b` is required by `c` but is disabled; it can be enabled by profiles [dev test]"), "{error}");
    assert!(
        project
            .enable(&["nope"])
            .unwrap_err()
            .to_string()
            .contains("no such service: nope")
    );
    assert_eq!(
        project.profiles().into_iter().collect::<Vec<_>>(),
        ["dev", "ops", "test"]
    );
}

#[test]
fn the_model_holds_what_runs_a_service() {
    let directory = Directory::new(&[(
        "compose.yaml",
        r#"
services:
  a:
    image: x
    entrypoint: ["sh", "-c"]
    user: "1000:1000"
    working_dir: /w
    restart: on-failure:3
    stop_signal: SIGINT
    stop_grace_period: 1m30s
    healthcheck: {test: [CMD, ok], interval: 1s, retries: 5, start_period: 2s}
    depends_on:
      b: {condition: service_healthy}
      c: {condition: service_completed_successfully, required: false}
    volumes:
      - {type: tmpfs, target: /t, tmpfs: {size: 1m}}
      - {type: volume, source: v, target: /v, read_only: true, volume: {nocopy: true}}
    extra_hosts: {h: [1.2.3.4, '::1'], i: host-gateway}
    ulimits: {nofile: {soft: 1, hard: 2}, nproc: 3}
    shm_size: 1g
    secrets: [token, {source: token, target: /other, mode: 0440}]
  b: {image: x, healthcheck: {disable: true}}
  c: {image: x, healthcheck: {test: [NONE]}}
volumes: {v: {name: outside, external: true}}
secrets: {token: {environment: TOKEN}}
"#,
    )]);
    let project = directory.options().load().unwrap();
    let a = &project.services["a"];
    assert_eq!(a.restart, Restart::OnFailure(Some(3)));
    assert_eq!(a.stop_grace_period.unwrap().as_secs(), 90);
    let check = a.healthcheck.as_ref().unwrap();
    assert_eq!(check.test, Some(HealthTest::Command(vec!["ok".to_owned()])));
    assert_eq!(check.retries, Some(5));
    let conditions: Vec<_> = a
        .depends_on
        .iter()
        .map(|needed| (needed.condition, needed.is_required))
        .collect();
    assert_eq!(
        conditions,
        [
            (Condition::Healthy, true),
            (Condition::CompletedSuccessfully, false)
        ]
    );
    assert_eq!(a.mounts[0].kind, MountKind::Tmpfs);
    assert_eq!(a.mounts[0].size_bytes, Some(1 << 20));
    assert!(a.mounts[1].is_readonly && a.mounts[1].no_copy);
    assert_eq!(a.extra_hosts, ["h=1.2.3.4", "h=::1", "i=host-gateway"]);
    assert_eq!(
        (a.ulimits[0].soft, a.ulimits[0].hard, a.ulimits[1].hard),
        (1, 2, 3)
    );
    assert_eq!(a.shm_size_bytes, Some(1 << 30));
    assert_eq!(a.secrets[1].mode, Some(0o440));
    assert_eq!(project.volumes["v"].name, "outside");
    for other in ["b", "c"] {
        let check = project.services[other].healthcheck.as_ref().unwrap();
        assert_eq!(check.test, Some(HealthTest::Disabled), "{other}");
    }
}

#[test]
fn json_says_the_same() {
    let directory = Directory::new(&[("compose.yaml", "services: {a: {image: x}}")]);
    let project = directory.options().load().unwrap();
    let json: serde_json::Value = serde_json::from_str(&project.to_json(true).unwrap()).unwrap();
    assert_eq!(json["services"]["a"]["image"], "x");
}

#[test]
fn json_has_what_programs_look_for() {
    let directory = Directory::new(&[(
        "compose.yaml",
        "services: {a: {image: x, x-b: 1, deploy: {replicas: 2}}}\nx-top: [1]\n",
    )]);
    let project = directory.options().load().unwrap();
    assert_snapshot!(directory.redact(&project.to_json(true).unwrap()), @r#"
    {
      "name": "[name]",
      "networks": {
        "default": {
          "name": "[name]_default",
          "ipam": {}
        }
      },
      "services": {
        "a": {
          "command": null,
          "deploy": {
            "replicas": 2,
            "resources": {},
            "placement": {}
          },
          "entrypoint": null,
          "image": "x",
          "networks": {
            "default": null
          }
        }
      },
      "x-top": [
        1
      ]
    }
    "#);
}

/// What `docker compose config` 2.40 writes for the same file.
#[test]
fn values_are_shown_in_the_forms_of_compose() {
    let directory = Directory::new(&[
        (
            "compose.yaml",
            r#"
services:
  a:
    image: x
    label_file: labels
    labels: {b: "1", c: }
    cpus: "1.5"
    mem_limit: 1g
    memswap_limit: -1
    expose: [80, 90-92]
    privileged: "true"
    tty: false
    stop_grace_period: 90s
    devices: [/dev/a:/dev/b, /dev/c]
    gpus: all
    ulimits: {nofile: {hard: 2, soft: 1}, nproc: 5}
    secrets: [s, {source: s, target: /t, mode: 0440}]
    network_mode: service:b
    post_start: [{command: a b, environment: [A=1]}]
    environment: {A: "m1\nm2", B: "a: b", C: "12:30"}
  b:
    image: y
    networks: [n]
    build: {context: ., args: [SET, UNSET], ssh: [default], shm_size: 1k}
networks: {n: {driver_opts: {x: 1}}, unused: }
volumes: {unused: }
secrets: {s: {file: ./s}, unused: {file: ./u}}
"#,
        ),
        ("labels", "a=1\nb=2\n"),
    ]);
    let project = directory.with(&[("SET", "1")]).load().unwrap();
    assert_snapshot!(directory.redact(&project.to_yaml(true).unwrap()), @r#"
    name: [name]
    services:
      a:
        cpus: 1.5
        depends_on:
          b:
            condition: service_started
            restart: true
            required: true
        devices:
          - source: /dev/a
            target: /dev/b
            permissions: rwm
          - source: /dev/c
            target: /dev/c
            permissions: rwm
        environment:
          A: |-
            m1
            m2
          B: 'a: b'
          C: "12:30"
        expose:
          - "80"
          - 90-92
        gpus:
          - count: -1
        image: x
        labels:
          a: "1"
          b: "1"
          c: ""
        mem_limit: "1073741824"
        memswap_limit: "-1"
        network_mode: service:b
        privileged: true
        secrets:
          - source: s
            target: /run/secrets/s
          - source: s
            target: /t
            mode: "0440"
        stop_grace_period: 1m30s
        ulimits:
          nofile:
            soft: 1
            hard: 2
          nproc: 5
        post_start:
          - command:
              - a
              - b
            environment:
              A: "1"
      b:
        build:
          context: [dir]
          dockerfile: Dockerfile
          args:
            SET: "1"
          ssh:
            - default
          shm_size: "1024"
        image: "y"
        networks:
          "n": null
    networks:
      "n":
        name: [name]_n
        driver_opts:
          x: "1"
    secrets:
      s:
        name: [name]_s
        file: [dir]/s
    "#);
}

#[test]
fn services_need_those_whose_namespaces_links_and_volumes_they_use() {
    let directory = Directory::new(&[(
        "compose.yaml",
        "services:\n  a: {image: x, pid: 'service:b', links: ['c:d'], volumes_from: ['d:ro', 'container:e']}\n  b: {image: x}\n  c: {image: x}\n  d: {image: x}\n",
    )]);
    let project = directory.options().load().unwrap();
    let needed = project.services["a"].depends_on.iter();
    let needed: Vec<&str> = needed.map(|other| other.service.as_str()).collect();
    assert_eq!(needed, ["c", "b", "d"]);
}

#[test]
fn a_named_service_turns_on_all_of_its_profiles() {
    let directory = Directory::new(&[(
        "compose.yaml",
        "services: {a: {image: x, profiles: [p, q], depends_on: [b]}, b: {image: x, profiles: [q]}, c: {image: x, profiles: [r]}}",
    )]);
    let mut project = directory.options().load().unwrap();
    project.enable(&["a"]).unwrap();
    assert_eq!(project.services.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(project.in_order(&["a"]).unwrap().len(), 2);
}

#[test]
fn the_env_file_can_be_turned_off() {
    let directory = Directory::new(&[
        ("compose.yaml", "services: {a: {image: 'x${A}'}}"),
        (".env", "A=1"),
    ]);
    for (value, expect) in [("0", "x1"), ("1", "x")] {
        let options = directory.with(&[("COMPOSE_DISABLE_ENV_FILE", value)]);
        let project = options.load().unwrap();
        assert_eq!(project.services["a"].image.as_deref(), Some(expect));
    }
}

#[test]
fn what_says_nothing_is_let_pass() {
    for service in [
        "image: x\n    ports:\n",
        "image: x\n    ulimits: {nofile: {soft: 1}}\n",
        "image: x\n    depends_on: {gone: {condition: service_started, required: false}}\n",
    ] {
        let text = format!("services:\n  a:\n    {service}");
        let directory = Directory::new(&[("compose.yaml", &text)]);
        let project = directory.options().load();
        assert!(project.is_ok(), "{text}\n{project:?}");
    }
}
