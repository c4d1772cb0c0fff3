//! A process of the container that the monitor started, and the ends of its streams.

use std::{collections::VecDeque, fs::File, io, os::fd::OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::{ExitStatus, StdStream};

/// Input that waits for the process to read; beyond this the sender waits.
pub(super) const STDIN_LIMIT: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Process {
    /// The exec's id; `None` is the container itself.
    pub(super) name: Option<String>,
    pub(super) pid: i32,
    pub(super) stdio: Stdio,
    pub(super) stdin_queue: VecDeque<u8>,
    /// Close stdin once the queue is empty.
    pub(super) stdin_ends: bool,
    /// Whether the end of an attached client's input is the end of the process's.
    pub(super) closes_stdin: bool,
    pub(super) exit: Option<ExitStatus>,
}

/// The monitor's ends.
#[derive(Debug, Default)]
pub(super) struct Stdio {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    /// With a terminal: instead of the three.
    pub(super) console: Option<OwnedFd>,
}

impl Stdio {
    /// The process's ends (none with a terminal: it makes its own) and ours.
    pub(super) fn for_process(terminal: bool, open_stdin: bool) -> io::Result<(Option<[OwnedFd; 3]>, Self)> {
        if terminal {
            return Ok((None, Stdio::default()));
        }
        let (stdin, to_stdin) = if open_stdin {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&write, true)?;
            (read, Some(write))
        } else {
            (OwnedFd::from(File::open("/dev/null")?), None)
        };
        let (from_stdout, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (from_stderr, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        for ours in [&from_stdout, &from_stderr] {
            rustix::io::ioctl_fionbio(ours, true)?;
        }
        Ok((
            Some([stdin, stdout, stderr]),
            Stdio { stdin: to_stdin, stdout: Some(from_stdout), stderr: Some(from_stderr), console: None },
        ))
    }

    pub(super) fn output(&self, stream: StdStream) -> Option<&OwnedFd> {
        match stream {
            StdStream::Stdout => self.stdout.as_ref(),
            StdStream::Stderr => self.stderr.as_ref(),
        }
    }

    pub(super) fn close_output(&mut self, stream: StdStream) -> Option<OwnedFd> {
        match stream {
            StdStream::Stdout => self.stdout.take(),
            StdStream::Stderr => self.stderr.take(),
        }
    }

    /// No more output can come.
    pub(super) fn is_silent(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none() && self.console.is_none()
    }
}

impl Process {
    pub(super) fn new(name: Option<String>, pid: i32, stdio: Stdio) -> Self {
        Process { name, pid, stdio, stdin_queue: VecDeque::new(), stdin_ends: false, closes_stdin: true, exit: None }
    }

    pub(super) fn take_console(&mut self, console: Option<OwnedFd>) -> io::Result<()> {
        if let Some(console) = &console {
            rustix::io::ioctl_fionbio(console, true)?;
        }
        self.stdio.console = console;
        Ok(())
    }

    pub(super) fn takes_stdin(&self) -> bool {
        !self.stdin_ends && (self.stdio.stdin.is_some() || self.stdio.console.is_some())
    }

    /// Ended, and all that it said is known.
    pub(super) fn is_over(&self) -> bool {
        self.exit.is_some() && self.stdio.is_silent()
    }
}
