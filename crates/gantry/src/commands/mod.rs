//! Gantry's own commands: each reads its options, does one thing, prints for people or as JSON.

pub(crate) mod down;
pub(crate) mod env;
pub(crate) mod fsck;
mod preflight;
pub(crate) mod registry;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod up;
pub(crate) mod why;
