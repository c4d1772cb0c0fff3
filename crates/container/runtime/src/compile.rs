//! OCI runtime specification to [`Plan`]: the checks that need no kernel, and the translation of names to numbers.
//!
//! Called in the engine. What is refused here never reaches a process with privileges.

mod numbers;
mod resources;

use std::path::{Component, PathBuf};

use kernel::{mount::Spread, process::NamespaceFlags};
use oci::runtime_spec as spec;

use crate::{
    Failure, IdMap, Join, Mount, MountSource, Node, Plan, ProcessPlan, RootFs, SpreadChange, options, seccomp::Filter,
};
pub use resources::resources;

/// `filter` is the compiled form of the specification's seccomp section, which the caller may have kept from last time.
pub fn compile(spec: &spec::Spec, rootfs: RootFs, cgroup: &str, filter: Option<Filter>) -> Result<Plan, Failure> {
    let process = spec.process().as_ref().ok_or_else(|| Failure::invalid("process property must not be empty"))?;
    let linux = spec.linux().as_ref().ok_or_else(|| Failure::invalid("linux property must not be empty"))?;
    refuse_unsupported(linux)?;
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
        process: ProcessPlan {
            personality: linux.personality().as_ref().map(numbers::personality).transpose()?,
            ..compile_process(process)?
        },
        seccomp: filter,
        cgroup: cgroup.to_owned(),
        resources: linux.resources().as_ref().map(resources).transpose()?.unwrap_or_default(),
        hooks: None,
        time_offsets: time_offsets(linux, NamespaceFlags::from_bits(new_namespaces))?,
        no_pivot: false,
        keep_keyring: false,
        reaps: false,
    })
}

/// What is lacking is said, never passed over.
fn refuse_unsupported(linux: &spec::Linux) -> Result<(), Failure> {
    let refuse = |what: &str| Err(Failure::invalid(format!("linux.{what} is not supported")));
    if linux.intel_rdt().is_some() {
        return refuse("intelRdt");
    }
    if linux.memory_policy().is_some() {
        return refuse("memoryPolicy");
    }
    if linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()) {
        return refuse("netDevices");
    }
    Ok(())
}

/// The lines that the kernel takes, one a clock.
fn time_offsets(linux: &spec::Linux, new: NamespaceFlags) -> Result<Option<String>, Failure> {
    if !new.contains(NamespaceFlags::TIME) {
        return match linux.time_offsets() {
            Some(offsets) if !offsets.is_empty() => {
                Err(Failure::invalid("timeOffsets need a time namespace of the container's own"))
            }
            Some(_) | None => Ok(None),
        };
    }
    let mut lines = String::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(Failure::invalid(format!("timeOffsets: unknown clock {clock:?}")));
        }
        lines += &format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
    }
    Ok(Some(lines))
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
    if process.exec_cpu_affinity().is_some() {
        return Err(Failure::invalid("process.execCPUAffinity is not supported"));
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
        capabilities: process.capabilities().as_ref().map(numbers::capability_sets),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        rlimits: process
            .rlimits()
            .iter()
            .flatten()
            .map(|limit| (numbers::rlimit_number(limit.typ()), limit.soft(), limit.hard()))
            .collect(),
        oom_score_adj: process.oom_score_adj(),
        apparmor_profile: process.apparmor_profile().clone().filter(|name| !name.is_empty()),
        selinux_label: process.selinux_label().clone().filter(|label| !label.is_empty()),
        terminal: process.terminal().unwrap_or(false),
        console_size: process.console_size().as_ref().map(|size| (size.width() as u16, size.height() as u16)),
        io_priority: process.io_priority().as_ref().map(numbers::io_priority).transpose()?,
        scheduler: process.scheduler().as_ref().map(numbers::scheduler).transpose()?,
        personality: None,
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
            spec::LinuxNamespaceType::Time => NamespaceFlags::TIME,
        };
        if (new | joins.iter().fold(0, |bits, join: &Join| bits | join.kind)) & kind.bits() != 0 {
            return Err(Failure::invalid(format!("duplicated namespace {:?}", namespace.typ())));
        }
        match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
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
    if let Some(word) = options.refused {
        return Err(Failure::invalid(format!("mount {}: option {word:?} is not supported", destination.display())));
    }
    if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
        return Err(Failure::invalid(format!("mount {}: id-mapped mounts are not supported", destination.display())));
    }
    let kind = mount.typ().as_deref().unwrap_or("");
    let source = match (kind, options.bind) {
        ("bind", recursive) => Some(recursive.unwrap_or(false)),
        (_, Some(recursive)) => Some(recursive),
        (_, None) => None,
    };
    let source = match (source, kind) {
        (_, _) if options.remount => MountSource::Remount,
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
        copy_up: options.copy_up,
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
