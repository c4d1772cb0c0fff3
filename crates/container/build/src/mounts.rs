//! `RUN --mount`: from what the Dockerfile says to what the step gets, with everything that must live as long as it runs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, OFlags, Uid};
use sha2::{Digest as _, Sha256};

use crate::BuildError;
use crate::config::joined_dir;
use crate::context::{Found, Root};
use crate::copy::{self, CopyOptions, Destination};
use crate::dockerfile::{Mount, MountType, Run, Sharing};
use crate::events::Events;
use crate::execute::blocking;
use crate::runner::{Guard, StepMount, StepSource};
use crate::session::{Session, Source, Tree};
use crate::space::TempSpace;

/// The largest secret, as with BuildKit.
const MAX_SECRET_BYTES: usize = 500 << 10;

/// A mount with its variables expanded and its source found.
pub(crate) struct PlannedMount {
    mount: Mount,
    target: String,
    source: Option<Source>,
}

/// All of a step's mounts, in place.
pub(crate) struct Mounted {
    pub mounts: Vec<StepMount>,
    /// Variables that secrets and agents add.
    pub env: Vec<String>,
    // In this order: the binds go before the trees that they are from.
    _space: TempSpace,
    _held: Vec<Guard>,
}

/// Expands a RUN's mounts and finds what they read.
pub(crate) async fn plan(
    session: &Session<'_>,
    run: &Run,
    stage: usize,
    working_dir: &str,
    expand: &(dyn Fn(&str) -> Result<String, String> + Sync),
    events: &Events,
) -> Result<Vec<PlannedMount>, BuildError> {
    let mut planned = Vec::new();
    for (number, mount) in run.mounts.iter().enumerate() {
        let mut mount = mount.clone();
        for text in [&mut mount.target, &mut mount.id].into_iter().flatten() {
            *text = expand(text).map_err(BuildError::step)?;
        }
        mount.source = expand(&mount.source).map_err(BuildError::step)?;
        let id = mount.id.clone().unwrap_or_else(|| mount.target.clone().unwrap_or_default());
        let target = match (&mount.target, mount.kind) {
            (Some(target), _) => joined_dir(working_dir, target),
            (None, MountType::Ssh) => format!("/run/buildkit/ssh_agent.{number}"),
            (None, _) => format!("/run/secrets/{}", id.rsplit('/').next().unwrap_or(&id)),
        };
        let reads = mount.kind == MountType::Bind || (mount.kind == MountType::Cache && mount.from.is_some());
        let source = if reads { Some(session.source(mount.from.as_deref(), stage, events).await?) } else { None };
        planned.push(PlannedMount { mount, target, source });
    }
    Ok(planned)
}

/// What a mount adds to the step's cache key: files count, a cache's content and a secret's value do not.
pub(crate) async fn key_part(planned: &[PlannedMount]) -> Result<Vec<u8>, BuildError> {
    let mut hash = Sha256::new();
    for one in planned {
        let mount = &one.mount;
        let shown = format!("{:?} {} {:?} {}", mount.kind, one.target, mount.id, mount.source);
        hash.update(shown.as_bytes());
        match &one.source {
            Some(Source { key: Some(key), .. }) => hash.update(key.as_bytes()),
            Some(Source { tree, key: None }) if mount.kind == MountType::Bind => {
                let (tree, path) = (tree.clone(), mount.source.clone());
                hash.update(blocking(move || content_digest(tree.root(), &path)).await?);
            }
            Some(_) | None => {}
        }
    }
    Ok(hash.finalize().to_vec())
}

fn content_digest(root: &Root, path: &str) -> Result<Vec<u8>, BuildError> {
    let mut hash = Sha256::new();
    for found in root.find(path).map_err(BuildError::io("cannot read", path))? {
        root.hash(&found, &|_| false, &mut hash).map_err(BuildError::io("cannot read", &found.path))?;
    }
    Ok(hash.finalize().to_vec())
}

/// Puts all mounts in place.
pub(crate) async fn prepare(session: &Session<'_>, planned: Vec<PlannedMount>) -> Result<Mounted, BuildError> {
    let space = session.builder.space.temporary()?;
    let mut mounted = Mounted { mounts: Vec::new(), env: Vec::new(), _space: space, _held: Vec::new() };
    for one in planned {
        match one.mount.kind {
            MountType::Bind => mounted.bind(one).await?,
            MountType::Cache => mounted.cache(session, one).await?,
            MountType::Tmpfs => {
                let source = StepSource::Tmpfs { size_bytes: one.mount.size_bytes };
                mounted.mounts.push(StepMount { target: one.target, source, read_only: false });
            }
            MountType::Secret => mounted.secret(session, one).await?,
            MountType::Ssh => mounted.ssh(session, one).await?,
        }
    }
    Ok(mounted)
}

impl Mounted {
    fn add(&mut self, target: String, path: PathBuf, read_only: bool) {
        self.mounts.push(StepMount { target, source: StepSource::Path(path), read_only });
    }

    /// A script that a heredoc holds, as an executable file.
    pub(crate) fn script(&mut self, target: String, content: &str) -> Result<(), BuildError> {
        let path = self._space.fresh_path();
        write_file(&path, content.as_bytes(), 0o755, (0, 0))?;
        self.add(target, path, true);
        Ok(())
    }

