//! What can go wrong, in the words that Docker's clients know.
//!
//! The engine maps [`Error::kind`] to an HTTP status; the text is shown to users as it is.

use std::net::Ipv4Addr;
use std::path::PathBuf;

/// The class of a failure, for the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    NotFound,
    Conflict,
    Forbidden,
    Invalid,
    Internal,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("network {0} not found")]
    NetworkNotFound(String),
    #[error("network {0} is ambiguous ({1} matches found on name)")]
    NetworkAmbiguous(String, usize),
    #[error("network with name {0} already exists")]
    NetworkExists(String),
    #[error("{0} is a pre-defined network and cannot be removed")]
    Predefined(String),
    #[error("operation is not permitted on predefined {0} network")]
    PredefinedName(String),
    #[error("error while removing network: network {name} has active endpoints ({endpoints})")]
    ActiveEndpoints { name: String, endpoints: String },
    #[error("invalid network name \"{0}\": only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    InvalidName(String),
    #[error("could not find plugin {0} in v1 plugin registry: plugin not found")]
    UnknownDriver(String),
    #[error("invalid subnet {0}: {1}")]
    InvalidSubnet(String, &'static str),
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    SubnetOverlap,
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )]
    NoSubnetLeft,
    #[error("no available IPv4 addresses on this network's address pools: {0}")]
    NoAddressLeft(String),
    #[error("Address already in use")]
    AddressInUse(Ipv4Addr),
    #[error("no configured subnet contains IP address {0}")]
    AddressOutside(Ipv4Addr),
    #[error("invalid mac address: {0}")]
    InvalidMac(String),
    #[error("endpoint with name {endpoint} already exists in network {network}")]
    EndpointExists { endpoint: String, network: String },
    #[error("container {namespace} is not connected to network {network}")]
    NotConnected { namespace: String, network: String },
    #[error("network namespace {0} not found")]
    NamespaceNotFound(String),
    #[error("network namespace {0} already exists")]
    NamespaceExists(String),
    #[error("invalid namespace name {0:?}")]
    InvalidNamespace(String),
    #[error("Bind for {host_ip}:{port} failed: port is already allocated")]
    PortAllocated { host_ip: Ipv4Addr, port: u16 },
    #[error(
        "failed to bind host port for {host_ip}:{port}:{container_ip}:{container_port}/{protocol}: address already in use"
    )]
    PortInUse { host_ip: Ipv4Addr, port: u16, container_ip: Ipv4Addr, container_port: u16, protocol: &'static str },
    #[error("failed to bind host port for {host_ip}:{port}/{protocol}: {source}")]
    PortBind { host_ip: Ipv4Addr, port: u16, protocol: &'static str, source: std::io::Error },
    #[error("invalid port range {0}-{1}")]
    InvalidPortRange(u16, u16),
    #[error("cannot {attempt} {path}: {source}")]
    Io { attempt: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path} does not hold what it should: {source}")]
    Journal { path: PathBuf, source: serde_json::Error },
    #[error("cannot {attempt}: {source}")]
    Kernel { attempt: String, source: kernel::netlink::Error },
    #[error("a background task of networking died: {0}")]
    Task(String),
}

impl Error {
    /// What this failure means to a caller on the wire.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::NetworkNotFound(_) | Error::NamespaceNotFound(_) | Error::UnknownDriver(_) => ErrorKind::NotFound,
            Error::NetworkExists(_) | Error::NamespaceExists(_) => ErrorKind::Conflict,
            Error::Predefined(_)
            | Error::PredefinedName(_)
            | Error::ActiveEndpoints { .. }
            | Error::EndpointExists { .. }
            | Error::SubnetOverlap
            | Error::AddressInUse(_) => ErrorKind::Forbidden,
            Error::NetworkAmbiguous(..)
            | Error::InvalidName(_)
            | Error::InvalidSubnet(..)
            | Error::AddressOutside(_)
            | Error::InvalidMac(_)
            | Error::InvalidNamespace(_)
            | Error::InvalidPortRange(..) => ErrorKind::Invalid,
            Error::NoSubnetLeft
            | Error::NoAddressLeft(_)
            | Error::NotConnected { .. }
            | Error::PortAllocated { .. }
            | Error::PortInUse { .. }
            | Error::PortBind { .. }
            | Error::Io { .. }
            | Error::Journal { .. }
            | Error::Kernel { .. }
            | Error::Task(_) => ErrorKind::Internal,
        }
    }

    pub(crate) fn io(attempt: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { attempt, path, source }
    }

    pub(crate) fn kernel(attempt: impl Into<String>) -> impl FnOnce(kernel::netlink::Error) -> Error {
        let attempt = attempt.into();
        move |source| Error::Kernel { attempt, source }
    }
}
