//! The registry and the client against each other and against skopeo, on loopback ports.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

use content::Store;
use distribution::archive;
use distribution::client::{Client, LayerState, Progress, Sink};
use distribution::registry::Registry;
use oci::{ImageId, Reference};
use snapshots::Snapshots;

struct Machine {
    root: tempfile::TempDir,
    content: Store,
    snapshots: Snapshots,
    client: Client,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let content = Store::open(root.path()).unwrap();
        let snapshots = Snapshots::open(root.path(), content.clone()).unwrap();
        let client = Client::new(content.clone(), snapshots.clone(), Vec::new());
        Self { root, content, snapshots, client }
    }

    async fn serve(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(Registry::open(self.content.clone()).unwrap().serve(listener));
        address
    }

    fn import(&self, name: &str) -> ImageId {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o644);
        builder.append_data(&mut header, "etc/hello", b"hello".as_slice()).unwrap();
        let bytes = builder.into_inner().unwrap();
        let mut edit = |config: &mut oci::ImageConfig| config.config.cmd = Some(vec!["sh".into()]);
        let id = archive::import(&self.content, &self.snapshots, &mut bytes.as_slice(), "", &mut edit).unwrap();
        self.content.images().tag(&id, &Reference::parse(name).unwrap().or_latest()).unwrap();
        id
    }

    fn blobs(&self) -> usize {
        std::fs::read_dir(self.root.path().join("content/blobs/sha256")).unwrap().count()
    }
}

fn recorder() -> (Sink, Arc<Mutex<Vec<Progress>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let copy = Arc::clone(&events);
    (Arc::new(move |event| copy.lock().unwrap().push(event)), events)
}

fn states(events: &Mutex<Vec<Progress>>) -> Vec<LayerState> {
    let events = events.lock().unwrap();
    events
        .iter()
        .filter_map(|e| if let Progress::Layer { state, .. } = e { Some(state.clone()) } else { None })
        .collect()
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

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
    let address = here.serve().await;
    let name = reference(&format!("{address}/app:1"));
    let id = here.import(&name.to_string());
    here.client.push(&name, None, recorder().0).await.unwrap();
    let (a, b) = tokio::join!(
        there.client.pull(&name, None, None, recorder().0),
        there.client.pull(&name, None, None, recorder().0)
    );
    assert_eq!((a.unwrap(), b.unwrap()), (id, id));
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
