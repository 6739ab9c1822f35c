//! The keys of a resolved project, in compose's order, with the forms of their values.

use super::form::Form::{
    self, Any, Bytes, Count, Flag, Limit, List, Map, Mode, Number, Object, Optional, Part, Text,
    Texts, Time, Words,
};

const LABELS: Form = Map(&Text);

/// The sections of a file, as they are written in YAML.
pub(super) const SECTIONS: [(&str, Form); 7] = [
    ("name", Text),
    ("services", Map(&SERVICE)),
    ("networks", Map(&NETWORK)),
    ("volumes", Map(&VOLUME)),
    ("secrets", Map(&RESOURCE)),
    ("configs", Map(&RESOURCE)),
    ("models", Map(&MODEL)),
];

const SERVICE: Form = Object(&[
    ("profiles", Texts),
    ("annotations", LABELS),
    ("attach", Optional),
    ("build", BUILD),
    ("develop", DEVELOP),
    ("blkio_config", BLKIO),
    ("cap_add", Texts),
    ("cap_drop", Texts),
    ("cgroup_parent", Text),
    ("cgroup", Text),
    ("cpu_count", Number),
    ("cpu_percent", Number),
    ("cpu_period", Number),
    ("cpu_quota", Number),
    ("cpu_rt_period", Number),
    ("cpu_rt_runtime", Number),
    ("cpus", Number),
    ("cpuset", Text),
    ("cpu_shares", Number),
    ("command", Words),
    ("configs", List(&GRANT)),
    ("container_name", Text),
    ("credential_spec", CREDENTIAL),
    ("depends_on", Map(&DEPENDENCY)),
    ("deploy", DEPLOY),
    ("device_cgroup_rules", Texts),
    ("devices", List(&DEVICE)),
    ("dns", Texts),
    ("dns_opt", Texts),
    ("dns_search", Texts),
    ("domainname", Text),
    ("entrypoint", Words),
    ("provider", PROVIDER),
    ("environment", Map(&Any)),
    ("env_file", List(&Any)),
    ("expose", Texts),
    ("external_links", Texts),
    ("extra_hosts", Texts),
    ("group_add", Texts),
    ("gpus", List(&GPU)),
    ("hostname", Text),
    ("healthcheck", HEALTHCHECK),
    ("image", Text),
    ("init", Optional),
    ("ipc", Text),
    ("isolation", Text),
    ("labels", LABELS),
    ("label_file", Texts),
    ("links", Texts),
    ("logging", LOGGING),
    ("mem_limit", Bytes),
    ("mem_reservation", Bytes),
    ("memswap_limit", Bytes),
    ("mem_swappiness", Bytes),
    ("mac_address", Text),
    ("models", Map(&Any)),
    ("network_mode", Text),
    ("networks", Map(&ATTACHMENT)),
    ("oom_kill_disable", Flag),
    ("oom_score_adj", Number),
    ("pid", Text),
    ("pids_limit", Number),
    ("platform", Text),
    ("ports", List(&PORT)),
    ("privileged", Flag),
    ("pull_policy", Text),
    ("read_only", Flag),
    ("restart", Text),
    ("runtime", Text),
    ("scale", Count),
    ("secrets", List(&GRANT)),
    ("security_opt", Texts),
    ("shm_size", Bytes),
    ("stdin_open", Flag),
    ("stop_grace_period", Time),
    ("stop_signal", Text),
    ("storage_opt", LABELS),
    ("sysctls", LABELS),
    ("tmpfs", Texts),
    ("tty", Flag),
    ("ulimits", Map(&Limit)),
    ("use_api_socket", Flag),
    ("user", Text),
    ("userns_mode", Text),
    ("uts", Text),
    ("volumes", List(&MOUNT)),
    ("volumes_from", Texts),
    ("working_dir", Text),
    ("post_start", List(&HOOK)),
    ("pre_stop", List(&HOOK)),
]);

const BUILD: Form = Object(&[
    ("context", Text),
    ("dockerfile", Text),
    ("dockerfile_inline", Text),
    ("entitlements", Texts),
    ("args", Map(&Any)),
    ("provenance", Text),
    ("sbom", Text),
    ("ssh", Texts),
    ("labels", LABELS),
    ("cache_from", Texts),
    ("cache_to", Texts),
    ("no_cache", Flag),
    ("no_cache_filter", Texts),
    ("additional_contexts", LABELS),
    ("pull", Flag),
    ("extra_hosts", Texts),
    ("isolation", Text),
    ("network", Text),
    ("target", Text),
    ("secrets", List(&GRANT)),
    ("shm_size", Bytes),
    ("tags", Texts),
    ("ulimits", Map(&Limit)),
    ("platforms", Texts),
    ("privileged", Flag),
]);

const DEVELOP: Form = Object(&[(
    "watch",
    List(&Object(&[
        ("path", Text),
        ("action", Text),
        ("target", Text),
        ("exec", Part(HOOK_KEYS)),
        ("include", Texts),
        ("ignore", Texts),
        ("initial_sync", Flag),
    ])),
)]);

const BLKIO: Form = Object(&[
    ("weight", Number),
    (
        "weight_device",
        List(&Object(&[("path", Text), ("weight", Number)])),
    ),
    ("device_read_bps", THROTTLES),
    ("device_read_iops", THROTTLES),
    ("device_write_bps", THROTTLES),
    ("device_write_iops", THROTTLES),
]);

