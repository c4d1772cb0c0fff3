//! One start, from record to running process: files, network, spec, monitor.
//!
//! Called by `start` under the life lock. On failure everything that this run made is taken away again.

use std::{fs, sync::Arc};

use monitor::{Handle, Launch, RootFs};

use super::log_options;

use crate::{
    Engine, blocking,
    error::{Error, Result},
    merge,
    record::{MountKind, Record},
    table::Slot,
};

/// A container that runs.
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) handle: Handle,
}

impl Engine {
    pub(super) async fn launch(&self, slot: &Arc<Slot>) -> Result<Started> {
        let record = slot.record();
        let result = self.try_launch(slot, &record).await;
        if result.is_err() {
            self.clean_run(&record).await;
        }
        result
    }

    async fn try_launch(&self, slot: &Arc<Slot>, record: &Record) -> Result<Started> {
        let record = &self.named_as_its_host(slot, record)?;
        let engine = self.clone();
        let for_root = record.clone();
        let root = blocking(move || engine.root_of(&for_root));
        let network = self.0.cleanups.or_after(|| self.set_up_network(record));
        let (root, places) = tokio::join!(root, network);
        let ((root, user), places) = (root?, places?);
        let links = self.default_links(record)?;
        let files = self.write_files(slot, record, &places, &links)?;
        let (record_with_images, images) = self.mount_images(record).await?;
        let mut config = self.container_config(&record_with_images, user, &places, files)?;
        let linked: Vec<String> = links.iter().flat_map(|link| link.env.clone()).collect();
        config.env = merge::merge_env(config.env, &linked);
        let log = log_options::policy(record, &slot.dir)?;
        if record.pod.is_none()
            && let Some(parent) =
                log.path.parent().filter(|parent| *parent != slot.dir && parent.starts_with(&slot.dir))
        {
            fs::create_dir_all(parent).map_err(|e| Error::file("create", parent, e))?;
        }
        let spec = bundle::spec(&config).map_err(|e| Error::Invalid(e.to_string()))?;
        let launch = Launch {
            id: record.id.clone(),
            dir: slot.dir.clone(),
            spec,
            rootfs: root,
            cgroup: record.cgroup.clone(),
            terminal: record.config.tty,
            open_stdin: record.config.open_stdin,
            stdin_once: record.config.stdin_once,
            init: record.host.init == Some(true),
            log,
        };
        let created = self.0.parts.zygote.create(&launch).await.map_err(start_error)?;
        // The container has its own mounts of them now.
        drop(images);
        self.attach_pending(slot, &created.handle).await;
        if let Err(error) = created.handle.start().await {
            return Err(start_error(error));
        }
        Ok(Started { pid: created.init_pid, handle: created.handle })
    }

    /// Whoever shares another container's network has its name as well.
    fn named_as_its_host(&self, slot: &Arc<Slot>, record: &Record) -> Result<Record> {
        let Some(other) = record.host.network_mode.strip_prefix("container:") else { return Ok(record.clone()) };
        let hostname = self.find(other)?.record().hostname;
        if hostname != record.hostname {
            slot.update_record(crate::disk::Durability::Cached, |record| record.hostname = hostname)?;
        }
        Ok(slot.record())
    }

    /// The record with image mounts resolved to host paths, and what keeps those paths there.
    async fn mount_images(&self, record: &Record) -> Result<(Record, Vec<snapshots::MountedDir>)> {
        if !record.mounts.iter().any(|point| point.kind == MountKind::Image) {
            return Ok((record.clone(), Vec::new()));
        }
        let (engine, mut record) = (self.clone(), record.clone());
        blocking(move || {
            let mut mounted = Vec::new();
            for point in record.mounts.iter_mut().filter(|point| point.kind == MountKind::Image) {
                let (kept, path) = engine.image_files(point)?;
                point.source = path.display().to_string();
                mounted.push(kept);
            }
            Ok((record, mounted))
        })
        .await
    }

    /// Takes away what a run leaves: processes, cgroup, monitor files, network. Goes on after failures.
    pub(crate) async fn clean_run(&self, record: &Record) {
        let (dir, cgroup) = (self.container_dir(&record.id), record.cgroup.clone());
        let swept = tokio::task::spawn_blocking(move || monitor::delete(&dir, &cgroup));
        let network = self.tear_down_network(record);
        let (swept, ()) = tokio::join!(swept, network);
        if let Ok(Err(errors)) = swept {
            for error in errors {
                tracing::warn!(container = %record.id, %error, "leftover of a run");
            }
        }
    }
}

/// What the monitor said, as Docker words a start that failed.
pub(crate) fn start_error(error: monitor::Error) -> Error {
    match error {
        monitor::Error::Refused(failure) => {
            Error::StartFailed { exit_code: failure.exit_code(), message: failure.message }
        }
        other => Error::system("start container", other),
    }
}

/// The overlay that a snapshot's mount describes.
pub(crate) fn overlay(mount: snapshots::Mount) -> Result<RootFs> {
    let read_only = || Error::System("the root filesystem is not writable".to_owned());
    let (upper, work) = mount.upper.zip(mount.work).ok_or_else(read_only)?;
    // An image without layers: the writable directory is all there is.
    if mount.lowers.is_empty() {
        return Ok(RootFs::Plain { path: upper });
    }
    Ok(RootFs::Overlay { lowers: mount.lowers, upper, work })
}
