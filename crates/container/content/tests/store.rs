//! The store on a real disk: verification, resumption, collection, names, and what a crash leaves.

use std::fs;

use content::{Deleted, Error, NewImage, Origin, Store};
use oci::{Descriptor, Digest, ImageId, Reference, media_type};

fn open() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    (root, store)
}

fn image(store: &Store, seed: &str) -> ImageId {
    let layer = store.put_bytes(media_type::OCI_LAYER, seed.as_bytes()).unwrap();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","author":"{seed}","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        layer.digest
    );
    store
        .create_image(NewImage {
            config: config.into_bytes(),
            layers: vec![layer],
            manifest_digest: None,
            origin: Origin::Local,
            size: None,
        })
        .unwrap()
}

fn name(text: &str) -> Reference {
    Reference::parse(text).unwrap().or_latest()
}

#[test]
fn content_that_is_not_what_was_promised_never_becomes_visible() {
    let (root, store) = open();
    let expected = Descriptor::new("x", Digest::of(b"right"), 5);
    for (bytes, why) in
        [(&b"wrong"[..], "digest mismatch"), (b"righ", "size mismatch"), (b"right and more", "size mismatch")]
    {
        let mut ingest = store.ingest(Some(expected.clone())).unwrap();
        let error = match ingest.append(bytes) {
            Ok(()) => ingest.commit("x").unwrap_err(),
            Err(error) => error,
        };
        assert!(error.to_string().contains(why), "{error}");
    }
    assert!(!store.contains(&expected.digest));
    let mut ingest = store.ingest(Some(expected.clone())).unwrap();
    ingest.append(b"right").unwrap();
    ingest.commit("x").unwrap();
    assert_eq!(store.read(&expected.digest, 100).unwrap(), b"right");
    assert_eq!(fs::read_dir(root.path().join("content/ingest")).unwrap().count(), 0, "nothing half-written stays");
}

#[test]
fn an_interrupted_ingest_goes_on_where_it_stopped_even_after_a_restart() {
    let (root, store) = open();
    let expected = Descriptor::new("x", Digest::of(b"hello world"), 11);
    let mut ingest = store.resume(&expected).unwrap();
    ingest.append(b"hello ").unwrap();
    assert!(matches!(store.resume(&expected), Err(Error::Busy(_))));
    drop(ingest);
    let orphan = store.ingest(None).unwrap();
    std::mem::forget(orphan);
    let store = Store::open(root.path()).unwrap();
    assert_eq!(
        fs::read_dir(root.path().join("content/ingest")).unwrap().count(),
        1,
        "the orphan is swept, the partial one is not"
    );
    let mut ingest = store.resume(&expected).unwrap();
    assert_eq!(ingest.offset(), 6);
    ingest.append(b"world").unwrap();
    ingest.commit("x").unwrap();
    assert!(store.contains(&expected.digest));
}

#[test]
fn a_bad_partial_download_is_not_resumed_from() {
    let (_root, store) = open();
    let expected = Descriptor::new("x", Digest::of(b"hello"), 5);
    let mut ingest = store.resume(&expected).unwrap();
    ingest.append(b"hullo").unwrap();
    assert!(ingest.commit("x").is_err());
    assert_eq!(store.resume(&expected).unwrap().offset(), 0);
}

#[test]
fn collection_spares_images_records_and_leases_and_takes_the_rest() {
    let (root, store) = open();
    let kept = image(&store, "kept");
    let held = store.put_bytes("", b"held by a record").unwrap().digest;
    let derived = store.put_bytes("", b"derived").unwrap().digest;
    let (records, cache) = (store.records("test").unwrap(), store.records("cache").unwrap());
    records.put("key", &1, &[held]).unwrap();
    cache.put_derived("d", &1, &[derived], held).unwrap();
    // A new process has no leases and remembers no touches.
    let store = Store::open(root.path()).unwrap();
    let lease = store.lease("work");
    let working = store.put_bytes("", b"in use").unwrap().digest;
    assert!(store.gc().unwrap().blobs.is_empty());
    drop(lease);
    assert_eq!(store.gc().unwrap().blobs, [working]);
    assert!(store.contains(&held) && store.contains(&derived) && store.contains(&kept.0));
    store.records("test").unwrap().remove("key").unwrap();
    let mut gone = store.gc().unwrap().blobs;
    gone.sort();
    let mut expected = [held, derived];
    expected.sort();
    assert_eq!(gone, expected);
    store.images().remove(&kept.to_string(), false).unwrap();
    assert_eq!(store.gc().unwrap().blobs.len(), 2, "configuration and layer");
}