const THROTTLES: Form = List(&Object(&[("path", Text), ("rate", Bytes)]));

const GRANT: Form = Object(&[
    ("source", Text),
    ("target", Text),
    ("uid", Text),
    ("gid", Text),
    ("mode", Mode),
]);

const CREDENTIAL: Form = Object(&[("config", Text), ("file", Text), ("registry", Text)]);

const DEPENDENCY: Form = Object(&[
    ("condition", Text),
    ("restart", Flag),
    ("required", Optional),
]);

const DEPLOY: Form = Object(&[
    ("mode", Text),
    ("replicas", Count),
    ("labels", LABELS),
    ("update_config", UPDATE),
    ("rollback_config", UPDATE),
    ("resources", RESOURCES),
    (
        "restart_policy",
        Object(&[
            ("condition", Text),
            ("delay", Time),
            ("max_attempts", Count),
            ("window", Time),
        ]),
    ),
    (
        "placement",
        Part(&[
            ("constraints", Texts),
            ("preferences", List(&Object(&[("spread", Text)]))),
            ("max_replicas_per_node", Number),
        ]),
    ),
    ("endpoint_mode", Text),
]);

const UPDATE: Form = Object(&[
    ("parallelism", Count),
    ("delay", Time),
    ("failure_action", Text),
    ("monitor", Time),
    ("max_failure_ratio", Number),
    ("order", Text),
]);

const RESOURCES: Form = Part(&[("limits", AMOUNTS), ("reservations", AMOUNTS)]);

const AMOUNTS: Form = Object(&[
    ("cpus", Number),
    ("memory", Bytes),
    ("pids", Number),
    ("devices", List(&GPU)),
    ("generic_resources", List(&Any)),
]);

const DEVICE: Form = Object(&[("source", Text), ("target", Text), ("permissions", Text)]);

const GPU: Form = Object(&[
    ("capabilities", Texts),
    ("driver", Text),
    ("count", Number),
    ("device_ids", Texts),
    ("options", LABELS),
]);

const PROVIDER: Form = Object(&[("type", Text), ("options", Map(&Texts))]);

const HEALTHCHECK: Form = Object(&[
    ("test", Texts),
    ("timeout", Time),
    ("interval", Time),
    ("retries", Count),
    ("start_period", Time),
    ("start_interval", Time),
    ("disable", Flag),
]);

const LOGGING: Form = Object(&[("driver", Text), ("options", LABELS)]);

const ATTACHMENT: Form = Object(&[
    ("aliases", Texts),
    ("driver_opts", LABELS),
    ("gw_priority", Number),
    ("interface_name", Text),
    ("ipv4_address", Text),
    ("ipv6_address", Text),
    ("link_local_ips", Texts),
    ("mac_address", Text),
    ("priority", Number),
]);

const PORT: Form = Object(&[
    ("name", Text),
    ("mode", Text),
    ("host_ip", Text),
    ("target", Number),
    ("published", Text),
    ("protocol", Text),
    ("app_protocol", Text),
]);

const MOUNT: Form = Object(&[
    ("type", Text),
    ("source", Text),
    ("target", Text),
    ("read_only", Flag),
    ("consistency", Text),
    (
        "bind",
        Object(&[
            ("selinux", Text),
            ("propagation", Text),
            ("create_host_path", Flag),
            ("recursive", Text),
        ]),
    ),
    (
        "volume",
        Object(&[("labels", LABELS), ("nocopy", Flag), ("subpath", Text)]),
    ),
    ("tmpfs", Object(&[("size", Bytes), ("mode", Number)])),
    ("image", Object(&[("subpath", Text)])),
]);

const HOOK: Form = Object(HOOK_KEYS);

const HOOK_KEYS: &[(&str, Form)] = &[
    ("command", Words),
    ("user", Text),
    ("privileged", Flag),
    ("working_dir", Text),
    ("environment", Map(&Any)),
];

const NETWORK: Form = Object(&[
    ("name", Text),
    ("driver", Text),
    ("driver_opts", LABELS),
    ("ipam", IPAM),
    ("external", Flag),
    ("internal", Flag),
    ("attachable", Flag),
    ("labels", LABELS),
    ("enable_ipv4", Optional),
    ("enable_ipv6", Optional),
]);

const IPAM: Form = Part(&[
    ("driver", Text),
    (
        "config",
        List(&Object(&[
            ("subnet", Text),
            ("gateway", Text),
            ("ip_range", Text),
            ("aux_addresses", LABELS),
        ])),
    ),
]);

const VOLUME: Form = Object(&[
    ("name", Text),
    ("driver", Text),
    ("driver_opts", LABELS),
    ("external", Flag),
    ("labels", LABELS),
]);

const RESOURCE: Form = Object(&[
    ("name", Text),
    ("file", Text),
    ("environment", Text),
    ("content", Text),
    ("external", Flag),
    ("labels", LABELS),
    ("driver", Text),
    ("driver_opts", LABELS),
    ("template_driver", Text),
]);

const MODEL: Form = Object(&[
    ("name", Text),
    ("model", Text),
    ("context_size", Number),
    ("runtime_flags", Texts),
]);
