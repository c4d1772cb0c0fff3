//! WATCH: the store's ordered changes as a stream of events.
//!
//! Invariant: an event carries the bytes that the write encoded; only a selector, a Table or a partial shape makes a watcher
//! decode. A watcher that falls behind the kept history gets one ERROR event (410) and the stream ends; it never slows a
//! writer down.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use kube_types::status;
use serde_json::json;
use store::{Event, EventKind, WatchError};
use tokio::time::Instant;

use super::present;
use super::select::Selection;
use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::extension::convert;
use crate::metrics::LongRunning;
use crate::negotiate::{self, Shape, Syntax};
use crate::respond::{self, Reply};
use crate::{keys, object, protobuf};

const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watch without `timeoutSeconds` ends after 30 to 60 minutes, so that clients spread over servers again.
const LONGEST_SECONDS: std::ops::Range<u64> = 1800..3600;

pub(crate) async fn serve(call: &Call, target: &Target) -> ApiResult<Reply> {
    let selection = Selection::parse(call, target)?;
    let output = negotiate::output(&call.headers)?;
    let shape = output.shape;
    let resource = &target.resource;
    let framed = output.syntax == Syntax::Protobuf
        && (shape == Shape::Metadata || protobuf::knows(&resource.api_version(), &resource.kind));
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let initial = Initial::parse(call)?;

    let prefix = keys::prefix(&target.resource, &target.namespace);
    let mut pending = VecDeque::new();
    let mut from = match initial.after {
        Some(revision) => revision,
        None => {
            let range = call.server.store.range(prefix.as_bytes(), None, 0, None)?;
            pending.extend(range.items.into_iter().map(|item| (Kind::Added, item.value)));
            range.revision
        }
    };
    pending.retain(|(_, value)| selection.matches(&target.resource, value));
    if initial.announce_end {
        pending.push_back((Kind::InitialEnd, revision_bytes(from)));
    }
    let changes = match call.server.store.watch(Bytes::from(prefix), Some(from)) {
        Ok(changes) => Some(changes),
        Err(compacted) => {
            let text = format!("too old resource version: {from} ({})", compacted.oldest);
            pending.clear();
            pending.push_back((Kind::Error, encode_status(&status::expired(text))));
            from = 0;
            None
        }
    };
    let seconds = match call.query.number("timeoutSeconds") {
        Some(seconds) if seconds > 0 => seconds.unsigned_abs(),
        _ => rand::random_range(LONGEST_SECONDS),
    };
    let watcher = Watcher {
        formatter: Formatter::new(call, target, shape, framed),
        _counted: call.server.metrics.long_running(call),
        selection,
        changes,
        pending,
        seen: from,
        deadline: Instant::now() + Duration::from_secs(seconds),
        bookmark_at: bookmarks.then(|| Instant::now() + BOOKMARK_EVERY),
        closing: call.server.closing(),
        definitions: target.resource.custom().map(|_| call.server.definitions.subscribe()),
    };
    let chunks = stream::unfold(watcher, |mut watcher| async move { Some((watcher.next().await?, watcher)) });
    let content_type =
        if framed { "application/vnd.kubernetes.protobuf;stream=watch" } else { "application/json" };
    Ok(respond::stream(content_type, chunks))
}

/// Where a watch begins.
struct Initial {
    /// Changes after this revision; `None`: the present objects first.
    after: Option<u64>,
    announce_end: bool,
}

