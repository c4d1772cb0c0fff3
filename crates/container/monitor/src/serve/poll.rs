//! epoll, with what an event means instead of a number.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    time::Instant,
};

use rustix::{
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::Errno,
};

use crate::StdStream;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Listener,
    Children,
    /// A pipe from a process.
    Output(u32, StdStream),
    /// The pipe to a process's standard input.
    Input(u32),
    Console(u32),
    Connection(u32),
}

impl Source {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Source::Listener => (0, 0),
            Source::Children => (1, 0),
            Source::Output(process, StdStream::Stdout) => (2, process),
            Source::Output(process, StdStream::Stderr) => (3, process),
            Source::Input(process) => (4, process),
            Source::Console(process) => (5, process),
            Source::Connection(connection) => (6, connection),
        };
        kind << 32 | u64::from(number)
    }

    fn decode(data: u64) -> Self {
        let number = data as u32;
        match data >> 32 {
            0 => Source::Listener,
            1 => Source::Children,
            2 => Source::Output(number, StdStream::Stdout),
            3 => Source::Output(number, StdStream::Stderr),
            4 => Source::Input(number),
            5 => Source::Console(number),
            _ => Source::Connection(number),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Occurrence {
    pub(super) source: Source,
    pub(super) readable: bool,
    pub(super) writable: bool,
}

/// What is wanted of a descriptor. A hang-up is always told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interest {
    pub(super) read: bool,
    pub(super) write: bool,
}

impl Interest {
    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.read);
        flags.set(EventFlags::OUT, self.write);
        flags
    }
}

#[derive(Debug)]
pub(super) struct Poll {
    epoll: OwnedFd,
}

impl Poll {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Poll { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    pub(super) fn add(&self, fd: BorrowedFd<'_>, source: Source) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(source.encode()), EventFlags::IN)?)
    }

    /// Registers, changes or (wanting nothing) removes: a descriptor nobody wants anything of must not wake us with its hang-up for ever.
    pub(super) fn set(&self, fd: BorrowedFd<'_>, source: Source, interest: Interest) {
        let data = EventData::new_u64(source.encode());
        if !interest.read && !interest.write {
            let _ = epoll::delete(&self.epoll, fd);
            return;
        }
        if let Err(Errno::NOENT) = epoll::modify(&self.epoll, fd, data, interest.flags()) {
            let _ = epoll::add(&self.epoll, fd, data, interest.flags());
        }
    }

    /// Closing a descriptor is not enough while a fork holds a copy of it.
    pub(super) fn remove(&self, fd: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    pub(super) fn wait(&self, deadline: Option<Instant>) -> io::Result<Vec<Occurrence>> {
        let mut events: Vec<Event> = Vec::with_capacity(32);
        loop {
            let timeout = deadline.map(|deadline| {
                let left = deadline.saturating_duration_since(Instant::now());
                Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) }
            });
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => break,
            }
        }
        Ok(events
            .iter()
            .map(|event| {
                let flags = event.flags;
                Occurrence {
                    source: Source::decode(event.data.u64()),
                    readable: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP),
                    writable: flags.intersects(EventFlags::OUT | EventFlags::ERR),
                }
            })
            .collect())
    }
}
