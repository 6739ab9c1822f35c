//! The keys of the Compose Specification, and the kinds of their values.

use super::Shape::{self, Any, Flag, List, Map, Named, Number, Object, OneOf, Scalar, Text};

const TEXTS: Shape = List(&Text);
const TEXT_OR_TEXTS: Shape = OneOf(&[Text, TEXTS]);
const SCALARS: Shape = List(&Scalar);
/// `NAME: value` or `NAME=value` items.
const PAIRS: Shape = OneOf(&[SCALARS, Map(&Scalar)]);
const HOSTS: Shape = OneOf(&[TEXTS, Map(&TEXT_OR_TEXTS)]);
const OPTIONS: Shape = Map(&Scalar);
const EXTERNAL: Shape = OneOf(&[Flag, Object(&[("name", Text)])]);

/// A whole file.
pub(super) const FILE: Shape = Object(&[
    ("version", Scalar),
    ("name", Text),
    ("include", List(&OneOf(&[Text, INCLUDE]))),
    ("services", Named(&SERVICE)),
    ("networks", Named(&NETWORK)),
    ("volumes", Named(&VOLUME)),
    ("secrets", Named(&SECRET)),
    ("configs", Named(&CONFIG)),
    ("models", Named(&Any)),
]);

const INCLUDE: Shape = Object(&[
    ("path", TEXT_OR_TEXTS),
    ("env_file", TEXT_OR_TEXTS),
    ("project_directory", Text),
]);

const SERVICE: Shape = Object(&[
    ("annotations", PAIRS),
    ("attach", Flag),
    ("blkio_config", Any),
    ("build", OneOf(&[Text, BUILD])),
    ("cap_add", TEXTS),
    ("cap_drop", TEXTS),
    ("cgroup", Text),
    ("cgroup_parent", Text),
    ("command", TEXT_OR_TEXTS),
    ("configs", GRANTS),
    ("container_name", Text),
    ("cpu_count", Number),
    ("cpu_percent", Number),
    ("cpu_period", Number),
    ("cpu_quota", Number),
    ("cpu_rt_period", Number),
    ("cpu_rt_runtime", Number),
    ("cpu_shares", Number),
    ("cpus", Number),
    ("cpuset", Text),
    ("credential_spec", Any),
    ("depends_on", OneOf(&[TEXTS, Named(&DEPENDENCY)])),
    ("deploy", Any),
    ("develop", Any),
    ("device_cgroup_rules", TEXTS),
    ("devices", List(&Any)),
    ("dns", TEXT_OR_TEXTS),
    ("dns_opt", TEXTS),
    ("dns_search", TEXT_OR_TEXTS),
    ("domainname", Text),
    ("entrypoint", TEXT_OR_TEXTS),
    ("env_file", OneOf(&[Text, List(&OneOf(&[Text, ENV_FILE]))])),
    ("environment", PAIRS),
    ("expose", SCALARS),
    (
        "extends",
        OneOf(&[Text, Object(&[("service", Text), ("file", Text)])]),
    ),
    ("external_links", TEXTS),
    ("extra_hosts", HOSTS),
    ("gpus", Any),
    ("group_add", SCALARS),
    ("healthcheck", HEALTHCHECK),
    ("hostname", Text),
    ("image", Text),
    ("init", Flag),
    ("ipc", Text),
    ("isolation", Text),
    ("label_file", TEXT_OR_TEXTS),
    ("labels", PAIRS),
    ("links", TEXTS),
    ("logging", Object(&[("driver", Text), ("options", OPTIONS)])),
    ("mac_address", Text),
    ("mem_limit", Number),
    ("mem_reservation", Number),
    ("mem_swappiness", Number),
    ("memswap_limit", Number),
    ("models", Any),
    ("network_mode", Text),
    ("networks", OneOf(&[TEXTS, Named(&Any)])),
    ("oom_kill_disable", Flag),
    ("oom_score_adj", Number),
    ("pid", Text),
    ("pids_limit", Number),
    ("platform", Text),
    ("ports", List(&OneOf(&[Number, Text, PORT]))),
    ("post_start", List(&Any)),
    ("pre_stop", List(&Any)),
    ("privileged", Flag),
    ("profiles", TEXTS),
    ("provider", Any),
    ("pull_policy", Text),
    ("pull_refresh_after", Text),
    ("read_only", Flag),
    ("restart", Text),
    ("runtime", Text),
    ("scale", Number),
    ("secrets", GRANTS),
    ("security_opt", TEXTS),
    ("shm_size", Number),
    ("stdin_open", Flag),
    ("stop_grace_period", Text),
    ("stop_signal", Text),
    ("storage_opt", Any),
    ("sysctls", PAIRS),
    ("tmpfs", TEXT_OR_TEXTS),
    ("tty", Flag),
    ("ulimits", ULIMITS),
    ("use_api_socket", Flag),
    ("user", Text),
    ("userns_mode", Text),
    ("uts", Text),
    ("volumes", List(&OneOf(&[Text, MOUNT]))),
    ("volumes_from", TEXTS),
    ("working_dir", Text),
]);

