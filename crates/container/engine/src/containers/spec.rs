//! A record with its resolved places → the bundle's configuration. No I/O beyond reading device nodes.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use bundle::{
    BindMount, Capabilities, ContainerConfig, DeviceRule, MountKind as Kind, MountSpec, Propagation, SeccompMode,
    Tmpfs, UserSpec,
};
use oci::runtime_spec;

use super::network::Places;
use crate::{
    Engine,
    config::{HostConfig, Resources},
    error::{Error, Result},
    exec::ExecConfig,
    merge,
    record::{MountKind, MountPoint, Record},
};

impl Engine {
    pub(super) fn container_config(
        &self,
        record: &Record,
        user: UserSpec,
        places: &Places,
        files: Vec<MountSpec>,
    ) -> Result<ContainerConfig> {
        let mut config = process_config(record, user)?;
        let host = &record.host;
        // The engine's own files come first: a user's mount of /etc/hosts wins over them.
        config.mounts = files;
        for point in &record.mounts {
            config.mounts.retain(|mount| mount.destination != point.destination);
            config.mounts.push(self.mount_spec(point)?);
        }
        config.network = places.network.clone();
        config.ipc = places.ipc.clone();
        config.pid = places.pid.clone();
        config.uts = places.uts.clone();
        config.shm_path.clone_from(&places.shm);
        config.shm_size_bytes = u64::try_from(host.shm_size).ok().filter(|size| *size > 0);
        config.cgroup_namespace = match host.cgroupns_mode.as_str() {
            "host" => bundle::NamespaceMode::Host,
            "private" => bundle::NamespaceMode::Private,
            _ if host.privileged => bundle::NamespaceMode::Host,
            _ => bundle::NamespaceMode::Private,
        };
        config.devices = devices(host)?;
        config.resources = resources(&host.resources)?;
        config.annotations = host.annotations.clone().unwrap_or_default();
        Ok(config)
    }

    fn mount_spec(&self, point: &MountPoint) -> Result<MountSpec> {
        let mut read_only = !point.read_write;
        let kind = match point.kind {
            MountKind::Tmpfs => Kind::Tmpfs(Tmpfs { options: point.options.clone(), ..Tmpfs::default() }),
            MountKind::Bind => Kind::Bind(BindMount {
                source: point.source.clone().into(),
                propagation: Some(propagation(&point.propagation)),
                non_recursive: point.non_recursive,
                // As Docker since 25: what is mounted below is read-only as well.
                recursive_read_only: read_only && !point.non_recursive && !point.shallow_read_only,
            }),
            MountKind::Image => Kind::Bind(BindMount {
                source: point.source.clone().into(),
                propagation: Some(Propagation::Rprivate),
                ..BindMount::default()
            }),
            MountKind::Volume => {
                let source = self.volume_source(point)?;
                read_only |= source.read_only;
                Kind::Bind(BindMount {
                    source: source.path,
                    propagation: Some(Propagation::Rprivate),
                    ..BindMount::default()
                })
            }
        };
        Ok(MountSpec { destination: point.destination.clone(), read_only, kind })
    }
}

fn propagation(text: &str) -> Propagation {
    match text {
        "private" => Propagation::Private,
        "slave" => Propagation::Slave,
        "rslave" => Propagation::Rslave,
        "shared" => Propagation::Shared,
        "rshared" => Propagation::Rshared,
        _ => Propagation::Rprivate,
    }
}

/// The part that an exec shares with the container's own process.
pub(super) fn process_config(record: &Record, user: UserSpec) -> Result<ContainerConfig> {
    let (config, host) = (&record.config, &record.host);
    let security = security(host)?;
    let (masked, readonly) = (
        security.paths(host.masked_paths.as_ref(), host.privileged),
        security.paths(host.readonly_paths.as_ref(), host.privileged),
    );
    let cwd = if config.working_dir.is_empty() { "/".to_owned() } else { config.working_dir.clone() };
    Ok(ContainerConfig {
        rootfs: "rootfs".into(),
        args: merge::args(config),
        env: config.env.clone(),
        cwd,
        user,
        hostname: record.hostname.clone(),
        domainname: config.domainname.clone(),
        terminal: config.tty,
        console_size: console_size(host.console_size),
        capabilities: Capabilities {
            add: host.cap_add.clone().unwrap_or_default(),
            drop: host.cap_drop.clone().unwrap_or_default(),
            ambient: false,
        },
        privileged: host.privileged,
        readonly_rootfs: host.readonly_rootfs,
        no_new_privileges: security.no_new_privileges,
        seccomp: security.seccomp,
        sysctls: host.sysctls.clone(),
        ulimits: ulimits(&host.resources),
        oom_score_adj: i32::try_from(host.oom_score_adj).ok().filter(|adj| *adj != 0),
        masked_paths: masked,
        readonly_paths: readonly,
        cgroup_path: record.cgroup.clone(),
        ..ContainerConfig::default()
    })
}

