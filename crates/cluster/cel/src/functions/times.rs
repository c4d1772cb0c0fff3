//! Times and durations.

use super::{Found, no_overload};
use crate::ast::Op;
use crate::eval::failed;
use crate::value::Value;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// `1h30m`, `250ms`, … in nanoseconds; days are not among CEL's units.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    if text.contains('d') {
        return None;
    }
    kube_types::custom::go_duration(text).and_then(|nanos| i64::try_from(nanos).ok())
}

/// In seconds with a fraction, as protobuf's JSON has it.
pub(crate) fn show_duration(nanos: i64) -> String {
    let (seconds, rest) = (nanos / 1_000_000_000, (nanos % 1_000_000_000).unsigned_abs());
    if rest == 0 {
        return format!("{seconds}s");
    }
    let sign = if nanos < 0 && seconds == 0 { "-" } else { "" };
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

pub(super) fn of_timestamp<'v>(name: &str, at: Timestamp, args: &[Value<'v>]) -> Found<'v> {
    let zone = match args {
        [] => TimeZone::UTC,
        [Value::String(name)] => match zone(name) {
            Some(zone) => zone,
            None => return failed(format!("unknown time zone {name}")),
        },
        _ => return no_overload(),
    };
    let local = at.to_zoned(zone);
    Ok(Value::Int(match name {
        "getFullYear" => i64::from(local.year()),
        "getMonth" => i64::from(local.month()) - 1,
        "getDate" => i64::from(local.day()),
        "getDayOfMonth" => i64::from(local.day()) - 1,
        "getDayOfWeek" => i64::from(local.weekday().to_sunday_zero_offset()),
        "getDayOfYear" => i64::from(local.day_of_year()) - 1,
        "getHours" => i64::from(local.hour()),
        "getMinutes" => i64::from(local.minute()),
        "getSeconds" => i64::from(local.second()),
        "getMilliseconds" => i64::from(local.millisecond()),
        _ => return no_overload(),
    }))
}

/// A name of the time zone database, or `+02:00`.
fn zone(name: &str) -> Option<TimeZone> {
    if let Ok(zone) = TimeZone::get(name) {
        return Some(zone);
    }
    let (sign, rest) = match name.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, name.strip_prefix('+').unwrap_or(name)),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let seconds = hours.parse::<i32>().ok()?.checked_mul(3600)?.checked_add(minutes.parse::<i32>().ok()?.checked_mul(60)?)?;
    jiff::tz::Offset::from_seconds(sign * seconds).ok().map(TimeZone::fixed)
}

pub(super) fn of_duration<'v>(name: &str, nanos: i64) -> Found<'v> {
    let unit = match name {
        "getHours" => 3_600_000_000_000,
        "getMinutes" => 60_000_000_000,
        "getSeconds" => 1_000_000_000,
        "getMilliseconds" => 1_000_000,
        _ => return no_overload(),
    };
    Ok(Value::Int(nanos / unit))
}

pub(super) fn arithmetic<'v>(op: Op, a: &Value<'v>, b: &Value<'v>) -> Found<'v> {
    let moved = |at: &Timestamp, nanos: i64| match at.checked_add(SignedDuration::from_nanos(nanos)) {
        Ok(at) => Ok(Value::Timestamp(at)),
        Err(_) => failed("timestamp overflow"),
    };
    let lasting = |nanos: Option<i64>| nanos.map_or_else(|| failed("duration overflow"), |n| Ok(Value::Duration(n)));
    match (op, a, b) {
        (Op::Add, Value::Timestamp(at), Value::Duration(nanos)) | (Op::Add, Value::Duration(nanos), Value::Timestamp(at)) => {
            moved(at, *nanos)
        }
        (Op::Sub, Value::Timestamp(at), Value::Duration(nanos)) => moved(at, nanos.saturating_neg()),
        (Op::Sub, Value::Timestamp(a), Value::Timestamp(b)) => {
            lasting(i64::try_from(a.duration_since(*b).as_nanos()).ok())
        }
        (Op::Add, Value::Duration(a), Value::Duration(b)) => lasting(a.checked_add(*b)),
        (Op::Sub, Value::Duration(a), Value::Duration(b)) => lasting(a.checked_sub(*b)),
        _ => no_overload(),
    }
}
