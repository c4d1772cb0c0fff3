//! `update`: other limits for a container that exists.

use std::{fs, io::Read, path::PathBuf};

use kernel::cgroup::Resources;
use oci::runtime_spec::LinuxResources;

use crate::{
    arguments::{Arguments, Flag, value},
    error::Error,
    global::Global,
    record::{Place, Status},
};

pub(crate) const FLAGS: &[Flag] = &[
    value("resources", "r"),
    value("blkio-weight", ""),
    value("cpu-period", ""),
    value("cpu-quota", ""),
    value("cpu-share", ""),
    value("cpuset-cpus", ""),
    value("cpuset-mems", ""),
    value("memory", ""),
    value("memory-reservation", ""),
    value("memory-swap", ""),
    value("pids-limit", ""),
    value("kernel-memory", ""),
    value("kernel-memory-tcp", ""),
];

pub(crate) fn run(global: &Global, arguments: &Arguments) -> Result<u8, Error> {
    let place = Place::of(global, arguments.only_id()?)?;
    let record = place.load()?;
    if record.status(&place)? == Status::Stopped {
        return Err(Error::NotRunning);
    }
    let mut wanted = match arguments.value("resources") {
        Some(source) => from_json(source)?,
        None => from_flags(arguments)?,
    };
    // Which devices may be used is no limit: it stays as it was made.
    wanted.devices.clear();
    record.cgroup()?.limit(&wanted)?;
    Ok(0)
}

fn from_json(source: &str) -> Result<Resources, Error> {
    let path = PathBuf::from(if source == "-" { "standard input" } else { source });
    let mut text = Vec::new();
    let read = if source == "-" {
        std::io::stdin().read_to_end(&mut text).map(drop)
    } else {
        fs::read(source).map(|content| text = content)
    };
    read.map_err(|error| Error::io("read", &path, error))?;
    let listed: LinuxResources = serde_json::from_slice(&text).map_err(|source| Error::Json { path, source })?;
    Ok(runtime::resources(&listed)?)
}

fn from_flags(arguments: &Arguments) -> Result<Resources, Error> {
    let text = |name| arguments.value(name).filter(|text| !text.is_empty()).map(str::to_owned);
    Ok(Resources {
        memory_bytes: bytes(arguments, "memory")?,
        memory_swap_bytes: bytes(arguments, "memory-swap")?,
        memory_reservation_bytes: bytes(arguments, "memory-reservation")?,
        cpu_shares: arguments.number("cpu-share")?,
        cpu_quota_us: arguments.number("cpu-quota")?,
        cpu_period_us: arguments.number("cpu-period")?,
        cpuset_cpus: text("cpuset-cpus"),
        cpuset_mems: text("cpuset-mems"),
        pids: arguments.number("pids-limit")?,
        blkio_weight: arguments.number("blkio-weight")?,
        ..Resources::default()
    })
}

/// A number with a unit of 1024 (`512m`); -1 is unlimited.
fn bytes(arguments: &Arguments, name: &str) -> Result<Option<i64>, Error> {
    let Some(text) = arguments.value(name) else {
        return Ok(None);
    };
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches('b');
    let (number, shift) = match number.chars().last() {
        Some('k') => (&number[..number.len() - 1], 10),
        Some('m') => (&number[..number.len() - 1], 20),
        Some('g') => (&number[..number.len() - 1], 30),
        Some('t') => (&number[..number.len() - 1], 40),
        Some(_) | None => (number, 0),
    };
    number
        .parse::<i64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .map(Some)
        .ok_or_else(|| Error::Usage(format!("invalid value {text:?} for {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_what_is_not_named_stays() {
        let words: Vec<String> =
            ["--memory", "64m", "--pids-limit", "5", "--memory-swap=-1", "x"].map(str::to_owned).into();
        let wanted = from_flags(&Arguments::parse(&words, FLAGS).unwrap()).unwrap();
        assert_eq!((wanted.memory_bytes, wanted.memory_swap_bytes, wanted.pids), (Some(64 << 20), Some(-1), Some(5)));
        assert_eq!(wanted.cpu_shares, None);
        let bad: Vec<String> = ["--memory", "much", "x"].map(str::to_owned).into();
        assert!(from_flags(&Arguments::parse(&bad, FLAGS).unwrap()).is_err());
    }
}