/// Docker's console size is `[rows, columns]`.
fn console_size([rows, cols]: [u32; 2]) -> Option<(u16, u16)> {
    let size = (u16::try_from(cols).ok()?, u16::try_from(rows).ok()?);
    (size.0 > 0 && size.1 > 0).then_some(size)
}

#[derive(Default)]
struct Security {
    no_new_privileges: bool,
    seccomp: SeccompMode,
    unmasked: bool,
}

impl Security {
    fn paths(&self, asked: Option<&Vec<String>>, privileged: bool) -> Option<Vec<String>> {
        if self.unmasked || privileged { Some(Vec::new()) } else { asked.cloned() }
    }
}

/// `--security-opt`: unknown ones are refused, those of absent kernel modules are accepted when they say "off".
fn security(host: &HostConfig) -> Result<Security> {
    let mut security = Security::default();
    if host.privileged {
        security.seccomp = SeccompMode::Unconfined;
    }
    for option in host.security_opt.iter().flatten() {
        let (key, value) = option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", "unconfined") => security.seccomp = SeccompMode::Unconfined,
            ("seccomp", "builtin" | "default" | "runtime/default") => security.seccomp = SeccompMode::Default,
            ("seccomp", profile) => security.seccomp = SeccompMode::Profile(profile.to_owned()),
            ("systempaths", "unconfined") => security.unmasked = true,
            ("apparmor" | "label", _) => {}
            _ => return Err(Error::Invalid(format!("invalid --security-opt 2: \"{option}\""))),
        }
    }
    Ok(security)
}

fn ulimits(resources: &Resources) -> Vec<bundle::Ulimit> {
    let convert =
        |limit: &crate::config::Ulimit| bundle::Ulimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard };
    resources.ulimits.iter().flatten().map(convert).collect()
}

fn devices(host: &HostConfig) -> Result<Vec<bundle::Device>> {
    let one = |device: &crate::config::Device| {
        let gone = |e: &dyn std::fmt::Display| {
            Error::Invalid(format!(
                "error gathering device information while adding custom device \"{}\": {e}",
                device.path_on_host
            ))
        };
        let meta = std::fs::metadata(&device.path_on_host).map_err(|e| gone(&e))?;
        let path = if device.path_in_container.is_empty() { &device.path_on_host } else { &device.path_in_container };
        let access = if device.cgroup_permissions.is_empty() { "rwm" } else { &device.cgroup_permissions };
        node(path, &meta, access).ok_or_else(|| gone(&"not a device node"))
    };
    let mut all: Vec<bundle::Device> = host.resources.devices.iter().flatten().map(one).collect::<Result<_>>()?;
    if host.privileged {
        let mut found = Vec::new();
        hosts_devices(Path::new("/dev"), 0, &mut found);
        found.retain(|device| all.iter().all(|asked| asked.path != device.path));
        all.append(&mut found);
    }
    Ok(all)
}

/// `None` for what is no device.
fn node(path: &str, meta: &std::fs::Metadata, access: &str) -> Option<bundle::Device> {
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => 'c',
        kind if kind.is_block_device() => 'b',
        _ => return None,
    };
    Some(bundle::Device {
        path: path.to_owned(),
        kind,
        major: rustix::fs::major(meta.rdev()).into(),
        minor: rustix::fs::minor(meta.rdev()).into(),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        access: access.to_owned(),
    })
}

/// Folders and files of `/dev` that a container has its own of.
const OWN_IN_DEV: [&str; 12] =
    ["pts", "shm", "fd", "mqueue", "console", "ptmx", "null", "zero", "full", "random", "urandom", "tty"];
/// A tree of devices is no deeper anywhere.
const DEV_DEPTH: usize = 8;

/// All devices of the host, for a privileged container. What vanishes meanwhile is left out.
fn hosts_devices(dir: &Path, depth: usize, found: &mut Vec<bundle::Device>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir).into_iter().flatten().flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        if depth == 0 && OWN_IN_DEV.iter().any(|own| name == *own) {
            continue;
        }
        // Links are not followed: they lead to devices that are found by themselves.
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() && depth < DEV_DEPTH {
            hosts_devices(&path, depth + 1, found);
        } else if let Some(device) = path.to_str().and_then(|text| node(text, &meta, "rwm")) {
            found.push(device);
        }
    }
}

