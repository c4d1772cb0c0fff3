//! Pods that wait for a node: those whose turn it is, and those that found no place.
//!
//! Invariants: a parked pod comes up again only after a change of a kind that it waits for (`wake`), and not before its
//! pause is over; the pause doubles from 1 to 10 seconds, as Kubernetes' does; a change that nobody waits for costs
//! nothing.

use kube_client::informer::ObjectKey;
use scheduling::causes::Causes;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct Waiting {
    turns: HashMap<ObjectKey, Turn>,
    due: BTreeSet<(Instant, ObjectKey)>,
    parked: HashMap<ObjectKey, Causes>,
}

struct Turn {
    attempts: u32,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    /// To be tried at this time.
    Due(Instant),
    /// To be tried when something changes, but not before this time.
    Parked { not_before: Instant },
    /// Handed out by `take_due`.
    Tried,
}

impl Waiting {
    fn set(&mut self, key: ObjectKey, state: State, failed: bool) {
        let turn = self.turns.entry(key.clone()).or_insert(Turn { attempts: 0, state: State::Tried });
        if let State::Due(at) = turn.state {
            self.due.remove(&(at, key.clone()));
        }
        self.parked.remove(&key);
        turn.attempts = turn.attempts.saturating_add(u32::from(failed));
        turn.state = state;
        if let State::Due(at) = state {
            self.due.insert((at, key));
        }
    }

    fn attempts(&self, key: &ObjectKey) -> u32 {
        self.turns.get(key).map_or(0, |turn| turn.attempts)
    }

    /// A new pod, or one that changed: tried at once.
    pub(crate) fn add(&mut self, key: ObjectKey, now: Instant) {
        self.set(key, State::Due(now), false);
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        self.parked.remove(key);
        if let Some(Turn { state: State::Due(at), .. }) = self.turns.remove(key) {
            self.due.remove(&(at, key.clone()));
        }
    }

    /// The pod found no place, and waits for this.
    pub(crate) fn park(&mut self, key: ObjectKey, causes: Causes, now: Instant) {
        let not_before = now + pause(self.attempts(&key));
        self.set(key.clone(), State::Parked { not_before }, true);
        self.parked.insert(key, causes);
    }

    /// The pod had a place and could not take it.
    pub(crate) fn retry(&mut self, key: ObjectKey, now: Instant) {
        let at = now + pause(self.attempts(&key));
        self.set(key, State::Due(at), true);
    }

    /// Something changed that may help those who wait for it.
    pub(crate) fn wake(&mut self, causes: Causes, now: Instant) {
        let keys: Vec<ObjectKey> =
            self.parked.iter().filter(|(_, waits)| waits.meets(causes)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            if let Some(Turn { state: State::Parked { not_before }, .. }) = self.turns.get(&key) {
                let at = (*not_before).max(now);
                self.set(key, State::Due(at), false);
            }
        }
    }

    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<ObjectKey> {
        let mut taken = Vec::new();
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, key)) = self.due.pop_first() else { break };
            if let Some(turn) = self.turns.get_mut(&key) {
                turn.state = State::Tried;
            }
            taken.push(key);
        }
        taken
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
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
            waiting.park(key.clone(), Causes::ROOM, now);
            assert_eq!(waiting.next_due(), None, "nothing changed: no timer");
            waiting.wake(Causes::VOLUMES, now);
            assert_eq!(waiting.next_due(), None, "a change that does not matter");
            waiting.wake(Causes::ANY, now);
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
        waiting.park(key.clone(), Causes::ROOM, now);
        waiting.add(key.clone(), now);
        assert_eq!(waiting.take_due(now), [key]);
    }
}
