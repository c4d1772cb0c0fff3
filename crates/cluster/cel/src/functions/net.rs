//! URLs, addresses and networks.

use super::{Found, no_overload};
use crate::eval::failed;
use crate::value::{Url, Value};
use std::net::IpAddr;
use std::sync::Arc;

pub(super) fn global<'v>(name: &str, text: &str) -> Found<'v> {
    match name {
        "url" => match parse_url(text) {
            Some(url) => Ok(Value::Url(Arc::new(url))),
            None => failed(format!(
                "URL parse error during conversion from string: parse {text:?}: invalid URI for request"
            )),
        },
        "isURL" => Ok(Value::Bool(parse_url(text).is_some())),
        "ip" => address(text).map_or_else(failed, |ip| Ok(Value::Ip(ip))),
        "isIP" => Ok(Value::Bool(address(text).is_ok())),
        "ip.isCanonical" => address(text).map_or_else(failed, |ip| Ok(Value::Bool(ip.to_string() == text))),
        "cidr" => match network(text) {
            Some((ip, bits)) => Ok(Value::Cidr(ip, bits)),
            None => failed(format!(
                "network address parse error during conversion from string: network address parse error during conversion from string: netip.ParsePrefix({text:?})"
            )),
        },
        _ => Ok(Value::Bool(network(text).is_some())),
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    let parsed: Result<IpAddr, _> = text.parse();
    match parsed {
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
            Err("IPv4-mapped IPv6 address is not allowed".to_owned())
        }
        Ok(ip) => Ok(ip),
        Err(_) => Err(format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
        )),
    }
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = text.split_once('/')?;
    let ip = address(ip).ok()?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let plain = bits.len() == 1 || !bits.starts_with('0');
    bits.parse().ok().filter(|bits| *bits <= most && plain).map(|bits| (ip, bits))
}

/// The address with all bits beyond the prefix cleared.
fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & mask).into())
        }
    }
}

fn holds(net: IpAddr, bits: u8, ip: IpAddr) -> bool {
    net.is_ipv4() == ip.is_ipv4() && masked(net, bits) == masked(ip, bits)
}

fn parse_url(text: &str) -> Option<Url> {
    if text.is_empty() || text.contains([' ', '\t', '\n', '"', '<', '>']) {
        return None;
    }
    let (head, query) = text.split_once('?').unwrap_or((text, ""));
    if head.starts_with('/') && !head.starts_with("//") {
        return Some(Url {
            text: text.to_owned(),
            scheme: String::new(),
            host: String::new(),
            path: head.to_owned(),
            query: query.to_owned(),
        });
    }
    let (scheme, rest) = head.split_once("://")?;
    let word = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = host.rsplit_once(':').filter(|_| !host.ends_with(']')).map(|(_, port)| port);
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok() || port.is_empty());
    (word && port_fits).then(|| Url {
        text: text.to_owned(),
        scheme: scheme.to_lowercase(),
        host: host.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
    })
}

pub(super) fn method<'v>(name: &str, receiver: &Value<'v>, args: &[Value<'v>]) -> Found<'v> {
    match receiver {
        Value::Url(url) => of_url(name, url),
        Value::Ip(ip) => of_ip(name, *ip),
        Value::Cidr(ip, bits) => of_cidr(name, *ip, *bits, args),
        _ => no_overload(),
    }
}

fn of_url<'v>(name: &str, url: &Url) -> Found<'v> {
    let split = url.host.rsplit_once(':').filter(|_| !url.host.ends_with(']'));
    let (host, port) = split.unwrap_or((&url.host, ""));
    Ok(match name {
        "getScheme" => Value::text(&url.scheme),
        "getHost" => Value::text(&url.host),
        "getHostname" => Value::text(host.trim_start_matches('[').trim_end_matches(']')),
        "getPort" => Value::text(port),
        "getEscapedPath" => Value::text(&url.path),
        "getQuery" => {
            let mut all: Vec<(String, Vec<Value<'v>>)> = Vec::new();
            for pair in url.query.split('&').filter(|pair| !pair.is_empty()) {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                match all.iter_mut().find(|(own, _)| own == key) {
                    Some((_, values)) => values.push(Value::text(value)),
                    None => all.push((key.to_owned(), vec![Value::text(value)])),
                }
            }
            Value::Map(Arc::new(
                all.into_iter().map(|(key, values)| (Value::text(&key), Value::list(values))).collect(),
            ))
        }
        _ => return no_overload(),
    })
}

fn of_ip<'v>(name: &str, ip: IpAddr) -> Found<'v> {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let link_multicast = match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    };
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    Ok(match name {
        "family" => Value::Int(if ip.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Value::Bool(ip.is_unspecified()),
        "isLoopback" => Value::Bool(ip.is_loopback()),
        "isLinkLocalMulticast" => Value::Bool(link_multicast),
        "isLinkLocalUnicast" => Value::Bool(link_local),
        "isGlobalUnicast" => {
            Value::Bool(!ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !link_local && !broadcast)
        }
        _ => return no_overload(),
    })
}

fn of_cidr<'v>(name: &str, net: IpAddr, bits: u8, args: &[Value<'v>]) -> Found<'v> {
    let argument = match args {
        [Value::String(text)] if name == "containsIP" => match address(text) {
            Ok(ip) => Some((ip, u8::MAX)),
            Err(words) => return failed(words),
        },
        [Value::String(text)] => match network(text) {
            Some(found) => Some(found),
            None => return failed(format!("network address parse error during conversion from string: {text:?}")),
        },
        [Value::Ip(ip)] => Some((*ip, u8::MAX)),
        [Value::Cidr(ip, bits)] => Some((*ip, *bits)),
        _ => None,
    };
    Ok(match (name, argument) {
        ("containsIP", Some((ip, _))) => Value::Bool(holds(net, bits, ip)),
        ("containsCIDR", Some((ip, inner))) => Value::Bool(inner >= bits && holds(net, bits, ip)),
        ("ip", None) => Value::Ip(net),
        ("masked", None) => Value::Cidr(masked(net, bits), bits),
        ("prefixLength", None) => Value::Int(i64::from(bits)),
        _ => return no_overload(),
    })
}
