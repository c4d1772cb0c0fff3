//! `gantry runtime`: the runtime alone, with runc's command line and behaviour, for other engines (dockerd, containerd, podman).
//!
//! Called by the binary before anything else is set up: no thread exists, so the container's init is forked from this very process. A container's
//! record stands below `--root`; between commands the container is its init process, its cgroup and that record, and nothing of ours runs.
//! Invariant: a process that may become part of a container runs from a copy of the binary that cannot be written through (CVE-2019-5736).
//! Deliberately absent: checkpoints, systemd's cgroup driver and rootless use, each refused by name.

mod arguments;
mod bundle;
mod console;
mod create;
mod error;
mod events;
mod example;
mod exec;
mod features;
mod foreground;
mod global;
mod inspect;
mod lifecycle;
mod record;
mod signals;
mod update;

use std::{ffi::CString, path::Path};

use kernel::{process, self_exe};

use arguments::{Arguments, Flag};
use error::Error;
use global::Global;

/// The names by which the binary is this command, as engines that take one path for a runtime need it.
const NAMES: [&str; 2] = ["gantry-runtime", "runc"];
/// Set for the process that was started again from a protected copy, so that it is done once.
const SEALED: &str = "_GANTRY_RUNTIME_SEALED";

/// Runs the command and gives the process's exit code, if this process was started as `gantry runtime …` or under a name of the runtime.
pub fn run_if_asked() -> Option<u8> {
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let called = Path::new(args.first()?).file_name()?.to_str()?;
    let rest = if NAMES.contains(&called) {
        args.get(1..)?
    } else if args.get(1).is_some_and(|verb| verb == "runtime") {
        args.get(2..)?
    } else {
        return None;
    };
    Some(run(rest))
}

/// A verb, its flags, and what it does: the exit code on success.
struct Verb {
    name: &'static str,
    help: &'static str,
    flags: &'static [Flag],
    run: fn(&Global, &Arguments) -> Result<u8, Error>,
    /// Forks what becomes part of a container.
    enters: bool,
    /// The exit code of a failure.
    failure: u8,
}

const fn verb(
    name: &'static str,
    help: &'static str,
    flags: &'static [Flag],
    run: fn(&Global, &Arguments) -> Result<u8, Error>,
) -> Verb {
    Verb { name, help, flags, run, enters: false, failure: 1 }
}

const VERBS: [Verb; 18] = [
    verb("checkpoint", "not supported", &[], |_, _| Err(Error::Unsupported("checkpoint"))),
    Verb { enters: true, ..verb("create", "create a container", create::FLAGS, create::create) },
    verb("delete", "delete what a container holds", lifecycle::DELETE_FLAGS, lifecycle::delete),
    verb("events", "print a container's statistics", events::FLAGS, events::run),
    Verb { enters: true, failure: 255, ..verb("exec", "run a further process in a container", exec::FLAGS, exec::run) },
    verb("features", "say what this runtime can do", &[], features::run),
    verb("kill", "send a signal (SIGTERM) to a container's process", lifecycle::KILL_FLAGS, lifecycle::kill),
    verb("list", "list the containers below the root", inspect::LIST_FLAGS, inspect::list),
    verb("pause", "suspend all processes of a container", &[], lifecycle::pause),
    verb("ps", "list the processes of a container", inspect::PS_FLAGS, inspect::ps),
    verb("restore", "not supported", &[], |_, _| Err(Error::Unsupported("restore"))),
    verb("resume", "resume what was paused", &[], lifecycle::resume),
    Verb { enters: true, ..verb("run", "create and start a container", create::FLAGS, create::run) },
    verb("spec", "write an example config.json", example::FLAGS, example::run),
    verb("start", "start a created container", &[], lifecycle::start),
    verb("state", "print a container's state", &[], inspect::state),
    verb("update", "change a container's limits", update::FLAGS, update::run),
    verb("version", "print the version", &[], |_, _| {
        println!("{}", version());
        Ok(0)
    }),
];

fn version() -> String {
    format!("gantry-runtime version {}\nspec: {}", env!("CARGO_PKG_VERSION"), bundle::SPEC_VERSION)
}

fn usage() -> String {
    let mut text = "gantry runtime: OCI containers, with runc's command line\n\nUsage: gantry runtime [global options] COMMAND [options] [arguments]\n\nCommands:\n".to_owned();
    for verb in &VERBS {
        text += &format!("  {:<12}{}\n", verb.name, verb.help);
        for flag in verb.flags {
            text += &format!("      --{}{}\n", flag.name, if flag.takes_value { " VALUE" } else { "" });
        }
    }
    text += "\nGlobal options:\n";
    for flag in global::FLAGS {
        text += &format!("      --{}{}\n", flag.name, if flag.takes_value { " VALUE" } else { "" });
    }
    text
}

fn run(args: &[String]) -> u8 {
    let (global, rest) = match Global::parse(args) {
        Ok(parsed) => parsed,
        Err(error) => {
            eprintln!("{error}");
            return 1;
        }
    };
    if global.wants_version {
        println!("{}", version());
        return 0;
    }
    let Some((name, rest)) = rest.split_first().filter(|(name, _)| !global.wants_help && *name != "help") else {
        print!("{}", usage());
        return 0;
    };
    let Some(verb) = VERBS.iter().find(|verb| verb.name == *name) else {
        return global.report(&Error::Usage(format!("no such command: {name}")), 1);
    };
    match execute(&global, verb, args, rest) {
        Ok(code) => code,
        Err(error) => global.report(&error, verb.failure),
    }
}

fn execute(global: &Global, verb: &Verb, all: &[String], rest: &[String]) -> Result<u8, Error> {
    let arguments = Arguments::parse(rest, verb.flags)?;
    if arguments.has("help") {
        print!("{}", usage());
        return Ok(0);
    }
    global.check()?;
    if verb.enters && !self_exe::is_protected() {
        return Err(start_again(all));
    }
    (verb.run)(global, &arguments)
}

/// Replaces this process by the same command from a protected copy of the binary. Returns only when that failed.
fn start_again(args: &[String]) -> Error {
    let failed = |source| Error::io("start again from a protected copy", "/proc/self/exe", source);
    if std::env::var_os(SEALED).is_some() {
        return failed(std::io::Error::other("the copy is not protected"));
    }
    let exe = match self_exe::ProtectedExe::open() {
        Ok(exe) => exe,
        Err(error) => return failed(error),
    };
    let text = |word: String| CString::new(word).ok();
    let args = [NAMES[0].to_owned()].into_iter().chain(args.iter().cloned()).filter_map(text).collect::<Vec<_>>();
    let env = std::env::vars()
        .map(|(name, value)| format!("{name}={value}"))
        .chain([format!("{SEALED}=1")])
        .filter_map(text)
        .collect::<Vec<_>>();
    match text(exe.path().display().to_string()) {
        Some(path) => failed(process::exec(&path, &args, &env)),
        None => failed(std::io::Error::other("a path with NUL")),
    }
}
