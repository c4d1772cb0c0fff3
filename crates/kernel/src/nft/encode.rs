//! Rules as the kernel's expressions: loads into registers, comparisons, look-ups, actions.
//!
//! Used by `batch`. Registers: everything a statement needs starts at the first 4-byte register; no statement relies on what an
//! earlier one left there. Numbers are from `linux/netfilter/nf_tables.h`.

use super::model::{Family, Field, Key, Reject, Rule, Statement, Verdict};
use crate::netlink::message::Message;
use std::net::Ipv4Addr;

const FIRST_REGISTER: u32 = 8;
const VERDICT_REGISTER: u32 = 0;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const LIST_ELEMENT: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const NFPROTO_IPV4: u8 = 2;
const META_NFPROTO: u32 = 15;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

/// An anonymous map that a rule needs; made in the same batch, before the rule, and gone with it.
pub(super) enum AnonymousMap<'a> {
    Verdicts(&'a [Verdict]),
    AddressPorts(&'a [(Ipv4Addr, u16)]),
}

pub(super) fn anonymous_map(statement: &Statement) -> Option<AnonymousMap<'_>> {
    match statement {
        Statement::RandomVerdict(verdicts) if verdicts.len() > 1 => Some(AnonymousMap::Verdicts(verdicts)),
        Statement::DestinationNatRandom(targets) if targets.len() > 1 => Some(AnonymousMap::AddressPorts(targets)),
        _ => None,
    }
}

impl Field {
    /// Bytes in the kernel's registers, before padding.
    fn len(self) -> u32 {
        match self {
            Field::InputInterface | Field::OutputInterface => 16,
            Field::SourceAddress | Field::DestinationAddress | Field::ArpSenderAddress => 4,
            Field::ConnectionState
            | Field::ConnectionStatus
            | Field::Mark
            | Field::SourceType
            | Field::DestinationType => 4,
            Field::L4Protocol => 1,
            Field::SourcePort | Field::DestinationPort | Field::EtherType => 2,
            Field::EtherSource | Field::ArpSenderMac => 6,
        }
    }

    /// What `nft list` calls the type.
    pub(super) fn type_number(self) -> u32 {
        match self {
            Field::InputInterface | Field::OutputInterface => 41,
            Field::SourceAddress | Field::DestinationAddress | Field::ArpSenderAddress => 7,
            Field::L4Protocol => 12,
            Field::SourcePort | Field::DestinationPort => 13,
            Field::EtherSource | Field::ArpSenderMac => 9,
            Field::EtherType => 10,
            Field::Mark => 19,
            Field::ConnectionState | Field::ConnectionStatus | Field::SourceType | Field::DestinationType => 4,
        }
    }

    fn is_ipv4(self) -> bool {
        matches!(self, Field::SourceAddress | Field::DestinationAddress | Field::SourceType | Field::DestinationType)
    }
}

/// The type of a concatenation, six bits a part.
pub(super) fn key_type(key: &[Field]) -> u32 {
    key.iter().fold(0, |all, field| (all << 6) | field.type_number())
}

pub(super) fn key_len(key: &[Field]) -> u32 {
    match key {
        [one] => one.len(),
        many => many.iter().map(|f| f.len().next_multiple_of(4)).sum(),
    }
}

pub(super) fn verdict(m: &mut Message, verdict: &Verdict) {
    let (code, chain): (i32, Option<&str>) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    m.nest(DATA_VERDICT, |m| {
        m.u32_be(1, code.cast_unsigned());
        if let Some(chain) = chain {
            m.text(2, chain);
        }
    });
}

pub(super) fn value(m: &mut Message, bytes: &[u8]) {
    m.attr(DATA_VALUE, bytes);
}

/// All expressions of a rule; `anonymous` has the name and number of each anonymous map, in the order of the statements.
pub(super) fn rule(m: &mut Message, family: Family, rule: &Rule, mut anonymous: impl Iterator<Item = u32>) {
    if family == Family::Inet && rule.statements.iter().any(needs_ipv4) {
        meta_load(m, META_NFPROTO, FIRST_REGISTER);
        compare(m, FIRST_REGISTER, EQUAL, &[NFPROTO_IPV4]);
    }
    for statement in &rule.statements {
        encode_statement(m, statement, &mut anonymous);
    }
}

