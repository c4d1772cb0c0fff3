//! The resolver at 127.0.0.11 of a namespace in user-defined networks: names and aliases of its neighbours, the rest forwarded.
//!
//! Its sockets are made inside the namespace, on ports of the kernel's choice (a container may have a DNS server of its own on
//! port 53); a rule in the namespace leads 127.0.0.11:53 there. Forwarding happens from the node, whose upstreams may be
//! loopback ones. Invariant: a namespace whose networks are all internal gets nothing forwarded (CVE-2024-29018).

use crate::endpoint::Handle;
use crate::files::EMBEDDED_DNS;
use crate::manager::Inner;
use crate::{Endpoint, Error, Network, NetworkId};
use kernel::netlink::Error as KernelError;
use kernel::nft::{Chain, ChainKind, Family, Field, Hook, HookPoint, Key, Nft, Policy, Rule, Statement, Table};
use resolver::hickory_proto::rr::rdata::{A, PTR};
use resolver::hickory_proto::rr::{Name, RData, RecordType};
use resolver::{Answer, Question, Server, Zone};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Weak};

/// Containers come and go: an answer is good for one look-up only. Docker says 600; nothing relies on it.
const TTL_S: u32 = 5;

/// Starts the resolver of `namespace`; it ends when the result is dropped. Must run inside the tokio runtime.
pub(crate) fn spawn(inner: &Arc<Inner>, namespace: &str, handle: &Handle) -> Result<Server, Error> {
    let failed = |attempt: &str| Error::kernel(format!("{attempt} for the resolver of {namespace}"));
    let (udp, tcp) = handle.namespace.run(open_sockets).and_then(|sockets| sockets).map_err(failed("open sockets"))?;
    let udp = tokio::net::UdpSocket::from_std(udp).map_err(Error::io("register the socket of", "127.0.0.11"))?;
    let tcp = tokio::net::TcpListener::from_std(tcp).map_err(Error::io("register the socket of", "127.0.0.11"))?;
    let zone = NamespaceZone { inner: Arc::downgrade(inner), namespace: namespace.to_owned() };
    Ok(Server::spawn(udp, tcp, Arc::new(zone), inner.forwarder.clone()))
}

fn open_sockets() -> Result<(UdpSocket, TcpListener), KernelError> {
    let failed = |source| KernelError::Io { attempt: "bind", path: "127.0.0.11".into(), source };
    let udp = UdpSocket::bind((EMBEDDED_DNS, 0)).map_err(failed)?;
    let tcp = TcpListener::bind((EMBEDDED_DNS, 0)).map_err(failed)?;
    udp.set_nonblocking(true).and_then(|()| tcp.set_nonblocking(true)).map_err(failed)?;
    let ports = (udp.local_addr().map_err(failed)?.port(), tcp.local_addr().map_err(failed)?.port());
    Nft::open()?.replace(&redirect_table(ports))?;
    Ok((udp, tcp))
}

fn redirect_table((udp, tcp): (u16, u16)) -> Table {
    let rule = |protocol: u8, port| {
        Rule::new([
            Statement::is(Field::DestinationAddress, Key::new().address(EMBEDDED_DNS)),
            Statement::is(Field::L4Protocol, Key::new().protocol(protocol)),
            Statement::is(Field::DestinationPort, Key::new().port(53)),
            Statement::DestinationNat { address: EMBEDDED_DNS, port },
        ])
    };
    let hook = Hook { kind: ChainKind::Nat, point: HookPoint::Output, priority: -100, policy: Policy::Accept };
    Table {
        family: Family::Inet,
        name: "gantry-resolver".into(),
        comment: Some("127.0.0.11 answers".into()),
        sets: vec![],
        chains: vec![Chain { name: "output".into(), hook: Some(hook), rules: vec![rule(17, udp), rule(6, tcp)] }],
    }
}

struct NamespaceZone {
    inner: Weak<Inner>,
    namespace: String,
}

impl Zone for NamespaceZone {
    fn answer(&self, question: &Question) -> Answer {
        let Some(inner) = self.inner.upgrade() else {
            return Answer::Failure;
        };
        let upstreams = inner.host_upstreams();
        let state = inner.state();
        let Some(own) = state.namespaces.get(&self.namespace) else {
            return Answer::Failure;
        };
        let all = state.namespaces.values().flat_map(|n| n.endpoints.iter());
        decide(question, &own.endpoints, all, &state.networks, upstreams)
    }
}

/// What a name means to a namespace (pure).
fn decide<'a>(
    question: &Question,
    own: &[Endpoint],
    all: impl Iterator<Item = &'a Endpoint>,
    networks: &BTreeMap<NetworkId, Network>,
    host_upstreams: Vec<SocketAddr>,
) -> Answer {
    let is_shared =
        |id: &NetworkId| networks.get(id).is_some_and(|n| n.user_defined) && own.iter().any(|e| e.network == *id);
    let neighbours = all.filter(|e| is_shared(&e.network));
    let text = question.name.to_ascii();
    let text = text.trim_end_matches('.');
    let linked = own.iter().flat_map(|e| &e.links).find(|(alias, _)| alias.eq_ignore_ascii_case(text));
    let text = linked.map_or(text, |(_, target)| target.as_str());
    if let Some(address) = reverse_address(&question.name) {
        let names: Vec<Name> = neighbours
            .filter(|e| e.address == address)
            .filter_map(|e| Name::from_ascii(format!("{}.{}.", e.name, e.network_name)).ok())
            .collect();
        if !names.is_empty() {
            return if question.kind == RecordType::PTR {
                Answer::Records(
                    names.into_iter().map(|name| (question.name.clone(), TTL_S, RData::PTR(PTR(name)))).collect(),
                )
            } else {
                Answer::Empty(None)
            };
        }
    } else {
        let mut found: Vec<Ipv4Addr> = neighbours.filter(|e| is_named(e, text)).map(|e| e.address).collect();
        found.sort_unstable();
        found.dedup();
        if !found.is_empty() {
            return if question.kind == RecordType::A {
                Answer::Records(found.into_iter().map(|ip| (question.name.clone(), TTL_S, RData::A(A(ip)))).collect())
            } else {
                Answer::Empty(None)
            };
        }
    }
    if own.iter().all(|e| e.gateway.is_none()) {
        return Answer::Failure;
    }
    let wanted: Vec<SocketAddr> = own.iter().flat_map(|e| &e.dns).map(|ip| SocketAddr::from((*ip, 53))).collect();
    Answer::Forward { upstreams: if wanted.is_empty() { host_upstreams } else { wanted } }
}

fn is_named(endpoint: &Endpoint, text: &str) -> bool {
    let short = text.len().checked_sub(endpoint.network_name.len() + 1).and_then(|at| {
        let (name, rest) = text.split_at_checked(at)?;
        rest.strip_prefix('.')?.eq_ignore_ascii_case(&endpoint.network_name).then_some(name)
    });
    std::iter::once(&endpoint.name)
        .chain(&endpoint.aliases)
        .any(|name| name.eq_ignore_ascii_case(text) || short.is_some_and(|s| name.eq_ignore_ascii_case(s)))
}

fn reverse_address(name: &Name) -> Option<Ipv4Addr> {
    match name.parse_arpa_name().ok()?.addr() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests;
