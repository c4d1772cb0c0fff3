//! Real pods from their start to their end: exit codes, restarts, init containers, sidecars, hooks, deletion.

use std::time::{Duration, Instant};

use crate::pods::{self, condition, container, restarts};

#[test]
fn pods_end_and_restart_as_their_policies_and_exit_codes_say() {
    let world = pods::world();
    world.apply(&["done Never 'echo fine'", "bad Never 'echo broken >&2; exit 3'", "once OnFailure 'exit 0'", "crash OnFailure 'echo crashing; exit 7'", "again Always 'exit 0'", "shot Never 'sleep 1000'"].map(|line| {
        let mut words = line.splitn(3, ' ');
        let (name, policy, script) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: {policy}\n  containers: [{{name: c, image: tools, command: [sh, -c, {script}]}}]\n")
    }).concat());
    world.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: nosuch}
spec:
  restartPolicy: Never
  containers: [{name: c, image: tools, command: [/no/such/program]}]
---
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  restartPolicy: Never
  containers:
  - name: c
    image: tools
    command: [sh, -c, "tail /dev/zero"]
    resources: {limits: {memory: 24Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  activeDeadlineSeconds: 2
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: tools, command: [sleep, "1000"]}]
"#,
    );
    let done = world.phase("done", "Succeeded");
    let end = &container(&done, "c")["state"]["terminated"];
    assert_eq!((&end["exitCode"], &end["reason"]), (&0.into(), &"Completed".into()), "{done}");
    assert_eq!(condition(&done, "Ready"), "False");
    assert_eq!(world.status_column("done"), "Completed");
    assert_eq!(world.kubectl(&["logs", "done"]), "fine");

    let bad = world.phase("bad", "Failed");
    let end = &container(&bad, "c")["state"]["terminated"];
    assert_eq!((&end["exitCode"], &end["reason"]), (&3.into(), &"Error".into()), "{bad}");
    assert_eq!(world.kubectl(&["logs", "bad"]), "broken");
    assert_eq!(restarts(&world.phase("once", "Succeeded"), "c"), 0);
    let shot = world.ready("shot");
    let id = container(&shot, "c")["containerID"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    world.ok("kill", &["-9", &world.ok("docker", &["inspect", "-f", "{{.State.Pid}}", &id])]);
    let shot = world.phase("shot", "Failed");
    assert_eq!(container(&shot, "c")["state"]["terminated"]["exitCode"], 137);

    let nosuch = world.phase("nosuch", "Failed");
    let end = &container(&nosuch, "c")["state"]["terminated"];
    assert_eq!((&end["exitCode"], &end["reason"]), (&128.into(), &"StartError".into()), "{nosuch}");
    assert!(end["message"].as_str().unwrap_or_default().contains("/no/such/program"), "{nosuch}");
    let greedy = world.phase("greedy", "Failed");
    let end = &container(&greedy, "c")["state"]["terminated"];
    assert_eq!((&end["exitCode"], &end["reason"]), (&137.into(), &"OOMKilled".into()), "{greedy}");
    let late = world.phase("late", "Failed");
    assert_eq!(late["status"]["reason"], "DeadlineExceeded", "{late}");

    let crash = world.pod_when("crash", "backs off", |pod| {
        container(pod, "c")["state"]["waiting"]["reason"] == "CrashLoopBackOff" && restarts(pod, "c") >= 1
    });
    let status = container(&crash, "c");
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 7);
    let message = status["state"]["waiting"]["message"].as_str().unwrap();
    let uid = crash["metadata"]["uid"].as_str().unwrap();
    assert!(
        message.starts_with("back-off ")
            && message.ends_with(&format!("restarting failed container=c pod=crash_default({uid})")),
        "{message}"
    );
    world.event("crash", "BackOff", &format!("Back-off restarting failed container c in pod crash_default({uid})"));
    assert_eq!(world.kubectl(&["logs", "--previous", "crash"]), "crashing");
    world.pod_when("again", "restarted", |pod| restarts(pod, "c") >= 1);

    let told = world.kubectl(&["describe", "pod", "crash"]);
    for wanted in
        ["Reason:       CrashLoopBackOff", "Exit Code:    7", "Scheduled", "Pulled", "Created", "Started", "BackOff"]
    {
        assert!(told.contains(wanted), "{wanted}:\n{told}");
    }
}

