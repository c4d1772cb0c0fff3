//! The IPC and UTS namespaces of a sandbox, pinned without a process, and its `/dev/shm`.
//!
//! A thread of its own unshares, sets the host name, pins by bind mount and ends: the calling thread, which
//! serves others, never changes namespaces.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
};

use kernel::process::NamespaceFlags;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use super::SandboxSpec;
use crate::{
    disk,
    error::{Error, Result},
};

/// Docker's and the kubelet's size of `/dev/shm`.
const SHM_OPTIONS: &std::ffi::CStr = c"mode=1777,size=67108864";

pub(super) fn make(dir: &Path, spec: &SandboxSpec) -> Result<()> {
    let pins = dir.join("ns");
    disk::make_dir(&pins)?;
    if !spec.host_ipc {
        let shm = dir.join("shm");
        disk::make_dir(&shm)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("shm", &shm, "tmpfs", flags, Some(SHM_OPTIONS)).map_err(|e| Error::file("mount", &shm, e))?;
    }
    let worker = std::thread::scope(|scope| scope.spawn(|| unshare_and_pin(&pins, spec)).join());
    worker.unwrap_or_else(|_| Err(Error::System("the thread that makes namespaces panicked".to_owned())))
}

fn unshare_and_pin(pins: &Path, spec: &SandboxSpec) -> Result<()> {
    let mut flags = NamespaceFlags::default();
    let mut kinds = Vec::new();
    if !spec.host_ipc {
        flags = flags.with(NamespaceFlags::IPC);
        kinds.push("ipc");
    }
    // With the node's network, the node's host name is what other programs know the pod by.
    if !spec.host_network {
        flags = flags.with(NamespaceFlags::UTS);
        kinds.push("uts");
    }
    if kinds.is_empty() {
        return Ok(());
    }
    kernel::process::unshare(flags).map_err(|e| Error::system("make namespaces", e))?;
    if !spec.host_network {
        rustix::system::sethostname(spec.hostname.as_bytes()).map_err(|e| Error::system("set host name", e))?;
    }
    if !spec.host_ipc {
        for (name, value) in spec.sysctls.iter().filter(|(name, _)| !name.starts_with("net.")) {
            write_sysctl(name, value)?;
        }
    }
    for kind in kinds {
        let pin = pins.join(kind);
        File::create(&pin).map_err(|e| Error::file("create", &pin, e))?;
        mount_bind(format!("/proc/thread-self/ns/{kind}"), &pin)
            .map_err(|e| Error::file("pin namespace at", &pin, e))?;
    }
    Ok(())
}

/// Sysctls of a network namespace, written from inside.
pub(super) fn network_sysctls(namespace: &Path, sysctls: &BTreeMap<String, String>) -> Result<()> {
    let namespace =
        kernel::netns::Namespace::open(namespace).map_err(|e| Error::system("open network namespace", e))?;
    let write = || {
        sysctls
            .iter()
            .filter(|(name, _)| name.starts_with("net."))
            .try_for_each(|(name, value)| write_sysctl(name, value))
    };
    namespace.run(write).map_err(|e| Error::system("enter network namespace", e))?
}

/// Only names that belong to the namespaces of a pod, and only as plain path components.
fn write_sysctl(name: &str, value: &str) -> Result<()> {
    const OF_IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let namespaced = name.starts_with("net.") || name.starts_with("fs.mqueue.") || OF_IPC.contains(&name);
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'))
        && !name.contains("..");
    if !namespaced || !plain || value.contains(['\n', '\0']) {
        return Err(Error::Invalid(format!("sysctl \"{name}\" is not allowed in a pod")));
    }
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::write(&path, value).map_err(|e| Error::file("write", path, e))
}

/// Unpins and unmounts; what is not there is no error.
pub(super) fn unmake(dir: &Path) {
    for name in ["ns/ipc", "ns/uts", "shm"] {
        let path = dir.join(name);
        match unmount(&path, UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "not unmounted"),
        }
    }
}

/// The pod's own cgroup, once its containers are gone; the node agent may have removed it already.
pub(super) fn remove_empty_cgroup(path: &str) {
    if let Ok(cgroup) = kernel::cgroup::Cgroup::find(path) {
        for error in cgroup.remove() {
            tracing::debug!(cgroup = path, %error, "pod's cgroup kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_outside_the_pods_namespaces_are_refused() {
        for name in [
            "kernel.core_pattern",
            "vm.overcommit_memory",
            "net.../../kernel/core_pattern",
            "kernel.shmmax/../core_pattern",
            "fs.file-max",
        ] {
            assert!(matches!(write_sysctl(name, "1"), Err(Error::Invalid(_))), "{name}");
        }
        assert!(matches!(write_sysctl("kernel.shmmax", "1\n2"), Err(Error::Invalid(_))));
    }
}
