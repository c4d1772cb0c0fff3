//! Stock clients over custom resources: kubectl, helm with a chart that ships definitions, and a controller written with the
//! Python client. What is not installed is not checked (`cargo xtask setup` installs it).

use std::path::Path;

use serde_json::{Value, json};

use crate::custom::definition;
use crate::wire::Listening;

/// Python with the `kubernetes` package, where `cargo xtask setup` puts it.
fn python() -> String {
    format!("{}/.cache/gantry/clients/python-kubernetes/bin/python", std::env::var("HOME").unwrap_or_default())
}

/// The clients of that name: those on PATH, and more in `GANTRY_TEST_KUBECTLS` (separated by colons).
fn installed(name: &str) -> Vec<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = path.split(':').map(|folder| format!("{folder}/{name}")).find(|file| Path::new(file).exists());
    let more = std::env::var("GANTRY_TEST_KUBECTLS").unwrap_or_default();
    let more = more.split(':').filter(|file| name == "kubectl" && !file.is_empty()).map(str::to_owned);
    let all: Vec<String> = found.into_iter().chain(more).collect();
    if all.is_empty() {
        eprintln!("no {name}: nothing checked");
    }
    all
}

impl Listening {
    #[track_caller]
    fn ok(&self, program: &str, arguments: &str, input: &str) -> impl Future<Output = String> {
        let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
        async move {
            let borrowed: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let (code, out, err) = self.client(program, &borrowed, input).await;
            assert_eq!(code, 0, "{program} {arguments:?}: {out}{err}");
            out + &err
        }
    }
}

fn crontab(name: &str, spec: Value) -> String {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": spec})
        .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_defines_explains_applies_scales_and_deletes_custom_resources() {
    for kubectl in installed("kubectl") {
        let listening = Listening::start().await;
        let run = |arguments: &'static str, input: String| {
            let (listening, kubectl) = (&listening, kubectl.clone());
            async move { listening.ok(&kubectl, arguments, &input).await }
        };
        run("apply -f -", definition().to_string()).await;
        run("wait --for condition=established --timeout=10s crd/crontabs.stable.example.com", String::new()).await;
        let explained = run("explain crontabs.spec", String::new()).await;
        assert!(
            explained.contains("cronSpec\t<string> -required-") && explained.contains("When it runs."),
            "{explained}"
        );
        let listed = run("api-resources --api-group=stable.example.com --no-headers", String::new()).await;
        assert_eq!(
            listed.split_whitespace().collect::<Vec<_>>(),
            ["crontabs", "ct", "stable.example.com/v1", "true", "CronTab"]
        );
        let good = crontab("a", json!({"cronSpec": "* * * * *", "steps": [{"name": "one"}]}));
        assert_eq!(run("apply -f -", good.clone()).await, "crontab.stable.example.com/a created\n");
        assert_eq!(run("apply -f -", good).await, "crontab.stable.example.com/a unchanged\n");
        let bad = crontab("b", json!({"cronSpec": "* * * * *", "nosuch": 1}));
        let (code, _, err) = listening.client(&kubectl, &["apply", "-f", "-"], &bad).await;
        assert!(code != 0 && err.contains("strict decoding error: unknown field \"spec.nosuch\""), "{err}");
        let bad = crontab("b", json!({"cronSpec": "* * * * *", "replicas": 99}));
        let (code, _, err) = listening.client(&kubectl, &["create", "-f", "-"], &bad).await;
        assert!(code != 0 && err.contains("The CronTab \"b\" is invalid: spec.replicas: Invalid value: 99: spec.replicas in body should be less than or equal to 10"), "{err}");
        let table = run("get ct", String::new()).await;
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows, [vec!["NAME", "SPEC", "REPLICAS"], vec!["a", "*", "*", "*", "*", "*", "1"]]);
        run("scale --replicas=3 crontab/a", String::new()).await;
        run("patch ct a --type=merge --subresource=status -p {\"status\":{\"replicas\":3}}", String::new()).await;
        run(
            "patch ct a --type=json -p [{\"op\":\"replace\",\"path\":\"/spec/image\",\"value\":\"web\"}]",
            String::new(),
        )
        .await;
        let seen = run(
            "get ct a -o jsonpath={.spec.replicas}/{.status.replicas}/{.spec.image}/{.metadata.generation}",
            String::new(),
        )
        .await;
        assert_eq!(seen, "3/3/web/3");
        let applied = crontab("a", json!({"cronSpec": "@daily", "steps": [{"name": "two"}]}));
        run("apply --server-side --force-conflicts --field-manager=me -f -", applied).await;
        assert_eq!(run("get ct a -o jsonpath={.spec.steps[*].name}", String::new()).await, "two");
        assert!(run("get all", String::new()).await.contains("crontab.stable.example.com/a"));
        run("create role reader --verb=get,list --resource=crontabs.stable.example.com", String::new()).await;
        run("create rolebinding reader --role=reader --user=bob", String::new()).await;
        assert_eq!(run("auth can-i list crontabs.stable.example.com --as bob", String::new()).await, "yes\n");
        let (_, answer, _) = listening
            .client(&kubectl, &["auth", "can-i", "delete", "crontabs.stable.example.com", "--as", "bob"], "")
            .await;
        assert_eq!(answer, "no\n");
        run("delete crd crontabs.stable.example.com", String::new()).await;
        let (code, _, err) = listening.client(&kubectl, &["get", "ct"], "").await;
        // Which of the two kubectl says depends on what it remembers of discovery.
        let known =
            ["the server doesn't have a resource type \"ct\"", "the server could not find the requested resource"];
        assert!(code != 0 && known.iter().any(|words| err.contains(words)), "{err}");
        listening.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helm_installs_upgrades_rolls_back_and_removes_a_chart_with_definitions() {
    for helm in installed("helm") {
        let listening = Listening::start().await;
        let chart = tempfile::tempdir().expect("tempdir");
        let root = chart.path().join("chart");
        std::fs::create_dir_all(root.join("crds")).expect("folders");
        std::fs::create_dir_all(root.join("templates")).expect("folders");
        let object = crontab("from-chart", json!({"cronSpec": "* * * * *"}))
            .replace("\"spec\":{", "\"spec\":{\"replicas\":{{ .Values.replicas }},");
        for (file, text) in [
            ("Chart.yaml", "apiVersion: v2\nname: chart\nversion: 0.1.0\n".to_owned()),
            ("values.yaml", "replicas: 2\n".to_owned()),
            ("crds/crontab.yaml", definition().to_string()),
            ("templates/crontab.yaml", object),
        ] {
            std::fs::write(root.join(file), text).expect("a file");
        }
        let root = root.display().to_string();
        let replicas = || async {
            let found =
                listening.cluster.get("/apis/stable.example.com/v1/namespaces/default/crontabs/from-chart").await;
            found.body["spec"]["replicas"].clone()
        };
        listening.ok(&helm, &format!("install demo {root} --wait --timeout 60s"), "").await;
        assert_eq!(replicas().await, 2);
        listening.ok(&helm, &format!("upgrade demo {root} --set replicas=5"), "").await;
        assert_eq!(replicas().await, 5);
        listening.ok(&helm, "rollback demo 1", "").await;
        assert_eq!(replicas().await, 2);
        let releases = listening.ok(&helm, "list", "").await;
        assert!(releases.contains("demo") && releases.contains("deployed"), "{releases}");
        listening.ok(&helm, "uninstall demo", "").await;
        assert_eq!(replicas().await, Value::Null);
        listening.stop().await;
    }
}

/// Makes a ConfigMap for each CronTab, owned by it, and says so in the status; ends when a CronTab is called `stop`.
const CONTROLLER: &str = r#"
import sys
from kubernetes import config, client, dynamic
config.load_kube_config(sys.argv[1])
api = dynamic.DynamicClient(client.ApiClient())
crontabs = api.resources.get(api_version="stable.example.com/v1", kind="CronTab")
maps = api.resources.get(api_version="v1", kind="ConfigMap")
def reconcile(item):
    body = {"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": item.metadata.name, "ownerReferences": [{
                "apiVersion": item.apiVersion, "kind": item.kind, "name": item.metadata.name, "uid": item.metadata.uid, "controller": True}]},
            "data": {"schedule": item.spec.cronSpec}}
    maps.server_side_apply(body=body, namespace="default", field_manager="controller", force_conflicts=True)
    status = {"apiVersion": item.apiVersion, "kind": item.kind, "metadata": {"name": item.metadata.name}, "status": {"replicas": item.spec.replicas}}
    crontabs.status.patch(body=status, name=item.metadata.name, namespace="default", content_type="application/merge-patch+json")
