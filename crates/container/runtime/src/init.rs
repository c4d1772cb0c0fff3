//! The process that becomes the container's: from its first instruction to `execve`.
//!
//! Runs in a process of its own, forked from a monitor with one thread. Every step names itself when it fails; the failure goes to the
//! monitor as one message. Invariant: nothing of the host is reachable through a descriptor when the gate opens, and the process is not
//! dumpable until it executes, so that nobody in its pid namespace can look into it (CVE-2016-9962).

mod cgroup_mount;
mod copy_up;
mod devices;
mod identity;
mod masks;
mod mounts;
mod procfs;
mod program;
mod reaper;
mod rootfs;
mod terminal;

use std::{
    cell::RefCell,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use kernel::{
    cgroup::Cgroup,
    inroot::{self, Make},
    message,
    process::{self, NamespaceFlags},
};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    net::{SocketFlags, accept_with},
    process::{DumpableBehavior, fchdir, set_dumpable_behavior, setsid},
};
use serde::{Deserialize, Serialize};

use crate::{Failure, Plan, ProcessPlan, container::Ends, failure::Step, seccomp::Filter};
pub(crate) use mounts::Sources;

/// What the process tells the monitor. A message may carry the terminal's master.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Console,
    /// All mounts are made, the root is not entered yet: the time of hooks. Said only when there are any.
    Mounted,
    /// Waiting at the gate.
    Ready,
    Failed(Failure),
}

/// What the monitor tells the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// The id maps of the user namespace are written.
    Mapped,
    /// The cgroup is there, with its limits.
    Cgroup,
    /// The runtime's hooks have run.
    Hooked,
    /// Whoever made it has written down that it exists, and leaves it to who comes through the gate.
    HandedOver,
    Start,
}

impl Signal {
    fn byte(self) -> u8 {
        match self {
            Signal::Mapped => b'm',
            Signal::Cgroup => b'c',
            Signal::Hooked => b'h',
            Signal::HandedOver => b'o',
            Signal::Start => b's',
        }
    }
}

/// The process's end of its conversation with whoever makes it, and from the gate on with whoever starts it.
pub(crate) struct Line {
    socket: RefCell<OwnedFd>,
}

impl Line {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Line { socket: RefCell::new(socket) }
    }

    pub(crate) fn report(&self, report: &Report, console: Option<&OwnedFd>) {
        let bytes = serde_json::to_vec(report).unwrap_or_default();
        let descriptors: Vec<_> = console.iter().map(|fd| fd.as_fd()).collect();
        // When the monitor is gone there is nobody to tell; the next wait ends this process.
        let _ = message::send(&*self.socket.borrow(), &bytes, &descriptors);
    }

    /// Ends the process when the monitor has gone: there is no container then.
    pub(crate) fn wait_for(&self, wanted: Signal) {
        if !is_told(&self.socket.borrow(), wanted) {
            process::exit_now(1);
        }
    }

    /// From now on the talk is with whoever comes through `gate` and says so; others are let go.
    fn wait_at(&self, gate: &OwnedFd) {
        loop {
            let Ok(caller) = accept_with(gate, SocketFlags::CLOEXEC) else {
                process::exit_now(1);
            };
            if is_told(&caller, Signal::Start) {
                self.socket.replace(caller);
                return;
            }
        }
    }

    pub(crate) fn send(socket: impl AsFd, signal: Signal) -> std::io::Result<()> {
        message::send(socket, &[signal.byte()], &[])
    }
}

fn is_told(socket: &OwnedFd, wanted: Signal) -> bool {
    let mut byte = [0];
    matches!(message::receive(socket, &mut byte), Ok((1, _)) if byte[0] == wanted.byte())
}

/// Standard input, output and error of the process; `None` with a terminal.
pub(crate) type Stdio = Option<[OwnedFd; 3]>;

