//! `gantry runtime` as the runtime of other engines: Debian's podman, containerd and dockerd, each with its stock client.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use crate::harness::{World, path, text};

/// A peer's folders, the runtime under its own name, and a cgroup that must be empty at the end.
struct Peer {
    world: World,
    dir: tempfile::TempDir,
    cgroup: String,
    daemons: Vec<Child>,
}

impl Peer {
    fn new(name: &str) -> Self {
        let world = World::new();
        let dir = tempfile::Builder::new().prefix("peer").tempdir().expect("a temporary folder");
        // Engines write below /run whatever they are told.
        world.ok("mount", &["-t", "tmpfs", "tmpfs", "/run"]);
        symlink(env!("CARGO_BIN_EXE_gantry"), dir.path().join("gantry-runtime")).expect("symlink");
        let cgroup = format!("gantry-test-{name}-{}", std::process::id());
        let peer = Self { world, dir, cgroup, daemons: Vec::new() };
        let tree = "mkdir -p $0/bin $0/etc $0/tmp && cp $(command -v busybox) $0/bin/busybox && \
                    for a in sh true sleep cat id grep tty touch tail stat hostname; do ln -s busybox $0/bin/$a; done && \
                    echo root:x:0:0:root:/root:/bin/sh >$0/etc/passwd && tar -C $0 -cf $0.tar .";
        peer.world.ok("sh", &["-c", tree, path(&peer.path("image"))]);
        peer
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn parent(&self) -> String {
        format!("/{}", self.cgroup)
    }

    fn daemon(&mut self, program: &str, args: &[&str], ready: impl Fn(&World) -> bool) {
        let log = std::fs::File::create(self.path(&format!("{program}.log"))).expect("a log");
        let mut command = self.world.command(program);
        command.args(args).stdout(log.try_clone().expect("dup")).stderr(log).stdin(Stdio::null());
        self.daemons.push(command.spawn().expect("the daemon starts"));
        let deadline = Instant::now() + Duration::from_secs(60);
        while !ready(&self.world) {
            let said = std::fs::read_to_string(self.path(&format!("{program}.log"))).unwrap_or_default();
            assert!(Instant::now() < deadline, "{program} is not ready: {said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn containerd(&mut self) -> String {
        let socket = self.path("c.sock").display().to_string();
        let config = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = \"{socket}.ttrpc\"\n",
            root = self.path("c.root"),
            state = self.path("c.state"),
        );
        let file = self.path("containerd.toml");
        std::fs::write(&file, config).expect("written");
        let address = socket.clone();
        self.daemon("containerd", &["--config", path(&file)], |world| {
            world.run("ctr", &["-a", &address, "version"]).status.success()
        });
        socket
    }

    /// Ends the daemons, and looks for what containers have left behind.
    fn finish(mut self) {
        self.stop();
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
            let parent = hierarchy.path().join(&self.cgroup);
            // podman's own cgroup of its monitors, which it leaves for the next container.
            let conmon = parent.join("conmon");
            let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while conmon.exists() && std::fs::remove_dir(&conmon).is_err() && std::time::Instant::now() < end {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            let left: Vec<PathBuf> = directories(&parent);
            assert!(left.is_empty(), "cgroups are left: {left:?}");
            let _ = std::fs::remove_dir(parent);
        }
    }

    fn stop(&mut self) {
        while let Some(mut daemon) = self.daemons.pop() {
            let _ = self.world.run("kill", &["-TERM", &daemon.id().to_string()]);
            let _ = daemon.wait();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn directories(below: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(below).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// What a shell in the container says about itself.
const PROBE: &str = "echo hi; id -u; hostname; grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | tr '\\t\\n' '  '; echo out >/dev/stdout";

#[test]
fn podman_runs_its_containers_with_gantrys_runtime() {
    let peer = Peer::new("podman");
    let runtime = peer.path("gantry-runtime");
    let storage = format!(
        "[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n",
        peer.path("graph"),
        peer.path("run")
    );
    let engine = format!(
        "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nstatic_dir = {:?}\ntmp_dir = {:?}\n",
        peer.path("static"),
        peer.path("tmp")
    );
    std::fs::write(peer.path("storage.conf"), storage).expect("written");
    std::fs::write(peer.path("containers.conf"), engine).expect("written");
    let podman = |args: &[&str]| {
        let mut command = peer.world.command("podman");
        command
            .env("CONTAINERS_STORAGE_CONF", peer.path("storage.conf"))
            .env("CONTAINERS_CONF", peer.path("containers.conf"))
            .args(["--runtime", path(&runtime)])
            .args(args);
        command.output().expect("podman runs")
    };
    let ok = |args: &[&str]| {
        let output = podman(args);
        assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    };
    ok(&["import", "-c", "CMD=sh", path(&peer.path("image.tar")), "bb:latest"]);
    let parent = peer.parent();
    let run = |args: &[&str]| {
        [&["run", "--network", "none", "--cgroup-parent", &parent], args]
            .concat()
            .iter()
            .map(|s| (*s).to_owned())
            .collect::<Vec<_>>()
    };
    let ran = |args: &[&str]| {
        let all = run(args);
        podman(&all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let output = ran(&["--rm", "--user", "7", "--hostname", "box", "bb", "sh", "-c", &format!("{PROBE}; exit 7")]);
    assert_eq!(text(&output.stdout), "hi\n7\nbox\nNoNewPrivs: 0 Seccomp: 2 out\n", "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(7));
    let missing = ran(&["--rm", "bb", "nosuch"]);
    assert_eq!(missing.status.code(), Some(127), "{}", text(&missing.stderr));
    let said = text(
        &ran(&[
            "--rm",
            "--read-only",
            "--tmpfs",
            "/x",
            "--ulimit",
            "nofile=77:78",
            "bb",
            "sh",
            "-c",
            "ulimit -n; touch /x/a && echo x; touch /a 2>/dev/null || echo ro",
        ])
        .stdout,
    );
    assert_eq!(said, "77\nx\nro\n");
    let said = text(
        &ran(&["--rm", "--uidmap", "0:100000:65536", "bb", "sh", "-c", "id -u; tr -s ' ' </proc/self/uid_map"]).stdout,
    );
    assert_eq!(said, "0\n 0 100000 65536\n");
    assert!(
        ran(&["-d", "--name", "d", "--memory", "64m", "bb", "sh", "-c", "echo log; exec sleep 300"]).status.success()
    );
    assert_eq!(ok(&["logs", "d"]), "log");
    assert_eq!(podman(&["exec", "d", "sh", "-c", "exit 3"]).status.code(), Some(3));
    assert_eq!(ok(&["exec", "-t", "d", "tty"]), "/dev/pts/0");
    assert!(ok(&["top", "d"]).contains("sleep 300"));
    ok(&["pause", "d"]);
    assert_eq!(ok(&["inspect", "-f", "{{.State.Status}}", "d"]), "paused");
    ok(&["unpause", "d"]);
    ok(&["kill", "d"]);
    ok(&["wait", "d"]);
    // podman's own clean-up turns one into the other a moment later.
    let ended = ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "d"]);
    assert!(["exited 137", "stopped 137"].contains(&ended.as_str()), "{ended}");
    ok(&["start", "d"]);
    ok(&["rm", "-f", "-t", "0", "d"]);
    peer.finish();
}

#[test]
fn containerd_runs_its_tasks_with_gantrys_runtime() {
    let mut peer = Peer::new("containerd");
    let socket = peer.containerd();
    let runtime = peer.path("gantry-runtime").display().to_string();
    let rootfs = peer.path("image").display().to_string();
    let cgroup = format!("{}/x", peer.parent());
    let ctr = |args: &[&str]| peer.world.run("ctr", &[&["-a", &socket], args].concat());
    let run = |args: &[&str], id: &str, program: &[&str]| {
        let options = ["--runc-binary", &runtime, "--cgroup", &cgroup, "--rootfs"];
        ctr(&[&["run"][..], args, &options, &[&rootfs, id], program].concat())
    };
    let output = run(&["--rm", "--env", "PATH=/bin"], "one", &["sh", "-c", "echo hi; echo $HOME; exit 4"]);
    assert_eq!(
        (text(&output.stdout).as_str(), output.status.code()),
        ("hi\n/root\n", Some(4)),
        "{}",
        text(&output.stderr)
    );
    let missing = run(&["--rm", "--env", "PATH=/bin"], "one", &["nosuch"]);
    assert!(
        text(&missing.stderr).contains("exec: \"nosuch\": executable file not found in $PATH"),
        "{}",
        text(&missing.stderr)
    );
    let started = run(&["-d", "--env", "PATH=/bin"], "two", &["sleep", "300"]);
    assert!(started.status.success(), "{}", text(&started.stderr));
    let exec = ctr(&["task", "exec", "--exec-id", "e", "two", "sh", "-c", "echo exec; exit 5"]);
    assert_eq!((text(&exec.stdout).as_str(), exec.status.code()), ("exec\n", Some(5)));
    let status = || text(&ctr(&["task", "ls"]).stdout);
    assert!(ctr(&["task", "pause", "two"]).status.success());
    assert!(status().contains("PAUSED"));
    assert!(ctr(&["task", "resume", "two"]).status.success());
    assert!(text(&ctr(&["task", "ps", "two"]).stdout).lines().count() == 2);
    assert!(ctr(&["task", "kill", "-s", "KILL", "two"]).status.success());
    let deadline = Instant::now() + Duration::from_secs(20);
    while !status().contains("STOPPED") && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(status().contains("STOPPED"), "{}", status());
    assert!(text(&ctr(&["task", "rm", "two"]).stderr).contains("exit code 137"));
    assert!(ctr(&["container", "rm", "two"]).status.success());
    peer.finish();
}

#[test]
fn dockerd_runs_its_containers_with_gantrys_runtime() {
    let mut peer = Peer::new("dockerd");
    let containerd = peer.containerd();
    let socket = format!("unix://{}", peer.path("d.sock").display());
    let config = peer.path("daemon.json");
    std::fs::write(&config, "{}").expect("written");
    let own = |name: &str| peer.path(name).display().to_string();
    let (data, exec, pid, runtime) =
        (own("d.data"), own("d.exec"), own("d.pid"), format!("gantry={}", peer.path("gantry-runtime").display()));
    let parent = peer.parent();
    let args = [
        ["--containerd", &containerd],
        ["--data-root", &data],
        ["--exec-root", &exec],
        ["--pidfile", &pid],
        ["--host", &socket],
        ["--config-file", path(&config)],
        ["--storage-driver", "vfs"],
        ["--add-runtime", &runtime],
        ["--default-runtime", "gantry"],
        ["--cgroup-parent", &parent],
        ["--exec-opt", "native.cgroupdriver=cgroupfs"],
    ];
    let args = [&args.concat()[..], &["--iptables=false", "--ip6tables=false", "--bridge=none"]].concat();
    let host = socket.clone();
    peer.daemon("dockerd", &args, |world| world.run("docker", &["-H", &host, "version"]).status.success());
    let docker = |args: &[&str]| peer.world.run("docker", &[&["-H", &socket], args].concat());
    let ok = |args: &[&str]| {
        let output = docker(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    };
    ok(&["import", path(&peer.path("image.tar")), "bb"]);
    let run = |args: &[&str]| docker(&[&["run", "--network", "none"], args].concat());
    let said = text(&run(&["--rm", "--user", "7", "--hostname", "box", "bb", "sh", "-c", PROBE]).stdout);
    assert_eq!(said, "hi\n7\nbox\nNoNewPrivs: 0 Seccomp: 2 out\n");
    assert_eq!(run(&["--rm", "bb", "sh", "-c", "exit 7"]).status.code(), Some(7));
    let missing = run(&["--rm", "bb", "nosuch"]);
    assert_eq!(missing.status.code(), Some(127), "{}", text(&missing.stderr));
    assert_eq!(run(&["--rm", "bb", "/etc"]).status.code(), Some(126));
    assert_eq!(run(&["--rm", "-m", "16m", "bb", "tail", "/dev/zero"]).status.code(), Some(137));
    let started =
        run(&["-d", "--name", "dd", "-m", "64m", "--pids-limit", "30", "--user", "65534", "bb", "sleep", "300"]);
    assert!(started.status.success(), "{}", text(&started.stderr));
    let exec = docker(&["exec", "-u", "0", "dd", "sh", "-c", "id -u; exit 6"]);
    assert_eq!((text(&exec.stdout).as_str(), exec.status.code()), ("0\n", Some(6)));
    ok(&["update", "-m", "32m", "--memory-swap", "64m", "dd"]);
    assert!(ok(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "dd"]).ends_with("32MiB"));
    ok(&["pause", "dd"]);
    assert_eq!(ok(&["inspect", "-f", "{{.State.Status}}", "dd"]), "paused");
    ok(&["unpause", "dd"]);
    assert!(ok(&["top", "dd"]).contains("sleep 300"));
    ok(&["kill", "dd"]);
    ok(&["wait", "dd"]);
    assert_eq!(ok(&["inspect", "-f", "{{.State.ExitCode}} {{.HostConfig.Runtime}}", "dd"]), "137 gantry");
    ok(&["start", "dd"]);
    ok(&["rm", "-f", "dd"]);
    peer.finish();
}
