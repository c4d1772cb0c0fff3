//! Reads container logs in CRI's format (`time stream P|F text`).
//!
//! The gateway calls it for `kubectl logs`, observation for termination messages. Invariants: bounded memory
//! (one chunk at a time, back-pressure by the channel), following waits on inotify and never polls, and
//! a log that was rotated or deleted ends the stream instead of hanging it.

use std::{
    io::{Read, Seek, SeekFrom},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use jiff::Timestamp;
use kube_client::node::{ByteStream, GatewayError, LogOptions};
use tokio::{io::unix::AsyncFd, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;

const CHUNK: usize = 64 * 1024;
/// A line longer than this is handed out in pieces.
const LINE_LIMIT: usize = 1 << 20;

/// The text of one CRI log line, whether it ends the line, and its time.
fn parse(line: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = parts.next()?;
    let _stream = parts.next()?;
    let tag = parts.next()?;
    let text = parts.next().unwrap_or_default();
    Some((text, tag.first() == Some(&b'F'), time))
}

/// Turns raw log bytes into what the client asked for.
struct Renderer {
    options: LogOptions,
    left: Option<u64>,
    pending: Vec<u8>,
    at_line_start: bool,
}

impl Renderer {
    fn new(options: LogOptions) -> Self {
        Self { left: options.limit_bytes, options, pending: Vec::new(), at_line_start: true }
    }

    fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    fn feed(&mut self, bytes: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(bytes.len());
        self.pending.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.pending);
        let mut rest = pending.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.line(&rest[..end], &mut out);
            rest = &rest[end + 1..];
        }
        if rest.len() > LINE_LIMIT {
            self.line(rest, &mut out);
        } else {
            self.pending = rest.to_vec();
        }
        if let Some(left) = &mut self.left {
            let keep = usize::try_from(*left).unwrap_or(usize::MAX).min(out.len());
            out.truncate(keep);
            *left -= keep as u64;
        }
        out.into()
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some((text, ends, time)) = parse(line) else { return };
        if let Some(since) = self.options.since {
            let at = std::str::from_utf8(time).ok().and_then(|text| text.parse::<Timestamp>().ok());
            if at.is_some_and(|at| at < since) {
                return;
            }
        }
        if self.options.timestamps && self.at_line_start {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        out.extend_from_slice(text);
        self.at_line_start = ends;
        if ends {
            out.push(b'\n');
        }
    }
}

/// A link in a log's place is not followed, nor a pipe waited for: it would show a file of the node to whoever may read logs.
fn open(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = std::fs::File::options().read(true).custom_flags(flags.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no plain file"));
    }
    Ok(file)
}

/// Where the last `lines` full lines begin.
fn tail_offset(file: &mut std::fs::File, lines: u64) -> std::io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut at = end;
    let mut found = 0;
    let mut chunk = vec![0; CHUNK];
    while at > 0 {
        let size = CHUNK.min(usize::try_from(at).unwrap_or(CHUNK));
        let begin = at - size as u64;
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(&mut chunk[..size])?;
        for index in (0..size).rev() {
            let offset = begin + index as u64;
            if chunk[index] == b'\n' && offset + 1 < end {
                found += 1;
                if found == lines {
                    return Ok(offset + 1);
                }
            }
        }
        at = begin;
    }
    Ok(0)
}

/// The last lines of a log as plain text, for `FallbackToLogsOnError`.
pub(crate) fn last_lines(path: &Path, lines: u64, limit: usize) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = open(path)?;
        let from = tail_offset(&mut file, lines)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(1 << 20).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = Renderer::new(LogOptions::default()).feed(&bytes);
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut from = text.len().saturating_sub(limit);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].to_owned()
}

