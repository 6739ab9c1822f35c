//! EXPOSE.

use crate::error::Error;
use crate::lint::{Lint, Rule};

/// How many ports one EXPOSE may name: every port once for each protocol.
const MAX_PORTS: usize = 3 << 16;

/// Reads `[[ip:]host:]port[-port][/protocol]` words as `port/protocol`.
pub(super) fn parse(words: &[String]) -> Result<Vec<String>, Error> {
    let mut ports = Vec::new();
    for word in words {
        let (first, last, protocol) = port_range(word).map_err(Error::dockerfile)?;
        if ports.len() + usize::from(last - first) >= MAX_PORTS {
            return Err(Error::dockerfile(format!(
                "EXPOSE names more than {MAX_PORTS} ports"
            )));
        }
        ports.extend((first..=last).map(|port| format!("{port}/{protocol}")));
    }
    Ok(ports)
}

/// Checks one word of EXPOSE: its protocol is to be in lower case, and it is to name neither an
/// address nor a port of the host.
pub(super) fn check(word: &str, lint: &Lint) {
    let (host, container) = word.rsplit_once(':').unwrap_or(("", word));
    let protocol = container
        .split_once('/')
        .map_or("", |(_, protocol)| protocol);
    if protocol != protocol.to_lowercase() {
        let message =
            format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
        lint.warn(Rule::ExposeProtoCasing, message);
    }
    if !host.is_empty() {
        let message = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
        );
        lint.warn(Rule::ExposeInvalidFormat, message);
    }
}

fn port_range(word: &str) -> Result<(u16, u16, String), String> {
    let (host, container) = word.rsplit_once(':').unwrap_or(("", word));
    let (port, protocol) = container.split_once('/').unwrap_or((container, ""));
    if port.is_empty() {
        return Err(format!("no port specified: {container}<empty>"));
    }
    let protocol = match protocol.to_lowercase().as_str() {
        "" => "tcp".to_owned(),
        known @ ("tcp" | "udp" | "sctp") => known.to_owned(),
        other => return Err(format!("invalid proto: {other}")),
    };
    let (first, last) = numbers(port).ok_or_else(|| format!("invalid containerPort: {port}"))?;
    check_host(host, port, last - first)?;
    Ok((first, last, protocol))
}

/// Checks `ip:port`, which has no effect in an image.
fn check_host(host: &str, container: &str, width: u16) -> Result<(), String> {
    let (ip, port) = host.rsplit_once(':').unwrap_or(("", host));
    let bare = ip
        .strip_prefix('[')
        .and_then(|ip| ip.strip_suffix(']'))
        .unwrap_or(ip);
    if !bare.is_empty() && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address: {bare}"));
    }
    if port.is_empty() {
        return Ok(());
    }
    let (first, last) = numbers(port).ok_or_else(|| format!("invalid hostPort: {port}"))?;
    if last - first != width && width != 0 {
        return Err(format!(
            "invalid ranges specified for container and host Ports: {container} and {port}"
        ));
    }
    Ok(())
}

fn numbers(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| {
        let digits = text.bytes().all(|c| c.is_ascii_digit());
        text.parse().ok().filter(|_| digits)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_alone_and_in_ranges() {
        let parse = |word: &str| parse(&[word.to_owned()]).map_err(|error| error.to_string());
        assert_eq!(parse("80").unwrap(), ["80/tcp"]);
        assert_eq!(parse("53/UDP").unwrap(), ["53/udp"]);
        assert_eq!(parse("1-3/sctp").unwrap(), ["1/sctp", "2/sctp", "3/sctp"]);
        assert_eq!(parse("[::1]:81:80").unwrap(), ["80/tcp"]);
        assert_eq!(parse("0-65535").unwrap().len(), 65_536);
        for (word, message) in [
            ("80/x", "invalid proto: x"),
            ("/tcp", "no port specified: /tcp<empty>"),
            ("3-1", "invalid containerPort: 3-1"),
            ("65536", "invalid containerPort: 65536"),
            ("+1", "invalid containerPort: +1"),
            ("x:80", "invalid hostPort: x"),
            ("300.1.1.1:1:80", "invalid IP address: 300.1.1.1"),
        ] {
            assert_eq!(parse(word).unwrap_err(), message);
        }
        let many = vec!["0-65535".to_owned(); 4];
        assert!(super::parse(&many).is_err());
    }
}
