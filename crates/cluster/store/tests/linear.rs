//! Linearizability under kill -9: writers and readers at once on a few keys, in a process that is killed; what they were told, in
//! which order, is checked against what a single place that does one thing at a time could have said.
//!
//! The child prints each operation when it begins and when it ends; lines from one pipe are totally ordered, so an operation whose
//! end was printed before another's beginning came before it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};

use bytes::Bytes;
use store::{Compare, Op, Store, Txn, TxnOutcome};

const CHILD: &str = "STORE_LINEAR_TEST_DIR";
const KEYS: usize = 3;
const CLIENTS: usize = 8;

fn say(line: &str) {
    // One write a line: lines of different tasks never mix.
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n@{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Not a test by itself: the process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn child_that_reads_and_swaps_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let store = Store::open(dir).unwrap();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let store = store.clone();
        clients.spawn(async move {
            for step in 0u64.. {
                let key = format!("k{}", (client as u64 + step) as usize % KEYS);
                say(&format!("begin {client} read {key}"));
                let found = store.get(key.as_bytes());
                let (revision, value) = found.map_or((0, String::new()), |kv| {
                    (kv.mod_revision, String::from_utf8_lossy(&kv.value).into_owned())
                });
                say(&format!("end {client} read {key} {revision} {value}"));
                let value = format!("{client}-{step}-{}", std::process::id());
                say(&format!("begin {client} swap {key} {revision} {value}"));
                let key = Bytes::from(key);
                let op = Op::Put { key: key.clone(), value: Bytes::from(value) };
                let guard = Compare { key: key.clone(), mod_revision: revision };
                match store.txn(Txn { compare: vec![guard], ops: vec![op] }).await.unwrap() {
                    TxnOutcome::Committed { revision, .. } => say(&format!("end {client} swap ok {revision}")),
                    TxnOutcome::Conflict { .. } => say(&format!("end {client} swap lost")),
                }
            }
        });
    }
    clients.join_all().await;
}

/// A swap, as its client saw it.
#[derive(Clone, Debug)]
struct Swap {
    key: String,
    expected: u64,
    value: String,
    began: usize,
    /// Line and revision of its success.
    done: Option<(usize, u64)>,
}

#[derive(Default)]
struct History {
    swaps: Vec<Swap>,
    /// Line of the beginning and of the end, key, revision, value.
    reads: Vec<(usize, usize, String, u64, String)>,
}

