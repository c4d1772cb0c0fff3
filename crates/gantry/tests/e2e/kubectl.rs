//! Every verb of stock kubectl against a real cluster with real pods, and older and newer kubectls for what changed between them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{self, World, text};

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {app: a}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: busybox:latest\n    imagePullPolicy: IfNotPresent\n    command: [sh, -c, 'mkdir -p /www; echo hello from web > /www/index.html; httpd -p 8080 -h /www; while true; do echo tick; sleep 0.2; done']\n    ports: [{containerPort: 8080, name: web}]\n";
const WEB: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, labels: {app: web}}\nspec:\n  replicas: 2\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - {name: web, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [sh, -c, 'mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p 8080 -h /www'], ports: [{containerPort: 8080, name: http}]}\n";

/// The kubectls that `cargo xtask setup` brings, oldest first.
fn kubectls() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).expect("a home");
    let all: Vec<PathBuf> = ["v1.33", "v1.34", "v1.35"]
        .iter()
        .map(|v| home.join(".cache/gantry/clients").join(v).join("kubectl"))
        .collect();
    for one in &all {
        assert!(one.exists(), "{} is missing: run `cargo xtask setup`", one.display());
    }
    all
}

/// A cluster, a place for files, and what to drive it with.
struct Desk {
    world: World,
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let world = World::new();
        world.up();
        world.import_busybox();
        Self { world, dir: tempfile::tempdir().expect("a temporary folder") }
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).expect("writable");
        harness::path(&path).to_owned()
    }

    /// Runs one line of words and wants `expected` in what it prints.
    #[track_caller]
    fn says(&self, line: &str, expected: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let output = self.world.run("kubectl", &words);
        let all = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && all.contains(expected), "kubectl {line}: wanted {expected:?}, got {all}");
    }

    #[track_caller]
    fn fails(&self, line: &str, expected: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let error = self.world.refused("kubectl", &words);
        assert!(error.contains(expected), "kubectl {line}: wanted {expected:?}, got {error}");
    }

    /// Starts something that goes on by itself; it is ended with the guard.
    fn start(&self, program: &Path, words: &[&str], env: &[(&str, &str)]) -> Running {
        let mut command = self.world.command(harness::path(program));
        command.args(words).envs(env.iter().copied()).stdin(Stdio::piped());
        Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts"))
    }

    /// What `curl` gets, trying for as long as the other end is still starting.
    #[track_caller]
    fn fetches(&self, url: &str, expected: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let got = text(&self.world.run("curl", &["-sL", "--max-time", "5", url]).stdout);
            if got.contains(expected) {
                return;
            }
            assert!(Instant::now() < until, "{url}: wanted {expected:?}, got {got}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

struct Running(Child);

impl Running {
    /// Waits for a line with this in it.
    #[track_caller]
    fn line(&mut self, wanted: &str) {
        let mut lines = BufReader::new(self.0.stdout.as_mut().expect("piped")).lines();
        let found = lines.by_ref().map_while(Result::ok).any(|line| line.contains(wanted));
        assert!(found, "no line with {wanted:?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn kubectl_writes_reads_and_explains_objects_with_every_verb() {
    let desk = Desk::new();
    let web = desk.file("web.yaml", WEB);
    desk.says(&format!("apply -f {web}"), "deployment.apps/web created");
    desk.says("rollout status deployment/web --timeout=60s", "successfully rolled out");
    writing(&desk, &web);
    creating(&desk);
    reading(&desk);
    rollouts(&desk);
}

fn writing(desk: &Desk, web: &str) {
    let editor = desk.file("editor.sh", "#!/bin/sh\nsed -i 's/replicas: 2/replicas: 3/' \"$1\"\n");
    desk.world.ok("chmod", &["+x", &editor]);
    let edited = desk.world.command("kubectl").args(["edit", "deployment/web"]).env("KUBE_EDITOR", &editor).output();
    assert!(text(&edited.expect("kubectl runs").stdout).contains("deployment.apps/web edited"));
    desk.says("get deployment web -o jsonpath={.spec.replicas}", "3");
    let diff = desk.world.run("kubectl", &["diff", "-f", web]);
    assert_eq!(diff.status.code(), Some(1), "a difference");
    assert!(text(&diff.stdout).contains("-  replicas: 3") && text(&diff.stdout).contains("+  replicas: 2"));
    for (line, expected) in [
        (r#"patch deployment web -p {"spec":{"replicas":1}}"#, "patched"),
        (r#"patch deployment web --type=merge -p {"metadata":{"annotations":{"x":"y"}}}"#, "patched"),
        (r#"patch deployment web --type=json -p [{"op":"replace","path":"/spec/replicas","value":2}]"#, "patched"),
        (r#"patch deployment web --subresource=scale --type=merge -p {"spec":{"replicas":1}}"#, "patched"),
        ("label deployment web tier=x", "labeled"),
        ("label deployment web tier-", "unlabeled"),
        ("annotate deployment web note=1", "annotated"),
        ("apply view-last-applied deployment/web", "kind: Deployment"),
        ("explain deployment.spec.replicas", "FIELD: replicas <integer>"),
        ("explain pod.spec.containers --recursive", "valueFrom\t<EnvVarSource>"),
        ("explain ingress.spec", "FIELD: spec <IngressSpec>"),
    ] {
        desk.says(line, expected);
    }
    desk.says(&format!("apply --server-side --force-conflicts -f {web}"), "serverside-applied");
    desk.says(&format!("apply -f {web} --dry-run=server"), "(server dry run)");
    desk.fails("explain nosuch", "the server doesn't have a resource type");
    desk.fails(
        r#"patch deployment web --type=json -p [{"op":"test","path":"/spec/replicas","value":77}]"#,
        "The request is invalid",
    );
}

fn creating(desk: &Desk) {
    for (line, expected) in [
        ("create token default", "ey"),
        ("create configmap c1 --from-literal=a=b", "configmap/c1 created"),
        ("create secret generic s1 --from-literal=a=b", "secret/s1 created"),
        (
            "create secret docker-registry s2 --docker-server=x --docker-username=u --docker-password=p",
            "secret/s2 created",
        ),
        ("create role r1 --verb=get --resource=pods", "role.rbac.authorization.k8s.io/r1 created"),
        ("create rolebinding rb1 --role=r1 --user=u", "rolebinding.rbac.authorization.k8s.io/rb1 created"),
        ("create clusterrole cr1 --verb=get --resource=nodes", "clusterrole.rbac.authorization.k8s.io/cr1 created"),
        (
            "create clusterrolebinding crb1 --clusterrole=cr1 --user=u",
            "clusterrolebinding.rbac.authorization.k8s.io/crb1 created",
        ),
        ("create namespace n1", "namespace/n1 created"),
        ("create quota q1 --hard=configmaps=1 -n n1", "resourcequota/q1 created"),
        ("create serviceaccount sa1", "serviceaccount/sa1 created"),
        ("create deployment d1 --image=busybox --replicas=0", "deployment.apps/d1 created"),
        ("create job j1 --image=busybox -- true", "job.batch/j1 created"),
        ("create cronjob cj1 --image=busybox --schedule=@yearly -- true", "cronjob.batch/cj1 created"),
        ("create ingress i1 --rule=foo/bar=svc:80", "ingress.networking.k8s.io/i1 created"),
        (
            "create poddisruptionbudget p1 --selector=app=none --min-available=1",
            "poddisruptionbudget.policy/p1 created",
        ),
        ("create priorityclass pc1 --value=10", "priorityclass.scheduling.k8s.io/pc1 created"),
        ("create service clusterip s2 --tcp=80:80", "service/s2 created"),
        ("expose deployment/web --port=80 --target-port=8080", "service/web exposed"),
        ("autoscale deployment/web --min=1 --max=3", "autoscaled"),
        ("set selector service s2 app=web", "selector updated"),
        ("auth can-i create pods", "yes"),
        ("auth can-i --list", "*.*"),
        ("auth can-i get pods --as=u", "yes"),
        ("auth whoami", "kubernetes-admin"),
        ("delete deployment d1", "deleted"),
        ("delete job j1", "deleted"),
        ("delete namespace n1 --wait=false", "deleted"),
    ] {
        desk.says(line, expected);
    }
    let role = desk.file("role.yaml", "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: r2, namespace: default}\nrules: [{apiGroups: [''], resources: [pods], verbs: [get]}]\n");
    desk.says(&format!("auth reconcile -f {role}"), "reconciliation required create");
    assert_eq!(desk.world.run("kubectl", &["auth", "can-i", "delete", "nodes", "--as=u"]).status.code(), Some(1));
}

fn reading(desk: &Desk) {
    for (line, expected) in [
        ("api-resources", "horizontalpodautoscalers"),
        ("api-versions", "flowcontrol.apiserver.k8s.io/v1"),
        ("get all", "service/kubernetes"),
        ("get pods -o wide", "NOMINATED NODE"),
        ("get deployments -o name", "deployment.apps/web"),
        ("get deployments -o jsonpath={.items[*].metadata.name}", "web"),
        ("get deployments -o custom-columns=N:.metadata.name,R:.spec.replicas", "web"),
        ("get deployments -o go-template={{range.items}}{{.metadata.name}}{{end}}", "web"),
        ("get deployment web -o yaml --show-managed-fields", "manager: kubectl"),
        ("get deployment web -o json", "\"kind\": \"Deployment\""),
        ("get pods --sort-by=.metadata.creationTimestamp", "web-"),
        ("get pods -A --show-labels", "pod-template-hash="),
        ("get events --field-selector=type=Normal", "Scheduled"),
        ("events", "Scheduled"),
        ("get --raw /readyz?verbose", "[+]etcd ok"),
        ("describe deployment web", "RollingUpdateStrategy"),
        ("describe node", "Allocatable"),
        ("cluster-info", "control plane"),
        ("cluster-info dump", "NodeList"),
        ("config view", "DATA+OMITTED"),
        ("version", "Server Version: v1.36"),
    ] {
        desk.says(line, expected);
    }
    desk.says("top pods", "CPU(cores)");
    desk.says("top nodes", "MEMORY(%)");
}

fn rollouts(desk: &Desk) {
    for (line, expected) in [
        ("set env deployment/web A=B", "env updated"),
        ("set resources deployment/web -c web --requests=cpu=10m", "resource requirements updated"),
        ("rollout status deployment/web --timeout=60s", "successfully rolled out"),
        ("rollout history deployment/web", "REVISION"),
        ("rollout restart deployment/web", "restarted"),
        ("rollout status deployment/web --timeout=60s", "successfully rolled out"),
        ("rollout undo deployment/web", "rolled back"),
        ("rollout pause deployment/web", "paused"),
        ("rollout resume deployment/web", "resumed"),
        ("scale deployment/web --replicas=1", "scaled"),
        ("wait --for=condition=Available deployment/web --timeout=60s", "condition met"),
        ("wait --for=jsonpath={.status.readyReplicas}=1 deployment/web --timeout=60s", "condition met"),
    ] {
        desk.says(line, expected);
    }
    let node = desk.world.ok("kubectl", &["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    for (line, expected) in [
        (format!("taint node {node} x=y:NoSchedule"), "tainted"),
        (format!("taint node {node} x-"), "untainted"),
        (format!("cordon {node}"), "cordoned"),
        (
            format!("drain {node} --ignore-daemonsets --force --delete-emptydir-data --timeout=60s"),
            "evicting pod default/web-",
        ),
        (format!("uncordon {node}"), "uncordoned"),
        ("delete deployment web".to_owned(), "deleted"),
    ] {
        desk.says(&line, expected);
    }
}

#[test]
fn kubectl_streams_to_pods_over_websockets_and_spdy() {
    let desk = Desk::new();
    let pod = desk.file("pod.yaml", POD);
    desk.says(&format!("apply -f {pod}"), "pod/a created");
    desk.says("wait --for=condition=Ready pod/a --timeout=60s", "condition met");
    let oldest = &kubectls()[0];
    for (port, sockets) in [("18080", "true"), ("18081", "false")] {
        let env = [("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", sockets), ("KUBECTL_PORT_FORWARD_WEBSOCKETS", sockets)];
        let mut exec = desk.start(oldest, &["exec", "-i", "a", "--", "sh", "-c", "cat; echo err >&2; exit 7"], &env);
        exec.0.stdin.take().expect("piped").write_all(b"over the wire\n").expect("it reads");
        let (mut out, mut err) = (String::new(), String::new());
        exec.0.stdout.take().expect("piped").read_to_string(&mut out).expect("text");
        exec.0.stderr.take().expect("piped").read_to_string(&mut err).expect("text");
        assert_eq!((out.as_str(), exec.0.wait().expect("it ends").code()), ("over the wire\n", Some(7)), "{err}");
        assert!(err.contains("err\n"), "{err}");
        let mut attached = desk.start(oldest, &["attach", "a"], &env);
        attached.line("tick");
        let mut forward = desk.start(oldest, &["port-forward", "pod/a", &format!("{port}:8080")], &env);
        forward.line("Forwarding from");
        for _ in 0..3 {
            desk.fetches(&format!("http://127.0.0.1:{port}/"), "hello from web");
        }
    }
    desk.says(&format!("cp {pod} a:/tmp.yaml"), "");
    desk.says("exec a -- cat /tmp.yaml", "name: web");
    desk.says("logs a --tail=2", "tick");
    desk.says("logs a --since=5s --timestamps", "Z tick");
    proxies(&desk);
    helpers(&desk);
}

fn proxies(desk: &Desk) {
    desk.says("expose pod a --port=80 --target-port=8080", "service/a exposed");
    let kubectl = PathBuf::from("kubectl");
    let mut proxy = desk.start(&kubectl, &["proxy", "--port=18001"], &[]);
    proxy.line("Starting to serve");
    let node = desk.world.ok("kubectl", &["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    let base = "http://127.0.0.1:18001/api/v1";
    for (path, expected) in [
        ("/namespaces/default/pods/a:8080/proxy/".to_owned(), "hello from web"),
        ("/namespaces/default/pods/a/proxy".to_owned(), "hello from web"),
        ("/namespaces/default/services/a:80/proxy/index.html".to_owned(), "hello from web"),
        ("/namespaces/default/services/nosuch/proxy/".to_owned(), "services \\\"nosuch\\\" not found"),
        (format!("/nodes/{node}/proxy/healthz"), "ok"),
        (format!("/nodes/{node}/proxy/pods"), "\"PodList\""),
    ] {
        desk.fetches(&format!("{base}{path}"), expected);
    }
    // Whatever a status claims, the node's own services and a cloud's metadata stay out of reach.
    for address in ["127.0.0.1", "169.254.169.254"] {
        let status = format!(r#"{{"status":{{"podIP":"{address}","podIPs":[{{"ip":"{address}"}}]}}}}"#);
        desk.world.ok(
            "kubectl",
            &[
                "run",
                "liar",
                "--image=busybox",
                "--overrides",
                r#"{"spec":{"schedulingGates":[{"name":"example.com/never"}]}}"#,
            ],
        );
        desk.world.ok("kubectl", &["patch", "pod", "liar", "--subresource=status", "--type=merge", "-p", &status]);
        desk.fetches(&format!("{base}/namespaces/default/pods/liar:6443/proxy/"), "address not allowed");
        desk.world.ok("kubectl", &["delete", "pod", "liar", "--force", "--grace-period=0"]);
    }
}

fn helpers(desk: &Desk) {
    desk.says(
        "run r1 --image=busybox --restart=Never --image-pull-policy=IfNotPresent -- echo from-run",
        "pod/r1 created",
    );
    desk.says("wait --for=jsonpath={.status.phase}=Succeeded pod/r1 --timeout=60s", "condition met");
    desk.says("logs r1", "from-run");
    let words = [
        "run",
        "r2",
        "-i",
        "--rm",
        "--quiet",
        "--restart=Never",
        "--image=busybox",
        "--image-pull-policy=IfNotPresent",
        "--",
        "sh",
    ];
    let mut run = desk.start(Path::new("kubectl"), &words, &[]);
    run.0.stdin.take().expect("piped").write_all(b"echo piped\n").expect("it reads");
    run.line("piped");
    drop(run);
    desk.says("debug a --image=busybox --image-pull-policy=IfNotPresent -c dbg --profile=general -- sleep 1000", "");
    desk.says(
        "wait --for=jsonpath={.status.ephemeralContainerStatuses[0].name}=dbg pod/a --timeout=60s",
        "condition met",
    );
    desk.says("debug a --copy-to=a2 --share-processes=false --image=busybox --image-pull-policy=IfNotPresent -c dbg --profile=general -- sleep 1000", "");
    desk.says("wait --for=condition=Ready pod/a2 --timeout=60s", "condition met");
    desk.says("exec a2 -c dbg -- echo beside", "beside");
    let pod = desk.file("again.yaml", POD);
    desk.says(&format!("replace --force --grace-period=1 -f {pod}"), "replaced");
}

#[test]
fn a_certificate_that_kubectl_approves_lets_its_user_in() {
    let desk = Desk::new();
    let (key, csr) = (desk.dir.path().join("u.key"), desk.dir.path().join("u.csr"));
    let (key, csr) = (harness::path(&key).to_owned(), harness::path(&csr).to_owned());
    desk.world.ok(
        "openssl",
        &["req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-subj", "/CN=ann/O=dev", "-out", &csr],
    );
    let encoded = desk.world.ok("base64", &["-w0", &csr]);
    let request = desk.file("csr.yaml", &format!("apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: ann}}\nspec: {{request: {encoded}, signerName: kubernetes.io/kube-apiserver-client, usages: [client auth]}}\n"));
    desk.says(&format!("apply -f {request}"), "created");
    desk.says("get csr ann", "kubernetes-admin");
    desk.says("certificate approve ann", "approved");
    desk.says("get csr ann", "Approved,Issued");
    let certificate = desk.world.ok("kubectl", &["get", "csr", "ann", "-o", "jsonpath={.status.certificate}"]);
    let config = desk.dir.path().join("ann.kubeconfig");
    std::fs::copy(desk.world.root.join("kubeconfig"), &config).expect("a copy");
    let config = harness::path(&config).to_owned();
    let pem = desk.dir.path().join("ann.crt");
    desk.world.ok("sh", &["-c", &format!("echo {certificate} | base64 -d > {}", harness::path(&pem))]);
    let with = |words: &[&str]| desk.world.run("kubectl", &[&["--kubeconfig", &config], words].concat());
    assert!(
        with(&[
            "config",
            "set-credentials",
            "gantry-admin",
            "--embed-certs",
            "--client-certificate",
            harness::path(&pem),
            "--client-key",
            &key
        ])
        .status
        .success()
    );
    let who = text(&with(&["auth", "whoami"]).stdout);
    assert!(who.contains("ann") && who.contains("dev"), "{who}");
    assert!(text(&with(&["get", "pods"]).stderr).contains("User \"ann\" cannot list resource \"pods\""));
}

#[test]
fn kubectls_of_three_minors_apply_read_and_explain_alike() {
    let desk = Desk::new();
    let web = desk.file("web.yaml", &WEB.replace("replicas: 2", "replicas: 0"));
    for kubectl in kubectls() {
        let program = harness::path(&kubectl);
        let ok = |words: &[&str]| desk.world.ok(program, words);
        assert!(ok(&["apply", "-f", &web]).contains("created"), "{program}");
        assert!(ok(&["apply", "--server-side", "--force-conflicts", "-f", &web]).contains("serverside-applied"));
        assert!(ok(&["get", "deployments"]).contains("0/0"));
        assert!(ok(&["explain", "deployment.spec.strategy"]).contains("rollingUpdate"));
        assert!(ok(&["create", "configmap", "c", "--from-literal=a=b", "-o", "yaml"]).contains("a: b"));
        assert!(ok(&["create", "token", "default"]).starts_with("ey"));
        assert!(ok(&["get", "configmaps", "-o", "jsonpath={.items[*].metadata.name}"]).contains('c'));
        assert!(ok(&["diff", "-f", &web]).is_empty());
        assert!(ok(&["delete", "-f", &web]).contains("deleted"));
        assert!(ok(&["delete", "configmap", "c"]).contains("deleted"));
    }
}

#[test]
fn a_snapshot_of_the_running_store_brings_a_cluster_back_and_secrets_are_not_on_disk() {
    let desk = Desk::new();
    desk.says("create secret generic s --from-literal=p=find-me-not", "created");
    desk.says("create configmap c --from-literal=p=find-me", "created");
    let root = harness::path(&desk.world.root).to_owned();
    let grep = |word: &str| desk.world.run("grep", &["-rqa", word, &format!("{root}/store")]).status.code();
    // As base64 of the API, and as it was given.
    assert_eq!((grep("find-me"), grep("ZmluZC1tZS1ub3Q"), grep("find-me-not")), (Some(0), Some(1), Some(1)));
    let file = desk.dir.path().join("backup");
    assert!(desk.world.gantry(&["store", "snapshot", harness::path(&file)]).contains("Snapshot of revision"));
    desk.says("delete configmap c", "deleted");
    let refused = desk.world.refused(env!("CARGO_BIN_EXE_gantry"), &["store", "restore", harness::path(&file)]);
    assert!(refused.contains("is held by process"), "{refused}");
    desk.world.gantry(&["down"]);
    assert!(desk.world.gantry(&["store", "restore", harness::path(&file)]).contains("Restored as revision"));
    assert!(desk.world.gantry(&["store", "rotate-key"]).contains("encrypted with key 2"));
    desk.world.up();
    desk.says("get configmap c -o jsonpath={.data.p}", "find-me");
    desk.says("get secret s -o jsonpath={.data.p}", "ZmluZC1tZS1ub3Q=");
}
