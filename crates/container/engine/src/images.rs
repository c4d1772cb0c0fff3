//! Image operations where containers matter: what a container needs of its image, and what is in use.

use content::{Deleted, Image, Origin};
use oci::{ImageId, Reference};

use crate::{
    Engine, Subject, blocking,
    containers::resolve_user,
    error::{Error, Result},
    record::Phase,
};

/// The content store's errors as the engine's.
pub fn content_error(error: content::Error) -> Error {
    let text = error.to_string();
    if matches!(error, content::Error::Reference(_)) {
        Error::Invalid(text)
    } else if error.is_not_found() {
        Error::NotFound(text)
    } else if error.is_conflict() {
        Error::Conflict(text)
    } else {
        Error::System(text)
    }
}

impl Engine {
    /// An image by name, ID or prefix, in Docker's words when it is not there.
    pub fn find_image(&self, name: &str) -> Result<Image> {
        self.0.parts.content.images().resolve(name).map_err(|error| match error {
            content::Error::NoImage(_) => Error::NoSuchImage(with_tag(name)),
            content::Error::Reference(e) => Error::Invalid(e.to_string()),
            other => content_error(other),
        })
    }

    /// IDs of the containers (of either half) that were made from an image.
    pub fn image_users(&self, image: &ImageId) -> Vec<String> {
        let wanted = image.to_string();
        let slots = self.0.table.all();
        let uses = |record: &crate::record::Record| {
            let mounts = |m: &crate::record::MountPoint| {
                m.kind == crate::record::MountKind::Image && m.name.as_ref() == Some(&wanted)
            };
            record.image_id == wanted || record.mounts.iter().any(mounts)
        };
        slots.iter().filter(|slot| uses(&slot.record())).map(|slot| slot.id.clone()).collect()
    }

    /// Deletes an image or one of its names; what is in use stays unless only a stopped container uses it and
    /// `force` is given.
    pub async fn remove_image(&self, name: &str, force: bool) -> Result<Vec<Deleted>> {
        let image = self.find_image(name)?;
        self.refuse_if_used(name, &image, force)?;
        let (engine, owned) = (self.clone(), name.to_owned());
        let deleted =
            blocking(move || engine.0.parts.content.images().remove(&owned, force).map_err(content_error)).await?;
        for one in &deleted {
            let (action, id) = match one {
                Deleted::Untagged(name) => ("untag", name.clone()),
                Deleted::Deleted(id) => ("delete", id.to_string()),
                Deleted::Layer(_) => continue,
            };
            self.publish(Subject::Image, action, &id, [("name".to_owned(), name.to_owned())].into());
        }
        if deleted.iter().any(|one| matches!(one, Deleted::Deleted(_))) {
            self.collect_soon();
        }
        Ok(deleted)
    }

    fn refuse_if_used(&self, name: &str, image: &Image, force: bool) -> Result<()> {
        let by_name = Reference::parse(name).is_ok_and(|r| image.names.contains(&r.or_latest()));
        if by_name && image.names.len() > 1 {
            return Ok(());
        }
        let Some(user) = self.image_users(&image.id).into_iter().next() else { return Ok(()) };
        let running = self.find(&user).is_ok_and(|slot| matches!(slot.phase(), Phase::Running(_)));
        let (short, container) = (image.id.0.short(), &user[..12]);
        if running && !by_name {
            return Err(Error::Conflict(format!(
                "conflict: unable to delete {short} (cannot be forced) - image is being used by running container {container}"
            )));
        }
        if force {
            return Ok(());
        }
        Err(Error::Conflict(if by_name {
            format!(
                "conflict: unable to remove repository reference \"{name}\" (must force) - container {container} is using its referenced image {short}"
            )
        } else {
            format!(
                "conflict: unable to delete {short} (must be forced) - image is being used by stopped container {container}"
            )
        }))
    }

