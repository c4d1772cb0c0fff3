//! What every backend of the store must do. Written against the public API only, so that another backend can run it.

use bytes::Bytes;
use std::time::Duration;
use store::{Compare, EventKind, KeyValue, Op, Options, ReadError, Store, StoreError, Txn, TxnOutcome, WatchError};

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn put(key: &str, value: &str) -> Op {
    Op::Put { key: Bytes::copy_from_slice(key.as_bytes()), value: Bytes::copy_from_slice(value.as_bytes()) }
}

fn delete(key: &str) -> Op {
    Op::Delete { key: Bytes::copy_from_slice(key.as_bytes()) }
}

fn guard(key: &str, mod_revision: u64) -> Compare {
    Compare { key: Bytes::copy_from_slice(key.as_bytes()), mod_revision }
}

async fn commit(store: &Store, ops: Vec<Op>) -> u64 {
    match store.txn(Txn { compare: vec![], ops }).await.unwrap() {
        TxnOutcome::Committed { revision, .. } => revision,
        TxnOutcome::Conflict { .. } => panic!("a transaction without guards conflicted"),
    }
}

fn values(items: &[KeyValue]) -> Vec<(String, String)> {
    let text = |b: &Bytes| String::from_utf8(b.to_vec()).unwrap();
    items.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
}

#[tokio::test]
async fn each_transaction_gets_the_next_revision_and_applies_whole() {
    let (_dir, store) = open();
    assert_eq!(store.revision(), 0);
    assert_eq!(commit(&store, vec![put("/a/1", "x"), put("/a/2", "y")]).await, 1);
    assert_eq!(commit(&store, vec![put("/a/1", "z"), delete("/a/2")]).await, 2);
    let first = store.get(b"/a/1").unwrap();
    assert_eq!((first.create_revision, first.mod_revision, &first.value[..]), (1, 2, &b"z"[..]));
    assert_eq!(store.get(b"/a/2"), None);
    assert_eq!(store.count(b"/a/", None), 1);
}

#[tokio::test]
async fn a_failed_guard_applies_nothing_and_shows_what_stands_there() {
    let (_dir, store) = open();
    commit(&store, vec![put("k", "v")]).await;
    let txn = Txn { compare: vec![guard("k", 0)], ops: vec![put("k", "w"), put("l", "w")] };
    let TxnOutcome::Conflict { current } = store.txn(txn).await.unwrap() else { panic!("no conflict") };
    assert_eq!(current[0].as_ref().unwrap().value, "v");
    assert_eq!((store.revision(), store.get(b"l")), (1, None));
    let txn = Txn { compare: vec![guard("k", 1), guard("l", 0)], ops: vec![put("k", "w")] };
    let TxnOutcome::Committed { revision, previous } = store.txn(txn).await.unwrap() else { panic!("conflict") };
    assert_eq!((revision, previous[0].as_ref().unwrap().value.clone()), (2, Bytes::from("v")));
}

#[tokio::test]
async fn of_many_concurrent_writers_with_one_guard_exactly_one_wins() {
    let (_dir, store) = open();
    let tries = (0..50).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let txn = Txn { compare: vec![guard("lock", 0)], ops: vec![put("lock", &n.to_string())] };
            matches!(store.txn(txn).await.unwrap(), TxnOutcome::Committed { .. })
        })
    });
    let mut won = 0;
    for one in tries.collect::<Vec<_>>() {
        won += usize::from(one.await.unwrap());
    }
    assert_eq!((won, store.revision()), (1, 1));
}

#[tokio::test]
async fn a_value_can_embed_its_own_revision() {
    let (_dir, store) = open();
    commit(&store, vec![put("other", "x")]).await;
    let encode = Box::new(|revision: u64| Bytes::from(format!("rv={revision}")));
    commit(&store, vec![Op::PutWith { key: "k".into(), encode }]).await;
    assert_eq!(store.get(b"k").unwrap().value, "rv=2");
}

#[tokio::test]
async fn an_encoder_that_panics_fails_its_own_transaction_only() {
    let (_dir, store) = open();
    let encode = Box::new(|_| -> Bytes { panic!("on purpose") });
    let ops = vec![put("half", "x"), Op::PutWith { key: "k".into(), encode }];
    assert!(matches!(store.txn(Txn { compare: vec![], ops }).await, Err(StoreError::Encoder)));
    assert_eq!(commit(&store, vec![put("k", "fine")]).await, 1);
    assert_eq!(store.get(b"half"), None);
}

