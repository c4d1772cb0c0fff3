//! postStart and preStop hooks.
//!
//! Invariant: a hook tells success or why not; how long it may take is the caller's business.

use std::time::Duration;

use cri::Cri;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::dial;

pub(crate) async fn run(
    cri: &dyn Cri,
    container_id: &str,
    container: &Container,
    hook: &LifecycleHandler,
    pod_ip: &str,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let answer = cri.exec_sync(container_id, command.clone(), Duration::ZERO).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.exit_code == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&answer.stderr).into_owned();
        let code = answer.exit_code;
        return Err(format!("command '{}' exited with {code}: {text}", command.join(" ")));
    }
    if let Some(get) = &hook.http_get {
        let (status, _) = dial::http_get(get, container, pod_ip, "kube-lifecycle/1.36").await?;
        return match status {
            200..400 => Ok(()),
            status => Err(format!("HTTP hook answered {status}")),
        };
    }
    if let Some(sleep) = &hook.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        return Ok(());
    }
    if let Some(socket) = &hook.tcp_socket {
        let host = socket.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
        let port = dial::port(&socket.port, container)?;
        return dial::tcp(host, port).await.map(drop);
    }
    Err("invalid handler: none of exec, httpGet, sleep".to_owned())
}
