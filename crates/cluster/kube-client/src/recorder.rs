//! Writes core/v1 Events: what a user sees in `kubectl describe` and `kubectl get events`.
//!
//! Used by the controllers, the scheduler and the node agent. Invariants: recording never blocks and never fails the
//! caller; memory is bounded; an event that repeats becomes one object with a count.
//! What overflows the queue is dropped and counted in the log: events are a help, not a record.

use crate::api::PatchKind;
use crate::{Api, Client};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

const QUEUE: usize = 512;
/// Distinct events that are remembered, to count repetitions.
const REMEMBERED: usize = 1024;
/// Kubernetes cuts messages at this length.
const MESSAGE_BYTES: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    Normal,
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        }
    }
}

struct Note {
    about: ObjectReference,
    severity: Severity,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Clones share one queue; the task behind it ends with the last of them.
#[derive(Clone)]
pub struct EventRecorder {
    notes: mpsc::Sender<Note>,
    dropped: Arc<AtomicU64>,
}

impl EventRecorder {
    /// `component` and `host` are shown as the event's source. Must be called inside a tokio runtime.
    pub fn new(client: &Client, component: &str, host: &str) -> Self {
        let (notes, queue) = mpsc::channel(QUEUE);
        let writer = Writer {
            client: client.clone(),
            component: component.to_owned(),
            host: host.to_owned(),
            seen: HashMap::new(),
            order: VecDeque::new(),
            sequence: 0,
        };
        tokio::spawn(writer.run(queue));
        EventRecorder { notes, dropped: Arc::default() }
    }

    pub fn event(&self, about: &ObjectReference, severity: Severity, reason: &str, message: impl Into<String>) {
        let mut message = message.into();
        if message.len() > MESSAGE_BYTES {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES));
        }
        let note = Note { about: about.clone(), severity, reason: reason.to_owned(), message, at: Timestamp::now() };
        if self.notes.try_send(note).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::debug!(dropped, "an event was dropped");
        }
    }
}

/// What makes two events the same.
type Same = (String, String, String, Severity);

struct Written {
    name: String,
    count: i32,
}

struct Writer {
    client: Client,
    component: String,
    host: String,
    seen: HashMap<Same, Written>,
    order: VecDeque<Same>,
    sequence: u64,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Note>) {
        while let Some(note) = queue.recv().await {
            self.write(note).await;
        }
    }

    async fn write(&mut self, note: Note) {
        let about = &note.about;
        let who = about.uid.clone().or_else(|| about.name.clone()).unwrap_or_default();
        let same = (who, note.reason.clone(), note.message.clone(), note.severity);
        // Objects without a namespace have their events in `default`.
        let namespace = about.namespace.clone().filter(|ns| !ns.is_empty()).unwrap_or_else(|| "default".into());
        let events = self.client.api::<Event>().namespace(namespace.clone());
        if let Some(written) = self.seen.get_mut(&same)
            && repeat(&events, written, note.at).await
        {
            return;
        }
        self.sequence += 1;
        let unique = note.at.as_nanosecond() as u64 ^ self.sequence;
        let name = format!("{}.{unique:016x}", about.name.as_deref().unwrap_or("cluster"));
        let event = self.make(note, name.clone(), namespace);
        match events.create(&event).await {
            Ok(_) => self.remember(same, Written { name, count: 1 }),
            // A namespace that goes away takes no events; anything else is not worth more than a line either.
            Err(error) => {
                tracing::debug!(%error, reason = %same.1, "an event could not be written")
            }
        }
    }

    fn make(&self, note: Note, name: String, namespace: String) -> Event {
        Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
            involved_object: note.about,
            reason: Some(note.reason),
            message: Some(note.message),
            type_: Some(note.severity.as_str().to_owned()),
            count: Some(1),
            first_timestamp: Some(Time(note.at)),
            last_timestamp: Some(Time(note.at)),
            source: Some(EventSource { component: Some(self.component.clone()), host: Some(self.host.clone()) }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.host.clone()),
            ..Event::default()
        }
    }

    fn remember(&mut self, same: Same, written: Written) {
        if self.seen.insert(same.clone(), written).is_none() {
            self.order.push_back(same);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.seen.remove(&oldest);
            }
        }
    }
}

/// Counts one more on the event that is there. False: it is not there any more.
async fn repeat(events: &Api<Event>, written: &mut Written, at: Timestamp) -> bool {
    let patch = json!({"count": written.count + 1, "lastTimestamp": Time(at)});
    let patched = events.patch(&written.name, PatchKind::Merge, &patch).await;
    if patched.is_ok() {
        written.count += 1;
    }
    patched.is_ok()
}

/// A reference to `object`, as events and targetRefs want it.
pub fn reference<K: crate::Object>(object: &K) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}
