//! `exec`: a further process in a running container.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use kernel::{
    cgroup::{Cgroup, Hierarchies, Version},
    process::NamespaceFlags,
};
use oci::runtime_spec::{Box as Size, Capability, Process, UserBuilder};
use runtime::{
    Failure,
    exec::{Started, Target},
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::{
    arguments::{Arguments, Flag, switch, value},
    console::{self, Console},
    create::kept_descriptors,
    error::Error,
    foreground,
    global::Global,
    record::{Place, Record, Status, replace},
};

pub(crate) const FLAGS: &[Flag] = &[
    value("console-socket", ""),
    value("pidfd-socket", ""),
    value("cwd", ""),
    value("env", "e"),
    switch("tty", "t"),
    value("user", "u"),
    value("additional-gids", "g"),
    value("process", "p"),
    switch("detach", "d"),
    value("pid-file", ""),
    value("process-label", ""),
    value("apparmor", ""),
    switch("no-new-privs", ""),
    value("cap", "c"),
    value("preserve-fds", ""),
    value("cgroup", ""),
    switch("ignore-paused", ""),
    switch("no-subreaper", ""),
];

pub(crate) fn run(global: &Global, arguments: &Arguments) -> Result<u8, Error> {
    if arguments.value("pidfd-socket").is_some() {
        return Err(Error::Unsupported("--pidfd-socket"));
    }
    let place = Place::of(global, arguments.id()?)?;
    let record = place.load()?;
    match record.status(&place)? {
        Status::Stopped => return Err(Error::WrongStatus("cannot exec in a stopped container".to_owned())),
        Status::Paused if !arguments.has("ignore-paused") => {
            let words = "cannot exec in a paused container (use --ignore-paused to override)";
            return Err(Error::WrongStatus(words.to_owned()));
        }
        Status::Created | Status::Running | Status::Paused => {}
    }
    let process = wanted(&record, arguments)?;
    let detached = arguments.has("detach");
    let socket = arguments.value("console-socket").map(PathBuf::from);
    console::check(process.terminal().unwrap_or(false), detached, socket.is_some()).or_else(|error| {
        // Unlike a container, an exec in the foreground may have its terminal elsewhere.
        if socket.is_some() && process.terminal().unwrap_or(false) { Ok(()) } else { Err(error) }
    })?;
    let signals = if detached { None } else { Some(foreground::Signals::block()?) };
    let mut started = start(&record, &process, arguments)?;
    let told = tell(&mut started, socket.as_deref(), arguments);
    if let Err(error) = told {
        let _ = kernel::process::signal(started.pid, 9);
        let _ = foreground::reap(started.pid);
        return Err(error);
    }
    match signals {
        Some(signals) => signals.follow(started.pid, started.console.take()),
        None => Ok(0),
    }
}

fn tell(started: &mut Started, socket: Option<&Path>, arguments: &Arguments) -> Result<(), Error> {
    if let Some(socket) = socket
        && let Some(master) = started.console.take()
    {
        Console::send(&master, socket)?;
    }
    match arguments.value("pid-file").filter(|path| !path.is_empty()) {
        Some(path) => replace(Path::new(path), started.pid.to_string().as_bytes()),
        None => Ok(()),
    }
}

fn start(record: &Record, process: &Process, arguments: &Arguments) -> Result<Started, Error> {
    let mut plan = runtime::compile_process(process)?;
    plan.personality = record.personality;
    let init = open_init(record)?;
    let cgroup = cgroup(record, arguments.value("cgroup"))?;
    let target = Target {
        init: &init,
        cgroup: &cgroup,
        namespaces: NamespaceFlags::from_bits(record.namespaces),
        keep_descriptors: kept_descriptors(arguments)?,
    };
    runtime::exec::start(&target, &plan, record.seccomp.as_ref(), None).map_err(Error::Exec)
}

fn open_init(record: &Record) -> Result<OwnedFd, Error> {
    let pid = Pid::from_raw(record.pid).ok_or(Error::NotRunning)?;
    let init = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| Error::NotRunning)?;
    // Opened before it was looked at: it is the very process of the record.
    if record.is_alive() { Ok(init) } else { Err(Error::NotRunning) }
}

