//! The streaming server: what the URLs of Exec, Attach and PortForward lead to.
//!
//! [`crate::serve`] runs one on a loopback port of its own. A URL carries a random token that is good for one connection
//! within a minute. Invariants: nothing is started before the handshake stands; a client that leaves ends the session, not
//! the container; memory is bounded by message size and back-pressure. Spoken is Kubernetes' WebSocket protocol;
//! SPDY, which it replaces, is not offered.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream::SplitStream};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as SocketError, Message,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use crate::{
    ByteStream, CriError, Duplex, Result, Session, Streaming, TerminalSize,
    channels::{self, CLOSE, ERROR, PROTOCOLS, RESIZE, STDERR, STDIN, STDOUT},
    v1,
};

const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// URLs that nobody came for yet; more are refused, as a caller that makes so many makes a mistake.
const MAX_WAITING: usize = 1000;
const HEADER_TIMEOUT: Duration = Duration::from_secs(20);
const CHUNK_BYTES: usize = 32 * 1024;
const MAX_PORTS: usize = 64;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

enum Wanted {
    Exec(v1::ExecRequest),
    Attach(v1::AttachRequest),
    Forward(v1::PortForwardRequest),
}

/// The server; made before the sockets that hand out its URLs are served.
pub(crate) struct StreamServer {
    streaming: Arc<dyn Streaming>,
    listener: TcpListener,
    base: String,
    waiting: Mutex<HashMap<String, (Instant, Wanted)>>,
}

impl StreamServer {
    pub(crate) async fn bind(streaming: Arc<dyn Streaming>) -> Result<Arc<Self>> {
        let failed = |error: std::io::Error| CriError::Unavailable(format!("streaming server: {error}"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let base = format!("http://{}", listener.local_addr().map_err(failed)?);
        Ok(Arc::new(Self { streaming, listener, base, waiting: Mutex::default() }))
    }

    pub(crate) fn exec_url(&self, request: v1::ExecRequest) -> Result<String> {
        if request.cmd.is_empty() {
            return Err(CriError::InvalidArgument("exec needs a command".to_owned()));
        }
        check(&request.container_id, request.tty, [request.stdin, request.stdout, request.stderr])?;
        self.url("exec", Wanted::Exec(request))
    }

    pub(crate) fn attach_url(&self, request: v1::AttachRequest) -> Result<String> {
        check(&request.container_id, request.tty, [request.stdin, request.stdout, request.stderr])?;
        self.url("attach", Wanted::Attach(request))
    }

    pub(crate) fn forward_url(&self, request: v1::PortForwardRequest) -> Result<String> {
        if request.pod_sandbox_id.is_empty() {
            return Err(CriError::InvalidArgument("missing required pod_sandbox_id".to_owned()));
        }
        self.url("portforward", Wanted::Forward(request))
    }

    fn url(&self, kind: &str, wanted: Wanted) -> Result<String> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, (made, _)| made.elapsed() < TOKEN_LIFE);
        if waiting.len() >= MAX_WAITING {
            return Err(CriError::Unavailable("too many streaming requests wait for their client".to_owned()));
        }
        let token = format!("{:032x}", rand::random::<u128>());
        let url = format!("{}/{kind}/{token}", self.base);
        waiting.insert(token, (Instant::now(), wanted));
        Ok(url)
    }

