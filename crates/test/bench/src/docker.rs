//! The Docker half beside dockerd, through the stock client.

use std::process::Command;

use anyhow::{Context, Result};

use crate::gantry::{Instance, docker, docker_output};
use crate::measure::{self, Sample, pairs, timed};
use crate::peers::{Dockerd, Namespaces, Podman};
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
    life(&ours, &theirs, report, rounds)?;
    drop(peer);
    podman(&ours, report, rounds)
}

/// The rest of a container's life, and many at once.
fn life(ours: &Side<'_>, theirs: &Side<'_>, report: &mut Report, rounds: usize) -> Result<()> {
    let each = |name: &str, script: &str, target: &str, report: &mut Report, rounds: usize| -> Result<()> {
        let (left, right) = pairs(rounds, || ours.script(script), || theirs.script(script))?;
        report.pair(name, &left, &right, target);
        Ok(())
    };
    let few = rounds.min(8);
    each(
        "`docker create` and `start`, then `rm -f`",
        "id=$(docker create busybox sleep 100) && docker start $id && docker rm -f $id",
        "",
        report,
        few,
    )?;
    each(
        "`run -d`, `stop` of a program that hears TERM, `rm`",
        "id=$(docker run -d busybox sh -c 'trap \"exit 0\" TERM; while :; do sleep 0.05; done') && docker stop $id && docker rm $id",
        "",
        report,
        few,
    )?;
    each(
        "20 × `docker run -d` in sequence, then `rm -f` of all",
        "ids=; for i in $(seq 20); do ids=\"$ids $(docker run -d busybox sleep 100)\"; done; docker rm -f $ids",
        "≤ 0.20",
        report,
        3,
    )?;
    each(
        "24 × `docker run -d`, 8 at a time, then `rm -f` of all",
        "seq 24 | xargs -P 8 -I{} docker run -d busybox sleep 100 >/tmp/bench-ids-$$ && docker rm -f $(cat /tmp/bench-ids-$$); rm /tmp/bench-ids-$$",
        "",
        report,
        3,
    )
}

/// Each call of podman is the whole engine, so its own command is what is timed.
fn podman(ours: &Side<'_>, report: &mut Report, rounds: usize) -> Result<()> {
    let image = std::env::temp_dir().join(format!("bench-podman-{}", std::process::id()));
    let tar = busybox(&image)?;
    let peer = Podman::start(&tar);
    std::fs::remove_file(&tar)?;
    let Some(peer) = peer? else {
        report.note("podman is not on this machine, or runs nothing here");
        return Ok(());
    };
    report.peer(&format!("{} with runc", peer.version()?));
    let args = ["run", "--rm", "--network", "none", "busybox", "true"];
    let (left, right) = pairs(rounds, || ours.time(&args), || timed(peer.command(&args)))?;
    report.pair("`run --rm --network none busybox true`: Gantry by docker's client, beside podman", &left, &right, "");
    Ok(())
}

/// A tree with busybox alone, as an archive; the tree goes again.
fn busybox(dir: &std::path::Path) -> Result<std::path::PathBuf> {
    let script = "mkdir -p $0/bin && cp $(command -v busybox) $0/bin/busybox && for a in sh true sleep; do ln -sf busybox $0/bin/$a; done && tar -C $0 -cf $0.tar .";
    timed(Command::new("sh").args(["-c", script]).arg(dir))?;
    std::fs::remove_dir_all(dir)?;
    Ok(dir.with_extension("tar"))
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

    /// A shell script with the docker client pointed at this side.
    fn script(&self, script: &str) -> Result<std::time::Duration> {
        let mut command = self.namespaces.command("sh");
        timed(command.args(["-ec", script]).env("DOCKER_HOST", &self.host))
    }

    /// An image with busybox alone, the same on both sides.
    fn import_busybox(&self) -> Result<()> {
        let tar = busybox(&std::env::temp_dir().join(format!("bench-busybox-{}", std::process::id())))?;
        self.run(&["import", tar.to_str().context("odd path")?, "busybox:latest"])?;
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