print("watching", flush=True)
for event in crontabs.watch(namespace="default"):
    if event["type"] == "DELETED":
        continue
    if event["object"].metadata.name == "stop":
        break
    if (event["object"].status or {}).get("replicas") != event["object"].spec.replicas:
        reconcile(event["object"])
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_in_python_reconciles_custom_resources() {
    if !Path::new(&python()).exists() {
        eprintln!("no {}: nothing checked", python());
        return;
    }
    let listening = Listening::start().await;
    listening.cluster.create(crate::custom::DEFINITIONS, definition()).await;
    let path = "/apis/stable.example.com/v1/namespaces/default/crontabs";
    let create = |name: &str| {
        let body = serde_json::from_str(&crontab(name, json!({"cronSpec": "@hourly", "replicas": 4}))).expect("JSON");
        listening.cluster.create(path, body)
    };
    create("before").await;
    let kubeconfig = listening.kubeconfig.display().to_string();
    let arguments = ["-c", CONTROLLER, &kubeconfig];
    let python = python();
    let controller = listening.client(&python, &arguments, "");
    let others = async {
        let made = create("during").await;
        for name in ["before", "during"] {
            let mut found = listening.cluster.get(&format!("{path}/{name}")).await.ok();
            while found["status"]["replicas"] != 4 {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                found = listening.cluster.get(&format!("{path}/{name}")).await.ok();
            }
        }
        let map = listening.cluster.get("/api/v1/namespaces/default/configmaps/during").await.ok();
        assert_eq!(map["data"]["schedule"], "@hourly");
        assert_eq!(map["metadata"]["ownerReferences"][0]["uid"], made["metadata"]["uid"]);
        create("stop").await;
    };
    let ((code, out, err), ()) = tokio::join!(controller, others);
    assert_eq!(code, 0, "{out}{err}");
    listening.stop().await;
}
