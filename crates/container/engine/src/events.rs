//! Events: what happened, told to whoever listens, with a bounded history for `since`/`until`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio::sync::broadcast;

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
