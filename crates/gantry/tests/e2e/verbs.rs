//! Every one of Gantry's own verbs once, called as `docker` and as `kubectl`: a machine without the clients lacks nothing of the walk.

use std::os::unix::fs::symlink;

use crate::harness::{World, path};

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: web:1, command: [sh, -c, 'echo started; exec sleep 1000']}]
";

/// The binary under the names of both clients.
struct Clients {
    dir: tempfile::TempDir,
}

impl Clients {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["docker", "kubectl"] {
            symlink(env!("CARGO_BIN_EXE_gantry"), dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    fn docker(&self, world: &World, args: &[&str]) -> String {
        world.ok(path(&self.dir.path().join("docker")), args)
    }

    fn kubectl(&self, world: &World, args: &[&str]) -> String {
        world.ok(path(&self.dir.path().join("kubectl")), args)
    }
}

#[test]
fn called_as_docker_the_binary_does_every_docker_verb_of_the_walk() {
    let (world, clients) = (World::new(), Clients::new());
    let docker = |args: &[&str]| clients.docker(&world, args);
    world.up();
    let tree = tempfile::tempdir().unwrap();
    let tar = tree.path().join("busybox.tar");
    let pack = "mkdir -p $0/t/bin && cp $(command -v busybox) $0/t/bin/ && for a in sh sleep echo cat; do ln -s busybox $0/t/bin/$a; done && tar -C $0/t -cf $1 bin";
    world.ok("sh", &["-c", pack, path(tree.path()), path(&tar)]);
    docker(&["import", "-c", "CMD [\"sleep\", \"1000\"]", path(&tar), "busybox"]);
    let images = docker(&["images"]);
    assert!(images.starts_with("REPOSITORY") && images.contains("busybox"), "{images}");
    let version = docker(&["version"]);
    assert!(version.contains("Client") && version.contains("Server"), "{version}");
    let id = docker(&[
        "run",
        "-d",
        "--name",
        "one",
        "-e",
        "A=b",
        "--label",
        "x=y",
        "busybox",
        "sh",
        "-c",
        "echo out; exec sleep 1000",
    ]);
    assert_eq!(id.len(), 64);
    let inspected: serde_json::Value = serde_json::from_str(&docker(&["inspect", "one", "busybox"])).unwrap();
    assert_eq!(inspected[0]["Name"], "/one");
    assert_eq!(inspected[0]["Config"]["Labels"]["x"], "y");
    assert_eq!(inspected[1]["RepoTags"][0], "busybox:latest");
    assert_eq!(docker(&["logs", "one"]), "out");
    assert_eq!(docker(&["exec", "-e", "C=d", "one", "sh", "-c", "echo $A$C"]), "bd");
    assert_eq!(docker(&["stop", "-t", "1", "one"]), "one");
    assert_eq!(docker(&["ps", "-q"]), "");
    assert!(docker(&["ps", "-a"]).contains("Exited (137)"));
    assert_eq!(docker(&["start", "one"]), "one");
    let before = world.ok("docker", &["inspect", "-f", "{{.State.Pid}}", "one"]);
    assert_eq!(docker(&["restart", "one"]), "one");
    assert_ne!(world.ok("docker", &["inspect", "-f", "{{.State.Pid}}", "one"]), before);
    assert_eq!(docker(&["kill", "-s", "KILL", "one"]), "one");
    assert_eq!(docker(&["rm", "one"]), "one");
    docker(&["tag", "busybox", "localhost:5000/mine:1"]);
    assert!(docker(&["push", "localhost:5000/mine:1"]).contains("digest: sha256:"));
    assert!(docker(&["rmi", "localhost:5000/mine:1"]).contains("Untagged: localhost:5000/mine:1"));
    let pulled = docker(&["pull", "localhost:5000/mine:1"]);
    assert!(pulled.contains("Status: ") && pulled.contains("localhost:5000/mine:1"), "{pulled}");
    let refused = world.refused(path(&clients.dir.path().join("docker")), &["run", "nosuch:1"]);
    assert_eq!(refused.lines().filter(|line| !line.contains("Unable to find image")).count(), 1, "{refused}");
    let refused = world.refused(path(&clients.dir.path().join("docker")), &["imagse"]);
    assert!(refused.contains("images"), "did you mean: {refused}");
}

#[test]
fn called_as_kubectl_the_binary_does_every_kubectl_verb_of_the_walk() {
    let (world, clients) = (World::new(), Clients::new());
    let kubectl = |args: &[&str]| clients.kubectl(&world, args);
    world.up();
    world.import_busybox();
    for version in ["web:1", "web:2"] {
        world.ok("docker", &["tag", "busybox", version]);
    }
    let dir = tempfile::tempdir().unwrap();
    let manifest = dir.path().join("web.yaml");
    std::fs::write(&manifest, DEPLOYMENT).unwrap();
    assert_eq!(kubectl(&["apply", "-f", path(&manifest)]), "deployment.apps/web created");
    assert_eq!(kubectl(&["apply", "-f", path(&manifest)]), "deployment.apps/web unchanged");
    let done = kubectl(&["rollout", "status", "deployment/web", "--timeout", "60s"]);
    assert!(done.ends_with("successfully rolled out"), "{done}");
    let wide = kubectl(&["get", "pods", "-o", "wide"]);
    assert!(wide.contains("NODE") && wide.lines().count() == 3, "{wide}");
    assert_eq!(kubectl(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"]), "2");
    assert_eq!(kubectl(&["get", "deploy/web", "-o", "name"]), "deployment.apps/web");
    assert!(kubectl(&["get", "deploy", "web", "-o", "yaml"]).contains("kind: Deployment"));
    let json: serde_json::Value =
        serde_json::from_str(&kubectl(&["get", "pods", "-l", "app=web", "-o", "json"])).unwrap();
    assert_eq!(json["items"].as_array().unwrap().len(), 2);
    let described = kubectl(&["describe", "deployment/web"]);
    assert!(described.contains("ScalingReplicaSet"), "{described}");
    assert_eq!(kubectl(&["logs", "deployment/web"]), "started");
    assert_eq!(kubectl(&["exec", "deployment/web", "--", "echo", "inside"]), "inside");
    assert_eq!(kubectl(&["set", "image", "deployment/web", "c=web:2"]), "deployment.apps/web image updated");
    kubectl(&["rollout", "status", "deployment/web", "--timeout", "60s"]);
    assert_eq!(kubectl(&["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"]), "web:2");
    let history = kubectl(&["rollout", "history", "deployment/web"]);
    assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
    assert_eq!(kubectl(&["rollout", "undo", "deployment/web"]), "deployment.apps/web rolled back");
    kubectl(&["rollout", "status", "deployment/web", "--timeout", "60s"]);
    assert_eq!(kubectl(&["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"]), "web:1");
    assert_eq!(kubectl(&["rollout", "restart", "deployment/web"]), "deployment.apps/web restarted");
    kubectl(&["rollout", "status", "deployment/web", "--timeout", "60s"]);
    assert_eq!(kubectl(&["scale", "deployment/web", "--replicas", "1"]), "deployment.apps/web scaled");
    assert_eq!(kubectl(&["delete", "deployment/web"]), "deployment.apps \"web\" deleted");
    let refused = world.refused(path(&clients.dir.path().join("kubectl")), &["get", "deploy", "web"]);
    assert!(refused.contains("deployments.apps \"web\" not found"), "{refused}");
}