fn needs_ipv4(statement: &Statement) -> bool {
    match statement {
        Statement::Is { field, .. } | Statement::Bits { field, .. } => field.is_ipv4(),
        Statement::InSet { key, .. } | Statement::VerdictMap { key, .. } | Statement::Remember { key, .. } => {
            key.iter().any(|f| f.is_ipv4())
        }
        Statement::DestinationNat { .. } | Statement::DestinationNatMap { .. } | Statement::DestinationNatRandom(_) => {
            true
        }
        Statement::Do(_)
        | Statement::RandomVerdict(_)
        | Statement::Masquerade
        | Statement::Reject(_)
        | Statement::SetMark(_)
        | Statement::ClearMark(_)
        | Statement::Counter => false,
    }
}

fn encode_statement(m: &mut Message, statement: &Statement, anonymous: &mut impl Iterator<Item = u32>) {
    match statement {
        Statement::Is { field, value: Key(bytes), negated } => {
            load(m, *field, FIRST_REGISTER);
            let len = (field.len() as usize).min(bytes.len());
            compare(m, FIRST_REGISTER, if *negated { NOT_EQUAL } else { EQUAL }, &bytes[..len]);
        }
        Statement::Bits { field, mask, value, negated } => {
            load(m, *field, FIRST_REGISTER);
            bitwise(m, mask, &vec![0; mask.len()]);
            compare(m, FIRST_REGISTER, if *negated { NOT_EQUAL } else { EQUAL }, value);
        }
        Statement::InSet { key, set, negated } => {
            load_key(m, key);
            lookup(m, set, None, None, *negated);
        }
        Statement::Do(v) => immediate(m, VERDICT_REGISTER, |m| verdict(m, v)),
        Statement::VerdictMap { key, map } => {
            load_key(m, key);
            lookup(m, map, None, Some(VERDICT_REGISTER), false);
        }
        Statement::RandomVerdict(verdicts) => match verdicts.as_slice() {
            [] => {}
            [only] => immediate(m, VERDICT_REGISTER, |m| verdict(m, only)),
            many => {
                random(m, many.len());
                lookup(m, ANONYMOUS_NAME, anonymous.next(), Some(VERDICT_REGISTER), false);
            }
        },
        Statement::DestinationNat { address, port } => destination_nat_to(m, *address, *port),
        Statement::DestinationNatMap { key, map } => {
            load_key(m, key);
            lookup(m, map, None, Some(FIRST_REGISTER), false);
            destination_nat(m);
        }
        Statement::DestinationNatRandom(targets) => match targets.as_slice() {
            [] => {}
            [(address, port)] => destination_nat_to(m, *address, *port),
            many => {
                random(m, many.len());
                lookup(m, ANONYMOUS_NAME, anonymous.next(), Some(FIRST_REGISTER), false);
                destination_nat(m);
            }
        },
        Statement::Masquerade => expression(m, "masq", |_| {}),
        Statement::Reject(Reject::PortUnreachable) => expression(m, "reject", |m| {
            m.u32_be(1, 2).attr(2, &[1]);
        }),
        Statement::Reject(Reject::TcpReset) => expression(m, "reject", |m| {
            m.u32_be(1, 1);
        }),
        Statement::SetMark(bits) => change_mark(m, !bits, *bits),
        Statement::ClearMark(bits) => change_mark(m, !bits, 0),
        Statement::Remember { key, set, timeout } => {
            load_key(m, key);
            expression(m, "dynset", |m| {
                m.text(1, set).u32_be(3, 1).u32_be(4, FIRST_REGISTER);
                m.attr(6, &u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).to_be_bytes());
            });
        }
        Statement::Counter => expression(m, "counter", |m| {
            m.attr(1, &[0; 8]).attr(2, &[0; 8]);
        }),
    }
}

pub(super) const ANONYMOUS_NAME: &str = "__map%d";

fn expression(m: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    m.nest(LIST_ELEMENT, |m| {
        m.text(EXPRESSION_NAME, name).nest(EXPRESSION_DATA, fill);
    });
}

fn load_key(m: &mut Message, key: &[Field]) {
    let mut register = FIRST_REGISTER;
    for field in key {
        load(m, *field, register);
        register += field.len().div_ceil(4);
    }
}

