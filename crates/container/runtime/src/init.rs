//! The process that becomes the container's: from its first instruction to `execve`.
//!
//! Runs in a process of its own, forked from a monitor with one thread. Every step names itself when it fails; the failure goes to the
//! monitor as one message. Invariant: nothing of the host is reachable through a descriptor when the gate opens, and the process is not
//! dumpable until it executes, so that nobody in its pid namespace can look into it (CVE-2016-9962).

mod cgroup_mount;
mod devices;
mod identity;
mod masks;
mod mounts;
mod program;
mod reaper;
mod rootfs;
mod terminal;

use std::os::fd::{AsFd, OwnedFd};

use kernel::{
    inroot::{self, Make},
    message,
    process::{self, NamespaceFlags},
};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    process::{DumpableBehavior, fchdir, set_dumpable_behavior, setsid},
};
use serde::{Deserialize, Serialize};

use crate::{Failure, Plan, ProcessPlan, failure::Step, seccomp::Filter};

/// What the process tells the monitor. A message may carry the terminal's master.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Console,
    /// Waiting at the gate.
    Ready,
    Failed(Failure),
}

/// What the monitor tells the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// The id maps of the user namespace are written.
    Mapped,
    /// The cgroup is there (and joined, when a cgroup namespace is to be made).
    Cgroup,
    Start,
}

impl Signal {
    fn byte(self) -> u8 {
        match self {
            Signal::Mapped => b'm',
            Signal::Cgroup => b'c',
            Signal::Start => b's',
        }
    }
}

/// The process's end of its conversation with the monitor.
pub(crate) struct Line {
    socket: OwnedFd,
}

impl Line {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Line { socket }
    }

    pub(crate) fn report(&self, report: &Report, console: Option<&OwnedFd>) {
        let bytes = serde_json::to_vec(report).unwrap_or_default();
        let descriptors: Vec<_> = console.iter().map(|fd| fd.as_fd()).collect();
        // When the monitor is gone there is nobody to tell; the next wait ends this process.
        let _ = message::send(&self.socket, &bytes, &descriptors);
    }

    /// Ends the process when the monitor has gone: there is no container then.
    pub(crate) fn wait_for(&self, wanted: Signal) {
        let mut byte = [0];
        match message::receive(&self.socket, &mut byte) {
            Ok((1, _)) if byte[0] == wanted.byte() => {}
            _gone_or_confused => process::exit_now(1),
        }
    }

    pub(crate) fn send(socket: impl AsFd, signal: Signal) -> std::io::Result<()> {
        message::send(socket, &[signal.byte()], &[])
    }
}

/// Standard input, output and error of the process; `None` with a terminal.
pub(crate) type Stdio = Option<[OwnedFd; 3]>;

/// The container's init.
pub(crate) fn run(plan: &Plan, stdio: Stdio, line: &Line) -> ! {
    if let Err(failure) = become_container(plan, stdio, line) {
        line.report(&Report::Failed(failure), None);
    }
    process::exit_now(1)
}

fn become_container(plan: &Plan, stdio: Stdio, line: &Line) -> Result<(), Failure> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("set not dumpable")?;
    setsid().step("setsid")?;
    let namespaces = NamespaceFlags::from_bits(plan.new_namespaces);
    join_namespaces(plan)?;
    if namespaces.contains(NamespaceFlags::USER) {
        line.wait_for(Signal::Mapped);
        identity::become_root_of_namespace()?;
    }
    set_names(plan)?;
    rustix::process::umask(Mode::empty());
    let attributes = identity::Attributes::open(&plan.process)?;

    let root = rootfs::attach(plan)?;
    let mut cgroup = Once::new(|| {
        line.wait_for(Signal::Cgroup);
        if namespaces.contains(NamespaceFlags::CGROUP) {
            process::unshare(NamespaceFlags::CGROUP).step("unshare the cgroup namespace")?;
        }
        Ok(())
    });
    let has_dev = mounts::attach_all(plan, &root, &mut || cgroup.run())?;
    if has_dev {
        devices::make_all(plan, &root)?;
    }
    let terminal =
        if plan.process.terminal { Some(terminal::open(&root, plan.process.console_size, true)?) } else { None };
    mounts::write_sysctls(plan)?;
    inroot::ensure(&root, &plan.process.cwd, Make::Directory).step(format!("mkdir {}", plan.process.cwd.display()))?;
    masks::apply(plan, &root)?;
    cgroup.run()?;
    rootfs::enter(plan, &root)?;
    drop(root);

    let master = terminal.map(|terminal| terminal.become_controlling()).transpose()?;
    if let Some(master) = master {
        line.report(&Report::Console, Some(&master));
    }
    take_stdio(stdio)?;
    let gate = || {
        line.report(&Report::Ready, None);
        line.wait_for(Signal::Start);
    };
    let program = finish(&plan.process, plan.seccomp.as_ref(), attributes, gate)?;
    if plan.reaps {
        reaper::become_first().step("fork the program")?;
    }
    Err(program.execute(&plan.process))
}

