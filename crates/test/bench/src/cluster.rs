//! The Kubernetes half: how long a pod takes from its creation to Running, its image present.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::StreamExt;
use http::Request;
use kube_client::Client;
use serde_json::{Value, json};

use crate::gantry::{Instance, docker_output};
use crate::measure::Sample;
use crate::report::Report;

const PODS: usize = 40;
const PODS_PATH: &str = "/api/v1/namespaces/default/pods";

pub(crate) fn run(instance: &Instance, report: &mut Report) -> Result<()> {
    let context = std::env::temp_dir().join(format!("bench-pod-{}", std::process::id()));
    std::fs::create_dir_all(&context)?;
    let script = "cp $(command -v busybox) $0/busybox && printf 'FROM scratch\\nCOPY busybox /bin/sleep\\nCMD [\"/bin/sleep\", \"3600\"]\\n' > $0/Dockerfile";
    crate::measure::timed(std::process::Command::new("sh").args(["-c", script]).arg(&context))?;
    let mut build = crate::gantry::docker(
        &instance.namespaces,
        &instance.socket(),
        &["build", "-q", "-t", "bench-pod", context.to_str().context("odd path")?],
    );
    crate::measure::timed(build.env("DOCKER_BUILDKIT", "0"))?;
    std::fs::remove_dir_all(&context)?;
    let sample = instance.namespaces.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(pods(&instance.kubeconfig()))
    })?;
    report.figure(
        "pod created → Running, image present, p50",
        format!("{:.0} ms", sample.percentile_ms(0.5)),
        "< 150 ms",
    );
    report.figure(
        "pod created → Running, image present, p99",
        format!("{:.0} ms", sample.percentile_ms(0.99)),
        "< 500 ms",
    );
    docker_output(&instance.namespaces, &instance.socket(), &["rmi", "-f", "bench-pod"]).map(drop)
}

async fn pods(kubeconfig: &std::path::Path) -> Result<Sample> {
    let client = Client::from_kubeconfig(kubeconfig)?;
    let mut sample = Sample::default();
    for number in 0..PODS {
        let name = format!("bench-{number}");
        let watch = format!("{PODS_PATH}?watch=true&fieldSelector=metadata.name%3D{name}");
        let mut events = client.send(Request::get(watch).body(Bytes::new())?).await?.into_body();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "bench-pod", "imagePullPolicy": "IfNotPresent"}]},
        });
        let request = Request::post(PODS_PATH)
            .header("content-type", "application/json")
            .body(Bytes::from(serde_json::to_vec(&pod)?))?;
        let began = Instant::now();
        client.raw(request).await?;
        tokio::time::timeout(Duration::from_secs(10), running(&mut events))
            .await
            .with_context(|| format!("{name} is not Running after 10 s"))??;
        sample.push(began.elapsed());
        client.raw(Request::delete(format!("{PODS_PATH}/{name}?gracePeriodSeconds=0")).body(Bytes::new())?).await?;
    }
    Ok(sample)
}

async fn running(events: &mut kube_client::Body) -> Result<()> {
    let mut pending = Vec::new();
    while let Some(chunk) = events.next().await {
        pending.extend_from_slice(&chunk?);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line)?;
            if event["object"]["status"]["phase"] == "Running" {
                return Ok(());
            }
        }
    }
    bail!("the watch ended")
}
