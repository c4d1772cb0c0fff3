//! The command line: what each verb does to a container, and what it says when it cannot.

mod support;

use std::{
    fs,
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    process::Stdio,
};

use serde_json::{Value, json};
use support::{World, eventually, text};

#[test]
fn a_container_goes_through_its_states() {
    let world = World::new();
    world.configure("c", "echo started; sleep 300 & exec sleep 300", |spec| {
        spec["annotations"] = json!({"org.example": "1"});
    });
    let pid_file = world.root.path().join("pid");
    let bundle = world.bundle();
    let args = ["create", "--bundle", text(&bundle), "--pid-file", text(&pid_file), "c"];
    let out = fs::File::create(world.root.path().join("c.out")).unwrap();
    assert!(world.command(&args).stdout(out.try_clone().unwrap()).stderr(out).status().unwrap().success());
    let state = world.state("c");
    assert_eq!(state["status"], "created");
    assert_eq!(state["ociVersion"], "1.2.0");
    assert_eq!(state["annotations"]["org.example"], "1");
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), state["pid"].to_string());
    assert_eq!(world.output("c"), "", "nothing runs before start");
    assert!(world.refused(&args).contains("already exists"));

    world.ok(&["start", "c"]);
    assert_eq!(world.state("c")["status"], "running");
    eventually("output", || world.output("c") == "started\n");
    assert!(world.refused(&["start", "c"]).contains("cannot start an already running container"));
    assert!(world.refused(&["delete", "c"]).contains("that is not stopped: running"));

    world.ok(&["pause", "c"]);
    assert_eq!(world.state("c")["status"], "paused");
    assert!(world.refused(&["exec", "c", "true"]).contains("cannot exec in a paused container"));
    world.ok(&["resume", "c"]);
    assert!(world.refused(&["resume", "c"]).contains("container not paused"));
    let pids: Vec<i32> = serde_json::from_str(&world.ok(&["ps", "--format", "json", "c"])).unwrap();
    assert_eq!(pids.len(), 2);
    assert!(world.ok(&["ps", "c"]).matches("sleep 300").count() == 2);
    let listed: Value = serde_json::from_str(&world.ok(&["list", "--format", "json"])).unwrap();
    assert_eq!(
        (&listed[0]["id"], &listed[0]["status"], &listed[0]["owner"]),
        (&json!("c"), &json!("running"), &json!("root"))
    );
    assert!(world.ok(&["list"]).starts_with("ID  "));

    world.ok(&["kill", "c", "KILL"]);
    world.wait_for("c", "stopped");
    assert_eq!(world.state("c")["pid"], 0);
    assert!(world.refused(&["kill", "c"]).contains("container not running"));
    assert!(world.refused(&["exec", "c", "true"]).contains("cannot exec in a stopped container"));
    assert!(world.refused(&["start", "c"]).contains("cannot start a container that has stopped"));
    world.ok(&["delete", "c"]);
    for verb in ["state", "start", "kill", "delete", "pause", "ps"] {
        assert!(world.refused(&[verb, "c"]).contains("does not exist"), "{verb}");
    }
    world.ok(&["delete", "--force", "c"]);
    world.finish();
}

#[test]
fn run_gives_the_programs_exit_code_and_leaves_nothing() {
    let world = World::new();
    world.configure("c", "echo out; echo err >&2; hostname; exit 7", |_| {});
    assert_eq!(world.run("c"), (7, "out\ngantry\nerr\n".to_owned()));
    world.configure("c", "kill -9 $$", |spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid")
    });
    assert_eq!(world.run("c").0, 137);
    // Signals are passed on.
    world.configure("c", "trap 'exit 5' TERM; echo ready; while true; do sleep 0.1; done", |_| {});
    let bundle = world.bundle();
    let mut child = world.command(&["run", "--bundle", text(&bundle), "c"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut word = [0; 6];
    child.stdout.take().unwrap().read_exact(&mut word).unwrap();
    kernel::process::signal(child.id() as i32, 15).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    // Detached, with something of it outliving its first process in a shared pid namespace.
    world.configure("c", "sleep 300 & exit 0", |spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid")
    });
    let status = world.command(&["run", "-d", "--bundle", text(&bundle), "c"]).stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
    world.wait_for("c", "stopped");
    assert!(world.ok(&["ps", "-f", "json", "c"]) != "[]\n", "the background process lives");
    world.ok(&["delete", "c"]);
    world.finish();
}

