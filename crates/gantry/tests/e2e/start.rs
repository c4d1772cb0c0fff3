//! Starts that cannot work say so in one line with what to do, and leave nothing; several instances live side by side.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{self, World, text};

const GANTRY: &str = env!("CARGO_BIN_EXE_gantry");

/// The one line that a failed start prints.
fn one_line(output: &std::process::Output) -> String {
    let printed = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert_eq!(printed.lines().count(), 1, "{printed}");
    printed.trim().to_owned()
}

#[test]
fn a_start_that_cannot_work_says_in_one_line_what_is_missing_and_what_to_do() {
    let world = World::new();
    let nobody = world.run("setpriv", &["--reuid=65534", "--clear-groups", GANTRY, "up", "--detach"]);
    assert!(one_line(&nobody).contains("must be root"), "{}", one_line(&nobody));
    // Root by number only: what a rootless container or a locked-down service is.
    let powerless =
        world.run("setpriv", &["--bounding-set=-sys_admin,-net_admin", "--inh-caps=-all", GANTRY, "up", "--detach"]);
    let line = one_line(&powerless);
    assert!(line.contains("CAP_SYS_ADMIN, CAP_NET_ADMIN") && line.contains("privileges"), "{line}");
    let fake = "grep -v overlay /proc/filesystems > $0 && mount --bind $0 /proc/filesystems && exec $1 up --detach";
    let list = tempfile::NamedTempFile::new().unwrap();
    let no_overlay = world.run("unshare", &["--mount", "sh", "-c", fake, harness::path(list.path()), GANTRY]);
    assert!(one_line(&no_overlay).contains("modprobe overlay"), "{}", one_line(&no_overlay));
    assert!(!world.root.join("store").exists(), "nothing was begun");
}

#[test]
fn a_port_that_another_program_has_is_named_and_the_start_leaves_nothing_running() {
    let world = World::new();
    let links = world.ok("ip", &["-o", "link"]).lines().count();
    for (port, part) in [
        ("6443", "the API server cannot listen on port 6443"),
        ("5000", "the registry cannot listen on 127.0.0.1:5000"),
    ] {
        let listen = format!(
            "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', {port})); s.listen(); time.sleep(1000)"
        );
        let mut squatter = world.command("python3").args(["-c", &listen]).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while !world
            .ok("cat", &["/proc/net/tcp"])
            .contains(&format!(":{:04X} 00000000:0000 0A", port.parse::<u16>().unwrap()))
        {
            assert!(Instant::now() < end, "nc listens");
            std::thread::sleep(Duration::from_millis(20));
        }
        let line = one_line(&world.run(GANTRY, &["up", "--detach"]));
        assert!(line.contains(part) && line.contains("end what listens there"), "{line}");
        assert_eq!(world.run(GANTRY, &["status"]).status.code(), Some(3), "nothing runs");
        squatter.kill().unwrap();
        squatter.wait().unwrap();
    }
    world.up();
    world.gantry(&["down", "--purge"]);
    assert_eq!(world.ok("ip", &["-o", "link"]).lines().count(), links);
}

