//! A byte stream inside a WebSocket: binary messages one after the other. `kubectl port-forward` tunnels SPDY so.
//!
//! Invariant: at most [`WINDOW_BYTES`] are held each way.

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::tungstenite::Message;

use super::Socket;

const WINDOW_BYTES: usize = 64 * 1024;

/// The near end is what `serve` speaks on; the pump runs until either side ends.
pub(super) fn open(socket: Socket) -> (DuplexStream, impl Future<Output = ()> + Send) {
    let (near, far) = tokio::io::duplex(WINDOW_BYTES);
    (near, pump(socket, far))
}

async fn pump(socket: Socket, far: DuplexStream) {
    let (mut sink, mut source) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(far);
    let up = async {
        while let Some(Ok(message)) = source.next().await {
            let data = match message {
                Message::Binary(data) => data,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => return,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            if writer.write_all(&data).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; WINDOW_BYTES / 2];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            if sink.send(Message::Binary(Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
                return;
            }
        }
        super::close(&mut sink).await.ok();
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
