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
    container::{executed, reap, receive},
    failure::Step,
    init::{self, Line, Report, Signal},
    seccomp::Filter,
};

/// What an exec joins.
#[derive(Debug)]
pub struct Target<'a> {
    pub init: &'a OwnedFd,
    pub cgroup: &'a Cgroup,
    /// Those that the container does not share with the host.
    pub namespaces: NamespaceFlags,
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
    let pid = match process::fork().step("fork")? {
        Fork::Child => {
            drop(ours);
            let rest = target.namespaces.without(NamespaceFlags::PID);
            init::run_exec(target.init, rest, plan, filter, stdio, &Line::new(theirs))
        }
        Fork::Parent { pid } => pid,
    };
    drop((theirs, stdio));
    follow(target, plan, pid, &ours).inspect_err(|_| {
        let _ = process::signal(pid, 9);
        reap(pid);
    })
}

fn follow(target: &Target<'_>, plan: &ProcessPlan, pid: i32, line: &OwnedFd) -> Result<Started, Failure> {
    let raw = Pid::from_raw(pid).ok_or_else(|| Failure::invalid("pid"))?;
    let pidfd = pidfd_open(raw, PidfdFlags::empty()).step("pidfd_open")?;
    target.cgroup.join(pid).map_err(|error| Failure { kind: FailureKind::Kernel, message: error.to_string() })?;
    // A child that is gone already has left its reason in the line.
    let _ = Line::send(line, Signal::Cgroup);
    let mut console = None;
    if plan.terminal {
        match receive(line)? {
            Some((Report::Console, fd)) => console = fd,
            Some((Report::Failed(failure), _)) => return Err(failure),
            Some((Report::Ready, _)) | None => {
                return Err(Failure { kind: FailureKind::Kernel, message: "exec was killed".to_owned() });
            }
        }
    }
    executed(line)?;
    Ok(Started { pid, pidfd, console })
}