#[test]
fn images_are_found_by_name_id_and_unambiguous_prefix() {
    let (_root, store) = open();
    let id = image(&store, "one");
    store.images().tag(&id, &name("web")).unwrap();
    let hex = id.0.hex();
    for text in [
        "web",
        "web:latest",
        "docker.io/library/web",
        &hex,
        &hex[..12],
        &id.to_string(),
        &format!("sha256:{}", &hex[..10]),
    ] {
        assert_eq!(store.images().resolve(text).unwrap().id, id, "{text}");
    }
    for (text, message) in [
        ("nope", "No such image: nope:latest"),
        ("web:2", "No such image: web:2"),
        ("Web", "must be lowercase"),
        ("", "invalid reference format"),
    ] {
        let error = store.images().resolve(text).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let ids: Vec<ImageId> = (0..40).map(|i| image(&store, &format!("many{i}"))).collect();
    let shared = ids
        .iter()
        .map(|i| i.0.hex()[..1].to_owned())
        .find(|p| ids.iter().filter(|i| i.0.hex().starts_with(p.as_str())).count() > 1)
        .unwrap();
    assert!(matches!(store.images().resolve(&shared), Err(Error::AmbiguousPrefix(_))));
}

#[test]
fn removal_untags_first_and_deletes_with_the_last_name() {
    let (_root, store) = open();
    let images = store.images();
    let id = image(&store, "one");
    for text in ["a:1", "a:2", "localhost:5000/b:1"] {
        images.tag(&id, &name(text)).unwrap();
    }
    let layer = images.get(&id).unwrap().config.chain_id().unwrap();
    assert!(matches!(images.remove(&id.0.short(), false), Err(Error::ReferencedInRepositories(_))));
    assert_eq!(images.remove("a:1", false).unwrap(), [Deleted::Untagged("a:1".into())]);
    assert_eq!(images.remove("localhost:5000/b:1", false).unwrap(), [Deleted::Untagged("localhost:5000/b:1".into())]);
    images.tag(&id, &name("a").with_digest(Digest::of(b"m"))).unwrap();
    let digest_name = format!("a@{}", Digest::of(b"m"));
    assert_eq!(
        images.remove("a:2", false).unwrap(),
        [Deleted::Untagged("a:2".into()), Deleted::Untagged(digest_name), Deleted::Deleted(id), Deleted::Layer(layer)]
    );
    assert!(images.list().is_empty());
}

#[test]
fn names_and_images_survive_a_restart_and_a_half_written_record_does_no_harm() {
    let (root, store) = open();
    let id = image(&store, "one");
    store.images().tag(&id, &name("web:1")).unwrap();
    let other = image(&store, "two");
    store.images().tag(&other, &name("web:1")).unwrap();
    let dir = root.path().join("content/images");
    fs::write(dir.join("names.new"), b"{").unwrap();
    fs::write(dir.join(format!("{}.new", id.0.hex())), b"{").unwrap();
    // The configuration of one image is lost: it is dropped, the other stays.
    fs::remove_file(root.path().join("content/blobs/sha256").join(id.0.hex())).unwrap();
    let store = Store::open(root.path()).unwrap();
    assert_eq!(store.images().list().iter().map(|i| i.id).collect::<Vec<_>>(), [other]);
    assert_eq!(store.images().resolve("web:1").unwrap().id, other);
}

#[test]
fn what_was_made_here_stays_local_when_it_is_pulled_again() {
    let (_root, store) = open();
    let id = image(&store, "one");
    let image = store.images().get(&id).unwrap();
    let config = store.read(&id.0, 1 << 20).unwrap();
    let pulled = Origin::Pulled { registry: "localhost:5000".into() };
    store
        .create_image(NewImage { config, layers: image.layers, manifest_digest: None, origin: pulled, size: None })
        .unwrap();
    assert_eq!(store.images().get(&id).unwrap().origin, Origin::Local);
}

#[test]
fn an_image_without_its_layers_or_with_too_few_is_refused() {
    let (_root, store) = open();
    let config = br#"{"rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec();
    let missing = Descriptor::new("", Digest::of(b"missing"), 7);
    let new =
        |config: Vec<u8>, layers| NewImage { config, layers, manifest_digest: None, origin: Origin::Local, size: None };
    assert!(matches!(store.create_image(new(config, vec![missing.clone()])), Err(Error::LayerCount { .. })));
    let config = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#, missing.digest).into_bytes();
    assert!(matches!(store.create_image(new(config, vec![missing])), Err(Error::NoBlob(_))));
}

#[test]
fn fsck_finds_and_moves_away_what_is_damaged_and_names_who_misses_it() {
    let (root, store) = open();
    let id = image(&store, "some layer");
    let layer = store.images().get(&id).unwrap().layers[0].clone();
    let clean = content::fsck(root.path(), true).unwrap();
    assert!(clean.is_clean() && clean.blobs == 2, "{clean:?}");
    let path = root.path().join("content/blobs/sha256").join(layer.digest.hex());
    // As a disk does it: same length, one bit.
    let mut bytes = fs::read(&path).unwrap();
    bytes[3] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let looked = content::fsck(root.path(), false).unwrap();
    assert_eq!((looked.damaged.as_slice(), looked.missing.len()), ([(layer.digest, None)].as_slice(), 0));
    assert!(store.contains(&layer.digest), "only looked at");
    let repaired = content::fsck(root.path(), true).unwrap();
    let kept = repaired.damaged[0].1.clone().unwrap();
    assert_eq!(fs::read(kept).unwrap(), bytes);
    assert!(!store.contains(&layer.digest));
    assert_eq!(repaired.missing, [(layer.digest, format!("image {}", id.0.short()))]);
    // Whoever brings the bytes again heals it.
    store.put_bytes(media_type::OCI_LAYER, b"some layer").unwrap();
    assert!(content::fsck(root.path(), true).unwrap().is_clean());
}
