//! The zygote: a small single-threaded process that forks monitors on request.
//!
//! Forking the engine itself would copy the page tables of all it holds and is unsafe with threads. The zygote is the same binary,
//! started again before any thread exists, from a read-only mount of itself (see `kernel::self_exe`), with an empty heap: a fork of it costs
//! a fraction of a millisecond and its monitors share its pages. It ends when the engine does; the monitors do not.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use kernel::{
    cgroup::Hierarchies,
    message,
    process::{self, Fork},
    self_exe::ProtectedExe,
};
use oci::runtime_spec::LinuxSeccomp;
use runtime::{Failure, FailureKind, seccomp::Filter};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::{
    Created, Error, Handle, Launch,
    serve::{Monitor, Order},
};

/// `argv[0]` of the role; what `ps` shows.
const ROLE: &str = "gantry-zygote";

/// Answers are one line of JSON.
const ANSWER_LIMIT: u64 = 32 << 10;

/// An order is a plan: tens of kilobytes, or as much as the environment of the container.
const ORDER_LIMIT: u64 = 16 << 20;

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Created { init_pid: i32, monitor_pid: i32 },
    Failed(Failure),
}

/// The engine's end of the zygote. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Zygote {
    running: Mutex<Running>,
    /// Filters of the profiles that were compiled last; nearly all containers share one.
    filters: Mutex<Vec<(LinuxSeccomp, Filter)>>,
}

#[derive(Debug)]
struct Running {
    socket: OwnedFd,
    process: Child,
}

const REMEMBERED_FILTERS: usize = 8;

impl Zygote {
    /// Call before any thread exists (before tokio).
    pub fn spawn() -> Result<Zygote, Error> {
        Ok(Zygote { running: Mutex::new(Running::spawn()?), filters: Mutex::new(Vec::new()) })
    }

    /// Forks a monitor, which makes the container; returns when its init waits at the gate.
    pub async fn create(&self, launch: &Launch) -> Result<Created, Error> {
        let order = self.order(launch)?;
        let (ours, theirs) = UnixStream::pair().map_err(zygote("socketpair"))?;
        self.send(&order, &theirs)?;
        drop(theirs);
        match receive_answer(ours).await? {
            Some(Answer::Created { init_pid, monitor_pid }) => {
                Ok(Created { init_pid, monitor_pid, handle: Handle::new(&launch.dir) })
            }
            Some(Answer::Failed(failure)) => Err(Error::Refused(failure)),
            None => Err(Error::Refused(Failure {
                kind: FailureKind::Kernel,
                message: "the monitor died while it made the container".to_owned(),
            })),
        }
    }

    /// The task as a file in memory: of any size, read by the monitor itself.
    fn order(&self, launch: &Launch) -> Result<OwnedFd, Error> {
        let seccomp = launch.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let filter = seccomp.map(|profile| self.filter(profile)).transpose().map_err(Error::Refused)?;
        let mut plan =
            runtime::compile(&launch.spec, launch.rootfs.clone(), &launch.cgroup, filter).map_err(Error::Refused)?;
        plan.process.terminal = launch.terminal;
        plan.reaps = launch.init;
        let order = Order {
            dir: launch.dir.clone(),
            plan,
            open_stdin: launch.open_stdin,
            stdin_once: launch.stdin_once,
            log: launch.log.clone(),
        };
        let bytes = serde_json::to_vec(&order).map_err(|error| Error::Protocol(error.to_string()))?;
        let mut file =
            File::from(memfd_create("order", MemfdFlags::CLOEXEC).map_err(|error| zygote("memfd")(error.into()))?);
        file.write_all(&bytes).and_then(|()| io::Seek::rewind(&mut file)).map_err(zygote("write the order"))?;
        Ok(file.into())
    }

    fn filter(&self, profile: &LinuxSeccomp) -> Result<Filter, Failure> {
        let mut filters = self.filters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, filter)) = filters.iter().find(|(known, _)| known == profile) {
            return Ok(filter.clone());
        }
        let filter = runtime::seccomp::compile(profile)?;
        if filters.len() == REMEMBERED_FILTERS {
            filters.remove(0);
        }
        filters.push((profile.clone(), filter.clone()));
        Ok(filter)
    }

    /// To the zygote; to a new one when it has died. (Spawning is an exec: safe with threads.)
    fn send(&self, order: &OwnedFd, reply: &UnixStream) -> Result<(), Error> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let descriptors = [order.as_fd(), reply.as_fd()];
        if message::send(&running.socket, b"o", &descriptors).is_ok() {
            return Ok(());
        }
        let dead = std::mem::replace(&mut *running, Running::spawn()?);
        dead.bury();
        message::send(&running.socket, b"o", &descriptors).map_err(zygote("send the order"))
    }

    /// The process id, for those who look after it.
    pub fn pid(&self) -> u32 {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).process.id()
    }
}

