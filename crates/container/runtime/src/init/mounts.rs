//! The mounts of the specification, in its order: each is made detached, set up, and attached to a descriptor that was resolved inside the root.

use std::{fs, os::fd::OwnedFd, path::Path};

use kernel::{
    cgroup::Cgroup,
    inroot::{self, Make},
    mount::{self, Change, Parameter, attr},
    process::NamespaceFlags,
};
use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, fstat, openat};

use super::{cgroup_mount, copy_up, procfs, rootfs};
use crate::{Failure, Mount, MountSource, Plan, failure::Step};

/// Everything of the host that a container is made of, each a mount that is attached nowhere yet.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(super) root: OwnedFd,
    /// One a mount of the plan; `None` for what is no bind mount.
    binds: Vec<Option<OwnedFd>>,
    /// Copied outside of the container's mount namespace, for the sake of a user namespace.
    pub(super) from_outside: bool,
}

impl Sources {
    /// In the namespaces of the caller: the container's mount namespace, or the host's for a container with a user namespace.
    pub(crate) fn open(plan: &Plan) -> Result<Self, Failure> {
        let binds = plan.mounts.iter().map(|planned| match &planned.source {
            MountSource::Bind { path, recursive } => {
                mount::copy_of(path, *recursive).step(format!("bind mount {}", path.display())).map(Some)
            }
            MountSource::FileSystem { .. } | MountSource::Cgroup | MountSource::Remount => Ok(None),
        });
        let separate = NamespaceFlags::from_bits(plan.separate_namespaces());
        Ok(Sources {
            root: rootfs::open(plan)?,
            binds: binds.collect::<Result<_, _>>()?,
            from_outside: separate.contains(NamespaceFlags::USER),
        })
    }
}

/// Returns whether `/dev` is the container's own, so that nodes belong in it (and not the host's, bind-mounted).
pub(super) fn attach_all(
    plan: &Plan,
    sources: Sources,
    root: &OwnedFd,
    cgroup: &Cgroup,
    cgroup_ready: &mut dyn FnMut() -> Result<(), Failure>,
) -> Result<bool, Failure> {
    let mut own_dev = true;
    for (planned, source) in plan.mounts.iter().zip(sources.binds) {
        let name = || format!("mount {}", planned.destination.display());
        match (&planned.source, source) {
            (MountSource::Bind { .. }, Some(copy)) => {
                if planned.destination == Path::new("/dev") {
                    own_dev = false;
                }
                if sources.from_outside {
                    cut_off(plan, &copy).step(name())?;
                }
                attach_bind(planned, &copy, root).step(name())?;
            }
            (MountSource::Bind { .. }, None) => {}
            (MountSource::Remount, _) => {
                let there = inroot::reference(root, &planned.destination).step(name())?;
                change(planned, &there).step(name())?;
            }
            (MountSource::FileSystem { kind, source, parameters }, _) => {
                attach_filesystem(planned, kind, source, parameters, root)?;
            }
            (MountSource::Cgroup, _) => {
                cgroup_ready()?;
                cgroup_mount::attach(plan, planned, root, cgroup)?;
            }
        }
    }
    Ok(own_dev)
}

/// A copy from the host's namespace has the host's propagation; this gives it what it would have had from inside.
fn cut_off(plan: &Plan, copy: &OwnedFd) -> std::io::Result<()> {
    let spread = plan.rootfs_spread;
    mount::set_attributes(
        copy,
        Change { spread: Some(spread.spread), recursive: spread.recursive, ..Change::default() },
    )
}

fn attach_bind(planned: &Mount, copy: &OwnedFd, root: &OwnedFd) -> std::io::Result<()> {
    let is_directory = FileType::from_raw_mode(fstat(copy)?.st_mode).is_dir();
    let target = inroot::ensure(root, &planned.destination, if is_directory { Make::Directory } else { Make::File })?;
    procfs::refuse_inside(&target, procfs::is_procfs(copy)?)?;
    change(planned, copy)?;
    mount::attach(copy, &target)
}

