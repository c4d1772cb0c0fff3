//! `events`: statistics as lines of JSON, in runc's shape, once or at an interval.

use std::{thread, time::Duration};

use kernel::cgroup::{BlockIo, Stats};
use serde_json::{Value, json};

use crate::{
    arguments::{Arguments, Flag, switch, value},
    error::Error,
    global::Global,
    record::Place,
};

pub(crate) const FLAGS: &[Flag] = &[value("interval", ""), switch("stats", "")];

pub(crate) fn run(global: &Global, arguments: &Arguments) -> Result<u8, Error> {
    let place = Place::of(global, arguments.only_id()?)?;
    let record = place.load()?;
    let interval = interval(arguments.value("interval").unwrap_or("5s"))?;
    if !record.is_alive() {
        return Err(Error::WrongStatus(format!("container with id {} is not running", record.id)));
    }
    let cgroup = record.cgroup()?;
    let mut kills = cgroup.oom_kills();
    loop {
        let stats = cgroup.stats();
        if stats.oom_kills > kills {
            kills = stats.oom_kills;
            println!("{}", json!({"type": "oom", "id": record.id}));
        }
        println!("{}", json!({"type": "stats", "id": record.id, "data": data(&stats)}));
        if arguments.has("stats") {
            return Ok(0);
        }
        thread::sleep(interval);
        if !record.is_alive() {
            return Ok(0);
        }
    }
}

/// Go's notation, as far as anybody uses it here.
fn interval(text: &str) -> Result<Duration, Error> {
    let invalid = || Error::Usage(format!("invalid interval {text:?}"));
    let parsed = match (text.strip_suffix("ms"), text.strip_suffix('s'), text.strip_suffix('m')) {
        (Some(number), _, _) => number.parse().map(Duration::from_millis),
        (None, Some(number), _) => number.parse().map(Duration::from_secs),
        (None, None, Some(number)) => {
            number.parse().map(|minutes: u64| Duration::from_secs(minutes.saturating_mul(60)))
        }
        (None, None, None) => return Err(invalid()),
    };
    parsed.ok().filter(|interval| !interval.is_zero()).ok_or_else(invalid)
}

fn data(stats: &Stats) -> Value {
    let raw: Value = stats
        .memory_stat
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let mut pids = json!({"current": stats.pids_current});
    if let Some(limit) = stats.pids_limit {
        pids["limit"] = json!(limit);
    }
    json!({
        "cpu": {
            "usage": {
                "total": stats.cpu_total_ns,
                "percpu": stats.cpu_per_core_ns,
                "kernel": stats.cpu_system_ns,
                "user": stats.cpu_user_ns,
            },
            "throttling": {
                "periods": stats.periods,
                "throttledPeriods": stats.throttled_periods,
                "throttledTime": stats.throttled_ns,
            },
        },
        "memory": {
            "cache": stats.memory("cache").or_else(|| stats.memory("file")).unwrap_or(0),
            "usage": {
                "limit": stats.memory_limit_bytes,
                "usage": stats.memory_usage_bytes,
                "max": stats.memory_max_usage_bytes,
                "failcnt": stats.memory_fail_count,
            },
            "raw": raw,
        },
        "pids": pids,
        "blkio": {
            "ioServiceBytesRecursive": entries(&stats.block_io, |io| (io.read_bytes, io.write_bytes)),
            "ioServicedRecursive": entries(&stats.block_io, |io| (io.read_operations, io.write_operations)),
        },
    })
}

fn entries(devices: &[BlockIo], pick: impl Fn(&BlockIo) -> (u64, u64)) -> Vec<Value> {
    let both = |io: &BlockIo| {
        let (read, write) = pick(io);
        [("Read", read), ("Write", write)]
            .map(|(op, value)| json!({"major": io.major, "minor": io.minor, "op": op, "value": value}))
    };
    devices.iter().flat_map(both).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_gos_and_never_nothing() {
        assert_eq!(interval("100ms").unwrap(), Duration::from_millis(100));
        assert_eq!(interval("2m").unwrap(), Duration::from_secs(120));
        for bad in ["0s", "5", "s", "-1s"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
