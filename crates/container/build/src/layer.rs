//! A step's writable root over the layers so far, and what becomes of it: a new layer, or nothing.

use std::path::Path;

use jiff::Timestamp;
use oci::ChainId;
use rustix::fs::OFlags;
use snapshots::{Committed, Mount, MountedDir, Snapshots};

use crate::BuildError;
use crate::context::{Found, Root};
use crate::copy::{self, CopyOptions, Destination};
use crate::execute::blocking;

/// A snapshot that is gone again when this is dropped, unless it was committed.
pub(crate) struct Scratch {
    snapshots: Snapshots,
    id: String,
    mount: Mount,
    committed: bool,
}

/// A build root mounted on the host's side, with the descriptor that confines all access to it.
pub(crate) struct MountedRoot {
    pub(crate) root: Root,
    mounted: MountedDir,
}

impl MountedRoot {
    pub(crate) fn path(&self) -> &Path {
        self.mounted.path()
    }
}

impl Scratch {
    /// A new root over a stack of layers. Its ID has the shape of a container's: RUN steps run under it.
    pub(crate) async fn prepare(snapshots: &Snapshots, parent: Option<ChainId>) -> Result<Self, BuildError> {
        let id = hex::encode(rand::random::<[u8; 32]>());
        let (snapshots, key) = (snapshots.clone(), id.clone());
        let (handle, mount) =
            blocking(move || snapshots.prepare(&key, parent.as_ref()).map(|mount| (snapshots, mount))).await?;
        Ok(Self { snapshots: handle, id, mount, committed: false })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn mount(&self) -> &Mount {
        &self.mount
    }

    /// Mounts the root for as long as the result lives.
    pub(crate) async fn open_root(&self) -> Result<MountedRoot, BuildError> {
        let (snapshots, key) = (self.snapshots.clone(), self.id.clone());
        blocking(move || open(&snapshots, &key)).await
    }

    /// Does something to the mounted root, away from the runtime's threads.
    pub(crate) async fn in_root<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Root) -> Result<T, BuildError> + Send + 'static,
    ) -> Result<T, BuildError> {
        let (snapshots, key) = (self.snapshots.clone(), self.id.clone());
        tokio::task::spawn_blocking(move || work(&open(&snapshots, &key)?.root))
            .await
            .map_err(|error| BuildError::Storage(error.to_string()))?
    }

    /// Makes a layer of what was written. With an `epoch`, nothing in it is younger than that.
    pub(crate) async fn commit(mut self, epoch: Option<Timestamp>) -> Result<Committed, BuildError> {
        let (snapshots, key) = (self.snapshots.clone(), self.id.clone());
        let upper = self.mount.upper.clone();
        let committed = blocking(move || {
            if let (Some(epoch), Some(upper)) = (epoch, upper) {
                let failed = BuildError::io("cannot set the times of", &upper);
                Root::open(&upper).and_then(|root| root.age(epoch)).map_err(failed)?;
            }
            snapshots.commit(&key).map_err(|error| BuildError::Storage(error.to_string()))
        })
        .await?;
        self.committed = true;
        Ok(committed)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.committed
            && let Err(error) = self.snapshots.remove(&self.id)
        {
            // It is swept at the next start; nothing can be done about it here.
            tracing::warn!(snapshot = %self.id, %error, "a build root could not be removed");
        }
    }
}

fn open(snapshots: &Snapshots, key: &str) -> Result<MountedRoot, BuildError> {
    let mounted = snapshots.mount(key).map_err(|error| BuildError::Storage(error.to_string()))?;
    let root = Root::open(mounted.path()).map_err(BuildError::io("cannot open the build root", mounted.path()))?;
    Ok(MountedRoot { root, mounted })
}

/// `--chown=user[:group]`: numbers, or names of the build root's own passwd and group files.
pub(crate) fn owner(root: &Root, text: &str) -> Result<(u32, u32), BuildError> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let uid = id_of(root, "/etc/passwd", user, "user")?;
    let gid = match group {
        Some(group) => id_of(root, "/etc/group", group, "group")?,
        // Docker: the group is the user's number, or the user's own group when it is a name.
        None => primary_group(root, user)?.unwrap_or(uid),
    };
    Ok((uid, gid))
}

fn id_of(root: &Root, file: &'static str, name: &str, what: &str) -> Result<u32, BuildError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let field = field(root, file, name, 2)?;
    field.ok_or_else(|| {
        BuildError::step(format!(
            "unable to convert uid/gid chown string to host mapping: can't find {what} {name} in {file}"
        ))
    })
}

fn primary_group(root: &Root, user: &str) -> Result<Option<u32>, BuildError> {
    if user.parse::<u32>().is_ok() { Ok(None) } else { field(root, "/etc/passwd", user, 3) }
}

fn field(root: &Root, file: &'static str, name: &str, index: usize) -> Result<Option<u32>, BuildError> {
    let text = root.read_small(file, 1 << 20).map_err(BuildError::io("cannot read", file))?.unwrap_or_default();
    let line = text.lines().find(|line| line.split(':').next() == Some(name));
    Ok(line.and_then(|line| line.split(':').nth(index)).and_then(|field| field.parse().ok()))
}

/// ADD of a local archive: unpacks it and copies the tree into the destination. `false` where the file is no archive.
pub(crate) fn add_archive(
    tree: &Root,
    found: &Found,
    scratch: &Path,
    into: &Root,
    destination: &Destination,
    options: &CopyOptions<'_>,
) -> Result<bool, BuildError> {
    let path = found.path.as_path();
    let file = tree.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(BuildError::io("cannot read", path))?;
    let file = std::fs::File::from(file);
    let storage = |error: snapshots::Error| BuildError::step(format!("ADD failed: {}: {error}", path.display()));
    if !snapshots::is_archive(&file, path).map_err(storage)? {
        return Ok(false);
    }
    // Unpacked apart first: the archive is hostile, and so may be the links in the build root.
    let dir = tempfile::tempdir_in(scratch).map_err(BuildError::io("cannot make a folder in", scratch))?;
    snapshots::unpack_archive(&file, path, dir.path()).map_err(storage)?;
    let unpacked = Root::open(dir.path()).map_err(BuildError::io("cannot open", dir.path()))?;
    let whole = Found { path: Path::new("").to_owned(), is_dir: true };
    copy::copy(&unpacked, &whole, into, destination, options).map_err(BuildError::io("cannot copy", path))?;
    Ok(true)
}
