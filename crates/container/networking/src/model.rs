//! The words of this crate: networks, endpoints, published ports.
//!
//! Plain data, serialised to the journal as it stands; a field's meaning never changes, new fields get a default.

use crate::Error;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

/// Docker's default network.
pub const DEFAULT_NETWORK: &str = "bridge";
/// The network of the cluster's pods; hidden from `docker network ls` by the engine if it likes ([`Network::hidden`]).
pub const POD_NETWORK: &str = "gantry-pods";

/// How [`crate::Networking::open`] is to set the node up.
#[derive(Clone, Debug)]
pub struct NetworkingConfig {
    /// The state root; this crate writes below `networks/` and `run/netns/`.
    pub root: PathBuf,
    pub default_bridge: BridgeConfig,
    /// None: no pods on this node.
    pub pod_bridge: Option<BridgeConfig>,
    /// Where the node's upstream resolvers are written.
    pub host_resolv_conf: PathBuf,
    /// Where subnets of user-defined networks come from, each cut into blocks of `/16` or smaller.
    pub address_pools: Vec<Subnet>,
    /// Namespaces kept ready.
    pub pool_size: usize,
}

impl NetworkingConfig {
    /// The names and ranges that Gantry uses unless told otherwise.
    pub fn with_root(root: impl Into<PathBuf>) -> Self {
        let subnet = |a, b, len| Subnet { address: Ipv4Addr::new(a, b, 0, 0), prefix_len: len };
        Self {
            root: root.into(),
            default_bridge: BridgeConfig { interface: "gantry0".into(), subnet: subnet(172, 17, 16) },
            pod_bridge: Some(BridgeConfig { interface: "gantry-pods".into(), subnet: subnet(10, 42, 24) }),
            host_resolv_conf: "/etc/resolv.conf".into(),
            address_pools: (18..32)
                .map(|b| subnet(172, b, 16))
                .chain((0..16).map(|n| Subnet { address: Ipv4Addr::new(192, 168, n * 16, 0), prefix_len: 20 }))
                .collect(),
            pool_size: 4,
        }
    }
}

#[derive(Clone, Debug)]
pub struct BridgeConfig {
    pub interface: String,
    pub subnet: Subnet,
}

/// An IPv4 prefix with its host bits clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix_len: u8,
}

impl Subnet {
    /// Refuses prefixes that leave no room for a gateway and a host, and host bits that are set.
    pub fn new(address: Ipv4Addr, prefix_len: u8) -> Result<Self, Error> {
        let shown = || format!("{address}/{prefix_len}");
        if !(8..=30).contains(&prefix_len) {
            return Err(Error::InvalidSubnet(shown(), "the prefix length must be between 8 and 30"));
        }
        if u32::from(address) & !mask(prefix_len) != 0 {
            return Err(Error::InvalidSubnet(shown(), "host bits are set"));
        }
        if address.is_loopback() || address.is_multicast() || address.is_unspecified() || address.is_link_local() {
            return Err(Error::InvalidSubnet(shown(), "the range is reserved"));
        }
        Ok(Self { address, prefix_len })
    }

    pub fn address(&self) -> Ipv4Addr {
        self.address
    }
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        u32::from(ip) & mask(self.prefix_len) == u32::from(self.address)
    }
    pub fn overlaps(&self, other: &Subnet) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }
    /// The first host address: the gateway, unless the user named another.
    pub fn first_host(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) + 1)
    }
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) | !mask(self.prefix_len))
    }
}

fn mask(prefix_len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

impl FromStr for Subnet {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::InvalidSubnet(text.to_owned(), "not an IPv4 prefix");
        let (address, prefix_len) = text.split_once('/').ok_or_else(wrong)?;
        Subnet::new(address.parse().map_err(|_| wrong())?, prefix_len.parse().map_err(|_| wrong())?)
    }
}

impl TryFrom<String> for Subnet {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

/// 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NetworkId(pub String);

impl NetworkId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    Bridge,
    Host,
    None,
}

impl Driver {
    pub fn as_str(self) -> &'static str {
        match self {
            Driver::Bridge => "bridge",
            Driver::Host => "host",
            Driver::None => "null",
        }
    }
}

