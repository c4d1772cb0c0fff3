//! `GET /containers/{id}/json`.

use engine::{
    Container, Phase,
    record::{Exited, Health},
};
use serde_json::{Value, json};

use super::{containers, time};

/// The whole answer.
pub(crate) fn container(container: &Container, size: Option<(u64, u64)>) -> Value {
    let record = &container.record;
    let config = &record.config;
    let mut words = config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten());
    let path = words.next().cloned().unwrap_or_default();
    let file = |name: &str| container.dir.join(name).display().to_string();
    let mut host = serde_json::to_value(&record.host).unwrap_or_default();
    if let Value::Object(host) = &mut host {
        host.insert("Mounts".to_owned(), serde_json::to_value(&record.host.mounts).unwrap_or_default());
        if record.host.mounts.is_empty() {
            host.remove("Mounts");
        }
    }
    let mut shown_config = serde_json::to_value(config).unwrap_or_default();
    if let Value::Object(shown) = &mut shown_config {
        shown.insert("Hostname".to_owned(), record.hostname.clone().into());
    }
    let mut answer = json!({
        "Id": record.id,
        "Created": record.created.to_string(),
        "Path": path,
        "Args": words.collect::<Vec<_>>(),
        "State": state(container),
        "Image": record.image_id,
        "ResolvConfPath": file("resolv.conf"),
        "HostnamePath": file("hostname"),
        "HostsPath": file("hosts"),
        "LogPath": container.log_path.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        "Name": format!("/{}", record.name),
        "RestartCount": record.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": if container.execs.is_empty() { Value::Null } else { json!(container.execs) },
        "HostConfig": host,
        "GraphDriver": {"Data": {}, "Name": "overlay2"},
        "Mounts": record.mounts.iter().map(containers::mount).collect::<Vec<_>>(),
        "Config": shown_config,
        "NetworkSettings": network_settings(container),
    });
    if let (Some((own, total)), Value::Object(answer)) = (size, &mut answer) {
        answer.insert("SizeRw".to_owned(), own.into());
        answer.insert("SizeRootFs".to_owned(), total.into());
    }
    answer
}

fn state(container: &Container) -> Value {
    let none = Exited {
        code: 0,
        oom_killed: false,
        started_at: jiff::Timestamp::UNIX_EPOCH,
        finished_at: jiff::Timestamp::UNIX_EPOCH,
        error: String::new(),
    };
    let (exited, started, finished) = match &container.phase {
        Phase::Exited(exited) | Phase::Restarting(exited) => {
            (exited, exited.started_at.to_string(), exited.finished_at.to_string())
        }
        Phase::Running(running) => (&none, running.started_at.to_string(), time::ZERO.to_owned()),
        Phase::Created | Phase::Removing | Phase::Dead => (&none, time::ZERO.to_owned(), time::ZERO.to_owned()),
    };
    let (code, error) = match (&container.phase, &container.record.start_failure) {
        (Phase::Created, Some((code, error))) => (*code, error.as_str()),
        _ => (exited.code, exited.error.as_str()),
    };
    let status = container.status();
    let mut state = json!({
        "Status": status,
        "Running": matches!(container.phase, Phase::Running(_) | Phase::Restarting(_)),
        "Paused": status == "paused",
        "Restarting": status == "restarting",
        "OOMKilled": exited.oom_killed,
        "Dead": status == "dead",
        "Pid": container.pid(),
        "ExitCode": code,
        "Error": error,
        "StartedAt": started,
        "FinishedAt": finished,
    });
    if let (Some(shown), Value::Object(state)) = (container.health.as_ref().map(health), &mut state) {
        state.insert("Health".to_owned(), shown);
    }
    state
}

fn health(health: &Health) -> Value {
    let log = health.log.iter().map(|one| {
        json!({"Start": one.start.to_string(), "End": one.end.to_string(), "ExitCode": one.exit_code, "Output": one.output})
    });
    json!({"Status": health.status.as_str(), "FailingStreak": health.failing_streak, "Log": log.collect::<Vec<_>>()})
}

fn network_settings(container: &Container) -> Value {
    let bridge = container.attachments.iter().find(|attachment| attachment.network == "bridge");
    let running = matches!(container.phase, Phase::Running(_));
    let key = if running { format!("/proc/{}/ns/net", container.pid()) } else { String::new() };
    json!({
        "Bridge": "",
        "SandboxID": if running { container.record.id.as_str() } else { "" },
        "SandboxKey": key,
        "Ports": containers::port_map(container),
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": bridge.map_or("", |a| &a.endpoint_id),
        "Gateway": bridge.and_then(|a| a.gateway).map(|ip| ip.to_string()).unwrap_or_default(),
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": bridge.and_then(|a| a.ip).map(|ip| ip.to_string()).unwrap_or_default(),
        "IPPrefixLen": bridge.map_or(0, |a| a.prefix_len),
        "IPv6Gateway": "",
        "MacAddress": bridge.map_or("", |a| &a.mac),
        "Networks": containers::networks(container),
    })
}
