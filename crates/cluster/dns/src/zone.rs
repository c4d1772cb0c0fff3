//! What a question means: the cluster's names here, the rest forwarded.

use crate::DnsConfig;
use crate::index::Index;
use resolver::hickory_proto::rr::rdata::{A, CNAME, PTR, SOA, SRV};
use resolver::hickory_proto::rr::{Name, RData, RecordType};
use resolver::{Answer, Question, Zone};
use service_plan::dns::{Data, owner, pod_address};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Short, because endpoints change.
const TTL_S: u32 = 5;
/// How far aliases inside the cluster are followed.
const MAX_ALIASES: usize = 8;

pub(crate) struct ClusterZone {
    domain: String,
    own_addresses: Vec<SocketAddr>,
    own_ranges: Vec<(Ipv4Addr, u8)>,
    host_resolv_conf: PathBuf,
    index: Arc<RwLock<Index>>,
    /// Turns the order of addresses, so that clients that take the first one spread.
    turn: AtomicUsize,
}

impl ClusterZone {
    pub(crate) fn new(config: &DnsConfig, own_addresses: Vec<SocketAddr>, index: Arc<RwLock<Index>>) -> Self {
        Self {
            domain: config.domain.to_ascii_lowercase(),
            own_addresses,
            own_ranges: config.own_ranges.clone(),
            host_resolv_conf: config.host_resolv_conf.clone(),
            index,
            turn: AtomicUsize::new(0),
        }
    }

    fn forward(&self) -> Answer {
        match self.upstreams() {
            none if none.is_empty() => Answer::Failure,
            upstreams => Answer::Forward { upstreams },
        }
    }

    fn soa(&self) -> Option<(Name, u32, RData)> {
        let name = absolute(&self.domain)?;
        let soa = SOA::new(
            absolute(&format!("ns.dns.{}", self.domain))?,
            absolute(&format!("hostmaster.{}", self.domain))?,
            1,
            7200,
            1800,
            86_400,
            TTL_S,
        );
        Some((name, TTL_S, RData::SOA(soa)))
    }

    fn is_ours(&self, name: &str) -> bool {
        name == self.domain || name.strip_suffix(&self.domain).is_some_and(|rest| rest.ends_with('.'))
    }

    fn reverse(&self, question: &Question, address: Ipv4Addr) -> Answer {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = index.names_of(address) {
            if question.kind != RecordType::PTR {
                return Answer::Empty(self.soa());
            }
            let pointers =
                names.iter().filter_map(|n| Some((question.name.clone(), TTL_S, RData::PTR(PTR(absolute(n)?)))));
            return Answer::Records(pointers.collect());
        }
        let inside = |(range, len): &(Ipv4Addr, u8)| {
            (u32::from(*range) ^ u32::from(address)).checked_shr(32 - u32::from(*len)).unwrap_or(0) == 0
        };
        match self.own_ranges.iter().any(inside) {
            true if index.complete => Answer::NoSuchName(self.soa()),
            true => Answer::Failure,
            false => self.forward(),
        }
    }

    fn cluster(&self, question: &Question, name: &str) -> Answer {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        if name == self.domain {
            return match (question.kind, self.soa()) {
                (RecordType::SOA, Some(soa)) => Answer::Records(vec![soa]),
                (_, soa) => Answer::Empty(soa),
            };
        }
        if let Some(address) = pod_address(name, &self.domain) {
            return self.of_kind(question, vec![(question.name.clone(), TTL_S, RData::A(A(address)))], RecordType::A);
        }
        if !index.complete {
            return Answer::Failure;
        }
        if let Some((namespace, service)) = owner(name, &self.domain) {
            if index.find(namespace, service, name).is_some() {
                return self.data(question, name, &index);
            }
            if index.is_passage(namespace, service, name) {
                return Answer::Empty(self.soa());
            }
            return Answer::NoSuchName(self.soa());
        }
        let above = name.strip_suffix(&self.domain).and_then(|rest| rest.strip_suffix('.'));
        match above.map(|a| a.strip_suffix(".svc").unwrap_or(a)) {
            Some("svc" | "pod") => Answer::Empty(self.soa()),
            Some(namespace)
                if !namespace.contains('.') && above != Some(namespace) && index.has_namespace(namespace) =>
            {
                Answer::Empty(self.soa())
            }
            Some(_) | None => Answer::NoSuchName(self.soa()),
        }
    }

    /// The name's data; an alias is followed as long as it stays inside.
    fn data(&self, question: &Question, name: &str, index: &Index) -> Answer {
        let (mut records, mut at) = (Vec::new(), name.to_owned());
        for _ in 0..MAX_ALIASES {
            let Some(own_name) = absolute(&at) else { break };
            let Some(data) =
                owner(&at, &self.domain).and_then(|(namespace, service)| index.find(namespace, service, &at))
            else {
                break;
            };
            match data {
                Data::Alias(target) => {
                    let Some(target_name) = absolute(target) else {
                        return Answer::Failure;
                    };
                    records.push((own_name, TTL_S, RData::CNAME(CNAME(target_name))));
                    if question.kind == RecordType::CNAME || !self.is_ours(target) {
                        break;
                    }
                    at.clone_from(target);
                }
                Data::Addresses(addresses) => {
                    let mut found: Vec<_> =
                        addresses.iter().map(|ip| (own_name.clone(), TTL_S, RData::A(A(*ip)))).collect();
                    let len = found.len().max(1);
                    found.rotate_left(self.turn.fetch_add(1, Ordering::Relaxed) % len);
                    return self.with_aliases(question, records, found, RecordType::A);
                }
                Data::Servers(servers) => {
                    let found = servers.iter().filter_map(|(target, port)| {
                        Some((own_name.clone(), TTL_S, RData::SRV(SRV::new(0, 100, *port, absolute(target)?))))
                    });
                    return self.with_aliases(question, records, found.collect(), RecordType::SRV);
                }
            }
        }
        Answer::Records(records)
    }

    fn with_aliases(
        &self,
        question: &Question,
        mut aliases: Vec<(Name, u32, RData)>,
        found: Vec<(Name, u32, RData)>,
        kind: RecordType,
    ) -> Answer {
        if aliases.is_empty() {
            return self.of_kind(question, found, kind);
        }
        if question.kind == kind {
            aliases.extend(found);
        }
        Answer::Records(aliases)
    }

    fn of_kind(&self, question: &Question, records: Vec<(Name, u32, RData)>, kind: RecordType) -> Answer {
        if question.kind == kind || question.kind == RecordType::ANY {
            Answer::Records(records)
        } else {
            Answer::Empty(self.soa())
        }
    }
}

impl Zone for ClusterZone {
    fn answer(&self, question: &Question) -> Answer {
        let text = question.name.to_ascii().to_ascii_lowercase();
        let name = text.trim_end_matches('.');
        if self.is_ours(name) {
            return self.cluster(question, name);
        }
        match question.name.parse_arpa_name().map(|net| net.addr()) {
            Ok(IpAddr::V4(address)) => self.reverse(question, address),
            Ok(IpAddr::V6(_)) | Err(_) => self.forward(),
        }
    }

    /// The node's, without ourselves: asking ourselves would never end.
    fn upstreams(&self) -> Vec<SocketAddr> {
        let text = std::fs::read_to_string(&self.host_resolv_conf).unwrap_or_default();
        resolver::parse_upstreams(&text).into_iter().filter(|up| !self.own_addresses.contains(up)).collect()
    }
}

fn absolute(name: &str) -> Option<Name> {
    Name::from_ascii(format!("{name}.")).ok()
}
