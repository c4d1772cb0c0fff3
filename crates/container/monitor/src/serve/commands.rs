//! What clients ask for.

use kernel::process::{pidfd_signal, signal};
use runtime::{Failure, FailureKind, ProcessPlan, exec};
use rustix::termios::{Winsize, tcsetwinsize};

use super::{
    INIT, Monitor,
    connection::Role,
    process::{Process, Stdio},
};
use crate::{
    MonitorState,
    protocol::{Request, Response},
};

impl Monitor {
    /// After the events of one round, so that nothing is changed under the loop that dispatches them.
    pub(super) fn execute_commands(&mut self) {
        let asked: Vec<u32> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.request.is_some())
            .map(|(number, _)| *number)
            .collect();
        for number in asked {
            if let Some(request) = self.connections.get_mut(&number).and_then(|connection| connection.request.take()) {
                self.execute(number, request);
            }
        }
    }

    fn execute(&mut self, client: u32, request: Request) {
        match request {
            Request::State => {
                let state = MonitorState {
                    init_pid: self.container.pid,
                    monitor_pid: std::process::id() as i32,
                    started: self.container.is_started(),
                };
                self.answer(client, &Response::State(state));
            }
            Request::Start => {
                let outcome = self.container.start();
                self.start_failed = outcome.as_ref().err().map(Failure::exit_code);
                self.answer_outcome(client, outcome);
            }
            Request::Attach { process, stdin, stdout, stderr } => match self.find(process.as_deref()) {
                Some(number) => self.attach(client, number, stdin, (stdout, stderr)),
                None => self.answer(client, &Response::NoSuchExec),
            },
            Request::Exec { id, plan, stdin, unconfined } => match self.start_exec(id, &plan, stdin, unconfined) {
                Ok(number) => self.attach(client, number, stdin, (true, true)),
                Err(failure) => self.answer(client, &Response::Failed(failure)),
            },
            Request::Resize { process, columns, rows } => match self.find(process.as_deref()) {
                Some(number) => {
                    let outcome = self.resize(number, columns, rows);
                    self.answer_outcome(client, outcome);
                }
                None => self.answer(client, &Response::NoSuchExec),
            },
            Request::Kill { signal, all, process: None } => {
                let outcome = self.kill(signal, all);
                self.answer_outcome(client, outcome);
            }
            Request::Kill { signal, process: Some(name), .. } => match self.find(Some(&name)) {
                Some(number) => {
                    let outcome = self.kill_exec(number, signal);
                    self.answer_outcome(client, outcome);
                }
                None => self.answer(client, &Response::NoSuchExec),
            },
            Request::Wait { process } => self.wait(client, process.as_deref()),
            Request::ReopenLog => {
                let outcome = self.log.reopen().map_err(|error| super::failure("reopen log", &error));
                self.answer_outcome(client, outcome);
            }
        }
    }

    fn answer_outcome(&mut self, client: u32, outcome: Result<(), Failure>) {
        match outcome {
            Ok(()) => self.answer(client, &Response::Done),
            Err(failure) => self.answer(client, &Response::Failed(failure)),
        }
    }

    fn find(&self, name: Option<&str>) -> Option<u32> {
        match name {
            None => Some(INIT),
            Some(name) => self
                .processes
                .iter()
                .rev()
                .find(|(_, process)| process.name.as_deref() == Some(name))
                .map(|(number, _)| *number),
        }
    }

    fn attach(&mut self, client: u32, number: u32, stdin: bool, (stdout, stderr): (bool, bool)) {
        let Some(process) = self.processes.get(&number) else {
            return;
        };
        let stdin = stdin && process.takes_stdin();
        let (pid, over) = (process.pid, process.is_over());
        self.respond(client, &Response::Attached { pid, stdin });
        if let Some(connection) = self.connections.get_mut(&client) {
            connection.role = Role::Attached { process: number, stdin, stdout, stderr };
        }
        if over {
            self.leave(client);
        }
    }

    fn start_exec(&mut self, id: String, plan: &ProcessPlan, stdin: bool, unconfined: bool) -> Result<u32, Failure> {
        if self.ending.is_some() || !self.container.is_started() {
            return Err(Failure::invalid("cannot exec in a container that is not running"));
        }
        let (theirs, ours) =
            Stdio::for_process(plan.terminal, stdin).map_err(|error| super::failure("make stdio", &error))?;
        let target = exec::Target {
            init: &self.container.pidfd,
            cgroup: &self.container.cgroup,
            namespaces: self.namespaces,
            keep_descriptors: 0,
        };
        let filter = self.filter.as_ref().filter(|_| !unconfined);
        let started = exec::start(&target, plan, filter, theirs)?;
        let number = self.next_process;
        self.next_process = self.next_process.wrapping_add(1).max(1);
        let mut process = Process::new(Some(id), started.pid, ours);
        process.take_console(started.console).map_err(|error| super::failure("take the terminal", &error))?;
        self.processes.insert(number, process);
        self.watch_streams(number).map_err(|error| super::failure("epoll", &error))?;
        Ok(number)
    }

    fn resize(&mut self, number: u32, columns: u16, rows: u16) -> Result<(), Failure> {
        let console = self.processes.get(&number).and_then(|process| process.stdio.console.as_ref());
        let Some(console) = console else {
            return Err(Failure::invalid("there is no terminal"));
        };
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(console, size).map_err(|error| super::failure("resize", &error.into()))
    }

    fn kill(&mut self, number: i32, all: bool) -> Result<(), Failure> {
        if all {
            let members = self
                .container
                .cgroup
                .pids()
                .map_err(|error| Failure { kind: FailureKind::Kernel, message: error.to_string() })?;
            for pid in members {
                // Whoever has gone meanwhile needs no signal.
                let _ = signal(pid, number);
            }
            return Ok(());
        }
        pidfd_signal(&self.container.pidfd, number).map_err(|error| Failure::kernel("kill", &error))
    }

    /// One that has ended is not signalled: its number may be somebody else's by now.
    fn kill_exec(&self, number: u32, wanted: i32) -> Result<(), Failure> {
        match self.processes.get(&number).filter(|process| process.exit.is_none()) {
            Some(process) => signal(process.pid, wanted).map_err(|error| Failure::kernel("kill", &error)),
            None => Ok(()),
        }
    }

    fn wait(&mut self, client: u32, name: Option<&str>) {
        let Some(number) = self.find(name) else {
            return self.answer(client, &Response::NoSuchExec);
        };
        let exit = self.processes.get(&number).and_then(|process| process.exit.clone());
        // The container's end is told when it is on record.
        let told = number != INIT || matches!(self.ending, Some(super::ending::Ending::Telling { .. }));
        match exit.filter(|_| told) {
            Some(status) => self.answer(client, &Response::Exit(status)),
            None => {
                if let Some(connection) = self.connections.get_mut(&client) {
                    connection.role = Role::Waits { process: number };
                }
            }
        }
    }
}