#[test]
fn init_containers_sidecars_and_ephemeral_containers_take_their_turns() {
    let world = pods::world();
    world.apply(r#"
apiVersion: v1
kind: Pod
metadata: {name: steps}
spec:
  restartPolicy: Never
  volumes: [{name: shared, emptyDir: {}}]
  initContainers:
  - {name: first, image: tools, command: [sh, -c, "sleep 1; echo first >> /shared/order"], volumeMounts: [{name: shared, mountPath: /shared}]}
  - {name: helper, image: tools, restartPolicy: Always, command: [sh, -c, "echo helper >> /shared/order; touch /shared/up; trap 'echo helper-ends >> /shared/order; exit 0' TERM; while true; do sleep 0.1; done"], startupProbe: {exec: {command: [test, -e, /shared/up]}, periodSeconds: 1}, volumeMounts: [{name: shared, mountPath: /shared}]}
  - {name: second, image: tools, command: [sh, -c, "echo second >> /shared/order"], volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
  - {name: main, image: tools, command: [sh, -c, "cat /shared/order"], volumeMounts: [{name: shared, mountPath: /shared}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stuck}
spec:
  restartPolicy: Never
  initContainers: [{name: broken, image: tools, command: [sh, -c, "exit 4"]}]
  containers: [{name: main, image: tools, command: [sleep, "1000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: retry}
spec:
  initContainers: [{name: broken, image: tools, command: [sh, -c, "exit 4"]}]
  containers: [{name: main, image: tools, command: [sleep, "1000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: tools, command: [sleep, "1000"]}]
"#);
    let steps = world.phase("steps", "Succeeded");
    assert_eq!(world.kubectl(&["logs", "steps", "-c", "main"]), "first\nhelper\nsecond");
    assert_eq!(container(&steps, "first")["state"]["terminated"]["reason"], "Completed");
    assert_eq!(
        container(&steps, "helper")["state"]["terminated"]["exitCode"],
        0,
        "a sidecar ends after the main containers: {steps}"
    );
    assert_eq!(condition(&steps, "Initialized"), "True");
    let stuck = world.phase("stuck", "Failed");
    assert_eq!(container(&stuck, "broken")["state"]["terminated"]["exitCode"], 4);
    assert_eq!(container(&stuck, "main")["state"]["waiting"]["reason"], "PodInitializing", "{stuck}");
    assert_eq!(world.status_column("stuck"), "Init:Error");
    world.until("the init container backs off", || {
        (world.status_column("retry") == "Init:CrashLoopBackOff").then_some(())
    });
    let retry = world.pod("retry");
    assert_eq!(retry["status"]["phase"], "Pending");
    assert_eq!(condition(&retry, "Initialized"), "False");

    world.ready("web");
    world.kubectl(&["debug", "web", "--image=tools", "--target=c", "-c", "peek", "--", "sh", "-c", "ps"]);
    world.until("the ephemeral container has run", || {
        let pod = world.pod("web");
        container(&pod, "peek")["state"]["terminated"]["exitCode"].as_i64()
    });
    let seen = world.kubectl(&["logs", "web", "-c", "peek"]);
    assert!(seen.contains("sleep 1000"), "it sees its target's processes: {seen}");
    assert_eq!(restarts(&world.pod("web"), "c"), 0);
}

#[test]
fn hooks_grace_periods_and_termination_messages_are_kept_to() {
    let world = pods::world();
    let notes = tempfile::tempdir().unwrap();
    std::fs::set_permissions(notes.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let dir = notes.path().display();
    world.apply(&format!(r#"
apiVersion: v1
kind: Pod
metadata: {{name: polite}}
spec:
  terminationGracePeriodSeconds: 20
  volumes: [{{name: notes, hostPath: {{path: "{dir}", type: Directory}}}}]
  containers:
  - name: c
    image: tools
    command: [sh, -c, "trap 'echo term >> /notes/polite; exit 0' TERM; while true; do sleep 0.1; done"]
    volumeMounts: [{{name: notes, mountPath: /notes}}]
    lifecycle:
      postStart: {{exec: {{command: [sh, -c, "echo started >> /notes/polite"]}}}}
      preStop: {{exec: {{command: [sh, -c, "sleep 1; echo stopping >> /notes/polite"]}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: deaf}}
spec:
  terminationGracePeriodSeconds: 3
  containers: [{{name: c, image: tools, command: [sh, -c, "trap '' TERM; while true; do sleep 0.1; done"]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: sleepy}}
spec:
  terminationGracePeriodSeconds: 20
  containers:
  - name: c
    image: tools
    command: [sleep, "1000"]
    lifecycle: {{preStop: {{sleep: {{seconds: 2}}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: caller}}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - name: c
    image: tools
    command: [sh, -c, "httpd -f -vv -p 8080 -h /www 2>/notes/requests"]
    volumeMounts: [{{name: notes, mountPath: /notes}}]
    lifecycle: {{preStop: {{httpGet: {{port: 8080, path: /index.html}}}}}}
  volumes: [{{name: notes, hostPath: {{path: "{dir}"}}}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: hooked}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: tools
    command: [sleep, "1000"]
    lifecycle: {{postStart: {{exec: {{command: [sh, -c, "echo no >&2; exit 9"]}}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: words}}
spec:
  restartPolicy: Never
  containers:
  - {{name: file, image: tools, command: [sh, -c, "echo -n last words > /dev/termination-log; exit 1"]}}
  - {{name: other, image: tools, command: [sh, -c, "echo -n elsewhere > /tmp/bye; exit 1"], terminationMessagePath: /tmp/bye}}
  - {{name: log, image: tools, command: [sh, -c, "echo from the log; exit 1"], terminationMessagePolicy: FallbackToLogsOnError}}
  - {{name: quiet, image: tools, command: [sh, -c, "echo from the log"], terminationMessagePolicy: FallbackToLogsOnError}}
"#));
    for name in ["polite", "deaf", "sleepy", "caller"] {
        world.ready(name);
    }
    let began = Instant::now();
    world.kubectl(&["delete", "pod", "polite"]);
    assert!(began.elapsed() < Duration::from_secs(18), "{:?}", began.elapsed());
    assert_eq!(std::fs::read_to_string(notes.path().join("polite")).unwrap(), "started\nstopping\nterm\n");
    world.event("polite", "Killing", "Stopping container c");

    let began = Instant::now();
    world.kubectl(&["delete", "pod", "deaf", "--wait=false"]);
    let going = world.pod("deaf");
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 3, "{going}");
    assert_eq!(world.status_column("deaf"), "Terminating");
    world.gone("deaf");
    assert!(began.elapsed() >= Duration::from_millis(2500), "killed before its time: {:?}", began.elapsed());

    let began = Instant::now();
    world.kubectl(&["delete", "pod", "sleepy"]);
    assert!(began.elapsed() >= Duration::from_millis(1900), "{:?}", began.elapsed());
    world.kubectl(&["delete", "pod", "caller"]);
    let asked = std::fs::read_to_string(notes.path().join("requests")).unwrap();
    assert!(asked.contains("/index.html"), "{asked:?}");

    world.event("hooked", "FailedPostStartHook", "PostStartHook failed");
    world.pod_when("hooked", "restarted after its hook failed", |pod| restarts(pod, "c") >= 1);
    let words = world.phase("words", "Failed");
    let said =
        |name: &str| container(&words, name)["state"]["terminated"]["message"].as_str().unwrap_or_default().to_owned();
    assert_eq!(said("file"), "last words");
    assert_eq!(said("other"), "elsewhere");
    assert_eq!(said("log"), "from the log\n");
    assert_eq!(said("quiet"), "");

    let began = Instant::now();
    world.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: deaf}\nspec:\n  containers: [{name: c, image: tools, command: [sh, -c, \"trap '' TERM; while true; do sleep 0.1; done\"]}]\n");
    world.ready("deaf");
    world.kubectl(&["delete", "pod", "deaf", "--force", "--grace-period=0"]);
    world.gone("deaf");
    assert!(began.elapsed() < Duration::from_secs(28), "{:?}", began.elapsed());
    // The object is gone at once; the processes follow.
    world.until("the forced pod's containers are gone", || {
        let left = world.ok("docker", &["ps", "-aq", "--filter", "label=io.kubernetes.pod.name=deaf"]);
        left.is_empty().then_some(())
    });
}

#[test]
fn probes_of_every_kind_decide_over_readiness_and_restarts() {
    let world = pods::world();
    // A gRPC server with one answer: SETTINGS, its acknowledgement, headers, SERVING, trailers.
    let grpc = r"\000\000\000\004\000\000\000\000\000\000\000\000\004\001\000\000\000\000\000\000\023\001\004\000\000\000\001\210\137\020application/grpc\000\000\007\000\000\000\000\000\001\000\000\000\000\002\010\001\000\000\017\001\005\000\000\000\001\100\013grpc-status\0010";
    let not_serving = grpc.replace(r"\002\010\001", r"\002\010\002");
    let serve = |bytes: &str| {
        format!("printf '{bytes}' > /tmp/answer; while true; do nc -l -p 9000 -e sh -c 'sleep 0.2; cat /tmp/answer; sleep 0.3'; done").replace('\\', "\\\\")
    };
    world.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: exec}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: tools
    command: [sh, -c, "touch /tmp/ok; sleep 1000"]
    readinessProbe: {{exec: {{command: [cat, /tmp/ok]}}, periodSeconds: 1, failureThreshold: 2}}
---
apiVersion: v1
kind: Pod
metadata: {{name: http}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: tools
    ports: [{{name: web, containerPort: 8080}}]
    command: [sh, -c, "httpd -f -p 8080 -h /www"]
    startupProbe: {{httpGet: {{port: web, path: /index.html}}, periodSeconds: 1, failureThreshold: 60}}
    readinessProbe: {{httpGet: {{port: 8080, path: /ready}}, periodSeconds: 1}}
    livenessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Pod
metadata: {{name: dying}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: tools
    command: [sleep, "1000"]
    livenessProbe: {{tcpSocket: {{port: 81}}, periodSeconds: 1, failureThreshold: 2}}
---
apiVersion: v1
kind: Pod
metadata: {{name: never-up}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: tools
    command: [sleep, "1000"]
    startupProbe: {{exec: {{command: ["false"]}}, periodSeconds: 1, failureThreshold: 1}}
---
apiVersion: v1
kind: Pod
metadata: {{name: slow}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: tools
    command: [sleep, "1000"]
    readinessProbe: {{exec: {{command: [sleep, "77"]}}, periodSeconds: 1, timeoutSeconds: 1}}
---
apiVersion: v1
kind: Pod
metadata: {{name: grpc}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: tools
    command: [sh, -c, "{}"]
    readinessProbe: {{grpc: {{port: 9000}}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 9}}
---
apiVersion: v1
kind: Pod
metadata: {{name: grpc-sick}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: tools
    command: [sh, -c, "{}"]
    readinessProbe: {{grpc: {{port: 9000, service: db}}, periodSeconds: 2, timeoutSeconds: 5}}
---
apiVersion: v1
kind: Pod
metadata: {{name: gated}}
spec:
  terminationGracePeriodSeconds: 1
  readinessGates: [{{conditionType: example.com/open}}]
  containers: [{{name: c, image: tools, command: [sleep, "1000"]}}]
"#,
        serve(grpc),
        serve(&not_serving)
    ));
    world.ready("exec");
    world.sh("exec", "rm /tmp/ok");
    world.pod_when("exec", "unready once its probe fails", |pod| condition(pod, "Ready") == "False");
    world.event("exec", "Unhealthy", "Readiness probe failed: cat: can't open '/tmp/ok'");
    world.sh("exec", "touch /tmp/ok");
    assert_eq!(restarts(&world.ready("exec"), "c"), 0, "readiness restarts nothing");

    world.pod_when("http", "started, not ready", |pod| {
        container(pod, "c")["started"] == true && condition(pod, "Ready") == "False"
    });
    world.event("http", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404");
    world.sh("http", "echo yes > /www/ready");
    world.ready("http");
    assert_eq!(restarts(&world.pod("http"), "c"), 0);

    world.pod_when("dying", "restarted by its liveness probe", |pod| restarts(pod, "c") >= 1);
    world.event("dying", "Unhealthy", "Liveness probe failed: dial tcp ");
    world.event("dying", "Killing", "Container c failed liveness probe, will be restarted");
    world.pod_when("never-up", "restarted by its startup probe", |pod| restarts(pod, "c") >= 1);
    world.event("never-up", "Killing", "Container c failed startup probe, will be restarted");
    world.event("slow", "Unhealthy", "Readiness probe failed: command timed out");
    world.until("what timed out is killed", || {
        let left = world.sh("slow", "ps | grep -c '[s]leep 77' || true");
        (left.trim().parse::<u32>().unwrap_or(99) <= 1).then_some(())
    });
    world.ready("grpc");
    world.event("grpc-sick", "Unhealthy", "Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")");
    assert_eq!(condition(&world.pod("grpc-sick"), "Ready"), "False");

    let gated = world.pod_when("gated", "containers ready", |pod| condition(pod, "ContainersReady") == "True");
    assert_eq!(condition(&gated, "Ready"), "False", "{gated}");
    let open = r#"{"status":{"conditions":[{"type":"example.com/open","status":"True"}]}}"#;
    world.kubectl(&["patch", "pod", "gated", "--subresource=status", "--type=strategic", "-p", open]);
    world.ready("gated");
}
