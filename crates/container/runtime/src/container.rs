//! The monitor's side of making a container: clone its init, see to its cgroup, open the gate.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use kernel::{
    cgroup::{Cgroup, Hierarchies, Version},
    message,
    process::{self, Fork, NamespaceFlags},
};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::{
    Failure, FailureKind, Plan,
    failure::Step,
    init::{self, Line, Report, Signal},
};

/// An init that waits at the gate, or runs.
#[derive(Debug)]
pub struct Container {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// The terminal's master, to be taken by whoever pumps it.
    pub console: Option<OwnedFd>,
    /// Ends when the program was executed; `None` from then on.
    line: Option<OwnedFd>,
    pub cgroup: Cgroup,
}

/// The longest message that an init sends: an error line.
const MESSAGE_LIMIT: usize = 16 << 10;

/// What a container is made with, besides its plan.
#[derive(Debug, Default)]
pub struct Ends {
    /// The descriptors that its process gets; `None` with a terminal, or to leave the caller's own.
    pub stdio: Option<[OwnedFd; 3]>,
    /// A listening socket for [`open_gate`], when whoever starts the container is another process than this one.
    pub gate: Option<OwnedFd>,
    /// How many descriptors after the standard three the program inherits.
    pub keep_descriptors: u32,
}

/// Makes the container up to its gate. `stdio` are the descriptors that its process gets, `None` with a terminal.
///
/// On failure the init is dead and reaped, and the cgroup is removed.
pub fn create(plan: &Plan, hierarchies: &Hierarchies, stdio: Option<[OwnedFd; 3]>) -> Result<Container, Failure> {
    create_with(plan, hierarchies, Ends { stdio, ..Ends::default() })
}

/// The same, with a gate that outlives this process, or with descriptors to keep.
pub fn create_with(plan: &Plan, hierarchies: &Hierarchies, ends: Ends) -> Result<Container, Failure> {
    let cgroup = Cgroup::new(hierarchies, &plan.cgroup).map_err(of_cgroup)?;
    if cgroup.exists() {
        // Left by an earlier run: its counters (out-of-memory kills) are not this run's.
        cgroup.remove();
    }
    make(plan, &cgroup, ends).inspect_err(|_| {
        cgroup.remove();
    })
}

fn make(plan: &Plan, cgroup: &Cgroup, ends: Ends) -> Result<Container, Failure> {
    join_pid_namespace(plan)?;
    make_time_namespace(plan)?;
    let separate = NamespaceFlags::from_bits(plan.separate_namespaces());
    let foreign_user = separate.contains(NamespaceFlags::USER);
    // Root of a user namespace may not look everywhere that the host's root may: its sources are opened here.
    let sources = if foreign_user { Some(init::Sources::open(plan)?) } else { None };
    let on_v2 = cgroup.hierarchies().version() == Version::V2;
    if on_v2 {
        cgroup.create().and_then(|()| cgroup.limit(&plan.resources)).map_err(of_cgroup)?;
    }
    let into = cgroup.open_v2().map_err(of_cgroup)?;
    let joins = match (on_v2, foreign_user) {
        (true, _) => Joins::Cloned,
        (false, true) => Joins::IsMoved,
        (false, false) => Joins::Itself,
    };
    let (ours, theirs) = message::pair().step("socketpair")?;
    let flags = NamespaceFlags::from_bits(plan.new_namespaces).without(NamespaceFlags::CGROUP);
    let pid = match process::clone_into_namespaces(flags.without(NamespaceFlags::TIME), into.as_ref()).step("clone")? {
        Fork::Child => {
            drop(ours);
            let joins = joins == Joins::Itself;
            init::run(init::Start { plan, sources, ends, cgroup, joins }, &Line::new(theirs))
        }
        Fork::Parent { pid } => pid,
    };
    drop((theirs, ends, sources));
    let made = open_pidfd(pid).and_then(|pidfd| {
        let mut container = Container { pid, pidfd, console: None, line: Some(ours), cgroup: cgroup.clone() };
        container.accompany(plan, joins)?;
        Ok(container)
    });
    made.inspect_err(|_| {
        let _ = process::signal(pid, 9);
        reap(pid);
    })
}

/// How the init comes into its cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Joins {
    /// By the clone itself (v2).
    Cloned,
    /// On v1, where moving oneself is much cheaper than being moved (see [`Cgroup::join_self`]).
    Itself,
    /// On v1 in a user namespace, where it has no right to.
    IsMoved,
}

/// Opens the gate of a container that another process made, through its `socket`; returns when the program was executed, or was not.
pub fn open_gate(socket: &OwnedFd) -> Result<(), Failure> {
    Line::send(socket, Signal::Start).step("talk to init")?;
    executed(socket)
}

pub(crate) fn of_cgroup(error: kernel::cgroup::Error) -> Failure {
    Failure { kind: FailureKind::Kernel, message: error.to_string() }
}

fn open_pidfd(pid: i32) -> Result<OwnedFd, Failure> {
    let pid = Pid::from_raw(pid).ok_or_else(|| Failure::invalid("pid"))?;
    pidfd_open(pid, PidfdFlags::empty()).step("pidfd_open")
}

pub(crate) fn reap(pid: i32) {
    let _ = rustix::process::waitpid(Pid::from_raw(pid), rustix::process::WaitOptions::empty());
}

