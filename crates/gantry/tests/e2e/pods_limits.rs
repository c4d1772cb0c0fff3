//! What real pods may do and use: users, capabilities, seccomp, sysctls, namespaces, cgroup limits; and what outlives
//! a kill of Gantry.

use std::time::Duration;

use crate::harness::World;
use crate::pods::{self, condition, container, restarts};

#[test]
fn security_contexts_are_what_the_process_sees() {
    let world = pods::world();
    let profile =
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    let seccomp = world.root.join("seccomp");
    std::fs::create_dir_all(&seccomp).unwrap();
    std::fs::write(seccomp.join("nodirs.json"), profile).unwrap();
    world.apply(r#"
apiVersion: v1
kind: Pod
metadata: {name: user}
spec:
  restartPolicy: Never
  securityContext: {runAsUser: 1000, runAsGroup: 3000, fsGroup: 2000, supplementalGroups: [4000], runAsNonRoot: true}
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - {name: c, image: tools, command: [sh, -c, "id -u; id -g; id -G; touch /v/x && stat -c %g /v/x; grep -E 'NoNewPrivs|CapEff|Seccomp:' /proc/self/status"], volumeMounts: [{name: v, mountPath: /v}], securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}
  - {name: own, image: tools, command: [sh, -c, "id -u; id -g"], securityContext: {runAsUser: 5000}}
---
apiVersion: v1
kind: Pod
metadata: {name: rooted}
spec:
  securityContext: {runAsNonRoot: true}
  containers: [{name: c, image: tools, command: [sleep, "1000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: caps}
spec:
  restartPolicy: Never
  containers:
  - {name: default, image: tools, command: [sh, -c, "grep CapEff /proc/self/status; mount -t tmpfs none /tmp 2>&1; touch /new && echo wrote; ls /proc/kcore; head -c1 /proc/kcore | wc -c; echo 1 > /proc/sys/kernel/panic"]}
  - {name: added, image: tools, command: [sh, -c, "grep CapEff /proc/self/status"], securityContext: {capabilities: {add: [NET_ADMIN], drop: [CHOWN]}}}
  - {name: readonly, image: tools, command: [sh, -c, "touch /new"], securityContext: {readOnlyRootFilesystem: true}}
  - {name: privileged, image: tools, command: [sh, -c, "grep -E 'CapEff|Seccomp:' /proc/self/status; mount -t tmpfs none /tmp && echo mounted; test -e /dev/null && ls /dev | wc -l"], securityContext: {privileged: true}}
  - {name: unconfined, image: tools, command: [sh, -c, "grep Seccomp: /proc/self/status"], securityContext: {seccompProfile: {type: Unconfined}}}
  - {name: nodirs, image: tools, command: [sh, -c, "mkdir /tmp/x"], securityContext: {seccompProfile: {type: Localhost, localhostProfile: nodirs.json}}}
---
apiVersion: v1
kind: Pod
metadata: {name: sysctl}
spec:
  restartPolicy: Never
  securityContext: {sysctls: [{name: kernel.shm_rmid_forced, value: "1"}, {name: net.ipv4.ip_unprivileged_port_start, value: "80"}]}
  containers: [{name: c, image: tools, command: [cat, /proc/sys/kernel/shm_rmid_forced, /proc/sys/net/ipv4/ip_unprivileged_port_start]}]
---
apiVersion: v1
kind: Pod
metadata: {name: hosted}
spec:
  restartPolicy: Never
  hostNetwork: true
  hostPID: true
  hostIPC: true
  containers: [{name: c, image: tools, command: [sh, -c, "hostname; readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; ls /proc | grep -c '^[0-9]'"]}]
"#);
    world.phase("user", "Succeeded");
    let log = world.kubectl(&["logs", "user", "-c", "c"]);
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[..2], ["1000", "3000"], "{log}");
    let groups: Vec<&str> = lines[2].split_whitespace().collect();
    assert!(["3000", "2000", "4000"].iter().all(|group| groups.contains(group)), "{log}");
    assert_eq!(lines[3], "2000", "{log}");
    for wanted in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(lines.contains(&wanted), "{wanted}: {log}");
    }
    assert_eq!(world.kubectl(&["logs", "user", "-c", "own"]), "5000\n3000");
    let rooted = world.pod_when("rooted", "is refused", |pod| {
        container(pod, "c")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    });
    let message = container(&rooted, "c")["state"]["waiting"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("container has runAsNonRoot and image will run as root (pod: \"rooted_default("),
        "{message}"
    );

    world.pod_when("caps", "ended", |pod| pod["status"]["phase"] == "Failed");
    let of = |name: &str| world.kubectl(&["logs", "caps", "-c", name]);
    let default = of("default");
    assert!(default.contains("CapEff:\t00000000a80425fb"), "{default}");
    assert!(default.contains("wrote") && default.contains("\n0\n"), "{default}");
    assert!(default.contains("Operation not permitted") || default.contains("permission denied"), "{default}");
    assert!(default.contains("Read-only file system"), "{default}");
    assert!(of("added").contains("CapEff:\t00000000a80435fa"), "{}", of("added"));
    assert!(of("readonly").contains("Read-only file system"));
    let privileged = of("privileged");
    assert!(privileged.contains("mounted") && privileged.contains("Seccomp:\t0"), "{privileged}");
    assert!(of("unconfined").contains("Seccomp:\t0"));
    assert!(of("nodirs").contains("Operation not permitted"), "{}", of("nodirs"));
    world.phase("sysctl", "Succeeded");
    assert_eq!(world.kubectl(&["logs", "sysctl"]), "1\n80");

    let hosted = world.phase("hosted", "Succeeded");
    assert_eq!(hosted["status"]["podIP"], hosted["status"]["hostIP"]);
    let log = world.kubectl(&["logs", "hosted"]);
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], world.ok("hostname", &[]));
    assert_eq!(lines[1], world.ok("readlink", &["/proc/self/ns/net"]));
    assert_eq!(lines[2], world.ok("readlink", &["/proc/self/ns/ipc"]));
    assert!(lines[3].parse::<u32>().unwrap() > 5, "{log}");
}

