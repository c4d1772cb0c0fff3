//! Published ports as users write them, to what networking takes (pure).

use std::net::Ipv4Addr;

use networking::{HostPort, Protocol, PublishedPort};

use crate::{
    config::{Config, HostConfig},
    error::{Error, Result},
};

/// `8000`, `8000/tcp`, `53/udp`.
pub(crate) fn parse_port(text: &str) -> Result<(u16, Protocol)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => {
            return Err(Error::Invalid(format!("invalid port specification: \"{text}\": unknown protocol {other}")));
        }
    };
    let port = port.parse::<u16>().ok().filter(|p| *p != 0);
    port.map(|port| (port, protocol)).ok_or_else(|| Error::Invalid(format!("invalid port specification: \"{text}\"")))
}

/// All ports to publish: the bindings, and with `-P` every exposed port that has none.
pub(crate) fn published(config: &Config, host: &HostConfig) -> Result<Vec<PublishedPort>> {
    let mut all = Vec::new();
    for (key, bindings) in &host.port_bindings {
        let (container_port, protocol) = parse_port(key)?;
        for binding in bindings.iter().flatten() {
            let Some(host_ip) = host_address(&binding.host_ip)? else { continue };
            all.push(PublishedPort {
                protocol,
                container_port,
                host_ip: Some(host_ip),
                host_port: host_port(&binding.host_port)?,
            });
        }
    }
    if host.publish_all_ports {
        for key in config.exposed_ports.keys() {
            let (container_port, protocol) = parse_port(key)?;
            if !all.iter().any(|p: &PublishedPort| p.container_port == container_port && p.protocol == protocol) {
                let host_ip = Some(Ipv4Addr::UNSPECIFIED);
                all.push(PublishedPort { protocol, container_port, host_ip, host_port: HostPort::Ephemeral });
            }
        }
    }
    Ok(all)
}

/// `None` for an IPv6 address: nothing is published there, as on a Docker host without IPv6.
fn host_address(text: &str) -> Result<Option<Ipv4Addr>> {
    match text.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(ip)) => Ok(Some(ip)),
        Ok(std::net::IpAddr::V6(_)) => Ok(None),
        Err(_) if text.is_empty() => Ok(Some(Ipv4Addr::UNSPECIFIED)),
        Err(_) => Err(Error::Invalid(format!("invalid host IP address: {text}"))),
    }
}

fn host_port(text: &str) -> Result<HostPort> {
    let invalid = || Error::Invalid(format!("invalid port specification: \"{text}\""));
    let number = |part: &str| part.parse::<u16>().map_err(|_| invalid());
    Ok(match text.split_once('-') {
        None if text.is_empty() => HostPort::Ephemeral,
        None => match number(text)? {
            0 => HostPort::Ephemeral,
            port => HostPort::Fixed(port),
        },
        Some((from, to)) => match (number(from)?, number(to)?) {
            (from, to) if from == 0 || from > to => return Err(invalid()),
            (from, to) => HostPort::Range(from, to),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Empty, PortBinding};

    #[test]
    fn host_ports_may_be_fixed_free_or_a_range() {
        let table = [
            ("", HostPort::Ephemeral),
            ("0", HostPort::Ephemeral),
            ("80", HostPort::Fixed(80)),
            ("80-82", HostPort::Range(80, 82)),
        ];
        for (text, expected) in table {
            assert_eq!(host_port(text).unwrap(), expected, "{text}");
        }
        for bad in ["x", "-1", "70000", "9-8", "0-5", "1-2-3"] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn publish_all_adds_only_what_has_no_binding() {
        let exposed = [("80/tcp".to_owned(), Empty {}), ("53/udp".to_owned(), Empty {})].into();
        let config = Config { exposed_ports: exposed, ..Config::default() };
        let binding = PortBinding { host_ip: "127.0.0.1".into(), host_port: "8080".into() };
        let host = HostConfig {
            publish_all_ports: true,
            port_bindings: [("80".to_owned(), Some(vec![binding]))].into(),
            ..HostConfig::default()
        };
        let got: Vec<_> =
            published(&config, &host).unwrap().into_iter().map(|p| (p.container_port, p.host_port)).collect();
        assert_eq!(got, [(80, HostPort::Fixed(8080)), (53, HostPort::Ephemeral)]);
    }
}
