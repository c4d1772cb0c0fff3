//! What a cgroup has used: the numbers behind `docker stats`, `docker inspect` and the kubelet's summary.
//!
//! A number that the kernel does not offer is zero: a statistic is never a reason to fail.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::Cgroup;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu_total_ns: u64,
    pub cpu_user_ns: u64,
    pub cpu_system_ns: u64,
    pub cpu_per_core_ns: Vec<u64>,
    pub throttled_periods: u64,
    pub periods: u64,
    pub throttled_ns: u64,
    pub memory_usage_bytes: u64,
    pub memory_max_usage_bytes: u64,
    /// `u64::MAX` (or near it) when there is none.
    pub memory_limit_bytes: u64,
    pub memory_fail_count: u64,
    /// `memory.stat`, in the kernel's names.
    pub memory_stat: Vec<(String, u64)>,
    pub pids_current: u64,
    /// `None` is unlimited.
    pub pids_limit: Option<u64>,
    pub block_io: Vec<BlockIo>,
    pub oom_kills: u64,
}

/// Bytes and operations of one device since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockIo {
    pub major: u64,
    pub minor: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub read_operations: u64,
    pub write_operations: u64,
}

impl Stats {
    /// One value of `memory_stat`.
    pub fn memory(&self, key: &str) -> Option<u64> {
        self.memory_stat.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
    }

    /// Usage without the page cache that the kernel would drop first: what `docker stats` and the kubelet's working set show.
    pub fn memory_working_set_bytes(&self) -> u64 {
        let inactive = self.memory("total_inactive_file").or_else(|| self.memory("inactive_file")).unwrap_or(0);
        self.memory_usage_bytes.saturating_sub(inactive)
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(path: PathBuf) -> u64 {
    match text(&path).trim() {
        "max" => u64::MAX,
        value => value.parse().unwrap_or(0),
    }
}

fn table(path: &Path) -> Vec<(String, u64)> {
    text(path)
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

pub(super) fn keyed(path: &Path, key: &str) -> Option<u64> {
    table(path).into_iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

fn pids_limit(path: PathBuf) -> Option<u64> {
    text(&path).trim().parse().ok()
}

pub(super) fn read_v1(cgroup: &Cgroup) -> Stats {
    let mut stats = Stats { oom_kills: cgroup.oom_kills(), ..Stats::default() };
    if let Some(dir) = cgroup.v1_dir("cpuacct") {
        stats.cpu_total_ns = number(dir.join("cpuacct.usage"));
        stats.cpu_user_ns = number(dir.join("cpuacct.usage_user"));
        stats.cpu_system_ns = number(dir.join("cpuacct.usage_sys"));
        stats.cpu_per_core_ns =
            text(&dir.join("cpuacct.usage_percpu")).split_whitespace().filter_map(|n| n.parse().ok()).collect();
    }
    if let Some(dir) = cgroup.v1_dir("cpu") {
        let file = dir.join("cpu.stat");
        stats.periods = keyed(&file, "nr_periods").unwrap_or(0);
        stats.throttled_periods = keyed(&file, "nr_throttled").unwrap_or(0);
        stats.throttled_ns = keyed(&file, "throttled_time").unwrap_or(0);
    }
    if let Some(dir) = cgroup.v1_dir("memory") {
        stats.memory_usage_bytes = number(dir.join("memory.usage_in_bytes"));
        stats.memory_max_usage_bytes = number(dir.join("memory.max_usage_in_bytes"));
        stats.memory_limit_bytes = number(dir.join("memory.limit_in_bytes"));
        stats.memory_fail_count = number(dir.join("memory.failcnt"));
        stats.memory_stat = table(&dir.join("memory.stat"));
    }
    if let Some(dir) = cgroup.v1_dir("pids") {
        stats.pids_current = number(dir.join("pids.current"));
        stats.pids_limit = pids_limit(dir.join("pids.max"));
    }
    if let Some(dir) = cgroup.v1_dir("blkio") {
        read_v1_block_io(&dir, &mut stats.block_io);
    }
    stats
}

/// Lines such as `8:0 Read 4096`, in one file for bytes and one for operations.
fn read_v1_block_io(dir: &Path, devices: &mut Vec<BlockIo>) {
    for (file, bytes) in [("blkio.throttle.io_service_bytes", true), ("blkio.throttle.io_serviced", false)] {
        for line in text(&dir.join(file)).lines() {
            let mut words = line.split_whitespace();
            let (Some(device), Some(operation), Some(value)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let Some(entry) = device_entry(devices, device) else {
                continue;
            };
            let value: u64 = value.parse().unwrap_or(0);
            match (operation, bytes) {
                ("Read", true) => entry.read_bytes = value,
                ("Write", true) => entry.write_bytes = value,
                ("Read", false) => entry.read_operations = value,
                ("Write", false) => entry.write_operations = value,
                _sums => {}
            }
        }
    }
}

fn device_entry<'a>(devices: &'a mut Vec<BlockIo>, name: &str) -> Option<&'a mut BlockIo> {
    let (major, minor) = name.split_once(':')?;
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    let index = match devices.iter().position(|device| (device.major, device.minor) == (major, minor)) {
        Some(index) => index,
        None => {
            devices.push(BlockIo { major, minor, ..BlockIo::default() });
            devices.len() - 1
        }
    };
    devices.get_mut(index)
}

pub(super) fn read_v2(dir: &Path) -> Stats {
    let cpu = table(&dir.join("cpu.stat"));
    let us = |key: &str| cpu.iter().find(|(name, _)| name == key).map_or(0, |(_, value)| *value);
    let mut stats = Stats {
        cpu_total_ns: us("usage_usec") * 1000,
        cpu_user_ns: us("user_usec") * 1000,
        cpu_system_ns: us("system_usec") * 1000,
        periods: us("nr_periods"),
        throttled_periods: us("nr_throttled"),
        throttled_ns: us("throttled_usec") * 1000,
        memory_usage_bytes: number(dir.join("memory.current")),
        memory_max_usage_bytes: number(dir.join("memory.peak")),
        memory_limit_bytes: number(dir.join("memory.max")),
        memory_fail_count: keyed(&dir.join("memory.events"), "max").unwrap_or(0),
        memory_stat: table(&dir.join("memory.stat")),
        pids_current: number(dir.join("pids.current")),
        pids_limit: pids_limit(dir.join("pids.max")),
        oom_kills: keyed(&dir.join("memory.events"), "oom_kill").unwrap_or(0),
        ..Stats::default()
    };
    for line in text(&dir.join("io.stat")).lines() {
        let mut words = line.split_whitespace();
        let Some(entry) = words.next().and_then(|device| device_entry(&mut stats.block_io, device)) else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => entry.read_bytes = value,
                "wbytes" => entry.write_bytes = value,
                "rios" => entry.read_operations = value,
                "wios" => entry.write_operations = value,
                _discards => {}
            }
        }
    }
    stats
}
