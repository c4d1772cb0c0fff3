//! Which log a container has: driver and options to the monitor's policy (pure).
//!
//! `create` refuses what makes no sense, `launch` hands the policy to the monitor. A log is bounded unless its user says
//! otherwise (`max-size=-1`): three files of 10 MiB for json-file, five of 20 MiB for local.

use std::path::{Path, PathBuf};

use monitor::{LogFormat, LogPolicy};

use crate::{
    config::LogConfig,
    error::{Error, Result},
    record::Record,
};

const JSON_SIZE: u64 = 10 << 20;
const JSON_FILES: u32 = 3;
const LOCAL_SIZE: u64 = 20 << 20;
const LOCAL_FILES: u32 = 5;

const JSON_OPTIONS: &[&str] = &[
    "max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size",
];
const LOCAL_OPTIONS: &[&str] = &["max-size", "max-file", "compress", "mode", "max-buffer-size"];

/// Refuses unknown drivers and options, in Docker's words.
pub(super) fn validate(config: &LogConfig) -> Result<()> {
    let known = match config.r#type.as_str() {
        "" | "json-file" => JSON_OPTIONS,
        "local" => LOCAL_OPTIONS,
        "none" => return Ok(()),
        other => return Err(Error::Invalid(format!("logger: no log driver named '{other}' is registered"))),
    };
    let driver = if config.r#type.is_empty() { "json-file" } else { &config.r#type };
    if let Some(unknown) = config.config.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(Error::Invalid(format!("unknown log opt '{unknown}' for {driver} log driver")));
    }
    if let Some(mode) = config.config.get("mode").filter(|mode| !matches!(mode.as_str(), "" | "blocking" | "non-blocking")) {
        return Err(Error::Invalid(format!("logger: logging mode not supported: {mode}")));
    }
    limits(config).map(drop)
}

/// Bytes and files.
fn limits(config: &LogConfig) -> Result<(Option<u64>, u32)> {
    let (default_size, default_files) =
        if config.r#type == "local" { (LOCAL_SIZE, LOCAL_FILES) } else { (JSON_SIZE, JSON_FILES) };
    let asked_size = config.config.get("max-size").filter(|text| !text.is_empty());
    let max_size = match asked_size.map(String::as_str) {
        None => Some(default_size),
        Some("-1") => None,
        Some(text) => Some(parse_size(text)?),
    };
    let max_files = match config.config.get("max-file").filter(|text| !text.is_empty()) {
        // Docker: a size alone keeps one file.
        None if asked_size.is_some() && config.r#type != "local" => 1,
        None => default_files,
        Some(text) => match text.parse::<i64>() {
            Ok(n) if n >= 1 => u32::try_from(n).unwrap_or(u32::MAX),
            Ok(_) => return Err(Error::Invalid("max-file cannot be less than 1".to_owned())),
            Err(_) => return Err(Error::Invalid(format!("invalid value for max-file: {text}"))),
        },
    };
    Ok((max_size, max_files))
}

/// The container's log as its configuration asks.
pub(super) fn policy(record: &Record, dir: &Path) -> Result<LogPolicy> {
    if let Some(pod) = &record.pod {
        return Ok(match &pod.log_path {
            // The node agent rotates a pod's logs and asks for them to be opened anew.
            Some(path) => LogPolicy { format: LogFormat::Cri, path: path.clone(), max_size_bytes: None, max_files: 1 },
            None => LogPolicy::none(),
        });
    }
    let Some(path) = log_file(record, dir) else { return Ok(LogPolicy::none()) };
    let (max_size_bytes, max_files) = limits(&record.host.log_config)?;
    Ok(LogPolicy { format: LogFormat::JsonFile, path, max_size_bytes, max_files })
}

/// Docker's names for the log files of a container that is not a pod's; none for the driver `none`.
pub(super) fn log_file(record: &Record, dir: &Path) -> Option<PathBuf> {
    match record.host.log_config.r#type.as_str() {
        "none" => None,
        "local" => Some(dir.join("local-logs").join("container.log")),
        _ => Some(dir.join(format!("{}-json.log", record.id))),
    }
}

/// `10m`, `1g`, `512k`, plain bytes; binary units as Docker's.
fn parse_size(text: &str) -> Result<u64> {
    let invalid = || Error::Invalid(format!("invalid size: '{text}'"));
    let lower = text.to_ascii_lowercase();
    let body = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, shift) = match body.as_bytes().last() {
        Some(b'k') => (&body[..body.len() - 1], 10),
        Some(b'm') => (&body[..body.len() - 1], 20),
        Some(b'g') => (&body[..body.len() - 1], 30),
        Some(_) | None => (body, 0),
    };
    digits.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift)).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(driver: &str, options: &[(&str, &str)]) -> LogConfig {
        let config = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        LogConfig { r#type: driver.to_owned(), config }
    }

    #[test]
    fn log_sizes_use_binary_units() {
        for (text, bytes) in [("10", 10), ("1k", 1024), ("10m", 10 << 20), ("1GB", 1 << 30), ("2kb", 2048)] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "m", "1t", "-1", "99999999999g"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_log_is_bounded_unless_its_user_says_otherwise() {
        let table = [
            (config("json-file", &[]), (Some(10 << 20), 3)),
            (config("json-file", &[("max-size", "1m")]), (Some(1 << 20), 1)),
            (config("json-file", &[("max-size", "-1")]), (None, 1)),
            (config("json-file", &[("max-file", "7")]), (Some(10 << 20), 7)),
            (config("local", &[]), (Some(20 << 20), 5)),
            (config("local", &[("max-size", "1m")]), (Some(1 << 20), 5)),
        ];
        for (config, expected) in table {
            assert_eq!(limits(&config).unwrap(), expected, "{config:?}");
        }
        for bad in [
            config("fluentd", &[]),
            config("json-file", &[("colour", "red")]),
            config("local", &[("labels", "x")]),
            config("json-file", &[("max-file", "0")]),
            config("json-file", &[("mode", "odd")]),
        ] {
            assert!(validate(&bad).is_err(), "{bad:?}");
        }
    }
}
