//! Limits on the v1 hierarchies.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Cgroup, Error, Hierarchies, Resources, ThrottleRate, write};

/// Makes the directory in every hierarchy.
pub(super) fn create(hierarchies: &Hierarchies, path: &Path) -> Result<(), Error> {
    for mount in hierarchies.mounts() {
        let dir = mount.join(path);
        match fs::create_dir(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&dir).map_err(|error| Error::new(&dir, "create", error))?;
            }
            Err(error) => return Err(Error::new(&dir, "create", error)),
        }
    }
    match hierarchies.v1_mount("cpuset") {
        Some(mount) => inherit_cpuset(mount, path),
        None => Ok(()),
    }
}

/// A v1 cpuset starts empty and takes no process until it has processors and memory nodes.
fn inherit_cpuset(mount: &Path, path: &Path) -> Result<(), Error> {
    let mut parent = mount.to_path_buf();
    for component in path.components() {
        let dir = parent.join(component);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let read = |dir: &Path| {
                let path = dir.join(file);
                fs::read_to_string(&path).map_err(|error| Error::new(&path, "read", error))
            };
            if read(&dir)?.trim().is_empty() {
                write(&dir.join(file), read(&parent)?.trim())?;
            }
        }
        parent = dir;
    }
    Ok(())
}

pub(super) fn apply(cgroup: &Cgroup, resources: &Resources) -> Result<(), Error> {
    if let Some(dir) = cgroup.v1_dir("memory") {
        memory(&dir, resources)?;
    }
    if let Some(dir) = cgroup.v1_dir("cpu") {
        cpu(&dir, resources)?;
    }
    if let Some(dir) = cgroup.v1_dir("cpuset") {
        set(&dir, "cpuset.cpus", resources.cpuset_cpus.as_deref())?;
        set(&dir, "cpuset.mems", resources.cpuset_mems.as_deref())?;
    }
    if let (Some(dir), Some(limit)) = (cgroup.v1_dir("pids"), resources.pids) {
        let value = if limit > 0 { limit.to_string() } else { "max".to_owned() };
        set(&dir, "pids.max", Some(value))?;
    }
    if let Some(dir) = cgroup.v1_dir("blkio") {
        block_io(&dir, resources)?;
    }
    if let Some(dir) = cgroup.v1_dir("devices") {
        devices(&dir, resources)?;
    }
    Ok(())
}

fn set(dir: &Path, file: &str, value: Option<impl ToString>) -> Result<(), Error> {
    match value {
        Some(value) => write(&dir.join(file), &value.to_string()),
        None => Ok(()),
    }
}

fn memory(dir: &Path, resources: &Resources) -> Result<(), Error> {
    let swap_file = dir.join("memory.memsw.limit_in_bytes");
    let swap = resources.memory_swap_bytes.filter(|_| swap_file.exists());
    let memory = resources.memory_bytes;
    // The kernel keeps memory ≤ memory+swap at every step, so the order depends on the direction.
    let current: Option<i64> = fs::read_to_string(&swap_file).ok().and_then(|text| text.trim().parse().ok());
    let raising = match (memory, current) {
        (Some(memory), Some(current)) => memory == -1 || memory > current,
        (Some(_) | None, _) => false,
    };
    if raising {
        set(dir, "memory.memsw.limit_in_bytes", swap)?;
        set(dir, "memory.limit_in_bytes", memory)?;
    } else {
        set(dir, "memory.limit_in_bytes", memory)?;
        set(dir, "memory.memsw.limit_in_bytes", swap)?;
    }
    if dir.join("memory.soft_limit_in_bytes").exists() {
        set(dir, "memory.soft_limit_in_bytes", resources.memory_reservation_bytes)?;
    }
    set(dir, "memory.swappiness", resources.swappiness)?;
    set(dir, "memory.oom_control", resources.oom_kill_disable.then_some(1))
}

fn cpu(dir: &Path, resources: &Resources) -> Result<(), Error> {
    set(dir, "cpu.shares", resources.cpu_shares.filter(|shares| *shares > 0))?;
    set(dir, "cpu.cfs_period_us", resources.cpu_period_us.filter(|period| *period > 0))?;
    set(dir, "cpu.cfs_quota_us", resources.cpu_quota_us.filter(|quota| *quota != 0))
}

fn block_io(dir: &Path, resources: &Resources) -> Result<(), Error> {
    if let Some(weight) = resources.blkio_weight.filter(|weight| *weight > 0) {
        // The file's name depends on the scheduler that the kernel was built with.
        let file = ["blkio.weight", "blkio.bfq.weight"].iter().map(|name| dir.join(name)).find(|path| path.exists());
        write(&file.unwrap_or_else(|| PathBuf::from(dir).join("blkio.weight")), &weight.to_string())?;
    }
    let throttle = |file: &str, rates: &[ThrottleRate]| {
        rates.iter().try_for_each(|rate| set(dir, file, Some(format!("{}:{} {}", rate.major, rate.minor, rate.rate))))
    };
    throttle("blkio.throttle.read_bps_device", &resources.read_bps)?;
    throttle("blkio.throttle.write_bps_device", &resources.write_bps)?;
    throttle("blkio.throttle.read_iops_device", &resources.read_iops)?;
    throttle("blkio.throttle.write_iops_device", &resources.write_iops)
}

fn devices(dir: &Path, resources: &Resources) -> Result<(), Error> {
    for rule in &resources.devices {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        let line = if rule.is_everything() { "a".to_owned() } else { rule.v1_line() };
        write(&dir.join(file), &line)?;
    }
    Ok(())
}
