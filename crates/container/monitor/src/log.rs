//! A container's log file: what its streams say, line by line, in Docker's or the kubelet's form.
//!
//! Written by the monitor alone, with one `write` for what one read brought, so a reader that follows sees whole entries.
//! Invariant: every byte that the container wrote is in the log, in order, whatever its length and encoding; rotation renames whole files between entries.

mod file;
mod format;

use jiff::Timestamp;

use crate::{LogFormat, LogPolicy, StdStream};
use file::LogFile;

/// Longer lines are split, as Docker and containerd do.
const LINE_LIMIT: usize = 16 << 10;

#[derive(Debug)]
pub(crate) struct Log {
    format: LogFormat,
    file: Option<LogFile>,
    stdout: Pending,
    stderr: Pending,
}

/// The beginning of a line whose end has not come.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Docker gives all pieces of a split line the time of the first.
    split_since: Option<Timestamp>,
}

/// One entry: a line, or a piece of one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) stream: StdStream,
    pub(crate) text: &'a [u8],
    pub(crate) time: Timestamp,
    /// Ends with a newline in the container's output.
    pub(crate) complete: bool,
}

impl Log {
    pub(crate) fn open(policy: &LogPolicy) -> std::io::Result<Self> {
        let file = match policy.format {
            LogFormat::None => None,
            LogFormat::JsonFile | LogFormat::Cri => Some(LogFile::open(policy)?),
        };
        Ok(Log { format: policy.format, file, stdout: Pending::default(), stderr: Pending::default() })
    }

    pub(crate) fn keeps(&self) -> bool {
        self.file.is_some()
    }

    /// What a stream said at `time`.
    pub(crate) fn write(&mut self, stream: StdStream, mut data: &[u8], time: Timestamp) {
        let Some(file) = &mut self.file else { return };
        let pending = match stream {
            StdStream::Stdout => &mut self.stdout,
            StdStream::Stderr => &mut self.stderr,
        };
        while !data.is_empty() {
            let room = LINE_LIMIT - pending.bytes.len();
            let end = data.iter().take(room + 1).position(|byte| *byte == b'\n');
            let (taken, complete) = match end {
                Some(end) => (end, true),
                None => (data.len().min(room), false),
            };
            pending.bytes.extend_from_slice(&data[..taken]);
            data = &data[taken + usize::from(complete)..];
            if complete || (pending.bytes.len() == LINE_LIMIT && !data.is_empty()) {
                pending.emit(stream, self.format, file, time, complete);
            }
        }
        file.flush();
    }

    /// The streams are at their end: a last line without a newline is logged as what it is.
    pub(crate) fn finish(&mut self, time: Timestamp) {
        let Some(file) = &mut self.file else { return };
        for (stream, pending) in [(StdStream::Stdout, &mut self.stdout), (StdStream::Stderr, &mut self.stderr)] {
            if !pending.bytes.is_empty() {
                pending.emit(stream, self.format, file, time, false);
            }
        }
        file.flush();
    }

    /// The file was renamed by someone else (the kubelet rotates so): go on in a new one.
    pub(crate) fn reopen(&mut self) -> std::io::Result<()> {
        self.file.as_mut().map_or(Ok(()), LogFile::reopen)
    }
}

impl Pending {
    fn emit(&mut self, stream: StdStream, format: LogFormat, file: &mut LogFile, now: Timestamp, complete: bool) {
        let time = *self.split_since.get_or_insert(now);
        file.begin_entry();
        format::append(format, &Entry { stream, text: &self.bytes, time, complete }, file.buffer());
        file.end_entry();
        self.bytes.clear();
        if complete {
            self.split_since = None;
        }
    }
}

#[cfg(test)]
mod tests;
