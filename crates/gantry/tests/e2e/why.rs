//! `gantry why` against troubles that are really there: each is made, and the cause at the end of the chain must be the right one.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{World, path};

const GANTRY: &str = env!("CARGO_BIN_EXE_gantry");

/// What is asked about, the pod template's spec or the whole object that makes the trouble, and the cause to be found.
const TROUBLES: [(&str, &str, &str); 26] = [
    ("pod/image-not-found", "{containers: [{name: c, image: 'localhost:5000/nosuch:1'}]}", "image-not-found"),
    ("pod/registry-down", "{containers: [{name: c, image: 'localhost:5999/web:1'}]}", "registry-unreachable"),
    ("pod/image-name", "{containers: [{name: c, image: 'UPPER:1'}]}", "invalid-image-name"),
    ("pod/never-pulled", "{containers: [{name: c, image: 'nosuch:1', imagePullPolicy: Never}]}", "image-never-pulled"),
    (
        "pod/no-configmap",
        "{containers: [{name: c, image: busybox, envFrom: [{configMapRef: {name: settngs}}]}]}",
        "config-map-missing",
    ),
    (
        "pod/no-secret",
        "{containers: [{name: c, image: busybox, envFrom: [{secretRef: {name: nosuch}}]}]}",
        "secret-missing",
    ),
    (
        "pod/no-key",
        "{containers: [{name: c, image: busybox, env: [{name: A, valueFrom: {configMapKeyRef: {name: settings, key: b}}}]}]}",
        "key-missing",
    ),
    (
        "pod/mount-configmap",
        "{containers: [{name: c, image: busybox}], volumes: [{name: v, configMap: {name: nosuch}}]}",
        "config-map-missing",
    ),
    ("pod/as-root", "{containers: [{name: c, image: busybox, securityContext: {runAsNonRoot: true}}]}", "runs-as-root"),
    ("pod/no-command", "{containers: [{name: c, image: busybox, command: [nosuch]}]}", "command-not-found"),
    (
        "pod/shell-typo",
        "{containers: [{name: c, image: busybox, command: [sh, -c, 'nosuchtool']}]}",
        "command-not-found",
    ),
    (
        "pod/crash",
        "{containers: [{name: c, image: busybox, command: [sh, -c, 'echo cannot reach the database; exit 3']}]}",
        "crash-loop",
    ),
    ("pod/ends", "{containers: [{name: c, image: busybox, command: ['true']}]}", "ends-at-once"),
    (
        "pod/segfault",
        "{containers: [{name: c, image: busybox, command: [sh, -c, 'sh -c \"kill -11 \\$\\$\"; exit $?']}]}",
        "killed-by-signal",
    ),
    (
        "pod/init",
        "{initContainers: [{name: i, image: busybox, command: [sh, -c, 'exit 2']}], containers: [{name: c, image: busybox}]}",
        "crash-loop",
    ),
    (
        "pod/failed",
        "{restartPolicy: Never, containers: [{name: c, image: busybox, command: [sh, -c, 'exit 4']}]}",
        "crash-loop",
    ),
    (
        "pod/too-long",
        "{activeDeadlineSeconds: 1, containers: [{name: c, image: busybox, command: [sleep, '1000']}], terminationGracePeriodSeconds: 0}",
        "deadline-exceeded",
    ),
    (
        "pod/unready",
        "{containers: [{name: c, image: busybox, command: [sleep, '1000'], readinessProbe: {exec: {command: [cat, /nosuch]}, periodSeconds: 1}}]}",
        "readiness-probe-fails",
    ),
    (
        "pod/liveness",
        "{terminationGracePeriodSeconds: 0, containers: [{name: c, image: busybox, command: [sleep, '1000'], livenessProbe: {exec: {command: [cat, /nosuch]}, periodSeconds: 1, failureThreshold: 1}}]}",
        "liveness-probe-kills",
    ),
    (
        "pod/gate",
        "{readinessGates: [{conditionType: example.com/warm}], containers: [{name: c, image: busybox, command: [sleep, '1000']}]}",
        "readiness-gate",
    ),
    (
        "pod/too-big",
        "{containers: [{name: c, image: busybox, resources: {requests: {cpu: '900'}}}]}",
        "too-few-resources",
    ),
    (
        "pod/selector",
        "{nodeSelector: {disk: fast}, containers: [{name: c, image: busybox}]}",
        "node-selector-matches-nothing",
    ),
    (
        "pod/gated",
        "{schedulingGates: [{name: example.com/hold}], containers: [{name: c, image: busybox}]}",
        "scheduling-gated",
    ),
    ("pod/foreign", "{schedulerName: nobody, containers: [{name: c, image: busybox}]}", "no-scheduler"),
    (
        "pod/oom",
        "{containers: [{name: c, image: busybox, command: [sh, -c, 'x=a; while true; do x=$x$x; done'], resources: {limits: {memory: 16Mi}}}]}",
        "out-of-memory",
    ),
    (
        "pod/post-start",
        "{containers: [{name: c, image: busybox, command: [sleep, '1000'], lifecycle: {postStart: {exec: {command: ['false']}}}}]}",
        "post-start-hook-failed",
    ),
];

