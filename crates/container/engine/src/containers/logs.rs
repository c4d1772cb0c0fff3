//! Reading a container's log: from the files, following without polling (inotify).
//!
//! The monitor writes the files and rotates them (`log`, `log.1`, …); the reader follows the open file to its
//! end before it turns to the new one, so a rotation loses nothing.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Seek},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use futures_util::stream::{BoxStream, StreamExt};
use jiff::Timestamp;
use rustix::fs::inotify;
use serde::Deserialize;
use tokio::{io::unix::AsyncFd, sync::mpsc};

use super::log_options::log_file;
use crate::{
    Engine, blocking,
    error::{Error, Result},
    exec::Channel,
    table::Slot,
};

/// Rotated files that are looked for.
const MOST_FILES: u32 = 1000;
/// Entries between the reader and a slow client.
const BUFFERED: usize = 256;

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Go on with new entries until the container ends.
    pub follow: bool,
    /// Entries not before this.
    pub since: Option<Timestamp>,
    /// Entries not after this.
    pub until: Option<Timestamp>,
    /// Only the last so many.
    pub tail: Option<usize>,
}

/// One entry, with its newline when it had one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Which output.
    pub channel: Channel,
    /// The text.
    pub data: String,
    /// When.
    pub time: Timestamp,
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    log: String,
    stream: String,
    time: Timestamp,
}

impl LogOptions {
    fn wants(&self, entry: &LogEntry) -> bool {
        let channel = match entry.channel {
            Channel::Stdout => self.stdout,
            Channel::Stderr => self.stderr,
        };
        channel
            && self.since.is_none_or(|since| entry.time >= since)
            && self.until.is_none_or(|until| entry.time <= until)
    }
}

impl Engine {
    /// The log of a container of Docker's half, oldest entry first.
    pub async fn container_logs(&self, name: &str, options: LogOptions) -> Result<BoxStream<'static, LogEntry>> {
        let slot = self.find(name)?;
        let record = slot.record();
        let path = log_file(&record, &slot.dir).filter(|_| record.pod.is_none());
        let Some(path) = path else {
            return Err(Error::Unsupported("configured logging driver does not support reading".to_owned()));
        };
        let follow = options.follow && slot.pulse.borrow().running;
        let watch = if follow { Some(Watch::new(path.parent().unwrap_or(&slot.dir))?) } else { None };
        let (sender, mut receiver) = mpsc::channel(BUFFERED);
        let reader = blocking({
            let (options, path) = (options.clone(), path.clone());
            move || read_existing(&path, &options).map_err(|e| Error::file("read", &path, e))
        })
        .await?;
        tokio::spawn(async move {
            for entry in reader.entries {
                if sender.send(entry).await.is_err() {
                    return;
                }
            }
            if let Some(watch) = watch {
                follow_on(&slot, &path, reader.last, &options, watch, &sender).await;
            }
        });
        Ok(futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx)).boxed())
    }
}

struct Existing {
    entries: Vec<LogEntry>,
    last: Option<Tail>,
}

