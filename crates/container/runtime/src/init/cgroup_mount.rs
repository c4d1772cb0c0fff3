//! `/sys/fs/cgroup` in a container: on v1 its own directory of each hierarchy, on v2 the one hierarchy.

use std::{os::fd::OwnedFd, path::Path};

use kernel::{
    cgroup::{Cgroup, Version},
    inroot::{self, Make},
    mount::{self, Change, Parameter, attr},
    process::NamespaceFlags,
};
use rustix::fs::{Mode, mkdirat, openat, symlinkat};

use super::mounts;
use crate::{Failure, Mount, Plan, failure::Step};

pub(super) fn attach(plan: &Plan, planned: &Mount, root: &OwnedFd, cgroup: &Cgroup) -> Result<(), Failure> {
    let shown = planned.destination.display();
    let target = inroot::ensure(root, &planned.destination, Make::Directory).step(format!("mount {shown}"))?;
    match cgroup.hierarchies().version() {
        Version::V2 => {
            let own = NamespaceFlags::from_bits(plan.new_namespaces).contains(NamespaceFlags::CGROUP);
            let made = match (own, cgroup.hierarchies().v2_mount()) {
                (false, Some(mounted)) => mount::copy_of(mounted, false),
                (true, _) | (false, None) => mount::new_filesystem("cgroup2", Some("cgroup"), &[], 0),
            };
            let made = made.step(format!("mount cgroup2 at {shown}"))?;
            mounts::change(planned, &made).step(format!("mount cgroup2 at {shown}"))?;
            mount::attach(&made, &target).step(format!("mount cgroup2 at {shown}"))
        }
        Version::V1 | Version::Hybrid => attach_v1(cgroup, planned, &target).step(format!("mount cgroup at {shown}")),
    }
}

/// A small tmpfs with a directory for each hierarchy, and links for controllers that share one.
fn attach_v1(cgroup: &Cgroup, planned: &Mount, target: &OwnedFd) -> std::io::Result<()> {
    let parameters = [Parameter::Value("mode".to_owned(), "755".to_owned())];
    let flags = attr::NO_SUID | attr::NO_DEV | attr::NO_EXEC;
    let holder = mount::new_filesystem("tmpfs", Some("tmpfs"), &parameters, flags)?;
    mount::attach(&holder, target)?;
    for (dir, (_, names)) in cgroup.dirs().iter().zip(cgroup.hierarchies().v1_names()) {
        mkdirat(&holder, Path::new(&names), Mode::from_raw_mode(0o755))?;
        let place =
            openat(&holder, Path::new(&names), rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, Mode::empty())?;
        let copy = mount::copy_of(dir, false)?;
        mounts::change(planned, &copy)?;
        mount::attach(&copy, &place)?;
        for name in names.split(',').filter(|name| *name != names) {
            symlinkat(Path::new(&names), &holder, Path::new(name))?;
        }
    }
    mount::set_attributes(&holder, Change { set: planned.set & attr::READ_ONLY, ..Change::default() })
}
