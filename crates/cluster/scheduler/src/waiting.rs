//! Pods that wait for a node: those whose turn it is, and those that found no place.
//!
//! Invariant: a parked pod comes up again only after something changed (`wake_all`), and not before its pause is over;
//! the pause doubles from 1 to 10 seconds, as Kubernetes' does.

use kube_client::informer::ObjectKey;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct Waiting(HashMap<ObjectKey, Turn>);

struct Turn {
    attempts: u32,
    state: State,
}

enum State {
    /// To be tried at this time.
    Due(Instant),
    /// To be tried when something changes, but not before this time.
    Parked { not_before: Instant },
    /// Handed out by `take_due`.
    Tried,
}

impl Waiting {
    /// A new pod, or one that changed: tried at once.
    pub(crate) fn add(&mut self, key: ObjectKey, now: Instant) {
        let turn = self.0.entry(key).or_insert(Turn { attempts: 0, state: State::Tried });
        turn.state = State::Due(now);
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        self.0.remove(key);
    }

    /// The pod found no place.
    pub(crate) fn park(&mut self, key: ObjectKey, now: Instant) {
        let turn = self.0.entry(key).or_insert(Turn { attempts: 0, state: State::Tried });
        let not_before = now + pause(turn.attempts);
        turn.attempts = turn.attempts.saturating_add(1);
        turn.state = State::Parked { not_before };
    }

    /// The pod had a place and could not take it.
    pub(crate) fn retry(&mut self, key: ObjectKey, now: Instant) {
        let turn = self.0.entry(key).or_insert(Turn { attempts: 0, state: State::Tried });
        turn.state = State::Due(now + pause(turn.attempts));
        turn.attempts = turn.attempts.saturating_add(1);
    }

    /// Something changed that may help those who found no place.
    pub(crate) fn wake_all(&mut self, now: Instant) {
        for turn in self.0.values_mut() {
            if let State::Parked { not_before } = turn.state {
                turn.state = State::Due(not_before.max(now));
            }
        }
    }

    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<ObjectKey> {
        let mut due = Vec::new();
        for (key, turn) in &mut self.0 {
            if matches!(turn.state, State::Due(at) if at <= now) {
                turn.state = State::Tried;
                due.push(key.clone());
            }
        }
        due
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        let due = self.0.values().filter_map(|turn| match turn.state {
            State::Due(at) => Some(at),
            State::Parked { .. } | State::Tried => None,
        });
        due.min()
    }
}

fn pause(attempts: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << attempts.min(10)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parked_pod_waits_for_a_change_and_for_its_pause() {
        let (key, start) = (ObjectKey::new("n", "p"), Instant::now());
        let mut waiting = Waiting::default();
        waiting.add(key.clone(), start);
        let mut now = start;
        for expected in [1, 2, 4, 8, 10, 10] {
            assert_eq!(waiting.take_due(now), std::slice::from_ref(&key));
            waiting.park(key.clone(), now);
            assert_eq!(waiting.next_due(), None, "nothing changed: no timer");
            waiting.wake_all(now);
            let due = waiting.next_due().unwrap();
            assert_eq!((due - now).as_secs(), expected);
            assert!(waiting.take_due(now).is_empty(), "not before its pause is over");
            now = due;
        }
        waiting.remove(&key);
        assert!(waiting.take_due(now + LONGEST_PAUSE).is_empty());
    }

    #[test]
    fn a_pod_that_changed_is_tried_at_once() {
        let (key, now) = (ObjectKey::new("n", "p"), Instant::now());
        let mut waiting = Waiting::default();
        waiting.park(key.clone(), now);
        waiting.add(key.clone(), now);
        assert_eq!(waiting.take_due(now), [key]);
    }
}
