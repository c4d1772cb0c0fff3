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
use cri::{Cri, CriError, Duplex, EventStream, RemoteCri, Result, Session, Streaming, v1};
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
    async fn run_pod_sandbox(&self, config: v1::PodSandboxConfig, _: &str) -> Result<String> {
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
        if id == "s" {
            return Ok(v1::PodSandboxStatus::default());
        }
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
    async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus> {
        if id == "c" {
            Ok(v1::ContainerStatus::default())
        } else {
            Err(CriError::NotFound(format!("no container {id}")))
        }
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
    async fn pod_sandbox_stats(&self, _: &str) -> Result<v1::PodSandboxStats> {
        not_offered()
    }
    async fn list_pod_sandbox_stats(&self, _: Option<v1::PodSandboxStatsFilter>) -> Result<Vec<v1::PodSandboxStats>> {
        not_offered()
    }
    async fn list_metric_descriptors(&self) -> Result<Vec<v1::MetricDescriptor>> {
        not_offered()
    }
    async fn list_pod_sandbox_metrics(&self) -> Result<Vec<v1::PodSandboxMetrics>> {
        not_offered()
    }
    async fn runtime_config(&self) -> Result<v1::RuntimeConfigResponse> {
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

/// Streams that say back what they are told; the exit code is the number of the command's words.
struct Echo;

impl Echo {
    fn session(&self, words: usize) -> Session {
        let (ours, theirs) = tokio::io::duplex(1024);
        let (reader, writer) = tokio::io::split(ours);
        let (read_back, _) = tokio::io::split(theirs);
        drop(reader);
        let out = futures_util::stream::unfold(read_back, |mut from| async move {
            let mut buffer = vec![0; 512];
            match tokio::io::AsyncReadExt::read(&mut from, &mut buffer).await {
                Ok(length @ 1..) => Some((Ok(bytes::Bytes::copy_from_slice(&buffer[..length])), from)),
                Ok(0) | Err(_) => None,
            }
        });
        let err = futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"noise"))]);
        Session {
            stdin: Some(Box::new(writer)),
            stdout: Some(out.boxed()),
            stderr: Some(err.boxed()),
            resize: tokio::sync::mpsc::channel(1).0,
            exit: Box::pin(async move { Ok(i32::try_from(words).unwrap()) }),
        }
    }
}

#[async_trait]
impl Streaming for Echo {
    async fn exec(&self, request: v1::ExecRequest) -> Result<Session> {
        if request.cmd[0] == "missing" {
            return Err(CriError::NotFound("no such program".to_owned()));
        }
        Ok(self.session(request.cmd.len()))
    }
    async fn attach(&self, _: v1::AttachRequest) -> Result<Session> {
        Ok(self.session(0))
    }
    async fn port_forward(&self, _: &str, port: u16) -> Result<Box<dyn Duplex>> {
        if port == 1 {
            return Err(CriError::Internal("connection refused".to_owned()));
        }
        let (ours, theirs) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(theirs);
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
        Ok(Box::new(ours))
    }
}

/// A served table and a client of it; both go with the directory.
fn served() -> (tempfile::TempDir, RemoteCri, tokio::task::JoinHandle<Result<()>>) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("cri.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let server = tokio::spawn(cri::serve(Arc::new(Table::default()), Arc::new(Echo), listener));
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
    let id = remote.run_pod_sandbox(config.clone(), "").await.unwrap();
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

async fn everything(stream: Option<cri::ByteStream>) -> Vec<u8> {
    let chunks: Vec<_> = stream.unwrap().collect().await;
    chunks.into_iter().flat_map(|chunk| chunk.unwrap()).collect()
}

#[tokio::test]
async fn exec_attach_and_port_forward_stream_through_urls_both_ways() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (_dir, remote, server) = served();
    let request = v1::ExecRequest {
        container_id: "c".to_owned(),
        cmd: vec!["a".to_owned(), "b".to_owned()],
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let mut session = remote.exec(request.clone()).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    let sent: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        stdin.write_all(&copy).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    let (out, err) = tokio::join!(everything(session.stdout.take()), everything(session.stderr.take()));
    writer.await.unwrap();
    assert_eq!((out.len(), out == sent, err.as_slice()), (sent.len(), true, b"noise".as_slice()));
    assert_eq!(session.exit.await, Ok(2));
    let missing = remote.exec(v1::ExecRequest { cmd: vec!["missing".to_owned()], ..request.clone() }).await.unwrap();
    assert_eq!(missing.exit.await, Err(CriError::Internal("no such program".to_owned())));
    let attach = v1::AttachRequest { container_id: "c".to_owned(), stdout: true, ..Default::default() };
    assert!(remote.attach(attach).await.unwrap().stdin.is_none());

    let mut pipe = remote.port_forward("s", 8080).await.unwrap();
    pipe.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    pipe.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
    let mut refused = remote.port_forward("s", 1).await.unwrap();
    assert_eq!(refused.read(&mut back).await.unwrap(), 0, "a port that is closed ends the pipe");
    server.abort();
}

#[tokio::test]
async fn streaming_requests_that_make_no_sense_are_refused_and_urls_work_once() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (dir, remote, server) = served();
    let ask =
        v1::ExecRequest { container_id: "c".to_owned(), cmd: vec!["a".to_owned()], stdout: true, ..Default::default() };
    for (wrong, said) in [
        (v1::ExecRequest { cmd: vec![], ..ask.clone() }, "exec needs a command"),
        (v1::ExecRequest { stdout: false, ..ask.clone() }, "one of stdin, stdout, or stderr must be set"),
        (v1::ExecRequest { tty: true, stderr: true, ..ask.clone() }, "tty and stderr cannot both be true"),
    ] {
        let answer = remote.exec(wrong).await.map(drop).unwrap_err();
        assert_eq!(answer, CriError::InvalidArgument(said.to_owned()));
    }
    let gone = v1::ExecRequest { container_id: "x".to_owned(), ..ask.clone() };
    assert!(matches!(remote.exec(gone).await.map(drop).unwrap_err(), CriError::NotFound(_)));

    // The URL itself, asked for as any stranger on the machine could.
    let channel = tonic::transport::Endpoint::from_static("http://cri.invalid");
    let socket = dir.path().join("cri.sock");
    let channel = channel
        .connect_with_connector(tower::service_fn(move |_: tonic::transport::Uri| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
        }))
        .await
        .unwrap();
    let mut client = v1::runtime_service_client::RuntimeServiceClient::new(channel);
    let url = client.exec(ask).await.unwrap().into_inner().url;
    let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
    let path = url.strip_prefix(&format!("http://{address}")).unwrap().to_owned();
    let get = |path: String, upgrade: bool| {
        let address = address.clone();
        async move {
            let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
            let more = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n";
            let more = if upgrade { more } else { "Connection: close\r\n" };
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n").as_bytes()).await.unwrap();
            let mut line = [0; 12];
            stream.read_exact(&mut line).await.unwrap();
            String::from_utf8_lossy(&line).into_owned()
        }
    };
    assert_eq!(get(path.clone(), false).await, "HTTP/1.1 400", "no WebSocket, and the URL is not used up");
    assert_eq!(get(path.replace("/exec/", "/attach/").replace(char::is_numeric, "0"), true).await, "HTTP/1.1 404");
    assert_eq!(get("/exec/../exec/%00".to_owned(), true).await, "HTTP/1.1 404");
    assert_eq!(get(path.clone(), true).await, "HTTP/1.1 101");
    assert_eq!(get(path, true).await, "HTTP/1.1 404", "a URL works once");
    server.abort();
}