/// Attributes and propagation, as asked for. On a bind mount everything that is not named stays as the source has it.
pub(super) fn change(planned: &Mount, mounted: &OwnedFd) -> std::io::Result<()> {
    if planned.recursive_set | planned.recursive_clear != 0 {
        let all = Change { set: planned.recursive_set, clear: planned.recursive_clear, spread: None, recursive: true };
        mount::set_attributes(mounted, all)?;
    }
    if planned.set | planned.clear != 0 {
        mount::set_attributes(
            mounted,
            Change { set: planned.set, clear: planned.clear, spread: None, recursive: false },
        )?;
    }
    for wanted in &planned.spreads {
        mount::set_attributes(
            mounted,
            Change { spread: Some(wanted.spread), recursive: wanted.recursive, ..Change::default() },
        )?;
    }
    Ok(())
}

fn attach_filesystem(
    planned: &Mount,
    kind: &str,
    source: &str,
    parameters: &[(String, Option<String>)],
    root: &OwnedFd,
) -> Result<(), Failure> {
    let shown = planned.destination.display();
    let target = inroot::ensure(root, &planned.destination, Make::Directory).step(format!("mount {shown}"))?;
    if matches!(kind, "proc" | "sysfs") {
        refuse_redirected(planned, root)?;
    }
    procfs::refuse_inside(&target, kind == "proc").step(format!("mount {kind} at {shown}"))?;
    let mut parameters: Vec<Parameter> = parameters
        .iter()
        .map(|(name, value)| match value {
            Some(value) => Parameter::Value(name.clone(), value.clone()),
            None => Parameter::Flag(name.clone()),
        })
        .collect();
    if kind == "tmpfs"
        && !parameters.iter().any(|parameter| matches!(parameter, Parameter::Value(name, _) if name == "mode"))
    {
        // A tmpfs over a directory of the image keeps that directory's mode (/tmp stays 1777).
        let mode = fstat(&target).step(format!("stat {shown}"))?.st_mode & 0o7777;
        parameters.push(Parameter::Value("mode".to_owned(), format!("{mode:o}")));
    }
    let later = if planned.copy_up { planned.set & attr::READ_ONLY } else { 0 };
    let made = match mount::new_filesystem(kind, Some(source), &parameters, planned.set & !later) {
        // In a user namespace without a network namespace of its own sysfs is refused; nothing else is worth a second try.
        Err(error) => return Err(Failure::kernel(format!("mount {kind} at {shown}"), &error)),
        Ok(made) => made,
    };
    let rest = Mount { set: later, clear: 0, ..planned.clone() };
    if planned.copy_up && kind == "tmpfs" {
        copy_up::copy(&target, &made).step(format!("copy what is at {shown} into its tmpfs"))?;
    }
    change(&rest, &made).step(format!("mount {kind} at {shown}"))?;
    mount::attach(&made, &target).step(format!("mount {kind} at {shown}"))
}

/// `/proc` and `/sys` must be directories of the root, not links that an image shipped: other steps rely on what is mounted there.
fn refuse_redirected(planned: &Mount, root: &OwnedFd) -> Result<(), Failure> {
    let relative = planned.destination.strip_prefix("/").unwrap_or(&planned.destination);
    let found = openat(root, relative, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .step(format!("open {}", planned.destination.display()))?;
    let stat = fstat(&found).step("stat")?;
    if FileType::from_raw_mode(stat.st_mode).is_dir() {
        Ok(())
    } else {
        Err(Failure::invalid(format!("filesystem {:?} must be mounted on ordinary directory", planned.destination)))
    }
}

/// Into a procfs that is attached nowhere: no mount of the container can stand in for it (CVE-2025-52881).
pub(super) fn write_sysctls(plan: &Plan) -> Result<(), Failure> {
    if plan.sysctls.is_empty() {
        return Ok(());
    }
    let proc =
        mount::new_filesystem("proc", None, &[], attr::NO_SUID | attr::NO_EXEC | attr::NO_DEV).step("open procfs")?;
    for (name, value) in &plan.sysctls {
        let file = openat(
            &proc,
            Path::new("sys").join(name),
            OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .step(format!("open /proc/sys/{}", name.display()))?;
        rustix::io::write(&file, value.as_bytes()).step(format!("write /proc/sys/{}", name.display()))?;
    }
    Ok(())
}

/// Whether the host has `path`, without following a link at its end.
pub(super) fn host_has(path: &str) -> bool {
    fs::symlink_metadata(path).is_ok()
        && rustix::fs::accessat(rustix::fs::CWD, path, Access::EXISTS, AtFlags::empty()).is_ok()
}
