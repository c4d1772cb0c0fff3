//! Limits, in the kernel's units. `None` leaves a limit as it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// -1 is unlimited.
    pub memory_bytes: Option<i64>,
    /// Memory and swap together; -1 is unlimited.
    pub memory_swap_bytes: Option<i64>,
    pub memory_reservation_bytes: Option<i64>,
    pub swappiness: Option<u64>,
    pub oom_kill_disable: bool,
    pub cpu_shares: Option<u64>,
    pub cpu_quota_us: Option<i64>,
    pub cpu_period_us: Option<u64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    /// 0 or less is unlimited.
    pub pids: Option<i64>,
    pub blkio_weight: Option<u16>,
    pub read_bps: Vec<ThrottleRate>,
    pub write_bps: Vec<ThrottleRate>,
    pub read_iops: Vec<ThrottleRate>,
    pub write_iops: Vec<ThrottleRate>,
    /// In order; a later rule wins.
    pub devices: Vec<DeviceRule>,
    /// Files of a v2 cgroup, written as they are.
    pub unified: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThrottleRate {
    pub major: i64,
    pub minor: i64,
    pub rate: u64,
}

/// Which devices may be opened or made. `None` numbers are wildcards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    pub allow: bool,
    /// `a`, `b` or `c`.
    pub kind: char,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

impl DeviceRule {
    /// Everything, allowed or denied.
    pub fn all(allow: bool) -> Self {
        DeviceRule { allow, kind: 'a', major: None, minor: None, read: true, write: true, mknod: true }
    }

    pub(super) fn is_everything(&self) -> bool {
        self.kind == 'a' && self.major.is_none() && self.minor.is_none() && self.read && self.write && self.mknod
    }

    /// The line that v1's `devices.allow` and `devices.deny` take.
    pub(super) fn v1_line(&self) -> String {
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        let mut access = String::new();
        for (wanted, letter) in [(self.read, 'r'), (self.write, 'w'), (self.mknod, 'm')] {
            if wanted {
                access.push(letter);
            }
        }
        format!("{} {}:{} {access}", self.kind, number(self.major), number(self.minor))
    }
}