#[test]
fn up_in_the_foreground_ends_with_its_signal_and_down_keeps_the_data() {
    let world = World::new();
    let mut up = world.command(GANTRY).arg("up").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while world.run(GANTRY, &["status"]).status.code() != Some(0) || !world.root.join("run/instance.json").exists() {
        assert!(Instant::now() < end, "ready within a minute");
        std::thread::sleep(Duration::from_millis(50));
    }
    world.import_busybox();
    world.ok("docker", &["run", "-d", "--name", "kept", "busybox", "sleep", "1000"]);
    world.ok("kubectl", &["create", "configmap", "kept", "--from-literal=a=b"]);
    let status = Command::new("kill").arg(world.pid().to_string()).status().unwrap();
    assert!(status.success());
    assert_eq!(up.wait().unwrap().code(), Some(0), "SIGTERM is an orderly end");
    world.up();
    assert_eq!(
        world.ok("docker", &["inspect", "-f", "{{.State.Running}}", "kept"]),
        "true",
        "a stop stops no container"
    );
    let said = world.gantry(&["down"]);
    assert!(said.contains("Gantry is down"), "{said}");
    world.up();
    assert_eq!(world.ok("docker", &["ps", "-a", "--format", "{{.Names}} {{.State}}"]), "kept exited");
    assert_eq!(world.ok("kubectl", &["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]), "b");
    assert_eq!(world.gantry(&["down", "--purge"]), format!("Gantry is down, {} is deleted", world.root.display()));
}

#[test]
fn instances_with_roots_and_network_namespaces_of_their_own_do_not_touch_each_other() {
    let (one, other) = (World::new(), World::new());
    one.up();
    other.up();
    for world in [&one, &other] {
        world.import_busybox();
        world.ok("docker", &["run", "-d", "--name", "same-name", "-p", "8080:80", "busybox", "sleep", "1000"]);
        world.ok("kubectl", &["create", "configmap", "same-name"]);
    }
    assert_ne!(one.pid(), other.pid());
    one.gantry(&["down", "--purge"]);
    assert_eq!(other.ok("docker", &["exec", "same-name", "echo", "alive"]), "alive");
    assert!(other.ok("kubectl", &["get", "nodes"]).contains(" Ready "));
}

#[test]
fn a_full_disk_refuses_writes_with_its_reason_and_everything_goes_on_once_there_is_room() {
    let world = World::new();
    std::fs::create_dir_all(&world.root).unwrap();
    world.ok("mount", &["-t", "tmpfs", "-o", "size=160m", "tmpfs", harness::path(&world.root)]);
    world.up();
    world.import_busybox();
    world.ok("docker", &["run", "-d", "--name", "before", "busybox", "sleep", "1000"]);
    let filler = world.root.join("filler");
    world.run("dd", &["if=/dev/zero", &format!("of={}", filler.display()), "bs=64k"]);
    let refused = world
        .refused("kubectl", &["create", "configmap", "late", &format!("--from-literal=a={}", "x".repeat(100_000))]);
    assert!(refused.contains("No space left on device") || refused.contains("no space left on device"), "{refused}");
    let context = tempfile::tempdir().unwrap();
    std::fs::write(context.path().join("Dockerfile"), "FROM busybox\nCOPY big /big\n").unwrap();
    std::fs::write(context.path().join("big"), vec![7; 1 << 20]).unwrap();
    let refused = world.refused("docker", &["build", harness::path(context.path())]);
    assert!(refused.to_lowercase().contains("no space left on device"), "{refused}");
    assert_eq!(world.ok("docker", &["exec", "before", "echo", "alive"]), "alive");
    assert!(world.ok("kubectl", &["get", "nodes"]).contains(" Ready "), "reading goes on");
    world.ok("rm", &[harness::path(&filler)]);
    world.ok("kubectl", &["create", "configmap", "late", "--from-literal=a=b"]);
    world.ok("docker", &["build", "-q", harness::path(context.path())]);
    world.gantry(&["down"]);
    world.up();
    assert_eq!(world.ok("kubectl", &["get", "configmap", "late", "-o", "jsonpath={.data.a}"]), "b");
    let said = world.gantry(&["down", "--purge"]);
    assert!(said.contains("Gantry is down"), "{said}");
    assert_eq!(world.ok("ls", &["-A", harness::path(&world.root)]), "", "all state is deleted");
    // The mount is the administrator's and still there.
    world.ok("umount", &[harness::path(&world.root)]);
}

#[test]
fn down_finds_an_instance_whose_root_was_deleted_and_takes_its_containers_with_it() {
    let world = World::new();
    let links = world.ok("ip", &["-o", "link"]).lines().count();
    let mounts = world.ok("cat", &["/proc/self/mounts"]).lines().count();
    world.up();
    world.import_busybox();
    let id = world.ok("docker", &["run", "-d", "busybox", "sleep", "1000"]);
    let container = world.ok("docker", &["inspect", "-f", "{{.State.Pid}}", &id]);
    let cgroup = world.ok("sh", &["-c", "grep -o 'gantry-[0-9a-f]*' /proc/$0/cgroup | head -n 1", &container]);
    let gantry = world.pid();
    // Mount points refuse; all else goes, the lock and the records among it.
    world.run("rm", &["-rf", harness::path(&world.root)]);
    assert!(!world.root.join("run/lock").exists());
    let said = world.gantry(&["down", "--purge"]);
    assert!(said.contains("Gantry is down"), "{said}");
    for process in [&gantry.to_string(), &container] {
        // A zombie that its parent has not reaped is as good as gone.
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        assert!(status.is_empty() || status.contains("State:\tZ"), "{process}: {status}");
    }
    assert_eq!(world.ok("sh", &["-c", "find /sys/fs/cgroup -maxdepth 2 -name $0", &cgroup]), "");
    assert_eq!(world.ok("ip", &["-o", "link"]).lines().count(), links);
    assert_eq!(world.ok("cat", &["/proc/self/mounts"]).lines().count(), mounts);
    assert!(!world.root.exists());
    assert_eq!(world.gantry(&["down"]), format!("nothing to stop: {} does not exist", world.root.display()));
}
