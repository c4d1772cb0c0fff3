//! The node itself: its object, its own HTTPS API, metrics, claims, log rotation, limits of local storage.

use std::time::Duration;

use crate::harness::{self, World};
use crate::pods::{self, condition, container};

/// A request to the node's API: HTTP status and body.
fn kubelet(world: &World, path: &str, credentials: &[&str]) -> (String, String) {
    let url = format!("https://127.0.0.1:10250{path}");
    let mut args = vec!["-sk", "-w", "\n%{http_code}", &url];
    args.extend(credentials);
    let text = world.ok("curl", &args);
    let (body, code) = text.rsplit_once('\n').unwrap_or(("", &text));
    (code.to_owned(), body.to_owned())
}

#[test]
fn the_node_tells_what_it_is_and_serves_the_kubelets_api_and_metrics() {
    let world = pods::world();
    world.apply(r#"
apiVersion: v1
kind: Pod
metadata: {name: busy, labels: {app: busy}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: tools, command: [sh, -c, "echo one; echo two; while true; do :; done"], resources: {limits: {cpu: 100m, memory: 64Mi}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: watcher}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: watcher}
rules: [{apiGroups: [""], resources: [nodes/metrics, nodes/stats], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: watcher}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: watcher}
subjects: [{kind: ServiceAccount, name: watcher, namespace: default}]
"#);
    let busy = world.ready("busy");
    let name = busy["spec"]["nodeName"].as_str().unwrap().to_owned();
    let node = world.object("node", &name);
    let status = &node["status"];
    for kind in ["MemoryPressure", "DiskPressure", "PIDPressure"] {
        assert_eq!(condition(&node, kind), "False", "{status}");
    }
    assert_eq!(status["daemonEndpoints"]["kubeletEndpoint"]["Port"], 10250);
    let addresses: Vec<&str> =
        status["addresses"].as_array().unwrap().iter().filter_map(|one| one["type"].as_str()).collect();
    assert_eq!(addresses, ["InternalIP", "Hostname"]);
    for info in ["machineID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion", "architecture"] {
        assert!(status["nodeInfo"][info].as_str().is_some_and(|text| !text.is_empty()), "{info}: {status}");
    }
    assert_ne!(
        status["capacity"]["memory"], status["allocatable"]["memory"],
        "what eviction keeps free is not for pods"
    );
    world.until("the node lists its images", || {
        let images = world.object("node", &name)["status"]["images"].to_string();
        images.contains("tools").then_some(())
    });
    assert!(world.kubectl(&["describe", "node", &name]).contains("KubeletReady"));

    world.until("kubectl top knows the node and the pod", || {
        let top = world.run("kubectl", &["top", "pods", "--no-headers"]);
        let text = harness::text(&top.stdout);
        let cpu = text.split_whitespace().nth(1)?.strip_suffix('m')?.parse::<u32>().ok()?;
        (text.starts_with("busy") && (50..=150).contains(&cpu)).then_some(())
    });
    assert!(world.kubectl(&["top", "node", &name, "--no-headers"]).contains('%'));
    assert!(world.kubectl(&["top", "pod", "busy", "--containers"]).contains(" c "));
    assert_eq!(world.kubectl(&["top", "pods", "-l", "app=other", "--no-headers"]), "");
    let raw = world.kubectl(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/busy"]);
    let raw: serde_json::Value = serde_json::from_str(&raw).unwrap();
    assert_eq!((&raw["kind"], &raw["containers"][0]["name"]), (&"PodMetrics".into(), &"c".into()), "{raw}");
    assert!(
        world.refused("kubectl", &["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes/none"]).contains("not found")
    );

    let kubeconfig = std::fs::read_to_string(world.root.join("kubeconfig")).unwrap();
    let keys = tempfile::tempdir().unwrap();
    for (field, file) in [("client-certificate-data", "cert"), ("client-key-data", "key")] {
        let data = kubeconfig.lines().find_map(|line| line.trim().strip_prefix(field)?.strip_prefix(": ")).unwrap();
        let decoded = world.ok("sh", &["-c", "echo $0 | base64 -d", data]);
        std::fs::write(keys.path().join(file), decoded + "\n").unwrap();
    }
    let (cert, key) = (keys.path().join("cert"), keys.path().join("key"));
    let admin = ["--cert", harness::path(&cert), "--key", harness::path(&key)];
    let ask = |path: &str| {
        let (code, body) = kubelet(&world, path, &admin);
        assert_eq!(code, "200", "{path}: {body}");
        body
    };
    assert_eq!(ask("/healthz"), "ok");
    assert!(ask("/pods").contains("\"name\":\"busy\""));
    let summary: serde_json::Value = serde_json::from_str(&ask("/stats/summary")).unwrap();
    assert_eq!(summary["node"]["nodeName"], name.as_str());
    let pod = summary["pods"].as_array().unwrap().iter().find(|pod| pod["podRef"]["name"] == "busy").unwrap().clone();
    assert!(pod["containers"][0]["memory"]["workingSetBytes"].as_u64().unwrap() > 0, "{pod}");
    assert!(pod["containers"][0]["cpu"]["usageNanoCores"].as_u64().unwrap() > 10_000_000, "{pod}");
    assert!(ask("/metrics").contains("kubelet_running_pods"));
    assert!(
        ask("/metrics/resource")
            .contains("container_cpu_usage_seconds_total{container=\"c\",namespace=\"default\",pod=\"busy\"}")
    );
    assert!(ask("/metrics/cadvisor").contains("container_memory_working_set_bytes{container=\"c\""));
    assert!(ask("/configz").contains("\"kubeletconfig\""));
    assert_eq!(ask("/containerLogs/default/busy/c?tailLines=1").trim(), "two");
    assert_eq!(kubelet(&world, "/containerLogs/default/none/c", &admin).0, "404");
    assert_eq!(kubelet(&world, "/containerLogs/default/busy/c?tailLines=x", &admin).0, "422");
    assert_eq!(kubelet(&world, "/nothing", &admin).0, "404");
    assert_eq!(kubelet(&world, "/healthz", &[]).0, "401");
    assert_eq!(kubelet(&world, "/healthz", &["-H", "Authorization: Bearer nonsense"]).0, "401");
    let token = format!("Authorization: Bearer {}", world.kubectl(&["create", "token", "watcher"]));
    assert_eq!(kubelet(&world, "/metrics/cadvisor", &["-H", &token]).0, "200");
    let (code, body) = kubelet(&world, "/pods", &["-H", &token]);
    assert_eq!(
        (code.as_str(), body.contains("user=system:serviceaccount:default:watcher, verb=get, resource=nodes")),
        ("403", true),
        "{body}"
    );
    // An upgrade that is led to the runtime: the handshake is the runtime's own.
    let websocket = [
        "-i",
        "--http1.1",
        "--max-time",
        "5",
        "-H",
        "Connection: Upgrade",
        "-H",
        "Upgrade: websocket",
        "-H",
        "Sec-WebSocket-Version: 13",
        "-H",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "-H",
        "Sec-WebSocket-Protocol: v5.channel.k8s.io",
    ];
    let url = "https://127.0.0.1:10250/exec/default/busy/c?command=echo&command=from-exec&output=1";
    let mut args = vec!["-sk", url];
    args.extend(admin);
    args.extend(websocket);
    let output = world.run("curl", &args);
    let text = harness::text(&output.stdout);
    assert!(
        text.contains("101 Switching Protocols") && text.contains("from-exec") && text.contains("\"Success\""),
        "{text}"
    );
    let (code, _) = kubelet(&world, "/exec/default/busy/c?command=id&output=1", &["-H", &token]);
    assert_eq!(code, "403");
    // A node reads only what its pods need.
    let user = format!("system:node:{name}");
    let as_node = ["--as", &user, "--as-group", "system:nodes"];
    world.kubectl(&["create", "secret", "generic", "private", "--from-literal=a=b"]);
    let refused = world.refused("kubectl", &[&["get", "secret", "private"], &as_node[..]].concat());
    assert!(refused.contains("Forbidden") || refused.contains("forbidden"), "{refused}");
    let refused = world.refused("kubectl", &[&["get", "secrets", "-A"], &as_node[..]].concat());
    assert!(refused.contains("forbidden"), "{refused}");
    let refused = world.refused("kubectl", &[&["taint", "node", &name, "a=b:NoSchedule"], &as_node[..]].concat());
    assert!(refused.contains("not allowed to modify taints"), "{refused}");
}

#[test]
fn claims_are_mounted_logs_are_rotated_and_kept_and_limits_of_local_storage_evict() {
    let world = pods::world();
    let dir = world.root.join("storage/pv-one");
    let node = world.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    world.apply(&format!(r#"
apiVersion: v1
kind: PersistentVolume
metadata: {{name: pv-one}}
spec:
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteOnce]
  storageClassName: manual
  local: {{path: "{}"}}
  claimRef: {{namespace: default, name: data}}
  nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: ["{node}"]}}]}}]}}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data}}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: manual
  volumeName: pv-one
  resources: {{requests: {{storage: 1Gi}}}}
