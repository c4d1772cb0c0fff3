//! Netlink's wire format: a builder for requests, an iterator over attributes of answers.
//!
//! Invariant: what is built is always well-formed (lengths patched when a part is closed); what is read is never trusted
//! to be: a length that does not fit ends the iteration.

pub(crate) const HEADER_LEN: usize = 16;
pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

fn align(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// One request under construction. Its sequence number is given by the socket.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    /// For error messages: what this request was to do.
    pub(crate) what: String,
}

impl Message {
    pub(crate) fn new(kind: u16, flags: u16, what: impl Into<String>) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes, what: what.into() }
    }

    /// The fixed part that follows the header.
    pub(crate) fn fixed(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    pub(crate) fn attr(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        let len = u16::try_from(4 + payload.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&payload[..usize::from(len) - 4]);
        self.pad();
        self
    }

    /// A string with its terminating zero.
    pub(crate) fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut payload = Vec::with_capacity(text.len() + 1);
        payload.extend(text.bytes().filter(|b| *b != 0));
        payload.push(0);
        self.attr(kind, &payload)
    }

    pub(crate) fn u32_be(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    pub(crate) fn u32_ne(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// An attribute made of attributes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let len = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self
    }

    /// Raw bytes inside a nest (the fixed part of a nested message).
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the finished request to `out`.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>, sequence: u32) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        out[start..start + 4].copy_from_slice(&len.to_ne_bytes());
        out[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(align(self.bytes.len()), 0);
    }
}

/// One message of an answer.
#[derive(Debug)]
pub(crate) struct Reply<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

/// Splits a datagram into its messages.
pub(crate) fn replies(mut bytes: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    std::iter::from_fn(move || {
        let len = read_u32(bytes, 0)? as usize;
        if len < HEADER_LEN || len > bytes.len() {
            return None;
        }
        let reply = Reply {
            kind: read_u16(bytes, 4)?,
            flags: read_u16(bytes, 6)?,
            sequence: read_u32(bytes, 8)?,
            payload: &bytes[HEADER_LEN..len],
        };
        bytes = &bytes[align(len).min(bytes.len())..];
        Some(reply)
    })
}

/// Type and payload of each attribute.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(read_u16(bytes, 0)?);
        let kind = read_u16(bytes, 2)? & TYPE_MASK;
        if len < 4 || len > bytes.len() {
            return None;
        }
        let payload = &bytes[4..len];
        bytes = &bytes[align(len).min(bytes.len())..];
        Some((kind, payload))
    })
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A string attribute without its terminating zero.
pub(crate) fn read_text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_reads_back() {
        let mut message = Message::new(16, ACK, "test").fixed(&[1, 2, 3]);
        message.text(3, "eth0").nest(18, |m| {
            m.u32_ne(1, 7);
        });
        let mut bytes = Vec::new();
        message.write_to(&mut bytes, 9);
        let reply = replies(&bytes).next().unwrap();
        assert_eq!((reply.kind, reply.sequence, reply.flags), (16, 9, ACK | REQUEST));
        let found: Vec<_> = attributes(&reply.payload[4..]).collect();
        assert_eq!(read_text(found[0].1), "eth0");
        assert_eq!(attributes(found[1].1).next(), Some((1, &7u32.to_ne_bytes()[..])));
    }

    #[test]
    fn lengths_that_lie_end_the_reading() {
        assert_eq!(attributes(&[200, 0, 1, 0, 5]).count(), 0);
        assert_eq!(attributes(&[0, 0, 1, 0]).count(), 0);
        assert_eq!(replies(&[255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).count(), 0);
    }
}
