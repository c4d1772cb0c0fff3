//! Host ports: each published one is held by a socket of ours, so that no other program takes it and none is published twice.
//!
//! The socket never carries traffic: the kernel's rules translate before it could. Invariant: a binding exists exactly as long as its [`Held`].

use crate::{Endpoint, Error, HostPort, PortBinding, Protocol, PublishedPort};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

#[derive(Debug)]
pub(crate) enum Held {
    Tcp { _listener: TcpListener },
    Udp { _socket: UdpSocket },
}

/// What is published already, to tell "allocated by us" from "in use by another".
pub(crate) fn is_allocated(taken: &[PortBinding], protocol: Protocol, host_ip: Ipv4Addr, port: u16) -> bool {
    taken.iter().any(|b| {
        b.protocol == protocol
            && b.host_port == port
            && (b.host_ip == host_ip || b.host_ip.is_unspecified() || host_ip.is_unspecified())
    })
}

/// Reserves one published port; the first of a range that is free.
pub(crate) fn reserve(
    wanted: &PublishedPort,
    container_ip: Ipv4Addr,
    taken: &[PortBinding],
) -> Result<(PortBinding, Held), Error> {
    let host_ip = wanted.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let (first, last) = match wanted.host_port {
        HostPort::Ephemeral | HostPort::Fixed(0) => (0, 0),
        HostPort::Fixed(port) => (port, port),
        HostPort::Range(first, last) if first > 0 && first <= last => (first, last),
        HostPort::Range(first, last) => return Err(Error::InvalidPortRange(first, last)),
    };
    let mut refusal = None;
    for port in first..=last {
        match reserve_one(wanted, host_ip, port, container_ip, taken) {
            Ok(done) => return Ok(done),
            Err(error) => refusal = Some(error),
        }
    }
    // For a range, the refusal of its last port is told.
    Err(refusal.unwrap_or(Error::InvalidPortRange(first, last)))
}

fn reserve_one(
    wanted: &PublishedPort,
    host_ip: Ipv4Addr,
    port: u16,
    container_ip: Ipv4Addr,
    taken: &[PortBinding],
) -> Result<(PortBinding, Held), Error> {
    let protocol = wanted.protocol;
    if port != 0 && is_allocated(taken, protocol, host_ip, port) {
        return Err(Error::PortAllocated { host_ip, port });
    }
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AddrInUse => Error::PortInUse {
            host_ip,
            port,
            container_ip,
            container_port: wanted.container_port,
            protocol: protocol.as_str(),
        },
        _ => Error::PortBind { host_ip, port, protocol: protocol.as_str(), source },
    };
    let (held, host_port) = match protocol {
        // Listening, not only bound: a second listener is then refused whatever options it sets.
        Protocol::Tcp => {
            let listener = TcpListener::bind((host_ip, port)).map_err(failed)?;
            let port = listener.local_addr().map_err(failed)?.port();
            (Held::Tcp { _listener: listener }, port)
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind((host_ip, port)).map_err(failed)?;
            let port = socket.local_addr().map_err(failed)?.port();
            (Held::Udp { _socket: socket }, port)
        }
    };
    Ok((PortBinding { protocol, container_port: wanted.container_port, host_ip, host_port }, held))
}

/// After a restart: holds what an endpoint has published. A port that someone took in between stays translated; it is told once.
pub(crate) fn hold_again(endpoint: &Endpoint) -> Vec<Held> {
    let mut held = Vec::new();
    for binding in &endpoint.ports {
        let wanted = PublishedPort {
            protocol: binding.protocol,
            container_port: binding.container_port,
            host_ip: Some(binding.host_ip),
            host_port: HostPort::Fixed(binding.host_port),
        };
        match reserve(&wanted, endpoint.address, &[]) {
            Ok((_, socket)) => held.push(socket),
            Err(error) => {
                tracing::warn!(namespace = %endpoint.namespace, error = %error, "a published port could not be held again")
            }
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(host_port: HostPort) -> PublishedPort {
        PublishedPort { protocol: Protocol::Tcp, container_port: 80, host_ip: Some(Ipv4Addr::LOCALHOST), host_port }
    }
    const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);

    #[test]
    fn a_port_is_refused_in_dockers_words() {
        let taken = [PortBinding {
            protocol: Protocol::Tcp,
            container_port: 1,
            host_ip: Ipv4Addr::UNSPECIFIED,
            host_port: 8000,
        }];
        let wanted = PublishedPort {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_ip: None,
            host_port: HostPort::Fixed(8000),
        };
        assert_eq!(
            reserve(&wanted, CONTAINER, &taken).unwrap_err().to_string(),
            "Bind for 0.0.0.0:8000 failed: port is already allocated"
        );
        assert!(!is_allocated(&taken, Protocol::Udp, Ipv4Addr::UNSPECIFIED, 8000));
    }

    #[test]
    fn another_programs_port_is_noticed_and_a_range_steps_over_it() {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = other.local_addr().unwrap().port();
        let error = reserve(&want(HostPort::Fixed(port)), CONTAINER, &[]).unwrap_err();
        assert!(matches!(error, Error::PortInUse { .. }), "{error}");
        let (binding, _held) = reserve(&want(HostPort::Range(port, port.saturating_add(20))), CONTAINER, &[]).unwrap();
        assert!(binding.host_port > port);
        assert!(reserve(&want(HostPort::Range(9, 8)), CONTAINER, &[]).is_err());
    }

    #[test]
    fn an_ephemeral_port_is_whatever_is_free() {
        let (binding, _held) = reserve(&want(HostPort::Ephemeral), CONTAINER, &[]).unwrap();
        assert!(binding.host_port > 0);
    }
}
