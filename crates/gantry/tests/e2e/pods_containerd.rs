//! The node agent on another CRI runtime: Debian's containerd, in the world's own namespaces, with the same pods.

use std::path::Path;
use std::process::{Child, Stdio};

use crate::harness::{self, World};
use crate::pods::{self, condition, container, restarts};

/// containerd below a directory of its own; its pods and itself are gone afterwards.
struct Containerd<'w> {
    world: &'w World,
    process: Child,
    dir: tempfile::TempDir,
}

impl<'w> Containerd<'w> {
    fn start(world: &'w World) -> Self {
        let dir = tempfile::Builder::new().prefix("cd").tempdir().expect("a temporary folder");
        let at = dir.path().display();
        let config = format!(
            r#"version = 2
root = "{at}/root"
state = "{at}/state"
[grpc]
  address = "{at}/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/library/pause:1"
  stream_server_address = "127.0.0.1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{at}/cni"
"#
        );
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        std::fs::create_dir(dir.path().join("cni")).unwrap();
        let network = r#"{"cniVersion":"0.4.0","name":"pods","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":false,"hairpinMode":true,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}],"dataDir":"DIR/ipam"}}]}"#;
        std::fs::write(dir.path().join("cni/10-pods.conflist"), network.replace("DIR", &at.to_string())).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let config = dir.path().join("config.toml");
        let process = world
            .command("containerd")
            .args(["--config", harness::path(&config)])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("containerd (containerd) runs");
        let started = Self { world, process, dir };
        world.until("containerd answers", || started.ctr(&["version"]).status.success().then_some(()));
        started
    }

    fn socket(&self) -> String {
        format!("{}/c.sock", self.dir.path().display())
    }

    fn ctr(&self, args: &[&str]) -> std::process::Output {
        let socket = self.socket();
        self.world.run("ctr", &[&["-a", &socket, "-n", "k8s.io"], args].concat())
    }

    fn import(&self, archive: &Path) {
        let output = self.ctr(&["images", "import", harness::path(archive)]);
        assert!(output.status.success(), "{}", harness::text(&output.stderr));
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        let listed =
            |args: &[&str]| harness::text(&self.ctr(args).stdout).lines().map(str::to_owned).collect::<Vec<_>>();
        for task in listed(&["tasks", "list", "-q"]) {
            self.ctr(&["tasks", "kill", "-s", "SIGKILL", &task]);
            self.ctr(&["tasks", "delete", "-f", &task]);
        }
        for one in listed(&["containers", "list", "-q"]) {
            self.ctr(&["containers", "delete", &one]);
        }
        let pid = self.process.id();
        // `nsenter` becomes containerd: the process is the one that was started here.
        let _ = std::process::Command::new("kill").args(["-TERM", &pid.to_string()]).status();
        let _ = self.process.wait();
        let script = "grep -o \" $0/[^ ]*\" /proc/self/mounts | tac | while read m; do umount -l \"$m\"; done";
        self.world.run("sh", &["-c", script, harness::path(self.dir.path())]);
    }
}

#[test]
fn the_same_pods_run_on_containerd() {
    let world = World::new();
    world.up();
    pods::import_tools(&world);
    world.ok("sh", &["-c", "printf 'FROM tools\nCMD [\"sleep\", \"1000000\"]\n' | docker build -q -t pause:1 -"]);
    let archive = world.root.join("images.tar");
    world.ok("docker", &["save", "-o", harness::path(&archive), "tools:latest", "pause:1"]);
    world.gantry(&["down"]);
    let runtime = Containerd::start(&world);
    runtime.import(&archive);
    world.gantry(&["up", "--detach", "--container-runtime-endpoint", &format!("unix://{}", runtime.socket())]);
    let node = world.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].status.nodeInfo.containerRuntimeVersion}"]);
    assert!(node.starts_with("containerd://"), "{node}");
    world.apply(r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {COLOUR: blue}
---
apiVersion: v1
kind: Pod
metadata: {name: done}
spec:
  restartPolicy: Never
  initContainers: [{name: i, image: "tools:latest", imagePullPolicy: IfNotPresent, command: [sh, -c, "echo first > /v/order"], volumeMounts: [{name: v, mountPath: /v}]}]
  containers: [{name: c, image: "tools:latest", imagePullPolicy: IfNotPresent, command: [sh, -c, "cat /v/order; echo $COLOUR $HOSTNAME; id -u; echo bye > /dev/termination-log; exit 3"], envFrom: [{configMapRef: {name: settings}}], securityContext: {runAsUser: 1000}, volumeMounts: [{name: v, mountPath: /v}]}]
  volumes: [{name: v, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: crash}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: "tools:latest", imagePullPolicy: IfNotPresent, command: [sh, -c, "exit 7"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: cm, configMap: {name: settings}}]
  containers:
  - name: c
    image: tools:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "echo up; httpd -f -p 8080 -h /www"]
    resources: {limits: {memory: 64Mi, cpu: 200m}}
    readinessProbe: {httpGet: {port: 8080, path: /index.html}, periodSeconds: 1}
    livenessProbe: {exec: {command: ["true"]}, periodSeconds: 1}
    volumeMounts: [{name: cm, mountPath: /cm}]
"#);
    let done = world.phase("done", "Failed");
    let end = &container(&done, "c")["state"]["terminated"];
    assert_eq!((&end["exitCode"], &end["message"]), (&3.into(), &"bye\n".into()), "{done}");
    assert!(end["containerID"].as_str().unwrap().starts_with("containerd://"));
    assert_eq!(world.kubectl(&["logs", "done"]), "first\nblue done\n1000");
    world.pod_when("crash", "restarts", |pod| {
        restarts(pod, "c") >= 1 && container(pod, "c")["lastState"]["terminated"]["exitCode"] == 7
    });
    world.ready("web");
    assert_eq!(world.kubectl(&["exec", "web", "--", "cat", "/cm/COLOUR"]), "blue");
    let failed = world.run("kubectl", &["exec", "web", "--", "sh", "-c", "exit 9"]);
    assert_eq!(failed.status.code(), Some(9));
    let id = container(&world.pod("web"), "c")["containerID"].as_str().unwrap().to_owned();
    world.kill_9();
    world.gantry(&["up", "--detach", "--container-runtime-endpoint", &runtime.socket()]);
    let web = world.pod_when("web", "adopted", |pod| condition(pod, "Ready") == "True");
    assert_eq!((container(&web, "c")["containerID"].as_str(), restarts(&web, "c")), (Some(id.as_str()), 0));
    world.kubectl(&["delete", "pod", "web", "crash", "done"]);
    let left = harness::text(&runtime.ctr(&["containers", "list", "-q"]).stdout);
    assert_eq!(left, "", "containers are left in containerd");
}
