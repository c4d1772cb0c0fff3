//! Volumes where containers matter: made at create, resolved at start, kept while a container has them.

use std::{collections::BTreeMap, fs, os::fd::AsFd, path::Path};

use rustix::fs::OFlags;
use volumes::{Source, Volume, VolumeSpec};

use crate::{
    Engine, Subject,
    config::HostConfig,
    containers::Pruned,
    error::{Error, Result},
    ids,
    mounts::Planned,
    record::{MountKind, MountPoint},
};

/// Marks a volume that nobody named, as Docker does.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// Volume errors as the engine's.
fn wire(error: volumes::Error) -> Error {
    let text = error.to_string();
    match error {
        volumes::Error::NotFound(_) | volumes::Error::UnknownDriver(_) => Error::NotFound(text),
        volumes::Error::InvalidName(_) | volumes::Error::InvalidOptions { .. } => Error::Invalid(text),
        volumes::Error::InUse { .. } => Error::Conflict(text),
        volumes::Error::Io { .. } => Error::System(text),
    }
}

impl Engine {
    /// The planned points, with names for the volumes that have none.
    pub(crate) fn name_volumes(&self, planned: &[Planned]) -> Vec<MountPoint> {
        let mut points: Vec<MountPoint> = planned.iter().map(|p| p.point.clone()).collect();
        for point in points.iter_mut().filter(|p| p.kind == MountKind::Volume && p.name.is_none()) {
            point.name = Some(ids::random_id());
        }
        points
    }

    /// Makes volumes and missing bind sources, and checks what must exist.
    pub(crate) fn make_mount_sources(&self, planned: &[Planned], points: &mut [MountPoint]) -> Result<()> {
        for (planned, point) in planned.iter().zip(points) {
            match point.kind {
                MountKind::Tmpfs => {}
                MountKind::Bind => check_bind(planned)?,
                MountKind::Image => point.name = Some(self.find_image(&point.source)?.id.to_string()),
                MountKind::Volume => {
                    let name = point.name.clone().unwrap_or_default();
                    let mut labels = planned.labels.clone();
                    if point.anonymous {
                        labels.insert(ANONYMOUS.to_owned(), String::new());
                    }
                    let volume = self.create_volume(&VolumeSpec {
                        name,
                        driver: String::new(),
                        driver_opts: planned.driver_opts.clone(),
                        labels,
                    })?;
                    point.source = self.0.volumes.mountpoint(&volume).display().to_string();
                }
            }
        }
        Ok(())
    }

    /// Makes a volume (or answers the one of that name) and tells it.
    pub fn create_volume(&self, spec: &VolumeSpec) -> Result<Volume> {
        let named = VolumeSpec {
            name: if spec.name.is_empty() { ids::random_id() } else { spec.name.clone() },
            ..spec.clone()
        };
        let named = match (spec.name.is_empty(), named) {
            (true, mut named) => {
                named.labels.insert(ANONYMOUS.to_owned(), String::new());
                named
            }
            (false, named) => named,
        };
        let (volume, new) = self.0.volumes.create(&named).map_err(wire)?;
        if new {
            self.publish(
                Subject::Volume,
                "create",
                volume.name.as_str(),
                [("driver".to_owned(), "local".to_owned())].into(),
            );
        }
        Ok(volume)
    }

    /// One volume.
    pub fn volume(&self, name: &str) -> Result<Volume> {
        self.0.volumes.get(name).map_err(wire)
    }

