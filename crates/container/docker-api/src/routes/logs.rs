//! `GET /containers/{id}/logs`.

use axum::{
    extract::{Path, State},
    response::Response,
};
use engine::LogOptions;
use futures_util::StreamExt;
use jiff::Timestamp;

use super::Query;
use crate::{
    Backend,
    error::{ApiError, Result},
    stream,
    wire::time,
};

pub(super) async fn logs(State(backend): State<Backend>, Path(id): Path<String>, query: Query) -> Result<Response> {
    let container = backend.engine.container(&id)?;
    let options = options(&query)?;
    let (tty, timestamps) = (container.record.config.tty, query.flag("timestamps"));
    // Labels and variables that the log keeps would stand here; none are kept.
    let details = if query.flag("details") { " " } else { "" };
    let entries = backend.engine.container_logs(&id, options).await?;
    let frames = entries.map(move |entry| {
        let text = match (timestamps, details) {
            (true, _) => format!("{} {details}{}", full(entry.time), entry.data),
            (false, "") => entry.data,
            (false, _) => format!("{details}{}", entry.data),
        };
        Ok(if tty { text.into() } else { stream::multiplex(entry.channel, text.as_bytes()) })
    });
    Ok(stream::body(stream::content_type(tty), frames))
}

fn options(query: &Query) -> Result<LogOptions> {
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::bad_request("Bad parameters: you must choose at least one stream"));
    }
    let now = Timestamp::now();
    let moment = |key: &str| query.get(key).filter(|text| *text != "0").map(|text| time::parse(text, now)).transpose();
    let tail = match query.text("tail") {
        "" | "all" => None,
        // As Docker: what is no number means all.
        text => text.parse::<i64>().ok().and_then(|n| usize::try_from(n).ok()),
    };
    Ok(LogOptions {
        stdout,
        stderr,
        follow: query.flag("follow"),
        since: moment("since")?,
        until: moment("until")?,
        tail,
    })
}

/// Always nine digits, as `docker logs -t` prints them.
fn full(time: Timestamp) -> String {
    format!("{time:.9}")
}
