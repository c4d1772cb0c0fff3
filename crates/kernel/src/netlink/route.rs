//! Links, addresses and routes (rtnetlink).
//!
//! Called by `networking` (bridges, veth pairs, a namespace's addresses) and `proxy` (the service link). All `ensure_`
//! calls are idempotent.

use super::message::{ACK, CREATE, DUMP, EXCLUSIVE, Message, REPLACE, Reply, attributes, read_text, read_u32};
use super::{Error, Family, Socket, check_interface};
use rustix::io::Errno;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
const BRIDGE_PORT_HAIRPIN: u16 = 4;
const VETH_PEER: u16 = 1;

const AF_INET: u8 = 2;
const UP: u32 = 1;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const TABLE_MAIN: u8 = 254;
const PROTOCOL_STATIC: u8 = 4;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const UNICAST: u8 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `bridge`, `veth`, …; None for hardware and `lo`.
    pub kind: Option<String>,
    pub master: Option<u32>,
    pub mac: Option<[u8; 6]>,
    pub up: bool,
}

/// A veth pair: one end here, the other made directly in `namespace` (moving it there would cost twenty times as much).
#[derive(Debug)]
pub struct VethSpec<'a> {
    pub name: &'a str,
    /// The bridge that this end becomes a port of.
    pub master: Option<u32>,
    pub namespace: BorrowedFd<'a>,
    pub peer_name: &'a str,
    pub peer_mac: Option<[u8; 6]>,
    pub mtu: Option<u32>,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Neighbours on the link; the address is the source that this node uses by preference.
    Link {
        interface: u32,
        source: Option<Ipv4Addr>,
    },
    Gateway {
        interface: u32,
        gateway: Ipv4Addr,
    },
}

/// A socket for links, addresses and routes of the namespace in which it was opened.
#[derive(Debug)]
pub struct Route(Socket);

