//! OCI runtime specification to [`Plan`]: the checks that need no kernel, and the translation of names to numbers.
//!
//! Called in the engine. What is refused here never reaches a process with privileges.

use std::path::{Component, PathBuf};

use kernel::{
    caps::CapabilitySets,
    cgroup::{DeviceRule, Resources, ThrottleRate},
    mount::Spread,
    process::NamespaceFlags,
};
use oci::runtime_spec as spec;

use crate::{
    Failure, IdMap, Join, Mount, MountSource, Node, Plan, ProcessPlan, RootFs, SpreadChange, options, seccomp::Filter,
};

/// `filter` is the compiled form of the specification's seccomp section, which the caller may have kept from last time.
pub fn compile(spec: &spec::Spec, rootfs: RootFs, cgroup: &str, filter: Option<Filter>) -> Result<Plan, Failure> {
    let process = spec.process().as_ref().ok_or_else(|| Failure::invalid("process property must not be empty"))?;
    let linux = spec.linux().as_ref().ok_or_else(|| Failure::invalid("linux property must not be empty"))?;
    let (new_namespaces, joins) = namespaces(linux.namespaces().as_deref().unwrap_or_default())?;
    let separate = joins.iter().fold(new_namespaces, |bits, join| bits | join.kind);
    let paths = |list: &Option<Vec<String>>| list.iter().flatten().map(PathBuf::from).collect();
    Ok(Plan {
        rootfs,
        rootfs_read_only: spec.root().as_ref().and_then(spec::Root::readonly).unwrap_or(false),
        rootfs_spread: rootfs_spread(linux.rootfs_propagation().as_deref())?,
        new_namespaces,
        joins,
        uid_map: id_map(linux.uid_mappings().as_deref()),
        gid_map: id_map(linux.gid_mappings().as_deref()),
        hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
        domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
        mounts: spec.mounts().iter().flatten().map(mount).collect::<Result<_, _>>()?,
        devices: linux.devices().iter().flatten().map(node).collect::<Result<_, _>>()?,
        masked_paths: paths(linux.masked_paths()),
        read_only_paths: paths(linux.readonly_paths()),
        sysctls: linux
            .sysctl()
            .iter()
            .flatten()
            .map(|(name, value)| sysctl(name, value, NamespaceFlags::from_bits(separate)))
            .collect::<Result<_, _>>()?,
        process: compile_process(process)?,
        seccomp: filter,
        cgroup: cgroup.to_owned(),
        resources: linux.resources().as_ref().map(resources).transpose()?.unwrap_or_default(),
        reaps: false,
    })
}

/// A container's process, or an exec's.
pub fn compile_process(process: &spec::Process) -> Result<ProcessPlan, Failure> {
    let args = process.args().clone().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        return Err(Failure::invalid("args must not be empty"));
    }
    let env = process.env().clone().unwrap_or_default();
    if args.iter().chain(&env).any(|text| text.contains('\0')) {
        return Err(Failure::invalid("args and env must not contain NUL"));
    }
    let user = process.user();
    Ok(ProcessPlan {
        args,
        env,
        cwd: process.cwd().clone(),
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask().unwrap_or(0o022),
        capabilities: process.capabilities().as_ref().map(capability_sets),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        rlimits: process
            .rlimits()
            .iter()
            .flatten()
            .map(|limit| (rlimit_number(limit.typ()), limit.soft(), limit.hard()))
            .collect(),
        oom_score_adj: process.oom_score_adj(),
        apparmor_profile: process.apparmor_profile().clone().filter(|name| !name.is_empty()),
        selinux_label: process.selinux_label().clone().filter(|label| !label.is_empty()),
        terminal: process.terminal().unwrap_or(false),
        console_size: process.console_size().as_ref().map(|size| (size.width() as u16, size.height() as u16)),
    })
}

fn namespaces(listed: &[spec::LinuxNamespace]) -> Result<(u64, Vec<Join>), Failure> {
    let (mut new, mut joins) = (0, Vec::new());
    for namespace in listed {
        let kind = match namespace.typ() {
            spec::LinuxNamespaceType::Mount => NamespaceFlags::MOUNT,
            spec::LinuxNamespaceType::Cgroup => NamespaceFlags::CGROUP,
            spec::LinuxNamespaceType::Uts => NamespaceFlags::UTS,
            spec::LinuxNamespaceType::Ipc => NamespaceFlags::IPC,
            spec::LinuxNamespaceType::User => NamespaceFlags::USER,
            spec::LinuxNamespaceType::Pid => NamespaceFlags::PID,
            spec::LinuxNamespaceType::Network => NamespaceFlags::NETWORK,
            spec::LinuxNamespaceType::Time => {
                return Err(Failure::invalid("time namespaces are not supported"));
            }
        };
        match namespace.path() {
            Some(path) => joins.push(Join { kind: kind.bits(), path: path.clone() }),
            None => new |= kind.bits(),
        }
    }
    if !NamespaceFlags::from_bits(new).contains(NamespaceFlags::MOUNT) {
        return Err(Failure::invalid("a container needs a mount namespace of its own"));
    }
    Ok((new, joins))
}

