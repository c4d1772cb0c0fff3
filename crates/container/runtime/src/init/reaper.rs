//! The first process of a container that was asked to have one of its own (`docker run --init`).
//!
//! Called by `init` as the last step before the program is executed. It forks: the child becomes the program, this process
//! hands every signal on to it, reaps what it leaves behind and ends as it ends. It runs with the program's identity, limits
//! and seccomp filter, holds no descriptor but the standard ones and stays undumpable: nobody in the container can look into it.

use std::io;

use kernel::process::{self, Fork};
use rustix::process::{Pid, WaitOptions, setpgid, wait};

/// What `ps` shows, and scripts look for.
const NAME: &std::ffi::CStr = c"docker-init";
const SIGCHLD: u32 = 17;
/// `signalfd_siginfo`.
const SIGNAL_BYTES: usize = 128;

/// Returns in the program's own process; this one stays behind until the program has ended.
pub(super) fn become_first() -> io::Result<()> {
    // Before the fork: what is sent meanwhile waits.
    process::block_signals();
    match process::fork()? {
        Fork::Child => {
            take_foreground();
            Ok(())
        }
        Fork::Parent { pid } => process::exit_now(look_after(pid)),
    }
}

/// A process group of its own, in the foreground of the terminal if there is one: keys typed there reach it once.
fn take_foreground() {
    let _ = setpgid(None, None);
    if rustix::termios::isatty(rustix::stdio::stdin()) {
        let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid());
    }
}

/// Until the program ends: its exit code, as a shell counts.
fn look_after(program: i32) -> i32 {
    // The conversation with the monitor is the child's now; its end tells that the program runs.
    let _ = process::close_inherited_from(3);
    let _ = rustix::thread::set_name(NAME);
    if let Some(pid) = Pid::from_raw(program) {
        let _ = setpgid(Some(pid), Some(pid));
    }
    let Ok(signals) = process::signal_events() else { return 255 };
    loop {
        if let Some(code) = reap(program) {
            return code;
        }
        let mut event = [0u8; SIGNAL_BYTES];
        if rustix::io::read(&signals, &mut event).is_ok_and(|count| count == SIGNAL_BYTES) {
            let number = u32::from_ne_bytes([event[0], event[1], event[2], event[3]]);
            if number != SIGCHLD {
                let _ = process::signal(program, number as i32);
            }
        }
    }
}

/// Takes in every child that has ended; the program's own end is the answer.
fn reap(program: i32) -> Option<i32> {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid.as_raw_nonzero().get() != program {
            continue;
        }
        if let Some(code) = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal)) {
            return Some(code);
        }
    }
    None
}
