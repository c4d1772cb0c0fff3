//! The bytes on disk: a file is a header followed by frames; a frame is one group commit.
//!
//! ```text
//! file   = "GANTRYS1" base:u64 nonce:u64 crc:u32  base: a log's first revision, or the revision a snapshot is a picture of
//! frame  = "GFRM" length:u32 crc:u32 payload
//! payload = count:u32 record*
//! record = kind:u8 mod:u64 create:u64 key_len:u32 value_len:u32 key value       (little endian; kind 1 put, 2 delete, 3 put of a
//!          value that `seal` encrypted)
//! ```
//! `crc` covers the file's nonce, the frame's offset and the payload: a frame is valid only where it was written, and
//! nobody can smuggle one in as a value. Written by `writer` and `compaction`, read by `recover`. Invariant: a frame is valid as a whole or not at all, and a
//! frame was only begun after the one before it was acknowledged as durable; so an invalid frame with a valid one
//! behind it is damage, and an invalid frame at the very end is a write that nobody was told of.

use crate::crc::crc32c;
use bytes::Bytes;

pub(crate) const FILE_MAGIC: &[u8; 8] = b"GANTRYS1";
pub(crate) const FILE_HEADER: usize = 28;
const FRAME_MAGIC: &[u8; 4] = b"GFRM";
pub(crate) const FRAME_HEADER: usize = 12;
const RECORD_HEADER: usize = 25;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const PUT_SEALED: u8 = 3;

/// One change as it stands on disk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Bytes,
    pub(crate) mod_revision: u64,
    /// None: a deletion.
    pub(crate) put: Option<PutRecord>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PutRecord {
    pub(crate) create_revision: u64,
    pub(crate) value: Bytes,
    /// Where the value begins, from the start of what was decoded.
    pub(crate) value_offset: u64,
    /// The value is encrypted.
    pub(crate) sealed: bool,
}

/// Collects records, then becomes one frame.
pub(crate) struct FrameBuilder {
    bytes: Vec<u8>,
    count: u32,
}

impl FrameBuilder {
    pub(crate) fn new() -> Self {
        FrameBuilder { bytes: vec![0; FRAME_HEADER + 4], count: 0 }
    }

    /// Appends a put; says where its value begins, from the start of the frame.
    pub(crate) fn put(&mut self, key: &[u8], create_revision: u64, mod_revision: u64, value: &[u8]) -> u64 {
        self.put_as(PUT, key, create_revision, mod_revision, value)
    }

    /// The same for a value that is encrypted already.
    pub(crate) fn put_sealed(&mut self, key: &[u8], create_revision: u64, mod_revision: u64, value: &[u8]) -> u64 {
        self.put_as(PUT_SEALED, key, create_revision, mod_revision, value)
    }

    fn put_as(&mut self, kind: u8, key: &[u8], create_revision: u64, mod_revision: u64, value: &[u8]) -> u64 {
        self.header(kind, key, mod_revision, create_revision, value.len());
        let at = self.bytes.len() as u64;
        self.bytes.extend_from_slice(value);
        at
    }

    pub(crate) fn delete(&mut self, key: &[u8], mod_revision: u64) {
        self.header(DELETE, key, mod_revision, 0, 0);
    }

    fn header(&mut self, kind: u8, key: &[u8], modified: u64, created: u64, value_len: usize) {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&modified.to_le_bytes());
        self.bytes.extend_from_slice(&created.to_le_bytes());
        self.bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&(value_len as u32).to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.count += 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Forgets everything but keeps the buffer, unless it has become large: an idle store should be small.
    pub(crate) fn clear(&mut self) {
        if self.bytes.capacity() > 1 << 20 {
            *self = FrameBuilder::new();
        }
        self.bytes.truncate(FRAME_HEADER + 4);
        self.count = 0;
    }

    /// The frame's bytes, for offset `at` of the file with `nonce`.
    pub(crate) fn finish(&mut self, nonce: u64, at: u64) -> &[u8] {
        let count = self.count.to_le_bytes();
        self.bytes[FRAME_HEADER..FRAME_HEADER + 4].copy_from_slice(&count);
        let payload = &self.bytes[FRAME_HEADER..];
        let (length, crc) = ((payload.len() as u32).to_le_bytes(), seal(nonce, at, payload).to_le_bytes());
        self.bytes[0..4].copy_from_slice(FRAME_MAGIC);
        self.bytes[4..8].copy_from_slice(&length);
        self.bytes[8..12].copy_from_slice(&crc);
        &self.bytes
    }
}

fn seal(nonce: u64, at: u64, payload: &[u8]) -> u32 {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&nonce.to_le_bytes());
    place[8..].copy_from_slice(&at.to_le_bytes());
    crc32c(crc32c(0, &place), payload)
}

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) base: u64,
    pub(crate) nonce: u64,
}

impl FileHeader {
    /// A header with a nonce that no client of the store can know.
    pub(crate) fn fresh(base: u64) -> Self {
        use std::hash::{BuildHasher, Hasher};
        FileHeader { base, nonce: std::hash::RandomState::new().build_hasher().finish() }
    }

