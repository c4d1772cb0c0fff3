//! Bridges, address management, published ports, container DNS: the network half of the container engine.
//!
//! `engine` and `cri` (through the engine) call [`Networking`]; nothing here knows what a container is: it deals in
//! namespaces (named by the caller), networks and endpoints (a namespace's place in a network).
//!
//! Invariants: an address is held by one endpoint at a time, and a held address survives kill -9; the nftables tables
//! `inet`/`bridge` `gantry-engine` belong to this crate alone and no other rule of the host is touched; everything that
//! the kernel needs to carry traffic stays in the kernel, so traffic flows while Gantry is down (the resolver at
//! 127.0.0.11 excepted: it answers again when Gantry is back).
//! Deliberately not here: overlay networks, IPv6, writing into a container's files ([`files`] computes their text only).

mod endpoint;
mod error;
pub mod files;
mod ipam;
mod journal;
mod manager;
mod model;
mod ports;
mod resolver;
mod rules;

pub use error::{Error, ErrorKind};
pub use manager::Networking;
pub use model::{
    BridgeConfig, DEFAULT_NETWORK, Driver, Endpoint, EndpointSpec, HostPort, MacAddress, Network, NetworkId,
    NetworkSpec, NetworkingConfig, POD_NETWORK, PortBinding, Protocol, PublishedPort, Subnet,
};
