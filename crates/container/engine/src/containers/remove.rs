//! Removing containers.
//!
//! The intent is a rename of the container's directory into `.trash`: one atomic step, after which the
//! container is gone for everybody. What is left is taken away in the background, or at the next open.

use std::{fs, sync::Arc};

use crate::{
    Engine, blocking,
    error::{Error, Result},
    record::{Container, MountKind, Phase, Record},
    signal,
    table::Slot,
};

/// How a removal behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Kill it first when it runs.
    pub force: bool,
    /// Remove its anonymous volumes.
    pub volumes: bool,
}

/// What a prune removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// IDs or names.
    pub removed: Vec<String>,
    /// Bytes given back.
    pub reclaimed_bytes: u64,
}

impl Engine {
    /// Removes it. Answers once the intent is on disk; the rest goes on in the background.
    pub async fn remove_container(&self, name: &str, options: RemoveOptions) -> Result<()> {
        let slot = self.find(name)?;
        if options.force {
            self.kill_for_removal(&slot, name).await?;
        }
        let _life = slot.life.lock().await;
        match slot.phase() {
            Phase::Running(running) => {
                let (state, advice) = if running.paused {
                    ("paused", "unpause and then stop the container before removal or force remove")
                } else {
                    ("running", "stop the container before removal or force remove")
                };
                return Err(Error::Conflict(format!(
                    "cannot remove container \"/{}\": container is {state}: {advice}",
                    slot.record().name
                )));
            }
            Phase::Removing => {
                return Err(Error::Conflict(format!("removal of container {name} is already in progress")));
            }
            Phase::Created | Phase::Exited(_) | Phase::Restarting(_) | Phase::Dead => {}
        }
        slot.abort_helpers();
        let before = std::mem::replace(&mut slot.state().phase, Phase::Removing);
        let record = slot.record();
        if let Err(error) = self.move_to_trash(&record, options.volumes) {
            slot.state().phase = before;
            return Err(error);
        }
        self.0.table.remove(&slot.id);
        tracing::info!(container = %slot.id, name = %record.name, "container removed");
        self.container_event(&record, "destroy", &[]);
        slot.pulse.send_modify(|pulse| pulse.removed = true);
        let (engine, teardown, cleaning) = (self.clone(), slot.state().teardown.take(), self.0.cleanups.begin());
        tokio::spawn(async move {
            let _cleaning = cleaning;
            if let Some(teardown) = teardown {
                let _ = teardown.await;
            }
            engine.finish_removal(&record).await;
        });
        Ok(())
    }

    /// Kills a running container and waits for its end.
    async fn kill_for_removal(&self, slot: &Arc<Slot>, name: &str) -> Result<()> {
        if !matches!(slot.phase(), Phase::Running(_)) {
            return Ok(());
        }
        match self.kill_container(&slot.id, "KILL").await {
            Ok(()) | Err(Error::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
        if let Ok(handle) = slot.handle() {
            // Init is gone only when the kernel says so; what it left behind goes as well.
            let _ = handle.kill(signal::KILL, true).await;
            return Err(Error::System(format!("cannot remove container \"{name}\": could not kill container")));
        }
        Ok(())
    }

    fn move_to_trash(&self, record: &Record, volumes: bool) -> Result<()> {
        let dir = self.container_dir(&record.id);
        if volumes {
            let marker = dir.join(WITH_VOLUMES);
            fs::write(&marker, b"").map_err(|e| Error::file("create", &marker, e))?;
        }
        let trash = self.trash_dir(&record.id);
        fs::rename(&dir, &trash).map_err(|e| Error::file("rename to", &trash, e))
    }

    pub(crate) fn trash_dir(&self, id: &str) -> std::path::PathBuf {
        self.0.parts.root.join("containers/.trash").join(id)
    }

    /// Takes away everything of a container in the trash; its directory goes last, so that a crash repeats it.
    pub(crate) async fn finish_removal(&self, record: &Record) {
        let trash = self.trash_dir(&record.id);
        self.tear_down_network(record).await;
        let (engine, record) = (self.clone(), record.clone());
        let done = blocking(move || {
            if let Err(errors) = monitor::delete(&trash, &record.cgroup) {
                errors
                    .iter()
                    .for_each(|error| tracing::warn!(container = %record.id, %error, "leftover of a container"));
            }
            engine.0.parts.snapshots.remove(&record.id).map_err(|e| Error::system("remove root filesystem", e))?;
            if trash.join(WITH_VOLUMES).exists() {
                engine.remove_anonymous_volumes(&record);
            }
            crate::disk::remove_dir(&trash).map_err(|e| Error::file("remove", &trash, e))
        });
        if let Err(error) = done.await {
            tracing::warn!(%error, "removal not finished; it is tried again at the next start");
        }
    }

    /// Removes a container's anonymous volumes, best effort: one that another container took over stays.
    pub(crate) fn remove_anonymous_volumes(&self, record: &Record) {
        let anonymous = record.mounts.iter().filter(|m| m.kind == MountKind::Volume && m.anonymous);
        for name in anonymous.filter_map(|mount| mount.name.as_deref()) {
            let users = self.volume_users(name, Some(&record.id));
            if let Err(error) = self.0.volumes.remove(name, &users, true) {
                tracing::debug!(volume = name, %error, "anonymous volume kept");
            }
        }
    }

    /// Removes every container of Docker's half that does not run and that the filter takes.
    pub async fn prune_containers(&self, filter: impl Fn(&Container) -> bool) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for container in self.containers() {
            let idle = matches!(container.phase, Phase::Created | Phase::Exited(_) | Phase::Dead);
            if !idle || container.record.pod.is_some() || !filter(&container) {
                continue;
            }
            let size = self.container_size(&container.record.id).await.unwrap_or(0);
            if self.remove_container(&container.record.id, RemoveOptions::default()).await.is_ok() {
                pruned.removed.push(container.record.id);
                pruned.reclaimed_bytes += size;
            }
        }
        Ok(pruned)
    }
}

/// In a trashed container's directory: its anonymous volumes go with it.
const WITH_VOLUMES: &str = "remove-volumes";
