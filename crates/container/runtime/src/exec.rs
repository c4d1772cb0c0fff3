//! A further process in a running container.

use std::os::fd::OwnedFd;

use kernel::{
    cgroup::Cgroup,
    message,
    process::{self, Fork, NamespaceFlags},
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::{
    Failure, FailureKind, ProcessPlan,
    container::{executed, of_cgroup, reap, receive},
    failure::Step,
    init::{self, Line, Report},
    seccomp::Filter,
};

/// What an exec joins.
#[derive(Debug)]
pub struct Target<'a> {
    pub init: &'a OwnedFd,
    pub cgroup: &'a Cgroup,
    /// Those that the container does not share with the host.
    pub namespaces: NamespaceFlags,
    /// How many descriptors after the standard three the program inherits.
    pub keep_descriptors: u32,
}

#[derive(Debug)]
pub struct Started {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub console: Option<OwnedFd>,
}

/// Returns when the program was executed; on failure nothing of it is left.
pub fn start(
    target: &Target<'_>,
    plan: &ProcessPlan,
    filter: Option<&Filter>,
    stdio: Option<[OwnedFd; 3]>,
) -> Result<Started, Failure> {
    if target.namespaces.contains(NamespaceFlags::PID) {
        // For the child only. Entering the same namespace again is allowed.
        process::set_namespaces(target.init, NamespaceFlags::PID).step("enter the container's pid namespace")?;
    }
    let (ours, theirs) = message::pair().step("socketpair")?;
    let into = target.cgroup.open_v2().map_err(of_cgroup)?;
    let pid = match process::clone_into_namespaces(NamespaceFlags::default(), into.as_ref()).step("fork")? {
        Fork::Child => {
            drop(ours);
            let start = init::ExecStart {
                init: target.init,
                namespaces: target.namespaces.without(NamespaceFlags::PID),
                plan,
                filter,
                stdio,
                keep_descriptors: target.keep_descriptors,
                cgroup: into.is_none().then_some(target.cgroup),
            };
            init::run_exec(start, &Line::new(theirs))
        }
        Fork::Parent { pid } => pid,
    };
    drop((theirs, stdio));
    follow(plan, pid, &ours).inspect_err(|_| {
        let _ = process::signal(pid, 9);
        reap(pid);
    })
}

fn follow(plan: &ProcessPlan, pid: i32, line: &OwnedFd) -> Result<Started, Failure> {
    let raw = Pid::from_raw(pid).ok_or_else(|| Failure::invalid("pid"))?;
    let pidfd = pidfd_open(raw, PidfdFlags::empty()).step("pidfd_open")?;
    let mut console = None;
    if plan.terminal {
        match receive(line)? {
            Some((Report::Console, fd)) => console = fd,
            Some((Report::Failed(failure), _)) => return Err(failure),
            Some((Report::Ready | Report::Mounted, _)) | None => {
                return Err(Failure { kind: FailureKind::Kernel, message: "exec was killed".to_owned() });
            }
        }
    }
    executed(line)?;
    Ok(Started { pid, pidfd, console })
}
