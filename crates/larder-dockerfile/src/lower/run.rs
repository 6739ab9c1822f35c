//! RUN.

mod mounts;

use std::collections::BTreeMap;

use larder_llb::pb;

use super::dag::Node;
use super::env::Masked;
use super::stages::Command;
use super::{Lowering, names};
use crate::error::Error;
use crate::expand::{Expander, Variables};
use crate::instruction::{CommandLine, Run, RunNetwork};
use crate::options::{Network, Resources};
use crate::path;

use mounts::{Attached, Mounts, tmpfs};

const SCRIPT_DIR: &str = "/dev/pipes/";
const SCRIPT_MODE: i32 = 0o755;
/// Tells programs where their agent is.
const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";

impl Lowering<'_> {
    pub(super) fn run(&mut self, id: usize, command: &Command, run: &Run) -> Result<(), Error> {
        let paths = self.stages.states[id].paths;
        self.locals.use_path(paths, "/");
        let mut mounts = Mounts::default();
        let (args, summary) = self.arguments(id, run, &mut mounts);
        for index in 0..run.mounts.len() {
            let mount = self.parse_mount(id, &run.mounts[index].text)?;
            self.mount(id, command, index, &mount, &mut mounts)?;
        }
        if self.options.shm_size_bytes > 0 {
            mounts
                .attached
                .push(tmpfs("/dev/shm".to_owned(), self.options.shm_size_bytes));
        }
        let expander = Expander {
            raw_quotes: true,
            keep_unset: true,
            ..Expander::new(self.dockerfile.escape)
        };
        let masked = Masked {
            env: &self.stages.states[id].env,
            secrets: std::mem::take(&mut mounts.masked),
        };
        let code = &command.instruction.code;
        let text = self.shown_text(expander, &format!("{code}{summary}"), &masked);
        let name = self.next_step(id, &text);
        let history = self.history_text(id, &args);
        let env_bytes = self.stages.states[id].env.bytes();
        self.count_text(history.len() + env_bytes)?;
        self.add_exec(id, command, run, args, mounts, name);
        self.commit(id, history, true);
        Ok(())
    }

    /// Returns the words to run, and what the name adds for a document.
    fn arguments(&mut self, id: usize, run: &Run, mounts: &mut Mounts) -> (Vec<String>, String) {
        let text = match &run.command {
            CommandLine::Exec(words) => return (words.clone(), String::new()),
            CommandLine::Shell(text) => text,
        };
        if let (true, Some((name, content))) = (run.is_script, run.documents.first()) {
            let summary = format!(" ({})", names::summarize(content));
            if !content.starts_with("#!") {
                return (self.shell_words(id, content), summary);
            }
            let script = self.script(name, content);
            mounts.attached.push(script);
            return (
                self.shell_words(id, &format!("{SCRIPT_DIR}{name}")),
                summary,
            );
        }
        let mut whole = text.clone();
        for (name, content) in &run.documents {
            whole.push('\n');
            whole.push_str(content);
            whole.push_str(name);
        }
        (self.shell_words(id, &whole), String::new())
    }

    /// A document that names its own interpreter is run as a file.
    fn script(&mut self, name: &str, content: &str) -> Attached {
        let file = path::absolute("/", name);
        let source = self.document(&file, content.as_bytes().to_vec(), SCRIPT_MODE);
        Attached {
            mount: pb::Mount {
                selector: "/".to_owned(),
                dest: SCRIPT_DIR.to_owned(),
                output: -1,
                readonly: true,
                ..pb::Mount::default()
            },
            source: Some(source),
        }
    }

    /// `RUN |N name=value … words`: the ARGs in scope come before the words.
    fn history_text(&self, id: usize, args: &[String]) -> String {
        let state = &self.stages.states[id];
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        let mut declared: Vec<String> = Vec::new();
        for (name, value) in &state.args {
            let current = state.env.get(name).or(value.as_deref()).unwrap_or_default();
            let text = format!("{name}={current}");
            let place = *places.entry(name).or_insert(declared.len());
            match declared.get_mut(place) {
                Some(known) => *known = text,
                None => declared.push(text),
            }
        }
        let mut words = vec!["RUN".to_owned()];
        if !declared.is_empty() {
            words.push(format!("|{}", declared.len()));
        }
        words.extend(declared);
        words.extend(args.iter().cloned());
        words.join(" ") + " # buildkit"
    }

    fn add_exec(
        &mut self,
        id: usize,
        command: &Command,
        run: &Run,
        args: Vec<String>,
        mounts: Mounts,
        name: String,
    ) {
        let instruction = &command.instruction;
        let state = &self.stages.states[id];
        let network = match (run.network, self.options.network) {
            (RunNetwork::None, _) | (RunNetwork::Default, Network::None) => pb::NetMode::None,
            (RunNetwork::Host, _) | (RunNetwork::Default, Network::Host) => pb::NetMode::Host,
            (RunNetwork::Default, Network::Sandbox) => pb::NetMode::Unset,
        };
        let security = if run.insecure {
            pb::SecurityMode::Insecure
        } else {
            pb::SecurityMode::Sandbox
        };
        let mut exec = pb::ExecOp {
            meta: Some(self.meta(id, args, &mounts.agents)),
            mounts: Vec::new(),
            network: network.into(),
            security: security.into(),
            secretenv: mounts.secret_env,
            cdi_devices: run
                .devices
                .iter()
                .map(|device| pb::CdiDevice {
                    name: device.name.clone(),
                    optional: !device.required,
                })
                .collect(),
        };
        let mut attached = mounts.attached;
        attached.push(Attached {
            mount: pb::Mount {
                dest: "/".to_owned(),
                ..pb::Mount::default()
            },
            source: state.output,
        });
        attached.sort_by(|a, b| a.mount.dest.cmp(&b.mount.dest));
        let mut node = Node::new(pb::op::Op::Exec(pb::ExecOp::default()), name)
            .command(&instruction.code)
            .at(instruction.lines);
        let uses = (mounts.has_secrets, !mounts.agents.is_empty());
        for cap in exec_caps(&exec, &attached, uses) {
            node.cap(cap);
        }
        for mut part in attached {
            part.mount.input = part.source.map_or(-1, |source| {
                node.inputs.push(source);
                node.inputs.len() as i64 - 1
            });
            exec.mounts.push(part.mount);
        }
        exec.mounts.extend(mounts.secrets);
        exec.mounts.extend(mounts.agents);
        node.op = pb::op::Op::Exec(exec);
        let default = self.options.target_platform();
        node.platform = Some(state.image_platform.as_ref().unwrap_or(default).clone());
        node.metadata.ignore_cache = self.ignores_cache(id);
        node.metadata.linux_resources = self.resources();
        if node.metadata.linux_resources.is_some() {
            node.cap("exec.meta.linux.resources");
        }
        let mut step = self.step_info(id, instruction);
        step.env = state.env.origins();
        node.step = Some(step);
        let output = self.dag.add(node);
        self.stages.states[id].output = Some(output);
    }

    fn meta(&self, id: usize, args: Vec<String>, agents: &[pb::Mount]) -> pb::Meta {
        let state = &self.stages.states[id];
        let options = self.options;
        let given = options.build_args.get("BUILDKIT_SANDBOX_HOSTNAME");
        let mut env = state.env.to_list();
        if let Some(socket) = agents.first()
            && state.env.get(AGENT_VARIABLE).is_none()
        {
            env.push(format!("{AGENT_VARIABLE}={}", socket.dest));
        }
        pb::Meta {
            args,
            env,
            cwd: if state.dir.is_empty() {
                "/".to_owned()
            } else {
                state.dir.clone()
            },
            user: state.user.clone(),
            proxy_env: self.proxy_env(),
            extra_hosts: options
                .extra_hosts
                .iter()
                .map(|(host, ip)| pb::HostIp {
                    host: host.clone(),
                    ip: ip.clone(),
                })
                .collect(),
            hostname: options
                .hostname
                .as_ref()
                .or(given)
                .cloned()
                .unwrap_or_default(),
            ulimit: options
                .ulimits
                .iter()
                .map(|limit| pb::Ulimit {
                    name: limit.name.clone(),
                    soft: limit.soft,
                    hard: limit.hard,
                })
                .collect(),
            cgroup_parent: options.cgroup_parent.clone().unwrap_or_default(),
            remove_mount_stubs_recursive: true,
            valid_exit_codes: Vec::new(),
        }
    }

    /// What the processes of a step may use, if that is bounded.
    fn resources(&self) -> Option<pb::LinuxResources> {
        let given = &self.options.resources;
        (*given != Resources::default()).then(|| pb::LinuxResources {
            memory: given.memory_bytes,
            memory_swap: given.memory_swap_bytes,
            cpu_shares: given.cpu_shares,
            cpu_period: given.cpu_period_micros,
            cpu_quota: given.cpu_quota_micros,
            cpuset_cpus: given.cpuset_cpus.clone(),
            cpuset_mems: given.cpuset_mems.clone(),
        })
    }

    /// The proxies that the build was given. They are no part of the cache key, unless an ARG
    /// declares them.
    fn proxy_env(&self) -> Option<pb::ProxyEnv> {
        let mut proxy = pb::ProxyEnv::default();
        let mut any = false;
        for (name, value) in &self.options.build_args {
            let field = match name.to_ascii_lowercase().as_str() {
                "http_proxy" => &mut proxy.http_proxy,
                "https_proxy" => &mut proxy.https_proxy,
                "ftp_proxy" => &mut proxy.ftp_proxy,
                "no_proxy" => &mut proxy.no_proxy,
                "all_proxy" => &mut proxy.all_proxy,
                _ => continue,
            };
            field.clone_from(value);
            any = true;
        }
        any.then_some(proxy)
    }
}

