//! The fields of exec ops, each with what a step sees of it.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::path::Path;

use fs_err as fs;
use larder_llb::pb;
use larder_testkit::{Base, Project, project, skip};

use crate::graph::{Graph, State, bind, build, copy, feed, files, mkdir, mkfile, rm};

/// Steps that each write to a file of their own, so that one build shows what came of all.
struct Steps {
    graph: Graph,
    base: State,
    /// Has a directory `o` that everybody may write to.
    open: State,
    /// Has the file `sub/seed`.
    seed: State,
    /// Each step's name, its output, and what the file must hold.
    done: Vec<(&'static str, State, &'static str)>,
}

/// What makes a step another one.
type Change = Box<dyn FnOnce(&mut pb::ExecOp)>;

/// The index of `Steps::seed` among the inputs of a step.
const SEED: i64 = 2;

impl Steps {
    fn new() -> Self {
        let mut graph = Graph::default();
        let base = graph.busybox();
        let open = pb::FileActionMkDir {
            path: "/o".to_owned(),
            mode: 0o777,
            timestamp: -1,
            ..pb::FileActionMkDir::default()
        };
        let open = pb::file_action::Action::Mkdir(open);
        let open = graph.file(vec![(-1, -1, 0, open)], &[]);
        let actions = vec![
            (-1, -1, -1, mkdir("/sub")),
            (0, -1, 0, mkfile("/sub/seed", "seed")),
        ];
        let seed = graph.file(actions, &[]);
        let done = Vec::new();
        Self {
            graph,
            base,
            open,
            seed,
            done,
        }
    }

    /// Adds a step; what `command` prints must be `expected`.
    fn add(
        &mut self,
        name: &'static str,
        command: &str,
        expected: &'static str,
        change: impl FnOnce(&mut pb::ExecOp),
    ) {
        let command = format!("exec > /out/{name} && {command}");
        let out = pb::Mount {
            selector: "o".to_owned(),
            ..bind("/out", 1)
        };
        let mounts = [(&self.open, out), (&self.seed, bind("/unused", -1))];
        let step = self.graph.run(&self.base, &command, &mounts, |exec| {
            exec.mounts.truncate(2);
            change(exec);
        });
        self.done.push((name, State { index: 1, ..step }, expected));
    }

    /// Adds a step that differs by its process.
    fn meta(
        &mut self,
        name: &'static str,
        command: &str,
        expected: &'static str,
        change: impl FnOnce(&mut pb::Meta),
    ) {
        self.add(name, command, expected, |exec| {
            change(exec.meta.as_mut().unwrap());
        });
    }

    /// Adds a step that differs by further mounts.
    fn mounts<const N: usize>(
        &mut self,
        name: &'static str,
        command: &str,
        expected: &'static str,
        mounts: [pb::Mount; N],
    ) {
        self.add(name, command, expected, |exec| exec.mounts.extend(mounts));
    }

    /// Returns the definition of all that the steps wrote.
    fn definition(&mut self) -> Vec<u8> {
        let count = self.done.len() as i64;
        let actions = (0..count).map(|place| {
            let name = self.done[place as usize].0;
            let previous = if place == 0 { -1 } else { count + place - 1 };
            let output = if place == count - 1 { 0 } else { -1 };
            (previous, place, output, copy(&format!("/o/{name}"), "/"))
        });
        let actions = actions.collect();
        let inputs: Vec<&State> = self.done.iter().map(|(_, state, _)| state).collect();
        let all = self.graph.file(actions, &inputs);
        self.graph.of(&all)
    }

    /// Builds all of them at once, and compares.
    fn check(mut self, project: &Project, flags: &[&str]) {
        let out = project.scratch().join("out");
        let flags = [flags, &["-o", out.to_str().unwrap()]].concat();
        let _ = build(project, &flags, &self.definition()).success();
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        let found: BTreeMap<_, _> = self.done.iter().map(|it| (it.0, read(it.0))).collect();
        let expected = self.done.iter().map(|it| (it.0, format!("{}\n", it.2)));
        assert_eq!(found, expected.collect());
    }
}