impl Running {
    fn spawn() -> Result<Self, Error> {
        let exe = ProtectedExe::open().map_err(zygote("open our own binary"))?;
        let (ours, theirs) = message::pair().map_err(zygote("socketpair"))?;
        // Standard input is the conversation; the environment stays behind, since containers' monitors live long and it may hold secrets.
        let process = Command::new(exe.path())
            .arg0(ROLE)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(zygote("spawn"))?;
        Ok(Running { socket: ours, process })
    }

    fn bury(mut self) {
        drop(self.socket);
        let _ = self.process.wait();
    }
}

fn zygote(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Zygote { what, source }
}

/// One line. (The end of the socket would say as much, but an init inherits it and waits at its gate.)
async fn receive_answer(socket: UnixStream) -> Result<Option<Answer>, Error> {
    socket.set_nonblocking(true).map_err(zygote("set non-blocking"))?;
    let socket = tokio::net::UnixStream::from_std(socket).map_err(zygote("watch for the answer"))?;
    let mut line = Vec::new();
    BufReader::new(socket)
        .take(ANSWER_LIMIT)
        .read_until(b'\n', &mut line)
        .await
        .map_err(zygote("receive the answer"))?;
    if line.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).map_err(|error| Error::Protocol(error.to_string()))
}

/// Call first in main(): runs the zygote role, and never returns, if this process was started as one.
pub fn run_role_if_asked() {
    let mut args = std::env::args_os();
    if args.next().is_some_and(|name| name == ROLE) && args.next().is_none() {
        let served = std::panic::catch_unwind(serve_orders);
        process::exit_now(if served.is_ok() { 0 } else { 70 });
    }
}

/// Until the engine is gone.
fn serve_orders() {
    // A pipe of whoever started the engine would otherwise stay open for as long as a container lives.
    if process::close_inherited_from(3).is_err() {
        return;
    }
    let Ok(engine) = process::adopt_descriptor(0) else {
        return;
    };
    process::ignore_session_signals();
    process::ignore_children();
    let mut byte = [0];
    loop {
        let Ok((1, descriptors)) = message::receive(&engine, &mut byte) else {
            return;
        };
        let Ok([order, reply]) = <[OwnedFd; 2]>::try_from(descriptors) else {
            continue;
        };
        match process::fork() {
            Ok(Fork::Parent { .. }) => {}
            Ok(Fork::Child) => {
                // Standard input becomes /dev/null, so the engine sees the zygote's end and not ours.
                std::mem::forget(engine);
                let _ = std::panic::catch_unwind(|| monitor(order, reply));
                process::exit_now(0);
            }
            Err(error) => answer(
                &reply,
                &Answer::Failed(Failure { kind: FailureKind::Kernel, message: format!("fork: {error}") }),
            ),
        }
    }
}

fn answer(reply: &OwnedFd, answer: &Answer) {
    // An engine that is gone finds the monitor by its socket later.
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    let _ = message::send(reply, &line, &[]);
}

/// From the fork to the container's end.
fn monitor(order: OwnedFd, reply: OwnedFd) {
    match become_monitor()
        .and_then(|hierarchies| Ok((read_order(order)?, hierarchies)))
        .and_then(|(order, hierarchies)| Monitor::create(order, &hierarchies))
    {
        Ok(monitor) => {
            answer(&reply, &Answer::Created { init_pid: monitor.init_pid(), monitor_pid: std::process::id() as i32 });
            drop(reply);
            monitor.run();
        }
        Err(failure) => answer(&reply, &Answer::Failed(failure)),
    }
}

/// A session of its own, nothing of the engine's open, orphans of the container for children.
fn become_monitor() -> Result<Hierarchies, Failure> {
    let io = |what: &'static str| move |error: io::Error| Failure::kernel(what, &error);
    rustix::process::setsid().map_err(|error| Failure::kernel("setsid", &error.into()))?;
    let null = File::options().read(true).write(true).open("/dev/null").map_err(io("open /dev/null"))?;
    for target in 0..=2 {
        process::become_stdio(&null, target).map_err(io("dup2"))?;
    }
    let _ = rustix::thread::set_name(c"gantry-monitor");
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| Failure::kernel("become subreaper", &error.into()))?;
    let _ = std::env::set_current_dir(PathBuf::from("/"));
    Hierarchies::detect().map_err(|error| Failure { kind: FailureKind::Kernel, message: error.to_string() })
}

fn read_order(file: OwnedFd) -> Result<Order, Failure> {
    let mut bytes = Vec::new();
    File::from(file)
        .take(ORDER_LIMIT)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::kernel("read the order", &error))?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::invalid(format!("order: {error}")))
}
