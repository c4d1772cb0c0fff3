//! `start`, `kill`, `delete`, `pause` and `resume`.

use std::time::Duration;

use kernel::process;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::{
    arguments::{Arguments, Flag, switch},
    error::Error,
    global::Global,
    record::{Place, Record, Status},
    signals,
};

pub(crate) const KILL_FLAGS: &[Flag] = &[switch("all", "a")];
pub(crate) const DELETE_FLAGS: &[Flag] = &[switch("force", "f")];

const KILL: i32 = 9;
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn start(global: &Global, arguments: &Arguments) -> Result<u8, Error> {
    let place = Place::of(global, arguments.only_id()?)?;
    let record = place.load()?;
    match record.status(&place)? {
        Status::Created => {}
        Status::Stopped => return Err(Error::WrongStatus("cannot start a container that has stopped".to_owned())),
        Status::Running | Status::Paused => {
            return Err(Error::WrongStatus("cannot start an already running container".to_owned()));
        }
    }
    place.open_gate()?;
    if let Err(error) = after_start(&record) {
        signal(&record, KILL)?;
        return Err(error);
    }
    Ok(0)
}

/// A failure of these hooks stops the container (specification 1.2, lifecycle).
pub(crate) fn after_start(record: &Record) -> Result<(), Error> {
    Ok(record.run_hooks("poststart", |hooks| &hooks.poststart, "running")?)
}

pub(crate) fn kill(global: &Global, arguments: &Arguments) -> Result<u8, Error> {
    let place = Place::of(global, arguments.id()?)?;
    let number = signals::parse(arguments.rest.get(1).map_or("SIGTERM", String::as_str))?;
    let record = place.load()?;
    let cgroup = record.cgroup()?;
    if arguments.has("all") {
        cgroup.signal_all(number, PATIENCE)?;
        return Ok(0);
    }
    if !record.is_alive() {
        return Err(Error::NotRunning);
    }
    if number == KILL && !record.own_pids {
        // Nobody else would end those that the first process leaves behind.
        cgroup.signal_all(KILL, PATIENCE)?;
    }
    signal(&record, number)?;
    if number == KILL && cgroup.is_frozen() {
        // On v1 a frozen process does not even die.
        cgroup.thaw()?;
    }
    Ok(0)
}

/// To the first process, through a descriptor that cannot mean another one.
fn signal(record: &Record, number: i32) -> Result<(), Error> {
    let Some(pid) = Pid::from_raw(record.pid) else {
        return Err(Error::NotRunning);
    };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) if record.is_alive() => process::pidfd_signal(&pidfd, number)
            .map_err(|error| Error::io("signal", format!("/proc/{}", record.pid), error)),
        Ok(_) | Err(_) if number == KILL => Ok(()),
        Ok(_) | Err(_) => Err(Error::NotRunning),
    }
}

pub(crate) fn delete(global: &Global, arguments: &Arguments) -> Result<u8, Error> {
    let id = arguments.only_id()?;
    let force = arguments.has("force");
    let place = Place::of(global, id)?;
    let record = match place.load() {
        Ok(record) => record,
        Err(Error::NoSuchContainer(_)) if place.exists() => {
            // A create that was killed half-way: there is a name and nothing else.
            place.remove()?;
            return Ok(0);
        }
        Err(Error::NoSuchContainer(_)) if force => return Ok(0),
        Err(error) => return Err(error),
    };
    let status = record.status(&place)?;
    match status {
        Status::Stopped => {}
        Status::Created => end(&record)?,
        Status::Running | Status::Paused if force => end(&record)?,
        Status::Running | Status::Paused => {
            return Err(Error::WrongStatus(format!(
                "cannot delete container {id} that is not stopped: {}",
                status.name()
            )));
        }
    }
    destroy(&place, &record)?;
    Ok(0)
}

/// Kills the first process and waits until it is gone.
fn end(record: &Record) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::io("wait for", format!("/proc/{}", record.pid), error);
    let Some(pid) = Pid::from_raw(record.pid) else {
        return Ok(());
    };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return Ok(());
    };
    if !record.is_alive() {
        return Ok(());
    }
    process::pidfd_signal(&pidfd, KILL).map_err(failed)?;
    let cgroup = record.cgroup()?;
    if cgroup.is_frozen() {
        cgroup.thaw()?;
    }
    let patience = Timespec::try_from(PATIENCE).map_err(|error| failed(std::io::Error::other(error)))?;
    match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience)) {
        Ok(0) => Err(failed(std::io::ErrorKind::TimedOut.into())),
        Ok(_) => Ok(()),
        Err(error) => Err(failed(error.into())),
    }
}

/// Gives back all that a dead container held. Goes on after a failure, and tells all of them.
pub(crate) fn destroy(place: &Place, record: &Record) -> Result<(), Error> {
    let mut problems = Vec::new();
    match record.cgroup() {
        Ok(cgroup) => {
            // With a process namespace of its own all end with the first; of a create that was killed half-way, one may be left.
            if cgroup.exists() && (!record.own_pids || cgroup.pids().is_ok_and(|pids| !pids.is_empty())) {
                problems.extend(cgroup.signal_all(KILL, PATIENCE).err().map(Error::from));
            }
            problems.extend(cgroup.remove().into_iter().map(Error::from));
        }
        Err(error) => problems.push(error),
    }
    if let Err(error) = record.run_hooks("poststop", |hooks| &hooks.poststop, "stopped") {
        // The specification: a warning, and the life goes on.
        Global::warn(&error.message);
    }
    problems.extend(place.remove().err());
    match problems.len() {
        0 => Ok(()),
        _ => Err(Error::Several(problems)),
    }
}

pub(crate) fn pause(global: &Global, arguments: &Arguments) -> Result<u8, Error> {
    let place = Place::of(global, arguments.only_id()?)?;
    let record = place.load()?;
    match record.status(&place)? {
        Status::Created | Status::Running => record.cgroup()?.freeze()?,
        status @ (Status::Paused | Status::Stopped) => {
            return Err(Error::WrongStatus(format!("container not running or created: {}", status.name())));
        }
    }
    Ok(0)
}

pub(crate) fn resume(global: &Global, arguments: &Arguments) -> Result<u8, Error> {
    let place = Place::of(global, arguments.only_id()?)?;
    let record = place.load()?;
    if !record.is_alive() || !record.cgroup()?.is_frozen() {
        return Err(Error::WrongStatus("container not paused".to_owned()));
    }
    record.cgroup()?.thaw()?;
    Ok(0)
}
