//! Times and durations as Docker prints and reads them.

use jiff::Timestamp;

use crate::error::{ApiError, Result};

/// Go's zero time.
pub(crate) const ZERO: &str = "0001-01-01T00:00:00Z";

/// `7 minutes`, `About an hour`, `3 weeks`.
pub(crate) fn human(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        i64::MIN..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// Seconds since a moment.
pub(crate) fn since(then: Timestamp, now: Timestamp) -> i64 {
    now.as_second() - then.as_second()
}

/// `1700000000`, `1700000000.123456789`, RFC 3339, or a duration back from now (`10m`, `1h30m`).
pub(crate) fn parse(text: &str, now: Timestamp) -> Result<Timestamp> {
    let invalid = || ApiError::bad_request(format!("invalid value for time: \"{text}\""));
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if let Ok(seconds) = seconds.parse::<i64>() {
        let nanos =
            format!("{fraction:0<9}").get(..9).and_then(|digits| digits.parse::<i32>().ok()).ok_or_else(invalid)?;
        return Timestamp::new(seconds, nanos).map_err(|_| invalid());
    }
    if let Ok(date) = text.parse::<jiff::civil::DateTime>() {
        return date.to_zoned(jiff::tz::TimeZone::UTC).map(|zoned| zoned.timestamp()).map_err(|_| invalid());
    }
    let back = duration(text).ok_or_else(invalid)?;
    now.checked_sub(back).map_err(|_| invalid())
}

/// Go's notation of durations, whole numbers only.
fn duration(text: &str) -> Option<jiff::SignedDuration> {
    let (mut total, mut number) = (0i64, None::<i64>);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if let Some(digit) = c.to_digit(10) {
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit.into())?);
            continue;
        }
        let millis = match c {
            'h' => 3_600_000,
            'm' if rest.peek() == Some(&'s') => {
                rest.next();
                1
            }
            'm' => 60_000,
            's' => 1000,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(millis)?)?;
    }
    (number.is_none() && !text.is_empty()).then(|| jiff::SignedDuration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_dockers() {
        let table = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (125, "2 minutes"),
            (3_600, "About an hour"),
            (7_200, "2 hours"),
            (172_800, "2 days"),
            (1_209_600, "2 weeks"),
            (63_072_000, "2 years"),
        ];
        for (seconds, text) in table {
            assert_eq!(human(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn moments_are_read_in_every_notation() {
        let now = Timestamp::from_second(10_000).unwrap();
        let at = |s: &str| parse(s, now).map(|t| t.to_string());
        assert_eq!(at("100").unwrap(), "1970-01-01T00:01:40Z");
        assert_eq!(at("100.5").unwrap(), "1970-01-01T00:01:40.5Z");
        assert_eq!(at("2026-01-01T00:00:00Z").unwrap(), "2026-01-01T00:00:00Z");
        assert_eq!(at("2026-01-01T00:00:00").unwrap(), "2026-01-01T00:00:00Z");
        assert_eq!(at("1h30m").unwrap(), Timestamp::from_second(10_000 - 5_400).unwrap().to_string());
        for bad in ["", "x", "10", "h", "1x", "99999999999999999999"].into_iter().filter(|s| *s != "10") {
            assert!(at(bad).is_err(), "{bad}");
        }
    }
}