const BUILD: Shape = Object(&[
    ("additional_contexts", PAIRS),
    ("args", PAIRS),
    ("cache_from", TEXTS),
    ("cache_to", TEXTS),
    ("context", Text),
    ("dockerfile", Text),
    ("dockerfile_inline", Text),
    ("entitlements", TEXTS),
    ("extra_hosts", HOSTS),
    ("isolation", Text),
    ("labels", PAIRS),
    ("network", Text),
    ("no_cache", Flag),
    ("no_cache_filter", TEXT_OR_TEXTS),
    ("platforms", TEXTS),
    ("privileged", Flag),
    ("provenance", OneOf(&[Flag, Text])),
    ("pull", Flag),
    ("sbom", OneOf(&[Flag, Text])),
    ("secrets", GRANTS),
    ("shm_size", Number),
    ("ssh", OneOf(&[Text, PAIRS])),
    ("tags", TEXTS),
    ("target", Text),
    ("ulimits", ULIMITS),
]);

const GRANTS: Shape = List(&OneOf(&[
    Text,
    Object(&[
        ("source", Text),
        ("target", Text),
        ("uid", Scalar),
        ("gid", Scalar),
        ("mode", Number),
    ]),
]));

const ULIMITS: Shape = Map(&OneOf(&[
    Number,
    Object(&[("soft", Number), ("hard", Number)]),
]));

const DEPENDENCY: Shape = Object(&[("condition", Text), ("required", Flag), ("restart", Flag)]);

const ENV_FILE: Shape = Object(&[("path", Text), ("required", Flag), ("format", Text)]);

const HEALTHCHECK: Shape = Object(&[
    ("disable", Flag),
    ("interval", Text),
    ("retries", Number),
    ("start_interval", Text),
    ("start_period", Text),
    ("test", TEXT_OR_TEXTS),
    ("timeout", Text),
]);

const PORT: Shape = Object(&[
    ("app_protocol", Text),
    ("host_ip", Text),
    ("mode", Text),
    ("name", Text),
    ("protocol", Text),
    ("published", Number),
    ("target", Number),
]);

const MOUNT: Shape = Object(&[
    (
        "bind",
        Object(&[
            ("create_host_path", Flag),
            ("propagation", Text),
            ("recursive", Text),
            ("selinux", Text),
        ]),
    ),
    ("consistency", Text),
    ("image", Object(&[("subpath", Text)])),
    ("read_only", Flag),
    ("source", Text),
    ("target", Text),
    ("tmpfs", Object(&[("mode", Number), ("size", Number)])),
    ("type", Text),
    (
        "volume",
        Object(&[("labels", PAIRS), ("nocopy", Flag), ("subpath", Text)]),
    ),
]);

const NETWORK: Shape = Object(&[
    ("attachable", Flag),
    ("driver", Text),
    ("driver_opts", OPTIONS),
    ("enable_ipv4", Flag),
    ("enable_ipv6", Flag),
    ("external", EXTERNAL),
    ("internal", Flag),
    ("ipam", Any),
    ("labels", PAIRS),
    ("name", Text),
]);

const VOLUME: Shape = Object(&[
    ("driver", Text),
    ("driver_opts", OPTIONS),
    ("external", EXTERNAL),
    ("labels", PAIRS),
    ("name", Text),
]);

const SECRET: Shape = Object(&[
    ("driver", Text),
    ("driver_opts", OPTIONS),
    ("environment", Text),
    ("external", EXTERNAL),
    ("file", Text),
    ("labels", PAIRS),
    ("name", Text),
    ("template_driver", Text),
]);

const CONFIG: Shape = Object(&[
    ("content", Text),
    ("environment", Text),
    ("external", EXTERNAL),
    ("file", Text),
    ("labels", PAIRS),
    ("name", Text),
    ("template_driver", Text),
]);
