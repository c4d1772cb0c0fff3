//! Over the listener: TLS, client certificates, and a stock kubectl where there is one.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use kube_client::node::{ByteStream, Duplex, ExecRequest, ExecStreams, GatewayError, LogOptions, NodeGateway, PodRef};
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::cluster::{Cluster, PODS, pod};

const KUBECTL: &str = "/usr/bin/kubectl";

/// A node whose every container is an echo of its input, and whose command decides the exit code.
struct Echo;

#[async_trait::async_trait]
impl NodeGateway for Echo {
    async fn logs(&self, pod: PodRef, options: LogOptions) -> Result<ByteStream, GatewayError> {
        let line = Bytes::from(format!("log of {}/{} {:?}\n", pod.name, options.container, options.tail_lines));
        Ok(futures_util::stream::iter([Ok(line)]).boxed())
    }

    async fn exec(&self, request: ExecRequest) -> Result<ExecStreams, GatewayError> {
        let command = request.command.unwrap_or_default();
        if command[0] == "missing" {
            return Err(GatewayError::internal("exec: \"missing\": executable file not found in $PATH"));
        }
        let code = command.get(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let (near, mut far) = tokio::io::duplex(1024);
        let echoed = futures_util::stream::once(async move {
            let mut text = String::new();
            far.read_to_string(&mut text).await.map_err(|error| GatewayError::internal(error.to_string()))?;
            Ok(Bytes::from(format!("echo {text}")))
        });
        Ok(ExecStreams {
            stdin: request.stdin.then(|| Box::new(near) as _),
            stdout: Some(echoed.boxed()),
            stderr: Some(futures_util::stream::iter([Ok(Bytes::from_static(b"warned\n"))]).boxed()),
            resize: None,
            exit: Box::pin(async move { Ok(code) }),
        })
    }

    async fn attach(&self, _request: ExecRequest) -> Result<ExecStreams, GatewayError> {
        Err(GatewayError::bad_request("no attach here"))
    }

    async fn port_forward(&self, _pod: PodRef, _port: u16) -> Result<Box<dyn Duplex>, GatewayError> {
        Err(GatewayError::bad_request("no ports here"))
    }
}

pub(crate) struct Listening {
    pub(crate) cluster: Cluster,
    pub(crate) kubeconfig: PathBuf,
    url: String,
    _directory: tempfile::TempDir,
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Listening {
    pub(crate) async fn start() -> Self {
        Self::over(Cluster::start().await).await
    }

    pub(crate) async fn over(cluster: Cluster) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://127.0.0.1:{}", listener.local_addr().expect("address").port());
        let directory = tempfile::tempdir().expect("tempdir");
        let kubeconfig = directory.path().join("kubeconfig");
        std::fs::write(&kubeconfig, cluster.pki.kubeconfig(&url)).expect("kubeconfig");
        cluster.server.connect_nodes(Arc::new(Echo));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = Arc::clone(&cluster.server);
        let task = tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap_or(()) };
            apiserver::serve(server, listener, stopped).await.expect("listener");
        });
        Self { cluster, kubeconfig, url, _directory: directory, stop, task }
    }

    /// Exit code, standard output, standard error.
    async fn kubectl(&self, arguments: &[&str], input: &str) -> (i32, String, String) {
        self.client(KUBECTL, arguments, input).await
    }

    /// The same of any client that finds the cluster by KUBECONFIG.
    pub(crate) async fn client(&self, program: &str, arguments: &[&str], input: &str) -> (i32, String, String) {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", &self.kubeconfig).env("KUBECACHEDIR", self._directory.path().join("cache"));
        command.env("HELM_CACHE_HOME", self._directory.path()).env("HELM_DATA_HOME", self._directory.path());
        command.env("HELM_CONFIG_HOME", self._directory.path());
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("kubectl");
        let mut stdin = child.stdin.take().expect("stdin");
        let input = input.to_owned();
        tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await });
        let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output())
            .await
            .expect("in time")
            .expect("output");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// Who the server takes the bearer of a token for; `None` when it lets nobody in.
    pub(crate) async fn whoami(&self, token: &str) -> Option<serde_json::Value> {
        let path = self._directory.path().join("with-token");
        let ca = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, self.cluster.pki.ca_pem());
        let config = format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: '{}', certificate-authority-data: {ca}}}}}]\nusers: [{{name: u, user: {{token: {token}}}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n",
            self.url
        );
        std::fs::write(&path, config).expect("kubeconfig");
        let client = kube_client::Client::from_kubeconfig(&path).expect("client");
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
        let request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("content-type", "application/json")
            .body(Bytes::from(body))
            .expect("request");
        let review = client.raw(request).await.ok()?;
        Some(review["status"]["userInfo"].clone())
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).expect("still listening");
        tokio::time::timeout(Duration::from_secs(2), self.task).await.expect("a quick end").expect("no panic");
    }
}