fn mount(kind: pb::MountType, dest: &str) -> pb::Mount {
    pb::Mount {
        input: -1,
        mount_type: kind.into(),
        ..bind(dest, -1)
    }
}

fn seed(dest: &str, selector: &str) -> pb::Mount {
    pb::Mount {
        input: SEED,
        selector: selector.to_owned(),
        readonly: true,
        ..bind(dest, -1)
    }
}

fn cache(dest: &str, id: &str, sharing: pb::CacheSharingOpt) -> pb::Mount {
    pb::Mount {
        cache_opt: Some(pb::CacheOpt {
            id: id.to_owned(),
            sharing: sharing.into(),
        }),
        ..mount(pb::MountType::Cache, dest)
    }
}

fn secret(dest: &str, change: impl FnOnce(&mut pb::SecretOpt)) -> pb::Mount {
    let mut option = pb::SecretOpt {
        id: "token".to_owned(),
        mode: 0o400,
        ..pb::SecretOpt::default()
    };
    change(&mut option);
    pb::Mount {
        secret_opt: Some(option),
        ..mount(pb::MountType::Secret, dest)
    }
}

fn agent(dest: &str, change: impl FnOnce(&mut pb::SshOpt)) -> pb::Mount {
    let mut option = pb::SshOpt {
        mode: 0o600,
        ..pb::SshOpt::default()
    };
    change(&mut option);
    pb::Mount {
        ssh_opt: Some(option),
        ..mount(pb::MountType::Ssh, dest)
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn a_process_is_what_the_op_says() {
    let project = project!(Base::Busybox);
    let mut steps = Steps::new();
    steps.meta("args", "echo \"$0,$1,$#\"", "zero,o  ne,1", |meta| {
        meta.args.extend(texts(&["zero", "o  ne"]));
    });
    let show = "echo \"$A,$B,$PATH,$HOME\"";
    steps.meta("env", show, "1,x  y=z,/bin,/h", |meta| {
        meta.env = texts(&["A=1", "B=x  y=z", "PATH=/bin", "HOME=/h"]);
    });
    let path = ",,/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin,/root";
    steps.meta("no-env", show, path, |_| {});
    let cwd = "pwd; stat -c '%a %u' .";
    steps.meta("cwd", cwd, "/new/dir\n755 0", |meta| {
        meta.cwd = "/new/dir".to_owned();
    });
    for (name, user, expected) in [
        ("no-user", "", "0 0 0"),
        ("user-numbers", "1234:5678", "1234 5678 5678"),
        ("user-name", "www-data", "33 33 33"),
        ("user-and-group", "www-data:0", "33 0 0"),
    ] {
        let id = "echo $(id -u) $(id -g) $(id -G)";
        steps.meta(name, id, expected, |meta| meta.user = user.to_owned());
    }
    let proxies = "echo $http_proxy,$HTTPS_PROXY,$ftp_proxy,$NO_PROXY,$all_proxy,$ALL_PROXY";
    steps.meta("proxies", proxies, "h,s,f,n,a,a", |meta| {
        let [http, https, ftp, none, all] = ["h", "s", "f", "n", "a"].map(str::to_owned);
        meta.proxy_env = Some(pb::ProxyEnv {
            http_proxy: http,
            https_proxy: https,
            ftp_proxy: ftp,
            no_proxy: none,
            all_proxy: all,
        });
    });
    let hosts = "grep -E 'one|two' /etc/hosts | tr '\\t' ' '";
    steps.meta("hosts", hosts, "10.0.0.1 one\nfe80::2 two", |meta| {
        let host = |host: &str, ip: &str| pb::HostIp {
            host: host.to_owned(),
            ip: ip.to_owned(),
        };
        meta.extra_hosts = vec![host("one", "10.0.0.1"), host("two", "fe80::2")];
    });
    let hostname = "hostname; grep -c elsewhere /etc/hosts";
    steps.meta("hostname", hostname, "elsewhere\n1", |meta| {
        meta.hostname = "elsewhere".to_owned();
    });
    steps.meta("no-hostname", "hostname", "buildkitsandbox", |_| {});
    let limits = "ulimit -Sn; ulimit -Hn; ulimit -Sc";
    steps.meta("limits", limits, "100\n200\n0", |meta| {
        let limit = |name: &str, soft, hard| pb::Ulimit {
            name: name.to_owned(),
            soft,
            hard,
        };
        meta.ulimit = vec![limit("nofile", 100, 200), limit("CORE", 0, 0)];
    });
    steps.meta("exit-codes", "echo done; exit 7", "done", |meta| {
        meta.valid_exit_codes = vec![3, 7];
    });
    steps.add("no-network", "ls /sys/class/net", "lo", |exec| {
        exec.set_network(pb::NetMode::None);
    });
    let variables = "echo \"$TOKEN,${NONE-unset}\"";
    steps.add("secret-variables", variables, "s3cret,", |exec| {
        let secret = |id: &str, name: &str, optional| pb::SecretEnv {
            id: id.to_owned(),
            name: name.to_owned(),
            optional,
        };
        exec.secretenv = vec![secret("token", "TOKEN", false), secret("no", "NONE", true)];
    });
    steps.add("no-device", "echo none", "none", |exec| {
        exec.cdi_devices = vec![pb::CdiDevice {
            name: "vendor1.com/device=none".to_owned(),
            optional: true,
        }];
    });
    let token = project.scratch().join("token");
    fs::write(&token, "s3cret").unwrap();
    let token = format!("id=token,src={}", token.display());
    steps.check(&project, &["--secret", &token]);
}

#[test]
fn mounts_are_what_the_op_says() {
    use pb::CacheSharingOpt::{Locked, Private, Shared};
    let project = project!(Base::Busybox);
    let mut steps = Steps::new();
    steps.mounts("bind", "cat /m/sub/seed; echo", "seed", [seed("/m", "")]);
    let dir = "ls /m; touch /m/x 2>&1 | sed 's/.*: //'";
    let read_only = "seed\nRead-only file system";
    steps.mounts("bind-part", dir, read_only, [seed("/m", "sub")]);
    let file = "cat /m/file; echo";
    steps.mounts("bind-file", file, "seed", [seed("/m/file", "/sub/seed")]);
    let nested = "cat /m/sub/seed; echo; ls /m/in";
    let mounts = [seed("/m/in", "sub"), mount(pb::MountType::Tmpfs, "/m")];
    let hidden = "cat: can't open '/m/sub/seed': No such file or directory\n\nseed";
    let nested = format!("{{ {nested}; }} 2>&1");
    steps.mounts("bind-in-tmpfs", &nested, hidden, mounts);
    steps.add("bind-beside-cwd", "ls rel; pwd", "seed\n/w", |exec| {
        exec.meta.as_mut().unwrap().cwd = "/w".to_owned();
        exec.mounts.push(seed("rel", "sub"));
    });
    let writable = pb::Mount {
        readonly: false,
        ..seed("/m", "sub")
    };
    let write = "echo more >> /m/seed && touch /m/new && cat /m/seed && ls /m";
    steps.mounts("bind-writable", write, "seedmore\nnew\nseed", [writable]);
    let empty = "ls -A /m | wc -l; touch /m/x; ls /m";
    let mount_of_nothing = mount(pb::MountType::Bind, "/m");
    steps.mounts("bind-of-nothing", empty, "0\nx", [mount_of_nothing]);

    let size = "df -k /m | tail -n 1 | awk '{print $1, $2}'; touch /m/x && ls /m";
    let mut tmpfs = mount(pb::MountType::Tmpfs, "/m");
    tmpfs.tmpfs_opt = Some(pb::TmpfsOpt { size: 1 << 20 });
    steps.mounts("tmpfs", size, "tmpfs 1024\nx", [tmpfs]);

    let share = "echo one > /a/f; cat /b/f 2>/dev/null || echo none; ls -d /a | xargs stat -c %a";
    for (name, ids, sharing, expected) in [
        ("cache-shared", ["x", "x"], Shared, "one\n755"),
        ("cache-locked", ["y", "y"], Locked, "one\n755"),
        ("cache-private", ["z", "z"], Private, "one\n755"),
        ("cache-other-id", ["v", "w"], Shared, "none\n755"),
    ] {
        let [a, b] = ids.map(|id| cache("/m", id, sharing));
        let [a, b] = [("/a", a), ("/b", b)].map(|(dest, mount)| pb::Mount {
            dest: dest.to_owned(),
            ..mount
        });
        steps.mounts(name, share, expected, [a, b]);
    }
    let seeded = |id| pb::Mount {
        input: SEED,
        selector: "sub".to_owned(),
        ..cache("/m", id, Shared)
    };
    let add = "cat /m/seed; echo more >> /m/seed; cat /m/seed";
    steps.mounts("cache-seeded", add, "seedseedmore", [seeded("s")]);
    let read_only = pb::Mount {
        readonly: true,
        ..seeded("r")
    };
    let refused = "seed\nRead-only file system";
    steps.mounts("cache-read-only", dir, refused, [read_only]);

    let show = "stat -c '%a %u %g' /m; cat /m; echo";
    let owned = |option: &mut pb::SecretOpt| {
        option.mode = 0o640;
        option.uid = 3;
        option.gid = 4;
    };
    let mounts = [secret("/m", owned)];
    steps.mounts("secret", show, "640 3 4\ns3cret", mounts);
    let missing = |option: &mut pb::SecretOpt| {
        option.id = "no".to_owned();
        option.optional = true;
    };
    let there = "test -e /m && echo there || echo none";
    steps.mounts("secret-missing", there, "none", [secret("/m", missing)]);

    let show = "stat -c '%F %a %u %g' /m";
    let owned = |option: &mut pb::SshOpt| {
        option.id = "key".to_owned();
        option.mode = 0o660;
        option.uid = 3;
        option.gid = 4;
    };
    steps.mounts("agent", show, "socket 660 3 4", [agent("/m", owned)]);
    let missing = |option: &mut pb::SshOpt| option.optional = true;
    steps.mounts("agent-missing", there, "none", [agent("/m", missing)]);

    let token = project.scratch().join("token");
    fs::write(&token, "s3cret").unwrap();
    let token = format!("id=token,src={}", token.display());
    let socket = project.scratch().join("agent");
    let _agent = UnixListener::bind(&socket).unwrap();
    let socket = format!("key={}", socket.display());
    steps.check(&project, &["--secret", &token, "--ssh", &socket]);
}

#[test]
fn what_a_step_asks_for_in_vain_is_named() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let base = graph.busybox();
    let mounted = |mount| -> Change { Box::new(|exec| exec.mounts.push(mount)) };
    let meta = |change: fn(&mut pb::Meta)| -> Change {
        Box::new(move |exec| change(exec.meta.as_mut().unwrap()))
    };
    let rows: [(Change, &str); 9] = [
        (
            mounted(secret("/m", |_| {})),
            "failed to solve: secret token: not found",
        ),
        (
            mounted(agent("/m", |option| option.id = "no".to_owned())),
            "no SSH",
        ),
        (
            mounted(pb::Mount {
                input: 0,
                selector: "/no/such".to_owned(),
                ..bind("/m", -1)
            }),
            "no such",
        ),
        (
            Box::new(|exec| exec.set_network(pb::NetMode::Host)),
            "failed to load LLB: network.host is not allowed",
        ),
        (
            Box::new(|exec| exec.set_security(pb::SecurityMode::Insecure)),
            "failed to load LLB: security.insecure is not allowed",
        ),
        (
            Box::new(|exec| {
                exec.cdi_devices = vec![pb::CdiDevice {
                    name: "none.com/a=b".to_owned(),
                    optional: false,
                }];
            }),
            "required device \"none.com/a=b\" is not registered",
        ),
        (
            meta(|meta| meta.user = "nobody-of-that-name".to_owned()),
            "nobody-of-that-name",
        ),
        (
            meta(|meta| meta.valid_exit_codes = vec![1]),
            "did not complete successfully: exit code: 0",
        ),
        (
            meta(|meta| meta.ulimit = vec![pb::Ulimit::default()]),
            "ulimit",
        ),
    ];
    for (change, expected) in rows {
        let step = graph.run(&base, "true", &[], change);
        let _ = build(&project, &[], &graph.of(&step))
            .exit(1)
            .says(expected);
    }
}

#[test]
fn what_is_allowed_is_had() {
    let project = project!(Base::Busybox);
    let mut steps = Steps::new();
    let network = "ls -d /proc/self && stat -L -c %i /proc/self/ns/net > /dev/null && echo ran";
    steps.add("network", network, "/proc/self\nran", |exec| {
        exec.set_network(pb::NetMode::Host);
    });
    let rights = "grep -c 'Seccomp:.0' /proc/self/status";
    steps.add("security", rights, "1", |exec| {
        exec.set_security(pb::SecurityMode::Insecure);
    });
    steps.add("device", "echo $FOO", "injected", |exec| {
        exec.cdi_devices = vec![pb::CdiDevice {
            name: "vendor1.com/device=foo".to_owned(),
            optional: false,
        }];
    });
    let specs = project.scratch().join("cdi");
    fs::create_dir(&specs).unwrap();
    let spec = "cdiVersion: 0.6.0\nkind: vendor1.com/device\ndevices:\n- name: foo\n  \
                containerEdits:\n    env: [FOO=injected]\n";
    fs::write(specs.join("vendor.yaml"), spec).unwrap();
    let config = project.scratch().join("larder.toml");
    fs::write(
        &config,
        format!("[cdi]\nspecDirs = [\"{}\"]\n", specs.display()),
    )
    .unwrap();
    let larder = project.larder().clone().with_env("LARDER_CONFIG", &config);
    let allow = "network.host security.insecure device=vendor1.com/device=foo";
    let mut flags = vec!["build", "--progress", "plain"];
    flags.extend(allow.split(' ').flat_map(|name| ["--allow", name]));
    let out = project.scratch().join("out");
    flags.extend(["-o", out.to_str().unwrap()]);
    let _ = feed(&larder, &flags, &steps.definition()).success();
    for (name, _, expected) in &steps.done {
        let found = fs::read_to_string(out.join(name)).unwrap();
        assert_eq!(found.trim_end(), *expected, "{name}");
    }
}

#[test]
fn mount_points_leave_no_trace() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let base = graph.busybox();
    let small = graph.file(vec![(-1, 0, 0, copy("/bin", "/bin"))], &[&base]);
    for removes_parents in [false, true] {
        let step = graph.run(&small, "test -d /a/b/c && echo x > /made", &[], |exec| {
            exec.mounts.push(mount(pb::MountType::Tmpfs, "/a/b/c"));
            exec.mounts.push(mount(pb::MountType::Tmpfs, "/bin/new/d"));
            let meta = exec.meta.as_mut().unwrap();
            meta.remove_mount_stubs_recursive = removes_parents;
        });
        let found = files(&project, &graph.of(&step));
        let top = found.keys().filter(|path| !path.starts_with("bin/"));
        let top: Vec<&str> = top.map(String::as_str).collect();
        assert_eq!(top, ["bin", "dev", "made", "proc", "sys"]);
        assert!(!found.contains_key("bin/new"), "{found:?}");
    }
}