/// What an init begins with.
pub(crate) struct Start<'a> {
    pub(crate) plan: &'a Plan,
    /// When they had to be opened outside.
    pub(crate) sources: Option<Sources>,
    pub(crate) ends: Ends,
    pub(crate) cgroup: &'a Cgroup,
    /// Whether the init moves itself in.
    pub(crate) joins: bool,
}

/// The container's init.
pub(crate) fn run(start: Start<'_>, line: &Line) -> ! {
    if let Err(failure) = become_container(start, line) {
        line.report(&Report::Failed(failure), None);
    }
    process::exit_now(1)
}

fn become_container(start: Start<'_>, line: &Line) -> Result<(), Failure> {
    let Start { plan, sources, ends, cgroup, joins } = start;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("set not dumpable")?;
    setsid().step("setsid")?;
    if !plan.keep_keyring {
        process::join_new_session_keyring().step("join a new session keyring")?;
    }
    let namespaces = NamespaceFlags::from_bits(plan.new_namespaces);
    join_namespaces(plan)?;
    if namespaces.contains(NamespaceFlags::USER) {
        line.wait_for(Signal::Mapped);
        identity::become_root_of_namespace()?;
    }
    set_names(plan)?;
    rustix::process::umask(Mode::empty());
    let attributes = identity::Attributes::open(&plan.process)?;
    let own_pid = own_pid(plan);

    rootfs::prepare(plan)?;
    let sources = sources.map_or_else(|| Sources::open(plan), Ok)?;
    let root = rootfs::attach(plan, &sources)?;
    let mut joined = Once::new(|| {
        line.wait_for(Signal::Cgroup);
        if joins {
            cgroup.join_self().map_err(crate::container::of_cgroup)?;
        }
        if namespaces.contains(NamespaceFlags::CGROUP) {
            process::unshare(NamespaceFlags::CGROUP).step("unshare the cgroup namespace")?;
        }
        Ok(())
    });
    let has_dev = mounts::attach_all(plan, sources, &root, cgroup, &mut || joined.run())?;
    if has_dev {
        devices::make_all(plan, &root)?;
    }
    let terminal =
        if plan.process.terminal { Some(terminal::open(&root, plan.process.console_size, true)?) } else { None };
    mounts::write_sysctls(plan)?;
    make_cwd(&plan.process.cwd, &root)?;
    masks::apply(plan, &root)?;
    joined.run()?;
    run_hooks(plan, own_pid, line)?;
    rootfs::enter(plan, &root)?;
    drop(root);

    let master = terminal.map(|terminal| terminal.become_controlling()).transpose()?;
    if let Some(master) = master {
        line.report(&Report::Console, Some(&master));
    }
    take_stdio(ends.stdio)?;
    let finishing = Finish {
        plan: &plan.process,
        filter: plan.seccomp.as_ref(),
        attributes,
        keep: ends.keep_descriptors,
        reaps: plan.reaps,
    };
    finishing.run(|| {
        line.report(&Report::Ready, None);
        match &ends.gate {
            None => line.wait_for(Signal::Start),
            Some(gate) => {
                // A maker that dies before that leaves nothing behind that anybody knows of: so this ends, too.
                line.wait_for(Signal::HandedOver);
                line.wait_at(gate);
            }
        }
        match &plan.hooks {
            Some(hooks) => hooks.run("startContainer", &hooks.start_container, "created", own_pid),
            None => Ok(()),
        }
    })
}

/// The number that the host knows this process by, for hooks; seen in the host's procfs as long as that is `/proc`.
fn own_pid(plan: &Plan) -> i32 {
    let wanted = plan.hooks.is_some();
    let link = wanted.then(|| std::fs::read_link("/proc/self").ok()).flatten();
    link.and_then(|link| link.to_str()?.parse().ok()).unwrap_or(0)
}

