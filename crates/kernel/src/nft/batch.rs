//! Batches: what is to change, sent as one transaction.
//!
//! Invariant: order within a batch is the order of the calls; the caller removes what refers to a thing before the thing.

use super::encode::{self, ANONYMOUS_NAME, AnonymousMap};
use super::model::{Chain, ChainKind, Data, Element, Family, HookPoint, Policy, Rule, Set, SetKind, Table, Verdict};
use crate::netlink::message::{ACK, APPEND, CREATE, Message};
use crate::netlink::{Error, Family as Protocol, Socket};
use std::net::Ipv4Addr;

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const DELETE_CHAIN: u16 = SUBSYSTEM | 5;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const DELETE_RULE: u16 = SUBSYSTEM | 8;
const NEW_SET: u16 = SUBSYSTEM | 9;
const DELETE_SET: u16 = SUBSYSTEM | 11;
const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
const DELETE_ELEMENT: u16 = SUBSYSTEM | 14;

const ANONYMOUS: u32 = 0x1;
const CONSTANT: u32 = 0x2;
const MAP: u32 = 0x8;
const TIMEOUT: u32 = 0x10;
const EVALUATED: u32 = 0x20;
const VERDICT_TYPE: u32 = 0xffff_ff00;
const INTEGER_TYPE: u32 = 4;
const ADDRESS_PORT_TYPE: u32 = (7 << 6) | 13;
/// An attribute holds less than 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// A socket for nftables of the namespace in which it was opened.
#[derive(Debug)]
pub struct Nft(Socket);

impl Nft {
    pub fn open() -> Result<Self, Error> {
        Socket::open(Protocol::Netfilter).map(Self)
    }

    /// Puts `table` in the place of the table of that name, whatever that holds, without a moment in between.
    pub fn replace(&mut self, table: &Table) -> Result<(), Error> {
        let mut batch = Batch::new(table.family, &table.name);
        batch.replace(table);
        self.apply(&batch)
    }

    pub fn delete_table(&mut self, family: Family, name: &str) -> Result<(), Error> {
        let mut batch = Batch::new(family, name);
        // Making it first makes the deletion succeed where there was none.
        batch.table(NEW_TABLE, CREATE, None);
        batch.table(DELETE_TABLE, 0, None);
        self.apply(&batch)
    }

    pub fn apply(&mut self, batch: &Batch) -> Result<(), Error> {
        if batch.messages.is_empty() {
            return Ok(());
        }
        let mut messages = Vec::with_capacity(batch.messages.len() + 2);
        messages.push(Message::new(BATCH_BEGIN, 0, "begin").fixed(&[0, 0, 0, 10]));
        messages.extend(batch.messages.iter().cloned());
        messages.push(Message::new(BATCH_END, ACK, "commit").fixed(&[0, 0, 0, 10]));
        self.0.transact(&messages)
    }
}

/// Changes to one table.
#[derive(Clone, Debug)]
pub struct Batch {
    family: Family,
    table: String,
    messages: Vec<Message>,
    last_set_id: u32,
}

impl Batch {
    pub fn new(family: Family, table: impl Into<String>) -> Self {
        Self { family, table: table.into(), messages: Vec::new(), last_set_id: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn message(&self, kind: u16, flags: u16, what: String) -> Message {
        let family = match self.family {
            Family::Inet => 1,
            Family::Bridge => 7,
        };
        let mut message = Message::new(kind, flags, what).fixed(&[family, 0, 0, 0]);
        message.text(1, &self.table);
        message
    }

    fn table(&mut self, kind: u16, flags: u16, comment: Option<&str>) {
        let mut message = self.message(kind, flags, format!("nftables table {}", self.table));
        if let Some(comment) = comment {
            message.attr(6, &user_comment(comment));
        }
        self.messages.push(message);
    }

    fn replace(&mut self, table: &Table) {
        self.table(NEW_TABLE, CREATE, None);
        self.table(DELETE_TABLE, 0, None);
        self.table(NEW_TABLE, CREATE, table.comment.as_deref());
        // Chains first without rules, so that verdicts can name them in any order.
        for chain in &table.chains {
            self.declare_chain(chain);
        }
        for set in &table.sets {
            self.add_set(set);
        }
        for chain in &table.chains {
            self.add_rules(&chain.name, &chain.rules);
        }
    }

    /// The chain without its rules; nothing happens if it exists.
    pub fn declare_chain(&mut self, chain: &Chain) {
        let mut message = self.message(NEW_CHAIN, CREATE, format!("nftables chain {}", chain.name));
        message.text(3, &chain.name);
        if let Some(hook) = chain.hook {
            let point = match hook.point {
                HookPoint::Prerouting => 0,
                HookPoint::Input => 1,
                HookPoint::Forward => 2,
                HookPoint::Output => 3,
                HookPoint::Postrouting => 4,
            };
            message.nest(4, |m| {
                m.u32_be(1, point).u32_be(2, hook.priority.cast_unsigned());
            });
            message.u32_be(
                5,
                match hook.policy {
                    Policy::Drop => 0,
                    Policy::Accept => 1,
                },
            );
            message.text(
                7,
                match hook.kind {
                    ChainKind::Filter => "filter",
                    ChainKind::Nat => "nat",
                },
            );
        }
        self.messages.push(message);
    }

    /// Removes all rules of a chain.
    pub fn flush_chain(&mut self, chain: &str) {
        let mut message = self.message(DELETE_RULE, 0, format!("flush nftables chain {chain}"));
        message.text(2, chain);
        self.messages.push(message);
    }

    /// The chain must be empty and nothing may refer to it.
    pub fn delete_chain(&mut self, chain: &str) {
        let mut message = self.message(DELETE_CHAIN, 0, format!("delete nftables chain {chain}"));
        message.text(3, chain);
        self.messages.push(message);
    }

    pub fn add_rules(&mut self, chain: &str, rules: &[Rule]) {
        for rule in rules {
            let maps: Vec<u32> = rule
                .statements
                .iter()
                .filter_map(encode::anonymous_map)
                .map(|map| self.add_anonymous_map(&map))
                .collect();
            let mut message = self.message(NEW_RULE, CREATE | APPEND, format!("nftables rule of chain {chain}"));
            message.text(2, chain);
            message.nest(4, |m| encode::rule(m, self.family, rule, maps.into_iter()));
            if let Some(comment) = &rule.comment {
                message.attr(7, &user_comment(comment));
            }
            self.messages.push(message);
        }
    }

    pub fn add_set(&mut self, set: &Set) {
        self.last_set_id += 1;
        let mut message = self.message(NEW_SET, CREATE, format!("nftables set {}", set.name));
        message.text(2, &set.name);
        let flags = match set.kind {
            SetKind::Plain => 0,
            SetKind::Dynamic { .. } => TIMEOUT | EVALUATED,
            SetKind::Verdicts | SetKind::AddressPorts => MAP,
        };
        message.u32_be(3, flags).u32_be(4, encode::key_type(&set.key)).u32_be(5, encode::key_len(&set.key));
        match set.kind {
            SetKind::Plain => {}
            SetKind::Verdicts => {
                message.u32_be(6, VERDICT_TYPE).u32_be(7, 16);
            }
            SetKind::AddressPorts => {
                message.u32_be(6, ADDRESS_PORT_TYPE).u32_be(7, 8);
            }
            SetKind::Dynamic { timeout } => {
                message.attr(11, &u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).to_be_bytes());
                // Bounds what clients can make the kernel remember.
                message.nest(9, |m| {
                    m.u32_be(1, 65_536);
                });
            }
        }
        message.u32_be(10, self.last_set_id);
        self.messages.push(message);
        self.add_elements(&set.name, &set.elements);
    }

    pub fn delete_set(&mut self, set: &str) {
        let mut message = self.message(DELETE_SET, 0, format!("delete nftables set {set}"));
        message.text(2, set);
        self.messages.push(message);
    }

    pub fn add_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(NEW_ELEMENT, CREATE, set, None, elements);
    }