/// What is on disk now: rotated files first.
fn read_existing(path: &Path, options: &LogOptions) -> io::Result<Existing> {
    let rotated = |n: u32| PathBuf::from(format!("{}.{n}", path.display()));
    let count = (1..MOST_FILES).take_while(|n| rotated(*n).exists()).count();
    let mut entries = std::collections::VecDeque::new();
    let mut take = |entry: LogEntry| {
        entries.push_back(entry);
        if options.tail.is_some_and(|tail| entries.len() > tail) {
            entries.pop_front();
        }
    };
    let names = (1..=u32::try_from(count).unwrap_or(0)).rev().map(rotated).chain([path.to_owned()]);
    let mut last = None;
    for name in names {
        match File::open(&name) {
            Ok(file) => {
                let mut tail = Tail::new(file)?;
                tail.drain(options, &mut take)?;
                last = Some(tail);
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Existing { entries: entries.into(), last })
}

/// An open log file and the beginning of a line that is not whole yet.
struct Tail {
    reader: BufReader<File>,
    inode: u64,
    partial: Vec<u8>,
}

impl Tail {
    fn new(file: File) -> io::Result<Self> {
        let inode = file.metadata()?.ino();
        Ok(Self { reader: BufReader::new(file), inode, partial: Vec::new() })
    }

    /// Reads to the end of what is there.
    fn drain(&mut self, options: &LogOptions, take: &mut impl FnMut(LogEntry)) -> io::Result<()> {
        // A log that was truncated (one file only) starts over.
        let (position, size) = (self.reader.stream_position()?, self.reader.get_ref().metadata()?.len());
        if size < position {
            self.reader.rewind()?;
            self.partial.clear();
        }
        while self.reader.read_until(b'\n', &mut self.partial)? > 0 {
            if self.partial.last() != Some(&b'\n') {
                break;
            }
            if let Some(entry) = parse(&self.partial).filter(|entry| options.wants(entry)) {
                take(entry);
            }
            self.partial.clear();
        }
        Ok(())
    }
}

/// A damaged line (a power failure's) is left out.
fn parse(line: &[u8]) -> Option<LogEntry> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let channel = if line.stream == "stderr" { Channel::Stderr } else { Channel::Stdout };
    Some(LogEntry { channel, data: line.log, time: line.time })
}

/// Sends new entries until the container has ended and all of its log is read, or the client is gone.
async fn follow_on(
    slot: &Slot,
    path: &Path,
    mut tail: Option<Tail>,
    options: &LogOptions,
    watch: Watch,
    to: &mpsc::Sender<LogEntry>,
) {
    let mut pulse = slot.pulse.subscribe();
    loop {
        // Looked at before reading: what was written before the end is then read for sure.
        let over = !pulse.borrow_and_update().running || options.until.is_some_and(|until| Timestamp::now() > until);
        let mut fresh = Vec::new();
        let mut take = |entry| fresh.push(entry);
        if let Some(open) = &mut tail
            && open.drain(options, &mut take).is_err()
        {
            return;
        }
        if let Some(mut next) = newer(path, tail.as_ref()) {
            let read = next.drain(options, &mut take);
            tail = Some(next);
            if read.is_err() {
                return;
            }
        }
        for entry in fresh {
            if to.send(entry).await.is_err() {
                return;
            }
        }
        if over {
            return;
        }
        tokio::select! {
            () = watch.changed() => {}
            changed = pulse.changed() => if changed.is_err() { return },
            () = past(options.until) => {}
            () = to.closed() => return,
        }
    }
}

/// Ends when a moment has passed; never without one.
async fn past(moment: Option<Timestamp>) {
    match moment {
        // A little later, so that the clock has passed it for sure.
        Some(moment) => {
            let left = std::time::Duration::try_from(moment.duration_since(Timestamp::now())).unwrap_or_default();
            tokio::time::sleep(left + std::time::Duration::from_millis(5)).await;
        }
        None => std::future::pending().await,
    }
}

/// The file at the path, when it is another than the open one.
fn newer(path: &Path, open: Option<&Tail>) -> Option<Tail> {
    let file = File::open(path).ok()?;
    let inode = file.metadata().ok()?.ino();
    if open.is_some_and(|tail| tail.inode == inode) { None } else { Tail::new(file).ok() }
}

/// The descriptor is an `OwnedFd`: it stays open, and the same, as long as the registration.
#[expect(deprecated, reason = "the successor is an unsafe function, and unsafe lives in the kernel crate alone")]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

/// Wakes when something in a directory changes.
struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    fn new(dir: &Path) -> Result<Self> {
        let failed = |e: rustix::io::Errno| Error::file("watch", dir, io::Error::from(e));
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(failed)?;
        let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&fd, dir, events).map_err(failed)?;
        register(fd).map(Watch).map_err(|e| Error::file("watch", dir, e))
    }

    async fn changed(&self) {
        let Ok(mut ready) = self.0.readable().await else { return };
        // What changed does not matter, only that something did: drain all of it.
        let mut buffer = [0u8; 4096];
        while rustix::io::read(self.0.get_ref(), &mut buffer).is_ok_and(|n| n > 0) {}
        ready.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: usize, stream: &str) -> String {
        format!("{{\"log\":\"line {n}\\n\",\"stream\":\"{stream}\",\"time\":\"2026-01-01T00:00:{n:02}Z\"}}\n")
    }

    #[test]
    fn rotated_files_are_read_oldest_first_and_tail_counts_over_all_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-json.log");
        std::fs::write(dir.path().join("x-json.log.1"), line(1, "stdout") + &line(2, "stderr")).unwrap();
        std::fs::write(&path, line(3, "stdout") + "{damaged\n" + &line(4, "stdout") + "{\"log\":\"half").unwrap();
        let read = |options: LogOptions| -> Vec<String> {
            read_existing(&path, &options).unwrap().entries.into_iter().map(|e| e.data).collect()
        };
        let both = LogOptions { stdout: true, stderr: true, ..LogOptions::default() };
        assert_eq!(read(both.clone()), ["line 1\n", "line 2\n", "line 3\n", "line 4\n"]);
        assert_eq!(read(LogOptions { tail: Some(2), ..both.clone() }), ["line 3\n", "line 4\n"]);
        assert_eq!(read(LogOptions { stdout: false, ..both.clone() }), ["line 2\n"]);
        let since = Some("2026-01-01T00:00:03Z".parse().unwrap());
        assert_eq!(read(LogOptions { since, ..both }), ["line 3\n", "line 4\n"]);
    }

    #[tokio::test]
    async fn a_watch_wakes_on_a_write() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::new(dir.path()).unwrap();
        std::fs::write(dir.path().join("f"), "x").unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(1), watch.changed()).await.unwrap();
    }
}
