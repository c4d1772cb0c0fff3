//! Processes that join a running container, and the streams of attach and exec.
//!
//! An exec is known to the engine in memory only: it ends with its container, and after a restart of the
//! engine a client has no connection to it any more (the process itself goes on under its monitor).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use tokio::{io::AsyncWrite, sync::watch};

use crate::{
    Engine,
    containers::{attach_streams, exec_process, resolve_user_of_running, start_error},
    error::{Error, Result},
    ids,
    record::Phase,
    table::Slot,
};

/// Which output a chunk is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Standard output (everything, with a terminal).
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of output.
#[derive(Debug, Clone)]
pub struct Frame {
    /// From where.
    pub channel: Channel,
    /// The bytes.
    pub data: Bytes,
}

/// The two directions of an attached process. Dropping `stdin` closes it (half-close).
pub struct Streams {
    /// Present when input was asked for and the process has one.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Ends when the process's output ends.
    pub output: BoxStream<'static, Frame>,
}

/// What to attach.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttachOptions {
    /// Input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// A process to run in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecConfig {
    /// Program and arguments.
    pub cmd: Vec<String>,
    /// Added to the container's environment.
    pub env: Vec<String>,
    /// The container's user when empty.
    pub user: String,
    /// The container's directory when empty.
    pub working_dir: String,
    /// With a terminal.
    pub tty: bool,
    /// With all capabilities.
    pub privileged: bool,
    /// Input wanted.
    pub attach_stdin: bool,
    /// Standard output wanted.
    pub attach_stdout: bool,
    /// Standard error wanted.
    pub attach_stderr: bool,
    /// Initial terminal size: columns, rows.
    pub console_size: Option<(u16, u16)>,
    /// Docker's detach keys, as text; kept for inspect.
    pub detach_keys: String,
}

/// State of an exec.
#[derive(Debug, Clone)]
pub struct Exec {
    /// 64 hex digits.
    pub id: String,
    /// Container's ID.
    pub container: String,
    /// As asked.
    pub config: ExecConfig,
    /// Runs now.
    pub running: bool,
    /// Set once it ended.
    pub exit_code: Option<i32>,
    /// Process ID on the host, 0 before the start.
    pub pid: i32,
}

/// An exec's slot: its state, and the end that waits listen to.
struct Entry {
    state: Mutex<Exec>,
    handle: Mutex<Option<Arc<monitor::ExecHandle>>>,
    ended: watch::Sender<Option<i32>>,
}

impl Entry {
    fn state(&self) -> MutexGuard<'_, Exec> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All execs of running containers.
#[derive(Default)]
pub(crate) struct Execs(Mutex<BTreeMap<String, Arc<Entry>>>);

impl Execs {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &str) -> Result<Arc<Entry>> {
        self.all().get(id).cloned().ok_or_else(|| Error::NoSuchExec(id.to_owned()))
    }
}

/// Finished execs that a container remembers for inspect; older ones are forgotten.
const REMEMBERED: usize = 64;

impl Engine {
    /// Prepares an exec; nothing runs yet.
    pub async fn exec_create(&self, container: &str, config: ExecConfig) -> Result<String> {
        let slot = self.find(container)?;
        if config.cmd.is_empty() {
            return Err(Error::Invalid("No exec command specified".to_owned()));
        }
        match slot.phase() {
            Phase::Running(running) if running.paused => {
                return Err(Error::Conflict(format!(
                    "container {container} is paused, unpause the container before exec"
                )));
            }
            Phase::Running(_) => {}
            _ => return Err(Error::NotRunning(slot.id.clone())),
        }
        let id = ids::random_id();
        self.container_event(
            &slot.record(),
            &format!("exec_create: {}", config.cmd.join(" ")),
            &[("execID", id.clone())],
        );
        let exec = Exec { id: id.clone(), container: slot.id.clone(), config, running: false, exit_code: None, pid: 0 };
        let entry = Entry { state: Mutex::new(exec), handle: Mutex::default(), ended: watch::Sender::new(None) };
        self.0.execs.all().insert(id.clone(), Arc::new(entry));
        self.remember(&slot, &id);
        Ok(id)
    }

    fn remember(&self, slot: &Slot, id: &str) {
        let mut state = slot.state();
        state.execs.push(id.to_owned());
        if state.execs.len() <= REMEMBERED {
            return;
        }
        let mut all = self.0.execs.all();
        let finished =
            state.execs.iter().position(|id| all.get(id).is_none_or(|entry| entry.state().exit_code.is_some()));
        if let Some(index) = finished {
            all.remove(&state.execs.remove(index));
        }
    }

