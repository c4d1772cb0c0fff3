//! `gantry down`: stops the instance, its containers and its kernel objects; with `--purge` its state too.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::instance::Lock;
use crate::paths::Paths;

/// How long the main process may take to end by itself.
const STOP_WITHIN: Duration = Duration::from_secs(20);

pub(crate) fn run(paths: &Paths, purge: bool) -> Result<()> {
    // Somebody may have deleted the root of an instance that runs: it holds a lock that no longer has a name.
    let stray = Lock::stray(paths);
    if !paths.root.exists() && stray.is_none() && !left_in_cgroup(paths) {
        println!("nothing to stop: {} does not exist", paths.root.display());
        return Ok(());
    }
    // Before any thread exists; the teardown below needs one to reach what a killed instance left.
    let zygote = monitor::Zygote::spawn()?;
    if let Some(pid) = stray {
        stop(paths, pid, || Lock::stray(paths).is_some())?;
    }
    if let Some(pid) = Lock::held_by(paths)? {
        stop(paths, pid, || matches!(Lock::held_by(paths), Ok(Some(_))))?;
    }
    paths.make()?;
    let lock = Lock::take(paths)?;
    let problems = crate::daemon::teardown(paths, zygote, purge)?;
    for problem in &problems {
        eprintln!("gantry: {problem}");
    }
    drop(lock);
    if purge {
        purge_root(paths)?;
    }
    if !problems.is_empty() {
        bail!("{} things could not be taken away", problems.len());
    }
    println!("Gantry is down{}", if purge { format!(", {} is deleted", paths.root.display()) } else { String::new() });
    Ok(())
}

/// Containers of this root run, though nothing else of it is left.
fn left_in_cgroup(paths: &Paths) -> bool {
    kernel::cgroup::Cgroup::find(&paths.cgroup_parent()).is_ok_and(|cgroup| cgroup.exists())
}

fn stop(paths: &Paths, pid: u32, still: impl Fn() -> bool) -> Result<()> {
    let raw = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).context("the lock names no process")?;
    match rustix::process::kill_process(raw, rustix::process::Signal::TERM) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(error).with_context(|| format!("cannot stop process {pid}")),
    }
    let end = Instant::now() + STOP_WITHIN;
    while still() {
        if Instant::now() >= end {
            bail!(
                "process {pid} did not end within {} s; look at {} and end it by hand",
                STOP_WITHIN.as_secs(),
                paths.log().display()
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Deletes the root. Nothing may be mounted below it any more: a bind mount's source would be deleted with it.
fn purge_root(paths: &Paths) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let prefix = format!("{}/", paths.root.display());
    if let Some(mount) =
        mounts.lines().filter_map(|line| line.split(' ').nth(4)).find(|target| target.starts_with(&prefix))
    {
        bail!("{mount} is still mounted; nothing was deleted. Unmount it and run `gantry down --purge` again");
    }
    match std::fs::remove_dir_all(&paths.root) {
        // A file system of its own is mounted there: it is empty now, and the mount is not Gantry's to take away.
        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Ok(()),
        outcome => outcome.with_context(|| format!("cannot delete {}", paths.root.display())),
    }
}
