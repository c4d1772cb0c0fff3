//! Limits and device rules.

use kernel::cgroup::{DeviceRule, Resources, ThrottleRate};
use oci::runtime_spec as spec;

use crate::Failure;

/// The specification's limits in the kernel crate's words; also for updates of a running container.
///
/// What no hierarchy of ours can limit is refused rather than forgotten.
pub fn resources(listed: &spec::LinuxResources) -> Result<Resources, Failure> {
    refuse_unsupported(listed)?;
    let mut resources = Resources {
        devices: listed.devices().iter().flatten().map(device_rule).collect::<Result<_, _>>()?,
        pids: listed.pids().as_ref().map(spec::LinuxPids::limit),
        unified: listed.unified().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        ..Resources::default()
    };
    if let Some(memory) = listed.memory() {
        resources.memory_bytes = memory.limit();
        resources.memory_swap_bytes = memory.swap();
        resources.memory_reservation_bytes = memory.reservation();
        resources.swappiness = memory.swappiness();
        resources.oom_kill_disable = memory.disable_oom_killer().unwrap_or(false);
    }
    if let Some(cpu) = listed.cpu() {
        resources.cpu_shares = cpu.shares();
        resources.cpu_quota_us = cpu.quota();
        resources.cpu_period_us = cpu.period();
        resources.cpuset_cpus = cpu.cpus().clone().filter(|text| !text.is_empty());
        resources.cpuset_mems = cpu.mems().clone().filter(|text| !text.is_empty());
    }
    if let Some(io) = listed.block_io() {
        let rates = |list: &Option<Vec<spec::LinuxThrottleDevice>>| {
            list.iter().flatten().map(|d| ThrottleRate { major: d.major(), minor: d.minor(), rate: d.rate() }).collect()
        };
        resources.blkio_weight = io.weight();
        resources.read_bps = rates(io.throttle_read_bps_device());
        resources.write_bps = rates(io.throttle_write_bps_device());
        resources.read_iops = rates(io.throttle_read_iops_device());
        resources.write_iops = rates(io.throttle_write_iops_device());
    }
    Ok(resources)
}

fn device_rule(rule: &spec::LinuxDeviceCgroup) -> Result<DeviceRule, Failure> {
    let kind = match rule.typ() {
        Some(spec::LinuxDeviceType::C | spec::LinuxDeviceType::U) => 'c',
        Some(spec::LinuxDeviceType::B) => 'b',
        Some(spec::LinuxDeviceType::A) | None => 'a',
        Some(spec::LinuxDeviceType::P) => {
            return Err(Failure::invalid("a pipe has no device rule"));
        }
    };
    let number = |n: Option<i64>| match n {
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n).map(Some).map_err(|_| Failure::invalid(format!("device number {n}"))),
    };
    let access = rule.access().as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm");
    Ok(DeviceRule {
        allow: rule.allow(),
        kind,
        major: number(rule.major())?,
        minor: number(rule.minor())?,
        read: access.contains('r'),
        write: access.contains('w'),
        mknod: access.contains('m'),
    })
}

fn refuse_unsupported(listed: &spec::LinuxResources) -> Result<(), Failure> {
    let refuse = |what: &str| Err(Failure::invalid(format!("resources: {what} is not supported")));
    if listed.rdma().as_ref().is_some_and(|limits| !limits.is_empty()) {
        return refuse("rdma");
    }
    if listed.hugepage_limits().iter().flatten().next().is_some() {
        return refuse("hugepageLimits");
    }
    if let Some(network) = listed.network()
        && (network.class_id().is_some_and(|class| class != 0)
            || network.priorities().iter().flatten().next().is_some())
    {
        return refuse("network");
    }
    if let Some(io) = listed.block_io()
        && (io.weight_device().iter().flatten().next().is_some() || io.leaf_weight().is_some_and(|weight| weight != 0))
    {
        return refuse("a block device's own weight");
    }
    Ok(())
}
