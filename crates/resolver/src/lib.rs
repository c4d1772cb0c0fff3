//! What every resolver of Gantry has in common: the server loop over a [`Zone`], and forwarding.
//!
//! `networking` (names of a container's networks, at 127.0.0.11) and `dns` (names of the cluster) are the two users; both only say
//! what a name means. A crate of the ground because the halves may not call each other.
//! Invariants: a query that cannot be parsed is never answered with records; work in flight, the cache and messages are bounded;
//! an answer is accepted from the upstream that was asked only, for the question that was asked only.
//! Deliberately not here: zone transfers, DNSSEC validation, IPv6 upstream sockets on hosts without IPv6.

mod cache;
mod forward;
mod server;

pub use forward::{Forwarder, parse_upstreams};
pub use hickory_proto;
pub use server::{Answer, Question, Server, Zone};