"#, dir.display()));
    bind(&world, "data", "pv-one");
    world.apply(r#"
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  restartPolicy: Never
  securityContext: {fsGroup: 2000}
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
  containers: [{name: c, image: tools, command: [sh, -c, "echo kept > /data/file; mkdir /data/sub; echo part > /data/sub/x; stat -c %g /data"], volumeMounts: [{name: data, mountPath: /data}]}]
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: plain}
handler: runc
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: strange}
handler: kata
---
apiVersion: v1
kind: Pod
metadata: {name: classy}
spec:
  restartPolicy: Never
  runtimeClassName: plain
  containers: [{name: c, image: tools, command: ["true"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: stranger}
spec:
  terminationGracePeriodSeconds: 1
  runtimeClassName: strange
  containers: [{name: c, image: tools, command: ["true"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: chatty}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: tools, command: [sh, -c, "i=0; while [ $i -lt 120000 ]; do i=$((i+1)); echo line $i of a log that grows beyond ten mebibytes and has to be rotated before it fills the disk; done; echo the end; sleep 1000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: v, emptyDir: {sizeLimit: 2Mi}}]
  containers: [{name: c, image: tools, command: [sh, -c, "dd if=/dev/zero of=/v/x bs=1M count=8; sleep 1000"], volumeMounts: [{name: v, mountPath: /v}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: unclaimed}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 1
  volumes: [{name: data, persistentVolumeClaim: {claimName: absent}}]
  containers: [{name: c, image: tools, command: ["true"], volumeMounts: [{name: data, mountPath: /data}]}]
"#.replace("NODE", &node).as_str());
    world.phase("writer", "Succeeded");
    assert_eq!(world.kubectl(&["logs", "writer"]), "2000");
    assert_eq!(std::fs::read_to_string(dir.join("file")).unwrap(), "kept\n");
    let uid = world.pod("writer")["metadata"]["uid"].as_str().unwrap().to_owned();
    world.kubectl(&["delete", "pod", "writer"]);
    assert_eq!(std::fs::read_to_string(dir.join("file")).unwrap(), "kept\n", "a claim's data outlives its pod");
    assert_eq!(world.ok("sh", &["-c", "grep -c $0 /proc/self/mounts || true", &uid]), "0");
    let logs = world.root.join(format!("logs/pods/default_writer_{uid}/c/0.log"));
    assert!(logs.exists(), "logs outlive their pod for a while");
    world.apply(r#"
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  restartPolicy: Never
  volumes: [{name: data, persistentVolumeClaim: {claimName: data, readOnly: true}}]
  containers: [{name: c, image: tools, command: [sh, -c, "cat /data/file /part/x; touch /data/no"], volumeMounts: [{name: data, mountPath: /data}, {name: data, mountPath: /part, subPath: sub}]}]
"#);
    world.phase("reader", "Failed");
    let said = world.kubectl(&["logs", "reader"]);
    assert!(said.starts_with("kept\npart\n") && said.contains("Read-only file system"), "{said}");
    world.event(
        "unclaimed",
        "FailedMount",
        "MountVolume.SetUp failed for volume \"data\" : persistentvolumeclaim \"absent\" not found",
    );

    world.phase("classy", "Succeeded");
    world.event("stranger", "FailedCreatePodSandBox", "no runtime for \"kata\" is configured");

    let greedy = world.phase("greedy", "Failed");
    assert_eq!(greedy["status"]["reason"], "Evicted", "{greedy}");
    assert_eq!(greedy["status"]["message"], "Usage of EmptyDir volume \"v\" exceeds the limit \"2Mi\". ");
    assert_eq!(condition(&greedy, "DisruptionTarget"), "True");
    world.event("greedy", "Evicted", "Usage of EmptyDir volume");

    let chatty = world.ready("chatty");
    let uid = chatty["metadata"]["uid"].as_str().unwrap();
    let dir = world.root.join(format!("logs/pods/default_chatty_{uid}/c"));
    world.until("the log is rotated", || {
        let names: Vec<String> =
            std::fs::read_dir(&dir).ok()?.flatten().map(|one| one.file_name().to_string_lossy().into_owned()).collect();
        names.iter().any(|name| name.starts_with("0.log.2")).then_some(())
    });
    world.until("the log goes on", || {
        let text = world.ok(
            "sh",
            &[
                "-c",
                "cat $0/0.log.2* $0/0.log | grep -c ' line '; cat $0/0.log.2* $0/0.log | grep -c 'the end' || true",
                harness::path(&dir),
            ],
        );
        (text == "120000\n1").then_some(())
    });
    assert_eq!(container(&world.pod("chatty"), "c")["restartCount"], 0);
    std::thread::sleep(Duration::from_millis(1));
}

#[test]
fn static_pods_run_from_the_nodes_own_folder_and_their_mirrors_only_show_them() {
    let world = pods::world();
    let node = world.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    let name = format!("fixed-{node}");
    let file = world.root.join("manifests/fixed.yaml");
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: fixed}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers: [{name: c, image: tools, command: [sh, -c, \"echo static; sleep 1000\"]}]\n";
    std::fs::write(&file, manifest).unwrap();
    let pod = world.ready(&name);
    assert!(pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string(), "{pod}");
    assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "Node");
    assert_eq!(world.kubectl(&["logs", &name]), "static");
    assert_eq!(world.kubectl(&["exec", &name, "--", "echo", "there"]), "there");
    let id = container(&pod, "c")["containerID"].clone();
    let uid = pod["metadata"]["uid"].clone();
    world.kubectl(&["delete", "pod", &name, "--wait=false"]);
    let again = world.pod_when(&name, "mirrored again", |pod| {
        !pod.is_null() && pod["metadata"]["uid"] != uid && condition(pod, "Ready") == "True"
    });
    assert_eq!(container(&again, "c")["containerID"], id, "deleting the mirror stops nothing");
    world.kill_9();
    world.up();
    let adopted = world.ready(&name);
    assert_eq!(
        (&container(&adopted, "c")["containerID"], container(&adopted, "c")["restartCount"].as_i64()),
        (&id, Some(0))
    );
    std::fs::write(&file, manifest.replace("echo static", "echo changed")).unwrap();
    world.until("the changed manifest runs", || {
        let output = world.run("kubectl", &["logs", &name]);
        (harness::text(&output.stdout) == "changed\n").then_some(())
    });
    std::fs::remove_file(&file).unwrap();
    world.gone(&name);
    world.until("its containers are gone", || {
        world.ok("docker", &["ps", "-aq", "--filter", "label=io.kubernetes.container.name=c"]).is_empty().then_some(())
    });
}

#[test]
fn a_node_whose_disk_fills_up_says_so_and_evicts_who_fills_it() {
    let world = World::new();
    let root = harness::path(&world.root);
    world.ok("mkdir", &["-p", root]);
    world.ok("mount", &["-t", "tmpfs", "-o", "size=300m", "none", root]);
    world.up();
    pods::import_tools(&world);
    world.apply(r#"
apiVersion: v1
kind: Pod
metadata: {name: modest}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: tools, command: [sleep, "1000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: hog}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: v, emptyDir: {}}]
  containers: [{name: c, image: tools, command: [sh, -c, "while [ $(df -m /v | tail -n 1 | awk '{print $4}') -gt 9 ]; do dd if=/dev/zero bs=1M count=1 2>/dev/null >> /v/x; done; sleep 1000"], volumeMounts: [{name: v, mountPath: /v}]}]
"#);
    let hog = world.phase("hog", "Failed");
    assert_eq!(hog["status"]["reason"], "Evicted", "{hog}");
    assert!(
        hog["status"]["message"]
            .as_str()
            .unwrap()
            .starts_with("The node was low on resource: ephemeral-storage. Threshold quantity: "),
        "{hog}"
    );
    world.until("the node has DiskPressure", || {
        let node = world.kubectl(&["get", "nodes", "-o", "json"]);
        let node: serde_json::Value = serde_json::from_str(&node).ok()?;
        (condition(&node["items"][0], "DiskPressure") == "True").then_some(())
    });
    assert_eq!(condition(&world.pod("modest"), "Ready"), "True", "who fills nothing stays");
    world.kubectl(&["delete", "pod", "hog", "modest"]);
    world.gantry(&["down"]);
    world.ok("umount", &["-l", root]);
}

/// What a binder does, for a test of the node alone.
fn bind(world: &World, claim: &str, volume: &str) {
    if world.object("pvc", claim)["status"]["phase"] == "Bound" {
        return;
    }
    let uid = world.object("pvc", claim)["metadata"]["uid"].as_str().unwrap().to_owned();
    let body =
        format!(r#"{{"spec":{{"claimRef":{{"apiVersion":"v1","kind":"PersistentVolumeClaim","uid":"{uid}"}}}}}}"#);
    world.kubectl(&["patch", "pv", volume, "--type=merge", "-p", &body]);
    let status = r#"{"status":{"phase":"Bound","accessModes":["ReadWriteOnce"],"capacity":{"storage":"1Gi"}}}"#;
    world.kubectl(&["patch", "pvc", claim, "--subresource=status", "--type=merge", "-p", status]);
}
