//! The article's promises about a running application: reached through one address, updated and undone without a lost request,
//! healed, and served while Gantry itself is dead.

use std::time::{Duration, Instant};

use crate::harness::{World, path};

const APPLICATION: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: c
        image: web:1
        ports: [{containerPort: 8000}]
        readinessProbe: {httpGet: {path: /index.html, port: 8000}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8000}]
  type: LoadBalancer
";

/// busybox' web server under a shell that ends at TERM once its last answers are out, as a server that drains does.
const DOCKERFILE: &str = "\
FROM busybox
ARG VERSION
RUN mkdir /www && echo version $VERSION > /www/index.html
CMD [\"sh\", \"-c\", \"trap 'sleep 0.3; exit 0' TERM; hostname > /www/host; httpd -f -p 8000 -h /www & while true; do wait; done\"]
";

struct Application {
    world: World,
    address: String,
}

impl Application {
    fn start() -> Self {
        let world = World::new();
        world.up();
        world.import_busybox();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Dockerfile"), DOCKERFILE).unwrap();
        for version in ["1", "2"] {
            let (argument, tag) = (format!("VERSION={version}"), format!("web:{version}"));
            world.ok("docker", &["build", "-q", "--build-arg", &argument, "-t", &tag, path(dir.path())]);
        }
        let manifest = dir.path().join("app.yaml");
        std::fs::write(&manifest, APPLICATION).unwrap();
        world.ok("kubectl", &["apply", "-f", path(&manifest)]);
        world.ok("kubectl", &["rollout", "status", "deployment/web", "--timeout=90s"]);
        let address = world.until(Duration::from_secs(20), || {
            let found =
                world.ok("kubectl", &["get", "svc", "web", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}"]);
            (!found.is_empty()).then_some(found)
        });
        Self { world, address }
    }

    fn get(&self, file: &str) -> String {
        self.world.ok("curl", &["-fsS", "-m", "5", &format!("http://{}/{file}", self.address)])
    }
}

#[test]
fn an_application_is_balanced_healed_updated_and_undone_without_a_lost_request() {
    let app = Application::start();
    let world = &app.world;
    let mut hosts: Vec<String> = (0..60).map(|_| app.get("host")).collect();
    hosts.sort();
    hosts.dedup();
    assert_eq!(hosts.len(), 3, "all pods are reached: {hosts:?}");

    let stop = world.root.with_file_name("stop");
    let load = format!(
        "n=0; bad=0; while [ ! -e {0} ]; do n=$((n+1)); curl -fsS -m 5 http://{1}/ >/dev/null 2>>{0}.err || bad=$((bad+1)); done; echo $n $bad",
        path(&stop),
        app.address
    );
    let load = world.command("sh").args(["-c", &load]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    world.ok("kubectl", &["set", "image", "deployment/web", "c=web:2"]);
    world.ok("kubectl", &["rollout", "status", "deployment/web", "--timeout=90s"]);
    assert_eq!(app.get("index.html"), "version 2");
    world.ok("kubectl", &["rollout", "undo", "deployment/web"]);
    world.ok("kubectl", &["rollout", "status", "deployment/web", "--timeout=90s"]);
    assert_eq!(app.get("index.html"), "version 1");
    std::fs::write(&stop, "").unwrap();
    let counted = String::from_utf8(load.wait_with_output().unwrap().stdout).unwrap();
    let (sent, lost) = counted.trim().split_once(' ').unwrap();
    assert!(sent.parse::<u32>().unwrap() > 50, "{counted}");
    assert_eq!(lost, "0", "{counted}: {}", std::fs::read_to_string(stop.with_extension("err")).unwrap_or_default());

    // Those of the version that went are gone once their last answers are out.
    let victim = world.until(Duration::from_secs(60), || {
        let pods = world.ok("kubectl", &["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}"]);
        let pods: Vec<&str> = pods.split(' ').collect();
        (pods.len() == 3).then(|| pods[0].to_owned())
    });
    world.ok("kubectl", &["delete", "pod", &victim, "--wait=false"]);
    world.until(Duration::from_secs(60), || {
        let ready = world.ok("kubectl", &["get", "pods", "-l", "app=web", "-o", "jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}"]);
        (ready.lines().filter(|line| line.ends_with(" True") && !line.starts_with(&victim)).count() == 3).then_some(())
    });
}

#[test]
fn service_traffic_goes_on_while_gantry_is_dead_and_pods_are_adopted_with_their_processes() {
    let app = Application::start();
    let world = &app.world;
    let pods = || {
        let line = "{range .items[*]}{.metadata.name} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
        world.ok("kubectl", &["get", "pods", "-l", "app=web", "-o", &format!("jsonpath={line}")])
    };
    let before = pods();
    assert_eq!(before.lines().filter(|line| line.ends_with(" 0")).count(), 3, "{before}");
    world.ok("kill", &["-9", &world.pid().to_string()]);
    let end = Instant::now() + Duration::from_secs(2);
    let mut answered = 0;
    while Instant::now() < end {
        assert_eq!(app.get("index.html"), "version 1");
        answered += 1;
    }
    assert!(answered > 10, "{answered}");
    world.up();
    assert_eq!(app.get("index.html"), "version 1");
    world.ok("kubectl", &["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert_eq!(pods(), before, "the same containers, nothing restarted");
}
