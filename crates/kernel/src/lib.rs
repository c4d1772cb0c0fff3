//! The ground: system calls, mounts, namespaces, cgroup v1 and v2, netlink, nftables, seccomp.
//!
//! Every floor above calls down into here; nothing here calls up. All `unsafe` of the project is in this crate.

// Links, addresses, routes, rules: used by `networking` and `proxy`.
pub mod netlink;
pub mod netns;
pub mod nft;

// Processes and what confines them: used by `runtime` and `monitor`.
pub mod caps;
pub mod cgroup;
pub mod inroot;
pub mod message;
pub mod mount;
pub mod process;
pub mod schedule;
pub mod seccomp;
pub mod self_exe;
pub mod socket;