#[tokio::test]
async fn deleting_what_is_absent_changes_nothing() {
    let (_dir, store) = open();
    commit(&store, vec![put("k", "v")]).await;
    assert_eq!(commit(&store, vec![delete("nothing")]).await, 1);
    assert_eq!(store.revision(), 1);
}

#[tokio::test]
async fn oversized_and_senseless_transactions_are_refused() {
    let (_dir, store) = open();
    let txn = |ops| Txn { compare: vec![], ops };
    assert!(matches!(store.txn(txn(vec![])).await, Err(StoreError::OpCount { count: 0 })));
    assert!(matches!(store.txn(txn(vec![put("", "v")])).await, Err(StoreError::KeySize { size: 0 })));
    let long = "k".repeat(store::MAX_KEY_BYTES + 1);
    assert!(matches!(store.txn(txn(vec![put(&long, "v")])).await, Err(StoreError::KeySize { .. })));
    assert!(matches!(store.txn(txn(vec![put("k", "1"), delete("k")])).await, Err(StoreError::DuplicateKey)));
    let huge = Op::Put { key: "k".into(), value: vec![0; store::MAX_VALUE_BYTES + 1].into() };
    assert!(matches!(store.txn(txn(vec![huge])).await, Err(StoreError::ValueSize { .. })));
}

#[tokio::test]
async fn pages_of_a_range_are_one_picture_while_writes_go_on() {
    let (_dir, store) = open();
    for n in 0..5 {
        commit(&store, vec![put(&format!("/p/{n}"), "old")]).await;
    }
    commit(&store, vec![put("/q", "outside")]).await;
    let first = store.range(b"/p/", None, 2, None).unwrap();
    assert_eq!((first.items.len(), first.more, first.revision), (2, true, 6));
    commit(&store, vec![put("/p/3", "new"), delete("/p/4"), put("/p/25", "late")]).await;
    let rest = store.range(b"/p/", Some(&first.items[1].key), 0, Some(first.revision)).unwrap();
    let expected = [("/p/2", "old"), ("/p/3", "old"), ("/p/4", "old")].map(|(k, v)| (k.into(), v.into()));
    assert_eq!(values(&rest.items), expected);
    assert!(!rest.more);
    let now = store.range(b"/p/", Some(b"/p/1"), 0, None).unwrap();
    let expected = [("/p/2", "old"), ("/p/25", "late"), ("/p/3", "new")].map(|(k, v)| (k.into(), v.into()));
    assert_eq!(values(&now.items), expected);
}

#[tokio::test]
async fn a_key_can_be_read_as_it_was() {
    let (_dir, store) = open();
    commit(&store, vec![put("k", "one")]).await;
    commit(&store, vec![put("k", "two")]).await;
    commit(&store, vec![delete("k")]).await;
    commit(&store, vec![put("k", "again")]).await;
    let at = |r| store.get_at(b"k", r).unwrap().map(|kv| (kv.value, kv.create_revision));
    assert_eq!(at(1), Some(("one".into(), 1)));
    assert_eq!(at(2), Some(("two".into(), 1)));
    assert_eq!(at(3), None);
    assert_eq!(at(4), Some(("again".into(), 4)));
    assert!(matches!(store.get_at(b"k", 5), Err(ReadError::Future { requested: 5, current: 4 })));
}

#[tokio::test]
async fn a_watch_tells_every_change_once_in_order_with_what_was_before() {
    let (_dir, store) = open();
    commit(&store, vec![put("/w/a", "0")]).await;
    let mut watch = store.watch("/w/", Some(1)).unwrap();
    commit(&store, vec![put("/w/a", "1"), put("/other", "x")]).await;
    commit(&store, vec![delete("/w/a")]).await;
    let event = watch.next().await.unwrap();
    let EventKind::Put { value, prev } = &event.kind else { panic!("{event:?}") };
    assert_eq!((event.revision, &value.value[..], &prev.as_ref().unwrap().value[..]), (2, &b"1"[..], &b"0"[..]));
    let event = watch.next().await.unwrap();
    let EventKind::Delete { prev } = &event.kind else { panic!("{event:?}") };
    assert_eq!((event.revision, &prev.value[..]), (3, &b"1"[..]));
    assert_eq!(watch.try_next().unwrap(), None);
    commit(&store, vec![put("/elsewhere", "x")]).await;
    assert_eq!(watch.progress().unwrap(), 4);
}

