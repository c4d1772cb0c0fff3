//! An engine on the real kernel: a root, a network namespace and a cgroup of its own.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use engine::{AttachOptions, CreateContainer, Engine, Parts, config::Config};
use futures_util::StreamExt;
use tempfile::TempDir;
use testkit::Leaks;
use tokio::runtime::Runtime;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Everything that outlives one process of the engine.
pub(crate) struct World {
    pub(crate) root: TempDir,
    cgroup: String,
    leaks: Leaks,
}

/// One process's worth of engine: dropped, it is gone without a word, as after `kill -9`.
pub(crate) struct Running {
    runtime: Option<Runtime>,
    pub(crate) engine: Engine,
}

impl World {
    /// Runs a test in namespaces of its own and checks that nothing is left behind.
    pub(crate) fn run(test: impl FnOnce(&World) + Send + 'static) {
        testkit::can_spawn_zygotes();
        testkit::in_namespaces(|| {
            let root = testkit::own_root();
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let cgroup = format!("gantry-test-engine-{}-{number}", std::process::id());
            let leaks = Leaks::snapshot(root.path(), &cgroup);
            testkit::busybox_rootfs(&root.path().join("image"));
            let world = World { root, cgroup, leaks };
            test(&world);
            let last = world.start();
            last.block_on(async {
                for sandbox in last.engine.sandboxes() {
                    last.engine.remove_sandbox(&sandbox.id).await.unwrap();
                }
                for container in last.engine.containers() {
                    let options = engine::RemoveOptions { force: true, volumes: true };
                    let _ = last.engine.remove_container(&container.record.id, options).await;
                }
                let trash = world.root.path().join("containers/.trash");
                until("removals are finished", || std::fs::read_dir(&trash).unwrap().next().is_none()).await;
                last.engine.networking().shutdown(true).await.unwrap();
            });
            last.engine.release_mounts();
            drop(last);
            world.leaks.assert_none();
        });
    }

    /// Opens an engine on the root, as a new process would.
    pub(crate) fn start(&self) -> Running {
        let zygote = monitor::Zygote::spawn().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (root, cgroup_parent) = (self.root.path().to_owned(), self.cgroup.clone());
        let engine = runtime.block_on(async move {
            let content = content::Store::open(&root).unwrap();
            let snapshots = snapshots::Snapshots::open(&root, content.clone()).unwrap();
            let networking =
                networking::Networking::open(networking::NetworkingConfig::with_root(&root)).await.unwrap();
            let registry = distribution::client::Client::new(content.clone(), snapshots.clone(), Vec::new());
            let host_resolv_conf = "/etc/resolv.conf".into();
            let parts =
                Parts { root, cgroup_parent, zygote, networking, content, snapshots, registry, host_resolv_conf };
            Engine::open(parts).await.unwrap()
        });
        Running { runtime: Some(runtime), engine }
    }

    /// Opens an engine that has the image `busybox`.
    pub(crate) fn start_with_image(&self) -> Running {
        let running = self.start();
        let mut tar = tar::Builder::new(Vec::new());
        tar.follow_symlinks(false);
        tar.append_dir_all(".", self.root.path().join("image")).unwrap();
        let bytes = tar.into_inner().unwrap();
        let (content, snapshots) = (running.engine.content(), running.engine.snapshots());
        let id = distribution::archive::import(content, snapshots, &mut &bytes[..], "test", &mut |_| {}).unwrap();
        content.images().tag(&id, &oci::Reference::parse("busybox:latest").unwrap()).unwrap();
        running
    }
}

impl Running {
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let runtime = self.runtime.as_ref().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time") })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

/// `sh -c script` in `busybox`.
pub(crate) fn shell(name: &str, script: &str) -> CreateContainer {
    let config = Config {
        image: "busybox".to_owned(),
        cmd: Some(["sh", "-c", script].map(str::to_owned).into()),
        ..Config::default()
    };
    CreateContainer { name: Some(name.to_owned()), config, ..CreateContainer::default() }
}

/// Creates, attaches, starts and waits, as `docker run` does: exit code and output.
pub(crate) async fn run(engine: &Engine, request: CreateContainer) -> (i32, String) {
    let id = Box::pin(engine.create_container(request)).await.unwrap().id;
    let options = AttachOptions { stdin: false, stdout: true, stderr: true };
    let mut streams = engine.attach_container(&id, options).await.unwrap();
    let ended = engine.begin_wait(&id, engine::WaitCondition::NextExit).unwrap();
    engine.start_container(&id).await.unwrap();
    let mut output = String::new();
    while let Some(frame) = streams.output.next().await {
        output.push_str(&String::from_utf8_lossy(&frame.data));
    }
    (ended.await.unwrap(), output)
}

/// Waits for something that happens in the background.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("in time: {what}");
}
