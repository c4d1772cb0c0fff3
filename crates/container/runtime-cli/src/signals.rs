//! Signals by name and number.

use crate::error::Error;

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
/// The first and last real-time signals that a C library leaves to programs.
const REAL_TIME: (i32, i32) = (34, 64);

/// `9`, `KILL`, `SIGKILL`, `RTMIN+3`; any case.
pub(crate) fn parse(text: &str) -> Result<i32, Error> {
    let unknown = || Error::Usage(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=REAL_TIME.1).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest[1..].parse::<i32>().ok() };
    let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => offset(rest).map(|offset| REAL_TIME.0 + offset),
        (None, Some(rest)) => offset(rest).map(|offset| REAL_TIME.1 - offset),
        (None, None) => NAMES.iter().position(|known| *known == name).map(|index| index as i32 + 1),
    };
    real_time.filter(|number| *number <= REAL_TIME.1 && *number > 0).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [("9", 9), ("KILL", 9), ("sigterm", 15), ("SYS", 31), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)]
        {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for bad in ["0", "65", "NOSUCH", "", "-1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
