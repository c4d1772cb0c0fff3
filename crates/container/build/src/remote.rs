//! What comes from the network: sources of ADD, and whole build contexts. HTTP by ourselves, Git through `git`.
//!
//! What arrives is hostile: it is written into a folder of its own, a Git subdirectory is resolved below the repository,
//! and nothing is unpacked outside. A source has an identity (a digest, a commit), so a cached layer needs no download.

mod git;
mod http;

use std::path::{Path, PathBuf};

pub use git::GitUrl;

use crate::BuildError;
use crate::context::{Found, Root};
use crate::dockerfile::Copy;
use crate::execute::blocking;
use crate::space::{Space, TempSpace};

/// A source of ADD, identified.
pub(crate) struct Remote {
    pub identity: String,
    kind: Kind,
}

enum Kind {
    /// Not fetched: its digest was given.
    Awaited {
        url: String,
        digest: String,
    },
    Downloaded(Fetched),
    Git {
        url: GitUrl,
        commit: String,
        keep_git_dir: bool,
    },
}

/// A source in a folder of its own.
pub(crate) struct Fetched {
    pub root: Root,
    pub found: Found,
    _space: TempSpace,
}

/// A build context from the network.
pub struct FetchedContext {
    pub dir: PathBuf,
    /// The whole context was one Dockerfile; it is called so in `dir`.
    pub only_dockerfile: bool,
    pub space: TempSpace,
}

impl Remote {
    pub(crate) fn is_one(path: &str) -> bool {
        is_http(path) || GitUrl::parse(path).is_some()
    }

    pub(crate) async fn of(path: &str, copy: &Copy, space: &Space) -> Result<Option<Self>, BuildError> {
        if let Some(url) = GitUrl::parse(path) {
            let commit = url.commit().await?;
            if let Some(wanted) = copy.checksum.as_deref().filter(|wanted| !commit.starts_with(*wanted)) {
                return Err(BuildError::step(format!("expected checksum to match {wanted}, got {commit}")));
            }
            let identity = format!("{commit} {} {}", url.subdirectory, copy.keep_git_dir);
            return Ok(Some(Self { identity, kind: Kind::Git { url, commit, keep_git_dir: copy.keep_git_dir } }));
        }
        if !is_http(path) {
            return Ok(None);
        }
        let url = path.to_owned();
        if let Some(digest) = &copy.checksum {
            let hex = digest
                .strip_prefix("sha256:")
                .filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
            hex.ok_or_else(|| BuildError::step(format!("invalid checksum digest format: {digest}")))?;
            let kind = Kind::Awaited { url, digest: digest.clone() };
            return Ok(Some(Self { identity: digest.clone(), kind }));
        }
        let (digest, fetched) = download(&url, space).await?;
        Ok(Some(Self {
            identity: format!("{digest} {}", fetched.found.path.display()),
            kind: Kind::Downloaded(fetched),
        }))
    }

    pub(crate) async fn fetch(self, space: &Space) -> Result<Fetched, BuildError> {
        match self.kind {
            Kind::Downloaded(fetched) => Ok(fetched),
            Kind::Awaited { url, digest } => {
                let (got, fetched) = download(&url, space).await?;
                if got != digest {
                    return Err(BuildError::step(format!("{url}: digest mismatch {got}: {digest}")));
                }
                Ok(fetched)
            }
            Kind::Git { url, commit, keep_git_dir } => {
                let space = space.temporary()?;
                let dir = url.checkout(&commit, space.path(), keep_git_dir).await?;
                let root = Root::open(&dir).map_err(BuildError::io("cannot open", &dir))?;
                Ok(Fetched { root, found: Found { path: PathBuf::new(), is_dir: true }, _space: space })
            }
        }
    }
}

fn is_http(path: &str) -> bool {
    path.starts_with("http://") || path.starts_with("https://")
}

async fn download(url: &str, space: &Space) -> Result<(String, Fetched), BuildError> {
    let space = space.temporary()?;
    let downloaded = http::download(url, space.path()).await?;
    let root = Root::open(space.path()).map_err(BuildError::io("cannot open", space.path()))?;
    let found = Found { path: PathBuf::from(downloaded.name), is_dir: false };
    Ok((downloaded.digest, Fetched { root, found, _space: space }))
}

/// Whether a context's address is one that the daemon fetches by itself.
pub fn is_remote(address: &str) -> bool {
    Remote::is_one(address)
}

/// Fetches a context: a Git repository, an archive, or a lone Dockerfile.
pub async fn context(address: &str, keep_git_dir: bool, space: &Space) -> Result<FetchedContext, BuildError> {
    let space = space.temporary()?;
    if let Some(url) = GitUrl::parse(address) {
        let commit = url.commit().await?;
        let dir = url.checkout(&commit, space.path(), keep_git_dir).await?;
        return Ok(FetchedContext { dir, only_dockerfile: false, space });
    }
    if !is_http(address) {
        return Err(BuildError::step(format!("{address}: a build context is a URL or a Git repository")));
    }
    let downloaded = http::download(address, space.path()).await?;
    let file = space.path().join(&downloaded.name);
    let dir = space.path().join(".context");
    let target = dir.clone();
    let only_dockerfile = blocking(move || unpack(&file, &target)).await?;
    Ok(FetchedContext { dir, only_dockerfile, space })
}

/// Unpacks a context that a client uploaded. Returns whether it was a lone Dockerfile.
pub async fn unpack_upload(file: &Path, dir: &Path) -> Result<bool, BuildError> {
    let (file, dir) = (file.to_owned(), dir.to_owned());
    blocking(move || unpack(&file, &dir)).await
}

/// Unpacks an archive; what is none is a Dockerfile. Returns whether it was that.
fn unpack(file: &Path, dir: &Path) -> Result<bool, BuildError> {
    std::fs::create_dir(dir).map_err(BuildError::io("cannot make the folder", dir))?;
    let opened = std::fs::File::open(file).map_err(BuildError::io("cannot open", file))?;
    let storage = |error: snapshots::Error| BuildError::Storage(format!("cannot unpack the build context: {error}"));
    if snapshots::is_archive(&opened, file).map_err(storage)? {
        snapshots::unpack_archive(&opened, file, dir).map_err(storage)?;
        return Ok(false);
    }
    let name = dir.join("Dockerfile");
    std::fs::rename(file, &name).map_err(BuildError::io("cannot write", &name))?;
    Ok(true)
}