    async fn bind(&mut self, one: PlannedMount) -> Result<(), BuildError> {
        let Some(source) = one.source else { return Ok(()) };
        let read_only = one.mount.read_only.unwrap_or(true);
        let path = PathBuf::from(&one.mount.source);
        if read_only {
            let bound = self._space.bind(source.tree.root(), &path)?;
            self.add(one.target, bound, true);
        } else {
            // What the step writes there is thrown away: it gets a copy.
            let copied = self._space.fresh_path();
            let (tree, made) = (source.tree.clone(), copied.clone());
            blocking(move || copy_out(&tree, &path, &made, None)).await?;
            self.add(one.target, copied, false);
        }
        self._held.push(Box::new(source.tree));
        Ok(())
    }

    async fn cache(&mut self, session: &Session<'_>, one: PlannedMount) -> Result<(), BuildError> {
        let mount = &one.mount;
        let id = mount.id.clone().unwrap_or_else(|| one.target.clone());
        let (locked, private) = (mount.sharing == Sharing::Locked, mount.sharing == Sharing::Private);
        let cache = session.builder.space.cache_dir(&id, locked, private).await?;
        if cache.fresh {
            let owner = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
            let mode = mount.mode.unwrap_or(0o755);
            let (dir, tree) = (cache.dir.clone(), one.source.as_ref().map(|source| source.tree.clone()));
            let path = PathBuf::from(&mount.source);
            blocking(move || {
                if let Some(tree) = tree {
                    copy_out(&tree, &path, &dir, Some(owner))?;
                }
                set_up(&dir, mode, owner)
            })
            .await?;
        }
        let root = Root::open(&cache.dir).map_err(BuildError::io("cannot open", &cache.dir))?;
        // A path inside a cache is what a step left there: it may be a link. With `from` it names a place in the origin.
        let inside = if mount.from.is_some() { Path::new("") } else { Path::new(&mount.source) };
        let bound = self._space.bind(&root, inside)?;
        self.add(one.target, bound, mount.read_only.unwrap_or(false));
        self._held.push(Box::new(cache));
        Ok(())
    }

    async fn secret(&mut self, session: &Session<'_>, one: PlannedMount) -> Result<(), BuildError> {
        let mount = &one.mount;
        let from_target = || one.target.rsplit('/').next().unwrap_or_default().to_owned();
        let id = mount.id.clone().filter(|id| !id.is_empty()).unwrap_or_else(from_target);
        let Some(bytes) = session.client.secret(&id).await? else {
            return if mount.required { Err(BuildError::step(format!("secret {id}: not found"))) } else { Ok(()) };
        };
        if bytes.len() > MAX_SECRET_BYTES {
            return Err(BuildError::step(format!("secret {id}: larger than {MAX_SECRET_BYTES} bytes")));
        }
        if let Some(name) = &mount.env {
            let value = String::from_utf8(bytes.clone()).map_err(|_| {
                BuildError::step(format!("secret {id}: not text, so it cannot be an environment variable"))
            })?;
            self.env.push(format!("{name}={value}"));
            if mount.target.is_none() {
                return Ok(());
            }
        }
        let path = self._space.memory()?.join("secret");
        write_file(&path, &bytes, mount.mode.unwrap_or(0o400), (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0)))?;
        self.add(one.target, path, true);
        Ok(())
    }

    async fn ssh(&mut self, session: &Session<'_>, one: PlannedMount) -> Result<(), BuildError> {
        let mount = &one.mount;
        let id = mount.id.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| "default".to_owned());
        let socket = self._space.fresh_path();
        let Some(agent) = session.client.ssh_agent(&id, &socket).await? else {
            return if mount.required { Err(BuildError::step(format!("unset ssh forward key {id}"))) } else { Ok(()) };
        };
        set_up(&socket, mount.mode.unwrap_or(0o600), (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0)))?;
        if !self.env.iter().any(|entry| entry.starts_with("SSH_AUTH_SOCK=")) {
            self.env.push(format!("SSH_AUTH_SOCK={}", one.target));
        }
        self.add(one.target, socket, false);
        self._held.push(agent);
        Ok(())
    }
}

fn set_up(path: &Path, mode: u32, (uid, gid): (u32, u32)) -> Result<(), BuildError> {
    rustix::fs::chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        .map_err(|error| BuildError::io("cannot set the owner of", path)(error.into()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(BuildError::io("cannot set the mode of", path))
}

fn write_file(path: &Path, bytes: &[u8], mode: u32, owner: (u32, u32)) -> Result<(), BuildError> {
    std::fs::write(path, bytes).map_err(BuildError::io("cannot write", path))?;
    set_up(path, mode, owner)
}

/// Copies a file or folder of a tree to a place of the builder's own.
fn copy_out(tree: &Tree, path: &Path, to: &Path, owner: Option<(u32, u32)>) -> Result<(), BuildError> {
    let failed = |what| BuildError::io(what, path);
    let root = tree.root();
    let clean = crate::context::normalise(&path.to_string_lossy());
    let is_dir = root.resolve(&clean, OFlags::DIRECTORY | OFlags::PATH).is_ok();
    let options = CopyOptions { owner, mode: None, parents: None, excluded: &|_| false, special_files: true };
    if is_dir {
        std::fs::create_dir_all(to).map_err(failed("cannot copy"))?;
    }
    let parent = to.parent().unwrap_or(to);
    let into = Root::open(parent).map_err(failed("cannot copy"))?;
    let name = to.file_name().unwrap_or_default();
    let destination = Destination { path: Path::new("/").join(name), must_be_dir: false };
    copy::copy(root, &Found { path: clean, is_dir }, &into, &destination, &options).map_err(failed("cannot copy"))
}