fn rootfs_spread(word: Option<&str>) -> Result<SpreadChange, Failure> {
    match word.filter(|word| !word.is_empty()) {
        None => Ok(SpreadChange { spread: Spread::Slave, recursive: true }),
        Some(word) => options::spread(word)
            .map(|change| SpreadChange { recursive: true, ..change })
            .ok_or_else(|| Failure::invalid(format!("rootfsPropagation {word:?} is not supported"))),
    }
}

fn id_map(listed: Option<&[spec::LinuxIdMapping]>) -> Vec<IdMap> {
    listed
        .unwrap_or_default()
        .iter()
        .map(|map| IdMap { inside: map.container_id(), outside: map.host_id(), count: map.size() })
        .collect()
}

fn mount(mount: &spec::Mount) -> Result<Mount, Failure> {
    let destination = mount.destination().clone();
    if destination.as_os_str().is_empty() || !destination.components().any(|part| matches!(part, Component::Normal(_)))
    {
        return Err(Failure::invalid(format!("mount destination {} is not allowed", destination.display())));
    }
    let words = mount.options().clone().unwrap_or_default();
    let options = options::parse(&words);
    let kind = mount.typ().as_deref().unwrap_or("");
    let source = match (kind, options.bind) {
        ("bind", recursive) => Some(recursive.unwrap_or(false)),
        (_, Some(recursive)) => Some(recursive),
        (_, None) => None,
    };
    let source = match (source, kind) {
        (Some(recursive), _) => {
            let path = mount.source().clone().ok_or_else(|| Failure::invalid("a bind mount needs a source"))?;
            MountSource::Bind { path, recursive }
        }
        (None, "cgroup" | "cgroup2") => MountSource::Cgroup,
        (None, "") => {
            return Err(Failure::invalid(format!("mount {} has no type", destination.display())));
        }
        (None, kind) => MountSource::FileSystem {
            kind: kind.to_owned(),
            source: mount.source().as_ref().map_or_else(|| kind.to_owned(), |source| source.display().to_string()),
            parameters: options.parameters,
        },
    };
    Ok(Mount {
        destination,
        source,
        set: options.set,
        clear: options.clear,
        recursive_set: options.recursive_set,
        recursive_clear: options.recursive_clear,
        spreads: options.spreads,
    })
}