    fn take(&self, kind: &str, token: &str) -> Option<Wanted> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (made, wanted) = waiting.remove(token)?;
        let is_kind = match &wanted {
            Wanted::Exec(_) => kind == "exec",
            Wanted::Attach(_) => kind == "attach",
            Wanted::Forward(_) => kind == "portforward",
        };
        (is_kind && made.elapsed() < TOKEN_LIFE).then_some(wanted)
    }

    /// Accepts connections until the task is dropped.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(_) => {
                    // Out of descriptors: wait for some to be closed instead of spinning.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            let server = self.clone();
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request)) }
                });
                let mut builder = hyper::server::conn::http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
                // How a connection ends is its client's business.
                let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            });
        }
    }

    fn answer(&self, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
        let mut path = request.uri().path().trim_start_matches('/').splitn(2, '/');
        let (kind, token) = (path.next().unwrap_or_default().to_owned(), path.next().unwrap_or_default().to_owned());
        // A request that cannot become a session does not use up the token.
        let (protocol, key) = match handshake(request.headers()) {
            Ok(agreed) => agreed,
            Err(text) => return refuse(StatusCode::BAD_REQUEST, text),
        };
        let Some(wanted) = self.take(&kind, &token) else {
            return refuse(StatusCode::NOT_FOUND, "no such streaming request, or it was used or is too old".to_owned());
        };
        let ports = match ports(&wanted, request.uri().query().unwrap_or_default()) {
            Ok(ports) => ports,
            Err(text) => return refuse(StatusCode::BAD_REQUEST, text),
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let streaming = self.streaming.clone();
        tokio::spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            let config = WebSocketConfig::default()
                .max_message_size(Some(channels::MAX_MESSAGE_BYTES))
                .max_frame_size(Some(channels::MAX_MESSAGE_BYTES));
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
            // The client is gone, or was told why: nothing is left to report.
            let _ = match wanted {
                Wanted::Exec(request) => session(socket, streaming.exec(request).await).await,
                Wanted::Attach(request) => session(socket, streaming.attach(request).await).await,
                Wanted::Forward(request) => {
                    forward(socket, streaming.as_ref(), &request.pod_sandbox_id, &ports).await
                }
            };
        });
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, header::HeaderValue::from_static(protocol));
        if let Ok(accept) = header::HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        response
    }
}

fn check(container: &str, tty: bool, [stdin, stdout, stderr]: [bool; 3]) -> Result<()> {
    let invalid = |text: &str| Err(CriError::InvalidArgument(text.to_owned()));
    if container.is_empty() {
        return invalid("missing required container_id");
    }
    if tty && stderr {
        return invalid("tty and stderr cannot both be true");
    }
    if !(stdin || stdout || stderr) {
        return invalid("one of stdin, stdout, or stderr must be set");
    }
    Ok(())
}

fn refuse(code: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = code;
    response
}

/// The first of our protocols that the client offers, and its key.
fn handshake(headers: &HeaderMap) -> Result<(&'static str, String), String> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let has = |list: &str, wanted: &str| list.split(',').any(|one| one.trim().eq_ignore_ascii_case(wanted));
    if !has(text(header::CONNECTION), "upgrade") || !has(text(header::UPGRADE), "websocket") {
        return Err("unable to upgrade: a WebSocket is expected".to_owned());
    }
    let key = text(header::SEC_WEBSOCKET_KEY);
    if key.is_empty() || text(header::SEC_WEBSOCKET_VERSION) != "13" {
        return Err("WebSocket version 13 and a key are required".to_owned());
    }
    let offered = text(header::SEC_WEBSOCKET_PROTOCOL);
    let protocol = PROTOCOLS.into_iter().find(|own| has(offered, own));
    let protocol = protocol.ok_or_else(|| format!("none of the protocols {offered:?} is known: {PROTOCOLS:?}"))?;
    Ok((protocol, key.to_owned()))
}

/// Ports of a forward, from the URL or else from the request.
fn ports(wanted: &Wanted, query: &str) -> Result<Vec<u16>, String> {
    let Wanted::Forward(request) = wanted else { return Ok(Vec::new()) };
    let of_url: Vec<&str> = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("port=").or_else(|| pair.strip_prefix("ports=")))
        .flat_map(|list| list.split(','))
        .collect();
    let ports: Option<Vec<u16>> = if of_url.is_empty() {
        request.port.iter().map(|port| u16::try_from(*port).ok()).collect()
    } else {
        of_url.iter().map(|text| text.parse().ok()).collect()
    };
    match ports {
        Some(ports) if !ports.is_empty() && ports.len() <= MAX_PORTS && !ports.contains(&0) => Ok(ports),
        Some(_) | None => Err("query parameter \"port\" is required: a list of port numbers".to_owned()),
    }
}