#[tokio::test]
async fn a_waiting_watch_wakes_at_once_for_its_own_prefix() {
    let (_dir, store) = open();
    let mut watch = store.watch("/w/", None).unwrap();
    let writer = store.clone();
    let writes = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        commit(&writer, vec![put("/x/a", "0")]).await;
        commit(&writer, vec![put("/w/a", "0")]).await;
    });
    let event = tokio::time::timeout(Duration::from_secs(2), watch.next()).await.unwrap().unwrap();
    assert_eq!((event.revision, &event.key[..]), (2, &b"/w/a"[..]));
    writes.await.unwrap();
}

#[tokio::test]
async fn a_slow_watcher_catches_up_from_disk_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { recent_events: 8, segment_bytes: 2048, ..Options::default() };
    let store = Store::open_with(dir.path(), options).unwrap();
    let mut watch = store.watch("/w/", None).unwrap();
    for n in 0..300 {
        commit(&store, vec![put(&format!("/w/{}", n % 7), &n.to_string()), put("/noise", "x")]).await;
    }
    for n in 0..300 {
        let event = watch.next().await.unwrap();
        let EventKind::Put { value, .. } = &event.kind else { panic!() };
        assert_eq!((event.revision, &value.value[..]), (n + 1, n.to_string().as_bytes()));
    }
    assert_eq!(watch.try_next().unwrap(), None);
}

#[tokio::test]
async fn compaction_keeps_the_present_and_refuses_what_it_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { recent_events: 4, segment_bytes: 512, ..Options::default() };
    let store = Store::open_with(dir.path(), options.clone()).unwrap();
    let mut late = store.watch("/", None).unwrap();
    for n in 0..100 {
        commit(&store, vec![put(&format!("/k/{}", n % 5), &n.to_string())]).await;
    }
    commit(&store, vec![delete("/k/0")]).await;
    let before = store.size();
    store.compact(90).await.unwrap();
    assert!(store.size() < before, "compaction gives space back");
    assert!(matches!(store.get_at(b"/k/1", 89), Err(ReadError::Compacted(c)) if c.oldest == 90));
    assert!(store.watch("/", Some(89)).is_err());
    assert!(matches!(late.next().await, Err(WatchError::Lagged(_))));
    let check = |store: &Store| {
        assert_eq!(store.get_at(b"/k/1", 90).unwrap().unwrap().value, "86");
        assert_eq!(store.get(b"/k/1").unwrap().value, "96");
        assert_eq!((store.get(b"/k/0"), store.count(b"/k/", None), store.revision()), (None, 4, 101));
        assert_eq!(values(&store.range(b"/k/", None, 0, Some(95)).unwrap().items)[0].1, "90");
    };
    check(&store);
    drop((store, late));
    let store = Store::open_with(dir.path(), options).unwrap();
    check(&store);
    assert_eq!(store.compacted_revision(), 90);
    let mut watch = store.watch("/", Some(99)).unwrap();
    assert_eq!(watch.next().await.unwrap().revision, 100);
}

#[tokio::test]
async fn old_history_is_dropped_by_itself_and_the_directory_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { retain_revisions: 50, segment_bytes: 4096, recent_events: 16, ..Options::default() };
    let store = Store::open_with(dir.path(), options).unwrap();
    for n in 0..1000 {
        commit(&store, vec![put(&format!("/k/{}", n % 3), &"v".repeat(100))]).await;
    }
    for _ in 0..100 {
        if store.compacted_revision() > 800 && store.size() < 40_000 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(store.compacted_revision() > 800, "compacted to {}", store.compacted_revision());
    assert!(store.compacted_revision() <= 950, "the history to retain is there");
    assert!(store.size() < 40_000, "{} bytes", store.size());
}

