//! `GET /containers/json` and its filters.

use axum::{Json, extract::State};
use engine::{Container, Phase, record::HealthStatus};
use jiff::Timestamp;
use serde_json::Value;

use super::{Query, containers::sizes};
use crate::{
    Backend,
    error::{ApiError, Result},
    filters::Filters,
    wire::containers::summary,
};

const FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const STATUSES: &[&str] = &["created", "running", "paused", "restarting", "removing", "exited", "dead"];
/// Labels that say a container is the cluster's: a filter on one shows them.
const CLUSTER: &str = "io.kubernetes.";

pub(super) async fn list(State(backend): State<Backend>, query: Query) -> Result<Json<Value>> {
    let filters = Filters::parse(query.get("filters"), FILTERS)?;
    if let Some(wrong) = filters.values("status").find(|status| !STATUSES.contains(status)) {
        return Err(ApiError::bad_request(format!("invalid filter 'status={wrong}'")));
    }
    let limit = query.number::<i64>("limit")?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let bounds = Bounds::of(&backend, &filters)?;
    // Docker: a filter on status, or a limit, asks for all.
    let all = query.flag("all") || limit.is_some() || filters.has("status") || filters.has("exited");
    let cluster = filters.values("label").any(|label| label.starts_with(CLUSTER));
    let fits = |container: &Container| {
        (cluster || container.record.pod.is_none())
            && (all || matches!(container.phase, Phase::Running(_) | Phase::Restarting(_)))
            && bounds.hold(container)
            && matches(&backend, container, &filters)
    };
    let now = Timestamp::now();
    let mut rows = Vec::new();
    for container in backend.engine.containers().into_iter().filter(fits).take(limit.unwrap_or(usize::MAX)) {
        let size = if query.flag("size") { Some(sizes(&backend, &container).await) } else { None };
        rows.push(summary(&container, size, now));
    }
    Ok(Json(rows.into()))
}

/// `before` and `since`: creation times of other containers.
struct Bounds {
    before: Option<Timestamp>,
    since: Option<Timestamp>,
}

impl Bounds {
    fn of(backend: &Backend, filters: &Filters) -> Result<Self> {
        let created = |key: &str| -> Result<Option<Timestamp>> {
            let other = filters.values(key).next();
            Ok(other.map(|name| backend.engine.container(name)).transpose()?.map(|c| c.record.created))
        };
        Ok(Self { before: created("before")?, since: created("since")? })
    }

    fn hold(&self, container: &Container) -> bool {
        let created = container.record.created;
        self.before.is_none_or(|before| created < before) && self.since.is_none_or(|since| created > since)
    }
}

fn matches(backend: &Backend, container: &Container, filters: &Filters) -> bool {
    let record = &container.record;
    let exit_code = match &container.phase {
        Phase::Exited(exited) => Some(exited.code),
        Phase::Created | Phase::Running(_) | Phase::Restarting(_) | Phase::Removing | Phase::Dead => None,
    };
    filters.labels(&record.config.labels)
        && filters.any("id", |id| record.id.starts_with(id))
        && filters.any("name", |name| name_fits(name, &record.name))
        && filters.any("status", |status| status == container.status())
        && filters.any("exited", |code| exit_code.is_some_and(|exit| code.parse() == Ok(exit)))
        && filters.any("health", |health| health == health_of(container))
        && filters.any("is-task", |task| matches!(task, "false" | "0"))
        && filters.any("ancestor", |image| {
            record.config.image == image
                || backend.engine.find_image(image).is_ok_and(|i| i.id.to_string() == record.image_id)
        })
        && filters.any("volume", |volume| {
            record.mounts.iter().any(|m| m.destination == volume || m.name.as_deref() == Some(volume))
        })
        && filters.any("network", |network| {
            let named = engine::containers::wanted_networks(record).iter().any(|(name, _)| name == network);
            named || container.attachments.iter().any(|a| a.network_id.starts_with(network))
        })
        && filters.any("publish", |port| container.published.iter().any(|p| port_fits(port, p.host_port, p.protocol)))
        && filters.any("expose", |port| {
            let exposed =
                record.config.exposed_ports.keys().any(|key| key == port || key.strip_suffix("/tcp") == Some(port));
            exposed || container.published.iter().any(|p| port_fits(port, p.container_port, p.protocol))
        })
}

fn health_of(container: &Container) -> &'static str {
    match container.health.as_ref().map(|health| health.status) {
        None => "none",
        Some(HealthStatus::Starting) => "starting",
        Some(HealthStatus::Healthy) => "healthy",
        Some(HealthStatus::Unhealthy) => "unhealthy",
    }
}

/// A regular expression on the name, with or without its slash, as Docker has it; what is none is taken as it stands.
pub(super) fn name_fits(wanted: &str, name: &str) -> bool {
    let slashed = format!("/{name}");
    match regex_lite::Regex::new(wanted) {
        Ok(expression) => expression.is_match(name) || expression.is_match(&slashed),
        Err(_) => slashed.contains(wanted),
    }
}

fn port_fits(wanted: &str, port: u16, protocol: &str) -> bool {
    let (number, wanted_protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (from, to) = number.split_once('-').unwrap_or((number, number));
    let within = from.parse().is_ok_and(|from: u16| from <= port) && to.parse().is_ok_and(|to: u16| port <= to);
    within && wanted_protocol == protocol
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_with_and_without_anchors() {
        for (wanted, fits) in [
            ("we", true),
            ("^web$", true),
            ("/web", true),
            ("^/web$", true),
            ("^eb", false),
            ("eb$", true),
            ("x", false),
            ("^w.b$", true),
            ("we[ab]|nothing", true),
            ("[", false),
        ] {
            assert_eq!(name_fits(wanted, "web"), fits, "{wanted}");
        }
    }

    #[test]
    fn ports_match_singly_and_in_ranges() {
        for (wanted, fits) in
            [("80", true), ("80/tcp", true), ("80/udp", false), ("79-81", true), ("81-90", false), ("x", false)]
        {
            assert_eq!(port_fits(wanted, 80, "tcp"), fits, "{wanted}");
        }
    }
}
