//! The monitor: one process, one thread, one container.
//!
//! Forked from the zygote (see `zygote`). It makes the container, answers on its socket and pumps its streams with one epoll loop,
//! and leaves when the container has ended and everybody who waits has been told. It sleeps whenever nothing happens; its
//! only timers are the deadlines at the end. Deliberately absent: anything that would need the engine to be alive.

mod backlog;
mod commands;
mod connection;
mod ending;
mod poll;
mod process;
mod pump;

use std::{
    collections::BTreeMap,
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    path::PathBuf,
};

use kernel::{cgroup::Hierarchies, process::NamespaceFlags};
use runtime::{Failure, FailureKind, Plan, container::Container, seccomp::Filter};
use serde::{Deserialize, Serialize};

use crate::{LogPolicy, exit, log::Log, protocol::SocketPath};
use connection::Connection;
use poll::{Poll, Source};
use process::{Process, Stdio};

/// What the zygote hands over: the whole task.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) dir: PathBuf,
    pub(crate) plan: Plan,
    pub(crate) open_stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) log: LogPolicy,
}

pub(crate) struct Monitor {
    dir: PathBuf,
    poll: Poll,
    listener: UnixListener,
    children: OwnedFd,
    container: Container,
    /// For execs.
    filter: Option<Filter>,
    namespaces: NamespaceFlags,
    own_pids: bool,
    log: Log,
    /// Number 0 is the container's own; execs follow. An exec stays listed after its end, for those who ask how it ended.
    processes: BTreeMap<u32, Process>,
    next_process: u32,
    connections: BTreeMap<u32, Connection>,
    next_connection: u32,
    ending: Option<ending::Ending>,
    /// The exit code of a container whose program could not be executed.
    start_failed: Option<i32>,
    /// For reading, so that no read allocates.
    buffer: Vec<u8>,
}

/// The container's own process in [`Monitor::processes`].
pub(crate) const INIT: u32 = 0;

/// How many ended execs are remembered; a health check runs one every few seconds for months.
const REMEMBERED_EXECS: usize = 64;

impl Monitor {
    /// Makes the container, waiting at its gate.
    pub(crate) fn create(order: Order, hierarchies: &Hierarchies) -> Result<Self, Failure> {
        let io = |what: &'static str| move |error: std::io::Error| Failure::kernel(what, &error);
        exit::forget(&order.dir).map_err(io("clear the container's directory"))?;
        let children = kernel::process::child_events().map_err(io("signalfd"))?;
        let log = Log::open(&order.log)
            .map_err(|error| Failure::kernel(format!("open log {}", order.log.path.display()), &error))?;
        let listener = listen(&order.dir).map_err(io("listen on the monitor's socket"))?;
        let (theirs, stdio) =
            Stdio::for_process(order.plan.process.terminal, order.open_stdin).map_err(io("make stdio"))?;
        let mut container = runtime::container::create(&order.plan, hierarchies, theirs).inspect_err(|_| {
            let _ = exit::forget(&order.dir);
        })?;
        let mut init = Process::new(None, container.pid, stdio);
        init.closes_stdin = order.stdin_once;
        init.take_console(container.console.take()).map_err(io("take the terminal"))?;
        let mut monitor = Monitor {
            poll: Poll::new().map_err(io("epoll"))?,
            dir: order.dir,
            listener,
            children,
            filter: order.plan.seccomp.clone(),
            namespaces: exec_namespaces(&order.plan),
            own_pids: NamespaceFlags::from_bits(order.plan.new_namespaces).contains(NamespaceFlags::PID),
            container,
            log,
            processes: BTreeMap::from([(INIT, init)]),
            next_process: 1,
            connections: BTreeMap::new(),
            next_connection: 0,
            ending: None,
            start_failed: None,
            buffer: vec![0; 64 << 10],
        };
        monitor.watch().map_err(io("epoll"))?;
        Ok(monitor)
    }

    pub(crate) fn init_pid(&self) -> i32 {
        self.container.pid
    }

    fn watch(&mut self) -> std::io::Result<()> {
        self.poll.add(self.listener.as_fd(), Source::Listener)?;
        self.poll.add(self.children.as_fd(), Source::Children)?;
        self.watch_streams(INIT)
    }

    /// Until the container has ended and its end was told.
    pub(crate) fn run(mut self) {
        kernel::process::trim_heap();
        loop {
            let events = match self.poll.wait(self.ending.as_ref().map(ending::Ending::deadline)) {
                Ok(events) => events,
                // Nothing that could be waited for any more: the kernel does not let this happen to a live epoll descriptor.
                Err(_) => return,
            };
            for event in events {
                match event.source {
                    Source::Listener => self.accept(),
                    Source::Children => self.reap(),
                    Source::Output(process, stream) => drop(self.read_output(process, stream)),
                    Source::Input(process) => self.feed_stdin(process),
                    Source::Console(process) => self.serve_console(process, event.readable, event.writable),
                    Source::Connection(connection) => self.serve_connection(connection, event.readable, event.writable),
                }
            }
            self.execute_commands();
            if self.ended() {
                return;
            }
        }
    }
}

/// Those that are not the monitor's own.
fn exec_namespaces(plan: &Plan) -> NamespaceFlags {
    NamespaceFlags::from_bits(plan.joins.iter().fold(plan.new_namespaces, |bits, join| bits | join.kind))
}

fn listen(dir: &std::path::Path) -> std::io::Result<UnixListener> {
    let path = SocketPath::new(dir)?;
    let listener = UnixListener::bind(path.path())?;
    fs::set_permissions(path.path(), fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

pub(crate) fn failure(what: &str, error: &std::io::Error) -> Failure {
    Failure { kind: FailureKind::Kernel, message: format!("{what}: {error}") }
}