#[test]
fn what_cannot_be_run_is_said_in_runcs_words() {
    let world = World::new();
    let bundle = world.bundle();
    let program = |name: &str| world.configure("c", "", |spec| spec["process"]["args"] = json!([name]));
    program("nosuch");
    let words = world.refused(&["create", "--bundle", text(&bundle), "c"]);
    assert!(
        words.contains("unable to start container process: exec: \"nosuch\": executable file not found in $PATH"),
        "{words}"
    );
    program("/etc");
    assert!(world.refused(&["create", "--bundle", text(&bundle), "c"]).contains("is a directory"));
    program("/etc/passwd");
    assert!(world.refused(&["create", "--bundle", text(&bundle), "c"]).contains("permission denied"));
    // What only the kernel can tell is told by start, and the log has it for engines that read that.
    fs::write(world.rootfs().join("bin/odd"), "\u{7f}no program").unwrap();
    std::os::unix::fs::chown(world.rootfs().join("bin/odd"), Some(0), Some(0)).unwrap();
    fs::set_permissions(world.rootfs().join("bin/odd"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    program("odd");
    world.create("c");
    let log = world.root.path().join("log.json");
    let words = world.refused(&["--log", text(&log), "--log-format", "json", "start", "c"]);
    assert!(words.contains("exec format error"), "{words}");
    let entry: Value = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!((&entry["level"], entry["msg"].as_str().unwrap()), (&json!("error"), words.as_str()));
    world.wait_for("c", "stopped");
    world.ok(&["delete", "c"]);

    world.configure("c", "true", |_| {});
    for (args, words) in [
        (vec!["--systemd-cgroup", "run", "--bundle", text(&bundle), "c"], "--systemd-cgroup"),
        (vec!["checkpoint", "c"], "checkpoint is not supported"),
        (vec!["run", "--bundle", "/nonexistent", "c"], "JSON specification file"),
        (vec!["run", "--bundle", text(&bundle), "../c"], "invalid container ID format"),
        (vec!["run", "--bundle", text(&bundle), "--nosuch", "c"], "flag provided but not defined"),
        (vec!["run", "--bundle", text(&bundle), "--console-socket", "/x", "c"], "cannot use console socket"),
        (vec!["nosuch"], "no such command"),
        (vec!["state"], "id is missing"),
    ] {
        let said = world.refused(&args);
        assert!(said.contains(words), "{args:?}: {said}");
    }
    world.finish();
}

#[test]
fn exec_runs_further_processes_inside() {
    let world = World::new();
    world.configure("c", "exec sleep 300", |spec| {
        spec["process"]["env"].as_array_mut().unwrap().push(json!("A=1"));
    });
    world.create("c");
    world.ok(&["start", "c"]);
    let script =
        "echo $A $B $HOME; pwd; id -u; id -g; id -G; hostname; tr '\\0' ' ' </proc/1/cmdline; ls /proc/self/fd | wc -l";
    let args = ["exec", "--env", "B=2", "--cwd", "/var", "--user", "65534:65534", "-g", "7", "c", "sh", "-c", script];
    assert_eq!(world.ok(&args), "1 2 /\n/var\n65534\n65534\n65534 7\ngantry\nsleep 300 4\n");
    assert_eq!(world.call(&["exec", "c", "sh", "-c", "exit 3"]).status.code(), Some(3));
    let failed = world.call(&["exec", "c", "nosuch"]);
    assert_eq!(failed.status.code(), Some(255));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("executable file not found in $PATH"));
    // A process file, detached, with a pid file, in the container's cgroup.
    let process = world.root.path().join("process.json");
    let pid_file = world.root.path().join("exec.pid");
    fs::write(
        &process,
        json!({"user": {"uid": 0, "gid": 0}, "args": ["sleep", "301"], "env": ["PATH=/bin"], "cwd": "/"}).to_string(),
    )
    .unwrap();
    let args = ["exec", "--detach", "--process", text(&process), "--pid-file", text(&pid_file), "c"];
    assert!(world.command(&args).stdout(Stdio::null()).status().unwrap().success());
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    let pids: Vec<i32> = serde_json::from_str(&world.ok(&["ps", "-f", "json", "c"])).unwrap();
    assert!(pids.contains(&pid), "{pid} in {pids:?}");
    // Capabilities of the container, and one more.
    let effective = |args: &[&str]| {
        let all = [&["exec"], args, &["c", "sh", "-c", "grep CapEff /proc/self/status | cut -f2"]].concat();
        u64::from_str_radix(world.ok(&all).trim(), 16).unwrap()
    };
    assert_eq!(effective(&["--cap", "CAP_CHOWN"]), effective(&[]) | 1);
    world.ok(&["delete", "--force", "c"]);
    world.finish();
}

#[test]
fn limits_are_updated_and_statistics_told() {
    let world = World::new();
    world.configure("c", "exec sleep 300", |spec| {
        spec["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
        spec["linux"]["resources"]["pids"] = json!({"limit": 20});
    });
    world.create("c");
    world.ok(&["start", "c"]);
    let stats = || -> Value { serde_json::from_str(&world.ok(&["events", "--stats", "c"])).unwrap() };
    let before = stats();
    assert_eq!((&before["type"], &before["id"]), (&json!("stats"), &json!("c")));
    assert_eq!(before["data"]["memory"]["usage"]["limit"], 64 << 20);
    assert_eq!(before["data"]["pids"], json!({"current": 1, "limit": 20}));
    world.ok(&["update", "--memory", "32m", "--pids-limit", "7", "c"]);
    let after = stats();
    assert_eq!(after["data"]["memory"]["usage"]["limit"], 32 << 20);
    assert_eq!(after["data"]["pids"]["limit"], 7);
    let mut update = world.command(&["update", "--resources", "-", "c"]).stdin(Stdio::piped()).spawn().unwrap();
    update.stdin.take().unwrap().write_all(br#"{"memory":{"limit":50331648},"cpu":{"shares":512}}"#).unwrap();
    assert!(update.wait().unwrap().success());
    assert_eq!(stats()["data"]["memory"]["usage"]["limit"], 48 << 20);
    assert_eq!(stats()["data"]["pids"]["limit"], 7, "what is not named stays");
    // Devices stay as they were made.
    assert_eq!(world.ok(&["exec", "c", "sh", "-c", "echo x >/dev/null && echo ok"]), "ok\n");
    world.ok(&["delete", "-f", "c"]);
    world.finish();
}

/// The master arrives at whoever asked for it.
fn receive_master(listener: &UnixListener) -> OwnedFd {
    let (stream, _) = listener.accept().unwrap();
    let mut name = [0; 64];
    let (length, mut descriptors) = kernel::message::receive(stream.as_fd(), &mut name).unwrap();
    assert!(length > 0 && descriptors.len() == 1);
    descriptors.remove(0)
}

#[test]
fn a_terminal_goes_to_the_console_socket() {
    let world = World::new();
    let socket = world.root.path().join("tty.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    world.configure("c", "tty; stty size; read line; echo got $line; exec sleep 300", |spec| {
        spec["process"]["terminal"] = json!(true);
        spec["process"]["consoleSize"] = json!({"width": 132, "height": 43});
    });
    let bundle = world.bundle();
    let words = world.refused(&["create", "--bundle", text(&bundle), "c"]);
    assert!(words.contains("cannot allocate tty if runc will detach without setting console socket"), "{words}");
    world.ok(&["create", "--bundle", text(&bundle), "--console-socket", text(&socket), "c"]);
    let mut master = fs::File::from(receive_master(&listener));
    world.ok(&["start", "c"]);
    master.write_all(b"hello\n").unwrap();
    let mut said = String::new();
    let mut buffer = [0; 256];
    while !said.contains("got hello") {
        let length = master.read(&mut buffer).unwrap();
        said += &String::from_utf8_lossy(&buffer[..length]);
    }
    // What was typed is echoed wherever the program happens to be.
    assert!(said.contains("/dev/pts/0\r\n") && said.contains("43 132\r\n"), "{said}");
    // The same for an exec.
    let args = ["exec", "--detach", "--tty", "--console-socket", text(&socket), "c", "sh", "-c", "tty; exec sleep 300"];
    world.ok(&args);
    let mut master = fs::File::from(receive_master(&listener));
    let length = master.read(&mut buffer).unwrap();
    assert!(buffer[..length].starts_with(b"/dev/pts/"));
    world.ok(&["delete", "-f", "c"]);
    world.finish();
}

#[test]
fn only_descriptors_that_were_asked_for_reach_the_program() {
    let world = World::new();
    world.configure("c", "ls /proc/self/fd | tr '\\n' ' '; cat <&3", |_| {});
    let bundle = world.bundle();
    let note = world.root.path().join("note");
    fs::write(&note, "kept\n").unwrap();
    let shell = |options: &str| {
        let script = format!(
            "exec 3<{} 4<{}; exec {} --root {} run {options} --bundle {} c",
            text(&note),
            text(&note),
            text(&world.program),
            text(&world.root.path().join("state")),
            text(&bundle)
        );
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // One more is the directory that ls itself reads.
    assert_eq!(shell("--preserve-fds 1"), "0 1 2 3 4 kept\n");
    assert_eq!(shell(""), "0 1 2 3 ");
    world.finish();
}

#[test]
fn features_and_version_say_what_there_is() {
    let world = World::new();
    let features: Value = serde_json::from_str(&world.ok(&["features"])).unwrap();
    assert_eq!(features["ociVersionMax"], "1.2.0");
    for option in ["ro", "rro", "rprivate", "tmpcopyup", "relatime", "nosymfollow"] {
        assert!(features["mountOptions"].as_array().unwrap().contains(&json!(option)), "{option}");
    }
    assert_eq!(features["linux"]["cgroup"]["v2"], true);
    assert!(world.ok(&["--version"]).contains("spec: 1.2.0"));
    assert!(world.ok(&["--help"]).contains("create"));
    world.finish();
}