#[test]
fn content_stands_for_an_input_if_the_mount_lets_it() {
    use pb::MountContentCache::{Default, Off, On};
    let project = project!(Base::Busybox);
    // The same tree, made in two ways.
    let inputs = |graph: &mut Graph, way: usize| {
        let mut actions = vec![(-1, -1, -1, mkfile("/f", "x"))];
        for place in 0..way as i64 {
            actions.push((2 * place, -1, -1, mkfile("/g", "y")));
            actions.push((2 * place + 1, -1, -1, rm("/g", false)));
        }
        actions.last_mut().unwrap().2 = 0;
        for (_, _, _, action) in &mut actions {
            if let pb::file_action::Action::Mkfile(mkfile) = action {
                mkfile.timestamp = 0;
            }
        }
        graph.file(actions, &[])
    };
    let draw = |way: usize, content_cache: pb::MountContentCache, readonly: bool| {
        let mut graph = Graph::default();
        let base = graph.busybox();
        let input = inputs(&mut graph, way);
        let input_mount = pb::Mount {
            readonly,
            content_cache: content_cache.into(),
            ..bind("/m", if readonly { -1 } else { 1 })
        };
        let command = "cat /proc/sys/kernel/random/uuid > /drawn";
        let step = graph.run(&base, command, &[(&input, input_mount)], |_| {});
        let drawn = graph.file(vec![(-1, 0, 0, copy("/drawn", "/"))], &[&step]);
        files(&project, &graph.of(&drawn))["drawn"].clone()
    };
    for (content_cache, readonly, is_same) in [
        (Default, true, true),
        (On, true, true),
        (Off, true, false),
        (Default, false, true),
        (On, false, true),
        (Off, false, false),
    ] {
        let first = draw(0, content_cache, readonly);
        assert_eq!(first, draw(0, content_cache, readonly));
        let second = draw(1, content_cache, readonly);
        assert_eq!(first == second, is_same, "{content_cache:?} {readonly}");
    }
}