impl Initial {
    fn parse(call: &Call) -> ApiResult<Self> {
        let version = call.query.text("resourceVersion");
        let revision = version
            .map(str::parse::<u64>)
            .transpose()
            .map_err(|_| {
                status::bad_request(format!("invalid resource version {:?}: not a number", version.unwrap_or("")))
            })?
            .unwrap_or(0);
        let rule = call.query.text("resourceVersionMatch");
        let forbidden = |text: &str| -> ApiResult<Self> { Err(status::bad_request(text).into()) };
        match (call.query.get("sendInitialEvents"), rule) {
            (None, Some(_)) => forbidden(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ),
            (None, None) => Ok(Self { after: (revision > 0).then_some(revision), announce_end: false }),
            (Some(_), Some("NotOlderThan")) => {
                if call.query.flag("sendInitialEvents") {
                    Ok(Self { after: None, announce_end: call.query.flag("allowWatchBookmarks") })
                } else {
                    let now = call.server.store.revision();
                    Ok(Self { after: Some(if revision > 0 { revision } else { now }), announce_end: false })
                }
            }
            (Some(_), _) => forbidden(
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Added,
    Modified,
    Deleted,
    /// The value is a revision in digits.
    Bookmark,
    /// The bookmark after the initial events.
    InitialEnd,
    /// The value is a `Status`.
    Error,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark | Self::InitialEnd => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

/// Makes the line of one event.
struct Formatter {
    /// A copy of what `present` needs of the request, which is gone once the stream runs.
    call: Call,
    target: Target,
    shape: Shape,
    /// As protobuf, each event in a frame.
    framed: bool,
    api_version: String,
}

impl Formatter {
    fn new(call: &Call, target: &Target, shape: Shape, framed: bool) -> Self {
        Self { call: call.for_stream(), target: target.clone(), shape, framed, api_version: target.resource.api_version() }
    }

    /// The line of an event as the client's version has it; an object that cannot be converted is an ERROR event.
    async fn converted(&self, kind: Kind, value: Bytes) -> Bytes {
        if !matches!(kind, Kind::Added | Kind::Modified | Kind::Deleted) || self.target.resource.custom().is_none() {
            return self.line(kind, &value);
        }
        match convert::to_client(&self.call, &self.target.resource, vec![value.clone()]).await {
            Ok(shown) => self.line(kind, shown.first().unwrap_or(&value)),
            Err(error) => self.line(Kind::Error, &encode_status(&error.0)),
        }
    }

    fn line(&self, kind: Kind, value: &Bytes) -> Bytes {
        let body = match kind {
            Kind::Added | Kind::Modified | Kind::Deleted => {
                let value = object::in_version(value, &self.api_version);
                present::shaped(&self.call, &self.target.resource, self.shape, &value)
            }
            Kind::Bookmark | Kind::InitialEnd => self.bookmark(value, kind == Kind::InitialEnd),
            Kind::Error => value.clone(),
        };
        if self.framed
            && let Some(encoded) = protobuf::encode::object(&object::decode(&body))
        {
            return protobuf::encode::event(kind.as_str(), &encoded).into();
        }
        let mut line = BytesMut::with_capacity(body.len() + 40);
        line.put_slice(b"{\"type\":\"");
        line.put_slice(kind.as_str().as_bytes());
        line.put_slice(b"\",\"object\":");
        line.put_slice(&body);
        line.put_slice(b"}\n");
        line.freeze()
    }

    fn bookmark(&self, revision: &Bytes, ends_initial: bool) -> Bytes {
        let resource = &self.target.resource;
        let mut metadata = json!({"resourceVersion": String::from_utf8_lossy(revision), "creationTimestamp": null});
        if ends_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self.shape {
            Shape::Whole => json!({"kind": resource.kind, "apiVersion": self.api_version, "metadata": metadata}),
            Shape::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Shape::Table => json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                "columnDefinitions": [], "rows": [],
            }),
        }
        .to_string()
        .into()
    }
}

struct Watcher {
    formatter: Formatter,
    selection: Selection,
    /// `None` once the stream has said that it ends.
    changes: Option<store::Watch>,
    pending: VecDeque<(Kind, Bytes)>,
    seen: u64,
    deadline: Instant,
    bookmark_at: Option<Instant>,
    closing: tokio::sync::watch::Receiver<bool>,
    /// Only of custom resources, which can cease to be served.
    definitions: Option<tokio::sync::watch::Receiver<u64>>,
    _counted: LongRunning,
}

/// What woke a watcher.
enum Wake {
    Change(Result<Arc<Event>, WatchError>),
    Bookmark,
    End,
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some((kind, value)) = self.pending.pop_front() {
                return Some(self.formatter.converted(kind, value).await);
            }
            let wake = self.wake().await;
            match wake {
                Wake::Change(Ok(event)) => {
                    self.seen = event.revision;
                    if let Some((kind, value)) = self.judge(&event) {
                        return Some(self.formatter.converted(kind, value).await);
                    }
                }
                Wake::Change(Err(error)) => {
                    self.changes = None;
                    if let WatchError::Lagged(lag) = error {
                        let text = format!("too old resource version: {} ({})", self.seen, lag.oldest);
                        self.pending.push_back((Kind::Error, encode_status(&status::expired(text))));
                    }
                }
                Wake::Bookmark => {
                    self.bookmark_at = Some(Instant::now() + BOOKMARK_EVERY);
                    let progress = match self.changes.as_mut().map(store::Watch::progress) {
                        Some(Ok(progress)) => progress.max(self.seen),
                        // The next wake tells why.
                        Some(Err(_)) | None => self.seen,
                    };
                    return Some(self.formatter.line(Kind::Bookmark, &revision_bytes(progress)));
                }
                Wake::End => return None,
            }
        }
    }

    async fn wake(&mut self) -> Wake {
        let Some(changes) = &mut self.changes else {
            return Wake::End;
        };
        let bookmark_at = self.bookmark_at.unwrap_or(self.deadline);
        tokio::select! {
            biased;
            _ = self.closing.wait_for(|closing| *closing) => Wake::End,
            change = changes.next() => Wake::Change(change),
            () = withdrawn(self.definitions.as_mut(), &self.formatter) => Wake::End,
            () = tokio::time::sleep_until(self.deadline.min(bookmark_at)) => {
                if bookmark_at < self.deadline { Wake::Bookmark } else { Wake::End }
            }
        }
    }

    /// What the change is to this watcher: an object can enter and leave its selection.
    fn judge(&self, event: &Event) -> Option<(Kind, Bytes)> {
        let resource = &self.formatter.target.resource;
        let selected = |value: &Bytes| self.selection.matches(resource, value);
        match &event.kind {
            EventKind::Put { value, prev: None } => selected(&value.value).then(|| (Kind::Added, value.value.clone())),
            EventKind::Put { value, prev: Some(prev) } => {
                if self.selection.is_everything() {
                    return Some((Kind::Modified, value.value.clone()));
                }
                match (selected(&prev.value), selected(&value.value)) {
                    (true, true) => Some((Kind::Modified, value.value.clone())),
                    (false, true) => Some((Kind::Added, value.value.clone())),
                    (true, false) => Some((Kind::Deleted, object::with_revision(&prev.value, event.revision))),
                    (false, false) => None,
                }
            }
            EventKind::Delete { prev } => {
                selected(&prev.value).then(|| (Kind::Deleted, object::with_revision(&prev.value, event.revision)))
            }
        }
    }
}

/// Ends when the watched kind is no longer served.
async fn withdrawn(definitions: Option<&mut tokio::sync::watch::Receiver<u64>>, formatter: &Formatter) {
    let Some(definitions) = definitions else { return std::future::pending().await };
    while definitions.changed().await.is_ok() {
        if formatter.call.server.served.kind_of(&formatter.target.resource).is_none() {
            return;
        }
    }
}

fn revision_bytes(revision: u64) -> Bytes {
    Bytes::from(revision.to_string())
}

fn encode_status(status: &status::Status) -> Bytes {
    serde_json::to_vec(status).map(Bytes::from).unwrap_or_default()
}