/// Objects of other kinds, as they are applied.
const OBJECTS: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {a: b}
---
apiVersion: v1
kind: Service
metadata: {name: selects-nothing}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: wrong-port}
spec: {selector: {app: fine}, ports: [{port: 80, targetPort: 81}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: broken}
spec:
  replicas: 2
  selector: {matchLabels: {app: broken}}
  template:
    metadata: {labels: {app: broken}}
    spec: {containers: [{name: c, image: busybox, command: [sh, -c, 'echo out of ideas; exit 5']}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: no-account}
spec:
  replicas: 1
  selector: {matchLabels: {app: no-account}}
  template:
    metadata: {labels: {app: no-account}}
    spec: {serviceAccountName: nosuch, containers: [{name: c, image: busybox}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: none}
spec:
  replicas: 0
  selector: {matchLabels: {app: none}}
  template:
    metadata: {labels: {app: none}}
    spec: {containers: [{name: c, image: busybox}]}
---
apiVersion: v1
kind: Pod
metadata: {name: fine, labels: {app: fine}}
spec: {containers: [{name: c, image: busybox, command: [sleep, '1000'], ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: held, finalizers: [example.com/hold]}
";

fn why(world: &World, target: &str) -> Value {
    let output = world.run(GANTRY, &["why", target, "-o", "json"]);
    serde_json::from_slice::<Value>(&output.stdout)
        .unwrap_or_else(|error| panic!("{target}: {error}: {}", crate::harness::text(&output.stderr)))[0]
        .take()
}

/// The causes at the ends of all chains.
fn roots(explanation: &Value) -> BTreeSet<String> {
    fn walk(finding: &Value, found: &mut BTreeSet<String>) {
        match finding["because"].as_array().filter(|below| !below.is_empty()) {
            Some(below) => below.iter().for_each(|below| walk(below, found)),
            None => {
                found.insert(finding["cause"].as_str().unwrap_or_default().to_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    explanation["findings"].as_array().into_iter().flatten().for_each(|finding| walk(finding, &mut found));
    found
}

#[test]
fn troubles_that_are_really_there_are_explained_down_to_their_cause() {
    let world = World::new();
    world.up();
    world.import_busybox();
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = OBJECTS.to_owned();
    for (target, spec, _) in TROUBLES {
        let name = target.trim_start_matches("pod/");
        manifest.push_str(&format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {spec}\n"));
    }
    let file = dir.path().join("troubles.yaml");
    std::fs::write(&file, manifest).unwrap();
    world.ok("kubectl", &["apply", "-f", path(&file)]);
    world.ok("kubectl", &["delete", "configmap", "held", "--wait=false"]);
    let others = [
        ("service/selects-nothing", "selects-nothing"),
        ("service/wrong-port", "port-mismatch"),
        ("deployment/broken", "crash-loop"),
        ("deployment/no-account", "service-account-missing"),
        ("deployment/none", "scaled-to-zero"),
        ("configmap/held", "finalizer"),
        ("configmap/nosuch", "not-found"),
        ("pod/crahs", "not-found"),
    ];
    for (target, cause) in TROUBLES.iter().map(|(target, _, cause)| (*target, *cause)).chain(others) {
        let mut last = Value::Null;
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while !roots(&last).contains(cause) {
            assert!(std::time::Instant::now() < end, "{target}: wanted {cause}: {last:#}");
            last = why(&world, target);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    assert_eq!(why(&world, "pod/fine")["verdict"], "fine");
    let node = world.ok("kubectl", &["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    world.ok("kubectl", &["cordon", &node]);
    assert_eq!(roots(&why(&world, &format!("node/{node}"))), BTreeSet::from(["cordoned".to_owned()]));

    let told = crate::harness::text(&world.run(GANTRY, &["why", "deployment/broken"]).stdout);
    for wanted in ["deployment/broken in default: not as desired", "exit code 5", "out of ideas", "try", "kubectl logs"]
    {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
    assert!(!told.contains('\u{1b}'), "no colours where there is no terminal");
    let told = crate::harness::text(&world.run(GANTRY, &["why", "pod/no-configmap"]).stdout);
    assert!(told.contains("\"settngs\"") && told.contains("\"settings\""), "the name that was meant: {told}");
    let all = crate::harness::text(&world.run(GANTRY, &["why"]).stdout);
    assert!(all.contains("deployment/broken") && all.contains("service/selects-nothing"), "{all}");
    let heads: Vec<&str> = all.lines().filter(|line| !line.starts_with(' ')).collect();
    assert!(!heads.iter().any(|line| line.starts_with("pod/fine")), "only what is wrong: {all}");
    assert!(!heads.iter().any(|line| line.starts_with("pod/broken-")), "owners instead of their pods: {all}");
}

#[test]
fn containers_of_the_docker_half_are_explained_with_their_last_words() {
    let world = World::new();
    world.up();
    world.import_busybox();
    let run = |name: &str, rest: &[&str]| {
        let args = [&["run", "-d", "--name", name], rest].concat();
        world.run("docker", &args);
    };
    run("crashed", &["busybox", "sh", "-c", "echo no config; exit 7"]);
    run("nostart", &["busybox", "nosuch"]);
    run("greedy", &["--memory", "16m", "busybox", "sh", "-c", "x=a; while true; do x=$x$x; done"]);
    run("fine", &["busybox", "sleep", "1000"]);
    run(
        "sick",
        &[
            "--health-cmd",
            "cat /nosuch",
            "--health-interval",
            "1s",
            "--health-retries",
            "1",
            "busybox",
            "sleep",
            "1000",
        ],
    );
    for (name, cause) in [
        ("crashed", "exited-with-error"),
        ("nostart", "start-failed"),
        ("greedy", "out-of-memory"),
        ("sick", "unhealthy"),
    ] {
        world.until(Duration::from_secs(30), || roots(&why(&world, name)).contains(cause).then_some(()));
    }
    assert_eq!(why(&world, "fine")["verdict"], "fine");
    let told = crate::harness::text(&world.run(GANTRY, &["why", "crashed"]).stdout);
    assert!(told.contains("exit code 7") && told.contains("no config"), "{told}");
    let refused = world.refused(GANTRY, &["why", "nosuch"]);
    assert!(refused.contains("no container \"nosuch\"") && refused.contains("KIND/NAME"), "{refused}");
}
