//! Attach and exec: the connection stops being HTTP and becomes the process's streams.
//!
//! With `Upgrade: tcp` the answer is `101 UPGRADED`; each direction then ends by itself (half-close). Without it
//! the output is the body of a plain answer.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use engine::Streams;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::stream;

/// How the streams look to the client.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub(crate) tty: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) detach_keys: Vec<u8>,
}

/// Told when the client detaches by its keys.
pub(crate) type OnDetach = Box<dyn FnOnce() + Send>;

/// How long a client may take to hang up after the end.
const LINGER: std::time::Duration = std::time::Duration::from_secs(2);

/// How long the first output waits for a client that does not read.
const HEADERS_READ_WITHIN: std::time::Duration = std::time::Duration::from_millis(500);

fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

/// Answers with the streams.
pub(crate) fn answer(mut request: Request<Body>, streams: Streams, look: Look, on_detach: OnDetach) -> Response {
    if !wants_upgrade(request.headers()) {
        let output = streams.output.filter_map(move |frame| {
            let wanted = wanted(&look, &frame);
            std::future::ready(wanted.then(|| Ok(stream::encode(&frame, look.tty))))
        });
        // Kept until the output ends: dropping it would close the process's input.
        let held = streams.stdin;
        let output = output
            .chain(futures_util::stream::once(async move { drop(held) }).filter_map(|()| std::future::ready(None)));
        return stream::body(stream::content_type(false), output);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let tty = look.tty;
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => match connection.downcast::<TokioIo<UnixStream>>() {
                Ok(parts) => {
                    let socket = parts.io.into_inner();
                    headers_read(&socket).await;
                    let (read, write) = tokio::io::split(socket);
                    pump(std::io::Cursor::new(parts.read_buf).chain(read), write, streams, look, on_detach).await;
                }
                Err(connection) => {
                    let (read, write) = tokio::io::split(TokioIo::new(connection));
                    pump(read, write, streams, look, on_detach).await;
                }
            },
            Err(error) => tracing::debug!(%error, "upgrade failed"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(stream::content_type(tty)));
    response
}

pub(crate) fn wanted(look: &Look, frame: &engine::Frame) -> bool {
    look.tty
        || match frame.channel {
            engine::Channel::Stdout => look.stdout,
            engine::Channel::Stderr => look.stderr,
        }
}

/// Waits until the client has read the headers. Clients that read ahead (Python's) throw away what comes with them, and an exec may
/// have said all that it has to say by then.
async fn headers_read(socket: &UnixStream) {
    let end = tokio::time::Instant::now() + HEADERS_READ_WITHIN;
    let mut waits = 0;
    while kernel::socket::unread_by_peer(socket).is_ok_and(|bytes| bytes > 0) && tokio::time::Instant::now() < end {
        // Nearly always it is a matter of microseconds; a busy machine gets its time.
        waits += 1;
        if waits < 50 {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

async fn pump(
    mut from_client: impl AsyncRead + Unpin,
    mut to_client: impl AsyncWrite + Unpin,
    mut streams: Streams,
    look: Look,
    on_detach: OnDetach,
) {
    let stdin = streams.stdin.take();
    let output = async {
        while let Some(frame) = streams.output.next().await {
            if wanted(&look, &frame) && to_client.write_all(&stream::encode(&frame, look.tty)).await.is_err() {
                break;
            }
        }
        let _ = to_client.shutdown().await;
    };
    let input = async {
        if feed(&mut from_client, stdin, &look).await {
            on_detach();
        } else {
            // The client's half-close: the output goes on to its end.
            std::future::pending::<()>().await;
        }
    };
    let over = tokio::select! {
        () = output => true,
        () = input => false,
    };
    if over {
        // Input that nobody reads any more would turn our close into a reset, and the client would lose what it has not read.
        let _ = tokio::time::timeout(LINGER, tokio::io::copy(&mut from_client, &mut tokio::io::sink())).await;
    }
}

/// Copies the client's bytes into the process. True when the client typed the detach keys.
pub(crate) async fn feed(
    from: &mut (impl AsyncReadExt + Unpin),
    stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    look: &Look,
) -> bool {
    let Some(mut stdin) = stdin else { return false };
    let mut buffer = vec![0u8; 32 << 10];
    let mut escape = Escape::new(if look.tty { &look.detach_keys } else { &[] });
    loop {
        let n = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        let (typed, detach) = escape.pass(&buffer[..n]);
        if stdin.write_all(&typed).await.is_err() || stdin.flush().await.is_err() {
            return false;
        }
        if detach {
            return true;
        }
    }
    let _ = stdin.shutdown().await;
    false
}

/// Keeps the detach keys from the process: what may be their beginning waits until it is known to be something else.
pub(crate) struct Escape {
    keys: Vec<u8>,
    held: usize,
}

impl Escape {
    /// Without keys everything passes.
    pub(crate) fn new(keys: &[u8]) -> Self {
        Self { keys: keys.to_vec(), held: 0 }
    }

    /// What goes to the process, and whether the whole sequence was typed.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        if self.keys.is_empty() {
            return (bytes.to_vec(), false);
        }
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.keys[self.held] != *byte {
                out.extend_from_slice(&self.keys[..self.held]);
                self.held = 0;
            }
            if self.keys[self.held] == *byte {
                self.held += 1;
                if self.held == self.keys.len() {
                    return (out, true);
                }
            } else {
                out.push(*byte);
            }
        }
        (out, false)
    }
}

/// `ctrl-p,ctrl-q`, `ctrl-@`, `a`: Docker's notation for keys. Empty means Docker's default.
pub(crate) fn parse_detach_keys(text: &str) -> Result<Vec<u8>, crate::ApiError> {
    if text.is_empty() {
        return Ok(vec![0x10, 0x11]);
    }
    let invalid = || crate::ApiError::bad_request(format!("Invalid escape keys ({text}) provided"));
    let key = |part: &str| match part.strip_prefix("ctrl-").map(str::as_bytes) {
        Some([c @ b'a'..=b'z']) => Ok(c - b'a' + 1),
        Some([c @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]) => Ok(c & 0x1f),
        Some(_) => Err(invalid()),
        None => match part.as_bytes() {
            [c] => Ok(*c),
            _ => Err(invalid()),
        },
    };
    text.split(',').map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_parsed_and_followed_over_reads() {
        assert_eq!(parse_detach_keys("").unwrap(), [16, 17]);
        assert_eq!(parse_detach_keys("ctrl-a,x,ctrl-@").unwrap(), [1, b'x', 0]);
        assert!(parse_detach_keys("ctrl-,").is_err());
        assert!(parse_detach_keys("long").is_err());
        let mut escape = Escape::new(&[16, 17]);
        assert_eq!(escape.pass(b"abc\x10"), (b"abc".to_vec(), false));
        assert_eq!(escape.pass(b"\x11"), (vec![], true));
        let mut escape = Escape::new(&[16, 17]);
        assert_eq!(escape.pass(b"\x10x\x11"), (b"\x10x\x11".to_vec(), false));
        assert_eq!(escape.pass(b"\x10\x10\x11"), (vec![0x10], true));
        assert_eq!(Escape::new(&[]).pass(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
