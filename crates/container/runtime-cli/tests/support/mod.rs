//! Bundles of busybox, and the runtime's command line to run them with.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::Leaks;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// One root; every container of it must be deleted at the end, and nothing may be left.
pub(crate) struct World {
    pub(crate) root: TempDir,
    pub(crate) program: PathBuf,
    parent: String,
    leaks: Leaks,
}

#[allow(dead_code, reason = "each test binary uses a part of it, and one of them all")]
impl World {
    pub(crate) fn new() -> Self {
        let root = testkit::own_root();
        let parent = format!("gantry-test-cli-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let program = testkit::runtime_in(root.path());
        testkit::busybox_rootfs(&root.path().join("bundle/rootfs"));
        let leaks = Leaks::snapshot(root.path(), &parent);
        World { root, program, parent, leaks }
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.root.path().join("bundle")
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    pub(crate) fn cgroup(&self, id: &str) -> String {
        format!("/{}/{id}", self.parent)
    }

    /// The example's specification with a script for a program, as `change` leaves it.
    pub(crate) fn configure(&self, id: &str, script: &str, change: impl FnOnce(&mut Value)) {
        let path = self.bundle().join("config.json");
        let _ = std::fs::remove_file(&path);
        self.ok(&["spec", "--bundle", text(&self.bundle())]);
        let mut spec: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["sh", "-c", script]);
        spec["root"]["readonly"] = json!(false);
        spec["linux"]["cgroupsPath"] = json!(self.cgroup(id));
        change(&mut spec);
        std::fs::write(&path, serde_json::to_vec(&spec).unwrap()).unwrap();
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.root.path().join("state")).args(args).stdin(Stdio::null());
        command
    }

    pub(crate) fn call(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the runtime runs")
    }

    /// Its output; it must succeed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.call(args);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {words}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Its last words; it must fail.
    pub(crate) fn refused(&self, args: &[&str]) -> String {
        let output = self.call(args);
        assert!(!output.status.success(), "{args:?} succeeded");
        String::from_utf8_lossy(&output.stderr).trim().to_owned()
    }

    /// Makes the container. (What it inherits stays open with it: no pipe of ours.)
    pub(crate) fn create(&self, id: &str) {
        let mut command = self.command(&["create", "--bundle", text(&self.bundle()), id]);
        let out = std::fs::File::create(self.root.path().join(format!("{id}.out"))).unwrap();
        let status = command.stdout(out.try_clone().unwrap()).stderr(out).status().unwrap();
        assert!(status.success(), "{}", self.output(id));
    }

    /// What container `id` has said.
    pub(crate) fn output(&self, id: &str) -> String {
        std::fs::read_to_string(self.root.path().join(format!("{id}.out"))).unwrap()
    }

    /// Runs the bundle to its end: exit code and all output.
    pub(crate) fn run(&self, id: &str) -> (i32, String) {
        let output = self.call(&["run", "--bundle", text(&self.bundle()), id]);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
    }

    /// Configures, runs, and gives the output; the program must succeed.
    pub(crate) fn says(&self, script: &str, change: impl FnOnce(&mut Value)) -> String {
        self.configure("c", script, change);
        let (code, said) = self.run("c");
        assert_eq!(code, 0, "{said}");
        said
    }

    /// Configures and tries to run: why not.
    pub(crate) fn cannot(&self, change: impl FnOnce(&mut Value)) -> String {
        self.cannot_with("c", change)
    }

    pub(crate) fn cannot_with(&self, id: &str, change: impl FnOnce(&mut Value)) -> String {
        self.configure(id, "true", change);
        let (code, said) = self.run(id);
        assert_ne!(code, 0, "it ran: {said}");
        said.trim().to_owned()
    }

    pub(crate) fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["state", id])).unwrap()
    }

    pub(crate) fn wait_for(&self, id: &str, status: &str) {
        eventually(status, || self.state(id)["status"] == status);
    }

    pub(crate) fn finish(self) {
        assert_eq!(self.ok(&["list", "-q"]), "", "all containers are deleted");
        self.leaks.assert_none();
        for mount in kernel::cgroup::Hierarchies::detect().unwrap().mounts() {
            let _ = std::fs::remove_dir(mount.join(&self.parent));
        }
    }
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}
