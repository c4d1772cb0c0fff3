//! Peers that the benchmark starts and ends by itself, each in namespaces of its own.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A network and a mount namespace, held by a process that only sleeps.
pub(crate) struct Namespaces {
    holder: Child,
}

impl Namespaces {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let script = "ip link set lo up && echo ready && exec sleep infinity";
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "sh", "-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot make namespaces for {name}"))?;
        let mut word = String::new();
        std::io::BufRead::read_line(
            &mut std::io::BufReader::new(holder.stdout.take().context("no output")?),
            &mut word,
        )?;
        if word.trim() != "ready" {
            bail!("the namespaces for {name} could not be made; is this root?");
        }
        Ok(Self { holder })
    }

    /// A command that runs inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.holder.id()))
            .arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs something on a thread of its own that has entered the network namespace.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = format!("/proc/{}/ns/net", self.holder.id());
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let namespace = std::fs::File::open(&path).with_context(|| format!("cannot open {path}"))?;
                rustix::thread::move_into_link_name_space(
                    namespace.as_fd(),
                    Some(rustix::thread::LinkNameSpaceType::Network),
                )?;
                work()
            });
            worker.join().map_err(|_| anyhow::anyhow!("the measuring thread panicked"))?
        })
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // Ours, by its own handle: it holds nothing but the namespaces.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Debian's dockerd with its containerd and runc.
pub(crate) struct Dockerd {
    pub(crate) namespaces: Namespaces,
    daemon: Child,
    root: PathBuf,
}

impl Dockerd {
    /// `None` where the machine has none.
    pub(crate) fn start() -> Result<Option<Self>> {
        if !["dockerd", "containerd", "runc"].iter().all(|program| which(program)) {
            return Ok(None);
        }
        let namespaces = Namespaces::new("dockerd")?;
        let root = PathBuf::from(format!("/tmp/dockerd-bench-{}", std::process::id()));
        std::fs::create_dir_all(&root)?;
        let path = |name: &str| root.join(name).display().to_string();
        let log = std::fs::File::create(root.join("log"))?;
        let daemon = namespaces
            .command("dockerd")
            .args([
                "--data-root",
                &path("data"),
                "--exec-root",
                &path("exec"),
                "--pidfile",
                &path("pid"),
                "--host",
                &format!("unix://{}", path("sock")),
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start dockerd")?;
        let peer = Self { namespaces, daemon, root };
        let end = Instant::now() + Duration::from_secs(30);
        while !crate::gantry::docker(&peer.namespaces, &peer.host(), &["version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?
            .success()
        {
            if Instant::now() > end {
                bail!("dockerd did not answer within 30 s: see {}", peer.root.join("log").display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Some(peer))
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.root.join("sock").display())
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.root.join("pid")).ok();
        if let Some(pid) = pid {
            // dockerd ends its containerd itself when it is asked to stop.
            let _ = Command::new("kill").arg(pid.trim()).status();
        }
        let _ = self.daemon.wait();
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

/// podman with Debian's runtime, on a root of its own. It has no daemon: each call is a whole podman.
pub(crate) struct Podman {
    namespaces: Namespaces,
    root: PathBuf,
}

impl Podman {
    /// `None` where the machine has none, or it runs nothing here.
    pub(crate) fn start(image: &Path) -> Result<Option<Self>> {
        if !which("podman") {
            return Ok(None);
        }
        let root = PathBuf::from(format!("/tmp/podman-bench-{}", std::process::id()));
        std::fs::create_dir_all(&root)?;
        let peer = Self { namespaces: Namespaces::new("podman")?, root };
        let image = image.to_str().context("odd path")?;
        crate::measure::timed(peer.command(&["import", "-c", "CMD=sh", image, "busybox:latest"]))?;
        let tried = crate::measure::timed(peer.command(&["run", "--rm", "--network", "none", "busybox", "true"]));
        Ok(tried.inspect_err(|error| eprintln!("podman is left out: {error:#}")).is_ok().then_some(peer))
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let path = |name: &str| self.root.join(name).display().to_string();
        let mut command = self.namespaces.command("podman");
        command.args(["--root", &path("root"), "--runroot", &path("run"), "--cgroup-manager", "cgroupfs"]);
        command.args(["--runtime", "runc", "--events-backend", "none"]).args(args);
        command
    }

    pub(crate) fn version(&self) -> Result<String> {
        let output = self.command(&["--version"]).output().context("cannot run podman")?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.command(&["rm", "-a", "-f", "-t", "0"]).output();
        let unmount = format!("umount -l {0}/root/overlay 2>/dev/null; rm -rf {0}", self.root.display());
        let _ = self.namespaces.command("sh").args(["-c", &unmount]).output();
    }
}

pub(crate) fn which(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}
