//! Where an instance keeps its things: everything below one root.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

pub(crate) const DEFAULT_ROOT: &str = "/var/lib/gantry";
/// A socket's address holds at most this many bytes (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// One instance's folders and files.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) root: PathBuf,
}

impl Paths {
    /// `root` made absolute. Refused where its sockets would not fit into a socket address.
    pub(crate) fn new(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).with_context(|| format!("cannot make {} absolute", root.display()))?;
        let paths = Self { root };
        let longest = paths.docker_socket();
        if longest.as_os_str().len() > MAX_SOCKET_PATH {
            bail!(
                "--root {} is too long: {} has more than {MAX_SOCKET_PATH} bytes, which no socket can have; choose a shorter root",
                paths.root.display(),
                longest.display()
            );
        }
        Ok(paths)
    }

    /// Folders that must be there before anything starts, mode 0700: ordinary users of the host see nothing of them.
    pub(crate) fn make(&self) -> Result<()> {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        for dir in [self.root.clone(), self.run()] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .with_context(|| format!("cannot make {}", dir.display()))?;
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))
                .with_context(|| format!("cannot set the mode of {}", dir.display()))?;
        }
        Ok(())
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    pub(crate) fn docker_socket(&self) -> PathBuf {
        self.run().join("docker.sock")
    }

    pub(crate) fn cri_socket(&self) -> PathBuf {
        self.run().join("cri.sock")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.run().join("lock")
    }

    /// What a running instance says about itself, for `status` and `env`.
    pub(crate) fn instance(&self) -> PathBuf {
        self.run().join("instance.json")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("gantry.log")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// This instance's folder below every cgroup hierarchy; instances with other roots have others.
    pub(crate) fn cgroup_parent(&self) -> String {
        if self.root == Path::new(DEFAULT_ROOT) {
            return "gantry".to_owned();
        }
        let digest = Sha256::digest(self.root.as_os_str().as_encoded_bytes());
        format!("gantry-{}", digest[..4].iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_have_cgroups_of_their_own() {
        let one = Paths::new(Path::new(DEFAULT_ROOT)).unwrap().cgroup_parent();
        let other = Paths::new(Path::new("/tmp/x")).unwrap().cgroup_parent();
        assert_eq!(one, "gantry");
        assert!(other.starts_with("gantry-") && other.len() == 15, "{other}");
    }

    #[test]
    fn a_root_too_long_for_a_socket_is_refused_with_what_to_do() {
        let error = Paths::new(&Path::new("/tmp").join("x".repeat(100))).unwrap_err().to_string();
        assert!(error.contains("choose a shorter root"), "{error}");
    }
}
