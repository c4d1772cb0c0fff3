//! `gantry store`: backups of the cluster's state, and new keys for it.
//!
//! A snapshot is taken from the running instance through its API, or from the files of a stopped one. Restoring replaces the state
//! of a stopped instance; what was there is kept beside it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use futures_util::StreamExt as _;

use crate::instance::Lock;
use crate::paths::Paths;
use crate::store;

/// Added to the revision of a restored store: more than any instance writes between two snapshots.
const BUMP: u64 = 1_000_000_000;

#[derive(Debug, Subcommand)]
pub(crate) enum StoreVerb {
    /// Write the cluster's whole state to a file, while it runs or not
    Snapshot { file: PathBuf },
    /// Replace the state of a stopped instance by a snapshot's
    Restore { file: PathBuf },
    /// Encrypt secrets with a new key from the next start on
    RotateKey,
}

pub(crate) fn run(paths: &Paths, verb: &StoreVerb) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match verb {
        StoreVerb::Snapshot { file } => {
            let file = std::path::absolute(file)?;
            let revision = runtime.block_on(snapshot(paths, &file))?;
            println!("Snapshot of revision {revision} written to {}", file.display());
            println!("Keep {} with it: secrets in it are encrypted", store::keys(&paths.root).display());
        }
        StoreVerb::Restore { file } => restore(paths, file)?,
        StoreVerb::RotateKey => {
            must_be_stopped(paths)?;
            let id = ::store::Sealer::rotate(&store::keys(&paths.root))?;
            let revision = runtime.block_on(rewrite(paths))?;
            println!(
                "Secrets are encrypted with key {id} (revision {revision}); older snapshots still need the older keys"
            );
        }
    }
    Ok(())
}

fn must_be_stopped(paths: &Paths) -> Result<()> {
    match Lock::held_by(paths)? {
        Some(pid) => bail!("{} is held by process {pid}: stop it with `gantry down` first", paths.root.display()),
        None => Ok(()),
    }
}

async fn snapshot(paths: &Paths, file: &Path) -> Result<u64> {
    if Lock::held_by(paths)?.is_none() {
        let store = store::open(&paths.root).context("cannot open the store")?;
        return Ok(store.snapshot(file).await?);
    }
    let client = kube_client::Client::from_kubeconfig(paths.kubeconfig())?;
    let request = http::Request::get("/gantry/store/snapshot").body(bytes::Bytes::new())?;
    let answer = client.send(request).await.context("cannot get a snapshot from the API server")?;
    let revision = answer.headers().get("x-gantry-revision").and_then(|value| value.to_str().ok()?.parse().ok());
    let part = file.with_extension("part");
    let mut body = answer.into_body();
    {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = std::fs::File::options();
        let mut out = options.create(true).truncate(true).write(true).mode(0o600).open(&part)?;
        while let Some(chunk) = body.next().await {
            out.write_all(&chunk?)?;
        }
        out.sync_all()?;
    }
    std::fs::rename(&part, file).with_context(|| format!("cannot write {}", file.display()))?;
    revision.context("the API server did not say which revision the snapshot is of")
}

fn restore(paths: &Paths, file: &Path) -> Result<()> {
    must_be_stopped(paths)?;
    let (directory, fresh) = (store::directory(&paths.root), paths.root.join("store.restoring"));
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh).with_context(|| format!("cannot remove {}", fresh.display()))?;
    }
    let revision = ::store::Store::restore(file, &fresh, BUMP)?;
    if directory.exists() {
        let kept = paths.root.join(format!("store.before-{}", jiff::Timestamp::now().as_second()));
        std::fs::rename(&directory, &kept).with_context(|| format!("cannot move {}", directory.display()))?;
        println!("What was there is kept in {}", kept.display());
    }
    std::fs::rename(&fresh, &directory).with_context(|| format!("cannot move {}", fresh.display()))?;
    println!("Restored as revision {revision}; start it with `gantry up`");
    Ok(())
}

/// Writes every value anew, with the newest key.
async fn rewrite(paths: &Paths) -> Result<u64> {
    let store = store::open(&paths.root).context("cannot open the store")?;
    // A compaction writes what is there; to do so it needs a revision that it has not yet compacted to.
    let key = bytes::Bytes::from_static(b"/gantry/rotated");
    let value = bytes::Bytes::from(jiff::Timestamp::now().to_string());
    let put = ::store::Txn { compare: Vec::new(), ops: vec![::store::Op::Put { key, value }] };
    store.txn(put).await?;
    let revision = store.revision();
    store.compact(revision).await?;
    Ok(revision)
}
