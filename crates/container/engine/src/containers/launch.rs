//! One start, from record to running process: files, network, spec, monitor.
//!
//! Called by `start` under the life lock. On failure everything that this run made is taken away again.

use std::{path::PathBuf, sync::Arc};

use monitor::{Handle, Launch, LogFormat, LogPolicy, RootFs};

use crate::{
    Engine, blocking,
    error::{Error, Result},
    record::Record,
    table::Slot,
};

/// A container that runs.
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) handle: Handle,
}

impl Engine {
    pub(super) async fn launch(&self, slot: &Arc<Slot>) -> Result<Started> {
        let record = slot.record();
        let result = self.try_launch(slot, &record).await;
        if result.is_err() {
            self.clean_run(&record).await;
        }
        result
    }

    async fn try_launch(&self, slot: &Arc<Slot>, record: &Record) -> Result<Started> {
        let engine = self.clone();
        let for_root = record.clone();
        let root = blocking(move || engine.root_of(&for_root));
        let (root, places) = tokio::join!(root, self.set_up_network(record));
        let ((root, user), places) = (root?, places?);
        let files = self.write_files(slot, record, &places)?;
        let config = self.container_config(record, user, &places, files)?;
        let spec = bundle::spec(&config).map_err(|e| Error::Invalid(e.to_string()))?;
        let launch = Launch {
            id: record.id.clone(),
            dir: slot.dir.clone(),
            spec,
            rootfs: root,
            cgroup: record.cgroup.clone(),
            terminal: record.config.tty,
            open_stdin: record.config.open_stdin,
            stdin_once: record.config.stdin_once,
            log: log_policy(record, &slot.dir)?,
        };
        let created = self.0.parts.zygote.create(&launch).await.map_err(start_error)?;
        self.attach_pending(slot, &created.handle).await;
        if let Err(error) = created.handle.start().await {
            return Err(start_error(error));
        }
        Ok(Started { pid: created.init_pid, handle: created.handle })
    }

    /// Takes away what a run leaves: processes, cgroup, monitor files, network. Goes on after failures.
    pub(crate) async fn clean_run(&self, record: &Record) {
        let (dir, cgroup) = (self.container_dir(&record.id), record.cgroup.clone());
        let swept = tokio::task::spawn_blocking(move || monitor::delete(&dir, &cgroup));
        let network = self.tear_down_network(record);
        let (swept, ()) = tokio::join!(swept, network);
        if let Ok(Err(errors)) = swept {
            for error in errors {
                tracing::warn!(container = %record.id, %error, "leftover of a run");
            }
        }
    }
}

/// What the monitor said, as Docker words a start that failed.
pub(crate) fn start_error(error: monitor::Error) -> Error {
    match error {
        monitor::Error::Refused(failure) => {
            Error::StartFailed { exit_code: failure.exit_code(), message: failure.message }
        }
        other => Error::system("start container", other),
    }
}

/// The container's log as its configuration asks.
pub(crate) fn log_policy(record: &Record, dir: &std::path::Path) -> Result<LogPolicy> {
    if let Some(pod) = &record.pod {
        return Ok(match &pod.log_path {
            // The node agent rotates a pod's logs and asks for them to be opened anew.
            Some(path) => LogPolicy { format: LogFormat::Cri, path: path.clone(), max_size_bytes: None, max_files: 1 },
            None => LogPolicy::none(),
        });
    }
    let options = &record.host.log_config.config;
    if record.host.log_config.r#type == "none" {
        return Ok(LogPolicy::none());
    }
    let max_files = match options.get("max-file") {
        None => 1,
        Some(text) => text
            .parse::<u32>()
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| Error::Invalid(format!("max-file cannot be less than 1: {text}")))?,
    };
    let max_size_bytes = options.get("max-size").map(|text| parse_size(text)).transpose()?;
    Ok(LogPolicy { format: LogFormat::JsonFile, path: json_log(record, dir), max_size_bytes, max_files })
}

/// Docker's name for the log file.
pub(crate) fn json_log(record: &Record, dir: &std::path::Path) -> PathBuf {
    dir.join(format!("{}-json.log", record.id))
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

/// The overlay that a snapshot's mount describes.
pub(crate) fn overlay(mount: snapshots::Mount) -> Result<RootFs> {
    let read_only = || Error::System("the root filesystem is not writable".to_owned());
    let (upper, work) = mount.upper.zip(mount.work).ok_or_else(read_only)?;
    // An image without layers: the writable directory is all there is.
    if mount.lowers.is_empty() {
        return Ok(RootFs::Plain { path: upper });
    }
    Ok(RootFs::Overlay { lowers: mount.lowers, upper, work })
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn log_sizes_use_binary_units() {
        for (text, bytes) in [("10", 10), ("1k", 1024), ("10m", 10 << 20), ("1GB", 1 << 30), ("2kb", 2048)] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "m", "1t", "-1", "99999999999g"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