#[tokio::test]
async fn a_snapshot_restores_to_an_equal_store() {
    let (dir, store) = open();
    for n in 0..20 {
        commit(&store, vec![put(&format!("/k/{n}"), &n.to_string())]).await;
    }
    commit(&store, vec![delete("/k/3")]).await;
    let backup = dir.path().join("backup.db");
    assert_eq!(store.snapshot(&backup).await.unwrap(), 21);
    commit(&store, vec![put("/k/later", "x")]).await;
    let target = dir.path().join("restored");
    assert_eq!(Store::restore(&backup, &target, 0).unwrap(), 21);
    assert!(Store::restore(&backup, &target, 0).is_err(), "never over a store that is there");
    let restored = Store::open(&target).unwrap();
    assert_eq!(restored.revision(), 21);
    let expected = store.range(b"/", None, 0, Some(21)).unwrap();
    assert_eq!(restored.range(b"/", None, 0, None).unwrap().items, expected.items);
    assert_eq!(commit(&restored, vec![put("/k/new", "x")]).await, 22);
}

#[tokio::test]
async fn a_second_opener_is_refused_until_the_first_has_closed() {
    let (dir, store) = open();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Locked { .. })));
    commit(&store, vec![put("k", "v")]).await;
    drop(store);
    assert_eq!(Store::open(dir.path()).unwrap().get(b"k").unwrap().value, "v");
}

#[tokio::test]
async fn closing_the_store_ends_its_watches() {
    let (_dir, store) = open();
    let mut watch = store.watch("/", None).unwrap();
    drop(store);
    assert_eq!(watch.next().await, Err(WatchError::Closed));
}

#[tokio::test]
async fn a_restore_that_bumps_the_revision_sends_old_watchers_to_list_again() {
    let (dir, store) = open();
    commit(&store, vec![put("/k/a", "1")]).await;
    let backup = dir.path().join("backup.db");
    store.snapshot(&backup).await.unwrap();
    let target = dir.path().join("restored");
    assert_eq!(Store::restore(&backup, &target, 1_000_000).unwrap(), 1_000_001);
    let restored = Store::open(&target).unwrap();
    assert_eq!((restored.revision(), restored.get(b"/k/a").unwrap().value), (1_000_001, "1".into()));
    assert!(restored.watch("/", Some(1)).is_err(), "a revision of before");
    assert_eq!(commit(&restored, vec![put("/k/b", "x")]).await, 1_000_002);
    drop(restored);
    assert_eq!(Store::open(&target).unwrap().revision(), 1_000_002);
}

/// Whether any file below the directory holds the text.
fn on_disk(dir: &std::path::Path, text: &str) -> bool {
    std::fs::read_dir(dir).unwrap().flatten().any(|entry| {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[tokio::test]
async fn what_is_sealed_never_reaches_the_disk_in_clear_and_survives_rotation_of_keys() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let path = dir.path().join("store");
    let open = || {
        let sealer = std::sync::Arc::new(store::Sealer::open(&keys, &["/secrets/"]).unwrap());
        Store::open_with(&path, Options { sealer: Some(sealer), ..Options::default() })
    };
    let first = open().unwrap();
    commit(&first, vec![put("/secrets/a", "password-1"), put("/plain/a", "visible-1")]).await;
    commit(&first, vec![put("/secrets/a", "password-2")]).await;
    assert!(on_disk(&path, "visible-1") && !on_disk(&path, "password-"));
    assert_eq!(first.get_at(b"/secrets/a", 1).unwrap().unwrap().value, "password-1", "history is read from disk");
    let mut watch = first.watch("/secrets/", Some(0)).unwrap();
    assert_eq!(watch.next().await.unwrap().revision, 1);
    first.compact(2).await.unwrap();
    assert!(!on_disk(&path, "password-"), "nor in a snapshot");
    drop((watch, first));

    assert!(Store::open(&path).is_err(), "without the keys nothing opens");
    store::Sealer::rotate(&keys).unwrap();
    let second = open().unwrap();
    assert_eq!(second.get(b"/secrets/a").unwrap().value, "password-2");
    commit(&second, vec![put("/plain/b", "x")]).await;
    second.compact(3).await.unwrap();
    drop(second);
    // The compaction sealed everything with the new key, so the old one can go.
    let text = std::fs::read_to_string(&keys).unwrap();
    let newest = text.lines().next().unwrap().to_owned();
    std::fs::write(&keys, newest).unwrap();
    assert_eq!(open().unwrap().get(b"/secrets/a").unwrap().value, "password-2");
}
