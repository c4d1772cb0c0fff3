//! Reading and unlinking blobs; ranges.

use std::io::{Read, Seek, SeekFrom};

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use oci::Digest;

use super::reply::{self, Body, Failure};
use super::{Call, Registry};

const CHUNK: usize = 256 << 10;

impl Registry {
    pub(super) fn get_blob(&self, call: &Call<'_>, digest: &Digest) -> Result<Response<Body>, Failure> {
        if !self.shared.index.has_blob(call.repository, digest) {
            return Err(Failure::blob_unknown(digest));
        }
        // Once more after the touch: a collection that came between has taken the link, and then the answer is no.
        self.shared.recent.touch(call.repository, digest);
        if !self.shared.index.has_blob(call.repository, digest) {
            return Err(Failure::blob_unknown(digest));
        }
        let blob = self.shared.content.get(digest)?;
        let name = digest.to_string();
        let etag = format!("\"{name}\"");
        let common = [
            ("docker-content-digest", name.as_str()),
            ("content-type", "application/octet-stream"),
            ("accept-ranges", "bytes"),
            ("etag", &etag),
        ];
        let (status, start, length) = match call.header("range") {
            None => (200, 0, blob.size),
            Some(range) => {
                let (start, end) = parse_range(range, blob.size)
                    .ok_or_else(|| Failure::new(416, "BLOB_UNKNOWN", "range not satisfiable"))?;
                (206, start, end - start + 1)
            }
        };
        let length_text = length.to_string();
        let range_text = format!("bytes {start}-{}/{}", (start + length).saturating_sub(1), blob.size);
        let mut headers = common.to_vec();
        headers.push(("content-length", &length_text));
        if status == 206 {
            headers.push(("content-range", &range_text));
        }
        if call.request.method() == http::Method::HEAD {
            return Ok(reply::status(status, &headers));
        }
        self.shared.metrics.sent_bytes.fetch_add(length, std::sync::atomic::Ordering::Relaxed);
        Ok(reply::with_body(status, &headers, file_body(blob.file, start, length)))
    }

    pub(super) fn delete_blob(&self, call: &Call<'_>, digest: &Digest) -> Result<Response<Body>, Failure> {
        if !self.shared.index.unlink_blob(call.repository, digest)? {
            return Err(Failure::blob_unknown(digest));
        }
        self.shared.recent.wanted.notify_one();
        Ok(reply::status(202, &[("content-length", "0")]))
    }
}

/// One range of bytes, inclusive; several at once are not offered.
fn parse_range(text: &str, size: u64) -> Option<(u64, u64)> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let last = size.checked_sub(1)?;
    let (start, end) = match (from, to) {
        ("", suffix) => (size.saturating_sub(suffix.parse().ok()?), last),
        (from, "") => (from.parse().ok()?, last),
        (from, to) => (from.parse().ok()?, to.parse::<u64>().ok()?.min(last)),
    };
    (start <= end).then_some((start, end))
}

/// A part of a file, read off the async threads piece by piece.
fn file_body(file: std::fs::File, start: u64, length: u64) -> Body {
    let chunks = stream::try_unfold((file, start, length), |(file, at, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let read = move || -> std::io::Result<_> {
            let mut file = file;
            let mut bytes = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(&mut bytes)?;
            Ok((file, bytes))
        };
        let (file, bytes) = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)??;
        let n = bytes.len() as u64;
        Ok::<_, std::io::Error>(Some((Frame::data(Bytes::from(bytes)), (file, at + n, left - n))))
    });
    StreamBody::new(chunks).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::parse_range;

    #[test]
    fn ranges_are_cut_to_the_blob_and_nonsense_is_refused() {
        for (text, size, expected) in [
            ("bytes=0-", 10, Some((0, 9))),
            ("bytes=5-100", 10, Some((5, 9))),
            ("bytes=-3", 10, Some((7, 9))),
            ("bytes=10-", 10, None),
            ("bytes=5-4", 10, None),
            ("bytes=0-1,3-4", 10, None),
            ("bytes=-0", 10, None),
            ("bytes=0-", 0, None),
            ("bytes=18446744073709551616-", 10, None),
        ] {
            assert_eq!(parse_range(text, size), expected, "{text} of {size}");
        }
    }
}