fn load(m: &mut Message, field: Field, register: u32) {
    const LINK: u32 = 0;
    const NETWORK: u32 = 1;
    const TRANSPORT: u32 = 2;
    let mut payload = |base: u32, offset: u32| {
        expression(m, "payload", |m| {
            m.u32_be(1, register).u32_be(2, base).u32_be(3, offset).u32_be(4, field.len());
        });
    };
    match field {
        Field::SourceAddress => payload(NETWORK, 12),
        Field::DestinationAddress => payload(NETWORK, 16),
        Field::SourcePort => payload(TRANSPORT, 0),
        Field::DestinationPort => payload(TRANSPORT, 2),
        Field::EtherSource => payload(LINK, 6),
        Field::ArpSenderMac => payload(NETWORK, 8),
        Field::ArpSenderAddress => payload(NETWORK, 14),
        Field::EtherType => meta_load(m, 1, register),
        Field::Mark => meta_load(m, 3, register),
        Field::InputInterface => meta_load(m, 6, register),
        Field::OutputInterface => meta_load(m, 7, register),
        Field::L4Protocol => meta_load(m, 16, register),
        Field::ConnectionState => connection_load(m, 0, register),
        Field::ConnectionStatus => connection_load(m, 2, register),
        Field::SourceType => address_type(m, 1, register),
        Field::DestinationType => address_type(m, 2, register),
    }
}

fn meta_load(m: &mut Message, key: u32, register: u32) {
    expression(m, "meta", |m| {
        m.u32_be(1, register).u32_be(2, key);
    });
}

fn connection_load(m: &mut Message, key: u32, register: u32) {
    expression(m, "ct", |m| {
        m.u32_be(1, register).u32_be(2, key);
    });
}

fn address_type(m: &mut Message, flags: u32, register: u32) {
    expression(m, "fib", |m| {
        m.u32_be(1, register).u32_be(2, 3).u32_be(3, flags);
    });
}

fn compare(m: &mut Message, register: u32, operator: u32, bytes: &[u8]) {
    expression(m, "cmp", |m| {
        m.u32_be(1, register).u32_be(2, operator).nest(3, |m| value(m, bytes));
    });
}

/// `register = (register & mask) ^ xor`.
fn bitwise(m: &mut Message, mask: &[u8], xor: &[u8]) {
    let len = u32::try_from(mask.len()).unwrap_or(0);
    expression(m, "bitwise", |m| {
        m.u32_be(1, FIRST_REGISTER).u32_be(2, FIRST_REGISTER).u32_be(3, len);
        m.nest(4, |m| value(m, mask)).nest(5, |m| value(m, xor));
    });
}

fn lookup(m: &mut Message, set: &str, set_id: Option<u32>, destination: Option<u32>, negated: bool) {
    expression(m, "lookup", |m| {
        m.text(1, set).u32_be(2, FIRST_REGISTER);
        if let Some(register) = destination {
            m.u32_be(3, register);
        }
        if let Some(id) = set_id {
            m.u32_be(4, id);
        }
        if negated {
            m.u32_be(5, 1);
        }
    });
}

fn immediate(m: &mut Message, register: u32, data: impl FnOnce(&mut Message)) {
    expression(m, "immediate", |m| {
        m.u32_be(1, register).nest(2, data);
    });
}

/// A number below `modulus`, in host order.
fn random(m: &mut Message, modulus: usize) {
    expression(m, "numgen", |m| {
        m.u32_be(1, FIRST_REGISTER).u32_be(2, u32::try_from(modulus).unwrap_or(u32::MAX)).u32_be(3, 1).u32_be(4, 0);
    });
}

fn destination_nat_to(m: &mut Message, address: Ipv4Addr, port: u16) {
    immediate(m, FIRST_REGISTER, |m| value(m, &address.octets()));
    immediate(m, FIRST_REGISTER + 1, |m| value(m, &port.to_be_bytes()));
    destination_nat(m);
}

/// Address in the first register, port in the second.
fn destination_nat(m: &mut Message) {
    expression(m, "nat", |m| {
        m.u32_be(1, 1).u32_be(2, u32::from(NFPROTO_IPV4)).u32_be(3, FIRST_REGISTER).u32_be(5, FIRST_REGISTER + 1);
    });
}

fn change_mark(m: &mut Message, mask: u32, xor: u32) {
    meta_load(m, 3, FIRST_REGISTER);
    bitwise(m, &mask.to_ne_bytes(), &xor.to_ne_bytes());
    expression(m, "meta", |m| {
        m.u32_be(3, FIRST_REGISTER).u32_be(2, 3);
    });
}