/// Counts for the children of this process only, the monitor itself stays where it is. (For a time namespace too, but for the one thread that
/// enters: it is entered by the init.)
fn join_pid_namespace(plan: &Plan) -> Result<(), Failure> {
    for join in plan.joins.iter().filter(|join| join.kind == NamespaceFlags::PID.bits()) {
        let path = join.path.display();
        let file = openat(CWD, &join.path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .step(format!("open namespace {path}"))?;
        process::set_namespaces(&file, NamespaceFlags::PID).step(format!("enter namespace {path}"))?;
    }
    Ok(())
}

/// Its offsets can be set only while nobody is in it: the next clone is the first.
fn make_time_namespace(plan: &Plan) -> Result<(), Failure> {
    let Some(offsets) = &plan.time_offsets else {
        return Ok(());
    };
    process::unshare(NamespaceFlags::TIME).step("unshare the time namespace")?;
    if offsets.is_empty() {
        return Ok(());
    }
    std::fs::write("/proc/self/timens_offsets", offsets).step("write the time offsets")
}

impl Container {
    /// Everything that only the outside can do, beside the init's own work, until it is ready.
    fn accompany(&mut self, plan: &Plan, joins: Joins) -> Result<(), Failure> {
        if NamespaceFlags::from_bits(plan.new_namespaces).contains(NamespaceFlags::USER) {
            write_id_maps(self.pid, plan).step("write the id maps")?;
            self.tell(Signal::Mapped)?;
        }
        if joins != Joins::Cloned {
            self.cgroup.create().and_then(|()| self.cgroup.limit(&plan.resources)).map_err(of_cgroup)?;
        }
        if joins == Joins::IsMoved
            && let Err(error) = self.cgroup.join(self.pid)
        {
            // When the init has failed meanwhile, its own words say more.
            self.until_ready(plan)?;
            return Err(of_cgroup(error));
        }
        self.tell(Signal::Cgroup)?;
        self.until_ready(plan)
    }

    fn tell(&self, signal: Signal) -> Result<(), Failure> {
        match &self.line {
            // An init that is gone has left its reason in the line.
            Some(line) => Line::send(line, signal)
                .or_else(|error| {
                    if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) {
                        Ok(())
                    } else {
                        Err(error)
                    }
                })
                .step("talk to init"),
            None => Ok(()),
        }
    }

    fn until_ready(&mut self, plan: &Plan) -> Result<(), Failure> {
        loop {
            let Some(line) = &self.line else {
                return Ok(());
            };
            match receive(line)? {
                Some((Report::Console, Some(console))) => self.console = Some(console),
                Some((Report::Mounted, _)) => {
                    if let Some(hooks) = &plan.hooks {
                        hooks.run("createRuntime", &hooks.create_runtime, "creating", self.pid)?;
                    }
                    self.tell(Signal::Hooked)?;
                }
                Some((Report::Ready, _)) => return Ok(()),
                Some((Report::Failed(failure), _)) => return Err(failure),
                Some((Report::Console, None)) | None => {
                    return Err(Failure { kind: FailureKind::Kernel, message: "container init was killed".to_owned() });
                }
            }
        }
    }

    /// From here on the container is its gate's: it stays when this process ends. Call it when its existence is written down.
    pub fn hand_over(&mut self) -> Result<(), Failure> {
        self.tell(Signal::HandedOver)
    }

    /// Opens the gate and waits until the program was executed, or was not.
    pub fn start(&mut self) -> Result<(), Failure> {
        self.tell(Signal::Start)?;
        let Some(line) = self.line.take() else {
            return Err(Failure::invalid("the container has been started"));
        };
        executed(&line)
    }

    pub fn is_started(&self) -> bool {
        self.line.is_none()
    }
}

/// The line is closed by the exec; a message before that is a failure.
pub(crate) fn executed(line: &OwnedFd) -> Result<(), Failure> {
    match receive(line)? {
        None => Ok(()),
        Some((Report::Failed(failure), _)) => Err(failure),
        Some((Report::Console | Report::Mounted | Report::Ready, _)) => {
            Err(Failure::invalid("init said something unexpected"))
        }
    }
}

pub(crate) fn receive(line: &OwnedFd) -> Result<Option<(Report, Option<OwnedFd>)>, Failure> {
    let mut buffer = vec![0; MESSAGE_LIMIT];
    let mut attempt = message::receive(line.as_fd(), &mut buffer);
    if matches!(&attempt, Err(error) if error.kind() == io::ErrorKind::ConnectionReset) {
        // Closed with something of ours unread. The kernel says so once, before it hands out what the init had said.
        attempt = message::receive(line.as_fd(), &mut buffer);
    }
    let (length, mut descriptors) = match attempt {
        Ok(received) => received,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        Err(error) => return Err(Failure::kernel("receive from init", &error)),
    };
    if length == 0 {
        return Ok(None);
    }
    let report =
        serde_json::from_slice(&buffer[..length]).map_err(|error| Failure::invalid(format!("init: {error}")))?;
    Ok(Some((report, descriptors.pop())))
}

fn write_id_maps(pid: i32, plan: &Plan) -> io::Result<()> {
    let text = |map: &[crate::IdMap]| {
        map.iter().map(|m| format!("{} {} {}\n", m.inside, m.outside, m.count)).collect::<String>()
    };
    std::fs::write(format!("/proc/{pid}/uid_map"), text(&plan.uid_map))?;
    std::fs::write(format!("/proc/{pid}/gid_map"), text(&plan.gid_map))
}
