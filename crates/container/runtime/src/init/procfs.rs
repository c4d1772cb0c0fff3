//! What may be mounted where in a procfs.
//!
//! A mount inside of `/proc` could stand in for what later steps, and other programs, trust the kernel to say (CVE-2019-16884). The destination is
//! judged by what it is, after every link was followed.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd},
};

use rustix::fs::fstatfs;

const MAGIC: u64 = 0x9fa0;

/// Files that say something about the machine, and that tools for containers replace by something about the container.
const REPLACEABLE: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

pub(super) fn is_procfs(file: impl AsFd) -> io::Result<bool> {
    Ok(fstatfs(file)?.f_type as u64 == MAGIC)
}

/// `is_proc`: what is to be mounted is a procfs itself, which may cover another one.
pub(super) fn refuse_inside(target: impl AsFd, is_proc: bool) -> io::Result<()> {
    if !is_procfs(&target)? {
        return Ok(());
    }
    // The host's own procfs, still in its place: it names the target from the root of this namespace.
    let path = fs::read_link(format!("/proc/self/fd/{}", target.as_fd().as_raw_fd()))?;
    let path = path.to_string_lossy();
    if (is_proc && path.ends_with("/proc")) || REPLACEABLE.iter().any(|known| path.ends_with(known)) {
        return Ok(());
    }
    Err(io::Error::other(format!("{path:?} cannot be mounted because it is inside /proc")))
}