/// The container's, or one below it. On v2 a container may have moved its first process down, and takes none at its top then.
fn cgroup(record: &Record, below: Option<&str>) -> Result<Cgroup, Error> {
    let hierarchies = Hierarchies::detect()?;
    if let Some(below) = below.filter(|path| *path != "/") {
        return Ok(Cgroup::new(&hierarchies, &format!("{}/{}", record.cgroup, below.trim_start_matches('/')))?);
    }
    let moved = (hierarchies.version() == Version::V2)
        .then(|| fs::read_to_string(format!("/proc/{}/cgroup", record.pid)).ok())
        .flatten()
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned)))
        .filter(|path| path.starts_with(&record.cgroup));
    Ok(Cgroup::new(&hierarchies, moved.as_deref().unwrap_or(&record.cgroup))?)
}

/// From a file, or the container's own process with another command and what the flags change.
fn wanted(record: &Record, arguments: &Arguments) -> Result<Process, Error> {
    if let Some(path) = arguments.value("process") {
        let path = PathBuf::from(path);
        let text = fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
        return serde_json::from_slice(&text).map_err(|source| Error::Json { path, source });
    }
    let mut process = record.process.clone();
    let command = arguments.rest[1..].to_vec();
    if command.is_empty() {
        return Err(Error::Usage("process args cannot be empty".to_owned()));
    }
    process.set_args(Some(command));
    process.set_terminal(Some(arguments.has("tty")));
    process.set_console_size(None::<Size>);
    if let Some(cwd) = arguments.value("cwd") {
        process.set_cwd(cwd.into());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(arguments.values("env").map(str::to_owned));
    process.set_env(Some(env));
    if let Some(profile) = arguments.value("apparmor") {
        process.set_apparmor_profile(Some(profile.to_owned()));
    }
    if let Some(label) = arguments.value("process-label") {
        process.set_selinux_label(Some(label.to_owned()));
    }
    if arguments.value("no-new-privs").is_some() {
        process.set_no_new_privileges(Some(arguments.has("no-new-privs")));
    }
    change_user(&mut process, arguments)?;
    change_capabilities(&mut process, arguments)?;
    Ok(process)
}

fn change_user(process: &mut Process, arguments: &Arguments) -> Result<(), Error> {
    let number = |text: &str| {
        text.parse::<u32>().map_err(|_| Error::Usage(format!("user and groups are numbers here, not {text:?}")))
    };
    let before = process.user();
    let (uid, gid) = match arguments.value("user").map(|user| user.split_once(':').unwrap_or((user, ""))) {
        None => (before.uid(), before.gid()),
        Some((uid, "")) => (number(uid)?, before.gid()),
        Some((uid, gid)) => (number(uid)?, number(gid)?),
    };
    let mut groups = before.additional_gids().clone().unwrap_or_default();
    for group in arguments.values("additional-gids") {
        groups.push(number(group)?);
    }
    let user = UserBuilder::default().uid(uid).gid(gid).additional_gids(groups);
    let user = match before.umask() {
        Some(umask) => user.umask(umask),
        None => user,
    };
    let user = user.build().map_err(|error| Failure::invalid(error.to_string()))?;
    process.set_user(user);
    Ok(())
}

/// Those of `--cap` besides what the container's process has.
fn change_capabilities(process: &mut Process, arguments: &Arguments) -> Result<(), Error> {
    let named = |name: &str| -> Result<Capability, Error> {
        let text = serde_json::Value::String(name.to_owned());
        serde_json::from_value(text).map_err(|_| Error::Usage(format!("unknown capability {name:?}")))
    };
    let added = arguments.values("cap").map(named).collect::<Result<Vec<_>, _>>()?;
    if added.is_empty() {
        return Ok(());
    }
    let mut sets = process.capabilities().clone().unwrap_or_default();
    let with = |set: &Option<std::collections::HashSet<Capability>>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(added.iter().copied());
        Some(set)
    };
    let (bounding, effective, permitted) = (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    process.set_capabilities(Some(sets));
    Ok(())
}
