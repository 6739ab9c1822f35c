//! Running one process in a sandbox: namespaces, mounts, cgroups, seccomp.
