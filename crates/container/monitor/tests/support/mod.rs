//! A container from a config, for the tests of this crate.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use bundle::ContainerConfig;
use futures_util::StreamExt;
use monitor::{
    AttachOptions, Attached, Created, Error, ExitStatus, Handle, Launch, LogFormat, LogPolicy, RootFs, StdStream,
    Zygote,
};
use tempfile::TempDir;
use testkit::Leaks;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// One root with a zygote; every container of it is deleted at the end, and nothing may be left.
pub(crate) struct World {
    pub(crate) root: TempDir,
    pub(crate) zygote: Zygote,
    parent: String,
    leaks: Leaks,
}

#[expect(dead_code, reason = "each test binary uses a part of it")]
impl World {
    pub(crate) fn new() -> Self {
        testkit::can_spawn_zygotes();
        let root = testkit::own_root();
        let parent = format!("gantry-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let leaks = Leaks::snapshot(root.path(), &parent);
        testkit::busybox_rootfs(&root.path().join("image"));
        World { root, zygote: Zygote::spawn().unwrap(), parent, leaks }
    }

    pub(crate) fn config(script: &str) -> ContainerConfig {
        ContainerConfig {
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            hostname: "box".to_owned(),
            cgroup_namespace: bundle::NamespaceMode::Host,
            ..ContainerConfig::default()
        }
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.root.path().join("image")
    }

    pub(crate) fn dir(&self, id: &str) -> PathBuf {
        self.root.path().join(id)
    }

    pub(crate) fn cgroup(&self, id: &str) -> String {
        format!("/{}/{id}", self.parent)
    }

    /// With an overlay over the image, a json-file log, no stdin.
    pub(crate) fn launch(&self, id: &str, config: &ContainerConfig) -> Launch {
        let dir = self.dir(id);
        let overlay = |name: &str| {
            let path = dir.join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let rootfs = RootFs::Overlay { lowers: vec![self.image()], upper: overlay("upper"), work: overlay("work") };
        Launch {
            id: id.to_owned(),
            spec: bundle::spec(config).unwrap(),
            rootfs,
            cgroup: self.cgroup(id),
            terminal: config.terminal,
            open_stdin: false,
            stdin_once: false,
            init: false,
            log: LogPolicy { format: LogFormat::JsonFile, path: dir.join("log"), max_size_bytes: None, max_files: 1 },
            dir,
        }
    }

    pub(crate) async fn create(&self, id: &str, config: &ContainerConfig) -> Result<Created, Error> {
        self.zygote.create(&self.launch(id, config)).await
    }

    /// Runs to the end: exit code and output, stdout and stderr together.
    pub(crate) async fn run(&self, id: &str, config: &ContainerConfig) -> Result<(i32, String), Error> {
        let created = self.create(id, config).await?;
        let attached = created.handle.attach(AttachOptions { stdin: false, stdout: true, stderr: true }).await?;
        created.handle.start().await?;
        let output = all(attached).await;
        let exit = created.handle.wait().await?;
        self.delete(id);
        Ok((exit.code, output))
    }

    pub(crate) fn delete(&self, id: &str) {
        monitor::delete(&self.dir(id), &self.cgroup(id)).unwrap();
    }

    pub(crate) fn log(&self, id: &str) -> String {
        std::fs::read_to_string(self.dir(id).join("log")).unwrap()
    }

    /// All containers must have been deleted.
    pub(crate) fn finish(self) {
        drop(self.zygote);
        self.leaks.assert_none();
        for mount in kernel::cgroup::Hierarchies::detect().unwrap().mounts() {
            let _ = std::fs::remove_dir(mount.join(&self.parent));
        }
    }
}

/// Everything that is said until the end.
pub(crate) async fn all(attached: Attached) -> String {
    let (out, err) = both(attached).await;
    out + &err
}

pub(crate) async fn both(mut attached: Attached) -> (String, String) {
    drop(attached.stdin.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(frame) = attached.output.next().await {
        let frame = frame.unwrap();
        match frame.stream {
            StdStream::Stdout => out.extend_from_slice(&frame.data),
            StdStream::Stderr => err.extend_from_slice(&frame.data),
        }
    }
    (String::from_utf8_lossy(&out).into_owned(), String::from_utf8_lossy(&err).into_owned())
}

pub(crate) async fn exit_of(handle: &Handle) -> ExitStatus {
    tokio::time::timeout(std::time::Duration::from_secs(10), handle.wait()).await.expect("the container ends").unwrap()
}
