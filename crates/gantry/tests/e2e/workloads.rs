//! Workloads through the stock kubectl, on real pods: one instance for all checks.

use crate::harness::{self, World};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

fn kubectl(world: &World, args: &[&str]) -> String {
    world.ok("kubectl", args)
}

fn apply(world: &World, manifest: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), manifest).unwrap();
    kubectl(world, &["apply", "-f", harness::path(file.path())]);
}

/// Waits until the fields read so; what they read in the end is in the failure.
fn reads(world: &World, object: &str, path: &str, expected: &str) {
    let (begun, template) = (Instant::now(), format!("jsonpath={path}"));
    loop {
        let output = world.run("kubectl", &["get", object, "-o", &template]);
        let text = harness::text(&output.stdout);
        if text == expected {
            return;
        }
        if begun.elapsed() > PATIENCE {
            let described = harness::text(&world.run("kubectl", &["describe", object]).stdout);
            panic!("{object} {path}: {text:?}, not {expected:?}\n{}{described}", harness::text(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn has_event(world: &World, object: &str, reason: &str) {
    let begun = Instant::now();
    loop {
        let filter = format!("involvedObject.name={object},reason={reason}");
        if !kubectl(world, &["get", "events", "--field-selector", &filter, "-o", "name"]).is_empty() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "no event {reason} of {object}: {}", kubectl(world, &["get", "events"]));
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn pod(command: &str, policy: &str) -> String {
    format!(
        "{{restartPolicy: {policy}, terminationGracePeriodSeconds: 0, containers: [{{name: c, image: busybox, imagePullPolicy: Never, command: [sh, -c, '{command}']}}]}}"
    )
}

fn job(name: &str, fields: &str, command: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec: {{{fields}template: {{spec: {}}}}}\n---\n",
        pod(command, "Never")
    )
}

#[test]
fn every_workload_runs_real_pods_under_stock_kubectl() {
    let world = World::new();
    world.up();
    world.import_busybox();
    cron_job_begins(&world);
    jobs(&world);
    daemon_set(&world);
    stateful_set(&world);
    replication_controller(&world);
    budget(&world);
    claims(&world);
    gates_and_preemption(&world);
    cron_job_ran(&world);
}

fn jobs(world: &World) {
    let mut all = job("plain", "completions: 3, parallelism: 2, ", "exit 0");
    all += &job(
        "indexed",
        "completions: 3, parallelism: 3, completionMode: Indexed, ",
        "echo index $JOB_COMPLETION_INDEX",
    );
    all += &job("failing", "backoffLimit: 0, ", "exit 3");
    let policy =
        "backoffLimit: 6, podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]}, ";
    all += &job("refused", policy, "exit 42");
    all += &job("late", "activeDeadlineSeconds: 1, ", "sleep 1000");
    all += &job("brief", "ttlSecondsAfterFinished: 0, ", "exit 0");
    all += &job("held", "suspend: true, ", "exit 0");
    apply(world, &all);
    kubectl(world, &["wait", "--for=condition=complete", "job/plain", "job/indexed", "--timeout=120s"]);
    reads(world, "job/plain", "{.status.succeeded}", "3");
    reads(world, "job/indexed", "{.status.completedIndexes}", "0-2");
    let logs = kubectl(world, &["logs", "-l", "job-name=indexed", "--prefix=false"]);
    assert!(["index 0", "index 1", "index 2"].iter().all(|line| logs.contains(line)), "{logs}");
    has_event(world, "plain", "Completed");
    let reason = "{.status.conditions[?(@.type==\"Failed\")].reason}";
    reads(world, "job/failing", reason, "BackoffLimitExceeded");
    reads(world, "job/refused", reason, "PodFailurePolicy");
    reads(world, "job/late", reason, "DeadlineExceeded");
    kubectl(world, &["wait", "--for=delete", "job/brief", "--timeout=60s"]);
    reads(world, "job/held", "{.status.conditions[?(@.type==\"Suspended\")].status}", "True");
    kubectl(world, &["patch", "job/held", "-p", "{\"spec\": {\"suspend\": false}}"]);
    kubectl(world, &["wait", "--for=condition=complete", "job/held", "--timeout=60s"]);
    kubectl(world, &["delete", "jobs", "plain", "indexed", "failing", "refused", "late", "held", "--timeout=60s"]);
}

fn cron_job_begins(world: &World) {
    apply(
        world,
        &format!(
            "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: tick}}\nspec: {{schedule: \"* * * * *\", timeZone: Europe/Berlin, jobTemplate: {{spec: {{template: {{spec: {}}}}}}}}}\n",
            pod("exit 0", "Never")
        ),
    );
    kubectl(world, &["create", "job", "by-hand", "--from=cronjob/tick"]);
    kubectl(world, &["wait", "--for=condition=complete", "job/by-hand", "--timeout=60s"]);
}

/// The minute came round while the other checks ran, or does now.
fn cron_job_ran(world: &World) {
    let begun = Instant::now();
    while kubectl(world, &["get", "cronjob/tick", "-o", "jsonpath={.status.lastSuccessfulTime}"]).is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{}", kubectl(world, &["describe", "cronjob/tick"]));
        std::thread::sleep(Duration::from_millis(500));
    }
    has_event(world, "tick", "SuccessfulCreate");
    kubectl(world, &["delete", "cronjob/tick", "--timeout=60s"]);
}

fn daemon_set(world: &World) {
    let manifest = |image: &str| {
        format!(
            "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: agent}}\nspec: {{selector: {{matchLabels: {{app: agent}}}}, template: {{metadata: {{labels: {{app: agent}}}}, spec: {}}}}}\n",
            pod(image, "Always")
        )
    };
    apply(world, &manifest("sleep 1001"));
    kubectl(world, &["rollout", "status", "daemonset/agent", "--timeout=120s"]);
    apply(world, &manifest("sleep 1002"));
    kubectl(world, &["rollout", "status", "daemonset/agent", "--timeout=120s"]);
    let history = kubectl(world, &["rollout", "history", "daemonset/agent"]);
    assert!(history.contains('1') && history.contains('2'), "{history}");
    kubectl(world, &["rollout", "undo", "daemonset/agent"]);
    kubectl(world, &["rollout", "status", "daemonset/agent", "--timeout=120s"]);
    let command = "{.items[0].spec.containers[0].command[2]}";
    let template = format!("jsonpath={command}");
    assert_eq!(kubectl(world, &["get", "pods", "-l", "app=agent", "-o", &template]), "sleep 1001");
    has_event(world, "agent", "SuccessfulCreate");
    kubectl(world, &["delete", "daemonset/agent", "--timeout=60s"]);
}

fn stateful_set(world: &World) {
    apply(
        world,
        &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: db}}\nspec: {{clusterIP: None, selector: {{app: db}}, ports: [{{port: 80}}]}}\n---\napiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: db}}\nspec: {{serviceName: db, replicas: 2, selector: {{matchLabels: {{app: db}}}}, template: {{metadata: {{labels: {{app: db}}}}, spec: {}}}}}\n",
            pod("sleep 1000", "Always")
        ),
    );
    kubectl(world, &["rollout", "status", "statefulset/db", "--timeout=120s"]);
    assert_eq!(kubectl(world, &["get", "pods", "-l", "app=db", "-o", "name"]), "pod/db-0\npod/db-1");
    reads(world, "pod/db-1", "{.spec.hostname}.{.spec.subdomain}", "db-1.db");
    kubectl(world, &["scale", "statefulset/db", "--replicas=3"]);
    kubectl(world, &["rollout", "status", "statefulset/db", "--timeout=120s"]);
    kubectl(world, &["set", "env", "statefulset/db", "VERSION=2"]);
    kubectl(world, &["rollout", "status", "statefulset/db", "--timeout=120s"]);
    reads(world, "pod/db-0", "{.spec.containers[0].env[0].value}", "2");
    kubectl(world, &["rollout", "undo", "statefulset/db"]);
    kubectl(world, &["rollout", "status", "statefulset/db", "--timeout=120s"]);
    reads(world, "pod/db-0", "{.spec.containers[0].env}", "");
    kubectl(world, &["delete", "statefulset/db", "service/db", "--timeout=60s"]);
}

