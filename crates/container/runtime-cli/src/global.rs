//! What stands before the verb, and where failures are told.

use std::{fs::OpenOptions, io::Write, path::PathBuf};

use serde::Serialize;

use crate::{
    arguments::{Arguments, Flag, switch, value},
    error::Error,
};

pub(crate) const FLAGS: &[Flag] = &[
    value("root", ""),
    value("log", ""),
    value("log-format", ""),
    switch("systemd-cgroup", ""),
    switch("debug", ""),
    value("criu", ""),
    value("rootless", ""),
    switch("version", "v"),
];

const DEFAULT_ROOT: &str = "/run/gantry-runtime";

#[derive(Debug)]
pub(crate) struct Global {
    /// Holds one directory a container.
    pub(crate) root: PathBuf,
    log: Option<PathBuf>,
    json: bool,
    systemd: bool,
    rootless: bool,
    pub(crate) wants_version: bool,
    pub(crate) wants_help: bool,
}

#[derive(Serialize)]
struct Entry<'a> {
    level: &'a str,
    msg: &'a str,
    time: String,
}

impl Global {
    /// What is left begins with the verb.
    pub(crate) fn parse(args: &[String]) -> Result<(Self, Vec<String>), Error> {
        let parsed = Arguments::parse(args, FLAGS)?;
        let json = match parsed.value("log-format").unwrap_or("text") {
            "json" => true,
            "text" => false,
            other => return Err(Error::Usage(format!("invalid log-format {other:?}: must be either text or json"))),
        };
        let global = Global {
            root: PathBuf::from(parsed.value("root").unwrap_or(DEFAULT_ROOT)),
            log: parsed.value("log").filter(|path| !path.is_empty()).map(PathBuf::from),
            json,
            systemd: parsed.has("systemd-cgroup"),
            rootless: parsed.value("rootless").is_some_and(|word| word == "true"),
            wants_version: parsed.has("version"),
            wants_help: parsed.has("help"),
        };
        Ok((global, parsed.rest))
    }

    /// What was asked for and cannot be had.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.systemd {
            return Err(Error::Unsupported("--systemd-cgroup (use the engine's cgroupfs driver)"));
        }
        if self.rootless || !rustix::process::geteuid().is_root() {
            return Err(Error::Unsupported("use without root's rights"));
        }
        Ok(())
    }

    /// To the log file if there is one, and to standard error. The exit code.
    pub(crate) fn report(&self, error: &Error, code: u8) -> u8 {
        let message = error.to_string();
        if let Some(path) = &self.log {
            let time = jiff::Timestamp::now().to_string();
            let line = if self.json {
                serde_json::to_string(&Entry { level: "error", msg: &message, time }).unwrap_or_default()
            } else {
                format!("time={time:?} level=error msg={message:?}")
            };
            let written =
                OpenOptions::new().create(true).append(true).open(path).and_then(|mut file| writeln!(file, "{line}"));
            if let Err(failed) = written {
                eprintln!("open log {}: {failed}", path.display());
            }
        }
        eprintln!("{message}");
        code
    }

    /// Something that is not as it should be and stops nothing.
    pub(crate) fn warn(message: &str) {
        eprintln!("warning: {message}");
    }
}
