//! What real pods are given: environment, files, names, images, tokens; and what becomes of mistakes in it.

use crate::pods::{self, container};

const SETTINGS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {COLOUR: blue, SIZE: large, app.conf: "mode=one\n"}
binaryData: {blob: AAEC}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {PASSWORD: hunter2, cert: pem}
---
apiVersion: v1
kind: Service
metadata: {name: shop-front}
spec: {selector: {app: shop}, ports: [{name: web, port: 80, targetPort: 8080}]}
---
"#;

#[test]
fn containers_get_their_environment_from_everywhere_it_can_come_from() {
    let world = pods::world();
    world.apply(SETTINGS);
    world.apply(r#"
apiVersion: v1
kind: Pod
metadata:
  name: env
  labels: {app: env, tier: "1"}
  annotations: {note: "said \"so\""}
spec:
  restartPolicy: Never
  hostAliases: [{ip: 10.9.8.7, hostnames: [one.test, two.test]}]
  hostname: custom
  subdomain: shop-front
  serviceAccountName: default
  containers:
  - name: c
    image: tools
    workingDir: /www
    command: [sh, -c, "env | sort; echo pwd=$(pwd); echo host=$(hostname); echo args=$0,$1; cat /etc/hosts /etc/resolv.conf; echo expanded=$2 raw=$3", "$(PLAIN)", "$(MISSING)", "$(EXPANDED)", "$$(EXPANDED)"]
    resources: {requests: {cpu: 250m, memory: 32Mi}, limits: {cpu: 500m, memory: 64Mi}}
    envFrom:
    - {configMapRef: {name: settings}}
    - {prefix: S_, secretRef: {name: keys}}
    - {configMapRef: {name: absent, optional: true}}
    env:
    - {name: PLAIN, value: plain}
    - {name: SIZE, value: small}
    - {name: EXPANDED, value: "$(PLAIN)-$(COLOUR)-$$(PLAIN)"}
    - {name: KEY, valueFrom: {configMapKeyRef: {name: settings, key: COLOUR}}}
    - {name: OPTIONAL, valueFrom: {secretKeyRef: {name: keys, key: nothing, optional: true}}}
    - {name: SECRET, valueFrom: {secretKeyRef: {name: keys, key: PASSWORD}}}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: NS, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
    - {name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
    - {name: TIER, valueFrom: {fieldRef: {fieldPath: "metadata.labels['tier']"}}}
    - {name: NOTE, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['note']"}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: SA, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
    - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
    - {name: MEM, valueFrom: {resourceFieldRef: {resource: requests.memory, divisor: 1Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  containers: [{name: c, image: tools, command: [sleep, "1000"], envFrom: [{configMapRef: {name: later}}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: nokey}
spec:
  containers: [{name: c, image: tools, command: [sleep, "1000"], env: [{name: A, valueFrom: {secretKeyRef: {name: keys, key: nope}}}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: nodns}
spec:
  restartPolicy: Never
  dnsPolicy: None
  dnsConfig: {nameservers: [192.0.2.53], searches: [a.test], options: [{name: ndots, value: "3"}]}
  containers: [{name: c, image: tools, command: [cat, /etc/resolv.conf]}]
"#);
    let pod = world.phase("env", "Succeeded");
    let log = world.kubectl(&["logs", "env"]);
    let lines: Vec<&str> = log.lines().collect();
    let ip = pod["status"]["podIP"].as_str().unwrap();
    let wanted = [
        "COLOUR=blue",
        "SIZE=small",
        "S_PASSWORD=hunter2",
        "S_cert=pem",
        "PLAIN=plain",
        "EXPANDED=plain-blue-$(PLAIN)",
        "KEY=blue",
        "SECRET=hunter2",
        "POD=env",
        "NS=default",
        "TIER=1",
        "NOTE=said \"so\"",
        "SA=default",
        "CPU=500",
        "MEM=32",
        "SHOP_FRONT_SERVICE_PORT=80",
        "SHOP_FRONT_SERVICE_PORT_WEB=80",
        "KUBERNETES_SERVICE_PORT=443",
        "HOSTNAME=custom",
        "pwd=/www",
        "host=custom",
        "args=plain,$(MISSING)",
        "10.9.8.7\tone.test\ttwo.test",
        "# Entries added by HostAliases.",
        "nameserver 10.43.0.10",
        "options ndots:5",
    ];
    for line in wanted {
        assert!(lines.contains(&line), "{line} is not in\n{log}");
    }
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    for line in [
        format!("IP={ip}"),
        format!("POD_UID={uid}"),
        format!("HOST_IP={}", pod["status"]["hostIP"].as_str().unwrap()),
        format!("NODE={}", pod["spec"]["nodeName"].as_str().unwrap()),
        format!("{ip}\tcustom.shop-front.default.svc.cluster.local\tcustom"),
    ] {
        assert!(lines.contains(&line.as_str()), "{line} is not in\n{log}");
    }
    assert!(log.contains("search default.svc.cluster.local svc.cluster.local cluster.local"), "{log}");
    assert!(log.contains("expanded=plain-blue-$(PLAIN) raw=$(EXPANDED)"), "{log}");
    assert!(!log.contains("OPTIONAL="), "{log}");
    world.phase("nodns", "Succeeded");
    let mut resolver: Vec<String> = world.kubectl(&["logs", "nodns"]).lines().map(str::to_owned).collect();
    resolver.sort();
    assert_eq!(resolver, ["nameserver 192.0.2.53", "options ndots:3", "search a.test"]);

    let late = world.pod_when("late", "says what it misses", |pod| {
        container(pod, "c")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    });
    assert_eq!(container(&late, "c")["state"]["waiting"]["message"], "configmap \"later\" not found");
    assert_eq!(world.status_column("late"), "CreateContainerConfigError");
    world.event("late", "Failed", "Error: configmap \"later\" not found");
    world.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: later}\ndata: {A: b}\n");
    world.ready("late");
    world.event("nokey", "Failed", "Error: couldn't find key nope in Secret default/keys");
}

#[test]
fn volumes_of_every_kind_are_there_confined_and_kept_up_to_date() {
    let world = pods::world();
    let host = tempfile::tempdir().unwrap();
    let dir = host.path().display();
    world.apply(SETTINGS);
    world.apply(&format!(r#"
apiVersion: v1
kind: Pod
metadata: {{name: vols, labels: {{app: vols}}}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {{fsGroup: 2000}}
  volumes:
  - {{name: cm, configMap: {{name: settings, defaultMode: 0440}}}}
  - {{name: item, configMap: {{name: settings, items: [{{key: COLOUR, path: deep/colour, mode: 0400}}]}}}}
  - {{name: secret, secret: {{secretName: keys}}}}
  - {{name: maybe, secret: {{secretName: absent, optional: true}}}}
  - {{name: scratch, emptyDir: {{}}}}
  - {{name: memory, emptyDir: {{medium: Memory, sizeLimit: 1Mi}}}}
  - {{name: host, hostPath: {{path: "{dir}/made", type: DirectoryOrCreate}}}}
  - {{name: down, downwardAPI: {{items: [{{path: labels, fieldRef: {{fieldPath: metadata.labels}}}}, {{path: cpu, resourceFieldRef: {{containerName: c, resource: requests.cpu, divisor: 1m}}}}]}}}}
  - name: mix
    projected:
      sources:
      - {{configMap: {{name: settings, items: [{{key: SIZE, path: size}}]}}}}
      - {{secret: {{name: keys, items: [{{key: PASSWORD, path: secret/password}}]}}}}
      - {{downwardAPI: {{items: [{{path: name, fieldRef: {{fieldPath: metadata.name}}}}]}}}}
      - {{serviceAccountToken: {{path: token, audience: vault, expirationSeconds: 600}}}}
  containers:
  - name: c
    image: tools
    command: [sleep, "1000"]
    resources: {{requests: {{cpu: 10m}}}}
    env: [{{name: PART, value: mine}}]
    volumeMounts:
    - {{name: cm, mountPath: /cm}}
    - {{name: item, mountPath: /item}}
    - {{name: secret, mountPath: /secret}}
    - {{name: maybe, mountPath: /maybe}}
    - {{name: scratch, mountPath: /scratch}}
    - {{name: scratch, mountPath: /part, subPathExpr: "$(PART)/deep"}}
    - {{name: scratch, mountPath: /read-only, readOnly: true}}
    - {{name: cm, mountPath: /etc/app.conf, subPath: app.conf}}
    - {{name: memory, mountPath: /memory}}
    - {{name: host, mountPath: /host}}
    - {{name: down, mountPath: /down}}
    - {{name: mix, mountPath: /mix}}
  - name: other
    image: tools
    command: [sleep, "1000"]
    volumeMounts: [{{name: scratch, mountPath: /shared}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: nofile}}
spec:
  volumes: [{{name: host, hostPath: {{path: "{dir}/nothing", type: File}}}}]
  containers: [{{name: c, image: tools, command: [sleep, "1000"], volumeMounts: [{{name: host, mountPath: /x}}]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: noconfig}}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{{name: cfg, configMap: {{name: later}}}}]
  containers: [{{name: c, image: tools, command: [sleep, "1000"], volumeMounts: [{{name: cfg, mountPath: /x}}]}}]
"#));
    world.ready("vols");
    let sh = |script: &str| world.sh("vols", script);
    assert_eq!(
        sh("cat /cm/COLOUR /item/deep/colour /secret/PASSWORD /etc/app.conf; ls /item"),
        "bluebluehunter2mode=one\ndeep"
    );
    assert_eq!(
        sh("stat -L -c '%a %g' /cm/COLOUR; stat -L -c %a /item/deep/colour; ls /maybe; od -An -tx1 /cm/blob"),
        "440 2000\n440\n 00 01 02"
    );
    assert_eq!(sh("cat /down/labels /down/cpu"), "app=\"vols\"10");
    assert_eq!(sh("cat /mix/size /mix/secret/password /mix/name"), "largehunter2vols");
    let claims = sh("cut -d. -f2 /mix/token | tr _- /+ | base64 -d 2>/dev/null || true");
    assert!(claims.contains("\"vault\"") && claims.contains("vols"), "{claims}");
    sh("echo data > /scratch/file; echo part > /part/file");
    assert_eq!(
        world.kubectl(&["exec", "vols", "-c", "other", "--", "cat", "/shared/file", "/shared/mine/deep/file"]),
        "data\npart"
    );
    assert!(
        world
            .refused("kubectl", &["exec", "vols", "-c", "c", "--", "touch", "/read-only/x"])
            .contains("Read-only file system")
    );
    assert!(
        world
            .refused("kubectl", &["exec", "vols", "-c", "c", "--", "touch", "/cm/x"])
            .contains("Read-only file system")
    );
    assert_eq!(sh("stat -c '%a %g' /scratch"), "2777 2000");
    let full = world.refused(
        "kubectl",
        &["exec", "vols", "-c", "c", "--", "dd", "if=/dev/zero", "of=/memory/x", "bs=64k", "count=64"],
    );
    assert!(full.contains("No space left on device"), "{full}");
    sh("echo from-pod > /host/note");
    assert_eq!(std::fs::read_to_string(host.path().join("made/note")).unwrap(), "from-pod\n");

    world.event("nofile", "FailedMount", "MountVolume.SetUp failed for volume \"host\" : hostPath type check failed");
    world.event(
        "noconfig",
        "FailedMount",
        "MountVolume.SetUp failed for volume \"cfg\" : configmap \"later\" not found",
    );
    assert_eq!(world.status_column("noconfig"), "ContainerCreating");
    world.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: later}\ndata: {A: b}\n");
    world.ready("noconfig");

    let change = r#"{"data":{"COLOUR":"green","NEW":"1","SIZE":null}}"#;
    world.kubectl(&["patch", "configmap", "settings", "--type=merge", "-p", change]);
    world.until("the mounted ConfigMap changes", || (sh("cat /cm/COLOUR") == "green").then_some(()));
    assert_eq!(
        sh("cat /cm/NEW; ls /cm/SIZE 2>/dev/null; cat /etc/app.conf; readlink /cm/COLOUR"),
        "1mode=one\n..data/COLOUR"
    );
    world.kubectl(&["label", "pod", "vols", "extra=yes"]);
    world.until("the mounted labels change", || sh("cat /down/labels").contains("extra=\"yes\"").then_some(()));

    // A link that a container puts where a subPath will be leads nowhere but into the volume.
    std::fs::write(host.path().join("secret-of-host"), "secret").unwrap();
    std::os::unix::fs::symlink("/", host.path().join("link")).unwrap();
    sh("ln -s /etc /scratch/escape; ln -s ../../../../../../etc/shadow /scratch/shadow");
    world.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: thief}}
spec:
  restartPolicy: Never
  volumes: [{{name: host, hostPath: {{path: "{dir}"}}}}]
  containers:
  - name: c
    image: tools
    command: [sh, -c, "ls /stolen; cat /stolen/secret-of-host || echo nothing"]
    volumeMounts: [{{name: host, mountPath: /stolen, subPath: link}}]
"#
    ));
    let end = world.pod_when("thief", "ended or refused", |pod| {
        pod["status"]["phase"] == "Succeeded"
            || container(pod, "c")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    });
    if end["status"]["phase"] == "Succeeded" {
        // `/` within the volume is the volume itself.
        assert!(!world.kubectl(&["logs", "thief"]).contains("proc"), "the link led to the host's root");
    }
    let uid = world.pod("vols")["metadata"]["uid"].as_str().unwrap().to_owned();
    world.kubectl(&["delete", "pod", "vols", "noconfig", "nofile", "--wait"]);
    assert!(!world.root.join("pods").join(&uid).exists(), "the pod's folder goes with it");
    let left = world.ok("sh", &["-c", "grep -c $0 /proc/self/mounts || true", &uid]);
    assert_eq!(left, "0", "mounts of the pod are left");
    assert!(host.path().join("made/note").exists(), "a hostPath's data stays");
}

#[test]
fn images_are_pulled_as_the_policy_says_and_failures_read_as_in_kubernetes() {
    let world = pods::world();
    world.ok("docker", &["tag", "tools", "localhost:5000/pulled:1"]);
    world.ok("docker", &["push", "localhost:5000/pulled:1"]);
    world.ok("docker", &["rmi", "localhost:5000/pulled:1"]);
    let pod = |name: &str, image: &str, policy: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers: [{{name: c, image: {image:?}, imagePullPolicy: {policy}, command: [sleep, \"1000\"]}}]\n"
        )
    };
    world.apply(
        &[
            pod("pulls", "localhost:5000/pulled:1", "Always"),
            pod("missing", "localhost:5000/missing:1", "IfNotPresent"),
            pod("never", "localhost:5000/absent:1", "Never"),
            pod("wrong", "UPPER CASE", "IfNotPresent"),
            pod("local", "tools", "Always"),
        ]
        .concat(),
    );
    let pulled = world.ready("pulls");
    assert_eq!(container(&pulled, "c")["image"], "localhost:5000/pulled:1");
    world.event("pulls", "Pulling", "Pulling image \"localhost:5000/pulled:1\"");
    world.event("pulls", "Pulled", "Successfully pulled image \"localhost:5000/pulled:1\" in ");
    world.ready("local");
    world.event("local", "Pulled", "Container image \"tools\" already present on machine");
    world.event("missing", "Failed", "Failed to pull image \"localhost:5000/missing:1\": ");
    world.event("missing", "Failed", "Error: ErrImagePull");
    let missing = world.pod_when("missing", "backs off", |pod| {
        container(pod, "c")["state"]["waiting"]["reason"] == "ImagePullBackOff"
    });
    let message = container(&missing, "c")["state"]["waiting"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.starts_with("Back-off pulling image \"localhost:5000/missing:1\": ErrImagePull: "), "{message}");
    world.event("missing", "BackOff", "Back-off pulling image \"localhost:5000/missing:1\"");
    world.event("missing", "Failed", "Error: ImagePullBackOff");
    assert_eq!(missing["status"]["phase"], "Pending");
    world.event(
        "never",
        "ErrImageNeverPull",
        "Container image \"localhost:5000/absent:1\" is not present with pull policy of Never",
    );
    assert_eq!(world.status_column("never"), "ErrImageNeverPull");
    world.pod_when("wrong", "says that the name is wrong", |pod| {
        container(pod, "c")["state"]["waiting"]["reason"] == "InvalidImageName"
    });
    // The image appears: the next try finds it.
    world.ok("docker", &["tag", "tools", "localhost:5000/absent:1"]);
    world.ready("never");
}

#[test]
fn a_pod_reaches_the_api_with_its_own_token_and_only_as_itself() {
    let world = pods::world();
    world.apply(
        r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: default}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  serviceAccountName: reader
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: tools, command: [sleep, "1000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: mute}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: tools, command: [sleep, "1000"]}]
"#,
    );
    world.ready("client");
    world.ready("mute");
    let dir = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert_eq!(world.sh("client", &format!("cat {dir}/namespace")), "default");
    assert!(world.sh("client", &format!("cat {dir}/ca.crt")).contains("BEGIN CERTIFICATE"));
    let get = |path: &str| {
        world.sh("client", &format!("wget -q --no-check-certificate -O - --header \"Authorization: Bearer $(cat {dir}/token)\" https://kubernetes.default.svc{path} 2>&1 || true"))
    };
    let own = get("/api/v1/namespaces/default/configmaps/kube-root-ca.crt");
    assert!(own.contains("\"kube-root-ca.crt\""), "{own}");
    assert!(get("/api/v1/namespaces/default/secrets").contains("403"));
    assert!(world.refused("kubectl", &["exec", "mute", "--", "ls", dir]).contains("No such file"));
    // The token dies with its pod.
    let token = world.sh("client", &format!("cat {dir}/token"));
    let ask = |token: &str| {
        world.run(
            "kubectl",
            &[
                "--token",
                token,
                "--kubeconfig",
                "/dev/null",
                "--server",
                "https://127.0.0.1:6443",
                "--insecure-skip-tls-verify",
                "auth",
                "whoami",
            ],
        )
    };
    assert!(crate::harness::text(&ask(&token).stdout).contains("system:serviceaccount:default:reader"));
    world.kubectl(&["delete", "pod", "client"]);
    assert!(!ask(&token).status.success(), "a token of a pod that is gone still works");
}