fn replication_controller(world: &World) {
    apply(
        world,
        &format!(
            "apiVersion: v1\nkind: ReplicationController\nmetadata: {{name: old}}\nspec: {{replicas: 2, selector: {{app: old}}, template: {{metadata: {{labels: {{app: old}}}}, spec: {}}}}}\n",
            pod("sleep 1000", "Always")
        ),
    );
    reads(world, "replicationcontroller/old", "{.status.readyReplicas}", "2");
    kubectl(world, &["scale", "replicationcontroller/old", "--replicas=1"]);
    reads(world, "replicationcontroller/old", "{.status.replicas}", "1");
}

/// A budget for the pod that is left keeps it from eviction; drain says so.
fn budget(world: &World) {
    kubectl(world, &["create", "poddisruptionbudget", "keep", "--selector=app=old", "--min-available=1"]);
    reads(world, "poddisruptionbudget/keep", "{.status.currentHealthy} {.status.disruptionsAllowed}", "1 0");
    kubectl(world, &["scale", "replicationcontroller/old", "--replicas=2"]);
    reads(world, "poddisruptionbudget/keep", "{.status.currentHealthy} {.status.disruptionsAllowed}", "2 1");
    kubectl(world, &["delete", "replicationcontroller/old", "poddisruptionbudget/keep", "--timeout=60s"]);
}

