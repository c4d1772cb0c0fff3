//! Takes away everything that an instance left on the machine: processes, namespaces, links, rules, cgroups.
//!
//! Works from the state on disk, so it does for a killed instance what it does for one that stopped. It goes on after an
//! error and returns all of them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use engine::{Engine, Phase};
use rustix::mount::UnmountFlags;

use crate::daemon::container::open_engine;
use crate::paths::Paths;

/// What a container may take to end by itself when its data is kept.
const GRACE: Duration = Duration::from_secs(10);
const KILL: i32 = 9;

/// `purge`: nothing is kept, so nothing is waited for. Returns what could not be taken away.
pub(crate) fn teardown(paths: &Paths, zygote: monitor::Zygote, purge: bool) -> Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let engine = open_engine(paths, zygote).await?;
        let mut problems = Vec::new();
        stop_containers(&engine, purge, &mut problems).await;
        remove_sandboxes(&engine, &mut problems).await;
        if let Err(errors) = engine.networking().shutdown(true).await {
            problems.extend(errors.iter().map(ToString::to_string));
        }
        engine.release_mounts();
        problems.extend(unmount_below(&paths.root));
        if let Err(error) = proxy::purge(&proxy::ProxyConfig::for_node("")) {
            problems.push(error.to_string());
        }
        match kernel::cgroup::Cgroup::find(&paths.cgroup_parent()) {
            Ok(cgroup) => {
                // Containers that no record tells of: their records were deleted by hand, or are damaged.
                if let Err(error) = cgroup.signal_all(KILL, GRACE) {
                    problems.push(error.to_string());
                }
                problems.extend(cgroup.remove().iter().map(ToString::to_string));
            }
            Err(error) => problems.push(error.to_string()),
        }
        Ok(problems)
    })
}

/// What is still mounted below the root: pods' volumes, and what a kill left. The newest first, as they are stacked.
/// A mount on the root itself is the administrator's (a disk of its own) and stays.
fn unmount_below(root: &Path) -> Vec<String> {
    let mounts = match std::fs::read_to_string("/proc/self/mountinfo") {
        Ok(mounts) => mounts,
        Err(error) => return vec![format!("cannot read /proc/self/mountinfo: {error}")],
    };
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|target| {
        let target = Path::new(target);
        target != root && target.starts_with(root)
    });
    let mut targets: Vec<&str> = targets.collect();
    targets.reverse();
    let unmount = |target: &str| match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // Gone with the one that it stood on.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => None,
        Err(error) => Some(format!("cannot unmount {target}: {error}")),
    };
    targets.into_iter().filter_map(unmount).collect()
}

async fn stop_containers(engine: &Engine, purge: bool, problems: &mut Vec<String>) {
    let mut stops = tokio::task::JoinSet::new();
    for container in engine.containers() {
        let (engine, id) = (engine.clone(), container.record.id.clone());
        let running = matches!(container.phase, Phase::Running(_));
        if purge {
            stops.spawn(async move {
                engine.remove_container(&id, engine::RemoveOptions { force: true, volumes: true }).await
            });
        } else if running {
            stops.spawn(async move { engine.stop_container(&id, Some(GRACE)).await });
        }
    }
    while let Some(stopped) = stops.join_next().await {
        match stopped {
            Ok(Ok(())) => {}
            Ok(Err(error)) => problems.push(error.to_string()),
            Err(panic) => problems.push(panic.to_string()),
        }
    }
}

/// A pod is made anew from the API at the next start: its sandbox holds no data.
async fn remove_sandboxes(engine: &Engine, problems: &mut Vec<String>) {
    for sandbox in engine.sandboxes() {
        if let Err(error) = engine.stop_sandbox(&sandbox.id).await {
            problems.push(error.to_string());
        }
        if let Err(error) = engine.remove_sandbox(&sandbox.id).await {
            problems.push(error.to_string());
        }
    }
}