/// Returns the capabilities that an exec needs, which may use secrets and agents.
fn exec_caps(
    exec: &pb::ExecOp,
    attached: &[Attached],
    (has_secrets, has_agents): (bool, bool),
) -> Vec<&'static str> {
    let mut caps = vec!["exec.meta.base", "exec.meta.setsdefaultpath"];
    for part in attached {
        if !part.mount.selector.is_empty() {
            caps.push("exec.mount.selector");
        }
        match part.mount.mount_type() {
            pb::MountType::Cache => {
                caps.extend(["exec.mount.cache", "exec.mount.cache.sharing"]);
            }
            pb::MountType::Tmpfs => {
                caps.push("exec.mount.tmpfs");
                if part.mount.tmpfs_opt.is_some_and(|tmpfs| tmpfs.size > 0) {
                    caps.push("exec.mount.tmpfs.size");
                }
            }
            _ if part.source.is_some() => caps.push("exec.mount.bind"),
            _ => {}
        }
    }
    let meta = exec.meta.as_ref();
    for (needed, cap) in [
        (has_secrets, "exec.mount.secret"),
        (!exec.secretenv.is_empty(), "exec.secretenv"),
        (has_agents, "exec.mount.ssh"),
        (exec.network() != pb::NetMode::Unset, "exec.meta.network"),
        (
            exec.security() != pb::SecurityMode::Sandbox,
            "exec.meta.security",
        ),
        (!exec.cdi_devices.is_empty(), "exec.meta.cdi"),
        (
            meta.is_some_and(|meta| !meta.ulimit.is_empty()),
            "exec.meta.ulimit",
        ),
        (
            meta.is_some_and(|meta| meta.proxy_env.is_some()),
            "exec.meta.proxyenv",
        ),
    ] {
        if needed {
            caps.push(cap);
        }
    }
    caps
}