/// Docker's units to the bundle's; zero means not asked.
pub(super) fn resources(from: &Resources) -> Result<bundle::Resources> {
    let asked = |n: i64| Some(n).filter(|n| *n != 0);
    let positive = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
    let text = |s: &str| Some(s.to_owned()).filter(|s| !s.is_empty());
    let (period, quota) = if from.nano_cpus > 0 {
        (Some(100_000), Some(from.nano_cpus / 10_000))
    } else {
        (positive(from.cpu_period), asked(from.cpu_quota))
    };
    Ok(bundle::Resources {
        memory_bytes: asked(from.memory),
        memory_swap_bytes: asked(from.memory_swap),
        memory_reservation_bytes: asked(from.memory_reservation),
        memory_swappiness: from.memory_swappiness.and_then(|n| u64::try_from(n).ok()),
        oom_kill_disable: from.oom_kill_disable.unwrap_or(false),
        cpu_shares: positive(from.cpu_shares),
        cpu_quota_us: quota,
        cpu_period_us: period,
        cpuset_cpus: text(&from.cpuset_cpus),
        cpuset_mems: text(&from.cpuset_mems),
        pids_limit: from.pids_limit.filter(|n| *n != 0),
        blkio_weight: Some(from.blkio_weight).filter(|n| *n != 0),
        read_bps: throttles(from.blkio_device_read_bps.as_deref())?,
        write_bps: throttles(from.blkio_device_write_bps.as_deref())?,
        read_iops: throttles(from.blkio_device_read_iops.as_deref())?,
        write_iops: throttles(from.blkio_device_write_iops.as_deref())?,
        device_rules: from.device_cgroup_rules.iter().flatten().map(|rule| device_rule(rule)).collect::<Result<_>>()?,
    })
}

fn throttles(list: Option<&[crate::config::ThrottleDevice]>) -> Result<Vec<bundle::Throttle>> {
    let one = |wanted: &crate::config::ThrottleDevice| {
        let meta = std::fs::metadata(&wanted.path)
            .map_err(|e| Error::Invalid(format!("cannot throttle device {}: {e}", wanted.path)))?;
        let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        Ok(bundle::Throttle { major: major.into(), minor: minor.into(), rate: wanted.rate })
    };
    list.unwrap_or_default().iter().map(one).collect()
}

/// `c 13:* rwm`.
fn device_rule(text: &str) -> Result<DeviceRule> {
    let invalid = || Error::Invalid(format!("invalid device cgroup rule format: '{text}'"));
    let mut words = text.split_ascii_whitespace();
    let (Some(kind), Some(numbers), Some(access), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(invalid());
    };
    let kind = match kind {
        "a" => 'a',
        "b" => 'b',
        "c" => 'c',
        _ => return Err(invalid()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let number =
        |n: &str| if n == "*" { Ok(None) } else { n.parse::<u32>().map(|n| Some(n.into())).map_err(|_| invalid()) };
    if access.is_empty() || access.chars().any(|c| !"rwm".contains(c)) {
        return Err(invalid());
    }
    Ok(DeviceRule { kind, major: number(major)?, minor: number(minor)?, access: access.to_owned(), allow: true })
}

/// The process of an exec: the container's own, with what the exec changes.
pub(crate) fn exec_process(record: &Record, exec: &ExecConfig, user: UserSpec) -> Result<runtime_spec::Process> {
    let mut config = process_config(record, user)?;
    config.args.clone_from(&exec.cmd);
    config.env = merge::merge_env(exec.env.clone(), &config.env);
    config.terminal = exec.tty;
    config.console_size = exec.console_size;
    if !exec.working_dir.is_empty() {
        config.cwd.clone_from(&exec.working_dir);
    }
    if exec.privileged {
        config.privileged = true;
        config.seccomp = SeccompMode::Unconfined;
    }
    let spec = bundle::spec(&config).map_err(|e| Error::Invalid(e.to_string()))?;
    spec.process().clone().ok_or_else(|| Error::System("the specification has no process".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_become_a_quota_of_a_tenth_of_a_second() {
        let asked = Resources { nano_cpus: 1_500_000_000, ..Resources::default() };
        let got = resources(&asked).unwrap();
        assert_eq!((got.cpu_period_us, got.cpu_quota_us), (Some(100_000), Some(150_000)));
        assert_eq!(resources(&Resources::default()).unwrap(), bundle::Resources::default());
    }

    #[test]
    fn device_rules_are_parsed_strictly() {
        let rule = device_rule("c 13:* rw").unwrap();
        assert_eq!((rule.kind, rule.major, rule.minor, rule.access.as_str()), ('c', Some(13), None, "rw"));
        for bad in ["", "c", "c 1:2", "d 1:2 r", "c 1 r", "c 1:x r", "c 1:2 rx", "c 1:2 r w"] {
            assert!(device_rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn security_options_are_understood_or_refused() {
        let with = |options: &[&str]| {
            let security_opt = Some(options.iter().map(|s| (*s).to_owned()).collect());
            security(&HostConfig { security_opt, ..HostConfig::default() })
        };
        let got = with(&["no-new-privileges", "seccomp=unconfined"]).unwrap();
        assert!(got.no_new_privileges && got.seccomp == SeccompMode::Unconfined);
        assert!(with(&["no-new-privileges:true"]).unwrap().no_new_privileges);
        assert!(with(&["make-it-fast"]).is_err());
    }
}