/// A file of a container's cgroup, on either hierarchy.
fn cgroup(world: &World, pod: &str, name: &str, v1: (&str, &str), v2: &str) -> String {
    let status = world.pod(pod);
    let id = container(&status, name)["containerID"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let pid = world.ok("docker", &["inspect", "-f", "{{.State.Pid}}", &id]);
    let script = format!(
        "if test -e /sys/fs/cgroup/cgroup.controllers; then cat /sys/fs/cgroup$(sed -n 's/^0:://p' /proc/{pid}/cgroup)/{v2}; \
         else cat /sys/fs/cgroup/{0}$(awk -F: '$2 ~ /(^|,){0}(,|$)/ {{print $3}}' /proc/{pid}/cgroup)/{1}; fi",
        v1.0, v1.1
    );
    world.ok("sh", &["-c", &script])
}

#[test]
fn requests_and_limits_are_the_cgroups_numbers_and_change_in_place() {
    let world = pods::world();
    world.apply(r#"
apiVersion: v1
kind: Pod
metadata: {name: burst}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: tools, command: [sleep, "1000"], resources: {requests: {cpu: 250m, memory: 32Mi}, limits: {cpu: 500m, memory: 64Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: sure}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: tools, command: [sleep, "1000"], resources: {limits: {cpu: 100m, memory: 32Mi}}}]
---
apiVersion: v1
kind: Pod
metadata: {name: free}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: tools, command: [sleep, "1000"]}]
"#);
    for (name, class) in [("burst", "Burstable"), ("sure", "Guaranteed"), ("free", "BestEffort")] {
        assert_eq!(world.ready(name)["status"]["qosClass"], class);
    }
    let memory = |pod: &str| cgroup(&world, pod, "c", ("memory", "memory.limit_in_bytes"), "memory.max");
    let shares = |pod: &str| cgroup(&world, pod, "c", ("cpu", "cpu.shares"), "cpu.weight");
    let quota = |pod: &str| cgroup(&world, pod, "c", ("cpu", "cpu.cfs_quota_us"), "cpu.max");
    assert_eq!(memory("burst"), (64 << 20).to_string());
    assert!(["256", "10"].contains(&shares("burst").as_str()), "{}", shares("burst"));
    assert!(["50000", "50000 100000"].contains(&quota("burst").as_str()), "{}", quota("burst"));
    assert!(["2", "1"].contains(&shares("free").as_str()), "{}", shares("free"));
    let score = |pod: &str| world.sh_in(pod, "cat /proc/1/oom_score_adj");
    // Where the machine itself does not let root go below zero, the score stays at zero.
    let may = world.run("sh", &["-c", "echo -997 > /proc/self/oom_score_adj"]).status.success();
    assert_eq!((score("sure").as_str(), score("free").as_str()), (if may { "-997" } else { "0" }, "1000"));
    let middle: i32 = score("burst").parse().unwrap();
    assert!((3..1000).contains(&middle), "{middle}");

    let resized = r#"{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"300m","memory":"40Mi"},"limits":{"cpu":"1","memory":"96Mi"}}}]}}"#;
    world.kubectl(&["patch", "pod", "burst", "--subresource=resize", "--type=strategic", "-p", resized]);
    let burst = world.pod_when("burst", "resized", |pod| {
        container(pod, "c")["resources"]["limits"]["memory"] == "96Mi"
            && condition(pod, "PodResizeInProgress") != "True"
    });
    assert_eq!(restarts(&burst, "c"), 0, "{burst}");
    assert_eq!(memory("burst"), (96 << 20).to_string());
    assert!(["100000", "100000 100000"].contains(&quota("burst").as_str()), "{}", quota("burst"));
    assert_eq!(container(&burst, "c")["allocatedResources"]["memory"], "40Mi", "{burst}");
    let huge =
        r#"{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"900"},"limits":{"cpu":"900"}}}]}}"#;
    world.kubectl(&["patch", "pod", "burst", "--subresource=resize", "--type=strategic", "-p", huge]);
    world.pod_when("burst", "cannot grow beyond its node", |pod| condition(pod, "PodResizePending") == "True");
}

