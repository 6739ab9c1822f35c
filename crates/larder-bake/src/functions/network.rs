//! IP networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Done, exactly};
use crate::error::Error;
use crate::value::Value;

/// An address range; the address as a number, left-aligned in its 32 or 128 bits.
#[derive(Clone, Copy)]
struct Network {
    first: u128,
    prefix: u32,
    bits: u32,
}

impl Network {
    fn parse(value: &Value) -> Result<Self, Error> {
        let text = value.to_text()?;
        Self::parse_text(&text).ok_or_else(|| {
            Error::definition(format!("`{text}` is no network, expected `address/bits`"))
        })
    }

    fn parse_text(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, bits) = match address.parse().ok()? {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= bits)?;
        let network = Self {
            first: 0,
            prefix,
            bits,
        };
        Some(Self {
            first: address & !network.host_mask(),
            ..network
        })
    }

    fn host_bits(self) -> u32 {
        self.bits - self.prefix
    }

    fn host_mask(self) -> u128 {
        1u128
            .checked_shl(self.host_bits())
            .map_or(u128::MAX, |size| size - 1)
    }

    fn address(self, number: u128) -> String {
        if self.bits == 32 {
            Ipv4Addr::from_bits(number as u32).to_string()
        } else {
            Ipv6Addr::from_bits(number).to_string()
        }
    }

    /// Returns the network number `number` of those with `new_bits` more bits.
    fn subnet(self, new_bits: u32, number: u128) -> Result<Self, Error> {
        let prefix = self
            .prefix
            .checked_add(new_bits)
            .filter(|prefix| *prefix <= self.bits)
            .ok_or_else(|| Error::definition("the network has not that many bits left"))?;
        if 1u128
            .checked_shl(new_bits)
            .is_some_and(|count| number >= count)
        {
            return Err(Error::definition("the network has not that many subnets"));
        }
        let offset = number.checked_shl(self.bits - prefix).unwrap_or(0);
        Ok(Self {
            first: self.first | offset,
            prefix,
            bits: self.bits,
        })
    }

    fn to_value(self) -> Value {
        Value::String(format!("{}/{}", self.address(self.first), self.prefix))
    }
}

fn new_bits(value: &Value) -> Result<u32, Error> {
    u32::try_from(value.to_index()?).map_err(|_| Error::definition("too many bits"))
}

/// `cidrhost(network, number)`; a number below zero counts from the end.
pub(super) fn host(args: &[Value]) -> Done {
    let [network, number] = exactly(args)?;
    let (network, number) = (Network::parse(network)?, number.to_whole()?);
    let offset = u128::from(number.unsigned_abs());
    let host = if number < 0 { offset - 1 } else { offset };
    if host > network.host_mask() {
        return Err(Error::definition(format!(
            "the network has no host {number}"
        )));
    }
    let host = if number < 0 {
        network.host_mask() - host
    } else {
        host
    };
    Ok(Value::String(network.address(network.first | host)))
}

pub(super) fn netmask(args: &[Value]) -> Done {
    let [network] = exactly(args)?;
    let network = Network::parse(network)?;
    if network.bits != 32 {
        return Err(Error::definition("only IPv4 networks have a mask"));
    }
    Ok(Value::String(
        network.address(!network.host_mask() & u128::from(u32::MAX)),
    ))
}

/// `cidrsubnet(network, bits, number)`
pub(super) fn subnet(args: &[Value]) -> Done {
    let [network, bits, number] = exactly(args)?;
    let subnet = Network::parse(network)?.subnet(new_bits(bits)?, number.to_index()? as u128)?;
    Ok(subnet.to_value())
}

/// `cidrsubnets(network, bits…)`: one after the other, each at the next place it fits.
pub(super) fn subnets(args: &[Value]) -> Done {
    let Some((network, sizes)) = args.split_first() else {
        return Err(Error::definition("a network is required"));
    };
    let network = Network::parse(network)?;
    let mut next = Some(network.first);
    let mut subnets = Vec::new();
    for size in sizes {
        let subnet = network.subnet(new_bits(size)?, 0)?;
        let mask = subnet.host_mask();
        let full = || Error::definition("the network has no room left");
        let first = next
            .and_then(|next| next.checked_add(mask))
            .ok_or_else(full)?
            & !mask;
        if first | mask > network.first | network.host_mask() {
            return Err(full());
        }
        next = (first | mask).checked_add(1);
        subnets.push(Network { first, ..subnet }.to_value());
    }
    Ok(Value::List(subnets))
}