    /// Deletes images that no container uses: those without a name, or with `all` any.
    pub async fn prune_images(&self, all: bool, filter: impl Fn(&Image) -> bool) -> Result<(Vec<Deleted>, u64)> {
        let (mut deleted, mut bytes) = (Vec::new(), 0);
        for image in self.0.parts.content.images().list() {
            if !(all || image.names.is_empty()) || !self.image_users(&image.id).is_empty() || !filter(&image) {
                continue;
            }
            let sizes: std::collections::BTreeMap<_, _> = oci::chain_ids(&image.config.rootfs.diff_ids)
                .into_iter()
                .filter_map(|chain| Some((chain, self.0.parts.snapshots.layer_size(&chain)?)))
                .collect();
            if let Ok(gone) = self.remove_image(&image.id.to_string(), true).await {
                let freed = gone.iter().filter_map(|one| match one {
                    Deleted::Layer(chain) => sizes.get(chain),
                    Deleted::Untagged(_) | Deleted::Deleted(_) => None,
                });
                bytes += freed.sum::<u64>();
                deleted.extend(gone);
            }
        }
        Ok((deleted, bytes))
    }

    /// Gives back what no image needs any more, in the background.
    fn collect_soon(&self) {
        let engine = self.clone();
        tokio::spawn(async move {
            if let Err(error) = engine.collect().await {
                tracing::warn!(%error, "space not given back; it is tried again with the next deletion");
            }
        });
    }

    /// Gives back what no image needs any more.
    pub(crate) async fn collect(&self) -> Result<()> {
        let engine = self.clone();
        blocking(move || {
            engine.0.parts.snapshots.gc().map_err(|e| Error::system("collect layers", e))?;
            engine.0.parts.content.gc().map(drop).map_err(content_error)
        })
        .await
    }

    /// Pulls an image unless it was made here: such an image has no other origin.
    pub async fn pull_image(
        &self,
        reference: &Reference,
        auth: Option<&distribution::client::Auth>,
        progress: distribution::client::Sink,
    ) -> Result<Image> {
        self.pull_image_for(reference, None, auth, progress).await
    }

    /// The same for a platform; `None` is this machine's.
    pub async fn pull_image_for(
        &self,
        reference: &Reference,
        platform: Option<&oci::Platform>,
        auth: Option<&distribution::client::Auth>,
        progress: distribution::client::Sink,
    ) -> Result<Image> {
        let reference = reference.clone().or_latest();
        if let Some(image) = self.0.parts.content.images().named(&reference)
            && image.origin == Origin::Local
            && platform.is_none_or(|wanted| image.config.platform().satisfies(wanted))
        {
            return Ok(image);
        }
        let id = self
            .0
            .parts
            .registry
            .pull(&reference, platform, auth, progress)
            .await
            .map_err(|e| Error::System(e.to_string()))?;
        self.publish(
            Subject::Image,
            "pull",
            &reference.familiar(),
            [("name".to_owned(), reference.familiar_name())].into(),
        );
        self.0.parts.content.images().get(&id).map_err(content_error)
    }

    /// Makes a container's root filesystem and fills its new volumes.
    pub(crate) fn prepare_root(&self, record: &crate::record::Record, image: &Image) -> Result<()> {
        let snapshots = &self.0.parts.snapshots;
        let failed = |e: snapshots::Error| Error::system("prepare root filesystem", e);
        let chain = snapshots.ensure_unpacked(image).map_err(failed)?;
        let mount = snapshots.prepare(&record.id, chain.as_ref()).map_err(failed)?;
        // A user that does not exist is an error of the start, as Docker has it; broken files are one here.
        if record.config.user.is_empty() {
            resolve_user(&mount, "", &[])?;
        }
        if record.mounts.iter().any(crate::volume_use::wants_copy) {
            let mounted = snapshots.mount(&record.id).map_err(failed)?;
            self.copy_up(mounted.path(), &record.mounts)?;
        }
        Ok(())
    }
}

/// The name as Docker repeats it: with its tag.
fn with_tag(name: &str) -> String {
    match Reference::parse(name) {
        Ok(reference) => reference.or_latest().familiar(),
        Err(_) => name.to_owned(),
    }
}
