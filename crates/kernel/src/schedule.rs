//! How the kernel schedules this process: processor (`sched_setattr`) and block devices (`ioprio_set`).
//!
//! Used by `runtime` in a container's init, last of all, since a real-time policy or an idle class would slow down the steps before it.

use std::io;

use serde::{Deserialize, Serialize};

/// What `sched_setattr` takes, in its first published form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerAttributes {
    /// `SCHED_*` number.
    pub policy: u32,
    /// `SCHED_FLAG_*` bits.
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime_ns: u64,
    pub deadline_ns: u64,
    pub period_ns: u64,
}

/// `struct sched_attr`, 48 bytes.
#[repr(C)]
struct Raw {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    times: [u64; 3],
}

/// Of the calling thread; threads made afterwards inherit it.
pub fn set_scheduler(wanted: SchedulerAttributes) -> io::Result<()> {
    let attributes = Raw {
        size: size_of::<Raw>() as u32,
        policy: wanted.policy,
        flags: wanted.flags,
        nice: wanted.nice,
        priority: wanted.priority,
        times: [wanted.runtime_ns, wanted.deadline_ns, wanted.period_ns],
    };
    // SAFETY: the structure has the kernel's layout (checked below), says its size, and lives across the call; the kernel only reads it.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `class` is 1 (real time), 2 (best effort) or 3 (idle); `level` 0 to 7, the lowest first.
pub fn set_io_priority(class: u8, level: u8) -> io::Result<()> {
    const OF_PROCESS: libc::c_int = 1;
    let value = libc::c_int::from(class) << 13 | libc::c_int::from(level);
    // SAFETY: takes integers only.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, OF_PROCESS, 0, value) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_kernels_and_a_plain_policy_can_be_set() {
        assert_eq!(size_of::<Raw>(), 48);
        set_scheduler(SchedulerAttributes { policy: 3, ..SchedulerAttributes::default() }).unwrap();
        set_io_priority(2, 7).unwrap();
    }
}
