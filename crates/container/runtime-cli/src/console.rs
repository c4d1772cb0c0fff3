//! The other end of a container's terminal: sent to whoever asked for it, or joined to our own.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    os::unix::net::UnixStream,
    path::Path,
};

use kernel::message;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::error::Error;

/// The combinations that make sense, in runc's words.
pub(crate) fn check(terminal: bool, detached: bool, socket: bool) -> Result<(), Error> {
    let refuse = |words: &str| Err(Error::Usage(words.to_owned()));
    match (terminal, detached, socket) {
        (true, true, false) => refuse("cannot allocate tty if runc will detach without setting console socket"),
        (false, _, true) | (_, false, true) => {
            refuse("cannot use console socket if runc will not detach or allocate tty")
        }
        _sound => Ok(()),
    }
}

/// Our own terminal in raw mode, as long as this lives.
pub(crate) struct Console {
    master: OwnedFd,
    before: Option<Termios>,
}

impl Console {
    /// One message with the descriptor, and a name for it, as engines expect.
    pub(crate) fn send(master: &OwnedFd, socket: &Path) -> Result<(), Error> {
        let failed = |error: io::Error| Error::io("send the terminal to", socket, error);
        let stream = UnixStream::connect(socket).map_err(failed)?;
        message::send(&stream, b"/dev/ptmx", &[master.as_fd()]).map_err(failed)
    }

    pub(crate) fn new(master: OwnedFd) -> Result<Self, Error> {
        let failed = |error: rustix::io::Errno| Error::io("set up", "/dev/stdin", error);
        let stdin = rustix::stdio::stdin();
        let before = if isatty(stdin) { Some(tcgetattr(stdin).map_err(failed)?) } else { None };
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(stdin, OptionalActions::Now, &raw).map_err(failed)?;
        }
        let console = Console { master, before };
        console.resize();
        Ok(console)
    }

    pub(crate) fn master(&self) -> &OwnedFd {
        &self.master
    }

    /// The size of our own terminal, when there is one.
    pub(crate) fn resize(&self) {
        if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    /// Moves what there is; false at the end.
    pub(crate) fn pump(from: impl AsFd, to: impl AsFd) -> bool {
        let mut buffer = [0; 16 << 10];
        match rustix::io::read(from, &mut buffer) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => true,
            Ok(0) | Err(_) => false,
            Ok(length) => write_all(to.as_fd(), &buffer[..length]),
        }
    }
}

fn write_all(to: std::os::fd::BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}
