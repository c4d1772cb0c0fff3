//! Git repositories as sources: `https://host/repo.git#ref:subdirectory`, fetched by the `git` of the machine.
//!
//! Invariants: an address is never taken for an option or a helper (`ext::`); the machine's own Git configuration, hooks
//! and prompts play no part; a subdirectory is resolved below the repository.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::OFlags;
use tokio::process::Command;

use crate::BuildError;
use crate::context::{Root, normalise};

/// The parts of a Git address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitUrl {
    pub repository: String,
    /// Branch, tag or commit; empty for the default branch.
    pub reference: String,
    pub subdirectory: String,
}

impl GitUrl {
    /// `None` where the address is not one of a Git repository.
    pub fn parse(address: &str) -> Option<Self> {
        let (repository, fragment) = address.split_once('#').unwrap_or((address, ""));
        let web = (repository.starts_with("http://") || repository.starts_with("https://"))
            && repository.split('?').next().is_some_and(|path| path.ends_with(".git"));
        let native = repository.starts_with("git://") || repository.starts_with("ssh://");
        let (user, path) = repository.split_once(':').unwrap_or((repository, ""));
        let short = user.starts_with("git@") && !path.is_empty() && !path.starts_with('/');
        if !(web || native || short) || repository.contains(char::is_whitespace) {
            return None;
        }
        let (reference, subdirectory) = fragment.split_once(':').unwrap_or((fragment, ""));
        Some(Self {
            repository: repository.to_owned(),
            reference: reference.to_owned(),
            subdirectory: subdirectory.to_owned(),
        })
    }

    /// The commit that the reference is now.
    pub async fn commit(&self) -> Result<String, BuildError> {
        self.refuse_options()?;
        if self.reference.len() == 40 && self.reference.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(self.reference.to_ascii_lowercase());
        }
        let wanted = if self.reference.is_empty() { "HEAD" } else { &self.reference };
        let listed = self.git(None, &["ls-remote", "--", &self.repository]).await?;
        let found = |name: &str| {
            let line = listed.lines().find(|line| line.split_once('\t').is_some_and(|(_, known)| known == name))?;
            line.split('\t').next().map(str::to_owned)
        };
        // A tag's own object points to its commit under `^{}`.
        [
            format!("refs/heads/{wanted}"),
            format!("refs/tags/{wanted}^{{}}"),
            format!("refs/tags/{wanted}"),
            wanted.to_owned(),
        ]
        .iter()
        .find_map(|name| found(name))
        .ok_or_else(|| BuildError::step(format!("{}: repository does not contain ref {wanted}", self.repository)))
    }

    /// Checks a commit out below `dir`; returns the folder of the subdirectory.
    pub async fn checkout(&self, commit: &str, dir: &Path, keep_git_dir: bool) -> Result<PathBuf, BuildError> {
        self.refuse_options()?;
        let tree = dir.join("repository");
        std::fs::create_dir(&tree).map_err(BuildError::io("cannot make the folder", &tree))?;
        self.git(Some(&tree), &["init", "--quiet", "--template="]).await?;
        let named = if self.reference.is_empty() { "HEAD" } else { &self.reference };
        // Not every server gives a commit that is asked for by its name; then the reference, or all there is.
        let shallow = ["fetch", "--quiet", "--depth=1", "--no-tags", "--", &self.repository];
        let mut fetched = self.git(Some(&tree), &[&shallow[..], &[commit]].concat()).await;
        if fetched.is_err() {
            fetched = self.git(Some(&tree), &[&shallow[..], &[named]].concat()).await;
        }
        if fetched.is_err() || self.git(Some(&tree), &["cat-file", "-e", commit]).await.is_err() {
            let all = ["fetch", "--quiet", "--", &self.repository, "+refs/*:refs/remotes/origin/*"];
            self.git(Some(&tree), &all).await?;
        }
        self.git(Some(&tree), &["-c", "advice.detachedHead=false", "checkout", "--quiet", commit, "--"]).await?;
        if !keep_git_dir {
            let git = tree.join(".git");
            std::fs::remove_dir_all(&git).map_err(BuildError::io("cannot remove", &git))?;
        }
        self.inside(&tree)
    }

    /// The subdirectory, by its real path: no link in it leads out of the repository.
    fn inside(&self, tree: &Path) -> Result<PathBuf, BuildError> {
        let clean = normalise(&self.subdirectory);
        if clean.as_os_str().is_empty() {
            return Ok(tree.to_owned());
        }
        let missing = |_| BuildError::step(format!("{}: no folder {} in it", self.repository, clean.display()));
        let root = Root::open(tree).map_err(BuildError::io("cannot open", tree))?;
        let found = root.resolve(&clean, OFlags::PATH | OFlags::DIRECTORY).map_err(missing)?;
        use std::os::fd::AsRawFd;
        let real = std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).map_err(missing)?;
        if real.starts_with(tree) { Ok(real) } else { Err(missing(std::io::Error::other("outside"))) }
    }

    fn refuse_options(&self) -> Result<(), BuildError> {
        let odd = |text: &str| text.starts_with('-') || text.contains(['\0', '\n']);
        if odd(&self.repository) || odd(&self.reference) || self.reference.contains("..") {
            return Err(BuildError::step(format!("{}#{}: not a Git address", self.repository, self.reference)));
        }
        Ok(())
    }

    async fn git(&self, dir: Option<&Path>, args: &[&str]) -> Result<String, BuildError> {
        let mut command = Command::new("git");
        command
            .args(["-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", "-c", "core.fsmonitor=false"])
            .args(args)
            .env_clear()
            .envs(
                ["PATH", "HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy", "NO_PROXY", "no_proxy"]
                    .iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ALLOW_PROTOCOL", "git:http:https:ssh")
            .env("GIT_SSH_COMMAND", "ssh -F /dev/null -o BatchMode=yes")
            .env("HOME", "/nonexistent")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(dir) = dir {
            command.current_dir(dir);
        }
        let output = command.output().await.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                BuildError::step(format!("{}: git is not installed on this machine", self.repository))
            }
            _ => BuildError::step(format!("cannot run git: {error}")),
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let told = String::from_utf8_lossy(&output.stderr);
        let last = told.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
        Err(BuildError::step(format!("failed to fetch {}: {}", self.repository, last.trim())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_addresses_are_told_from_others() {
        let parsed = GitUrl::parse("https://host/repo.git#v1:sub/dir").unwrap();
        assert_eq!((parsed.reference.as_str(), parsed.subdirectory.as_str()), ("v1", "sub/dir"));
        for address in ["git://h/r", "git@host:a/b.git", "ssh://git@h/r", "http://h/r.git"] {
            assert!(GitUrl::parse(address).is_some(), "{address}");
        }
        for address in ["https://h/file.tgz", "dir.git", "./x", "ext::sh -c id", "file:///etc", "-u.git", "a:b"] {
            assert!(GitUrl::parse(address).is_none(), "{address}");
        }
    }

    #[tokio::test]
    async fn options_and_escapes_are_refused() {
        let url = |reference: &str| GitUrl {
            repository: "git://127.0.0.1:1/r".to_owned(),
            reference: reference.to_owned(),
            subdirectory: String::new(),
        };
        assert!(url("--upload-pack=id").commit().await.unwrap_err().to_string().contains("not a Git address"));
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        let at = |sub: &str| GitUrl { subdirectory: sub.to_owned(), ..url("main") }.inside(dir.path());
        assert!(at("out").is_err());
        assert_eq!(at("../../in").unwrap(), dir.path().join("in"));
    }
}