    /// All must be there, or the whole batch is refused.
    pub fn delete_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(DELETE_ELEMENT, 0, set, None, elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, set_id: Option<u32>, elements: &[Element]) {
        for some in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let mut message = self.message(kind, flags, format!("elements of nftables set {set}"));
            message.text(2, set);
            if let Some(id) = set_id {
                message.u32_be(4, id);
            }
            message.nest(3, |m| {
                for element in some {
                    encode_element(m, element, kind == NEW_ELEMENT);
                }
            });
            self.messages.push(message);
        }
    }

    fn add_anonymous_map(&mut self, map: &AnonymousMap<'_>) -> u32 {
        self.last_set_id += 1;
        let id = self.last_set_id;
        let (data_type, data_len) = match map {
            AnonymousMap::Verdicts(_) => (VERDICT_TYPE, 16),
            AnonymousMap::AddressPorts(_) => (ADDRESS_PORT_TYPE, 8),
        };
        let mut message = self.message(NEW_SET, CREATE, "nftables anonymous map".into());
        message.text(2, ANONYMOUS_NAME).u32_be(3, ANONYMOUS | CONSTANT | MAP).u32_be(4, INTEGER_TYPE).u32_be(5, 4);
        message.u32_be(6, data_type).u32_be(7, data_len).u32_be(10, id);
        self.messages.push(message);
        let key = |n: usize| super::Key::new().number(u32::try_from(n).unwrap_or(u32::MAX));
        let elements: Vec<Element> = match map {
            AnonymousMap::Verdicts(verdicts) => verdicts
                .iter()
                .enumerate()
                .map(|(n, v): (usize, &Verdict)| Element::verdict(key(n), v.clone()))
                .collect(),
            AnonymousMap::AddressPorts(targets) => targets
                .iter()
                .enumerate()
                .map(|(n, (a, p)): (usize, &(Ipv4Addr, u16))| Element::address_port(key(n), *a, *p))
                .collect(),
        };
        self.elements(NEW_ELEMENT, CREATE, ANONYMOUS_NAME, Some(id), &elements);
        id
    }
}

fn encode_element(m: &mut Message, element: &Element, with_data: bool) {
    m.nest(1, |m| {
        m.nest(1, |m| encode::value(m, &element.key.0));
        match &element.data {
            Data::Verdict(verdict) if with_data => {
                m.nest(2, |m| encode::verdict(m, verdict));
            }
            Data::AddressPort(address, port) if with_data => {
                let [a, b, c, d] = address.octets();
                let [high, low] = port.to_be_bytes();
                m.nest(2, |m| encode::value(m, &[a, b, c, d, high, low, 0, 0]));
            }
            Data::Nothing | Data::Verdict(_) | Data::AddressPort(..) => {}
        }
    });
}

/// The form in which `nft` keeps comments.
fn user_comment(text: &str) -> Vec<u8> {
    let text: String = text.chars().filter(|c| c.is_ascii() && !c.is_ascii_control() && *c != '"').take(120).collect();
    let mut bytes = vec![0, u8::try_from(text.len() + 1).unwrap_or(121)];
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    bytes
}
