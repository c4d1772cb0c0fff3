//! A machine of its own for a test: stores, a client, and (if wanted) a registry over the same store.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use content::Store;
use distribution::archive;
use distribution::client::{Client, Hosts, LayerState, Progress, Sink};
use distribution::registry::Registry;
use oci::{ImageId, Reference};
use snapshots::Snapshots;

pub struct Machine {
    pub root: tempfile::TempDir,
    pub content: Store,
    pub snapshots: Snapshots,
    pub client: Client,
}

impl Machine {
    pub fn new() -> Self {
        Self::with(Hosts::default())
    }

    /// With other ideas of how registries are reached.
    pub fn with(hosts: Hosts) -> Self {
        let root = tempfile::tempdir().unwrap();
        let content = Store::open(root.path()).unwrap();
        let snapshots = Snapshots::open(root.path(), content.clone()).unwrap();
        let client = Client::with_hosts(content.clone(), snapshots.clone(), hosts);
        Self { root, content, snapshots, client }
    }

    pub async fn serve(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(Registry::open(self.content.clone()).unwrap().serve(listener));
        address
    }

    pub fn import(&self, name: &str) -> ImageId {
        self.import_sized(name, 5)
    }

    /// An image with one file of so many bytes (5: `hello`).
    pub fn import_sized(&self, name: &str, size: usize) -> ImageId {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        let bytes: Vec<u8> = if size == 5 { b"hello".to_vec() } else { (0..size).map(|i| (i * 7 / 3) as u8).collect() };
        header.set_size(size as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, "etc/hello", bytes.as_slice()).unwrap();
        let bytes = builder.into_inner().unwrap();
        let mut edit = |config: &mut oci::ImageConfig| config.config.cmd = Some(vec!["sh".into()]);
        let id = archive::import(&self.content, &self.snapshots, &mut bytes.as_slice(), "", &mut edit).unwrap();
        self.content.images().tag(&id, &Reference::parse(name).unwrap().or_latest()).unwrap();
        id
    }

    pub fn blobs(&self) -> usize {
        std::fs::read_dir(self.root.path().join("content/blobs/sha256")).unwrap().count()
    }
}

pub fn recorder() -> (Sink, Arc<Mutex<Vec<Progress>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let copy = Arc::clone(&events);
    (Arc::new(move |event| copy.lock().unwrap().push(event)), events)
}

pub fn states(events: &Mutex<Vec<Progress>>) -> Vec<LayerState> {
    let events = events.lock().unwrap();
    events
        .iter()
        .filter_map(|e| if let Progress::Layer { state, .. } = e { Some(state.clone()) } else { None })
        .collect()
}

pub fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}
