//! A Gantry of the benchmark's own: in namespaces of its own, on a root of its own.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::measure;
use crate::peers::Namespaces;
use crate::report::Report;

const ROOT: &str = "/tmp/gantry-bench";
/// How long idleness is watched.
const IDLE: Duration = Duration::from_secs(30);

pub(crate) struct Instance {
    binary: String,
    pub(crate) namespaces: Namespaces,
    pub(crate) pid: u32,
    pub(crate) ready_ms: u64,
}

impl Instance {
    pub(crate) fn start(binary: &str) -> Result<Self> {
        let namespaces = Namespaces::new("gantry")?;
        let mut up = namespaces.command(binary);
        measure::timed(up.args(["up", "--detach", "--root", ROOT]))?;
        let status = namespaces
            .command(binary)
            .args(["status", "--root", ROOT, "-o", "json"])
            .output()
            .context("gantry status")?;
        let status: Value = serde_json::from_slice(&status.stdout).context("gantry status is not JSON")?;
        let number = |key: &str| status[key].as_u64().with_context(|| format!("gantry status has no {key}"));
        Ok(Self {
            binary: binary.to_owned(),
            pid: u32::try_from(number("pid")?)?,
            ready_ms: number("ready_ms")?,
            namespaces,
        })
    }

    pub(crate) fn socket(&self) -> String {
        format!("unix://{ROOT}/run/docker.sock")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        PathBuf::from(ROOT).join("kubeconfig")
    }

    /// Memory and CPU of everything that Gantry runs while nobody asks for anything.
    pub(crate) fn idle(&self, report: &mut Report) -> Result<()> {
        std::thread::sleep(Duration::from_secs(5));
        let family = measure::family(self.pid);
        let cpu = |family: &[u32]| family.iter().map(|pid| measure::cpu(*pid)).sum::<Result<Duration>>();
        let before = cpu(&family)?;
        std::thread::sleep(IDLE);
        let used = cpu(&family)?.saturating_sub(before);
        let memory = family.iter().map(|pid| measure::pss_bytes(*pid)).sum::<Result<u64>>()?;
        report.figure("idle memory of all of Gantry (PSS)", format!("{:.1} MB", memory as f64 / 1e6), "< 60 MB");
        report.figure(
            "idle CPU of all of Gantry",
            format!("{:.2} % of a core", used.as_secs_f64() / IDLE.as_secs_f64() * 100.0),
            "< 0.5 %",
        );
        Ok(())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let down = self.namespaces.command(&self.binary).args(["down", "--purge", "--root", ROOT]).status();
        if !down.is_ok_and(|status| status.success()) {
            eprintln!("bench: gantry down failed; look at {ROOT}");
        }
    }
}

/// The docker client against an engine, in that engine's namespaces (published ports and all).
pub(crate) fn docker(namespaces: &Namespaces, host: &str, args: &[&str]) -> Command {
    let mut command = namespaces.command("docker");
    command.args(args).env("DOCKER_HOST", host);
    command
}

/// What a docker command prints, trimmed.
pub(crate) fn docker_output(namespaces: &Namespaces, host: &str, args: &[&str]) -> Result<String> {
    let output = docker(namespaces, host, args).output().context("cannot run docker")?;
    if !output.status.success() {
        bail!("docker {args:?} on {host}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
