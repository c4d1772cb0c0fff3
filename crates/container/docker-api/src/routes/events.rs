//! `GET /events`.

use axum::{extract::State, response::Response};
use engine::{Event, Subject};
use futures_util::StreamExt;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use super::Query;
use crate::{Backend, error::Result, filters::Filters, stream, wire::time};

const FILTERS: &[&str] = &[
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "scope",
    "type",
    "volume",
    "plugin",
    "service",
    "node",
    "secret",
    "config",
];

pub(super) async fn events(State(backend): State<Backend>, query: Query) -> Result<Response> {
    let filters = Filters::parse(query.get("filters"), FILTERS)?;
    let now = Timestamp::now();
    let moment = |key: &str| query.get(key).map(|text| time::parse(text, now)).transpose();
    let (since, until) = (moment("since")?, moment("until")?);
    let subscription = backend.engine.subscribe(since.or(until.map(|_| Timestamp::UNIX_EPOCH)));
    let wanted = move |event: &Event| fits(event, &filters) && until.is_none_or(|until| event.time <= until);
    let past: Vec<_> = subscription.history.into_iter().filter(&wanted).map(|event| Ok(line(&event))).collect();
    let left = until.map(|until| std::time::Duration::try_from(until.duration_since(now)).unwrap_or_default());
    let live = futures_util::stream::unfold(subscription.live, |mut live| async move {
        loop {
            match live.recv().await {
                Ok(event) => return Some((event, live)),
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "a reader of events is too slow"),
                Err(RecvError::Closed) => return None,
            }
        }
    });
    let live = live.filter(move |event| std::future::ready(wanted(event))).map(|event| Ok(line(&event)));
    let all = futures_util::stream::iter(past).chain(live);
    let over = async move {
        match left {
            Some(left) => tokio::time::sleep(left).await,
            None => std::future::pending().await,
        }
    };
    Ok(stream::body("application/json", all.take_until(Box::pin(over))))
}

fn line(event: &Event) -> bytes::Bytes {
    let mut shown = json!({
        "Type": event.subject.as_str(),
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time.as_second(),
        "timeNano": i64::try_from(event.time.as_nanosecond()).unwrap_or(i64::MAX),
    });
    // The fields of old clients.
    if matches!(event.subject, Subject::Container | Subject::Image) {
        shown["status"] = event.action.clone().into();
        shown["id"] = event.id.clone().into();
        if event.subject == Subject::Container {
            shown["from"] = event.attributes.get("image").cloned().unwrap_or_default().into();
        }
    }
    bytes::Bytes::from(shown.to_string() + "\n")
}

fn fits(event: &Event, filters: &Filters) -> bool {
    let named = |subject: Subject| {
        move |value: &str| {
            event.subject == subject
                && (event.id.starts_with(value) || event.attributes.get("name").is_some_and(|name| name == value))
        }
    };
    let action = event.action.split(':').next().unwrap_or_default();
    event.subject != Subject::Sandbox
        && filters.any("type", |kind| kind == event.subject.as_str())
        && filters.any("event", |wanted| wanted == action || wanted == event.action)
        && filters.any("scope", |scope| scope == "local")
        && filters.any("container", named(Subject::Container))
        && filters.any("image", |image| {
            named(Subject::Image)(image) || event.attributes.get("image").is_some_and(|i| i == image)
        })
        && filters.any("network", named(Subject::Network))
        && filters.any("volume", named(Subject::Volume))
        && filters.labels(&event.attributes)
}
