//! `gantry status`: is it running, since when, what does it use.

use anyhow::Result;
use serde::Serialize;

use crate::instance::{Card, Lock};
use crate::paths::Paths;

#[derive(Serialize)]
struct Status<'a> {
    running: bool,
    /// The main process; absent when nothing runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    root: &'a std::path::Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<jiff::Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_server: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registry: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    /// Resident memory of the main process, shared pages counted in part.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
}

/// Prints the status; returns whether an instance runs (exit code 0 or 3).
pub(crate) fn run(paths: &Paths, json: bool) -> Result<bool> {
    let pid = Lock::held_by(paths)?;
    let card = Card::read(paths)?.filter(|card| Some(card.pid) == pid);
    let card = card.as_ref();
    let status = Status {
        running: pid.is_some(),
        pid,
        root: &paths.root,
        version: card.map(|card| card.version.as_str()),
        started: card.map(|card| card.started),
        ready_ms: card.map(|card| card.ready_ms),
        api_server: card.map(|card| card.api_server.as_str()),
        registry: card.map(|card| card.registry.as_str()),
        node: card.map(|card| card.node.as_str()),
        memory_bytes: pid.and_then(memory_bytes),
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print(&status);
    }
    Ok(status.running)
}

fn print(status: &Status<'_>) {
    let Some(pid) = status.pid else {
        println!("Gantry is not running on {}; start it with `gantry up`", status.root.display());
        return;
    };
    let row = |name: &str, value: String| println!("{name:<12}{value}");
    row("running", format!("yes, process {pid}"));
    row("root", status.root.display().to_string());
    let texts = [
        ("version", status.version),
        ("API server", status.api_server),
        ("registry", status.registry),
        ("node", status.node),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            row(name, value.to_owned());
        }
    }
    if let (Some(started), Some(ready_ms)) = (status.started, status.ready_ms) {
        row("started", format!("{started:.0}, ready after {ready_ms} ms"));
    }
    if let Some(bytes) = status.memory_bytes {
        row("memory", format!("{:.1} MB", bytes as f64 / 1e6));
    }
}

/// PSS from smaps_rollup; absent when the process is not ours to look at.
fn memory_bytes(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
