//! Kubernetes' ways to write a moment or a span.
//!
//! Used wherever an object gets a time and wherever a table shows an age. Times are always written in UTC.

use jiff::Timestamp;

/// `2026-11-22T21:09:00Z`, metav1.Time; what is below a second is cut.
pub fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-11-22T21:09:00.000000Z`, metav1.MicroTime.
pub fn rfc3339_micro(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads RFC 3339 with any offset; `None` for anything else (the empty text too).
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// kubectl's age of something that happened at `since`; `<unknown>` when that is not known.
pub fn age(since: Option<Timestamp>, now: Timestamp) -> String {
    match since {
        Some(since) => human_duration(now.as_second() - since.as_second()),
        None => "<unknown>".into(),
    }
}

/// `45s`, `5m12s`, `3h7m`, `3d4h`, `2y10d`: two units where the first is small, one where it is large.
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        ..=-2 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two_units(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two_units(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two_units(hours / 24, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        _ if hours < 24 * 365 * 8 => two_units(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

fn two_units(large: i64, large_unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 { format!("{large}{large_unit}") } else { format!("{large}{large_unit}{small}{small_unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_written_as_kubectl_writes_them() {
        const H: i64 = 3600;
        const D: i64 = 24 * H;
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (312, "5m12s"),
            (600, "10m"),
            (10_799, "179m"),
            (3 * H, "3h"),
            (3 * H + 420, "3h7m"),
            (8 * H, "8h"),
            (47 * H, "47h"),
            (2 * D, "2d"),
            (3 * D + 4 * H, "3d4h"),
            (8 * D, "8d"),
            (729 * D, "729d"),
            (730 * D, "2y"),
            (740 * D, "2y10d"),
            (3650 * D, "10y"),
        ] {
            assert_eq!(human_duration(seconds), expected, "{seconds}");
        }
        assert_eq!(age(None, Timestamp::UNIX_EPOCH), "<unknown>");
    }

    #[test]
    fn times_are_cut_to_their_resolution_and_read_back() {
        let at: Timestamp = "2026-11-22T21:09:00.1234567Z".parse().unwrap();
        assert_eq!(rfc3339(at), "2026-11-22T21:09:00Z");
        assert_eq!(rfc3339_micro(at), "2026-11-22T21:09:00.123456Z");
        assert_eq!(parse("2026-11-22T23:09:00+02:00"), parse("2026-11-22T21:09:00Z"));
        assert_eq!(parse(""), None);
        assert_eq!(parse("yesterday"), None);
    }
}