#[test]
fn pods_outlive_a_kill_of_gantry_with_their_counts_and_their_traffic() {
    let world = pods::world();
    world.apply(
        r#"
apiVersion: v1
kind: Service
metadata: {name: server}
spec: {selector: {app: server}, ports: [{port: 80, targetPort: 8080}]}
"#,
    );
    world.apply(r#"
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: tools
    command: [sh, -c, "test -e /state/once || { touch /state/once; exit 1; }; httpd -f -p 8080 -h /www"]
    volumeMounts: [{name: state, mountPath: /state}]
    readinessProbe: {httpGet: {port: 8080, path: /index.html}, periodSeconds: 1}
  volumes: [{name: state, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: tools
    command: [sh, -c, "ok=0; bad=0; while true; do if timeout 2 wget -q -O /dev/null http://$SERVER_SERVICE_HOST/index.html; then ok=$((ok+1)); else bad=$((bad+1)); fi; echo $ok $bad; sleep 0.05; done"]
"#);
    world.ready("server");
    world.ready("client");
    assert_eq!(restarts(&world.pod("server"), "c"), 1);
    let counts = || {
        let line = world.kubectl(&["logs", "client", "--tail=1"]);
        let mut words = line.split_whitespace().filter_map(|word| word.parse::<u32>().ok());
        (words.next().unwrap_or(0), words.next().unwrap_or(0))
    };
    world.until("traffic flows", || (counts().0 > 5).then_some(()));
    let before = counts();
    let ids: Vec<String> =
        ["server", "client"].iter().map(|name| container(&world.pod(name), "c")["containerID"].to_string()).collect();
    world.kill_9();
    std::thread::sleep(Duration::from_secs(2));
    world.up();
    let after: Vec<String> =
        ["server", "client"].iter().map(|name| container(&world.ready(name), "c")["containerID"].to_string()).collect();
    assert_eq!(ids, after, "nothing was restarted");
    assert_eq!((restarts(&world.pod("server"), "c"), restarts(&world.pod("client"), "c")), (1, 0));
    let now = counts();
    assert!(now.0 > before.0 + 5, "traffic went on: {before:?} {now:?}");
    assert_eq!(now.1, before.1, "requests failed while Gantry was away");
    // Killed in the middle of a pod's life, it still keeps its promises afterwards.
    let pid =
        world.ok("docker", &["inspect", "-f", "{{.State.Pid}}", ids[0].trim_matches('"').rsplit('/').next().unwrap()]);
    world.kill_9();
    world.ok("kill", &["-9", &pid]);
    world.up();
    world.pod_when("server", "restarted once for the end it had meanwhile", |pod| {
        restarts(pod, "c") == 2 && condition(pod, "Ready") == "True"
    });
}
