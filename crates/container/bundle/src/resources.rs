//! Limits and device rules.

use oci::runtime_spec::{
    LinuxBlockIoBuilder, LinuxCpuBuilder, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder,
    LinuxDeviceType, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, LinuxThrottleDevice, LinuxThrottleDeviceBuilder, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType,
};

use crate::{ContainerConfig, Device, Error, Resources, Ulimit, defaults};

fn built<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<T, Error> {
    result.map_err(|error| Error::Specification(error.to_string()))
}

/// The limits alone, for an update of a running container too. Zero means "not set", as in Docker's API.
pub fn resources(limits: &Resources) -> Result<LinuxResources, Error> {
    let set = |value: Option<i64>| value.filter(|value| *value != 0);
    let mut memory = LinuxMemoryBuilder::default();
    if let Some(limit) = set(limits.memory_bytes) {
        memory = memory.limit(limit);
    }
    if let Some(swap) = set(limits.memory_swap_bytes).or_else(|| default_swap(limits)) {
        memory = memory.swap(swap);
    }
    if let Some(reservation) = set(limits.memory_reservation_bytes) {
        memory = memory.reservation(reservation);
    }
    if let Some(swappiness) = limits.memory_swappiness.filter(|percent| *percent <= 100) {
        memory = memory.swappiness(swappiness);
    }
    if limits.oom_kill_disable {
        memory = memory.disable_oom_killer(true);
    }
    let mut cpu = LinuxCpuBuilder::default();
    if let Some(shares) = limits.cpu_shares.filter(|shares| *shares > 0) {
        cpu = cpu.shares(shares);
    }
    if let Some(quota) = set(limits.cpu_quota_us) {
        cpu = cpu.quota(quota);
    }
    if let Some(period) = limits.cpu_period_us.filter(|period| *period > 0) {
        cpu = cpu.period(period);
    }
    if let Some(cpus) = limits.cpuset_cpus.as_deref().filter(|cpus| !cpus.is_empty()) {
        cpu = cpu.cpus(cpus);
    }
    if let Some(mems) = limits.cpuset_mems.as_deref().filter(|mems| !mems.is_empty()) {
        cpu = cpu.mems(mems);
    }
    let mut all = LinuxResourcesBuilder::default().memory(built(memory.build())?).cpu(built(cpu.build())?);
    if let Some(limit) = set(limits.pids_limit) {
        all = all.pids(built(LinuxPidsBuilder::default().limit(limit).build())?);
    }
    let mut io = LinuxBlockIoBuilder::default();
    if let Some(weight) = limits.blkio_weight.filter(|weight| *weight > 0) {
        io = io.weight(weight);
    }
    let io = io
        .throttle_read_bps_device(throttles(&limits.read_bps)?)
        .throttle_write_bps_device(throttles(&limits.write_bps)?)
        .throttle_read_iops_device(throttles(&limits.read_iops)?)
        .throttle_write_iops_device(throttles(&limits.write_iops)?);
    all = all.block_io(built(io.build())?);
    built(all.build())
}

fn throttles(list: &[crate::Throttle]) -> Result<Vec<LinuxThrottleDevice>, Error> {
    let one = |throttle: &crate::Throttle| {
        let crate::Throttle { major, minor, rate } = *throttle;
        built(LinuxThrottleDeviceBuilder::default().major(major).minor(minor).rate(rate).build())
    };
    list.iter().map(one).collect()
}

/// Docker gives a container that has a memory limit the same amount again as swap.
fn default_swap(limits: &Resources) -> Option<i64> {
    limits.memory_bytes.filter(|memory| *memory > 0).map(|memory| memory.saturating_mul(2))
}

