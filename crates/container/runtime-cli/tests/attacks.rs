//! Attacks on the runtime that a bundle's author, or whoever writes into its root file system, can try; each must leave the host as it was.

mod support;

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};
use support::{World, eventually, text};

fn add_mount(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

/// A file of the host that must be the same afterwards.
struct Canary {
    path: PathBuf,
}

impl Canary {
    fn new(world: &World) -> Self {
        let path = world.root.path().join("canary");
        fs::write(&path, "canary").unwrap();
        Canary { path }
    }

    fn check(&self) {
        assert_eq!(fs::read_to_string(&self.path).unwrap(), "canary");
        assert_eq!(fs::metadata(&self.path).unwrap().uid(), 0);
    }
}

/// Attack 1. Nothing runs the binary between the commands, so only its read-only mount is in the way.
#[test]
fn the_binary_cannot_be_overwritten_by_a_container_that_runs_it() {
    let world = World::new();
    // A copy: the test itself keeps its own binary busy.
    fs::remove_file(&world.program).unwrap();
    fs::copy(std::env::current_exe().unwrap(), &world.program).unwrap();
    let before = fs::read(&world.program).unwrap();
    testkit::make_attackable(&world.rootfs());
    let script = world.rootfs().join("script");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let attacked = |id: &str| {
        let said = world.output(id);
        said.starts_with("inside\n") && said.contains("Read-only file system") && !said.contains("written")
    };
    for program in ["/proc/self/exe", "/script"] {
        world.configure("c", "", |spec| {
            spec["process"]["args"] = json!([program]);
            spec["process"]["env"] = json!([testkit::ATTACK]);
        });
        world.create("c");
        world.ok(&["start", "c"]);
        world.wait_for("c", "stopped");
        assert!(attacked("c"), "{program}: {}", world.output("c"));
        world.ok(&["delete", "c"]);
    }
    // The same by an exec.
    world.configure("c", "exec sleep 300", |_| {});
    world.create("c");
    world.ok(&["start", "c"]);
    let out = fs::File::create(world.root.path().join("e.out")).unwrap();
    let mut exec = world.command(&["exec", "--detach", "--env", testkit::ATTACK, "c", "/proc/self/exe"]);
    assert!(exec.stdout(out.try_clone().unwrap()).stderr(out).status().unwrap().success());
    eventually("the exec's attack is refused", || attacked("e"));
    world.ok(&["delete", "-f", "c"]);
    assert!(before == fs::read(&world.program).unwrap(), "the binary is as it was");
    world.finish();
}

/// Attack 2.
#[test]
fn a_working_directory_through_a_descriptor_is_refused_for_exec_too() {
    let world = World::new();
    world.configure("c", "exec sleep 300", |_| {});
    world.create("c");
    world.ok(&["start", "c"]);
    for n in 3..12 {
        let cwd = format!("/proc/self/fd/{n}");
        let said = world.refused(&["exec", "--cwd", &cwd, "c", "pwd"]);
        assert!(said.contains("chdir to cwd"), "{said}");
        let link = world.rootfs().join(format!("leak{n}"));
        symlink(&cwd, link).unwrap();
        assert!(world.refused(&["exec", "--cwd", &format!("/leak{n}"), "c", "pwd"]).contains("chdir to cwd"));
        assert!(world.cannot_with("d", |spec| spec["process"]["cwd"] = json!(cwd)).contains("/proc/self/fd/"));
    }
    world.ok(&["delete", "-f", "c"]);
    world.finish();
}

/// Attack 3: what is hidden is a link that leads out.
#[test]
fn a_masked_path_that_is_a_link_hides_nothing_outside() {
    let world = World::new();
    let canary = Canary::new(&world);
    let rootfs = world.rootfs();
    symlink(&canary.path, rootfs.join("absolute")).unwrap();
    symlink(format!("../../../../../../..{}", text(&canary.path)), rootfs.join("relative")).unwrap();
    symlink("/etc/passwd", rootfs.join("inside")).unwrap();
    let said = world.says("wc -c </etc/passwd; ls -l /absolute | wc -l", |spec| {
        let masked = spec["linux"]["maskedPaths"].as_array_mut().unwrap();
        masked.extend(["/absolute", "/relative", "/inside"].map(|path| json!(path)));
        spec["linux"]["readonlyPaths"]
            .as_array_mut()
            .unwrap()
            .extend(["/absolute", "/relative"].map(|path| json!(path)));
    });
    assert_eq!(said, "0\n1\n", "the link's end inside of the root is hidden");
    canary.check();
    world.finish();
}

/// Attack 4.
#[test]
fn a_false_terminal_is_refused_and_a_console_that_is_a_link_stays_inside() {
    let world = World::new();
    let canary = Canary::new(&world);
    let dev = world.root.path().join("dev");
    fs::create_dir_all(dev.join("pts")).unwrap();
    fs::write(dev.join("pts/ptmx"), "no terminal").unwrap();
    let socket = world.root.path().join("tty.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let bundle = world.bundle();
    let with_dev = |spec: &mut Value| {
        spec["process"]["terminal"] = json!(true);
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        add_mount(spec, json!({"destination": "/dev", "type": "bind", "source": text(&dev), "options": ["rbind"]}));
    };
    let args = ["create", "--bundle", text(&bundle), "--console-socket", text(&socket), "c"];
    world.configure("c", "true", with_dev);
    assert!(world.refused(&args).contains("terminal"), "a file in its place");
    fs::remove_file(dev.join("pts/ptmx")).unwrap();
    symlink(&canary.path, dev.join("pts/ptmx")).unwrap();
    world.refused(&args);
    // A real terminal, and a console that leads out.
    fs::remove_file(dev.join("pts/ptmx")).unwrap();
    symlink(&canary.path, dev.join("console")).unwrap();
    world.configure("c", "true", |spec| {
        with_dev(spec);
        let options = ["newinstance", "ptmxmode=0666", "mode=0620"];
        add_mount(spec, json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": options}));
    });
    if world.call(&args).status.success() {
        world.ok(&["delete", "-f", "c"]);
    }
    canary.check();
    world.finish();
}

/// Attack 5.
#[test]
fn nothing_is_mounted_into_procfs_and_sysctls_reach_the_kernel() {
    let world = World::new();
    let canary = Canary::new(&world);
    symlink("/proc/self/attr", world.rootfs().join("link")).unwrap();
    for destination in
        ["/proc/sys/net/ipv4/ip_forward", "/proc/self/attr", "/proc/1/oom_score_adj", "/link", "/proc/../proc/sys"]
    {
        let said = world.cannot(|spec| {
            add_mount(
                spec,
                json!({"destination": destination, "type": "bind", "source": text(&canary.path), "options": ["bind"]}),
            );
        });
        assert!(
            said.contains("cannot be mounted because it is inside /proc") || said.contains("not a directory"),
            "{destination}: {said}"
        );
    }
    let said = world.cannot(|spec| {
        add_mount(spec, json!({"destination": "/proc", "type": "tmpfs", "source": "tmpfs"}));
    });
    assert!(said.contains("inside /proc"), "{said}");
    // What tools for containers replace may be replaced.
    let said = world.says("cat /proc/uptime; echo; cat /proc/sys/net/ipv4/ip_forward", |spec| {
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        add_mount(spec, json!({"destination": "/proc/uptime", "type": "bind", "source": text(&canary.path), "options": ["bind", "ro"]}));
    });
    assert_eq!(said, "canary\n1\n");
    canary.check();
    world.finish();
}

/// Attack 7: somebody swaps the destination for a link, over and over, while containers start.
#[test]
fn a_destination_that_is_swapped_for_a_link_never_leads_out() {
    let world = World::new();
    let outside = world.root.path().join("outside");
    let shared = world.root.path().join("shared");
    let data = world.root.path().join("data");
    for dir in [&outside, &shared, &data] {
        fs::create_dir(dir).unwrap();
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let at = shared.join("at");
            while !stop.load(Ordering::Relaxed) {
                let _ = fs::create_dir(&at);
                let _ = fs::remove_dir(&at);
                let _ = symlink(&outside, &at);
                let _ = fs::remove_file(&at);
            }
        });
        let run = || {
            for _ in 0..25 {
                world.configure("c", "echo mark >/volume/at/mark", |spec| {
                    let bind = |to: &str, from: &PathBuf| json!({"destination": to, "type": "bind", "source": text(from), "options": ["rbind"]});
                    add_mount(spec, bind("/volume", &shared));
                    add_mount(spec, bind("/volume/at", &data));
                });
                // Either outcome is fine; what counts is where it may have led.
                let _ = world.run("c");
                assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "led out");
            }
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        stop.store(true, Ordering::Relaxed);
        if let Err(panicked) = outcome {
            std::panic::resume_unwind(panicked);
        }
    });
    world.finish();
}

