//! Crashes: every way the end of the log can be torn, damage in its middle, and a writer that is killed.

use bytes::Bytes;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use store::{Op, Store, StoreError, Txn, TxnOutcome};

async fn write(store: &Store, key: &str, value: &str) -> u64 {
    let op = Op::Put { key: Bytes::copy_from_slice(key.as_bytes()), value: Bytes::copy_from_slice(value.as_bytes()) };
    match store.txn(Txn { compare: vec![], ops: vec![op] }).await.unwrap() {
        TxnOutcome::Committed { revision, .. } => revision,
        TxnOutcome::Conflict { .. } => unreachable!("no guard was set"),
    }
}

/// A store with three commits; its log's bytes, and where the last commit begins.
async fn three_commits() -> (tempfile::TempDir, PathBuf, Vec<u8>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    write(&store, "a", "first").await;
    write(&store, "b", "second").await;
    let log = only_log(dir.path());
    let before_last = std::fs::metadata(&log).unwrap().len() as usize;
    write(&store, "a", "third").await;
    drop(store);
    let bytes = std::fs::read(&log).unwrap();
    (dir, log, bytes, before_last)
}

fn only_log(dir: &Path) -> PathBuf {
    let mut logs = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    logs.find(|p| p.file_name().unwrap().to_string_lossy().starts_with("log-")).unwrap()
}

#[tokio::test]
async fn a_last_record_cut_at_any_byte_is_dropped_and_the_store_goes_on() {
    let (dir, log, bytes, start) = three_commits().await;
    for cut in start..bytes.len() {
        std::fs::write(&log, &bytes[..cut]).unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!((store.revision(), store.get(b"a").unwrap().value), (2, Bytes::from("first")), "cut at {cut}");
        assert_eq!(write(&store, "c", "after").await, 3);
        drop(store);
        assert_eq!(Store::open(dir.path()).unwrap().get(b"c").unwrap().value, "after", "cut at {cut}");
    }
}

#[tokio::test]
async fn a_last_record_with_any_byte_wrong_is_dropped() {
    let (dir, log, bytes, start) = three_commits().await;
    for at in start..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0xff;
        std::fs::write(&log, &damaged).unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!((store.revision(), store.get(b"a").unwrap().value), (2, Bytes::from("first")), "byte {at}");
    }
}

#[tokio::test]
async fn damage_to_an_acknowledged_record_stops_the_opening_instead_of_losing_it() {
    let (dir, log, bytes, start) = three_commits().await;
    for at in 0..start {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0xff;
        std::fs::write(&log, &damaged).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::Corrupt { .. })), "byte {at}");
    }
}

#[tokio::test]
async fn a_missing_log_file_in_the_middle_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let options = store::Options { segment_bytes: 200, ..store::Options::default() };
    let store = Store::open_with(dir.path(), options).unwrap();
    for n in 0..20 {
        write(&store, &format!("k{n}"), "value").await;
    }
    drop(store);
    let mut logs: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
    logs.retain(|p| p.file_name().unwrap().to_string_lossy().starts_with("log-"));
    logs.sort();
    assert!(logs.len() > 3);
    std::fs::remove_file(&logs[1]).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Corrupt { .. })));
}

#[tokio::test]
async fn leftovers_of_an_interrupted_compaction_are_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    write(&store, "a", "1").await;
    drop(store);
    let temporary = dir.path().join("snapshot-00000000000000000001.tmp");
    std::fs::write(&temporary, b"half").unwrap();
    assert_eq!(Store::open(dir.path()).unwrap().get(b"a").unwrap().value, "1");
    assert!(!temporary.exists());
}

const CHILD: &str = "STORE_CRASH_TEST_DIR";

/// Not a test by itself: the process that `a_killed_writer…` kills. It prints a number only after it was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    let options = store::Options { segment_bytes: 20_000, retain_revisions: 40, recent_events: 64, ..store::Options::default() };
    let store = Store::open_with(dir, options).unwrap();
    let begin = store.count(b"n/", None);
    for n in begin.. {
        let (other, pad) = (store.clone(), "x".repeat(n % 900));
        let side = tokio::spawn(async move { write(&other, "side", &pad).await });
        write(&store, &format!("n/{n:08}"), &n.to_string()).await;
        println!("\nacknowledged {n}");
        side.await.unwrap();
    }
}

#[test]
fn a_killed_writer_loses_nothing_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_writes_until_it_is_killed", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let numbers = lines.filter_map(|l| l.strip_prefix("acknowledged ").and_then(|n| n.parse::<u64>().ok()));
        let mut last = None;
        for (count, number) in numbers.enumerate() {
            last = Some(number);
            if count == 37 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let last = last.expect("the child acknowledged something");
        let store = Store::open(dir.path()).unwrap();
        for n in 0..=last {
            let kv = store.get(format!("n/{n:08}").as_bytes());
            assert_eq!(kv.map(|kv| kv.value), Some(Bytes::from(n.to_string())), "round {round}, write {n}");
        }
    }
}
