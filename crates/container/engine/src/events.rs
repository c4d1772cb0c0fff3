//! Events: what happened, told to whoever listens, with a bounded history for `since`/`until`.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::{Engine, record::Record};

/// As many as Docker keeps.
const HISTORY: usize = 256;
/// A reader that is further behind than this loses events and is told so.
const BACKLOG: usize = 4096;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// A pod's sandbox (not shown by Docker's API).
    Sandbox,
}

impl Subject {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Subject::Container => "container",
            Subject::Image => "image",
            Subject::Network => "network",
            Subject::Volume => "volume",
            Subject::Sandbox => "sandbox",
        }
    }
}

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// About what.
    pub subject: Subject,
    /// Docker's word: `create`, `start`, `die`, `exec_create: sh`, …
    pub action: String,
    /// ID (containers, images, networks) or name (volumes).
    pub id: String,
    /// Name, image, labels, exitCode, …
    pub attributes: BTreeMap<String, String>,
    /// When.
    pub time: Timestamp,
}

/// A subscription: history that fits, then everything new.
#[derive(Debug)]
pub struct Subscription {
    /// Events before the subscription, oldest first.
    pub history: Vec<Event>,
    /// Events after it. A `Lagged` error means that the reader was too slow and events were dropped.
    pub live: broadcast::Receiver<Event>,
}

/// Where events go.
#[derive(Debug)]
pub(crate) struct Events {
    sender: broadcast::Sender<Event>,
    history: Mutex<VecDeque<Event>>,
}

impl Default for Events {
    fn default() -> Self {
        Self { sender: broadcast::channel(BACKLOG).0, history: Mutex::default() }
    }
}

impl Events {
    fn publish(&self, event: Event) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.len() == HISTORY {
            history.pop_front();
        }
        history.push_back(event.clone());
        // Under the lock, so that a subscriber sees each event once: in its history or live.
        let _ = self.sender.send(event);
    }

    fn subscribe(&self, since: Option<Timestamp>) -> Subscription {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.sender.subscribe();
        let past = |since| history.iter().filter(|event| event.time >= since).cloned().collect();
        Subscription { history: since.map(past).unwrap_or_default(), live }
    }
}

impl Engine {
    /// Subscribes to events; with `since`, also to what is still remembered from then on.
    pub fn subscribe(&self, since: Option<Timestamp>) -> Subscription {
        self.0.events.subscribe(since)
    }

    /// Tells an event of an image, network or volume (the parts that change them do not know of events).
    pub fn publish(&self, subject: Subject, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        let event = Event { subject, action: action.to_owned(), id: id.to_owned(), attributes, time: Timestamp::now() };
        self.0.events.publish(event);
    }

    /// What mounts and unmounts of volumes say.
    pub(crate) fn volume_events(&self, record: &Record, action: &str) {
        for point in record.mounts.iter().filter(|point| point.kind == crate::record::MountKind::Volume) {
            let mut attributes: BTreeMap<String, String> =
                [("container".to_owned(), record.id.clone()), ("driver".to_owned(), "local".to_owned())].into();
            if action == "mount" {
                attributes.insert("destination".to_owned(), point.destination.clone());
                attributes.insert("propagation".to_owned(), point.propagation.clone());
                attributes.insert("read/write".to_owned(), point.read_write.to_string());
            }
            self.publish(Subject::Volume, action, point.name.as_deref().unwrap_or_default(), attributes);
        }
    }

    /// A container joined or left a network.
    pub(crate) fn membership_event(&self, record: &Record, action: &str, network: &networking::Network) {
        let attributes = [
            ("container".to_owned(), record.id.clone()),
            ("name".to_owned(), network.name.clone()),
            ("type".to_owned(), network.driver.as_str().to_owned()),
        ];
        self.publish(Subject::Network, action, network.id.as_str(), attributes.into());
    }

    /// Tells what a client did with a container, where only the API knows of it.
    pub fn container_note(&self, name: &str, action: &str, extra: &[(&str, String)]) {
        if let Ok(slot) = self.find(name) {
            self.container_event(&slot.record(), action, extra);
        }
    }

    pub(crate) fn container_event(&self, record: &Record, action: &str, extra: &[(&str, String)]) {
        let mut attributes = record.config.labels.clone();
        attributes.insert("name".to_owned(), record.name.clone());
        attributes.insert("image".to_owned(), record.config.image.clone());
        attributes.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        self.publish(Subject::Container, action, &record.id, attributes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: usize) -> Event {
        let time = Timestamp::from_second(i64::try_from(n).unwrap()).unwrap();
        Event {
            subject: Subject::Container,
            action: "start".into(),
            id: n.to_string(),
            attributes: BTreeMap::new(),
            time,
        }
    }

    #[test]
    fn a_subscriber_sees_history_since_a_moment_and_then_each_new_event_once() {
        let events = Events::default();
        (0..HISTORY + 10).for_each(|n| events.publish(event(n)));
        let mut subscription = events.subscribe(Some(Timestamp::from_second(260).unwrap()));
        let ids: Vec<_> = subscription.history.iter().map(|e| e.id.as_str()).collect();
        assert_eq!(ids, ["260", "261", "262", "263", "264", "265"]);
        events.publish(event(300));
        assert_eq!(subscription.live.try_recv().unwrap().id, "300");
        assert!(subscription.live.try_recv().is_err());
        assert!(events.subscribe(None).history.is_empty());
    }
}