pub(crate) fn device_rules(config: &ContainerConfig) -> Result<Vec<LinuxDeviceCgroup>, Error> {
    if config.privileged {
        return Ok(vec![rule(true, 'a', None, None, "rwm")?]);
    }
    let mut rules = vec![rule(false, 'a', None, None, "rwm")?];
    for (kind, major, minor, access) in defaults::DEVICE_RULES {
        rules.push(rule(true, kind, major, minor, access)?);
    }
    for device in &config.devices {
        let access = if device.access.is_empty() { "rwm" } else { &device.access };
        rules.push(rule(true, device.kind, Some(device.major), Some(device.minor), access)?);
    }
    for listed in &config.resources.device_rules {
        rules.push(rule(listed.allow, listed.kind, listed.major, listed.minor, &listed.access)?);
    }
    Ok(rules)
}

fn device_type(kind: char) -> Result<LinuxDeviceType, Error> {
    match kind {
        'a' => Ok(LinuxDeviceType::A),
        'b' => Ok(LinuxDeviceType::B),
        'c' | 'u' => Ok(LinuxDeviceType::C),
        'p' => Ok(LinuxDeviceType::P),
        other => Err(Error::Device(format!("type {other:?}"))),
    }
}

fn rule(
    allow: bool,
    kind: char,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> Result<LinuxDeviceCgroup, Error> {
    let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).typ(device_type(kind)?).access(access);
    if let Some(major) = major {
        rule = rule.major(major);
    }
    if let Some(minor) = minor {
        rule = rule.minor(minor);
    }
    built(rule.build())
}

pub(crate) fn devices(config: &ContainerConfig) -> Result<Vec<LinuxDevice>, Error> {
    let own = defaults::DEVICES.iter().map(|(path, major, minor)| Device {
        path: (*path).to_owned(),
        kind: 'c',
        major: *major,
        minor: *minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
        access: "rwm".to_owned(),
    });
    let taken = |path: &str| config.devices.iter().any(|device| device.path == path);
    own.filter(|device| !taken(&device.path))
        .chain(config.devices.iter().cloned())
        .map(|device| node(&device))
        .collect()
}

fn node(device: &Device) -> Result<LinuxDevice, Error> {
    if !device.path.starts_with('/') {
        return Err(Error::Device(device.path.clone()));
    }
    built(
        LinuxDeviceBuilder::default()
            .path(device.path.as_str())
            .typ(device_type(device.kind)?)
            .major(device.major)
            .minor(device.minor)
            .file_mode(device.mode & 0o7777)
            .uid(device.uid)
            .gid(device.gid)
            .build(),
    )
}

pub(crate) fn rlimits(ulimits: &[Ulimit]) -> Result<Vec<PosixRlimit>, Error> {
    ulimits.iter().map(rlimit).collect()
}

fn rlimit(ulimit: &Ulimit) -> Result<PosixRlimit, Error> {
    let kind = match ulimit.name.to_ascii_lowercase().trim_start_matches("rlimit_") {
        "core" => PosixRlimitType::RlimitCore,
        "cpu" => PosixRlimitType::RlimitCpu,
        "data" => PosixRlimitType::RlimitData,
        "fsize" => PosixRlimitType::RlimitFsize,
        "locks" => PosixRlimitType::RlimitLocks,
        "memlock" => PosixRlimitType::RlimitMemlock,
        "msgqueue" => PosixRlimitType::RlimitMsgqueue,
        "nice" => PosixRlimitType::RlimitNice,
        "nofile" => PosixRlimitType::RlimitNofile,
        "nproc" => PosixRlimitType::RlimitNproc,
        "rss" => PosixRlimitType::RlimitRss,
        "rtprio" => PosixRlimitType::RlimitRtprio,
        "rttime" => PosixRlimitType::RlimitRttime,
        "sigpending" => PosixRlimitType::RlimitSigpending,
        "stack" => PosixRlimitType::RlimitStack,
        "as" => PosixRlimitType::RlimitAs,
        _unknown => return Err(Error::Ulimit(ulimit.name.clone())),
    };
    // -1 is the kernel's "infinity" when read as unsigned.
    let (soft, hard) = (ulimit.soft.cast_unsigned(), ulimit.hard.cast_unsigned());
    if soft > hard {
        return Err(Error::Ulimit(format!("{}: soft limit exceeds hard limit", ulimit.name)));
    }
    built(PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build())
}
