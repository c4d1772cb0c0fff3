//! One client of the monitor: its frames in, its backlog out.

use std::{
    io::{self, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
};

use super::{
    Monitor,
    backlog::Backlog,
    poll::{Interest, Source},
    process::STDIN_LIMIT,
};
use crate::protocol::{self, HEADER, Kind, Request, Response};

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: UnixStream,
    received: Vec<u8>,
    pub(super) backlog: Backlog,
    pub(super) role: Role,
    /// Close when the backlog is empty.
    pub(super) leaves: bool,
    pub(super) request: Option<Request>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Has asked nothing yet.
    New,
    /// Waits for the process's end.
    Waits {
        process: u32,
    },
    Attached {
        process: u32,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
}

impl Connection {
    fn new(socket: UnixStream) -> Self {
        Connection {
            socket,
            received: Vec::new(),
            backlog: Backlog::default(),
            role: Role::New,
            leaves: false,
            request: None,
        }
    }

    pub(super) fn attached_to(&self) -> Option<u32> {
        match self.role {
            Role::Attached { process, .. } => Some(process),
            Role::New | Role::Waits { .. } => None,
        }
    }

    /// The next whole frame, if it is there. An error is a peer that speaks something else.
    fn next_frame(&mut self) -> io::Result<Option<(Kind, Vec<u8>)>> {
        let Some(header) = self.received.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let (kind, length) =
            protocol::parse_header(*header).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        if self.received.len() < HEADER + length {
            return Ok(None);
        }
        let payload = self.received[HEADER..HEADER + length].to_vec();
        self.received.drain(..HEADER + length);
        if self.received.is_empty() {
            self.received.shrink_to(4096);
        }
        Ok(Some((kind, payload)))
    }
}

impl Monitor {
    pub(super) fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            let number = self.next_connection;
            self.next_connection = self.next_connection.wrapping_add(1);
            if socket.set_nonblocking(true).is_err()
                || self.poll.add(socket.as_fd(), Source::Connection(number)).is_err()
            {
                continue;
            }
            self.connections.insert(number, Connection::new(socket));
        }
    }

    pub(super) fn serve_connection(&mut self, number: u32, readable: bool, writable: bool) {
        if writable {
            self.flush_connection(number);
        }
        if readable && self.receive(number).is_err() {
            self.drop_connection(number);
        }
    }

    fn receive(&mut self, number: u32) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(&number) else {
            return Ok(());
        };
        match connection.socket.read(&mut self.buffer) {
            // Our clients end their input with a frame; a closed connection is a client that has gone.
            Ok(0) => return Err(io::Error::from(io::ErrorKind::ConnectionReset)),
            Ok(count) => connection.received.extend_from_slice(&self.buffer[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        while let Some(connection) = self.connections.get_mut(&number)
            && let Some((kind, payload)) = connection.next_frame()?
        {
            self.frame(number, kind, payload)?;
        }
        self.update_interest(number);
        Ok(())
    }

    fn frame(&mut self, number: u32, kind: Kind, payload: Vec<u8>) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(&number) else {
            return Ok(());
        };
        match (kind, connection.role) {
            (Kind::Request, Role::New) if connection.request.is_none() => {
                connection.request = Some(serde_json::from_slice(&payload)?);
                Ok(())
            }
            (Kind::Stdin, Role::Attached { process, stdin: true, .. }) => {
                self.queue_stdin(process, &payload);
                Ok(())
            }
            (Kind::StdinEnd, Role::Attached { process, stdin: true, .. }) => {
                self.end_stdin(process);
                Ok(())
            }
            (Kind::Stdin | Kind::StdinEnd | Kind::Stdout | Kind::Stderr | Kind::Request | Kind::Response, _) => {
                Err(io::Error::from(io::ErrorKind::InvalidData))
            }
        }
    }

    /// Appends a frame to what the client gets.
    pub(super) fn send(&mut self, number: u32, kind: Kind, payload: &[u8]) {
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        let queued = connection
            .backlog
            .push(&protocol::header(kind, payload.len()), &self.dir)
            .and_then(|()| connection.backlog.push(payload, &self.dir));
        match queued {
            Ok(()) => self.flush_connection(number),
            Err(_) => self.drop_connection(number),
        }
    }

    /// The last word of a command.
    pub(super) fn answer(&mut self, number: u32, response: &Response) {
        self.respond(number, response);
        self.leave(number);
    }

    pub(super) fn respond(&mut self, number: u32, response: &Response) {
        let bytes = serde_json::to_vec(response).unwrap_or_default();
        self.send(number, Kind::Response, &bytes);
    }

    /// Closes the connection as soon as everything is sent.
    pub(super) fn leave(&mut self, number: u32) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.leaves = true;
            if connection.backlog.is_empty() {
                self.drop_connection(number);
            }
        }
    }

    fn flush_connection(&mut self, number: u32) {
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        let broken = loop {
            if connection.backlog.is_empty() {
                break false;
            }
            let Ok(front) = connection.backlog.front() else {
                break true;
            };
            match connection.socket.write(front) {
                Ok(count) => connection.backlog.consume(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
            }
        };
        if broken || (connection.leaves && connection.backlog.is_empty()) {
            self.drop_connection(number);
            return;
        }
        let process = connection.attached_to();
        self.update_interest(number);
        if let Some(process) = process {
            // A process that waited for this client may go on.
            self.update_output_interest(process);
        }
    }

    /// A client is not read while its process is behind with its input.
    pub(super) fn update_interest(&mut self, number: u32) {
        let Some(connection) = self.connections.get(&number) else {
            return;
        };
        let behind = connection
            .attached_to()
            .and_then(|process| self.processes.get(&process))
            .is_some_and(|process| process.stdin_queue.len() >= STDIN_LIMIT);
        let interest = Interest { read: !behind, write: !connection.backlog.is_empty() };
        self.poll.set(connection.socket.as_fd(), Source::Connection(number), interest);
    }

    pub(super) fn drop_connection(&mut self, number: u32) {
        let Some(connection) = self.connections.remove(&number) else {
            return;
        };
        self.poll.remove(connection.socket.as_fd());
        if let Role::Attached { process, stdin, .. } = connection.role {
            if stdin {
                self.end_stdin(process);
            }
            self.update_output_interest(process);
        }
    }
}
