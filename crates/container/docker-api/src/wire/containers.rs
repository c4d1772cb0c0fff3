//! `GET /containers/json`.

use std::collections::{BTreeMap, BTreeSet};

use engine::{
    Container, Phase,
    record::{MountKind, MountPoint},
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::time;

/// One row of the list.
pub(crate) fn summary(container: &Container, size: Option<(u64, u64)>, now: Timestamp) -> Value {
    let record = &container.record;
    let mut row = json!({
        "Id": record.id,
        "Names": [format!("/{}", record.name)],
        "Image": shown_image(container),
        "ImageID": record.image_id,
        "Command": command(container),
        "Created": record.created.as_second(),
        "Ports": ports(container),
        "Labels": record.config.labels,
        "State": container.status(),
        "Status": status_text(container, now),
        "HostConfig": {"NetworkMode": record.host.network_mode},
        "NetworkSettings": {"Networks": networks(container)},
        "Mounts": record.mounts.iter().map(mount).collect::<Vec<_>>(),
    });
    if let (Some((own, total)), Value::Object(row)) = (size, &mut row) {
        row.insert("SizeRw".to_owned(), own.into());
        row.insert("SizeRootFs".to_owned(), total.into());
    }
    row
}

fn shown_image(container: &Container) -> &str {
    &container.record.config.image
}

/// Program and arguments as one line, quoted where a space would mislead.
fn command(container: &Container) -> String {
    let config = &container.record.config;
    let words = config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten());
    let quoted = words.map(|word| {
        let plain = !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || "\"'\\$|&;<>()*?#~".contains(c));
        if plain { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// `Up 2 minutes (healthy)`, `Exited (0) 3 seconds ago`.
pub(crate) fn status_text(container: &Container, now: Timestamp) -> String {
    match &container.phase {
        Phase::Created => "Created".to_owned(),
        Phase::Running(running) => {
            let up = time::human(time::since(running.started_at, now));
            let health = container.health.as_ref().map(|health| match health.status {
                engine::record::HealthStatus::Starting => " (health: starting)".to_owned(),
                other => format!(" ({})", other.as_str()),
            });
            if running.paused { format!("Up {up} (Paused)") } else { format!("Up {up}{}", health.unwrap_or_default()) }
        }
        Phase::Restarting(exited) => {
            format!("Restarting ({}) {} ago", exited.code, time::human(time::since(exited.finished_at, now)))
        }
        Phase::Exited(exited) => {
            format!("Exited ({}) {} ago", exited.code, time::human(time::since(exited.finished_at, now)))
        }
        Phase::Removing => "Removal In Progress".to_owned(),
        Phase::Dead => "Dead".to_owned(),
    }
}

/// Published ports, then exposed ones that are not published.
pub(crate) fn ports(container: &Container) -> Vec<Value> {
    let mut published: BTreeSet<(u16, &str)> = BTreeSet::new();
    let mut all = Vec::new();
    for port in &container.published {
        published.insert((port.container_port, port.protocol));
        all.push(json!({
            "IP": port.host_ip.to_string(),
            "PrivatePort": port.container_port,
            "PublicPort": port.host_port,
            "Type": port.protocol,
        }));
    }
    if matches!(container.phase, Phase::Running(_)) {
        for exposed in container.record.config.exposed_ports.keys() {
            let (number, protocol) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
            let Ok(number) = number.parse::<u16>() else { continue };
            if !published.contains(&(number, protocol)) {
                all.push(json!({"PrivatePort": number, "Type": protocol}));
            }
        }
    }
    all
}

/// Endpoints by network: as they are, or as asked when the container does not run.
pub(crate) fn networks(container: &Container) -> Map<String, Value> {
    let record = &container.record;
    let none = engine::config::EndpointRequest::default();
    let mut all: Map<String, Value> = Map::new();
    for name in engine::containers::shown_networks(record) {
        let request = record.networks.get(&name).unwrap_or(&none);
        let now = container.attachments.iter().find(|attachment| attachment.network == name);
        let mac = now.map_or_else(|| request.mac_address.clone(), |a| a.mac.clone());
        let names: Vec<&String> = now.map(|a| a.aliases.iter().collect()).unwrap_or_default();
        let dns_names = (!matches!(name.as_str(), "bridge" | "host" | "none")).then(|| {
            let own = std::iter::once(&record.name).chain(names.iter().copied());
            let mut seen = BTreeSet::new();
            own.filter(|name| seen.insert(name.as_str())).cloned().collect::<Vec<String>>()
        });
        all.insert(
            name.clone(),
            json!({
                "IPAMConfig": request.ipam_config,
                "Links": request.links,
                "Aliases": request.aliases,
                "MacAddress": mac,
                "DriverOpts": request.driver_opts,
                "GwPriority": 0,
                "NetworkID": now.map_or("", |a| &a.network_id),
                "EndpointID": now.map_or("", |a| &a.endpoint_id),
                "Gateway": now.and_then(|a| a.gateway).map(|ip| ip.to_string()).unwrap_or_default(),
                "IPAddress": now.and_then(|a| a.ip).map(|ip| ip.to_string()).unwrap_or_default(),
                "IPPrefixLen": now.map_or(0, |a| a.prefix_len),
                "IPv6Gateway": "",
                "GlobalIPv6Address": "",
                "GlobalIPv6PrefixLen": 0,
                "DNSNames": dns_names,
            }),
        );
    }
    all
}

/// A mount as list and inspect show it.
pub(crate) fn mount(point: &MountPoint) -> Value {
    let mut shown = json!({
        "Type": point.kind.as_str(),
        "Source": point.source,
        "Destination": point.destination,
        "Mode": point.mode,
        "RW": point.read_write,
        "Propagation": point.propagation,
    });
    if let (MountKind::Volume, Value::Object(shown)) = (point.kind, &mut shown) {
        shown.insert("Name".to_owned(), point.name.clone().unwrap_or_default().into());
        shown.insert("Driver".to_owned(), "local".into());
    }
    shown
}

/// `{"8000/tcp": [{"HostIp": …, "HostPort": …}], "9000/tcp": null}`.
pub(crate) fn port_map(container: &Container) -> Map<String, Value> {
    let mut map: BTreeMap<String, Value> = BTreeMap::new();
    if !matches!(container.phase, Phase::Running(_)) {
        return Map::new();
    }
    for exposed in container.record.config.exposed_ports.keys() {
        let key = if exposed.contains('/') { exposed.clone() } else { format!("{exposed}/tcp") };
        map.insert(key, Value::Null);
    }
    for port in &container.published {
        let key = format!("{}/{}", port.container_port, port.protocol);
        let binding = json!({"HostIp": port.host_ip.to_string(), "HostPort": port.host_port.to_string()});
        match map.entry(key).or_insert(Value::Null) {
            Value::Array(list) => list.push(binding),
            empty => *empty = json!([binding]),
        }
    }
    map.into_iter().collect()
}
