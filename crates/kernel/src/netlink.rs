//! Netlink, synchronous: links, addresses, routes ([`Route`]), tracked connections ([`Conntrack`]) and the socket below nftables.
//!
//! Called by `networking` and `proxy`. A socket belongs to the network namespace in which it was opened, whatever thread
//! uses it later: that is how a namespace is configured from outside. The kernel answers route and nftables
//! requests inside the system call that sends them, so there is nothing to wait for and nothing asynchronous here.
//! Deliberately not here: subscriptions to changes, IPv6.

mod conntrack;
pub(crate) mod message;
mod route;
mod socket;

pub use conntrack::{Conntrack, Flow};
pub use route::{Destination, Link, Route, VethSpec, settle_link};
pub(crate) use socket::{Family, Socket};

use rustix::io::Errno;

/// What the kernel said, and to what.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {errno}{}", .hint.as_deref().map(|h| format!(" ({h})")).unwrap_or_default())]
    Refused {
        what: String,
        errno: Errno,
        /// The kernel's own explanation, where it gives one.
        hint: Option<String>,
    },
    #[error("netlink {attempt}: {errno}")]
    Socket { attempt: &'static str, errno: Errno },
    #[error("the kernel's answer to {0} makes no sense")]
    Malformed(String),
    #[error("interface name {0:?} is empty, too long or has odd characters")]
    InterfaceName(String),
    #[error("{attempt} {path}: {source}")]
    Io { attempt: &'static str, path: std::path::PathBuf, source: std::io::Error },
    #[error("no thread could be started to enter a namespace: {0}")]
    Thread(std::io::Error),
}

impl Error {
    /// The kernel's error number, where the failure is the kernel's.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Refused { errno, .. } | Error::Socket { errno, .. } => Some(*errno),
            Error::Io { source, .. } => Errno::from_io_error(source),
            Error::Malformed(_) | Error::InterfaceName(_) | Error::Thread(_) => None,
        }
    }

    /// The object is not there.
    pub fn is_absent(&self) -> bool {
        matches!(self.errno(), Some(Errno::NODEV | Errno::NOENT | Errno::ADDRNOTAVAIL | Errno::SRCH))
    }
}

/// At most 15 bytes, no separators: what the kernel takes as an interface's name.
fn check_interface(name: &str) -> Result<(), Error> {
    let fine = !name.is_empty()
        && name.len() <= 15
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':' && b != b'%');
    if fine { Ok(()) } else { Err(Error::InterfaceName(name.to_owned())) }
}
