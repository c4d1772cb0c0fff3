//! Pulls and pushes between our own client and our own registry, and skopeo on either side.

use std::process::Command;

use distribution::archive;
use distribution::client::{LayerState, Progress};

use crate::machine::{Machine, recorder, reference, states};
use crate::proxy::{Act, Proxy};

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_our_own_registry_copies_no_blob_and_another_machine_can_pull_it() {
    let (here, there) = (Machine::new(), Machine::new());
    let address = here.serve().await;
    let name = reference(&format!("{address}/my-app:1.0"));
    let id = here.import(&name.to_string());
    let before = here.blobs();
    let (sink, events) = recorder();
    let pushed = here.client.push(&name, None, sink).await.unwrap();
    assert_eq!(here.blobs(), before + 1, "only the manifest is new");
    assert_eq!(states(&events), [LayerState::Preparing, LayerState::Pushed]);
    let (sink, events) = recorder();
    assert_eq!(here.client.push(&name, None, sink).await.unwrap().digest, pushed.digest);
    assert_eq!(states(&events), [LayerState::Preparing, LayerState::LayerAlreadyExists]);

    let (sink, events) = recorder();
    assert_eq!(there.client.pull(&name, None, None, sink).await.unwrap(), id);
    let last = events.lock().unwrap().last().cloned();
    assert_eq!(
        last,
        Some(Progress::Status {
            id: None,
            message: format!("Status: Downloaded newer image for {address}/my-app:1.0")
        })
    );
    let image = there.content.images().resolve(&name.to_string()).unwrap();
    assert_eq!((image.size, image.repo_digests.len()), (5, 1));
    let view = there.snapshots.view(image.config.chain_id().as_ref()).unwrap();
    assert_eq!(std::fs::read_to_string(view.path().join("etc/hello")).unwrap(), "hello");
    drop(view);
    // Removed and pulled again: what the walk does.
    there.content.images().remove(&name.to_string(), false).unwrap();
    there.content.gc().unwrap();
    there.snapshots.gc().unwrap();
    there.client.pull(&name, None, None, recorder().0).await.unwrap();
    let (sink, events) = recorder();
    there.client.pull(&name, None, None, sink).await.unwrap();
    assert!(states(&events).contains(&LayerState::AlreadyExists));
}