fn node(device: &spec::LinuxDevice) -> Result<Node, Failure> {
    let kind = match device.typ() {
        spec::LinuxDeviceType::C | spec::LinuxDeviceType::U => 0o020_000,
        spec::LinuxDeviceType::B => 0o060_000,
        spec::LinuxDeviceType::P => 0o010_000,
        spec::LinuxDeviceType::A => {
            return Err(Failure::invalid("a device node cannot be of type \"a\""));
        }
    };
    let number = |n: i64| {
        u32::try_from(n).map_err(|_| Failure::invalid(format!("device number {n} of {}", device.path().display())))
    };
    Ok(Node {
        path: device.path().clone(),
        mode: kind | device.file_mode().unwrap_or(0o666) & 0o7777,
        major: number(device.major())?,
        minor: number(device.minor())?,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

/// Only what belongs to a namespace of the container's own; names are parsed strictly, since they become a path (CVE-2022-0811).
fn sysctl(name: &str, value: &str, separate: NamespaceFlags) -> Result<(PathBuf, String), Failure> {
    let invalid = || Failure::invalid(format!("invalid sysctl {name:?}"));
    let clean = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    if !name.chars().all(clean) || value.contains(['\n', '\0']) {
        return Err(invalid());
    }
    // With a slash as its first separator a name is a path already, and its dots belong to interface names.
    let slashed = match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name.to_owned(),
        Some(_) | None => name.replace('.', "/"),
    };
    let path = PathBuf::from(&slashed);
    if !path.components().all(|part| matches!(part, Component::Normal(_))) || slashed.contains("//") {
        return Err(invalid());
    }
    const OF_IPC: &[&str] = &[
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
    ];
    let needs = if OF_IPC.contains(&slashed.as_str()) || slashed.starts_with("fs/mqueue/") {
        NamespaceFlags::IPC
    } else if slashed.starts_with("net/") {
        NamespaceFlags::NETWORK
    } else if slashed == "kernel/domainname" {
        NamespaceFlags::UTS
    } else {
        return Err(Failure::invalid(format!("sysctl {name:?} is not in a separate kernel namespace")));
    };
    if !separate.contains(needs) {
        return Err(Failure::invalid(format!("sysctl {name:?} is not allowed in the hosts namespace")));
    }
    Ok((path, value.to_owned()))
}

fn capability_sets(capabilities: &spec::LinuxCapabilities) -> CapabilitySets {
    let bits = |set: &Option<spec::Capabilities>| {
        set.iter().flatten().fold(0, |bits, capability| bits | 1 << capability_number(*capability))
    };
    CapabilitySets {
        bounding: bits(capabilities.bounding()),
        effective: bits(capabilities.effective()),
        permitted: bits(capabilities.permitted()),
        inheritable: bits(capabilities.inheritable()),
        ambient: bits(capabilities.ambient()),
    }
}

fn capability_number(capability: spec::Capability) -> u32 {
    use spec::Capability as C;
    match capability {
        C::Chown => 0,
        C::DacOverride => 1,
        C::DacReadSearch => 2,
        C::Fowner => 3,
        C::Fsetid => 4,
        C::Kill => 5,
        C::Setgid => 6,
        C::Setuid => 7,
        C::Setpcap => 8,
        C::LinuxImmutable => 9,
        C::NetBindService => 10,
        C::NetBroadcast => 11,
        C::NetAdmin => 12,
        C::NetRaw => 13,
        C::IpcLock => 14,
        C::IpcOwner => 15,
        C::SysModule => 16,
        C::SysRawio => 17,
        C::SysChroot => 18,
        C::SysPtrace => 19,
        C::SysPacct => 20,
        C::SysAdmin => 21,
        C::SysBoot => 22,
        C::SysNice => 23,
        C::SysResource => 24,
        C::SysTime => 25,
        C::SysTtyConfig => 26,
        C::Mknod => 27,
        C::Lease => 28,
        C::AuditWrite => 29,
        C::AuditControl => 30,
        C::Setfcap => 31,
        C::MacOverride => 32,
        C::MacAdmin => 33,
        C::Syslog => 34,
        C::WakeAlarm => 35,
        C::BlockSuspend => 36,
        C::AuditRead => 37,
        C::Perfmon => 38,
        C::Bpf => 39,
        C::CheckpointRestore => 40,
    }
}

fn rlimit_number(kind: spec::PosixRlimitType) -> u32 {
    use spec::PosixRlimitType as R;
    match kind {
        R::RlimitCpu => 0,
        R::RlimitFsize => 1,
        R::RlimitData => 2,
        R::RlimitStack => 3,
        R::RlimitCore => 4,
        R::RlimitRss => 5,
        R::RlimitNproc => 6,
        R::RlimitNofile => 7,
        R::RlimitMemlock => 8,
        R::RlimitAs => 9,
        R::RlimitLocks => 10,
        R::RlimitSigpending => 11,
        R::RlimitMsgqueue => 12,
        R::RlimitNice => 13,
        R::RlimitRtprio => 14,
        R::RlimitRttime => 15,
    }
}

/// The specification's limits in the kernel crate's words; also for updates of a running container.
pub fn resources(listed: &spec::LinuxResources) -> Result<Resources, Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_are_parsed_strictly_and_only_for_own_namespaces() {
        let all = NamespaceFlags::IPC.with(NamespaceFlags::NETWORK).with(NamespaceFlags::UTS);
        let good = |name| sysctl(name, "1", all).unwrap().0.display().to_string();
        assert_eq!(good("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(good("net/ipv4/conf/eth0.100/forwarding"), "net/ipv4/conf/eth0.100/forwarding");
        assert_eq!(good("kernel.shmmax"), "kernel/shmmax");
        for bad in [
            "kernel.core_pattern",
            "net.../../kernel/core_pattern",
            "net/../kernel/core_pattern",
            "net.ipv4.x+y",
            "net//x",
            "/net/x",
            "vm.swappiness",
            "",
        ] {
            assert!(sysctl(bad, "1", all).is_err(), "{bad}");
        }
        assert!(sysctl("kernel.shm_rmid_forced", "1\nkernel.core_pattern=|/x", all).is_err());
        assert!(sysctl("net.ipv4.ip_forward", "1", NamespaceFlags::IPC).is_err(), "the host's network");
    }
}
