//! Stop signals that nobody can hear.
//!
//! The kernel discards a signal to the first process of a PID namespace unless that process handles it (pid_namespaces(7)):
//! a program that relies on the default action of TERM never learns that it was asked to end, and a stop would wait out
//! its whole grace period for nothing. Where such a process is also the only one of its container there is nobody left who
//! could use the time, so the stop goes on to KILL at once (docs/decisions/0006).

/// Whether the process can take note of the signal at all, by its `/proc/<pid>/status`: it handles it, waits for it
/// (blocked: sigwait, signalfd), or ignores it on purpose. Unreadable counts as yes: the grace period is the safe side.
pub(super) fn hears(status: &str, signal: i32) -> bool {
    let Some(bit) =
        u32::try_from(signal).ok().filter(|signal| (1..=64).contains(signal)).map(|signal| 1u64 << (signal - 1))
    else {
        return true;
    };
    let masks = ["SigCgt:", "SigBlk:", "SigIgn:"];
    let mask = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
    };
    masks.iter().any(|name| mask(name).is_none_or(|mask| mask & bit != 0))
}

#[cfg(test)]
mod tests {
    use super::hears;

    fn status(caught: u64, blocked: u64, ignored: u64) -> String {
        format!("Name:\tpython\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n")
    }

    #[test]
    fn a_signal_with_the_default_action_is_not_heard_by_a_first_process() {
        let term = 1 << 14;
        assert!(!hears(&status(0, 0, 0), 15));
        assert!(!hears(&status(1 << 1, 0, 0), 15), "another signal is handled");
        assert!(hears(&status(term, 0, 0), 15), "handled");
        assert!(hears(&status(0, term, 0), 15), "waited for");
        assert!(hears(&status(0, 0, term), 15), "ignored on purpose");
        assert!(hears("", 15), "not known");
    }
}
