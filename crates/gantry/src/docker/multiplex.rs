//! The Engine API's multiplexed stream: eight bytes of header (stream, three zeros, length), then the payload.

use anyhow::{Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Copies a multiplexed stream to standard output and standard error until it ends.
pub(crate) async fn demultiplex(mut from: impl AsyncRead + Unpin) -> Result<()> {
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    let mut header = [0u8; 8];
    loop {
        match from.read_exact(&mut header).await {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let length = u64::from(u32::from_be_bytes([header[4], header[5], header[6], header[7]]));
        let mut payload = (&mut from).take(length);
        match header[0] {
            0 | 1 => copy(&mut payload, &mut stdout).await?,
            2 => copy(&mut payload, &mut stderr).await?,
            other => bail!("the engine sent a frame of the unknown stream {other}"),
        }
    }
}

/// What a whole multiplexed answer carries, both streams in the order of their frames.
pub(crate) fn payloads(mut frames: &[u8]) -> Vec<u8> {
    let mut found = Vec::with_capacity(frames.len());
    while let Some((header, rest)) = frames.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let (payload, behind) = rest.split_at(length.min(rest.len()));
        found.extend_from_slice(payload);
        frames = behind;
    }
    found
}

async fn copy(from: &mut (impl AsyncRead + Unpin), into: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
    tokio::io::copy(from, into).await?;
    into.flush().await?;
    Ok(())
}
