//! An instance's life as its user sees it: up, a second up, kill -9, down. The stock clients are the judge.

use crate::harness::{self, World};

#[test]
fn a_second_up_on_a_root_says_who_holds_it_and_status_and_env_tell_the_truth() {
    let world = World::new();
    world.up();
    let pid = world.pid();
    let refused = world.refused(env!("CARGO_BIN_EXE_gantry"), &["up", "--detach"]);
    assert!(refused.contains(&format!("is held by process {pid}")), "{refused}");
    let env = world.gantry(&["env"]);
    for wanted in ["export DOCKER_HOST=unix://", "export KUBECONFIG=", "export GANTRY_REGISTRY=localhost:5000"] {
        assert!(env.contains(wanted), "{env}");
    }
    assert!(world.ok("docker", &["version", "--format", "{{.Server.APIVersion}}"]).starts_with("1."));
    assert!(world.ok("kubectl", &["get", "nodes"]).contains(" Ready "));
    assert!(world.ok("kubectl", &["version"]).contains("Server Version: v1.36"));
    for socket in ["run/docker.sock", "run/cri.sock"] {
        assert!(world.root.join(socket).exists(), "{socket}");
    }
}

#[test]
fn down_with_purge_leaves_no_link_no_rule_no_mount_no_cgroup_no_process_and_no_file() {
    let world = World::new();
    let links = world.ok("ip", &["-o", "link"]).lines().count();
    let mounts = world.ok("cat", &["/proc/self/mounts"]).lines().count();
    world.up();
    world.import_busybox();
    let id = world.ok("docker", &["run", "-d", "busybox", "sleep", "1000"]);
    let pid = world.ok("docker", &["inspect", "-f", "{{.State.Pid}}", &id]);
    let cgroups = world.ok("sh", &["-c", "grep -o 'gantry-[0-9a-f]*' /proc/$0/cgroup | head -n 1", &pid]);
    assert!(cgroups.starts_with("gantry-"), "{cgroups:?}");
    world.gantry(&["down", "--purge"]);
    assert_eq!(world.ok("ip", &["-o", "link"]).lines().count(), links);
    assert_eq!(world.ok("nft", &["list", "tables"]), "");
    assert_eq!(world.ok("cat", &["/proc/self/mounts"]).lines().count(), mounts);
    assert_eq!(world.ok("sh", &["-c", "find /sys/fs/cgroup -maxdepth 2 -name $0", &cgroups]), "");
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!world.root.exists());
}

#[test]
fn a_container_outlives_kill_9_and_is_adopted_with_its_process_and_every_log_line() {
    let world = World::new();
    world.up();
    world.import_busybox();
    let script = "i=0; while true; do i=$((i+1)); echo tick $i; sleep 0.02; done";
    world.ok("docker", &["run", "-d", "--name", "survivor", "busybox", "sh", "-c", script]);
    let pid = world.ok("docker", &["inspect", "-f", "{{.State.Pid}}", "survivor"]);
    world.ok("kill", &["-9", &world.pid().to_string()]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "the container runs on");
    world.up();
    assert_eq!(world.ok("docker", &["inspect", "-f", "{{.State.Pid}}", "survivor"]), pid);
    let log = world.ok("docker", &["logs", "survivor"]);
    assert!(log.lines().count() > 20, "{log}");
    for (index, line) in log.lines().enumerate() {
        assert_eq!(line, format!("tick {}", index + 1));
    }
    world.ok("docker", &["rm", "-f", "survivor"]);
}

#[test]
fn bad_input_gets_one_clear_line_and_leaves_nothing_half_made() {
    let world = World::new();
    world.up();
    world.import_busybox();
    let context = tempfile::tempdir().unwrap();
    std::fs::write(context.path().join("Dockerfile"), "FROM busybox\nRUNN true\n").unwrap();
    let manifest = context.path().join("bad.yaml");
    std::fs::write(
        &manifest,
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: other}}\n    spec: {containers: [{name: c, image: busybox}]}\n",
    )
    .unwrap();
    let failed = world.refused("docker", &["build", harness::path(context.path())]);
    assert!(
        failed.contains("dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)"),
        "{failed}"
    );
    let failed = world.refused("kubectl", &["apply", "-f", harness::path(&manifest)]);
    assert!(
        failed.contains("spec.template.metadata.labels: Invalid value")
            && failed.contains("`selector` does not match template `labels`"),
        "{failed}"
    );
    assert!(world.refused("docker", &["inspect", "nothing"]).contains("No such object: nothing"));
    assert!(world.refused("docker", &["rmi", "nothing"]).contains("No such image: nothing:latest"));
    world.ok("docker", &["run", "-d", "--name", "one", "-p", "8123:80", "busybox", "sleep", "1000"]);
    assert!(
        world
            .refused("docker", &["run", "--name", "one", "busybox"])
            .contains("The container name \"/one\" is already in use")
    );
    assert!(
        world
            .refused("docker", &["run", "-d", "--rm", "-p", "8123:80", "busybox", "sleep", "9"])
            .contains("port is already allocated")
    );
    let status = world.run("docker", &["run", "--rm", "busybox", "nosuch"]).status;
    assert_eq!(status.code(), Some(127));
    assert_eq!(world.ok("docker", &["ps", "-q"]).lines().count(), 1);
    world.ok("docker", &["rm", "-f", "one"]);
}
