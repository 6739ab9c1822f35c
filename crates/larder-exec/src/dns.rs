//! The name servers of a process, chosen as BuildKit does.

use std::net::IpAddr;

use crate::Network;

/// Where the system's resolver keeps the servers that it asks itself.
const SYSTEMD_FILE: &str = "/run/systemd/resolve/resolv.conf";

/// The address of systemd's resolver, which can't be reached from another network namespace.
const SYSTEMD_SERVER: &str = "127.0.0.53";

/// The servers for who has none left.
const FALLBACK_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// What a configuration says about names, in place of the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// Addresses of servers.
    pub nameservers: Vec<String>,
    /// Options, as in resolv.conf.
    pub options: Vec<String>,
    /// Domains to search.
    pub search_domains: Vec<String>,
}

/// Returns the content of `/etc/resolv.conf` for processes in a network.
pub fn resolv_conf(network: &Network, config: &DnsConfig) -> String {
    match View::of(network) {
        View::Whole => compose(&read("/etc/resolv.conf"), View::Whole, config),
        view => compose(&seen_from_outside(), view, config),
    }
}

/// Returns whether all of the host's name servers are on its loopback.
pub(crate) fn has_local_servers_only() -> bool {
    nameservers(&seen_from_outside()).all(is_loopback)
}

/// Returns the host's file; where it names systemd's resolver, that of the servers behind it.
fn seen_from_outside() -> String {
    let host = read("/etc/resolv.conf");
    if nameservers(&host).eq([SYSTEMD_SERVER]) {
        return read(SYSTEMD_FILE);
    }
    host
}

fn read(path: &str) -> String {
    fs_err::read_to_string(path).unwrap_or_default()
}

/// What a process can reach of the host's servers.
#[derive(Debug, Clone, Copy)]
enum View {
    /// All.
    Whole,
    /// Those elsewhere. Where that is none, these are asked.
    Outside(&'static [&'static str]),
    /// None but these.
    Only(&'static [&'static str]),
}

impl View {
    /// What any other network namespace can reach.
    const OUTSIDE: Self = Self::Outside(&FALLBACK_SERVERS);

    fn of(network: &Network) -> Self {
        match network {
            Network::Host => Self::Whole,
            Network::Own(own) => own.resolvers().map_or(Self::OUTSIDE, Self::Only),
            Network::None => Self::OUTSIDE,
        }
    }
}

/// Returns what a process sees of the host's file.
fn compose(host: &str, view: View, config: &DnsConfig) -> String {
    let mut text = if *config == DnsConfig::default() {
        host.to_owned()
    } else {
        configured(host, config)
    };
    let is_reached = |server: &str| match view {
        View::Whole => true,
        View::Outside(_) => !is_loopback(server),
        View::Only(only) => only.contains(&server),
    };
    text = text
        .lines()
        .filter(|line| nameservers(line).all(is_reached))
        .flat_map(|line| [line, "\n"])
        .collect();
    let further = match view {
        View::Whole => return text,
        View::Outside(servers) | View::Only(servers) => servers,
    };
    if nameservers(&text).next().is_none() {
        text.extend(
            further
                .iter()
                .map(|server| format!("nameserver {server}\n")),
        );
    }
    text
}

/// Returns a file with the configured values, and the host's for those that are not.
fn configured(host: &str, config: &DnsConfig) -> String {
    let or_host = |configured: &[String], keyword: &str| -> Vec<String> {
        if configured.is_empty() {
            values(host, keyword).map(str::to_owned).collect()
        } else {
            configured.to_vec()
        }
    };
    let line = |keyword: &str, words: &[String]| match words {
        [] => String::new(),
        words => format!("{keyword} {}\n", words.join(" ")),
    };
    let servers = or_host(&config.nameservers, "nameserver");
    let mut text = line("search", &or_host(&config.search_domains, "search"));
    text.extend(
        servers
            .iter()
            .map(|server| format!("nameserver {server}\n")),
    );
    text + &line("options", &or_host(&config.options, "options"))
}

fn nameservers(text: &str) -> impl Iterator<Item = &str> {
    values(text, "nameserver")
}

/// Returns the words behind `keyword` in all lines that begin with it.
fn values<'a>(text: &'a str, keyword: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().flat_map(move |line| {
        let mut words = line.split_whitespace();
        let found = words.next() == Some(keyword);
        words.filter(move |_| found)
    })
}

fn is_loopback(server: &str) -> bool {
    // A zone may follow the address.
    let address = server.split('%').next().unwrap_or(server);
    address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_chosen_by_network() {
        let fallback = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";
        let none = DnsConfig::default();
        let servers = DnsConfig {
            nameservers: vec!["9.9.9.9".to_owned()],
            ..DnsConfig::default()
        };
        let check = |host: &str, view: View, config: &DnsConfig, expected: &str| {
            assert_eq!(compose(host, view, config), expected, "{host:?} {view:?}");
        };
        let local = "search a b\nnameserver 127.0.0.1\n";
        let (whole, outside) = (View::Whole, View::OUTSIDE);
        check(local, whole, &none, local);
        check(local, outside, &none, &format!("search a b\n{fallback}"));
        let mixed = "nameserver ::1\nnameserver 10.0.0.1 # main\noptions ndots:2\n";
        check(
            mixed,
            outside,
            &none,
            "nameserver 10.0.0.1 # main\noptions ndots:2\n",
        );
        check("", outside, &none, fallback);
        check(
            "search a\nnameserver 10.0.0.1\noptions x y\n",
            whole,
            &servers,
            "search a\nnameserver 9.9.9.9\noptions x y\n",
        );
        let only = View::Only(&["169.254.1.1"]);
        check(
            mixed,
            only,
            &none,
            "options ndots:2\nnameserver 169.254.1.1\n",
        );
    }
}
