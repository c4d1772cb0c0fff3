//! Cron schedules: five fields, names, steps, descriptors, as CronJobs know them; and the next time that one names.
//!
//! Used by the CronJob decision. Invariants: times are whole minutes of the zone's wall clock; a time that a change to
//! summer time skips does not come, one that comes twice is taken both times. No well-kept library reads this dialect
//! (`?`, `@every`, either-day rule) over the clock library in use here, so it is our own.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, Zoned};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Fields(Fields),
    Every(SignedDuration),
}

/// One bit for each value that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// A day has to match both day fields when one of them is `*`, else either.
    any_day: bool,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Schedule {
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(every) = text.strip_prefix("@every ") {
            let pause = duration(every).ok_or_else(|| format!("failed to parse duration {text}"))?;
            return Ok(Schedule(Kind::Every(pause)));
        }
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ if text.starts_with('@') => return Err(format!("unrecognized descriptor: {text}")),
            _ => text,
        };
        let parts: Vec<&str> = fields.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts[..] else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
        };
        let star = |field: &str| field.starts_with('*') || field.starts_with('?');
        Ok(Schedule(Kind::Fields(Fields {
            minutes: field(minutes, 0, 59, &[])?,
            hours: field(hours, 0, 23, &[])?,
            days: field(days, 1, 31, &[])?,
            months: field(months, 1, 12, &MONTHS)?,
            weekdays: field(weekdays, 0, 6, &WEEKDAYS)?,
            any_day: star(days) || star(weekdays),
        })))
    }

    /// The first time after `after`; None if there is none within five years (31 February).
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.0 {
            Kind::Every(pause) => Timestamp::from_second((after + *pause).as_second()).ok(),
            Kind::Fields(fields) => fields.next(after, zone),
        }
    }
}

/// Go's way to write durations, as far as schedules use it: `1h30m`.
fn duration(text: &str) -> Option<SignedDuration> {
    let (mut total, mut number) = (0i64, String::new());
    let mut letters = text.trim().chars().peekable();
    while let Some(letter) = letters.next() {
        if letter.is_ascii_digit() {
            number.push(letter);
            continue;
        }
        let unit = match letter {
            'h' => 3600,
            'm' if letters.peek() != Some(&'s') => 60,
            's' => 1,
            _ => return None,
        };
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(unit)?)?;
        number.clear();
    }
    (number.is_empty() && total > 0).then(|| SignedDuration::from_secs(total))
}

fn field(text: &str, least: u32, most: u32, names: &[&str]) -> Result<u64, String> {
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let value = |word: &str| -> Result<u32, String> {
            if let Some(at) = names.iter().position(|name| word.eq_ignore_ascii_case(name)) {
                return Ok(u32::try_from(at).unwrap_or(0) + least);
            }
            word.parse().map_err(|_| format!("failed to parse int from {word}: invalid syntax"))
        };
        let (from, mut to) = match range {
            "*" | "?" => (least, most),
            _ => match range.split_once('-') {
                Some((from, to)) => (value(from)?, value(to)?),
                None => (value(range)?, value(range)?),
            },
        };
        let step = match step {
            None => 1,
            Some(step) => {
                if !range.contains('-') {
                    to = most;
                }
                step.parse().map_err(|_| format!("failed to parse int from {step}: invalid syntax"))?
            }
        };
        if from < least {
            return Err(format!("beginning of range ({from}) below minimum ({least}): {part}"));
        }
        if to > most {
            return Err(format!("end of range ({to}) above maximum ({most}): {part}"));
        }
        if from > to {
            return Err(format!("beginning of range ({from}) beyond end of range ({to}): {part}"));
        }
        if step == 0 {
            return Err(format!("step of range should be a positive number: {part}"));
        }
        (from..=to).step_by(step as usize).for_each(|n| bits |= 1 << n);
    }
    Ok(bits)
}

impl Fields {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let has = |bits: u64, value: i8| bits >> value & 1 == 1;
        let whole = Timestamp::from_second(after.as_second() - after.as_second().rem_euclid(60) + 60).ok()?;
        let mut at = whole.to_zoned(zone.clone());
        let last = at.year() + 5;
        while at.year() <= last {
            if !has(self.months, at.month()) {
                at = start_of(&at.first_of_month().ok()?.checked_add(Span::new().months(1)).ok()?)?;
            } else if !self.day(&at) {
                at = start_of(&at.tomorrow().ok()?)?;
            } else if !has(self.hours, at.hour()) {
                let left = 60 - i64::from(at.minute());
                at = at.checked_add(SignedDuration::from_mins(left)).ok()?;
            } else if !has(self.minutes, at.minute()) {
                at = at.checked_add(SignedDuration::from_mins(1)).ok()?;
            } else {
                return Some(at.timestamp());
            }
        }
        None
    }

    fn day(&self, at: &Zoned) -> bool {
        let day = self.days >> at.day() & 1 == 1;
        let weekday = self.weekdays >> at.weekday().to_sunday_zero_offset() & 1 == 1;
        if self.any_day { day && weekday } else { day || weekday }
    }
}

fn start_of(day: &Zoned) -> Option<Zoned> {
    day.start_of_day().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str, zone: &TimeZone) -> String {
        let after = after.parse().unwrap();
        Schedule::parse(schedule).unwrap().next(after, zone).map_or("never".into(), |t| t.to_string())
    }

    #[test]
    fn schedules_name_the_times_that_cron_names() {
        let utc = TimeZone::UTC;
        for (schedule, after, expected) in [
            ("* * * * *", "2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"),
            ("*/15 * * * *", "2026-01-01T00:46:00Z", "2026-01-01T01:00:00Z"),
            ("5/20 * * * *", "2026-01-01T00:25:00Z", "2026-01-01T00:45:00Z"),
            ("0 9 * * mon-FRI", "2026-01-02T10:00:00Z", "2026-01-05T09:00:00Z"),
            ("0 0 13 * 5", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 31 2 *", "2026-01-01T00:00:00Z", "never"),
            ("30 1 1 feb ?", "2026-01-01T00:00:00Z", "2026-02-01T01:30:00Z"),
            ("@daily", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("@every 1h30m", "2026-01-01T00:00:10Z", "2026-01-01T01:30:10Z"),
        ] {
            assert_eq!(next(schedule, after, &utc), expected, "{schedule}");
        }
    }

    #[test]
    fn wall_clocks_that_jump_skip_a_time_or_have_it_twice() {
        // A zone as in Central Europe, by rule: no time zone files are read.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        assert_eq!(next("30 2 * * *", "2026-03-28T12:00:00Z", &zone), "2026-03-30T00:30:00Z");
        assert_eq!(next("0 8 * * *", "2026-03-28T12:00:00Z", &zone), "2026-03-29T06:00:00Z");
        assert_eq!(next("30 2 * * *", "2026-10-25T00:30:00Z", &zone), "2026-10-25T01:30:00Z");
    }

    #[test]
    fn bad_schedules_say_what_is_wrong() {
        for (text, expected) in [
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: invalid syntax"),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
        ] {
            assert_eq!(Schedule::parse(text).unwrap_err(), expected);
        }
    }
}