#[tokio::test(flavor = "multi_thread")]
async fn collection_keeps_what_the_registry_links() {
    let here = Machine::new();
    let address = here.serve().await;
    let name = reference(&format!("{address}/app:1"));
    here.import(&name.to_string());
    here.client.push(&name, None, recorder().0).await.unwrap();
    here.content.images().remove(&name.to_string(), true).unwrap();
    here.content.gc().unwrap();
    here.snapshots.gc().unwrap();
    here.client.pull(&name, None, None, recorder().0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_at_once_fetch_once_and_both_succeed() {
    let (here, there) = (Machine::new(), Machine::new());
    let proxy = Proxy::start(here.serve().await, |_, _| Act::Forward).await;
    let name = reference(&format!("{}/app:1", proxy.address));
    let id = here.import(&name.to_string());
    here.client.push(&name, None, recorder().0).await.unwrap();
    proxy.seen.lock().unwrap().clear();
    let pulls = (0..8).map(|_| there.client.pull(&name, None, None, recorder().0));
    for pulled in futures_util::future::join_all(pulls).await {
        assert_eq!(pulled.unwrap(), id);
    }
    let seen = proxy.seen.lock().unwrap().clone();
    let blobs: Vec<&String> = seen.iter().filter(|line| line.contains("/blobs/")).collect();
    assert_eq!(blobs.len(), 2, "configuration and layer, once each: {seen:?}");
    assert_ne!(blobs[0], blobs[1]);
    let layers = std::fs::read_dir(there.root.path().join("snapshots/l")).unwrap().count();
    assert_eq!(layers, 2, "the layer was unpacked once (beside the empty one)");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_in_dockers_words() {
    let here = Machine::new();
    let address = here.serve().await;
    let pull = async |name: String| {
        here.client.pull(&reference(&name), None, None, recorder().0).await.unwrap_err().to_string()
    };
    assert_eq!(
        pull(format!("{address}/nope:1")).await,
        format!("manifest for {address}/nope:1 not found: manifest unknown: manifest unknown")
    );
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = pull(format!("{closed}/x:1")).await;
    assert!(error.contains(&format!("dial tcp {closed}: connect: connection refused")), "{error}");
    let error = here.client.push(&reference("localhost:1/none:1"), None, recorder().0).await.unwrap_err().to_string();
    assert_eq!(error, "An image does not exist locally with the tag: localhost:1/none:1");
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_in_and_out_and_saved_archives_load_again() {
    let here = Machine::new();
    let address = here.serve().await;
    let name = reference(&format!("{address}/a/b:1"));
    let id = here.import(&name.to_string());
    here.client.push(&name, None, recorder().0).await.unwrap();
    let work = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}:x", work.path().join("layout").display());
    let skopeo = async |arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let run = move || {
            Command::new("skopeo").args(["--insecure-policy", "--command-timeout", "20s"]).args(arguments).output()
        };
        let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // Out, in under another name (compressed by skopeo, in Docker's format), and out again by our own client.
    skopeo(&["copy", "--src-tls-verify=false", &format!("docker://{address}/a/b:1"), &layout]).await;
    skopeo(&[
        "copy",
        "--dest-tls-verify=false",
        "--format=v2s2",
        "--dest-compress-format=gzip",
        &layout,
        &format!("docker://{address}/c:2"),
    ])
    .await;
    let tags = skopeo(&["list-tags", "--tls-verify=false", &format!("docker://{address}/c")]).await;
    assert!(tags.contains("\"2\""), "{tags}");
    let there = Machine::new();
    let pulled = there.client.pull(&reference(&format!("{address}/c:2")), None, None, recorder().0).await.unwrap();
    assert_eq!(
        there.content.images().get(&pulled).unwrap().config.rootfs,
        here.content.images().get(&id).unwrap().config.rootfs
    );
    // Our archive is one that skopeo reads, and the other way round.
    let file = work.path().join("saved.tar");
    archive::save(&here.content, &[name.to_string()], &mut std::fs::File::create(&file).unwrap()).unwrap();
    let seen = skopeo(&["inspect", &format!("docker-archive:{}", file.display())]).await;
    assert!(seen.contains("\"Layers\""), "{seen}");
    let fresh = Machine::new();
    let loaded = archive::load(&fresh.content, &fresh.snapshots, &mut std::fs::File::open(&file).unwrap()).unwrap();
    assert_eq!((loaded[0].id, loaded[0].names.as_slice()), (id, [name].as_slice()));
    let theirs = work.path().join("theirs.tar");
    skopeo(&["copy", &layout, &format!("docker-archive:{}:web:3", theirs.display())]).await;
    let loaded = archive::load(&fresh.content, &fresh.snapshots, &mut std::fs::File::open(&theirs).unwrap()).unwrap();
    assert_eq!(loaded[0].names, [reference("web:3")]);
    skopeo(&["delete", "--tls-verify=false", &format!("docker://{address}/c:2")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_that_was_asked_for_is_pulled_out_of_an_index() {
    let server = crate::server::Server::new().await;
    let mut entries = Vec::new();
    for architecture in ["amd64", "arm64", "s390x"] {
        let config =
            format!(r#"{{"architecture":"{architecture}","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}}}}"#);
        let digest = server.push_blob("multi", config.as_bytes()).await;
        let manifest = crate::server::manifest(&[("config", &digest, config.len())], "");
        let digest = oci::Digest::of(manifest.as_bytes());
        assert_eq!(server.push_manifest("multi", &digest.to_string(), &manifest).await.status, 201);
        entries.push(format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
            manifest.len()
        ));
    }
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[{}]}}"#, entries.join(","));
    assert_eq!(server.push_manifest("multi", "1", &index).await.status, 201);
    let name = reference(&format!("{}/multi:1", server.address));
    let here = Machine::new();
    for (platform, architecture) in [("linux/arm64", "arm64"), ("linux/s390x", "s390x"), ("linux/x86_64", "amd64")] {
        let platform = platform.parse().unwrap();
        let id = here.client.pull(&name, Some(&platform), None, recorder().0).await.unwrap();
        assert_eq!(here.content.images().get(&id).unwrap().config.architecture, architecture);
        let tagged = here.content.images().named(&name).unwrap();
        assert_eq!(tagged.id, id, "the name is the last one's");
    }
    let error = here.client.pull(&name, Some(&"linux/riscv64".parse().unwrap()), None, recorder().0).await.unwrap_err();
    assert_eq!(error.to_string(), "no matching manifest for linux/riscv64 in the manifest list entries");
    let remote = here.client.inspect(&name, None).await.unwrap();
    assert_eq!((remote.descriptor.digest, remote.platforms.len()), (oci::Digest::of(index.as_bytes()), 3));
}
