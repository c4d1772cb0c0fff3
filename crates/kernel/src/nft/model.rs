//! The words of a rule set. Plain data: equal values make equal kernel rules.

use std::net::Ipv4Addr;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6; matches on IPv4 fields leave IPv6 packets alone.
    Inet,
    Bridge,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub family: Family,
    pub name: String,
    pub comment: Option<String>,
    pub sets: Vec<Set>,
    pub chains: Vec<Chain>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    /// None: reached by jumps only.
    pub hook: Option<Hook>,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    pub kind: ChainKind,
    pub point: HookPoint,
    pub priority: i32,
    pub policy: Policy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    Filter,
    Nat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookPoint {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Accept,
    Drop,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rule {
    pub statements: Vec<Statement>,
    pub comment: Option<String>,
}

impl Rule {
    pub fn new(statements: impl Into<Vec<Statement>>) -> Self {
        Self { statements: statements.into(), comment: None }
    }
    pub fn comment(mut self, text: impl Into<String>) -> Self {
        self.comment = Some(text.into());
        self
    }
}

/// Something that a packet has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    InputInterface,
    OutputInterface,
    SourceAddress,
    DestinationAddress,
    L4Protocol,
    SourcePort,
    DestinationPort,
    ConnectionState,
    ConnectionStatus,
    Mark,
    /// The routing table's opinion of the address (`RTN_LOCAL` is 2).
    SourceType,
    DestinationType,
    EtherSource,
    EtherType,
    ArpSenderMac,
    ArpSenderAddress,
}

/// Bits of [`Field::ConnectionState`].
pub mod connection_state {
    pub const INVALID: u32 = 1;
    pub const ESTABLISHED: u32 = 2;
    pub const RELATED: u32 = 4;
    pub const NEW: u32 = 8;
}

/// Bits of [`Field::ConnectionStatus`].
pub mod connection_status {
    pub const DESTINATION_TRANSLATED: u32 = 1 << 5;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    PortUnreachable,
    TcpReset,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// The field equals (or, `negated`, does not equal) the value.
    Is {
        field: Field,
        value: Key,
        negated: bool,
    },
    /// The field's bits under `mask` equal `value` (or not).
    Bits {
        field: Field,
        mask: Vec<u8>,
        value: Vec<u8>,
        negated: bool,
    },
    InSet {
        key: Vec<Field>,
        set: String,
        negated: bool,
    },
    Do(Verdict),
    /// The map's verdict for the packet; goes on with the next rule where there is none.
    VerdictMap {
        key: Vec<Field>,
        map: String,
    },
    /// One of these, at random, evenly.
    RandomVerdict(Vec<Verdict>),
    DestinationNat {
        address: Ipv4Addr,
        port: u16,
    },
    /// To the address and port that the map has for the packet; goes on with the next rule where there is none.
    DestinationNatMap {
        key: Vec<Field>,
        map: String,
    },
    /// To one of these, at random, evenly.
    DestinationNatRandom(Vec<(Ipv4Addr, u16)>),
    Masquerade,
    Reject(Reject),
    /// Sets these bits of the packet's mark.
    SetMark(u32),
    /// Clears these bits of the packet's mark.
    ClearMark(u32),
    /// Remembers the key in a dynamic set, anew on each packet that comes here.
    Remember {
        key: Vec<Field>,
        set: String,
        timeout: Duration,
    },
    Counter,
}

impl Statement {
    pub fn is(field: Field, value: Key) -> Self {
        Statement::Is { field, value, negated: false }
    }
    pub fn is_not(field: Field, value: Key) -> Self {
        Statement::Is { field, value, negated: true }
    }
    /// `ip saddr 10.0.0.0/8`, or `!=`.
    pub fn in_prefix(field: Field, address: Ipv4Addr, prefix_len: u8, negated: bool) -> Self {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0);
        Statement::Bits {
            field,
            mask: mask.to_be_bytes().to_vec(),
            value: (u32::from(address) & mask).to_be_bytes().to_vec(),
            negated,
        }
    }
    /// Any of these bits of a host-order field (state, status, mark) is set.
    pub fn any_bit(field: Field, bits: u32) -> Self {
        Statement::Bits { field, mask: bits.to_ne_bytes().to_vec(), value: 0u32.to_ne_bytes().to_vec(), negated: true }
    }
}

/// A value to compare with, or a set element's key: each part padded to four bytes, as in the kernel's registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub(super) Vec<u8>);

impl Key {
    pub fn new() -> Self {
        Self::default()
    }
    fn part(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
    pub fn address(self, address: Ipv4Addr) -> Self {
        self.part(&address.octets())
    }
    pub fn port(self, port: u16) -> Self {
        self.part(&port.to_be_bytes())
    }
    /// 6 is TCP, 17 UDP, 132 SCTP.
    pub fn protocol(self, number: u8) -> Self {
        self.part(&[number])
    }
    pub fn interface(self, name: &str) -> Self {
        let mut bytes = [0u8; 16];
        for (to, from) in bytes.iter_mut().zip(name.bytes().take(15)) {
            *to = from;
        }
        self.part(&bytes)
    }
    pub fn mac(self, mac: [u8; 6]) -> Self {
        self.part(&mac)
    }
    pub fn ether_type(self, number: u16) -> Self {
        self.part(&number.to_be_bytes())
    }
    /// A number in host order: mark, state, address type.
    pub fn number(self, number: u32) -> Self {
        self.part(&number.to_ne_bytes())
    }
}

/// Shorthand for a key of one interface name.
pub fn interface(name: &str) -> Key {
    Key::new().interface(name)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub name: String,
    pub key: Vec<Field>,
    pub kind: SetKind,
    pub elements: Vec<Element>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetKind {
    Plain,
    /// Filled by [`Statement::Remember`]; entries leave after the time.
    Dynamic {
        timeout: Duration,
    },
    Verdicts,
    /// Key to address and port.
    AddressPorts,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    pub key: Key,
    pub data: Data,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// An element of a plain set.
    Nothing,
    Verdict(Verdict),
    AddressPort(Ipv4Addr, u16),
}

impl Element {
    pub fn key(key: Key) -> Self {
        Self { key, data: Data::Nothing }
    }
    pub fn verdict(key: Key, verdict: Verdict) -> Self {
        Self { key, data: Data::Verdict(verdict) }
    }
    pub fn address_port(key: Key, address: Ipv4Addr, port: u16) -> Self {
        Self { key, data: Data::AddressPort(address, port) }
    }
}
