//! Runs one probe once.
//!
//! The state machine and the schedule are `pod_plan`'s. Invariant: every run ends within its timeout, and
//! its failure text is Kubernetes'.

use std::time::Duration;

use cri::Cri;
use k8s_openapi::api::core::v1::{Container, Probe};
use pod_plan::{ProbeOutcome, probe_timeout};

use crate::dial;

const AGENT: &str = "kube-probe/1.36";

pub(crate) async fn run(
    cri: &dyn Cri,
    container_id: &str,
    container: &Container,
    probe: &Probe,
    pod_ip: &str,
) -> ProbeOutcome {
    let timeout = Duration::try_from(probe_timeout(probe)).unwrap_or(Duration::from_secs(1));
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        return exec_probe(cri, container_id, command, timeout).await;
    }
    let attempt = network_probe(container, probe, pod_ip);
    match tokio::time::timeout(timeout, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => ProbeOutcome::Failure(timed_out(container, probe, pod_ip, timeout)),
    }
}

fn timed_out(container: &Container, probe: &Probe, pod_ip: &str, timeout: Duration) -> String {
    if let Some(get) = &probe.http_get {
        let url = dial::url(get, container, pod_ip).unwrap_or_default();
        return format!("Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)");
    }
    if let Some(grpc) = &probe.grpc {
        let seconds = timeout.as_secs();
        return format!(
            "timeout: failed to connect service \"{pod_ip}:{}\" within {seconds}s: context deadline exceeded",
            grpc.port
        );
    }
    match probe.tcp_socket.as_ref().map(|socket| (socket, dial::port(&socket.port, container))) {
        Some((socket, Ok(port))) => {
            let host = socket.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
            format!("dial tcp {}: i/o timeout", dial::address(host, port))
        }
        Some((_, Err(_))) | None => format!("timeout: no answer within {}s", timeout.as_secs()),
    }
}

async fn exec_probe(cri: &dyn Cri, id: &str, command: Vec<String>, timeout: Duration) -> ProbeOutcome {
    match cri.exec_sync(id, command.clone(), timeout).await {
        Ok(answer) if answer.exit_code == 0 => ProbeOutcome::Success,
        Ok(answer) => {
            let mut text = String::from_utf8_lossy(&answer.stdout).into_owned();
            text.push_str(&String::from_utf8_lossy(&answer.stderr));
            ProbeOutcome::Failure(text.chars().take(1024).collect())
        }
        Err(cri::CriError::DeadlineExceeded(_)) => {
            ProbeOutcome::Failure(format!("command timed out: \"{}\" timed out after {}s", command.join(" "), timeout.as_secs()))
        }
        Err(error) => ProbeOutcome::Unknown(error.to_string()),
    }
}

async fn network_probe(container: &Container, probe: &Probe, pod_ip: &str) -> ProbeOutcome {
    if let Some(get) = &probe.http_get {
        return match dial::http_get(get, container, pod_ip, AGENT).await {
            Ok((200..400, _)) => ProbeOutcome::Success,
            Ok((status, _)) => ProbeOutcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
            Err(error) => {
                let url = dial::url(get, container, pod_ip).unwrap_or_default();
                ProbeOutcome::Failure(format!("Get \"{url}\": {error}"))
            }
        };
    }
    if let Some(socket) = &probe.tcp_socket {
        let host = socket.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
        let answer = match dial::port(&socket.port, container) {
            Ok(port) => dial::tcp(host, port).await.map(drop),
            Err(error) => return ProbeOutcome::Unknown(error),
        };
        return answer.map_or_else(ProbeOutcome::Failure, |()| ProbeOutcome::Success);
    }
    if let Some(grpc) = &probe.grpc {
        let service = grpc.service.as_deref().unwrap_or_default();
        let Ok(port) = u16::try_from(grpc.port) else {
            return ProbeOutcome::Unknown(format!("invalid port number: {}", grpc.port));
        };
        return match dial::grpc_health(pod_ip, port, service).await {
            Ok("SERVING") => ProbeOutcome::Success,
            Ok(status) => ProbeOutcome::Failure(format!("service unhealthy (responded with \"{status}\")")),
            Err(error) => ProbeOutcome::Failure(error),
        };
    }
    ProbeOutcome::Unknown("missing probe handler".to_owned())
}