fn has_kubectl() -> bool {
    let there = std::path::Path::new(KUBECTL).exists();
    if !there {
        eprintln!("no {KUBECTL}: nothing checked");
    }
    there
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_execs_over_a_websocket_with_input_output_and_exit_code() {
    if !has_kubectl() {
        return;
    }
    let listening = Listening::start().await;
    listening.cluster.create(PODS, pod("a")).await;
    listening.cluster.create(&format!("{PODS}/a/binding"), json!({"target": {"name": "n1"}})).await;
    let (code, out, err) = listening.kubectl(&["exec", "-i", "a", "--", "cat", "7"], "hello").await;
    assert_eq!((code, out.as_str()), (7, "echo hello"), "{err}");
    assert!(err.contains("warned") && err.contains("exit code 7"), "{err}");
    let (code, _, err) = listening.kubectl(&["exec", "a", "--", "missing"], "").await;
    assert!(code == 1 && err.contains("executable file not found"), "{code} {err}");
    let (code, out, _) = listening.kubectl(&["logs", "a", "--tail=3"], "").await;
    assert_eq!((code, out.as_str()), (0, "log of a/main Some(3)\n"));
    listening.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_applies_gets_scales_and_deletes() {
    if !has_kubectl() {
        return;
    }
    let listening = Listening::start().await;
    let manifest = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 2\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec: {containers: [{name: web, image: nginx}]}\n";
    let expect = async |arguments: &[&str], input: &str, expected: &str| {
        let (code, out, err) = listening.kubectl(arguments, input).await;
        assert!(code == 0 && out.contains(expected), "{arguments:?}: {code} {out} {err}");
    };
    expect(&["apply", "-f", "-"], manifest, "deployment.apps/web created").await;
    expect(&["apply", "-f", "-"], manifest, "deployment.apps/web unchanged").await;
    expect(&["apply", "-f", "-"], &manifest.replace("nginx", "nginx:2"), "deployment.apps/web configured").await;
    expect(&["scale", "deployment/web", "--replicas=5"], "", "deployment.apps/web scaled").await;
    expect(&["get", "deployments"], "", "0/5").await;
    expect(&["set", "image", "deployment/web", "web=nginx:3"], "", "image updated").await;
    expect(&["get", "deployment", "web", "-o", "jsonpath={.metadata.generation}"], "", "4").await;
    expect(&["delete", "deployment", "web"], "", "\"web\" deleted").await;
    let (code, _, err) = listening.kubectl(&["get", "deployment", "web"], "").await;
    assert_eq!((code, err.trim()), (1, "Error from server (NotFound): deployments.apps \"web\" not found"));
    listening.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typed_clients_that_write_protobuf_are_understood() {
    if !has_kubectl() {
        return;
    }
    let listening = Listening::start().await;
    for (arguments, expected) in [
        ("create configmap c --from-literal=x=y", "configmap/c created"),
        ("get configmap c -o jsonpath={.data.x}", "y"),
        ("create secret generic s --from-literal=x=y", "secret/s created"),
        ("get secret s -o jsonpath={.data.x}", "eQ=="),
        ("create token default", "ey"),
        ("create deployment d --image=nginx --port=80", "deployment.apps/d created"),
        ("create service nodeport d --tcp=80:http", "service/d created"),
        ("get service d -o jsonpath={.spec.ports[0].targetPort}", "http"),
        ("auth can-i list pods", "yes"),
        ("auth whoami", "kubernetes-admin"),
    ] {
        let words: Vec<&str> = arguments.split(' ').collect();
        let (code, out, err) = listening.kubectl(&words, "").await;
        assert!(code == 0 && out.contains(expected), "{arguments}: {code} {out} {err}");
    }
    listening.stop().await;
}
