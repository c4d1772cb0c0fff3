//! The Docker half: engine, its API, the registry, CRI.

use std::sync::Arc;

use anyhow::{Context, Result};
use engine::Engine;
use tokio::net::{TcpListener, UnixListener};

use crate::daemon::tasks::Tasks;
use crate::door::Door;
use crate::paths::Paths;

/// Where the registry listens. Loopback: whoever can reach it can write to it.
pub(crate) const REGISTRY: &str = "localhost:5000";
/// The machine's own settings.
const MACHINE: &str = "/etc/gantry";
const REGISTRY_LISTENS: &str = "127.0.0.1:5000";

/// Opens the engine on a root: adopts what runs, sweeps what was half-made.
pub(crate) async fn open_engine(paths: &Paths, zygote: monitor::Zygote) -> Result<Engine> {
    let root = paths.root.clone();
    let network_config = networking::NetworkingConfig::with_root(&root);
    let host_resolv_conf = network_config.host_resolv_conf.clone();
    let stores = tokio::task::spawn_blocking(move || {
        let content = content::Store::open(&root).context("cannot open the content store")?;
        let snapshots = snapshots::Snapshots::open(&root, content.clone()).context("cannot open the layer store")?;
        anyhow::Ok((content, snapshots))
    });
    let networking = async { networking::Networking::open(network_config).await.context("cannot set up the network") };
    let ((content, snapshots), networking) =
        tokio::try_join!(async { stores.await.context("opening the stores")? }, networking)?;
    let registry = distribution::client::Client::with_hosts(content.clone(), snapshots.clone(), registries(paths)?);
    let parts = engine::Parts {
        root: paths.root.clone(),
        cgroup_parent: paths.cgroup_parent(),
        zygote,
        networking,
        content,
        snapshots,
        registry,
        host_resolv_conf,
    };
    Engine::open(parts).await.context("cannot open the engine")
}

/// How registries are reached: `daemon.json` and `certs.d` of the root, then of the machine, then Docker's certificates.
fn registries(paths: &Paths) -> Result<distribution::client::Hosts> {
    let parsed = distribution::client::Hosts::parse(&settings(paths)?.to_string());
    let mut hosts = parsed.context("daemon.json: what it says of registries cannot be understood")?;
    let dirs = [paths.root.as_path(), MACHINE.as_ref(), "/etc/docker".as_ref()];
    hosts.certificate_dirs = dirs.iter().map(|dir| dir.join("certs.d")).collect();
    Ok(hosts)
}

/// `daemon.json` of the root, or else of the machine; `{}` where there is none.
fn settings(paths: &Paths) -> Result<serde_json::Value> {
    for dir in [paths.root.as_path(), MACHINE.as_ref()] {
        let path = dir.join("daemon.json");
        match std::fs::read(&path) {
            Ok(text) => {
                return serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
    Ok(serde_json::json!({}))
}

/// Serves the engine's doors; returns CRI for the node agent.
pub(crate) async fn serve(
    paths: &Paths,
    engine: Engine,
    door: &Door,
    tasks: &mut Tasks,
) -> Result<Arc<cri::EngineCri>> {
    let docker = bind(&paths.docker_socket())?;
    let shared = Arc::new(engine.clone());
    let (content, snapshots) = (engine.content().clone(), engine.snapshots().clone());
    let builder = build::Builder::new(content, snapshots, shared.clone(), shared, &paths.root.join("builds"))
        .context("cannot open the build cache")?;
    let buildkit = buildkit::BuildKit::new(builder.clone(), env!("CARGO_PKG_VERSION"));
    let identity = docker_api::Identity {
        gantry_version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: String::new(),
        id: paths.cgroup_parent(),
        insecure_registries: vec!["127.0.0.0/8".to_owned()],
        started: jiff::Timestamp::now(),
    };
    let backend = docker_api::Backend { engine: engine.clone(), builder, buildkit, identity: Arc::new(identity) };
    if let Some(max_size_bytes) = settings(paths)?["max-size-bytes"].as_u64() {
        tasks.spawn("disk budget", engine.clone().keep_budget(engine::Budget::of(max_size_bytes)));
    }
    if let Some((address, files)) = door.parse()? {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("the Docker API cannot listen on {address}"))?;
        tasks.spawn("Docker API over TCP", docker_api::serve_tcp(listener, files, backend.clone()));
    }
    tasks.spawn("Docker API", docker_api::serve(docker, backend));
    let listener = TcpListener::bind(REGISTRY_LISTENS).await.with_context(|| {
        format!("the registry cannot listen on {REGISTRY_LISTENS}: end what listens there, then try again")
    })?;
    let registry =
        distribution::registry::Registry::open(engine.content().clone()).context("cannot open the registry")?;
    tasks.spawn("registry", registry.serve(listener));
    let cri = Arc::new(cri::EngineCri::new(engine));
    tasks.spawn("CRI server", cri::serve(cri.clone(), cri.clone(), bind(&paths.cri_socket())?));
    Ok(cri)
}

/// A socket that only root may use. What a killed instance left in its place is removed: the lock is ours.
fn bind(path: &std::path::Path) -> Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot remove the old socket {}", path.display())),
    }
    let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    Ok(listener)
}
