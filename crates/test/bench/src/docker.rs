//! The Docker half beside dockerd, through the stock client.

use std::process::Command;

use anyhow::{Context, Result};

use crate::gantry::{Instance, docker, docker_output};
use crate::measure::{self, Sample, pairs, timed};
use crate::peers::{Dockerd, Namespaces};
use crate::report::Report;

/// Containers that stand idle when a container's memory is measured.
const IDLE_CONTAINERS: usize = 20;

pub(crate) fn run(instance: &Instance, report: &mut Report, rounds: usize) -> Result<()> {
    let ours = Side { namespaces: &instance.namespaces, host: instance.socket() };
    ours.import_busybox()?;
    memory(instance, &ours, report)?;
    let Some(peer) = Dockerd::start()? else {
        report.note("dockerd is not on this machine: nothing to compare with");
        return Ok(());
    };
    let theirs = Side { namespaces: &peer.namespaces, host: peer.host() };
    theirs.import_busybox()?;
    report.peer(&format!(
        "dockerd {}",
        docker_output(&peer.namespaces, &peer.host(), &["version", "-f", "{{.Server.Version}}"])?
    ));
    report.peer(&format!(
        "docker client {}",
        docker_output(&peer.namespaces, &peer.host(), &["version", "-f", "{{.Client.Version}}"])?
    ));
    let client = {
        let mut sample = Sample::default();
        (0..rounds).try_for_each(|_| timed(Command::new("docker").arg("--version")).map(|took| sample.push(took)))?;
        sample
    };
    report.figure("the docker client alone (`docker --version`)", format!("{:.0} ms", client.median_ms()), "");
    for (name, args, target) in [
        ("`docker run --rm busybox true`, bridge", vec!["run", "--rm", "busybox", "true"], "≤ 0.20"),
        (
            "`docker run --rm --network none busybox true`",
            vec!["run", "--rm", "--network", "none", "busybox", "true"],
            "",
        ),
        (
            "`docker run --rm --network host busybox true`",
            vec!["run", "--rm", "--network", "host", "busybox", "true"],
            "",
        ),
    ] {
        let (left, right) = pairs(rounds, || ours.time(&args), || theirs.time(&args))?;
        report.pair(name, &left, &right, target);
    }
    for side in [&ours, &theirs] {
        side.run(&["run", "-d", "--name", "bench", "busybox", "sleep", "3600"])?;
    }
    let (left, right) =
        pairs(rounds, || ours.time(&["exec", "bench", "true"]), || theirs.time(&["exec", "bench", "true"]))?;
    report.pair("`docker exec … true`", &left, &right, "");
    let (left, right) = pairs(rounds, || ours.time(&["ps"]), || theirs.time(&["ps"]))?;
    report.pair("`docker ps`", &left, &right, "");
    for side in [&ours, &theirs] {
        side.run(&["rm", "-f", "bench"])?;
    }
    Ok(())
}

struct Side<'a> {
    namespaces: &'a Namespaces,
    host: String,
}

impl Side<'_> {
    fn run(&self, args: &[&str]) -> Result<String> {
        docker_output(self.namespaces, &self.host, args)
    }

    fn time(&self, args: &[&str]) -> Result<std::time::Duration> {
        timed(&mut docker(self.namespaces, &self.host, args))
    }

    /// An image with busybox alone, the same on both sides.
    fn import_busybox(&self) -> Result<()> {
        let dir = std::env::temp_dir().join(format!("bench-busybox-{}", std::process::id()));
        let script = "mkdir -p $0/bin && cp $(command -v busybox) $0/bin/busybox && for a in sh true sleep; do ln -sf busybox $0/bin/$a; done && tar -C $0 -cf $0.tar .";
        timed(Command::new("sh").args(["-c", script]).arg(&dir))?;
        let tar = dir.with_extension("tar");
        self.run(&["import", tar.to_str().context("odd path")?, "busybox:latest"])?;
        std::fs::remove_dir_all(&dir)?;
        Ok(std::fs::remove_file(&tar)?)
    }
}

/// What an idle container adds: its monitor, and what the engine grew by; the container's own process is the user's.
fn memory(instance: &Instance, ours: &Side<'_>, report: &mut Report) -> Result<()> {
    let before = measure::pss_bytes(instance.pid)?;
    let mut monitors = 0;
    let ids = (0..IDLE_CONTAINERS)
        .map(|_| ours.run(&["run", "-d", "busybox", "sleep", "3600"]))
        .collect::<Result<Vec<_>>>()?;
    for id in &ids {
        let pid: u32 = ours.run(&["inspect", "-f", "{{.State.Pid}}", id])?.parse()?;
        monitors += measure::pss_bytes(parent(pid)?)?;
    }
    let grown = measure::pss_bytes(instance.pid)?.saturating_sub(before);
    let each = (monitors + grown) as f64 / IDLE_CONTAINERS as f64 / 1e6;
    report.figure("memory that a running idle container adds (monitor, engine)", format!("{each:.2} MB"), "< 1 MB");
    let mut args = vec!["rm", "-f"];
    args.extend(ids.iter().map(String::as_str));
    ours.run(&args).map(drop)
}

fn parent(pid: u32) -> Result<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok()).context("no parent")
}
