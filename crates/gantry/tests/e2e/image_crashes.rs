//! kill -9 in the middle of pull, push and load: after the restart there is a whole image or none, and the next try works.

use std::process::{Child, Stdio};
use std::time::Duration;

use crate::harness::{self, World};

/// Milliseconds after the command's start at which the instance dies: from its first steps to its last.
const MOMENTS: [u64; 6] = [30, 90, 180, 300, 500, 800];

fn start(world: &World, args: &[&str]) -> Child {
    world.command("docker").args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Kills the instance while `args` is at work, starts it again, and checks what is left.
fn interrupt(world: &World, args: &[&str], after_ms: u64) {
    let pid = world.pid().to_string();
    let mut client = start(world, args);
    std::thread::sleep(Duration::from_millis(after_ms));
    world.ok("kill", &["-9", &pid]);
    let _ = client.wait();
    // The kernel lets go of the root when the process is gone for good.
    let gone = format!(
        "for i in $(seq 300); do flock -n {}/run/lock true && exit; sleep 0.1; done; exit 1",
        world.root.display()
    );
    world.ok("sh", &["-c", &gone]);
    world.up();
    let checked = world.run(env!("CARGO_BIN_EXE_gantry"), &["fsck", "--dry-run"]);
    assert!(checked.status.success(), "{args:?} after {after_ms} ms: {}", harness::text(&checked.stdout));
    let count = |dir: &str| std::fs::read_dir(world.root.join(dir)).map_or(0, Iterator::count);
    assert_eq!(count("snapshots/a"), 0, "{args:?} after {after_ms} ms: half-made layers");
    assert_eq!(count("snapshots/m"), 0);
    let layers = count("snapshots/layers") + 1;
    assert_eq!(count("snapshots/l"), layers, "a record for each layer, and the empty one");
}

fn works(world: &World, image: &str) {
    assert_eq!(world.ok("docker", &["run", "--rm", image, "cat", "/three"]), "three", "{image}");
}

#[test]
fn killed_in_the_middle_of_pull_load_and_push_nothing_half_made_is_visible() {
    let world = World::new();
    world.up();
    world.import_busybox();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let context = dir.path().join("context");
    std::fs::create_dir(&context).unwrap();
    for name in ["one", "two"] {
        world.ok("sh", &["-c", "head -c 12000000 /dev/urandom > $0", harness::path(&context.join(name))]);
    }
    std::fs::write(context.join("three"), "three").unwrap();
    std::fs::write(context.join("Dockerfile"), "FROM busybox\nCOPY one /\nCOPY two /\nCOPY three /\n").unwrap();
    world.ok("docker", &["build", "-q", "-t", "localhost:5004/big:1", harness::path(&context)]);
    world.ok("docker", &["save", "-o", &at("big.tar"), "localhost:5004/big:1"]);
    let root = dir.path().join("registry");
    let mut registry = world
        .command(env!("CARGO_BIN_EXE_gantry"))
        .args(["registry", "--root", harness::path(&root), "--listen", "127.0.0.1:5004"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    world.ok(
        "sh",
        &["-c", "for i in $(seq 200); do curl -s -o /dev/null 127.0.0.1:5004/v2/ && exit; sleep 0.1; done; exit 1"],
    );
    let image = "localhost:5004/big:1";

    // Push: the registry (which lives on) has the whole image, or no such tag; its store is sound.
    for moment in MOMENTS {
        interrupt(&world, &["push", image], moment);
        let known = world.run("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{image}")]);
        let raw = harness::text(&known.stderr);
        assert!(
            known.status.success()
                || raw.contains("manifest unknown")
                || raw.contains("name unknown")
                || raw.contains("not known"),
            "{raw}"
        );
        let checked = world.run(env!("CARGO_BIN_EXE_gantry"), &["fsck", "--dry-run", "--root", harness::path(&root)]);
        assert!(checked.status.success(), "{}", harness::text(&checked.stdout));
    }
    world.ok("docker", &["push", image]);

    let gone = || {
        world.ok("docker", &["image", "prune", "-af"]);
        assert_eq!(world.ok("docker", &["images", "-aq"]), "");
    };
    for (what, args) in [("pull", vec!["pull", image]), ("load", vec!["load", "-i", &at("big.tar")])] {
        for moment in MOMENTS {
            gone();
            interrupt(&world, &args, moment);
            // Killed between its record and its name, a whole image is there without one.
            for id in world.ok("docker", &["images", "-aq"]).lines() {
                eprintln!("{what} after {moment} ms: {id} is there");
                works(&world, id);
            }
        }
        gone();
        world.ok("docker", &args);
        works(&world, image);
    }
    let _ = registry.kill();
    let _ = registry.wait();
}
