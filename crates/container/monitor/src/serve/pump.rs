//! Between a process's streams, its log and its attached clients.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use jiff::Timestamp;
use rustix::io::Errno;

use super::{
    INIT, Monitor,
    connection::Role,
    poll::{Interest, Source},
};
use crate::{StdStream, protocol::Kind};

enum Read {
    Data(usize),
    Nothing,
    End,
}

fn read(fd: &OwnedFd, buffer: &mut [u8]) -> Read {
    match rustix::io::read(fd, buffer) {
        Ok(0) => Read::End,
        Ok(count) => Read::Data(count),
        Err(Errno::AGAIN | Errno::INTR) => Read::Nothing,
        // A terminal says EIO when its last user has closed it.
        Err(_) => Read::End,
    }
}

impl Monitor {
    /// Starts watching the streams of a process.
    pub(super) fn watch_streams(&mut self, number: u32) -> io::Result<()> {
        let Some(process) = self.processes.get(&number) else {
            return Ok(());
        };
        for stream in [StdStream::Stdout, StdStream::Stderr] {
            if let Some(output) = process.stdio.output(stream) {
                self.poll.add(output.as_fd(), Source::Output(number, stream))?;
            }
        }
        match &process.stdio.console {
            Some(console) => self.poll.add(console.as_fd(), Source::Console(number)),
            None => Ok(()),
        }
    }

    /// Reads once; returns whether there may be more.
    pub(super) fn read_output(&mut self, number: u32, stream: StdStream) -> bool {
        let Some(output) = self.processes.get(&number).and_then(|process| process.stdio.output(stream)) else {
            return false;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = read(output, &mut buffer);
        if let Read::Data(count) = result {
            self.deliver(number, stream, &buffer[..count]);
        }
        self.buffer = buffer;
        match result {
            Read::Data(_) => true,
            Read::Nothing => false,
            Read::End => {
                let closed = self.processes.get_mut(&number).and_then(|process| process.stdio.close_output(stream));
                if let Some(closed) = closed {
                    self.poll.remove(closed.as_fd());
                }
                self.settle(number);
                false
            }
        }
    }

    pub(super) fn serve_console(&mut self, number: u32, readable: bool, writable: bool) {
        if writable {
            self.feed_stdin(number);
        }
        if readable {
            self.read_console(number);
        }
    }

    /// Reads once; returns whether there may be more.
    pub(super) fn read_console(&mut self, number: u32) -> bool {
        let Some(console) = self.processes.get(&number).and_then(|process| process.stdio.console.as_ref()) else {
            return false;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = read(console, &mut buffer);
        if let Read::Data(count) = result {
            self.deliver(number, StdStream::Stdout, &buffer[..count]);
        }
        self.buffer = buffer;
        match result {
            Read::Data(_) => true,
            Read::Nothing => false,
            Read::End => {
                let closed = self.processes.get_mut(&number).and_then(|process| process.stdio.console.take());
                if let Some(closed) = closed {
                    self.poll.remove(closed.as_fd());
                }
                self.settle(number);
                false
            }
        }
    }

    /// To the log first: a client's fate does not touch it.
    fn deliver(&mut self, number: u32, stream: StdStream, data: &[u8]) {
        if number == INIT {
            self.log.write(stream, data, Timestamp::now());
        }
        let kind = match stream {
            StdStream::Stdout => Kind::Stdout,
            StdStream::Stderr => Kind::Stderr,
        };
        for connection in self.listeners(number, stream) {
            self.send(connection, kind, data);
        }
        self.update_output_interest(number);
    }

    fn listeners(&self, number: u32, stream: StdStream) -> Vec<u32> {
        let wants = |role: &Role| match role {
            Role::Attached { process, stdout, stderr, .. } => {
                *process == number
                    && match stream {
                        StdStream::Stdout => *stdout,
                        StdStream::Stderr => *stderr,
                    }
            }
            Role::New | Role::Waits { .. } => false,
        };
        self.connections
            .iter()
            .filter(|(_, connection)| wants(&connection.role) && !connection.leaves)
            .map(|(number, _)| *number)
            .collect()
    }

    /// Output that no log keeps waits in the process for a client that is behind, so that none of it is lost.
    pub(super) fn update_output_interest(&mut self, number: u32) {
        if number == INIT && self.log.keeps() {
            return;
        }
        let Some(process) = self.processes.get(&number) else {
            return;
        };
        let held = self
            .connections
            .values()
            .any(|connection| connection.attached_to() == Some(number) && connection.backlog.is_long());
        for stream in [StdStream::Stdout, StdStream::Stderr] {
            if let Some(output) = process.stdio.output(stream) {
                self.poll.set(output.as_fd(), Source::Output(number, stream), Interest { read: !held, write: false });
            }
        }
        if let Some(console) = &process.stdio.console {
            let interest = Interest { read: !held, write: !process.stdin_queue.is_empty() };
            self.poll.set(console.as_fd(), Source::Console(number), interest);
        }
    }

    pub(super) fn queue_stdin(&mut self, number: u32, data: &[u8]) {
        if let Some(process) = self.processes.get_mut(&number)
            && process.takes_stdin()
        {
            process.stdin_queue.extend(data);
            self.feed_stdin(number);
        }
    }

    /// A client's input is at its end. For a terminal that means nothing: it can be attached to again.
    pub(super) fn end_stdin(&mut self, number: u32) {
        if let Some(process) = self.processes.get_mut(&number)
            && process.closes_stdin
            && process.stdio.console.is_none()
        {
            process.stdin_ends = true;
            self.feed_stdin(number);
        }
    }

    /// Writes what the process takes now.
    pub(super) fn feed_stdin(&mut self, number: u32) {
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        let Some(target) = process.stdio.stdin.as_ref().or(process.stdio.console.as_ref()) else {
            process.stdin_queue.clear();
            return;
        };
        let was_full = process.stdin_queue.len() >= super::process::STDIN_LIMIT;
        let broken = loop {
            if process.stdin_queue.is_empty() {
                break false;
            }
            match rustix::io::write(target, process.stdin_queue.as_slices().0) {
                Ok(count) => drop(process.stdin_queue.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break false,
                Err(_) => break true,
            }
        };
        if broken {
            process.stdin_queue.clear();
        }
        let waits = !process.stdin_queue.is_empty();
        let free_again = was_full && process.stdin_queue.len() < super::process::STDIN_LIMIT;
        if let Some(pipe) = &process.stdio.stdin {
            self.poll.set(pipe.as_fd(), Source::Input(number), Interest { read: false, write: waits });
        } else if let Some(console) = &process.stdio.console {
            self.poll.set(console.as_fd(), Source::Console(number), Interest { read: true, write: waits });
        }
        if (broken || process.stdin_ends && !waits) && process.stdio.stdin.is_some() {
            process.stdio.stdin = None;
        }
        if free_again {
            let senders: Vec<u32> =
                self.connections.iter().filter(|(_, c)| c.attached_to() == Some(number)).map(|(n, _)| *n).collect();
            senders.into_iter().for_each(|sender| self.update_interest(sender));
        }
    }
}
