//! What the parts have to know of the machine: its name and the address that others reach it by.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use anyhow::{Context, Result};

/// The pod bridge's own address: what pods reach on a machine that has no other.
const POD_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);

#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// The node's name: the host's, in lower case.
    pub(crate) name: String,
    pub(crate) address: IpAddr,
}

impl Host {
    pub(crate) fn observe() -> Result<Self> {
        let uname = rustix::system::uname();
        let name = uname.nodename().to_str().context("the host name is not UTF-8")?.to_ascii_lowercase();
        Ok(Self { name, address: outward_address().unwrap_or(IpAddr::V4(POD_GATEWAY)) })
    }
}

/// The source address of the default route. A datagram socket that is only connected sends nothing.
fn outward_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Any address that is surely not ours: TEST-NET-3 of RFC 5737.
    socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9)).ok()?;
    socket
        .local_addr()
        .ok()
        .map(|address| address.ip())
        .filter(|address| !address.is_loopback() && !address.is_unspecified())
}
