//! Tracked connections: finding and forgetting those that lead to a backend that is gone.
//!
//! Called by `proxy` and `networking` for UDP, where a client that keeps sending keeps its old translation alive for ever. TCP ends by
//! itself. Invariant: only flows that match are deleted.

use super::message::{ACK, DUMP, Message, attributes};
use super::{Error, Family, Socket};
use std::net::Ipv4Addr;

const GET: u16 = (1 << 8) | 1;
const DELETE: u16 = (1 << 8) | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const NESTED: u16 = 0x8000;
const AF_INET: u8 = 2;

/// A connection as both sides see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    pub protocol: u8,
    pub source: Ipv4Addr,
    /// What the client addressed.
    pub destination: Ipv4Addr,
    pub destination_port: u16,
    /// Who answers: the backend, where the destination was translated.
    pub answered_by: Ipv4Addr,
    pub answered_from_port: u16,
    /// The original tuple as it came, to name the flow in a deletion.
    tuple: Vec<u8>,
}

#[derive(Debug)]
pub struct Conntrack(Socket);

impl Conntrack {
    pub fn open() -> Result<Self, Error> {
        Socket::open(Family::Netfilter).map(Self)
    }

    /// All IPv4 flows.
    pub fn flows(&mut self) -> Result<Vec<Flow>, Error> {
        let message = Message::new(GET, DUMP, "list connections").fixed(&[AF_INET, 0, 0, 0]);
        self.0.request(&message, |reply| parse_flow(reply.payload.get(4..)?))
    }

    /// Forgets every flow that `matches`; returns how many.
    pub fn forget(&mut self, mut matches: impl FnMut(&Flow) -> bool) -> Result<usize, Error> {
        let gone: Vec<Flow> = self.flows()?.into_iter().filter(|flow| matches(flow)).collect();
        for flow in &gone {
            let mut message = Message::new(DELETE, ACK, "forget a connection").fixed(&[AF_INET, 0, 0, 0]);
            message.attr(TUPLE_ORIGINAL | NESTED, &flow.tuple);
            match self.0.transact(&[message]) {
                Ok(()) => {}
                // It ended by itself in between.
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(gone.len())
    }
}

struct Side {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
}

fn parse_flow(body: &[u8]) -> Option<Flow> {
    let side = |wanted: u16| attributes(body).find(|(kind, _)| *kind == wanted).map(|(_, tuple)| tuple);
    let tuple = side(TUPLE_ORIGINAL)?;
    let (original, reply) = (parse_side(tuple)?, parse_side(side(TUPLE_REPLY)?)?);
    Some(Flow {
        protocol: original.protocol,
        source: original.source,
        destination: original.destination,
        destination_port: original.destination_port,
        answered_by: reply.source,
        answered_from_port: reply.source_port,
        tuple: tuple.to_vec(),
    })
}

fn parse_side(tuple: &[u8]) -> Option<Side> {
    let part = |wanted: u16| attributes(tuple).find(|(kind, _)| *kind == wanted).map(|(_, bytes)| bytes);
    let (ip, protocol) = (part(TUPLE_IP)?, part(TUPLE_PROTOCOL)?);
    let address = |wanted: u16| {
        attributes(ip)
            .find(|(kind, _)| *kind == wanted)
            .and_then(|(_, b)| <[u8; 4]>::try_from(b).ok())
            .map(Ipv4Addr::from)
    };
    let port = |wanted: u16| {
        attributes(protocol)
            .find(|(kind, _)| *kind == wanted)
            .and_then(|(_, b)| <[u8; 2]>::try_from(b).ok())
            .map_or(0, u16::from_be_bytes)
    };
    Some(Side {
        source: address(1)?,
        destination: address(2)?,
        protocol: attributes(protocol).find(|(kind, _)| *kind == 1).and_then(|(_, b)| b.first().copied())?,
        source_port: port(2),
        destination_port: port(3),
    })
}