    /// Starts a prepared exec and attaches to it.
    pub async fn exec_start(&self, exec: &str) -> Result<Streams> {
        let entry = self.0.execs.find(exec)?;
        let (container, config) = {
            let mut state = entry.state();
            if state.running || state.exit_code.is_some() {
                return Err(Error::Conflict(format!("exec command {exec} is already running")));
            }
            state.running = true;
            (state.container.clone(), state.config.clone())
        };
        let started = self.spawn_exec(exec, &container, &config).await;
        let mut handle = match started {
            Ok(handle) => handle,
            Err(error) => {
                let code = if let Error::ExecFailed { exit_code, .. } = &error { *exit_code } else { 126 };
                end(&entry, code);
                return Err(error);
            }
        };
        entry.state().pid = handle.pid;
        let streams = handle.stdio.take().map(attach_streams);
        let handle = Arc::new(handle);
        *entry.handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&handle));
        let slot = self.find(&container)?;
        self.container_event(
            &slot.record(),
            &format!("exec_start: {}", config.cmd.join(" ")),
            &[("execID", exec.to_owned())],
        );
        let (engine, id) = (self.clone(), exec.to_owned());
        let mut ended = entry.ended.subscribe();
        tokio::spawn(async move {
            let code = handle.wait().await.map_or(137, |status| status.code);
            end(&entry, code);
            engine.container_event(&slot.record(), "exec_die", &[("execID", id), ("exitCode", code.to_string())]);
        });
        let mut streams =
            streams.unwrap_or_else(|| Streams { stdin: None, output: futures_util::stream::empty().boxed() });
        // Clients ask for the exit code as soon as the output ends: it must be known by then.
        let known = async move { drop(ended.wait_for(Option::is_some).await.map(drop)) };
        let known = futures_util::stream::once(known).filter_map(|()| std::future::ready(None));
        streams.output = streams.output.chain(known).boxed();
        Ok(streams)
    }

    async fn spawn_exec(&self, id: &str, container: &str, config: &ExecConfig) -> Result<monitor::ExecHandle> {
        let slot = self.find(container)?;
        let handle = slot.handle()?;
        let Phase::Running(running) = slot.phase() else { return Err(Error::NotRunning(slot.id.clone())) };
        let record = slot.record();
        let wanted = if config.user.is_empty() { &record.config.user } else { &config.user };
        let user = resolve_user_of_running(running.pid, wanted, record.host.group_add.as_deref().unwrap_or_default())?;
        let process = exec_process(&record, config, user)?;
        let spec =
            monitor::ExecSpec { id: id.to_owned(), process, stdin: config.attach_stdin, unconfined: config.privileged };
        handle.exec(&spec).await.map_err(|error| match start_error(error) {
            Error::StartFailed { message, exit_code } => Error::ExecFailed { message, exit_code },
            other => other,
        })
    }

    /// State of an exec.
    pub fn exec_inspect(&self, exec: &str) -> Result<Exec> {
        Ok(self.0.execs.find(exec)?.state().clone())
    }

    /// Waits for a started exec's end: its exit code.
    pub async fn exec_wait(&self, exec: &str) -> Result<i32> {
        let entry = self.0.execs.find(exec)?;
        let mut ended = entry.ended.subscribe();
        let code = ended.wait_for(Option::is_some).await.map_err(|e| Error::system("wait for exec", e))?;
        Ok(code.unwrap_or_default())
    }

    /// Resizes an exec's terminal.
    pub async fn exec_resize(&self, exec: &str, cols: u16, rows: u16) -> Result<()> {
        let entry = self.0.execs.find(exec)?;
        let handle = entry.handle.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let handle = handle.ok_or_else(|| Error::Invalid(format!("exec {exec} is not running")))?;
        handle.resize(cols, rows).await.map_err(|e| Error::system("resize", e))
    }

    /// Kills an exec's process (a probe that took too long). What has ended is not touched, nor is who got its number since.
    pub fn exec_kill(&self, exec: &str) -> Result<()> {
        use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
        let state = self.0.execs.find(exec)?.state().clone();
        let Some(pid) = Pid::from_raw(state.pid).filter(|_| state.running) else { return Ok(()) };
        let cgroup = self.find(&state.container)?.record().cgroup;
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
        // Read after the process is pinned: it is the exec's only if it is in the exec's container.
        let place = std::fs::read_to_string(format!("/proc/{}/cgroup", state.pid)).unwrap_or_default();
        if !place.lines().any(|line| line.ends_with(cgroup.trim_start_matches('/'))) {
            return Ok(());
        }
        match pidfd_send_signal(&process, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(Error::system("kill exec", error)),
        }
    }

    /// Runs a command to its end: exit code and at most `limit` bytes of its output (health checks). One that takes too long is
    /// killed: `None`.
    pub async fn exec_run_within(
        &self,
        container: &str,
        config: ExecConfig,
        limit: usize,
        time: std::time::Duration,
    ) -> Result<Option<(i32, Vec<u8>)>> {
        let id = self.exec_create(container, config).await?;
        let mut output = Vec::new();
        let run = async {
            let mut streams = self.exec_start(&id).await?;
            drop(streams.stdin.take());
            while let Some(frame) = streams.output.next().await {
                let room = limit.saturating_sub(output.len()).min(frame.data.len());
                output.extend_from_slice(&frame.data[..room]);
            }
            self.exec_wait(&id).await
        };
        match tokio::time::timeout(time, run).await {
            Ok(code) => Ok(Some((code?, output))),
            Err(_) => {
                self.exec_kill(&id)?;
                Ok(None)
            }
        }
    }

    /// Those of the IDs that run now.
    pub(crate) fn running_execs(&self, ids: &[String]) -> Vec<String> {
        let all = self.0.execs.all();
        ids.iter().filter(|id| all.get(*id).is_some_and(|entry| entry.state().running)).cloned().collect()
    }

    /// Execs end with their container.
    pub(crate) fn forget_execs(&self, slot: &Slot) {
        let ids = std::mem::take(&mut slot.state().execs);
        let mut all = self.0.execs.all();
        for id in ids {
            if let Some(entry) = all.remove(&id) {
                end(&entry, 137);
            }
        }
    }
}

/// Notes an exec's end, once.
fn end(entry: &Entry, code: i32) {
    let mut state = entry.state();
    state.running = false;
    let code = *state.exit_code.get_or_insert(code);
    entry.ended.send_replace(Some(code));
}