impl Route {
    pub fn open() -> Result<Self, Error> {
        Socket::open(Family::Route).map(Self)
    }

    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        self.0.request(&Message::new(GET_LINK, DUMP, "list links").fixed(&[0; 16]), parse_link)
    }

    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        check_interface(name)?;
        let mut message = Message::new(GET_LINK, ACK, format!("find link {name}")).fixed(&[0; 16]);
        message.text(IFLA_IFNAME, name);
        match self.0.request(&message, parse_link) {
            Ok(found) => Ok(found.into_iter().next()),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A bridge of that name, up. Its address is fixed so that it does not change as ports come and go.
    pub fn ensure_bridge(&mut self, name: &str, mac: [u8; 6]) -> Result<u32, Error> {
        let kind = "bridge";
        let existing = self.link(name)?;
        if let Some(link) = &existing
            && link.kind.as_deref() != Some(kind)
        {
            return Err(Error::Refused {
                what: format!("make {kind} {name}"),
                errno: Errno::EXIST,
                hint: Some("an interface of another kind has this name".into()),
            });
        }
        if existing.is_none() {
            let mut message = Message::new(NEW_LINK, ACK | CREATE | EXCLUSIVE, format!("make {kind} {name}"))
                .fixed(&interface_header(0, true));
            message.text(IFLA_IFNAME, name).attr(IFLA_ADDRESS, &mac);
            message.nest(IFLA_LINKINFO, |m| {
                m.text(INFO_KIND, kind);
            });
            self.0.transact(&[message])?;
        }
        let link = match existing {
            Some(link) => link,
            None => self.link(name)?.ok_or_else(|| Error::Malformed(format!("make {kind} {name}")))?,
        };
        if !link.up {
            self.set_up(link.index)?;
        }
        Ok(link.index)
    }

    /// This end is up afterwards; the other comes up with [`Route::configure`].
    pub fn create_veth(&mut self, spec: &VethSpec<'_>) -> Result<(), Error> {
        check_interface(spec.name)?;
        check_interface(spec.peer_name)?;
        let mut message = Message::new(NEW_LINK, ACK | CREATE | EXCLUSIVE, format!("make veth {}", spec.name))
            .fixed(&interface_header(0, true));
        message.text(IFLA_IFNAME, spec.name);
        if let Some(mtu) = spec.mtu {
            message.u32_ne(IFLA_MTU, mtu);
        }
        if let Some(master) = spec.master {
            message.u32_ne(IFLA_MASTER, master);
        }
        message.nest(IFLA_LINKINFO, |info| {
            info.text(INFO_KIND, "veth").nest(INFO_DATA, |data| {
                data.nest(VETH_PEER, |peer| {
                    // The kernel refuses a peer that is up before the pair is whole: `configure` brings it up.
                    peer.raw(&interface_header(0, false)).text(IFLA_IFNAME, spec.peer_name);
                    peer.u32_ne(IFLA_NET_NS_FD, spec.namespace.as_raw_fd().cast_unsigned());
                    if let Some(mac) = spec.peer_mac {
                        peer.attr(IFLA_ADDRESS, &mac);
                    }
                    if let Some(mtu) = spec.mtu {
                        peer.u32_ne(IFLA_MTU, mtu);
                    }
                });
            });
        });
        let mut messages = vec![message];
        if spec.master.is_some() {
            // With br_netfilter a translated packet may have to leave by the port that it came in by.
            let mut hairpin = Message::new(NEW_LINK, ACK, format!("let port {} reflect", spec.name))
                .fixed(&interface_header(0, false));
            hairpin.text(IFLA_IFNAME, spec.name).nest(IFLA_LINKINFO, |info| {
                info.text(INFO_SLAVE_KIND, "bridge").nest(INFO_SLAVE_DATA, |data| {
                    data.attr(BRIDGE_PORT_HAIRPIN, &[1]);
                });
            });
            messages.push(hairpin);
        }
        self.0.transact(&messages)
    }

    pub fn set_up(&mut self, index: u32) -> Result<(), Error> {
        self.0.transact(&[
            Message::new(NEW_LINK, ACK, format!("set link {index} up")).fixed(&interface_header(index, true))
        ])
    }

    /// False if there was none.
    pub fn delete_link(&mut self, name: &str) -> Result<bool, Error> {
        check_interface(name)?;
        let mut message =
            Message::new(DELETE_LINK, ACK, format!("delete link {name}")).fixed(&interface_header(0, false));
        message.text(IFLA_IFNAME, name);
        match self.0.transact(&[message]) {
            Ok(()) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The IPv4 addresses of every interface: index, address, prefix length.
    pub fn addresses(&mut self) -> Result<Vec<(u32, Ipv4Addr, u8)>, Error> {
        let message = Message::new(GET_ADDRESS, DUMP, "list addresses").fixed(&[AF_INET, 0, 0, 0, 0, 0, 0, 0]);
        self.0.request(&message, |reply| {
            let prefix_len = *reply.payload.get(1)?;
            let index = read_u32(reply.payload, 4)?;
            // IFA_LOCAL where there is one: IFA_ADDRESS is the other end of a point-to-point link.
            let body = reply.payload.get(8..)?;
            let address = [2, 1].iter().find_map(|kind| attributes(body).find(|(k, _)| k == kind))?.1;
            Some((index, Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?), prefix_len))
        })
    }

    pub fn ensure_address(&mut self, index: u32, address: Ipv4Addr, prefix_len: u8) -> Result<(), Error> {
        self.0.transact(&[address_message(NEW_ADDRESS, ACK | CREATE | REPLACE, index, address, prefix_len)])
    }

    /// False if there was none.
    pub fn delete_address(&mut self, index: u32, address: Ipv4Addr, prefix_len: u8) -> Result<bool, Error> {
        match self.0.transact(&[address_message(DELETE_ADDRESS, ACK, index, address, prefix_len)]) {
            Ok(()) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub fn ensure_route(&mut self, prefix: (Ipv4Addr, u8), to: Destination) -> Result<(), Error> {
        self.0.transact(&[route_message(NEW_ROUTE, ACK | CREATE | REPLACE, prefix, to)])
    }

    /// False if there was none.
    pub fn delete_route(&mut self, prefix: (Ipv4Addr, u8), to: Destination) -> Result<bool, Error> {
        match self.0.transact(&[route_message(DELETE_ROUTE, ACK, prefix, to)]) {
            Ok(()) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Up, one address and its routes in one exchange: what an endpoint needs. With a `/32` the gateway gets a route of its own first.
    pub fn configure(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        prefix_len: u8,
        gateway: Option<Ipv4Addr>,
    ) -> Result<(), Error> {
        let mut messages = vec![
            Message::new(NEW_LINK, ACK, format!("set link {index} up")).fixed(&interface_header(index, true)),
            address_message(NEW_ADDRESS, ACK | CREATE | REPLACE, index, address, prefix_len),
        ];
        if let Some(gateway) = gateway {
            if prefix_len == 32 {
                messages.push(route_message(
                    NEW_ROUTE,
                    ACK | CREATE | REPLACE,
                    (gateway, 32),
                    Destination::Link { interface: index, source: Some(address) },
                ));
            }
            messages.push(route_message(
                NEW_ROUTE,
                ACK | CREATE | REPLACE,
                (Ipv4Addr::UNSPECIFIED, 0),
                Destination::Gateway { interface: index, gateway },
            ));
        }
        self.0.transact(&messages)
    }
}

/// Makes the kernel notice now that a link of the calling thread's namespace has got its carrier; it would otherwise do so in the
/// background and drop packets until then. Returns whether there is one.
pub fn settle_link(name: &str) -> Result<bool, Error> {
    const GET_LINK_STATE: u32 = 0x0a;
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    #[repr(C)]
    struct EthtoolValue {
        command: u32,
        data: u32,
    }
    check_interface(name)?;
    let failed = |errno| Error::Refused { what: format!("settle link {name}"), errno, hint: None };
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .map_err(failed)?;
    let mut value = EthtoolValue { command: GET_LINK_STATE, data: 0 };
    // SAFETY: an all-zero `ifreq` is valid; its name is zero-terminated because names have at most 15 of its 16 bytes.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the descriptor is open; `request` and the value that it points to outlive the call and have the kernel's layout.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        return Err(failed(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)));
    }
    Ok(value.data != 0)
}

/// `struct ifinfomsg`.
fn interface_header(index: u32, up: bool) -> [u8; 16] {
    let mut header = [0u8; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        header[8..12].copy_from_slice(&UP.to_ne_bytes());
        header[12..16].copy_from_slice(&UP.to_ne_bytes());
    }
    header
}

fn address_message(kind: u16, flags: u16, index: u32, address: Ipv4Addr, prefix_len: u8) -> Message {
    let mut header = [AF_INET, prefix_len, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(kind, flags, format!("address {address}/{prefix_len}")).fixed(&header);
    message.attr(2, &address.octets()).attr(1, &address.octets());
    if kind == NEW_ADDRESS && prefix_len < 31 {
        let broadcast = u32::from(address) | (u32::MAX >> prefix_len);
        message.attr(4, &broadcast.to_be_bytes());
    }
    message
}

fn route_message(kind: u16, flags: u16, (address, prefix_len): (Ipv4Addr, u8), to: Destination) -> Message {
    let scope = match to {
        Destination::Link { .. } => SCOPE_LINK,
        Destination::Gateway { .. } => SCOPE_UNIVERSE,
    };
    let header = [AF_INET, prefix_len, 0, 0, TABLE_MAIN, PROTOCOL_STATIC, scope, UNICAST, 0, 0, 0, 0];
    let mut message = Message::new(kind, flags, format!("route {address}/{prefix_len}")).fixed(&header);
    if prefix_len > 0 {
        message.attr(RTA_DST, &address.octets());
    }
    match to {
        Destination::Link { interface, source } => {
            message.u32_ne(RTA_OIF, interface);
            if let Some(source) = source {
                message.attr(RTA_PREFSRC, &source.octets());
            }
        }
        Destination::Gateway { interface, gateway } => {
            message.u32_ne(RTA_OIF, interface).attr(RTA_GATEWAY, &gateway.octets());
        }
    }
    message
}

fn parse_link(reply: &Reply<'_>) -> Option<Link> {
    if reply.kind != NEW_LINK {
        return None;
    }
    let index = read_u32(reply.payload, 4)?;
    let up = read_u32(reply.payload, 8)? & UP != 0;
    let mut link = Link { index, name: String::new(), kind: None, master: None, mac: None, up };
    for (kind, payload) in attributes(reply.payload.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = read_text(payload),
            IFLA_MASTER => link.master = read_u32(payload, 0),
            IFLA_ADDRESS => link.mac = payload.try_into().ok(),
            IFLA_LINKINFO => {
                link.kind = attributes(payload).find(|(k, _)| *k == INFO_KIND).map(|(_, text)| read_text(text))
            }
            _ => {}
        }
    }
    Some(link)
}
