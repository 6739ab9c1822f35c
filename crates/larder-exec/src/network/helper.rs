//! What the helpers are told.

use super::Helper;

/// Where a helper finds the network namespace: it is its standard input.
const NAMESPACE: &str = "/proc/self/fd/0";

/// Where `pasta` is to answer for the host's name server.
const PASTA_RESOLVER: &str = "169.254.1.1";

/// The name of the interface that `slirp4netns` makes.
const SLIRP_INTERFACE: &str = "tap0";

/// How a helper tells that it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    /// On its standard output.
    Stdout,
    /// On its fourth open file.
    Fourth,
}

impl Helper {
    /// Returns the arguments, with the program's name.
    pub(super) fn args(self, reaches_host: bool, forwards_names: bool) -> Vec<String> {
        let mut args = vec![self.name()];
        match self {
            Self::Pasta => {
                args.extend(["--config-net", "--foreground", "--quiet"]);
                // It would become `nobody` and could not enter the namespace. It confines itself
                // to an empty directory and to two capabilities.
                args.extend(["--runas", "0"]);
                // Nothing comes in, and nobody's ports are passed on.
                args.extend(["-t", "none", "-u", "none", "-T", "none", "-U", "none"]);
                if forwards_names {
                    // All answers then come from there, also those of other servers.
                    args.extend(["--dns-forward", PASTA_RESOLVER]);
                }
                if !reaches_host {
                    args.push("--no-map-gw");
                }
                // Written when all is set up.
                args.extend(["--pid", "/dev/stdout"]);
                args.extend(["--no-netns-quit", "--netns", NAMESPACE]);
            }
            Self::Slirp4netns => {
                args.extend(["--configure", "--mtu=65520", "--ready-fd=3"]);
                args.extend(["--enable-sandbox", "--enable-seccomp"]);
                if !reaches_host {
                    args.push("--disable-host-loopback");
                }
                args.extend(["--netns-type=path", NAMESPACE, SLIRP_INTERFACE]);
            }
        }
        args.into_iter().map(str::to_owned).collect()
    }

    pub(super) fn ready(self) -> Ready {
        match self {
            Self::Pasta => Ready::Stdout,
            Self::Slirp4netns => Ready::Fourth,
        }
    }

    /// Returns where name servers of the host are reached, even those on its loopback.
    pub(super) fn resolvers(self) -> &'static [&'static str] {
        match self {
            Self::Pasta => &[PASTA_RESOLVER],
            Self::Slirp4netns => &["10.0.2.3"],
        }
    }

    /// Returns the address by which the host is reached: that of the gateway.
    pub(super) fn host_gateway(self) -> Option<String> {
        match self {
            // The namespace looks like the host: it has its gateway.
            Self::Pasta => gateway(&fs_err::read_to_string("/proc/net/route").ok()?),
            Self::Slirp4netns => Some("10.0.2.2".to_owned()),
        }
    }
}

/// Returns the gateway of the best default route of a table as in `/proc/net/route`.
fn gateway(table: &str) -> Option<String> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, destination, gateway, _, _, _, metric, ..] = fields[..] else {
            return None;
        };
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        (destination == "00000000" && gateway != 0)
            .then_some((metric.parse::<u32>().ok()?, gateway))
    });
    let (_, gateway) = routes.min()?;
    // The bytes are in the order of the network, read as a number of the machine.
    Some(std::net::Ipv4Addr::from(gateway.to_ne_bytes()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_gateway_is_that_of_the_best_default_route() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                     eth1\t00000000\t0102000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                     eth0\t00000000\t010200C0\t0003\t0\t0\t50\t00000000\t0\t0\t0\n\
                     eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(gateway(table).as_deref(), Some("192.0.2.1"));
        assert_eq!(gateway(""), None);
    }

    #[test]
    fn the_host_s_loopback_is_reached_only_if_asked_for() {
        for helper in Helper::ALL {
            let [without, with] = [false, true].map(|reaches| helper.args(reaches, false));
            assert_eq!(without.len(), with.len() + 1, "{without:?}");
        }
    }
}
