//! nftables by netlink: a small typed model of tables, and batches that change the kernel's copy atomically.
//!
//! `networking` and `proxy` describe a [`Table`] and hand it to [`Nft::replace`]; later changes go through a [`Batch`] of elements, chains
//! and rules. Invariants: a batch takes effect as a whole or not at all; only the named table is touched. Deliberately
//! not here: reading rules back, IPv6 matches, anything that no caller needs.

mod batch;
mod encode;
mod model;

pub use batch::{Batch, Nft};
pub use model::{
    Chain, ChainKind, Data, Element, Family, Field, Hook, HookPoint, Key, Policy, Reject, Rule, Set, SetKind,
    Statement, Table, Verdict, connection_state, connection_status, interface,
};