fn claims(world: &World) {
    let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";
    apply(world, claim);
    has_event(world, "data", "WaitForFirstConsumer");
    reads(world, "pvc/data", "{.spec.storageClassName} {.status.phase}", "local Pending");
    let node = kubectl(world, &["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    kubectl(world, &["annotate", "pvc/data", &format!("volume.kubernetes.io/selected-node={node}")]);
    reads(world, "pvc/data", "{.status.phase} {.status.capacity.storage}", "Bound 1Gi");
    let volume = kubectl(world, &["get", "pvc/data", "-o", "jsonpath={.spec.volumeName}"]);
    reads(world, &format!("pv/{volume}"), "{.status.phase}", "Bound");
    let directory = world.root.join("local-volumes").join(&volume);
    let begun = Instant::now();
    while !directory.is_dir() {
        assert!(begun.elapsed() < PATIENCE, "{} is not there", directory.display());
        std::thread::sleep(Duration::from_millis(100));
    }
    kubectl(world, &["patch", "pvc/data", "-p", "{\"spec\": {\"resources\": {\"requests\": {\"storage\": \"2Gi\"}}}}"]);
    reads(world, "pvc/data", "{.status.capacity.storage}", "2Gi");
    kubectl(world, &["delete", "pvc/data", "--timeout=60s"]);
    kubectl(world, &["wait", "--for=delete", &format!("pv/{volume}"), "--timeout=60s"]);
    assert!(!directory.exists(), "the volume's directory goes with it");
}

fn gates_and_preemption(world: &World) {
    let spec = pod("sleep 1000", "Never");
    let gated = spec.replacen('{', "{schedulingGates: [{name: example.com/wait}], ", 1);
    apply(world, &format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: gated}}\nspec: {gated}\n"));
    reads(world, "pod/gated", "{.status.conditions[?(@.type==\"PodScheduled\")].reason}", "SchedulingGated");
    kubectl(
        world,
        &["patch", "pod/gated", "--type=json", "-p", "[{\"op\": \"remove\", \"path\": \"/spec/schedulingGates\"}]"],
    );
    kubectl(world, &["wait", "--for=condition=ready", "pod/gated", "--timeout=60s"]);
    let cpus = kubectl(world, &["get", "nodes", "-o", "jsonpath={.items[0].status.allocatable.cpu}"]);
    let millis = cpus.strip_suffix('m').map_or_else(|| cpus.parse::<u64>().unwrap() * 1000, |m| m.parse().unwrap());
    let most = format!("{}m", millis * 2 / 3);
    let needing = |class: &str| {
        let needs = format!("{{priorityClassName: {class}, ");
        let spec = spec.replacen('{', &needs, 1);
        spec.replacen("name: c,", &format!("name: c, resources: {{requests: {{cpu: {most}}}}},"), 1)
    };
    let class = |name: &str, value: u32| {
        format!(
            "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {{name: {name}}}\nvalue: {value}\n---\n"
        )
    };
    apply(world, &(class("low", 1) + &class("high", 1000)));
    apply(world, &format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: humble}}\nspec: {}\n", needing("low")));
    kubectl(world, &["wait", "--for=condition=ready", "pod/humble", "--timeout=60s"]);
    apply(world, &format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: late}}\nspec: {}\n", needing("low")));
    has_event(world, "late", "FailedScheduling");
    kubectl(world, &["delete", "pod/late", "--timeout=60s"]);
    apply(world, &format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: proud}}\nspec: {}\n", needing("high")));
    kubectl(world, &["wait", "--for=condition=ready", "pod/proud", "--timeout=60s"]);
    has_event(world, "humble", "Preempted");
    has_event(world, "proud", "Scheduled");
    kubectl(world, &["delete", "pod/proud", "pod/gated", "--timeout=60s"]);
}
