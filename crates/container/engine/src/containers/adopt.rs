//! Finding everything again when the engine opens: what runs, what ended meanwhile, what a crash left half-done.

use std::{fs, path::Path, sync::Arc};

use jiff::Timestamp;

use super::create::INTENT;
use crate::{
    Engine, disk,
    error::{Error, Result},
    record::{Exited, Phase, Record, Running},
    restart,
    table::{RECORD, Slot},
};

impl Engine {
    pub(crate) async fn adopt_containers(&self) -> Result<()> {
        self.finish_trash()?;
        let dir = self.0.parts.root.join("containers");
        let mut adoptions = Vec::new();
        for entry in fs::read_dir(&dir).map_err(|e| Error::file("read", &dir, e))? {
            let path = entry.map_err(|e| Error::file("read", &dir, e))?.path();
            if path.file_name().is_some_and(|name| name == ".trash") {
                continue;
            }
            match disk::read_json::<Record>(&path.join(RECORD)) {
                Ok(Some(record)) => {
                    let engine = self.clone();
                    adoptions.push(tokio::spawn(async move { engine.adopt(record, &path).await }));
                }
                Ok(None) => self.sweep_half_made(&path),
                // Evidence of something worse than a crash: left for a human to look at.
                Err(error) => tracing::error!(%error, "container record is not readable; left alone"),
            }
        }
        for adoption in adoptions {
            adoption.await.map_err(|e| Error::system("adopt container", e))?;
        }
        Ok(())
    }

    async fn adopt(&self, record: Record, dir: &Path) {
        let handle = match record.started_at {
            Some(_) => monitor::Handle::open(dir).await.ok(),
            None => None,
        };
        let state = match &handle {
            Some(handle) => handle.state().await.ok().filter(|state| state.started),
            None => None,
        };
        match (handle, state) {
            (Some(handle), Some(state)) => self.adopt_running(record, dir, handle, state.init_pid),
            (Some(_) | None, _) => self.adopt_ended(record, dir).await,
        }
    }

    fn adopt_running(&self, record: Record, dir: &Path, handle: monitor::Handle, pid: i32) {
        let started_at = record.started_at.unwrap_or_else(Timestamp::now);
        let paused = self.is_frozen(&record.cgroup);
        let slot = Slot::new(record, Phase::Running(Running { pid, started_at, paused }), dir.to_owned());
        slot.state().handle = Some(handle.clone());
        self.0.table.insert(Arc::clone(&slot));
        self.watch_run(&slot, handle);
        self.spawn_health(&slot, super::health::recall(dir), started_at);
    }

    async fn adopt_ended(&self, record: Record, dir: &Path) {
        let Some(started_at) = record.started_at else {
            // A start that a crash interrupted left perhaps a gated init behind.
            if dir.join("monitor.sock").exists() {
                self.clean_run(&record).await;
            }
            self.0.table.insert(Slot::new(record, Phase::Created, dir.to_owned()));
            return;
        };
        let status = monitor::exit_status(dir).ok().flatten();
        let exited = match (&status, &record.start_failure) {
            (Some(status), None) => Exited {
                code: status.code,
                oom_killed: status.oom_killed,
                started_at,
                finished_at: status.finished_at,
                error: String::new(),
            },
            (_, Some((code, error))) => {
                Exited { code: *code, oom_killed: false, started_at, finished_at: started_at, error: error.clone() }
            }
            // Neither monitor nor record: the machine went down.
            (None, None) => {
                Exited { code: 255, oom_killed: false, started_at, finished_at: started_at, error: String::new() }
            }
        };
        let (auto_remove, starts) = (
            record.host.auto_remove,
            record.pod.is_none() && restart::starts_at_open(&record.host.restart_policy, record.stopped_by_user),
        );
        self.clean_run(&record).await;
        let slot = Slot::new(record, Phase::Exited(exited), dir.to_owned());
        slot.state().health = super::health::recall(dir);
        self.0.table.insert(Arc::clone(&slot));
        if auto_remove {
            self.spawn_auto_remove(&slot);
        } else if starts {
            let engine = self.clone();
            tokio::spawn(async move {
                if let Err(error) = engine.start_container(&slot.id).await {
                    tracing::warn!(container = %slot.id, %error, "start by restart policy failed");
                }
            });
        }
    }

    /// A create that never became a container.
    fn sweep_half_made(&self, dir: &Path) {
        tracing::info!(dir = %dir.display(), "undoing an interrupted create");
        match disk::read_json::<Record>(&dir.join(INTENT)) {
            Ok(Some(record)) => self.undo_create(&record, dir),
            Ok(None) | Err(_) => {
                if let Err(error) = fs::remove_dir_all(dir) {
                    tracing::warn!(dir = %dir.display(), %error, "leftover not removed");
                }
            }
        }
    }

    /// Removals that were acknowledged but not finished.
    fn finish_trash(&self) -> Result<()> {
        let trash = self.0.parts.root.join("containers/.trash");
        for entry in fs::read_dir(&trash).map_err(|e| Error::file("read", &trash, e))? {
            let path = entry.map_err(|e| Error::file("read", &trash, e))?.path();
            match disk::read_json::<Record>(&path.join(RECORD)) {
                Ok(Some(record)) => {
                    let engine = self.clone();
                    tokio::spawn(async move { engine.finish_removal(&record).await });
                }
                // The directory itself was being removed when the end came: nothing else is left.
                Ok(None) | Err(_) => {
                    let _ = fs::remove_dir_all(&path);
                }
            }
        }
        Ok(())
    }
}