/// What a user asks for with `docker network create`.
#[derive(Clone, Debug, Default)]
pub struct NetworkSpec {
    pub name: String,
    /// Empty means `bridge`; no other driver can be created.
    pub driver: String,
    pub internal: bool,
    pub attachable: bool,
    pub subnet: Option<Subnet>,
    /// Addresses are given out of this part of the subnet only.
    pub ip_range: Option<Subnet>,
    pub gateway: Option<Ipv4Addr>,
    /// Addresses that are never given out.
    pub reserved: Vec<Ipv4Addr>,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub id: NetworkId,
    pub name: String,
    pub driver: Driver,
    pub created: Timestamp,
    pub internal: bool,
    #[serde(default)]
    pub attachable: bool,
    /// The bridge's name; empty for `host` and `none`.
    #[serde(default)]
    pub interface: String,
    pub subnet: Option<Subnet>,
    #[serde(default)]
    pub ip_range: Option<Subnet>,
    pub gateway: Option<Ipv4Addr>,
    #[serde(default)]
    pub reserved: Vec<Ipv4Addr>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Made by `docker network create`: names resolve at 127.0.0.11.
    pub user_defined: bool,
    /// Every endpoint talks by way of the gateway (`/32` addresses), and the whole node may reach every endpoint: pods.
    #[serde(default)]
    pub routed: bool,
    /// Filled by [`crate::Networking::network`] and `networks`, ordered by namespace; not in the network's own record.
    #[serde(skip)]
    pub endpoints: Vec<Endpoint>,
}

impl Network {
    /// Not Docker's: the engine leaves it out of `docker network ls`.
    pub fn hidden(&self) -> bool {
        self.routed
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
    /// The number in an IP header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

/// Which host port is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPort {
    /// Any that is free.
    Ephemeral,
    Fixed(u16),
    /// The first free one of these, both ends included.
    Range(u16, u16),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedPort {
    pub protocol: Protocol,
    pub container_port: u16,
    /// None or 0.0.0.0: every address of the node.
    pub host_ip: Option<Ipv4Addr>,
    pub host_port: HostPort,
}

/// A port as it was published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    pub protocol: Protocol,
    pub container_port: u16,
    pub host_ip: Ipv4Addr,
    pub host_port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Docker's own scheme: locally administered, the address in the last four bytes.
    pub fn from_address(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        MacAddress([0x02, 0x42, a, b, c, d])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::InvalidMac(text.to_owned());
        let mut bytes = [0u8; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        // A multicast address can be nobody's.
        if parts.next().is_some() || bytes[0] & 1 == 1 {
            return Err(wrong());
        }
        Ok(MacAddress(bytes))
    }
}

impl TryFrom<String> for MacAddress {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> String {
        mac.to_string()
    }
}

/// How a namespace is to join a network.
#[derive(Clone, Debug, Default)]
pub struct EndpointSpec {
    /// The container's name; answers DNS queries of its user-defined networks.
    pub name: String,
    /// More names (network aliases, the short container id, the service name of compose).
    pub aliases: Vec<String>,
    pub ip: Option<Ipv4Addr>,
    pub mac: Option<MacAddress>,
    pub ports: Vec<PublishedPort>,
    /// Upstream resolvers of this container (`--dns`); empty: the node's.
    pub dns: Vec<Ipv4Addr>,
    /// Names that only this container knows (`--link`), and the container that each means.
    pub links: Vec<(String, String)>,
}

/// A namespace's place in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// 64 hexadecimal digits.
    pub id: String,
    pub network: NetworkId,
    pub network_name: String,
    pub namespace: String,
    pub name: String,
    pub aliases: Vec<String>,
    pub address: Ipv4Addr,
    pub prefix_len: u8,
    /// None on internal networks.
    pub gateway: Option<Ipv4Addr>,
    pub mac: MacAddress,
    /// Inside the namespace: `eth0`, `eth1`, …
    pub interface: String,
    /// On the node: the bridge's port.
    pub host_interface: String,
    pub ports: Vec<PortBinding>,
    #[serde(default)]
    pub dns: Vec<Ipv4Addr>,
    /// Names of its own for its neighbours.
    #[serde(default)]
    pub links: Vec<(String, String)>,
}
