//! A container or an exec in the foreground: our signals are its signals, our terminal its terminal, its exit code ours.

use std::os::fd::OwnedFd;

use kernel::process;
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, WaitOptions, WaitStatus, wait, waitpid},
};

use crate::{console::Console, error::Error};

/// All signals, as events.
pub(crate) struct Signals {
    events: OwnedFd,
}

impl Signals {
    /// From here on until [`Signals::follow`] every signal waits.
    pub(crate) fn block() -> Result<Self, Error> {
        let events = process::signal_events().map_err(|error| Error::io("watch", "signals", error))?;
        Ok(Signals { events })
    }

    /// Until process `pid`, a child of ours, has ended. Its exit code; 128 and the number for a signal.
    pub(crate) fn follow(&self, pid: i32, master: Option<OwnedFd>) -> Result<u8, Error> {
        let console = master.map(Console::new).transpose()?;
        let (mut input, mut output) = (console.is_some(), console.is_some());
        loop {
            let stdin = rustix::stdio::stdin();
            let mut waiting = vec![PollFd::new(&self.events, PollFlags::IN)];
            // What is at its end is not asked any more: it would answer at once, each time.
            let output_at = console.as_ref().filter(|_| output).map(|console| {
                waiting.push(PollFd::new(console.master(), PollFlags::IN));
                waiting.len() - 1
            });
            let input_at = input.then(|| {
                waiting.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
                waiting.len() - 1
            });
            match poll(&mut waiting, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::io("poll", "signals", error)),
            }
            let ready: Vec<bool> = waiting.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(waiting);
            let is_ready = |at: Option<usize>| at.is_some_and(|at| ready[at]);
            if let Some(console) = &console {
                output = output && (!is_ready(output_at) || Console::pump(console.master(), rustix::stdio::stdout()));
                input = input && (!is_ready(input_at) || Console::pump(stdin, console.master()));
            }
            if ready[0]
                && let Some(code) = self.handle(pid, console.as_ref())?
            {
                if let Some(console) = &console {
                    // What it said last; the terminal's end is an error once nobody holds the other side.
                    while output && has_more(console) && Console::pump(console.master(), rustix::stdio::stdout()) {}
                }
                return Ok(code);
            }
        }
    }

    fn handle(&self, pid: i32, console: Option<&Console>) -> Result<Option<u8>, Error> {
        match process::next_signal(&self.events).map_err(|error| Error::io("read", "signals", error))? {
            number::CHILD => Ok(ended(pid)),
            number::WINDOW if console.is_some() => {
                if let Some(console) = console {
                    console.resize();
                }
                Ok(None)
            }
            // The Go runtime's own, and a pipe of ours.
            number::URGENT | number::PIPE => Ok(None),
            other => {
                // Whoever has gone meanwhile needs no signal.
                let _ = process::signal(pid, other);
                Ok(None)
            }
        }
    }
}

/// Numbers of the signals that have a meaning of their own here.
mod number {
    pub(super) const PIPE: i32 = 13;
    pub(super) const CHILD: i32 = 17;
    pub(super) const URGENT: i32 = 23;
    pub(super) const WINDOW: i32 = 28;
}

fn has_more(console: &Console) -> bool {
    let mut waiting = [PollFd::new(console.master(), PollFlags::IN)];
    let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut waiting, Some(&at_once)).is_ok_and(|count| count > 0) && waiting[0].revents().contains(PollFlags::IN)
}

/// Takes in all children that have ended; the exit code of `pid` when it is among them.
fn ended(pid: i32) -> Option<u8> {
    let mut code = None;
    while let Ok(Some((child, status))) = wait(WaitOptions::NOHANG) {
        if child.as_raw_nonzero().get() == pid {
            code = exit_code(status);
        }
    }
    code
}

fn exit_code(status: WaitStatus) -> Option<u8> {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))?;
    Some((code & 0xff) as u8)
}

/// Waits for a child that was killed.
pub(crate) fn reap(pid: i32) -> Option<u8> {
    waitpid(Pid::from_raw(pid), WaitOptions::empty()).ok().flatten().and_then(|(_, status)| exit_code(status))
}
