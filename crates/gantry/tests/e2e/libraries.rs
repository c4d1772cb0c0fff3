//! Client libraries and helm, which were written against the real thing, against a running cluster.

use std::path::PathBuf;

use crate::harness::{self, World};

fn client(path: &str) -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from).expect("a home");
    let path = home.join(".cache/gantry/clients").join(path);
    assert!(path.exists(), "{} is missing: run `cargo xtask setup`", path.display());
    path
}

/// Typed and dynamic: create, watch, patch, conflict, apply, logs and exec in a pod, delete.
const PYTHON: &str = r#"
import json
from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream

config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()
assert core.list_node().items[0].status.conditions
meta = lambda name, **more: client.V1ObjectMeta(name=name, **more)
made = core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=meta("c"), data={"a": "1"}))
version = made.metadata.resource_version
core.patch_namespaced_config_map("c", "default", {"data": {"b": "2"}})
core.delete_namespaced_config_map("c", "default")
seen = []
for event in watch.Watch().stream(core.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=20):
    seen.append(event["type"])
    if event["type"] == "DELETED":
        break
assert seen == ["MODIFIED", "DELETED"], seen
try:
    core.read_namespaced_config_map("c", "default")
    raise SystemExit("found what was deleted")
except ApiException as error:
    assert error.status == 404 and json.loads(error.body)["message"] == 'configmaps "c" not found', error

pod = client.V1Pod(metadata=meta("p", labels={"app": "p"}), spec=client.V1PodSpec(termination_grace_period_seconds=1, containers=[
    client.V1Container(name="c", image="busybox:latest", image_pull_policy="IfNotPresent", command=["sh", "-c", "echo started; sleep 1000"])]))
core.create_namespaced_pod("default", pod)
for event in watch.Watch().stream(core.list_namespaced_pod, "default", label_selector="app=p", timeout_seconds=60):
    if event["object"].status.phase == "Running":
        break
assert core.read_namespaced_pod_log("p", "default") == "started\n"
assert stream(core.connect_get_namespaced_pod_exec, "p", "default", command=["echo", "hi"], stdout=True, stderr=True, stdin=False, tty=False) == "hi\n"

dyn = dynamic.DynamicClient(client.ApiClient())
deployments = dyn.resources.get(api_version="apps/v1", kind="Deployment")
body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "default"}, "spec": {
    "replicas": 0, "selector": {"matchLabels": {"a": "d"}}, "template": {"metadata": {"labels": {"a": "d"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}}}
assert deployments.server_side_apply(body=body, name="d", namespace="default", field_manager="py").metadata.generation == 1
assert deployments.get(name="d", namespace="default").spec.replicas == 0
assert [d.metadata.name for d in deployments.get(namespace="default").items] == ["d"]
stale = deployments.get(name="d", namespace="default").to_dict()
deployments.patch(name="d", namespace="default", body={"spec": {"replicas": 1}}, content_type="application/merge-patch+json")
try:
    deployments.replace(body=stale, namespace="default")
    raise SystemExit("a stale write went through")
except dynamic.exceptions.ConflictError:
    pass
deployments.delete(name="d", namespace="default")
core.delete_namespaced_pod("p", "default")
review = client.AuthorizationV1Api().create_self_subject_access_review(client.V1SelfSubjectAccessReview(
    spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=client.V1ResourceAttributes(verb="list", resource="pods"))))
assert review.status.allowed
assert client.VersionApi().get_code().git_version.startswith("v1.36")
print("python is content")
"#;

#[test]
fn the_python_client_reads_writes_watches_and_execs_typed_and_dynamic() {
    let world = World::new();
    world.up();
    world.import_busybox();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let script = dir.path().join("client.py");
    std::fs::write(&script, PYTHON).expect("writable");
    let python = client("python-kubernetes/bin/python");
    let said = world.ok(harness::path(&python), &[harness::path(&script)]);
    assert!(said.ends_with("python is content"), "{said}");
}