/// Attacks 8 and 13: a created container waits at a socket that is a private file.
#[test]
fn the_gate_is_a_private_file_and_not_an_abstract_name() {
    let world = World::new();
    world.configure("c", "cat /proc/net/unix", |spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "network");
    });
    world.create("c");
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(world.root.path().join("state")), 0o700);
    assert_eq!(mode(world.root.path().join("state/c")), 0o700);
    world.ok(&["start", "c"]);
    world.wait_for("c", "stopped");
    let said = world.output("c");
    assert!(said.starts_with("Num"), "{said}");
    assert!(!said.lines().any(|line| line.contains(" @") && line.contains("gate")), "{said}");
    world.ok(&["delete", "c"]);
    world.finish();
}

/// A create that dies half-way, at every moment, leaves nothing that delete cannot take back.
#[test]
fn a_create_that_is_killed_leaves_nothing_after_delete() {
    let world = World::new();
    world.configure("c", "exec sleep 300", |_| {});
    let bundle = world.bundle();
    for wait_us in (0..30_000).step_by(1500) {
        let args = ["create", "--bundle", text(&bundle), "c"];
        let mut child = world.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(wait_us));
        let _ = child.kill();
        child.wait().unwrap();
        world.ok(&["delete", "--force", "c"]);
        // An init whose maker died before it was ready ends by itself; its cgroup is taken over by the next create.
    }
    world.create("c");
    world.ok(&["delete", "--force", "c"]);
    world.finish();
}
