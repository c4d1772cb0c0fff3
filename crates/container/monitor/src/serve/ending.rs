//! The ends of processes, and of the container.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::{WaitOptions, wait};

use super::{INIT, Monitor, REMEMBERED_EXECS, connection::Role};
use crate::{ExitStatus, StdStream, exit, protocol::Response};

/// How long the streams of a dead container may stay open in other hands.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long clients may take to fetch what is theirs.
const FAREWELL: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) enum Ending {
    /// The init is dead, its streams are not at their end.
    Draining { deadline: Instant },
    /// Recorded and told; clients are still being served.
    Telling { deadline: Instant },
}

impl Ending {
    pub(super) fn deadline(&self) -> Instant {
        match self {
            Ending::Draining { deadline } | Ending::Telling { deadline } => *deadline,
        }
    }
}

impl Monitor {
    /// Takes in every child that has ended: init, execs, and orphans that a shared pid namespace hands to us.
    pub(super) fn reap(&mut self) {
        let mut scratch = [0u8; 128];
        while rustix::io::read(&self.children, &mut scratch).is_ok_and(|count| count == scratch.len()) {}
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            let (code, signal) = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => (code, None),
                (None, Some(signal)) => (128 + signal, Some(signal)),
                // Stopped or continued: not an end.
                (None, None) => continue,
            };
            let number = self
                .processes
                .iter()
                .find(|(_, process)| process.pid == pid && process.exit.is_none())
                .map(|(number, _)| *number);
            if let Some(number) = number {
                self.process_ended(
                    number,
                    ExitStatus { code, signal, oom_killed: false, finished_at: Timestamp::now() },
                );
            }
        }
    }

    fn process_ended(&mut self, number: u32, mut status: ExitStatus) {
        if number == INIT {
            status.code = self.start_failed.unwrap_or(status.code);
            status.oom_killed = self.container.cgroup.oom_kills() > 0;
            if !self.own_pids {
                // The kernel ends the rest only with a pid namespace of the container's own.
                let _ = self.container.cgroup.signal_all(9, LAST_WORDS);
            }
            self.ending = Some(Ending::Draining { deadline: Instant::now() + LAST_WORDS });
        }
        if let Some(process) = self.processes.get_mut(&number) {
            process.exit = Some(status);
            process.stdio.stdin = None;
        }
        // What it said last is in the pipes already.
        while self.read_output(number, StdStream::Stdout) {}
        while self.read_output(number, StdStream::Stderr) {}
        while self.read_console(number) {}
        self.settle(number);
    }

    /// An exec that is over is told to those who wait. (An exec may leave children that hold its streams; its code is known at once.)
    pub(super) fn settle(&mut self, number: u32) {
        if number == INIT {
            return;
        }
        let Some(process) = self.processes.get(&number) else {
            return;
        };
        let Some(status) = process.exit.clone() else {
            return;
        };
        let over = process.is_over();
        self.tell(number, &status, over);
        self.forget_old_execs();
    }

    /// The exit code to waiters; the end of the stream to attached clients, when there is no more output.
    fn tell(&mut self, number: u32, status: &ExitStatus, streams_too: bool) {
        let concerned: Vec<(u32, bool)> = self
            .connections
            .iter()
            .filter(|(_, connection)| !connection.leaves)
            .filter_map(|(client, connection)| match connection.role {
                Role::Waits { process } if process == number => Some((*client, false)),
                Role::Attached { process, .. } if process == number && streams_too => Some((*client, true)),
                Role::Waits { .. } | Role::Attached { .. } | Role::New => None,
            })
            .collect();
        for (client, attached) in concerned {
            if attached {
                self.leave(client);
            } else {
                self.answer(client, &Response::Exit(status.clone()));
            }
        }
    }

    fn forget_old_execs(&mut self) {
        let over: Vec<u32> = self
            .processes
            .iter()
            .filter(|(number, process)| **number != INIT && process.is_over())
            .map(|(number, _)| *number)
            .collect();
        for number in over.iter().take(over.len().saturating_sub(REMEMBERED_EXECS)) {
            self.processes.remove(number);
        }
    }

    /// Takes the steps of the container's end that are due; true when the monitor may leave.
    pub(super) fn ended(&mut self) -> bool {
        let now = Instant::now();
        match &self.ending {
            None => false,
            Some(Ending::Draining { deadline }) => {
                let silent = self.processes.get(&INIT).is_none_or(|init| init.stdio.is_silent());
                if !silent && now < *deadline {
                    return false;
                }
                self.record();
                self.ending = Some(Ending::Telling { deadline: now + FAREWELL });
                self.connections.is_empty()
            }
            Some(Ending::Telling { deadline }) => self.connections.is_empty() || now >= *deadline,
        }
    }

    /// The log is complete before the exit is on record, and the exit is on record before anyone is told.
    fn record(&mut self) {
        self.log.finish(Timestamp::now());
        let Some(status) = self.processes.get(&INIT).and_then(|init| init.exit.clone()) else {
            return;
        };
        // With a disk that is full the clients below still learn it.
        let _ = exit::record(&self.dir, &status);
        // Nobody finds the monitor from here on; who does not find it reads the record.
        let _ = std::fs::remove_file(self.dir.join(crate::protocol::SOCKET_NAME));
        self.accept();
        self.execute_commands();
        let execs: Vec<u32> = self.processes.keys().copied().filter(|number| *number != INIT).collect();
        for number in execs {
            let status =
                self.processes.get(&number).and_then(|process| process.exit.clone()).unwrap_or_else(|| status.clone());
            self.tell(number, &status, true);
        }
        self.tell(INIT, &status, true);
        let idle: Vec<u32> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.role == Role::New)
            .map(|(number, _)| *number)
            .collect();
        idle.into_iter().for_each(|number| self.drop_connection(number));
    }
}
