//! An engine with its Docker API and nothing else, to drive with a stock client while the `gantry` binary is not
//! there: `unshare -n -m target/debug/examples/serve ROOT`, then `DOCKER_HOST=unix://ROOT/run/docker.sock docker …`.

use std::{os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc};

use docker_api::{Backend, Identity};
use tokio::net::UnixListener;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    monitor::run_role_if_asked();
    let root = PathBuf::from(std::env::args().nth(1).ok_or("usage: serve ROOT")?);
    let zygote = monitor::Zygote::spawn()?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run(root, zygote))
}

async fn run(root: PathBuf, zygote: monitor::Zygote) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(root.join("run"))?;
    let content = content::Store::open(&root)?;
    let snapshots = snapshots::Snapshots::open(&root, content.clone())?;
    let networking = networking::Networking::open(networking::NetworkingConfig::with_root(&root)).await?;
    let engine = engine::Engine::open(engine::Parts {
        cgroup_parent: format!("gantry-serve-{}", std::process::id()),
        zygote,
        networking,
        registry: distribution::client::Client::new(content.clone(), snapshots.clone(), Vec::new()),
        content: content.clone(),
        snapshots: snapshots.clone(),
        host_resolv_conf: "/etc/resolv.conf".into(),
        root: root.clone(),
    })
    .await?;
    let hands = Arc::new(engine.clone());
    let builder = build::Builder::new(content, snapshots, hands.clone(), hands, &root.join("builds"))?;
    let buildkit = buildkit::BuildKit::new(builder.clone(), env!("CARGO_PKG_VERSION"));
    let identity = Identity {
        gantry_version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: String::new(),
        id: "example".to_owned(),
        insecure_registries: Vec::new(),
        started: jiff::Timestamp::now(),
    };
    let socket = root.join("run/docker.sock");
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket)?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
    docker_api::serve(listener, Backend { engine, builder, buildkit, identity: Arc::new(identity) }).await?;
    Ok(())
}