    /// Removes a volume that no container has.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        let users = self.volume_users(name, None);
        let (engine, owned) = (self.clone(), name.to_owned());
        crate::blocking(move || engine.0.volumes.remove(&owned, &users, force).map_err(wire)).await?;
        self.publish(Subject::Volume, "destroy", name, [("driver".to_owned(), "local".to_owned())].into());
        Ok(())
    }

    /// Removes volumes that no container has: anonymous ones, or with `all` named ones as well.
    pub async fn prune_volumes(&self, all: bool, filter: impl Fn(&Volume) -> bool) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for volume in self.0.volumes.list() {
            let name = volume.name.as_str();
            if !(all || volume.labels.contains_key(ANONYMOUS))
                || !self.volume_users(name, None).is_empty()
                || !filter(&volume)
            {
                continue;
            }
            let size = self.0.volumes.usage(&volume);
            if self.remove_volume(name, false).await.is_ok() {
                pruned.removed.push(name.to_owned());
                pruned.reclaimed_bytes += size;
            }
        }
        Ok(pruned)
    }

    /// IDs of the containers that have a volume.
    pub fn volume_users(&self, name: &str, except: Option<&str>) -> Vec<String> {
        let uses = |mounts: &[MountPoint]| {
            mounts.iter().any(|m| m.kind == MountKind::Volume && m.name.as_deref() == Some(name))
        };
        let slots = self.0.table.all();
        let users = slots.iter().filter(|slot| Some(slot.id.as_str()) != except && uses(&slot.record().mounts));
        users.map(|slot| slot.id.clone()).collect()
    }

    /// `--volumes-from`: the other containers' mounts.
    pub(crate) fn inherited_mounts(&self, host: &HostConfig) -> Result<Vec<MountPoint>> {
        let mut all: BTreeMap<String, MountPoint> = BTreeMap::new();
        for text in host.volumes_from.iter().flatten() {
            let (name, mode) = text.split_once(':').unwrap_or((text, ""));
            for mut point in self.find(name)?.record().mounts {
                // Whoever made an anonymous volume removes it.
                point.anonymous = false;
                point.read_write &= mode != "ro";
                all.insert(point.destination.clone(), point);
            }
        }
        Ok(all.into_values().collect())
    }

    /// What to mount for a volume.
    pub(crate) fn volume_source(&self, point: &MountPoint) -> Result<Source> {
        let volume = self.volume(point.name.as_deref().unwrap_or_default())?;
        let mut source = self.0.volumes.source(&volume).map_err(wire)?;
        source.path = below(&source.path, &point.subpath)
            .ok_or_else(|| Error::Invalid(format!("cannot access path {} in volume {}", point.subpath, volume.name)))?;
        Ok(source)
    }

    /// The files of an image that a container mounts, mounted here for as long as the answer lives.
    pub(crate) fn image_files(&self, point: &MountPoint) -> Result<(snapshots::MountedDir, std::path::PathBuf)> {
        let image = self.find_image(point.name.as_deref().unwrap_or_default())?;
        let failed = |e: snapshots::Error| Error::system("mount image", e);
        let chain = self.0.parts.snapshots.ensure_unpacked(&image).map_err(failed)?;
        let mounted = self.0.parts.snapshots.view(chain.as_ref()).map_err(failed)?;
        let inside = below(mounted.path(), &point.subpath)
            .ok_or_else(|| Error::Invalid(format!("cannot access path {} in image {}", point.subpath, point.source)))?;
        Ok((mounted, inside))
    }

    /// Fills empty volumes from the image, once; `root` is the mounted root filesystem of the container.
    pub(crate) fn copy_up(&self, root: &Path, points: &[MountPoint]) -> Result<()> {
        let root = fs::File::open(root).map_err(|e| Error::file("open", root, e))?;
        for point in points.iter().filter(|p| wants_copy(p)) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let Ok(inside) = kernel::inroot::open(&root, Path::new(&point.destination), flags) else { continue };
            let source = self.volume_source(point)?;
            if source.may_copy_up {
                volumes::copy_up(inside.as_fd(), &source.path).map_err(wire)?;
            }
        }
        Ok(())
    }
}

/// Whether a mount may take the image's content.
pub(crate) fn wants_copy(point: &MountPoint) -> bool {
    point.kind == MountKind::Volume && !point.no_copy && point.subpath.is_empty()
}

/// A path below a directory that no link leads out of; the directory itself for an empty one.
fn below(dir: &Path, inside: &str) -> Option<std::path::PathBuf> {
    if inside.is_empty() {
        return Some(dir.to_owned());
    }
    let inside = Path::new(inside);
    let honest = inside.components().all(|c| matches!(c, std::path::Component::Normal(_)));
    let dir = fs::canonicalize(dir).ok()?;
    fs::canonicalize(dir.join(inside)).ok().filter(|real| honest && real.starts_with(&dir))
}

fn check_bind(planned: &Planned) -> Result<()> {
    let source = Path::new(&planned.point.source);
    if source.exists() {
        return Ok(());
    }
    if planned.create_source {
        return fs::create_dir_all(source).map_err(|e| Error::file("create", source, e));
    }
    Err(Error::Invalid(format!(
        "invalid mount config for type \"bind\": bind source path does not exist: {}",
        source.display()
    )))
}
