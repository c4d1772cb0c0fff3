//! An instance of Gantry for one test: network and mount namespaces of its own, a root of its own, gone afterwards.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

pub struct World {
    holder: Child,
    pub root: PathBuf,
    _dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let script = "ip link set lo up && echo ready && exec sleep infinity";
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "sh", "-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (util-linux) runs");
        let mut word = String::new();
        let output = holder.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut word).expect("readable");
        assert_eq!(word.trim(), "ready", "namespaces can be made: is this root?");
        let dir = tempfile::Builder::new().prefix("gy").tempdir().expect("a temporary folder");
        Self { holder, root: dir.path().join("r"), _dir: dir }
    }

    /// A command inside the world, with the clients pointed at it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let namespace = |kind: &str| format!("/proc/{}/ns/{kind}", self.holder.id());
        command
            .arg(format!("--net={}", namespace("net")))
            .arg(format!("--mount={}", namespace("mnt")))
            .arg("--")
            .arg(program);
        command
            .env("GANTRY_ROOT", &self.root)
            .env("DOCKER_HOST", format!("unix://{}/run/docker.sock", self.root.display()))
            .env("DOCKER_BUILDKIT", "0")
            .env("KUBECONFIG", self.root.join("kubeconfig"))
            .stdin(Stdio::null());
        command
    }

    /// The world's network namespace.
    pub fn network(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.holder.id()))
    }

    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        self.command(program).args(args).output().expect("the command runs")
    }

    /// Standard output of a command that must succeed, trimmed.
    pub fn ok(&self, program: &str, args: &[&str]) -> String {
        let output = self.run(program, args);
        assert!(output.status.success(), "{program} {args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }

    /// Standard error of a command that must fail.
    pub fn refused(&self, program: &str, args: &[&str]) -> String {
        let output = self.run(program, args);
        assert!(!output.status.success(), "{program} {args:?} succeeded: {}", text(&output.stdout));
        text(&output.stderr)
    }

    /// Standard output of a shell script that must succeed, trimmed.
    pub fn sh(&self, script: &str) -> String {
        let output = self.run("sh", &["-ec", script]);
        assert!(output.status.success(), "{script}\n-> {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }

    /// Everything that a shell script said, and its exit code.
    pub fn sh_code(&self, script: &str) -> (i32, String) {
        let output = self.run("sh", &["-c", script]);
        (output.status.code().unwrap_or(-1), text(&output.stdout) + &text(&output.stderr))
    }

    /// What a shell script that must fail said.
    pub fn sh_fails(&self, script: &str) -> String {
        let (code, said) = self.sh_code(script);
        assert_ne!(code, 0, "{script} succeeded: {said}");
        said
    }

    /// Tries a script until its output is as wanted.
    pub fn until(&self, script: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let (code, said) = self.sh_code(script);
            if code == 0 && wanted(said.trim()) {
                return said.trim().to_owned();
            }
            assert!(std::time::Instant::now() < deadline, "{script}\n-> {code} {said}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    /// A running instance with the image `box`.
    pub fn with_box() -> Self {
        let world = Self::new();
        world.up();
        world.import_box();
        world
    }

    pub fn gantry(&self, args: &[&str]) -> String {
        self.ok(env!("CARGO_BIN_EXE_gantry"), args)
    }

    pub fn up(&self) {
        self.gantry(&["up", "--detach"]);
    }

    /// Asks again and again until there is an answer; what has none within the time is a failure.
    pub fn until<T>(&self, within: std::time::Duration, mut ask: impl FnMut() -> Option<T>) -> T {
        let end = std::time::Instant::now() + within;
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            assert!(std::time::Instant::now() < end, "no answer within {within:?}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    pub fn pid(&self) -> u32 {
        let status: serde_json::Value = serde_json::from_str(&self.gantry(&["status", "-o", "json"])).expect("JSON");
        status["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process")
    }

    /// An image `box`: all of busybox, root and nobody and a user of its own, a world-writable /tmp.
    pub fn import_box(&self) {
        self.sh(
            "d=$(mktemp -d); mkdir -p $d/bin $d/etc $d/tmp $d/root $d/data; chmod 755 $d; chmod 1777 $d/tmp; cp $(command -v busybox) $d/bin/busybox
            for a in $(busybox --list); do [ $a = busybox ] || ln -s busybox $d/bin/$a; done
            printf 'root:x:0:0:root:/root:/bin/sh\\nann:x:1000:1000::/home/ann:/bin/sh\\nnobody:x:65534:65534:nobody:/:/bin/sh\\n' > $d/etc/passwd
            printf 'root:x:0:\\nann:x:1000:\\nextra:x:2000:ann\\nnogroup:x:65534:\\n' > $d/etc/group
            echo image > $d/data/from-image
            tar -C $d -cf - . | docker import -c 'CMD [\"sh\"]' -c 'ENV FROM_IMAGE=yes' - box:latest; rm -rf $d",
        );
    }

    /// An image of busybox alone, through the stock client.
    pub fn import_busybox(&self) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let script = "mkdir -p $0/bin && cp $(command -v busybox) $0/bin/busybox && for a in sh true sleep echo cat tar ls httpd nc wget mkdir env id hostname; do ln -s busybox $0/bin/$a; done && tar -C $0 -cf $0/../$1 bin";
        let tar = dir.path().join("busybox.tar");
        let tree = dir.path().join("tree");
        let made = Command::new("sh").args(["-c", script]).arg(&tree).arg("busybox.tar").status().expect("sh runs");
        assert!(made.success());
        self.ok("docker", &["import", "-c", "CMD [\"sh\"]", path(&tar), "busybox:latest"]);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Whatever the test came to: nothing stays on the machine.
        let _ = self.run(env!("CARGO_BIN_EXE_gantry"), &["down", "--purge"]);
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn path(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}
