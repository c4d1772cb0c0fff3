//! Answers of upstreams, kept for as long as they say and at most [`MAX_AGE`].
//!
//! Bounded by count; when full, what ends first goes first. Time is a parameter.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use std::collections::HashMap;
use std::time::{Duration, Instant};

const MAX_ENTRIES: usize = 2_000;
const MAX_AGE: Duration = Duration::from_secs(30);
const NEGATIVE_AGE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) name: Name,
    pub(crate) kind: RecordType,
    pub(crate) class: DNSClass,
    /// Containers may have upstreams of their own.
    pub(crate) upstreams: Vec<std::net::SocketAddr>,
}

#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: HashMap<Key, (Message, Instant)>,
}

impl Cache {
    pub(crate) fn get(&self, key: &Key, now: Instant) -> Option<Message> {
        self.entries.get(key).filter(|(_, until)| *until > now).map(|(message, _)| message.clone())
    }

    pub(crate) fn put(&mut self, key: Key, message: &Message, now: Instant) {
        let age = match message.metadata.response_code {
            ResponseCode::NXDomain => NEGATIVE_AGE,
            ResponseCode::NoError => match message.answers.iter().map(|r| r.ttl).min() {
                Some(ttl) => Duration::from_secs(u64::from(ttl)).min(MAX_AGE),
                None => NEGATIVE_AGE,
            },
            // Failures are asked again.
            _ => return,
        };
        if message.metadata.truncation || age.is_zero() {
            return;
        }
        if self.entries.len() >= MAX_ENTRIES {
            self.make_room(now);
        }
        self.entries.insert(key, (message.clone(), now + age));
    }

    fn make_room(&mut self, now: Instant) {
        self.entries.retain(|_, (_, until)| *until > now);
        if self.entries.len() < MAX_ENTRIES {
            return;
        }
        let mut ends: Vec<Instant> = self.entries.values().map(|(_, until)| *until).collect();
        let middle = ends.len() / 2;
        let (_, median, _) = ends.select_nth_unstable(middle);
        let median = *median;
        self.entries.retain(|_, (_, until)| *until > median);
    }
}
