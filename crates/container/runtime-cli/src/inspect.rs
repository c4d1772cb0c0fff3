//! `state`, `list` and `ps`.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde::Serialize;

use crate::{
    arguments::{Arguments, Flag, switch, value},
    error::Error,
    global::Global,
    record::{Place, Record, Status},
};

pub(crate) const LIST_FLAGS: &[Flag] = &[value("format", "f"), switch("quiet", "q")];
pub(crate) const PS_FLAGS: &[Flag] = &[value("format", "f")];

/// As runc prints it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State {
    oci_version: String,
    id: String,
    /// 0 when it has ended.
    pid: i32,
    status: &'static str,
    bundle: PathBuf,
    rootfs: PathBuf,
    created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    owner: &'static str,
}

impl State {
    fn new(record: Record, status: Status) -> Self {
        State {
            oci_version: record.oci_version,
            pid: if status == Status::Stopped { 0 } else { record.pid },
            id: record.id,
            status: status.name(),
            bundle: record.bundle,
            rootfs: record.rootfs,
            created: record.created,
            annotations: record.annotations,
            owner: "root",
        }
    }
}

fn json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string_pretty(value).map_err(|source| Error::Json { path: "standard output".into(), source })
}

pub(crate) fn state(global: &Global, arguments: &Arguments) -> Result<u8, Error> {
    let place = Place::of(global, arguments.only_id()?)?;
    let record = place.load()?;
    let status = record.status(&place)?;
    println!("{}", json(&State::new(record, status))?);
    Ok(0)
}

/// One that goes away meanwhile is left out, and so is what is no record of ours.
fn all(global: &Global) -> Vec<State> {
    let mut states: Vec<State> = fs::read_dir(&global.root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Place::of(global, entry.file_name().to_str()?).ok())
        .filter_map(|place| {
            let record = place.load().ok()?;
            let status = record.status(&place).ok()?;
            Some(State::new(record, status))
        })
        .collect();
    states.sort_by(|a, b| a.id.cmp(&b.id));
    states
}

pub(crate) fn list(global: &Global, arguments: &Arguments) -> Result<u8, Error> {
    let states = all(global);
    if arguments.has("quiet") {
        states.iter().for_each(|state| println!("{}", state.id));
        return Ok(0);
    }
    match arguments.value("format").unwrap_or("table") {
        "json" => println!("{}", json(&states)?),
        "table" => print!("{}", table(&states)),
        _other => return Err(Error::Usage("invalid format option".to_owned())),
    }
    Ok(0)
}

fn table(states: &[State]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let row = |state: &State| {
        let (pid, bundle) = (state.pid.to_string(), state.bundle.display().to_string());
        [state.id.clone(), pid, state.status.to_owned(), bundle, state.created.clone(), state.owner.to_owned()]
    };
    let rows: Vec<_> = [head].into_iter().chain(states.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0).max(9) + 3;
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let padded: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

pub(crate) fn ps(global: &Global, arguments: &Arguments) -> Result<u8, Error> {
    let place = Place::of(global, arguments.id()?)?;
    let record = place.load()?;
    let pids = record.cgroup()?.pids()?;
    match arguments.value("format").unwrap_or("table") {
        "json" => {
            println!("{}", serde_json::to_string(&pids).map_err(|source| Error::Json { path: "pids".into(), source })?)
        }
        "table" => print!("{}", processes(&pids, &arguments.rest[1..])?),
        _other => return Err(Error::Usage("invalid format option".to_owned())),
    }
    Ok(0)
}

/// The lines of the machine's `ps` that are about `pids`.
fn processes(pids: &[i32], options: &[String]) -> Result<String, Error> {
    let options = if options.is_empty() { vec!["-ef".to_owned()] } else { options.to_vec() };
    let output = Command::new("ps")
        .args(&options)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::io("run", "ps", error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head
        .split_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| Error::Usage("couldn't find PID field in ps output".to_owned()))?;
    let ours = lines.filter(|line| {
        line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok()).is_some_and(|pid: i32| pids.contains(&pid))
    });
    Ok([head].into_iter().chain(ours).map(|line| format!("{line}\n")).collect())
}