fn run_hooks(plan: &Plan, own_pid: i32, line: &Line) -> Result<(), Failure> {
    let Some(hooks) = &plan.hooks else {
        return Ok(());
    };
    if !hooks.create_runtime.is_empty() {
        line.report(&Report::Mounted, None);
        line.wait_for(Signal::Hooked);
    }
    hooks.run("createContainer", &hooks.create_container, "creating", own_pid)
}

/// A working directory that the image lacks is made; one that leads through a magic link is refused when it is entered.
fn make_cwd(cwd: &Path, root: &OwnedFd) -> Result<(), Failure> {
    inroot::ensure(root, cwd, Make::Directory).map(drop).step(format!("mkdir {}", cwd.display()))
}

/// The part that a container's init and an exec share.
struct Finish<'a> {
    plan: &'a ProcessPlan,
    filter: Option<&'a Filter>,
    attributes: identity::Attributes,
    /// Descriptors after the standard three that stay.
    keep: u32,
    /// The program gets a first process before it (`docker run --init`).
    reaps: bool,
}

impl Finish<'_> {
    /// Returns only with a failure.
    fn run(self, gate: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let plan = self.plan;
        identity::own_stdio(plan)?;
        identity::set_rlimits(plan)?;
        enter_cwd(plan)?;
        rustix::process::umask(Mode::from_raw_mode(plan.umask));
        let kept = i32::try_from(self.keep).map_err(|_| Failure::invalid("too many descriptors to keep"))?;
        process::close_on_exec_from(kept.saturating_add(3)).step("close_range")?;
        let program = program::find(plan)?;
        let home = identity::missing_home(plan);
        gate()?;
        self.attributes.write()?;
        identity::schedule(plan)?;
        let install =
            |filter: &Filter| kernel::seccomp::install(&filter.program(), filter.flags).step("load seccomp filter");
        // Without no_new_privs only a privileged process may load a filter; with it the filter comes last, so it need not allow what precedes.
        match (self.filter, plan.no_new_privileges) {
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
        if self.reaps {
            reaper::become_first().step("fork the program")?;
        }
        Err(program.execute(plan, home))
    }
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
        NamespaceFlags::TIME,
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

/// What an exec begins with.
pub(crate) struct ExecStart<'a> {
    pub(crate) init: &'a OwnedFd,
    /// Those of `init` to enter; its pid namespace was entered before the fork.
    pub(crate) namespaces: NamespaceFlags,
    pub(crate) plan: &'a ProcessPlan,
    pub(crate) filter: Option<&'a Filter>,
    pub(crate) stdio: Stdio,
    pub(crate) keep_descriptors: u32,
    /// To be joined by the process itself.
    pub(crate) cgroup: Option<&'a Cgroup>,
}

/// An exec: the namespaces of `init`, then as above, without a gate.
pub(crate) fn run_exec(start: ExecStart<'_>, line: &Line) -> ! {
    if let Err(failure) = become_exec(start, line) {
        line.report(&Report::Failed(failure), None);
    }
    process::exit_now(1)
}

fn become_exec(start: ExecStart<'_>, line: &Line) -> Result<(), Failure> {
    let plan = start.plan;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("set not dumpable")?;
    setsid().step("setsid")?;
    process::join_new_session_keyring().step("join a new session keyring")?;
    let attributes = identity::Attributes::open(plan)?;
    if let Some(cgroup) = start.cgroup {
        cgroup.join_self().map_err(crate::container::of_cgroup)?;
    }
    process::set_namespaces(start.init, start.namespaces).step("enter the container's namespaces")?;
    if start.namespaces.contains(NamespaceFlags::USER) {
        identity::become_root_of_namespace()?;
    }
    if plan.terminal {
        let root =
            openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step("open /")?;
        let master = terminal::open(&root, plan.console_size, false)?.become_controlling()?;
        line.report(&Report::Console, Some(&master));
    }
    take_stdio(start.stdio)?;
    Finish { plan, filter: start.filter, attributes, keep: start.keep_descriptors, reaps: false }.run(|| Ok(()))
}
