//! CRI over a Unix socket: what one side says, the other one hears.
//!
//! The runtime behind the server is a table in memory, since what is tested is the wire; the engine behind CRI
//! is tested with the engine.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use cri::{Cri, CriError, EventStream, RemoteCri, Result, v1};
use futures_util::StreamExt;

/// Sandboxes by id; everything else says that it is not offered.
#[derive(Default)]
struct Table(Mutex<BTreeMap<String, v1::PodSandboxConfig>>);

fn not_offered<T>() -> Result<T> {
    Err(CriError::Unimplemented("not offered".to_owned()))
}

#[async_trait]
impl Cri for Table {
    async fn version(&self) -> Result<v1::VersionResponse> {
        Ok(v1::VersionResponse { runtime_name: "table".to_owned(), ..Default::default() })
    }
    async fn status(&self) -> Result<v1::StatusResponse> {
        not_offered()
    }
    async fn run_pod_sandbox(&self, config: v1::PodSandboxConfig) -> Result<String> {
        let mut table = self.0.lock().unwrap();
        let id = format!("s{}", table.len());
        table.insert(id.clone(), config);
        Ok(id)
    }
    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        Err(CriError::NotFound(format!("no sandbox {id}")))
    }
    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        self.0.lock().unwrap().remove(id);
        Ok(())
    }
    async fn pod_sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatus> {
        Err(CriError::NotFound(format!("no sandbox {id}")))
    }
    async fn list_pod_sandbox(&self, _: Option<v1::PodSandboxFilter>) -> Result<Vec<v1::PodSandbox>> {
        let table = self.0.lock().unwrap();
        Ok(table
            .iter()
            .map(|(id, config)| v1::PodSandbox {
                id: id.clone(),
                metadata: config.metadata.clone(),
                labels: config.labels.clone(),
                ..Default::default()
            })
            .collect())
    }
    async fn create_container(&self, _: &str, _: v1::ContainerConfig, _: v1::PodSandboxConfig) -> Result<String> {
        Err(CriError::InvalidArgument("no image".to_owned()))
    }
    async fn start_container(&self, _: &str) -> Result<()> {
        not_offered()
    }
    async fn stop_container(&self, _: &str, _: i64) -> Result<()> {
        not_offered()
    }
    async fn remove_container(&self, _: &str) -> Result<()> {
        not_offered()
    }
    async fn list_containers(&self, _: Option<v1::ContainerFilter>) -> Result<Vec<v1::Container>> {
        not_offered()
    }
    async fn container_status(&self, _: &str) -> Result<v1::ContainerStatus> {
        not_offered()
    }
    async fn update_container_resources(&self, _: &str, _: v1::LinuxContainerResources) -> Result<()> {
        not_offered()
    }
    async fn reopen_container_log(&self, _: &str) -> Result<()> {
        not_offered()
    }
    async fn exec_sync(&self, _: &str, command: Vec<String>, timeout: Duration) -> Result<v1::ExecSyncResponse> {
        Ok(v1::ExecSyncResponse {
            stdout: command.join(" ").into_bytes(),
            exit_code: i32::try_from(timeout.as_secs()).unwrap(),
            ..Default::default()
        })
    }
    async fn container_stats(&self, _: &str) -> Result<v1::ContainerStats> {
        not_offered()
    }
    async fn list_container_stats(&self, _: Option<v1::ContainerStatsFilter>) -> Result<Vec<v1::ContainerStats>> {
        not_offered()
    }
    async fn events(&self) -> Result<EventStream> {
        let event = |id: &str| Ok(v1::ContainerEventResponse { container_id: id.to_owned(), ..Default::default() });
        let end = Err(CriError::Unavailable("events were lost".to_owned()));
        Ok(futures_util::stream::iter([event("a"), event("b"), end]).boxed())
    }
    async fn list_images(&self) -> Result<Vec<v1::Image>> {
        not_offered()
    }
    async fn image_status(&self, image: &v1::ImageSpec) -> Result<Option<v1::Image>> {
        let id = image.image.clone();
        Ok((id == "here").then(|| v1::Image { id, ..Default::default() }))
    }
    async fn pull_image(&self, _: v1::ImageSpec, _: Option<v1::AuthConfig>) -> Result<String> {
        not_offered()
    }
    async fn remove_image(&self, _: &v1::ImageSpec) -> Result<()> {
        not_offered()
    }
    async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse> {
        not_offered()
    }
}

/// A served table and a client of it; both go with the directory.
fn served() -> (tempfile::TempDir, RemoteCri, tokio::task::JoinHandle<Result<()>>) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("cri.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let server = tokio::spawn(cri::serve(Arc::new(Table::default()), listener));
    (dir, RemoteCri::new(&socket), server)
}

#[tokio::test]
async fn calls_lists_and_errors_survive_the_socket_unchanged() {
    let (_dir, remote, server) = served();
    assert_eq!(remote.version().await.unwrap().runtime_name, "table");
    let config = v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata { name: "web".to_owned(), attempt: 3, ..Default::default() }),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        ..Default::default()
    };
    let id = remote.run_pod_sandbox(config.clone()).await.unwrap();
    let listed = remote.list_pod_sandbox(None).await.unwrap();
    assert_eq!((&listed[0].id, &listed[0].metadata, &listed[0].labels), (&id, &config.metadata, &config.labels));
    let error = remote.pod_sandbox_status("x").await.unwrap_err();
    assert_eq!(error, CriError::NotFound("no sandbox x".to_owned()));
    let made = remote.create_container(&id, Default::default(), Default::default()).await;
    assert_eq!(made.unwrap_err(), CriError::InvalidArgument("no image".to_owned()));
    assert!(remote.image_status(&spec("gone")).await.unwrap().is_none());
    assert_eq!(remote.image_status(&spec("here")).await.unwrap().unwrap().id, "here");
    server.abort();
}

fn spec(image: &str) -> v1::ImageSpec {
    v1::ImageSpec { image: image.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn stopping_what_is_not_there_succeeds() {
    let (_dir, remote, server) = served();
    remote.stop_pod_sandbox("x").await.unwrap();
    server.abort();
}

#[tokio::test]
async fn exec_timeouts_are_rounded_up_to_whole_seconds() {
    let (_dir, remote, server) = served();
    let answer = remote.exec_sync("c", vec!["echo".into(), "hi".into()], Duration::from_millis(1500)).await.unwrap();
    assert_eq!((answer.stdout.as_slice(), answer.exit_code), (&b"echo hi"[..], 2));
    server.abort();
}

#[tokio::test]
async fn events_stream_and_their_loss_is_told() {
    let (_dir, remote, server) = served();
    let events: Vec<_> = remote.events().await.unwrap().collect().await;
    let ids: Vec<_> = events.iter().flatten().map(|event| event.container_id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
    assert_eq!(events[2], Err(CriError::Unavailable("events were lost".to_owned())));
    server.abort();
}

#[tokio::test]
async fn a_runtime_that_is_not_there_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let remote = RemoteCri::new(&dir.path().join("none.sock"));
    assert!(matches!(remote.version().await.unwrap_err(), CriError::Unavailable(_)));
}
