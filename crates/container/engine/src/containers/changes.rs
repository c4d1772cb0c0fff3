//! A container's own changes: listed, exported, committed to an image.

use std::io::Write;

use content::{NewImage, Origin};
use jiff::Timestamp;
use oci::{History, ImageConfig, ImageId, Reference};
use snapshots::{Change, ChangeKind};

use crate::{
    Engine, Subject, blocking,
    config::Config,
    error::{Error, Result},
    images::content_error,
    merge,
    record::Phase,
};

/// What every container has mounted over its root.
const MOUNTED: [&str; 6] = ["/dev", "/proc", "/sys", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// How a commit names and describes its image.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// The image's name; none when absent.
    pub reference: Option<Reference>,
    /// Kept in the history.
    pub comment: String,
    /// Kept in the configuration.
    pub author: String,
    /// Freeze the container meanwhile.
    pub pause: bool,
    /// Changes of the configuration, applied over the container's own.
    pub config: Option<Config>,
}

impl Engine {
    /// Paths that the container changed, added or deleted.
    pub async fn container_changes(&self, name: &str) -> Result<Vec<Change>> {
        let (engine, record) = (self.clone(), self.find(name)?.record());
        blocking(move || {
            let mut changes =
                engine.0.parts.snapshots.changes(&record.id).map_err(|e| Error::system("list changes", e))?;
            // Places for mounts are the engine's doing, not the container's.
            changes.retain(|change| {
                let path = format!("/{}", change.path.display().to_string().trim_start_matches('/'));
                let place = MOUNTED.contains(&path.as_str()) || record.mounts.iter().any(|m| m.destination == path);
                !(place && change.kind == ChangeKind::Added)
            });
            Ok(changes)
        })
        .await
    }

    /// Writes the whole root filesystem as a tar. Blocks; call it from the blocking pool.
    pub fn export_container(&self, name: &str, out: &mut dyn Write) -> Result<()> {
        let slot = self.find(name)?;
        let root = self.open_root(&slot)?;
        super::archive::write_tree(root.dir(), out)
    }

    /// Makes an image of the container's root filesystem and configuration.
    pub async fn commit_container(&self, name: &str, options: CommitOptions) -> Result<ImageId> {
        let slot = self.find(name)?;
        let freeze = options.pause && matches!(slot.phase(), Phase::Running(running) if !running.paused);
        if freeze {
            self.freeze(&slot, true).await?;
        }
        let (engine, record) = (self.clone(), slot.record());
        let id = record.id.clone();
        let captured = blocking(move || {
            engine.0.parts.snapshots.capture(&id).map_err(|e| Error::system("capture root filesystem", e))
        })
        .await;
        if freeze {
            self.freeze(&slot, false).await?;
        }
        let captured = captured?;
        let (engine, for_image) = (self.clone(), record.clone());
        let image = blocking(move || engine.record_commit(&for_image, captured, &options)).await?;
        self.container_event(&record, "commit", &[("comment", String::new())]);
        self.publish(Subject::Image, "create", &image.to_string(), Default::default());
        Ok(image)
    }

    fn record_commit(
        &self,
        record: &crate::record::Record,
        captured: snapshots::Committed,
        options: &CommitOptions,
    ) -> Result<ImageId> {
        let base = self.find_image(&record.image_id)?;
        let mut config: ImageConfig = (*base.config).clone();
        let now = Timestamp::now();
        config.created = Some(now);
        config.author = Some(options.author.clone()).filter(|author| !author.is_empty());
        config.rootfs.diff_ids.push(captured.diff_id);
        config.history.push(History {
            created: Some(now),
            created_by: Some(merge::args(&record.config).join(" ")),
            comment: Some(options.comment.clone()).filter(|comment| !comment.is_empty()),
            author: config.author.clone(),
            ..History::default()
        });
        let run = options.config.clone().map_or_else(|| record.config.clone(), |changes| over(changes, &record.config));
        config.config = merge::to_image(&run);
        let mut layers = base.layers.clone();
        layers.push(captured.blob);
        let bytes = serde_json::to_vec(&config).map_err(|e| Error::system("encode image configuration", e))?;
        let size = Some(base.size + captured.size);
        let new = NewImage { config: bytes, layers, manifest_digest: None, origin: Origin::Local, size };
        let id = self.0.parts.content.create_image(new).map_err(content_error)?;
        if let Some(reference) = &options.reference {
            self.0.parts.content.images().tag(&id, &reference.clone().or_latest()).map_err(content_error)?;
        }
        Ok(id)
    }
}

/// `--change`: what the changes name, over the container's.
fn over(changes: Config, base: &Config) -> Config {
    let mut run = base.clone();
    let text = |to: &mut String, from: String| {
        if !from.is_empty() {
            *to = from;
        }
    };
    text(&mut run.user, changes.user);
    text(&mut run.working_dir, changes.working_dir);
    text(&mut run.stop_signal, changes.stop_signal);
    run.cmd = changes.cmd.or(run.cmd);
    run.entrypoint = changes.entrypoint.or(run.entrypoint);
    run.healthcheck = changes.healthcheck.or(run.healthcheck);
    run.env = merge::merge_env(changes.env, &run.env);
    run.exposed_ports.extend(changes.exposed_ports);
    run.labels.extend(changes.labels);
    if let Some(volumes) = changes.volumes {
        run.volumes.get_or_insert_default().extend(volumes);
    }
    run
}
