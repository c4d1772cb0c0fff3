//! Hooks: programs of the bundle's author that run at fixed points of a container's life, with its state on their standard input.
//!
//! Called by [`crate::container`] (runtime's namespaces), by the init (the container's) and by whoever starts and deletes. A hook that fails
//! or takes too long is an error that names it; what that error means is the caller's decision.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, memfd_create},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde::{Deserialize, Serialize};

use crate::{Failure, failure::Step};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    pub path: PathBuf,
    #[serde(default)]
    pub args: Vec<String>,
    /// All of its environment.
    #[serde(default)]
    pub env: Vec<String>,
    pub timeout_s: Option<u64>,
}

/// The lists of one container, and what they are told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    pub subject: Subject,
    /// `prestart`, then `createRuntime`: in the runtime's namespaces, before the root is entered.
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, before its root is entered.
    pub create_container: Vec<Hook>,
    /// In the container, before its program.
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

/// Whom the state is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub oci_version: String,
    pub id: String,
    pub bundle: PathBuf,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    pid: i32,
    bundle: &'a PathBuf,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(pid: &i32) -> bool {
    *pid == 0
}

impl Hooks {
    /// Runs `hooks` in order, each told `status` and `pid`; stops at the first that fails.
    pub fn run(&self, name: &str, hooks: &[Hook], status: &str, pid: i32) -> Result<(), Failure> {
        if hooks.is_empty() {
            return Ok(());
        }
        let state = self.subject.state(status, pid)?;
        hooks.iter().enumerate().try_for_each(|(index, hook)| hook.run(&state, name, index))
    }
}

impl Subject {
    /// The state of the specification, as JSON; without a process when `pid` is 0.
    pub fn state(&self, status: &str, pid: i32) -> Result<String, Failure> {
        let Subject { oci_version, id, bundle, annotations } = self;
        serde_json::to_string(&State { oci_version, id, status, pid, bundle, annotations })
            .map_err(|error| Failure::invalid(format!("state of {id}: {error}")))
    }
}

/// How much of a hook's words an error repeats.
const WORDS: u64 = 4 << 10;

impl Hook {
    fn run(&self, state: &str, name: &str, index: usize) -> Result<(), Failure> {
        let step = |what: &str| format!("error running {name} hook #{index} ({}): {what}", self.path.display());
        // Files in memory and no pipes: a hook that neither reads nor stops writing holds nobody up.
        let mut input = memory().step(step("memfd"))?;
        input.write_all(state.as_bytes()).and_then(|()| input.rewind()).step(step("write the state"))?;
        let mut output = memory().step(step("memfd"))?;
        let said = output.try_clone().step(step("dup"))?;
        let also = output.try_clone().step(step("dup"))?;
        let mut command = Command::new(&self.path);
        if let Some((first, rest)) = self.args.split_first() {
            command.arg0(first).args(rest);
        }
        command.env_clear().envs(self.env.iter().filter_map(|entry| entry.split_once('=')));
        let child = command.stdin(Stdio::from(input)).stdout(Stdio::from(said)).stderr(Stdio::from(also)).spawn();
        let status = finish(child.step(step("start"))?, self.timeout_s).step(step("wait"))?;
        if status.success() {
            return Ok(());
        }
        let mut words = String::new();
        let _ = output.rewind().and_then(|()| output.take(WORDS).read_to_string(&mut words));
        Err(Failure::invalid(step(&format!("{status}, output: {}", words.trim()))))
    }
}

fn memory() -> io::Result<File> {
    Ok(File::from(memfd_create("hook", MemfdFlags::CLOEXEC)?))
}

/// Until it ends; at the deadline it is killed.
fn finish(mut child: Child, timeout_s: Option<u64>) -> io::Result<ExitStatus> {
    if let (Some(seconds), Some(pid)) = (timeout_s, Pid::from_raw(child.id() as i32)) {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let patience = Timespec::try_from(Duration::from_secs(seconds)).map_err(io::Error::other)?;
        let mut waiting = [PollFd::new(&pidfd, PollFlags::IN)];
        if poll(&mut waiting, Some(&patience))? == 0 {
            let _ = child.kill();
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("killed after its timeout of {seconds} s")));
        }
    }
    child.wait()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout_s: Option<u64>) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        Hook { path: "/bin/sh".into(), args, env: vec!["A=b c".into()], timeout_s }
    }

    #[test]
    fn a_hook_gets_the_state_and_its_own_environment_and_its_failure_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let subject =
            Subject { oci_version: "1.2.0".into(), id: "x".into(), bundle: "/b".into(), ..Subject::default() };
        let hooks = Hooks { subject, ..Hooks::default() };
        let script = format!("read line; echo \"$line $A $HOME\" > {}", out.display());
        hooks.run("poststart", &[shell(&script, Some(20))], "running", 7).unwrap();
        let said = std::fs::read_to_string(out).unwrap();
        let wanted = r#"{"ociVersion":"1.2.0","id":"x","status":"running","pid":7,"bundle":"/b"} b c"#;
        assert_eq!(said.trim(), wanted);
        let failed = hooks.run("poststop", &[shell("true", None), shell("echo no >&2; exit 3", None)], "stopped", 0);
        let message = failed.unwrap_err().message;
        assert!(message.contains("poststop hook #1") && message.contains("exit status: 3, output: no"), "{message}");
        let late = hooks.run("poststop", &[shell("sleep 60", Some(1))], "stopped", 0).unwrap_err();
        assert!(late.message.contains("timeout of 1 s"), "{late}");
    }
}