/// The part that a container's init and an exec share: all but the execution itself.
fn finish(
    plan: &ProcessPlan,
    filter: Option<&Filter>,
    attributes: identity::Attributes,
    gate: impl FnOnce(),
) -> Result<program::Program, Failure> {
    identity::set_rlimits(plan)?;
    enter_cwd(plan)?;
    rustix::process::umask(Mode::from_raw_mode(plan.umask));
    process::close_on_exec_from(3).step("close_range")?;
    let program = program::find(plan)?;
    gate();
    attributes.write()?;
    let install =
        |filter: &Filter| kernel::seccomp::install(&filter.program(), filter.flags).step("load seccomp filter");
    // Without no_new_privs only a privileged process may load a filter; with it the filter comes last, so it need not allow what precedes.
    match (filter, plan.no_new_privileges) {
        (Some(filter), false) => {
            install(filter)?;
            identity::take(plan)?;
        }
        (Some(filter), true) => {
            identity::take(plan)?;
            install(filter)?;
        }
        (None, _) => identity::take(plan)?,
    }
    Ok(program)
}

/// Through the root, by descriptor, without magic links: `/proc/self/fd/N` as a working directory leads nowhere (CVE-2024-21626).
fn enter_cwd(plan: &ProcessPlan) -> Result<(), Failure> {
    let shown = plan.cwd.display();
    if !plan.cwd.is_absolute() {
        return Err(Failure::invalid(format!("Cwd must be an absolute path: {shown:?}")));
    }
    let root = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step("open /")?;
    let dir = inroot::open(&root, &plan.cwd, OFlags::PATH | OFlags::DIRECTORY)
        .step(format!("chdir to cwd ({:?}) set in config.json failed", plan.cwd))?;
    fchdir(&dir).step(format!("chdir to cwd ({:?}) set in config.json failed", plan.cwd))?;
    let now = std::env::current_dir().step("getcwd")?;
    // The kernel says `(unreachable)` for a directory that is not below the root.
    if now.is_absolute() {
        Ok(())
    } else {
        Err(Failure::invalid(
            "current working directory is outside of container mount namespace root -- possible container breakout detected",
        ))
    }
}

fn take_stdio(stdio: Stdio) -> Result<(), Failure> {
    for (target, fd) in stdio.iter().flatten().enumerate() {
        process::become_stdio(fd, target as i32).step("dup2")?;
    }
    Ok(())
}

/// The user namespace first: it owns what the others need permission for. The pid namespace was entered by the monitor, since it counts for children only.
fn join_namespaces(plan: &Plan) -> Result<(), Failure> {
    let order = [
        NamespaceFlags::USER,
        NamespaceFlags::IPC,
        NamespaceFlags::UTS,
        NamespaceFlags::NETWORK,
        NamespaceFlags::CGROUP,
    ];
    for kind in order {
        for join in plan.joins.iter().filter(|join| join.kind == kind.bits()) {
            let path = join.path.display();
            let file = openat(CWD, &join.path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .step(format!("open namespace {path}"))?;
            process::set_namespaces(&file, kind).step(format!("enter namespace {path}"))?;
        }
    }
    Ok(())
}

fn set_names(plan: &Plan) -> Result<(), Failure> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).step("sethostname")?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).step("setdomainname")?;
    }
    Ok(())
}

/// A step that several later steps need, and that is taken when the first of them comes.
struct Once<F> {
    step: Option<F>,
}

impl<F: FnOnce() -> Result<(), Failure>> Once<F> {
    fn new(step: F) -> Self {
        Once { step: Some(step) }
    }
    fn run(&mut self) -> Result<(), Failure> {
        self.step.take().map_or(Ok(()), |step| step())
    }
}

/// An exec: the namespaces of `init`, then as above, without a gate.
pub(crate) fn run_exec(
    init: &OwnedFd,
    namespaces: NamespaceFlags,
    plan: &ProcessPlan,
    filter: Option<&Filter>,
    stdio: Stdio,
    line: &Line,
) -> ! {
    if let Err(failure) = become_exec(init, namespaces, plan, filter, stdio, line) {
        line.report(&Report::Failed(failure), None);
    }
    process::exit_now(1)
}

fn become_exec(
    init: &OwnedFd,
    namespaces: NamespaceFlags,
    plan: &ProcessPlan,
    filter: Option<&Filter>,
    stdio: Stdio,
    line: &Line,
) -> Result<(), Failure> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("set not dumpable")?;
    setsid().step("setsid")?;
    let attributes = identity::Attributes::open(plan)?;
    line.wait_for(Signal::Cgroup);
    process::set_namespaces(init, namespaces).step("enter the container's namespaces")?;
    if namespaces.contains(NamespaceFlags::USER) {
        identity::become_root_of_namespace()?;
    }
    if plan.terminal {
        let root =
            openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step("open /")?;
        let master = terminal::open(&root, plan.console_size, false)?.become_controlling()?;
        line.report(&Report::Console, Some(&master));
    }
    take_stdio(stdio)?;
    Err(finish(plan, filter, attributes, || {})?.execute(plan))
}
