//! What a start needs of the machine, asked before anything is made: a missing piece is named with what to do about it.
//!
//! Called by `up`. The questions are cheap; what only shows when it is used (a port, an address range) is told where it is used.

use anyhow::{Context, Result, bail};
use rustix::thread::CapabilitySet;

/// What containers and their network cannot be made without.
const NEEDED: [(CapabilitySet, &str); 6] = [
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::SYS_CHROOT, "CAP_SYS_CHROOT"),
    (CapabilitySet::MKNOD, "CAP_MKNOD"),
    (CapabilitySet::CHOWN, "CAP_CHOWN"),
    (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
];

/// File systems that every container needs, and how a kernel gets them.
const FILESYSTEMS: [(&str, &str); 3] = [
    ("overlay", "an overlay file system: load it with `modprobe overlay`, or enable CONFIG_OVERLAY_FS"),
    ("tmpfs", "tmpfs: enable CONFIG_TMPFS"),
    ("mqueue", "POSIX message queues: enable CONFIG_POSIX_MQUEUE"),
];

pub(crate) fn check() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("gantry up must be root: it makes namespaces, mounts and network links; run it with sudo");
    }
    let held = rustix::thread::capabilities(None).context("cannot read this process's capabilities")?.effective;
    if let Some(missing) = missing_capabilities(held) {
        bail!(
            "gantry up is root without the privileges it needs: {missing} missing; run it outside the container or unit that took them away"
        );
    }
    let known = std::fs::read_to_string("/proc/filesystems").context("cannot read /proc/filesystems")?;
    if let Some(advice) = missing_filesystem(&known) {
        bail!("this kernel has no {advice}");
    }
    for namespace in ["mnt", "pid", "net", "ipc", "uts"] {
        if !std::path::Path::new("/proc/self/ns").join(namespace).exists() {
            bail!("this kernel has no {namespace} namespaces: enable CONFIG_NAMESPACES and its options");
        }
    }
    Ok(())
}

fn missing_capabilities(held: CapabilitySet) -> Option<String> {
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(capability, _)| !held.contains(*capability)).map(|(_, name)| *name).collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

fn missing_filesystem(known: &str) -> Option<&'static str> {
    let has = |name: &str| known.lines().any(|line| line.rsplit('\t').next() == Some(name));
    FILESYSTEMS.iter().find(|(name, _)| !has(name)).map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let all = NEEDED.iter().fold(CapabilitySet::empty(), |set, (capability, _)| set | *capability);
        assert_eq!(missing_capabilities(all), None);
        assert_eq!(
            missing_capabilities(all - CapabilitySet::SYS_ADMIN - CapabilitySet::MKNOD).as_deref(),
            Some("CAP_SYS_ADMIN, CAP_MKNOD")
        );
        let known = "nodev\ttmpfs\nnodev\tmqueue\n\text4\n";
        assert!(missing_filesystem(known).is_some_and(|advice| advice.contains("modprobe overlay")));
        assert_eq!(missing_filesystem(&format!("{known}nodev\toverlay\n")), None);
    }
}
