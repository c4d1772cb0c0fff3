//! `gantry up` at work: every role in one process, started in the order that they need each other.
//!
//! Invariant: `ready` is said only when the sockets answer, the node is Ready and cluster DNS answers. A stop by signal
//! leaves containers and kernel rules as they are (an upgrade is a stop and a start); `gantry down` takes them away.

mod cluster;
mod container;
mod drain;
mod host;
mod tasks;
mod teardown;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::commands::up::Notice;
use crate::door::Door;
use crate::instance::{Card, Lock};
use crate::paths::Paths;

pub(crate) use teardown::teardown;

/// How long a start may take before it is given up.
const READY_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(
    paths: &Paths,
    zygote: monitor::Zygote,
    notice: &Notice,
    lock: Lock,
    door: &Door,
    runtime_socket: Option<&Path>,
) -> Result<()> {
    let began = Instant::now();
    let started = jiff::Timestamp::now();
    init_logging();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(async {
        let mut tasks = tasks::Tasks::default();
        let up = tokio::time::timeout(READY_WITHIN, start(paths, zygote, door, runtime_socket, &mut tasks));
        let cluster = up.await.context("not ready after 30 s")??;
        let ready_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let card = Card {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started,
            ready_ms,
            api_server: cluster.url.clone(),
            registry: container::REGISTRY.to_owned(),
            node: cluster.node.clone(),
        };
        card.write(paths)?;
        tracing::info!(ready_ms, node = card.node, "ready");
        notice.send(&format!("ready Gantry is up after {ready_ms} ms: node {} on {}", card.node, paths.root.display()));
        let stopped = stopped(&mut tasks).await;
        cluster.stop().await;
        tasks.stop().await;
        stopped
    });
    // Blocking work that hangs (a registry that does not answer) must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    drop(lock);
    outcome
}

async fn start(
    paths: &Paths,
    zygote: monitor::Zygote,
    door: &Door,
    runtime_socket: Option<&Path>,
    tasks: &mut tasks::Tasks,
) -> Result<cluster::Cluster> {
    let host = host::Host::observe()?;
    // The two halves meet only where the node agent gets its CRI.
    let (engine, control_plane) =
        tokio::try_join!(container::open_engine(paths, zygote), cluster::ControlPlane::open(paths, &host))?;
    let cri = container::serve(paths, engine, door, tasks).await?;
    let runtime = match runtime_socket {
        None => cluster::PodRuntime { cri: cri.clone(), streaming: cri, socket: paths.cri_socket() },
        Some(socket) => {
            let remote = std::sync::Arc::new(cri::RemoteCri::new(socket));
            cluster::PodRuntime { cri: remote.clone(), streaming: remote, socket: socket.to_owned() }
        }
    };
    control_plane.start(paths, &host, runtime, tasks).await
}

/// Waits for a signal, or for a part that ended though it never should.
async fn stopped(tasks: &mut tasks::Tasks) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        error = tasks.failed() => Err(error),
    }
}

pub(crate) fn init_logging() {
    use std::io::IsTerminal;
    let filter = tracing_subscriber::EnvFilter::try_from_env("GANTRY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
