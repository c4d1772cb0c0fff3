//! Limits on the v2 hierarchy, translated from the v1 units that Docker and Kubernetes speak.

use std::{fs, io, path::Path};

use super::{Error, Hierarchies, Resources, ThrottleRate, device_filter, write};

/// Makes the directories down to `path` and enables, at each level above it, the controllers that exist there.
pub(super) fn create(hierarchies: &Hierarchies, path: &Path) -> Result<(), Error> {
    let Some(mount) = hierarchies.v2_mount() else {
        return Ok(());
    };
    let mut dir = mount.to_path_buf();
    for component in path.components() {
        enable_controllers(&dir);
        dir.push(component);
        match fs::create_dir(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::new(&dir, "create", error)),
        }
    }
    Ok(())
}

/// One by one, and without complaint: a controller that is missing matters only if a limit of it is asked for, and then that write fails.
fn enable_controllers(dir: &Path) {
    let available = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    let enabled = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    for name in available.split_whitespace().filter(|name| !enabled.split_whitespace().any(|on| on == *name)) {
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{name}"));
    }
}

pub(super) fn apply(dir: &Path, resources: &Resources) -> Result<(), Error> {
    let set = |file: &str, value: Option<String>| match value {
        Some(value) => write(&dir.join(file), &value),
        None => Ok(()),
    };
    let swap = match (resources.memory_swap_bytes, resources.memory_bytes) {
        (Some(-1), _) => Some("max".to_owned()),
        (Some(total), Some(memory)) if memory > 0 && total > 0 => Some((total - memory).max(0).to_string()),
        (Some(_) | None, _) => None,
    };
    set("memory.max", resources.memory_bytes.map(or_max))?;
    if dir.join("memory.swap.max").exists() {
        set("memory.swap.max", swap)?;
    }
    set("memory.low", resources.memory_reservation_bytes.map(or_max))?;
    set(
        "cpu.weight",
        resources.cpu_shares.filter(|shares| *shares > 0).map(|shares| weight_of_shares(shares).to_string()),
    )?;
    set("cpu.max", cpu_max(resources))?;
    set("cpuset.cpus", resources.cpuset_cpus.clone())?;
    set("cpuset.mems", resources.cpuset_mems.clone())?;
    set("pids.max", resources.pids.map(or_max))?;
    if let Some(weight) = resources.blkio_weight.filter(|weight| *weight > 0) {
        let (file, value) = match dir.join("io.bfq.weight").exists() {
            true => ("io.bfq.weight", u64::from(weight)),
            // v1's 10..1000 onto v2's 1..10000.
            false => ("io.weight", 1 + (u64::from(weight).max(10) - 10) * 9999 / 990),
        };
        set(file, Some(value.to_string()))?;
    }
    let throttle = |key: &str, rates: &[ThrottleRate]| {
        rates
            .iter()
            .try_for_each(|rate| set("io.max", Some(format!("{}:{} {key}={}", rate.major, rate.minor, rate.rate))))
    };
    throttle("rbps", &resources.read_bps)?;
    throttle("wbps", &resources.write_bps)?;
    throttle("riops", &resources.read_iops)?;
    throttle("wiops", &resources.write_iops)?;
    for (file, value) in &resources.unified {
        if file.contains('/') || file.starts_with("cgroup.") {
            return Err(Error::new(&dir.join(file), "unified", io::Error::from(io::ErrorKind::InvalidInput)));
        }
        set(file, Some(value.clone()))?;
    }
    if resources.devices.is_empty() {
        return Ok(());
    }
    device_filter::attach(dir, &resources.devices).map_err(|error| Error::new(dir, "device filter", error))
}

fn or_max(limit: i64) -> String {
    if limit > 0 { limit.to_string() } else { "max".to_owned() }
}

fn cpu_max(resources: &Resources) -> Option<String> {
    let period = resources.cpu_period_us.filter(|period| *period > 0);
    let quota = resources.cpu_quota_us.filter(|quota| *quota != 0);
    if period.is_none() && quota.is_none() {
        return None;
    }
    let quota = quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
    Some(format!("{quota} {}", period.unwrap_or(100_000)))
}

/// v1's 2..262144 onto v2's 1..10000, as the OCI specification maps them.
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}