/// Streams a log. `running` tells whether more is to come; it completes when the container has ended.
pub(crate) fn stream(
    path: PathBuf,
    options: LogOptions,
    ended: impl Future<Output = ()> + Send + 'static,
) -> ByteStream {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        if let Err(error) = pump(&path, options, ended, &sender).await {
            let text = format!("read {}: {error}", path.display());
            // The client may be gone already, which is how most followed logs end.
            let _ = sender.send(Err(GatewayError::internal(text))).await;
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

type Sender = mpsc::Sender<Result<Bytes, GatewayError>>;

async fn pump(
    path: &Path,
    options: LogOptions,
    ended: impl Future<Output = ()> + Send,
    sender: &Sender,
) -> std::io::Result<()> {
    let mut file = open(path)?;
    match options.tail_lines {
        Some(0) => file.seek(SeekFrom::End(0))?,
        Some(lines) => {
            let from = tail_offset(&mut file, lines)?;
            file.seek(SeekFrom::Start(from))?
        }
        None => 0,
    };
    let follow = options.follow;
    let watch = if follow { Some(watch(path)?) } else { None };
    let mut renderer = Renderer::new(options);
    if !drain(&mut file, &mut renderer, sender).await? {
        return Ok(());
    }
    let Some(watch) = watch else { return Ok(()) };
    tokio::pin!(ended);
    loop {
        tokio::select! {
            ready = watch.readable() => {
                let mut guard = ready?;
                discard(watch.get_ref());
                guard.clear_ready();
                drop(guard);
                // The old file first, to its end; then the one that took its place.
                if is_replaced(&file, path) {
                    if !drain(&mut file, &mut renderer, sender).await? {
                        return Ok(());
                    }
                    file = open(path)?;
                    add_watch(watch.get_ref(), path)?;
                }
            }
            () = &mut ended => {
                drain(&mut file, &mut renderer, sender).await?;
                return Ok(());
            }
            () = sender.closed() => return Ok(()),
        }
        if !drain(&mut file, &mut renderer, sender).await? {
            return Ok(());
        }
    }
}

#[expect(deprecated, reason = "the replacement is unsafe for types whose descriptor may change; an OwnedFd's cannot")]
fn watch(path: &Path) -> std::io::Result<AsyncFd<OwnedFd>> {
    use rustix::fs::inotify;
    let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    add_watch(&fd, path)?;
    // A rotation makes a file of the same name.
    if let Some(dir) = path.parent() {
        inotify::add_watch(&fd, dir, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO)?;
    }
    AsyncFd::new(fd)
}


fn add_watch(fd: &OwnedFd, path: &Path) -> std::io::Result<()> {
    use rustix::fs::inotify;
    inotify::add_watch(fd, path, inotify::WatchFlags::MODIFY)?;
    Ok(())
}

/// Whether another file has the log's name by now. None at all is a rotation half-way: another event follows.
fn is_replaced(file: &std::fs::File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(open), Ok(named)) = (file.metadata(), std::fs::symlink_metadata(path)) else { return false };
    named.is_file() && (open.dev(), open.ino()) != (named.dev(), named.ino())
}

/// Empties the inotify queue: what matters is that something was written, not what it says.
fn discard(fd: &OwnedFd) {
    let mut buffer = [0_u8; 4096];
    while rustix::io::read(fd, &mut buffer).is_ok_and(|read| read > 0) {}
}

/// Sends what is there; false when nobody wants more.
async fn drain(file: &mut std::fs::File, renderer: &mut Renderer, sender: &Sender) -> std::io::Result<bool> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok(true);
        }
        let bytes = renderer.feed(&chunk[..read]);
        if !bytes.is_empty() && sender.send(Ok(bytes)).await.is_err() {
            return Ok(false);
        }
        if renderer.is_full() {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    const LOG: &str = "2026-01-01T00:00:00.1Z stdout F one\n2026-01-01T00:00:01.1Z stderr P tw\n2026-01-01T00:00:01.2Z stderr F o\n2026-01-01T00:00:02.1Z stdout F three\n";

    async fn read(options: LogOptions) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let mut stream = stream(path, options, std::future::pending());
        let mut out = Vec::new();
        while let Some(chunk) = stream.next().await {
            out.extend_from_slice(&chunk.unwrap());
        }
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn logs_honour_tail_since_timestamps_and_byte_limits() {
        let base = LogOptions::default;
        assert_eq!(read(base()).await, "one\ntwo\nthree\n");
        assert_eq!(read(LogOptions { tail_lines: Some(1), ..base() }).await, "three\n");
        assert_eq!(read(LogOptions { tail_lines: Some(99), ..base() }).await, "one\ntwo\nthree\n");
        assert_eq!(read(LogOptions { tail_lines: Some(0), ..base() }).await, "");
        assert_eq!(read(LogOptions { limit_bytes: Some(5), ..base() }).await, "one\nt");
        let since = Some("2026-01-01T00:00:02Z".parse().unwrap());
        assert_eq!(read(LogOptions { since, ..base() }).await, "three\n");
        let stamped = read(LogOptions { timestamps: true, tail_lines: Some(1), ..base() }).await;
        assert_eq!(stamped, "2026-01-01T00:00:02.1Z three\n");
    }

    #[tokio::test]
    async fn a_log_that_is_a_link_or_a_pipe_shows_nothing_of_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, LOG).unwrap();
        let link = dir.path().join("0.log");
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        let pipe = dir.path().join("1.log");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        for path in [link, pipe] {
            assert_eq!(last_lines(&path, 10, 100), "");
            let mut stream = stream(path, LogOptions::default(), std::future::pending());
            let first = tokio::time::timeout(std::time::Duration::from_secs(5), stream.next()).await.unwrap();
            assert!(first.unwrap().is_err());
        }
    }

    #[tokio::test]
    async fn a_followed_log_goes_on_in_the_file_that_a_rotation_made() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let options = LogOptions { follow: true, tail_lines: Some(0), ..LogOptions::default() };
        let mut stream = stream(path.clone(), options, std::future::pending());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        let mut old = std::fs::OpenOptions::new().append(true).open(dir.path().join("0.log.1")).unwrap();
        old.write_all(b"2026-01-01T00:00:03Z stdout F last\n").unwrap();
        std::fs::write(&path, "2026-01-01T00:00:04Z stdout F first\n").unwrap();
        let mut text = Vec::new();
        while text != b"last\nfirst\n" {
            let next = tokio::time::timeout(std::time::Duration::from_secs(5), stream.next()).await;
            text.extend_from_slice(&next.expect("both files are read").unwrap().unwrap());
            assert!(text.len() <= 11, "{:?}", String::from_utf8_lossy(&text));
        }
        let mut new = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        new.write_all(b"2026-01-01T00:00:05Z stdout F more\n").unwrap();
        let next = tokio::time::timeout(std::time::Duration::from_secs(5), stream.next()).await;
        assert_eq!(next.unwrap().unwrap().unwrap(), "more\n");
    }

    #[tokio::test]
    async fn a_followed_log_shows_new_lines_at_once_and_ends_with_the_container() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let options = LogOptions { follow: true, tail_lines: Some(0), ..LogOptions::default() };
        let mut stream = stream(path.clone(), options, async { drop(ended.await) });
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"2026-01-01T00:00:03Z stdout F four\n").unwrap();
        let next = tokio::time::timeout(std::time::Duration::from_secs(1), stream.next()).await;
        assert_eq!(next.unwrap().unwrap().unwrap(), "four\n");
        end.send(()).unwrap();
        assert!(stream.next().await.is_none());
    }
}