/// One exec or attach, to its end.
async fn session(socket: Socket, started: Result<Session>) -> Result<(), SocketError> {
    let (mut sink, source) = socket.split();
    let session = match started {
        Ok(session) => session,
        Err(error) => {
            sink.send(channels::message(ERROR, channels::final_status(&Err(error)).as_bytes())).await?;
            return sink.close().await;
        }
    };
    let Session { stdin, stdout, stderr, resize, exit } = session;
    let output = async {
        let tagged = |stream: Option<ByteStream>, channel: u8| {
            stream.unwrap_or_else(|| futures_util::stream::empty().boxed()).map(move |chunk| (channel, chunk))
        };
        let mut both = futures_util::stream::select(tagged(stdout, STDOUT), tagged(stderr, STDERR));
        while let Some((channel, chunk)) = both.next().await {
            if let Ok(chunk) = chunk {
                sink.send(channels::message(channel, &chunk)).await?;
            }
        }
        sink.send(channels::message(ERROR, channels::final_status(&exit.await).as_bytes())).await?;
        sink.close().await
    };
    tokio::select! {
        result = output => result,
        // The client left: dropping the streams ends the session.
        () = input(source, stdin, resize) => Ok(()),
    }
}

async fn input(
    mut source: SplitStream<Socket>,
    mut stdin: Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>>,
    resize: mpsc::Sender<TerminalSize>,
) {
    while let Some(Ok(message)) = source.next().await {
        if matches!(message, Message::Close(_)) {
            return;
        }
        match channels::parts(message) {
            Some((STDIN, data)) => {
                if let Some(writer) = &mut stdin
                    && (writer.write_all(&data).await.is_err() || writer.flush().await.is_err())
                {
                    // The process closed its input; what else comes is dropped, as a pipe would.
                    stdin = None;
                }
            }
            Some((RESIZE, data)) => {
                if let Some(size) = terminal_size(&data) {
                    // Only the newest size matters: one that finds the queue full is followed by another.
                    let _ = resize.try_send(size);
                }
            }
            Some((CLOSE, data)) if data.first() == Some(&STDIN) => {
                if let Some(mut writer) = stdin.take() {
                    let _ = writer.shutdown().await;
                }
            }
            Some(_) | None => {}
        }
    }
}

/// `{"Width":80,"Height":24}`
fn terminal_size(text: &[u8]) -> Option<TerminalSize> {
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    let number = |name: &str| value[name].as_u64().and_then(|number| u16::try_from(number).ok());
    Some(TerminalSize { width: number("Width")?, height: number("Height")? })
}

/// Ports of a sandbox: channel 2n carries the n-th one's bytes, channel 2n+1 what went wrong with it.
async fn forward(socket: Socket, streaming: &dyn Streaming, sandbox: &str, ports: &[u16]) -> Result<(), SocketError> {
    let (mut sink, mut source) = socket.split();
    let (to_client, mut queue) = mpsc::channel::<Message>(16);
    let mut writers: Vec<Option<tokio::io::WriteHalf<Box<dyn Duplex>>>> = Vec::new();
    let mut readers = tokio::task::JoinSet::new();
    for (data, port) in (0_u8..).step_by(2).zip(ports) {
        for channel in [data, data + 1] {
            sink.send(channels::message(channel, &port.to_le_bytes())).await?;
        }
        match streaming.port_forward(sandbox, *port).await {
            Ok(stream) => {
                let (reader, writer) = tokio::io::split(stream);
                writers.push(Some(writer));
                readers.spawn(read(reader, data, to_client.clone()));
            }
            Err(error) => {
                writers.push(None);
                sink.send(channels::message(data + 1, error.to_string().as_bytes())).await?;
            }
        }
    }
    drop(to_client);
    loop {
        tokio::select! {
            outgoing = queue.recv() => match outgoing {
                Some(outgoing) => sink.send(outgoing).await?,
                // Every port is closed.
                None => break,
            },
            incoming = source.next() => match incoming {
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(message)) => write(&mut writers, message).await,
            },
        }
    }
    sink.close().await
}

async fn read(
    mut reader: tokio::io::ReadHalf<Box<dyn Duplex>>,
    channel: u8,
    to_client: mpsc::Sender<Message>,
) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = reader.read(&mut buffer).await {
        if to_client.send(channels::message(channel, &buffer[..length])).await.is_err() {
            return;
        }
    }
}

async fn write(writers: &mut [Option<tokio::io::WriteHalf<Box<dyn Duplex>>>], message: Message) {
    let Some((channel, data)) = channels::parts(message).filter(|(channel, _)| channel % 2 == 0) else { return };
    let Some(slot) = writers.get_mut(usize::from(channel / 2)) else { return };
    if let Some(writer) = slot
        && writer.write_all(&data).await.is_err()
    {
        *slot = None;
    }
}
