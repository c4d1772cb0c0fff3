//! One netlink socket: sends requests, collects what the kernel says to each.
//!
//! Used by `route`, `conntrack` and `nft`. Invariant: an answer is matched to its request by sequence number, and a refusal
//! names the request that was refused.

use super::Error;
use super::message::{Message, Reply, attributes, read_text, read_u32, replies};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sockopt};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Set on the messages of a dump that was overtaken by a change.
const DUMP_INTERRUPTED: u16 = 0x10;
const CAPPED: u16 = 0x100;
const EXT_ACK_TLVS: u16 = 0x200;
const EXT_ACK_MESSAGE: u16 = 1;
const RECEIVE_BYTES: usize = 64 * 1024;
/// Room for the answers to a batch in which everything is refused.
const SOCKET_BUFFER_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Route,
    Netfilter,
}

#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    send_buffer_bytes: usize,
}

impl Socket {
    /// In the calling thread's network namespace, for good.
    pub(crate) fn open(family: Family) -> Result<Self, Error> {
        let failed = |attempt| move |errno| Error::Socket { attempt, errno };
        let protocol = match family {
            // NETLINK_ROUTE is protocol zero.
            Family::Route => None,
            Family::Netfilter => Some(netlink::NETFILTER),
        };
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .map_err(failed("socket"))?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0)).map_err(failed("bind"))?;
        // Without the privilege the defaults must do.
        let _ = sockopt::set_socket_recv_buffer_size_force(&fd, SOCKET_BUFFER_BYTES);
        set_flag(&fd, libc::NETLINK_EXT_ACK);
        set_flag(&fd, libc::NETLINK_CAP_ACK);
        Ok(Self { fd, sequence: 1, send_buffer_bytes: 0 })
    }

    /// Sends all requests at once; the first refusal is the result (the others have been tried nevertheless, unless they
    /// are parts of an nftables batch, which is all or nothing).
    pub(crate) fn transact(&mut self, messages: &[Message]) -> Result<(), Error> {
        let first = self.send(messages)?;
        let mut refusal = None;
        let mut buffer = vec![0u8; RECEIVE_BYTES];
        loop {
            // The kernel has worked through all requests before `send` returned: what is not there now never comes.
            let len = match recv(&self.fd, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((len, _)) => len,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(errno) => {
                    return Err(Error::Socket { attempt: "receive", errno });
                }
            };
            for reply in replies(&buffer[..len]) {
                if let Err(error) = check(&reply, first, messages) {
                    refusal.get_or_insert(error);
                }
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    /// One request, all the messages of its answer. A dump that was overtaken by a change is asked for again.
    pub(crate) fn request<T>(
        &mut self,
        message: &Message,
        mut parse: impl FnMut(&Reply<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..8 {
            if let Some(found) = self.request_once(message, &mut parse)? {
                return Ok(found);
            }
        }
        Err(Error::Refused { what: message.what.clone(), errno: Errno::INTR, hint: None })
    }

    fn request_once<T>(
        &mut self,
        message: &Message,
        parse: &mut impl FnMut(&Reply<'_>) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Error> {
        let messages = std::slice::from_ref(message);
        let first = self.send(messages)?;
        let (mut found, mut interrupted) = (Vec::new(), false);
        let mut buffer = vec![0u8; RECEIVE_BYTES];
        loop {
            let len = match recv(&self.fd, &mut buffer[..], RecvFlags::empty()) {
                Ok((len, _)) => len,
                Err(Errno::INTR) => continue,
                Err(errno) => {
                    return Err(Error::Socket { attempt: "receive", errno });
                }
            };
            for reply in replies(&buffer[..len]).filter(|r| r.sequence == first) {
                interrupted |= reply.flags & DUMP_INTERRUPTED != 0;
                match reply.kind {
                    DONE => return Ok((!interrupted).then_some(found)),
                    ERROR => {
                        check(&reply, first, messages)?;
                        return Ok(Some(found));
                    }
                    _ => found.extend(parse(&reply)),
                }
            }
        }
    }

    /// Returns the sequence number of the first message; the others follow it.
    fn send(&mut self, messages: &[Message]) -> Result<u32, Error> {
        let first = self.sequence;
        let mut bytes = Vec::with_capacity(messages.iter().map(Message::len).sum());
        for message in messages {
            message.write_to(&mut bytes, self.sequence);
            self.sequence = self.sequence.wrapping_add(1).max(1);
        }
        if bytes.len() + 4096 > self.send_buffer_bytes {
            let wanted = (bytes.len() * 2).max(256 * 1024);
            if sockopt::set_socket_send_buffer_size_force(&self.fd, wanted).is_err() {
                let _ = sockopt::set_socket_send_buffer_size(&self.fd, wanted);
            }
            self.send_buffer_bytes = wanted;
        }
        loop {
            match rustix::net::send(&self.fd, &bytes, SendFlags::empty()) {
                Ok(_) => return Ok(first),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    return Err(Error::Socket { attempt: "send", errno });
                }
            }
        }
    }
}

/// An error message's number is zero for an acknowledgement.
fn check(reply: &Reply<'_>, first: u32, messages: &[Message]) -> Result<(), Error> {
    if reply.kind != ERROR {
        return Ok(());
    }
    let number = read_u32(reply.payload, 0).unwrap_or(0).cast_signed();
    if number == 0 {
        return Ok(());
    }
    let what =
        messages.get(reply.sequence.wrapping_sub(first) as usize).map_or("an earlier request", |m| m.what.as_str());
    let request_len = if reply.flags & CAPPED != 0 { 16 } else { read_u32(reply.payload, 4).unwrap_or(0) as usize };
    let hint = (reply.flags & EXT_ACK_TLVS != 0)
        .then(|| reply.payload.get(4 + request_len.next_multiple_of(4)..))
        .flatten()
        .and_then(|tlvs| attributes(tlvs).find(|(kind, _)| *kind == EXT_ACK_MESSAGE).map(|(_, text)| read_text(text)));
    Err(Error::Refused { what: what.to_owned(), errno: Errno::from_raw_os_error(-number), hint })
}

/// Better error texts; an old kernel does without.
fn set_flag(fd: &impl AsFd, option: libc::c_int) {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, the pointer and length describe `on`, which outlives the call.
    unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        );
    }
}