/// Returns what the cgroup of a step says, whichever version the machine has.
const CGROUP: &str = "mkdir /v1 /v1/cpu /v1/set /v1/mem; \
    if mount -t cgroup -o cpu none /v1/cpu; then \
        cat /v1/cpu/cpu.shares /v1/cpu/cpu.cfs_quota_us /v1/cpu/cpu.cfs_period_us; \
    else read weight < /sys/fs/cgroup/cpu.weight; test $weight -gt 1 -a $weight -lt 100 && echo 512; \
        tr ' ' '\\n' < /sys/fs/cgroup/cpu.max; fi; \
    if mount -t cgroup -o memory none /v1/mem; then cat /v1/mem/memory.limit_in_bytes; \
    else cat /sys/fs/cgroup/memory.max; fi; \
    grep -E '(Cpus|Mems)_allowed_list' /proc/self/status | awk '{print $2}'";

#[test]
fn resources_are_those_of_the_metadata() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let base = graph.busybox();
    let step = graph.run(
        &base,
        &format!("{{ {CGROUP}; }} > /seen 2>/dev/null"),
        &[],
        |exec| {
            exec.set_security(pb::SecurityMode::Insecure);
            exec.meta.as_mut().unwrap().cgroup_parent = "/larder-fields-test".to_owned();
        },
    );
    graph.about(&step, |about| {
        about.linux_resources = Some(pb::LinuxResources {
            memory: 64 << 20,
            memory_swap: 64 << 20,
            cpu_shares: 512,
            cpu_period: 100_000,
            cpu_quota: 50_000,
            cpuset_cpus: "0".to_owned(),
            cpuset_mems: "0".to_owned(),
        });
    });
    let seen = graph.file(vec![(-1, 0, 0, copy("/seen", "/"))], &[&step]);
    let out = project.scratch().join("out");
    let flags = ["--allow", "security.insecure", "-o", out.to_str().unwrap()];
    let run = build(&project, &flags, &graph.of(&seen)).success();
    if run.stderr.contains("not limited: ") {
        skip!("not all cgroup controllers are here");
    }
    let found = fs::read_to_string(out.join("seen")).unwrap();
    assert_eq!(found, "512\n50000\n100000\n67108864\n0\n0\n");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let groups = mounts.lines().filter(|line| line.contains(" - cgroup"));
    let groups = groups.map(|line| Path::new(line.split(' ').nth(4).unwrap()));
    let parents = groups.map(|group| group.join("larder-fields-test"));
    let parents: Vec<_> = parents.filter(|parent| parent.exists()).collect();
    assert!(!parents.is_empty());
    for parent in parents {
        fs::remove_dir(parent.join("larder")).unwrap();
        fs::remove_dir(parent).unwrap();
    }
    // They are no part of the key.
    graph.definition.metadata.clear();
    let run = build(&project, &flags[..2], &graph.of(&seen)).success();
    let _ = run.says("CACHED");
}