const NODE: &str = r#"
import * as k8s from '@kubernetes/client-node';
import assert from 'node:assert';

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const nodes = await core.listNode();
assert(nodes.items[0].status.conditions.some((one) => one.type === 'Ready' && one.status === 'True'));
const made = await core.createNamespacedConfigMap({ namespace: 'default', body: { metadata: { name: 'c' }, data: { a: '1' } } });
const seen = [];
const watch = new k8s.Watch(config);
const done = new Promise((resolve, reject) => {
  watch.watch('/api/v1/namespaces/default/configmaps', { resourceVersion: made.metadata.resourceVersion }, (type) => {
    seen.push(type);
    if (type === 'DELETED') resolve();
  }, (error) => (error ? reject(error) : resolve())).catch(reject);
});
made.data.b = '2';
const changed = await core.replaceNamespacedConfigMap({ name: 'c', namespace: 'default', body: made });
assert.equal(changed.data.b, '2');
await assert.rejects(core.replaceNamespacedConfigMap({ name: 'c', namespace: 'default', body: made }), (error) => error.code === 409);
await core.deleteNamespacedConfigMap({ name: 'c', namespace: 'default' });
await done;
assert.deepEqual(seen, ['MODIFIED', 'DELETED']);
await assert.rejects(core.readNamespacedConfigMap({ name: 'c', namespace: 'default' }), (error) => error.code === 404);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const applied = await objects.create({ apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'd', namespace: 'default' }, spec: {
  replicas: 0, selector: { matchLabels: { a: 'd' } }, template: { metadata: { labels: { a: 'd' } }, spec: { containers: [{ name: 'c', image: 'x' }] } } } });
assert.equal(applied.metadata.generation, 1);
await objects.delete(applied);
console.log('node is content');
process.exit(0);
"#;

#[test]
fn the_node_client_reads_writes_and_watches() {
    let world = World::new();
    world.up();
    let script = client("node-kubernetes").join("gantry-test.mjs");
    std::fs::write(&script, NODE).expect("writable");
    let said = world.ok("node", &[harness::path(&script)]);
    assert!(said.ends_with("node is content"), "{said}");
}

/// A chart with values, a hook before, a hook after and a test.
fn chart(dir: &std::path::Path, version: &str) {
    let templates = dir.join("templates");
    std::fs::create_dir_all(&templates).expect("a folder");
    let write = |path: PathBuf, text: &str| std::fs::write(path, text).expect("writable");
    write(dir.join("Chart.yaml"), &format!("apiVersion: v2\nname: app\nversion: {version}\n"));
    write(dir.join("values.yaml"), "greeting: hello\n");
    write(
        templates.join("config.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-config'}\ndata: {greeting: '{{ .Values.greeting }}', version: '{{ .Chart.Version }}'}\n",
    );
    write(
        templates.join("web.yaml"),
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: '{{ .Release.Name }}-web'}\nspec:\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers: [{name: web, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [sleep, '1000']}]\n",
    );
    for (name, hook) in [("before", "pre-install,pre-upgrade"), ("after", "post-install")] {
        write(
            templates.join(format!("{name}.yaml")),
            &format!(
                "apiVersion: v1\nkind: Pod\nmetadata:\n  name: '{{{{ .Release.Name }}}}-{name}'\n  annotations: {{helm.sh/hook: '{hook}', helm.sh/hook-delete-policy: before-hook-creation}}\nspec:\n  restartPolicy: Never\n  containers: [{{name: c, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: ['true']}}]\n"
            ),
        );
    }
}

#[test]
fn helm_installs_upgrades_and_rolls_back_a_chart_with_hooks() {
    let world = World::new();
    world.up();
    world.import_busybox();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let helm = client("v1.35/helm");
    let helm = |words: &[&str]| world.ok(harness::path(&helm), words);
    let path = harness::path(dir.path());
    let greeting =
        || world.ok("kubectl", &["get", "configmap", "one-config", "-o", "jsonpath={.data.greeting} {.data.version}"]);
    chart(dir.path(), "1.0.0");
    assert!(helm(&["install", "one", path, "--wait", "--timeout", "90s"]).contains("STATUS: deployed"));
    assert_eq!(greeting(), "hello 1.0.0");
    assert!(world.ok("kubectl", &["get", "pods", "-o", "name"]).contains("pod/one-after"));
    chart(dir.path(), "2.0.0");
    assert!(
        helm(&["upgrade", "one", path, "--set", "greeting=again", "--wait", "--timeout", "90s"])
            .contains("REVISION: 2")
    );
    assert_eq!(greeting(), "again 2.0.0");
    helm(&["rollback", "one", "1", "--wait", "--timeout", "90s"]);
    assert_eq!(greeting(), "hello 1.0.0");
    assert!(helm(&["list"]).contains("deployed"));
    assert_eq!(helm(&["history", "one"]).lines().count(), 4);
    assert!(helm(&["get", "manifest", "one"]).contains("one-config"));
    assert!(helm(&["uninstall", "one", "--wait"]).contains("uninstalled"));
    assert!(world.refused("kubectl", &["get", "configmap", "one-config"]).contains("not found"));
}