    pub(crate) fn encode(self) -> [u8; FILE_HEADER] {
        let mut header = [0; FILE_HEADER];
        header[..8].copy_from_slice(FILE_MAGIC);
        header[8..16].copy_from_slice(&self.base.to_le_bytes());
        header[16..24].copy_from_slice(&self.nonce.to_le_bytes());
        let crc = crc32c(0, &header[..24]);
        header[24..].copy_from_slice(&crc.to_le_bytes());
        header
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..FILE_HEADER)?;
        let whole = &header[..8] == FILE_MAGIC && u32_at(header, 24)? == crc32c(0, &header[..24]);
        whole.then_some(FileHeader { base: u64_at(header, 8)?, nonce: u64_at(header, 16)? })
    }
}

/// The payload of the frame that begins at `offset`, when it is whole and its checksum holds.
pub(crate) fn payload_at(bytes: &Bytes, nonce: u64, offset: usize) -> Option<Bytes> {
    let header = bytes.get(offset..offset.checked_add(FRAME_HEADER)?)?;
    if &header[..4] != FRAME_MAGIC {
        return None;
    }
    let length = u32_at(header, 4)? as usize;
    let start = offset + FRAME_HEADER;
    let end = start.checked_add(length)?;
    let payload = bytes.get(start..end)?;
    (seal(nonce, offset as u64, payload) == u32_at(header, 8)?).then(|| bytes.slice(start..end))
}

/// Whether any valid frame begins after `offset`.
pub(crate) fn valid_frame_after(bytes: &Bytes, nonce: u64, offset: usize) -> bool {
    (offset + 1..bytes.len().saturating_sub(FRAME_HEADER))
        .any(|at| &bytes[at..at + 4] == FRAME_MAGIC && payload_at(bytes, nonce, at).is_some())
}

/// The records of a payload. None: the payload has a valid checksum and yet makes no sense.
pub(crate) fn records(payload: &Bytes) -> Option<Vec<Record>> {
    let count = u32_at(payload, 0)? as usize;
    let mut records = Vec::with_capacity(count.min(payload.len() / RECORD_HEADER));
    let mut at = 4;
    for _ in 0..count {
        let (record, next) = record_at(payload, at)?;
        records.push(record);
        at = next;
    }
    (at == payload.len()).then_some(records)
}

fn record_at(payload: &Bytes, at: usize) -> Option<(Record, usize)> {
    let kind = *payload.get(at)?;
    let mod_revision = u64_at(payload, at + 1)?;
    let create_revision = u64_at(payload, at + 9)?;
    let key_at = at + RECORD_HEADER;
    let value_at = key_at.checked_add(u32_at(payload, at + 17)? as usize)?;
    let end = value_at.checked_add(u32_at(payload, at + 21)? as usize)?;
    if end > payload.len() {
        return None;
    }
    let put = match kind {
        PUT | PUT_SEALED => Some(PutRecord {
            create_revision,
            value: payload.slice(value_at..end),
            value_offset: value_at as u64,
            sealed: kind == PUT_SEALED,
        }),
        DELETE if value_at == end => None,
        _ => return None,
    };
    Some((Record { key: payload.slice(key_at..value_at), mod_revision, put }, end))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Bytes {
        let mut builder = FrameBuilder::new();
        builder.put(b"a", 1, 3, b"value");
        builder.delete(b"b", 3);
        Bytes::copy_from_slice(builder.finish(5, 0))
    }

    #[test]
    fn records_survive_the_round_trip_and_values_stand_where_the_builder_said() {
        let mut builder = FrameBuilder::new();
        let at = builder.put(b"key", 7, 9, b"value") as usize;
        let bytes = Bytes::copy_from_slice(builder.finish(5, 0));
        assert_eq!(&bytes[at..at + 5], b"value");
        let records = records(&payload_at(&bytes, 5, 0).unwrap()).unwrap();
        let put = records[0].put.as_ref().unwrap();
        assert_eq!((put.create_revision, records[0].mod_revision, &put.value[..]), (7, 9, &b"value"[..]));
        assert_eq!(put.value_offset as usize + FRAME_HEADER, at);
    }

    #[test]
    fn any_flipped_byte_and_any_missing_tail_makes_a_frame_invalid() {
        let good = frame();
        assert_eq!(records(&payload_at(&good, 5, 0).unwrap()).unwrap().len(), 2);
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 0x10;
            assert!(payload_at(&Bytes::from(bad), 5, 0).is_none(), "byte {at} flipped");
            assert!(payload_at(&good.slice(..at), 5, 0).is_none(), "cut at {at}");
        }
        assert!(payload_at(&good, 6, 0).is_none(), "a frame of another file");
    }

    #[test]
    fn lengths_that_lie_inside_a_payload_are_refused() {
        let mut lying = 1u32.to_le_bytes().to_vec();
        lying.extend_from_slice(&[PUT; 17]);
        lying.extend_from_slice(&[0xff; 8]);
        assert!(records(&Bytes::from(lying)).is_none());
        assert!(records(&Bytes::from_static(&[0xff; 4])).is_none());
    }
}
