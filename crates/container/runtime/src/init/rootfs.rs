//! The container's root: mounted where only this mount namespace sees it, and entered.

use std::{fs, os::fd::OwnedFd, path::Path};

use kernel::mount::{self, Change, Spread, attr};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::Sources;
use crate::{Failure, Plan, RootFs, failure::Step};

/// Where the root is attached until it is entered. Any directory that nothing else of the container is taken from.
pub(crate) fn attach_point(rootfs: &RootFs) -> &Path {
    match rootfs {
        RootFs::Plain { path } => path,
        RootFs::Overlay { upper, .. } => upper,
    }
}

/// Cuts this mount namespace off the host's as far as was asked for. Before any source is copied, so that the copies inherit it.
pub(super) fn prepare(plan: &Plan) -> Result<(), Failure> {
    let host = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step("open /")?;
    let spread = plan.rootfs_spread;
    mount::set_attributes(
        &host,
        Change { spread: Some(spread.spread), recursive: spread.recursive, ..Change::default() },
    )
    .step("set the propagation of /")
}

/// The root's mount, attached nowhere.
pub(super) fn open(plan: &Plan) -> Result<OwnedFd, Failure> {
    match &plan.rootfs {
        RootFs::Plain { path } => mount::copy_of(path, true).step(format!("rootfs {}", path.display())),
        RootFs::Overlay { lowers, upper, work } => {
            let lowers: Vec<&Path> = lowers.iter().map(AsRef::as_ref).collect();
            mount::new_overlay(&lowers, Some((upper, work)), 0).step(format!("overlay on {}", upper.display()))
        }
    }
}

/// Attaches the root's mount. The descriptor stands for the container's `/` from here on.
pub(super) fn attach(plan: &Plan, sources: &Sources) -> Result<OwnedFd, Failure> {
    let root = sources.root.try_clone().step("dup")?;
    // Root of a user namespace may not get as far as the usual place; stacked on `/`, which paths from `/` do not see.
    let point = if sources.from_outside { Path::new("/") } else { attach_point(&plan.rootfs) };
    if plan.rootfs_spread.spread == Spread::Shared {
        make_parent_private(point)?;
    }
    // Whatever the copied mount was before, nothing of the container's own mounts may leave this namespace.
    mount::set_attributes(&root, Change { spread: Some(Spread::Private), recursive: true, ..Change::default() })
        .step("make the root private")?;
    let target = openat(CWD, point, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .step(format!("open {}", point.display()))?;
    mount::attach(&root, &target).step(format!("attach the root at {}", point.display()))?;
    Ok(root)
}

/// pivot_root refuses a shared parent, and a mount on a shared one would appear on the host.
fn make_parent_private(point: &Path) -> Result<(), Failure> {
    let point = fs::canonicalize(point).step(format!("resolve {}", point.display()))?;
    let table = fs::read_to_string("/proc/self/mountinfo").step("read mountinfo")?;
    let parent = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(Path::new)
        .filter(|mounted| point.starts_with(mounted))
        .max_by_key(|mounted| mounted.as_os_str().len())
        .unwrap_or(Path::new("/"));
    let parent = openat(CWD, parent, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step("open the parent mount")?;
    mount::set_attributes(&parent, Change { spread: Some(Spread::Private), ..Change::default() })
        .step("make the parent mount private")
}

/// Makes it the root of this namespace, read-only if it is to be.
pub(super) fn enter(plan: &Plan, root: &OwnedFd) -> Result<(), Failure> {
    if plan.rootfs_read_only {
        mount::set_attributes(root, Change { set: attr::READ_ONLY, ..Change::default() })
            .step("make the root read-only")?;
    }
    if plan.no_pivot {
        mount::enter_root_by_move(root).step("move the root to /")?;
    } else {
        mount::enter_root(root).step("pivot_root")?;
    }
    match plan.rootfs_spread.spread {
        // The root itself was kept private to be entered; its propagation as asked for comes last.
        Spread::Shared => {
            mount::set_attributes(root, Change { spread: Some(Spread::Shared), recursive: false, ..Change::default() })
                .step("share the root")
        }
        Spread::Private | Spread::Slave | Spread::Unbindable => Ok(()),
    }
}