impl History {
    fn take(&mut self, at: usize, line: &str, open: &mut BTreeMap<String, (usize, Option<usize>)>) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["begin", client, "read", _] => {
                open.insert((*client).to_owned(), (at, None));
            }
            ["end", client, "read", key, revision, value] => {
                let (began, _) = open.remove(*client).unwrap();
                self.reads.push((began, at, (*key).to_owned(), revision.parse().unwrap(), (*value).to_owned()));
            }
            ["begin", client, "swap", key, expected, value] => {
                open.insert((*client).to_owned(), (at, Some(self.swaps.len())));
                let (key, value) = ((*key).to_owned(), (*value).to_owned());
                self.swaps.push(Swap { key, expected: expected.parse().unwrap(), value, began: at, done: None });
            }
            ["end", client, "swap", outcome @ ..] => {
                let index = open.remove(*client).unwrap().1.unwrap();
                match outcome {
                    ["ok", revision] => self.swaps[index].done = Some((at, revision.parse().unwrap())),
                    // A swap that lost did nothing.
                    _ => self.swaps[index].value.clear(),
                }
            }
            _ => {}
        }
    }

    /// Checks one life of the store, given what each key held before it.
    fn check(&self, before: &BTreeMap<String, (u64, String)>) {
        let mut acknowledged: Vec<&Swap> = self.swaps.iter().filter(|swap| swap.done.is_some()).collect();
        acknowledged.sort_by_key(|swap| swap.done.unwrap().1);
        for pair in acknowledged.windows(2) {
            assert!(pair[0].done.unwrap().1 < pair[1].done.unwrap().1, "two writes at one revision: {pair:?}");
        }
        // Real time: what was over before another began has the lower revision.
        let mut newest_before: Vec<(usize, u64)> = acknowledged.iter().map(|swap| swap.done.unwrap()).collect();
        newest_before.sort_unstable();
        let floor = |line: usize| newest_before.iter().take_while(|(end, _)| *end < line).map(|(_, r)| *r).max().unwrap_or(0);
        for swap in &acknowledged {
            assert!(swap.done.unwrap().1 > floor(swap.began), "{swap:?} is older than what was over before it began");
        }
        // Each swap replaced exactly what it had read: per key a chain without forks. A swap that was never answered may be a link.
        for key in (0..KEYS).map(|n| format!("k{n}")) {
            let mut last = before.get(&key).map_or(0, |(revision, _)| *revision);
            for swap in acknowledged.iter().filter(|swap| swap.key == key) {
                assert_eq!(swap.expected, last, "{swap:?} did not replace the newest value");
                last = swap.done.unwrap().1;
            }
        }
        for (began, ended, key, revision, value) in &self.reads {
            let of_key = |swap: &&&Swap| swap.key == *key;
            let seen = acknowledged.iter().filter(of_key).find(|swap| swap.done.unwrap().1 == *revision);
            match seen {
                Some(swap) => {
                    assert_eq!(swap.value, *value);
                    assert!(swap.began < *ended, "read {value} before its write began");
                }
                None => {
                    let (old, old_value) = before.get(key).cloned().unwrap_or_default();
                    let unanswered = self.swaps.iter().any(|swap| swap.done.is_none() && swap.value == *value);
                    assert!((*revision, value) == (old, &old_value) || unanswered, "read {value:?} out of nowhere");
                }
            }
            let own_floor = acknowledged
                .iter()
                .filter(of_key)
                .filter(|swap| swap.done.unwrap().0 < *began)
                .map(|swap| swap.done.unwrap().1)
                .max()
                .unwrap_or(0);
            assert!(*revision >= own_floor, "a read of {key} at {revision} missed the acknowledged write {own_floor}");
        }
    }
}

#[test]
fn concurrent_readers_and_writers_are_linearizable_through_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut before: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut operations = 0;
    for round in 1..=4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_reads_and_swaps_until_it_is_killed", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let (mut history, mut open) = (History::default(), BTreeMap::new());
        let mut killed = false;
        for (at, line) in lines.enumerate() {
            // The last line may be cut short by the kill; it then has no end and counts as never said.
            if let Some(line) = line.strip_prefix('@') {
                history.take(at, line, &mut open);
            }
            if !killed && at > 1500 * round {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        history.check(&before);
        operations += history.swaps.len() + history.reads.len();

        let store = Store::open(dir.path()).unwrap();
        for key in (0..KEYS).map(|n| format!("k{n}")) {
            let acknowledged = history.swaps.iter().filter(|swap| swap.key == key).filter_map(|swap| swap.done);
            let newest = acknowledged.map(|(_, revision)| revision).max().unwrap_or(0);
            let Some(found) = store.get(key.as_bytes()) else {
                assert_eq!(newest, 0, "{key} lost an acknowledged write");
                continue;
            };
            let value = String::from_utf8_lossy(&found.value).into_owned();
            assert!(found.mod_revision >= newest, "{key} lost the acknowledged write {newest}");
            if found.mod_revision > newest && before.get(&key).is_none_or(|(old, _)| *old != found.mod_revision) {
                let unanswered = history.swaps.iter().find(|swap| swap.value == value && swap.done.is_none());
                let swap = unanswered.expect("only a write that was never answered may be there beyond those that were");
                assert_eq!(swap.key, key);
            }
            before.insert(key, (found.mod_revision, value));
        }
    }
    assert!(operations > 1000, "{operations} operations say little");
}
