//! How an object lies in the store: JSON with `metadata.resourceVersion` at a known place, so that the revision can be put
//! in at commit, and another one for a deletion event, without decoding anything.
//!
//! Invariant: every stored value begins `{"apiVersion":A,"kind":K,"metadata":{"resourceVersion":"N",` and is a complete
//! object that can be sent as it is.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::{Map, Value};

const VERSION_FIELD: &[u8] = b",\"metadata\":{\"resourceVersion\":\"";

/// An encoded object that still lacks its revision.
#[derive(Clone)]
pub(crate) struct Encoded {
    head: Bytes,
    tail: Bytes,
}

impl Encoded {
    pub(crate) fn new(object: &Value) -> Self {
        let empty = Map::new();
        let text = |field: &str| object.get(field).cloned().unwrap_or_else(|| Value::String(String::new()));
        let mut head = format!("{{\"apiVersion\":{},\"kind\":{}", text("apiVersion"), text("kind")).into_bytes();
        head.extend_from_slice(VERSION_FIELD);

        let mut tail = b"\"".to_vec();
        let metadata = object.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
        write_members(&mut tail, metadata, &["resourceVersion"]);
        tail.push(b'}');
        write_members(&mut tail, object.as_object().unwrap_or(&empty), &["apiVersion", "kind", "metadata"]);
        tail.push(b'}');
        Self { head: head.into(), tail: tail.into() }
    }

    pub(crate) fn at(&self, revision: u64) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.head.len() + self.tail.len() + 20);
        bytes.put_slice(&self.head);
        bytes.put_slice(revision.to_string().as_bytes());
        bytes.put_slice(&self.tail);
        bytes.freeze()
    }
}

/// `,"key":value` for each member but those left out.
fn write_members(out: &mut Vec<u8>, members: &Map<String, Value>, without: &[&str]) {
    for (key, value) in members {
        if without.contains(&key.as_str()) {
            continue;
        }
        // Writing a `Value` to memory cannot fail: its keys are strings and nothing in it is fallible.
        out.push(b',');
        out.extend_from_slice(Value::String(key.clone()).to_string().as_bytes());
        out.push(b':');
        if serde_json::to_writer(&mut *out, value).is_err() {
            out.extend_from_slice(b"null");
        }
    }
}

/// Where the digits of the revision are.
fn version_range(stored: &[u8]) -> Option<std::ops::Range<usize>> {
    let start = stored.windows(VERSION_FIELD.len()).position(|window| window == VERSION_FIELD)? + VERSION_FIELD.len();
    let length = stored[start..].iter().position(|&byte| byte == b'"')?;
    Some(start..start + length)
}

/// The revision that a stored object names.
pub(crate) fn revision(stored: &[u8]) -> u64 {
    let digits = version_range(stored).and_then(|range| std::str::from_utf8(&stored[range]).ok());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// The same object with another revision: what a deletion event carries.
pub(crate) fn with_revision(stored: &Bytes, revision: u64) -> Bytes {
    let Some(range) = version_range(stored) else {
        return stored.clone();
    };
    let mut bytes = BytesMut::with_capacity(stored.len() + 20);
    bytes.put_slice(&stored[..range.start]);
    bytes.put_slice(revision.to_string().as_bytes());
    bytes.put_slice(&stored[range.end..]);
    bytes.freeze()
}

/// The object as a client of `api_version` is to see it. Stored and served version are nearly always the same.
pub(crate) fn in_version(stored: &Bytes, api_version: &str) -> Bytes {
    let expected = format!("{{\"apiVersion\":\"{api_version}\",");
    if stored.starts_with(expected.as_bytes()) {
        return stored.clone();
    }
    let Some(end) = stored.iter().position(|&byte| byte == b',') else {
        return stored.clone();
    };
    let mut bytes = BytesMut::with_capacity(stored.len() + expected.len());
    bytes.put_slice(expected.as_bytes());
    bytes.put_slice(&stored[end + 1..]);
    bytes.freeze()
}

/// A stored value as a tree. What we wrote is valid JSON; damage on disk is the store's to find, and reads as null.
pub(crate) fn decode(stored: &[u8]) -> Value {
    serde_json::from_slice(stored).unwrap_or_else(|error| {
        tracing::error!(%error, "a stored object cannot be decoded");
        Value::Null
    })
}

/// `object[a][b]…` as text, empty when it is not there.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tricky() -> Value {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"annotations": {"resourceVersion": "1", "x": ",\"metadata\":{\"resourceVersion\":\"9\""}, "name": "a"},
            "data": {"metadata": "z"},
        })
    }

    #[test]
    fn the_revision_is_put_in_at_commit_and_replaced_in_a_deletion_event() {
        let encoded = Encoded::new(&tricky());
        let mut expected = tricky();
        expected["metadata"]["resourceVersion"] = "41".into();
        let stored = encoded.at(41);
        assert_eq!(decode(&stored), expected);
        expected["metadata"]["resourceVersion"] = "1234567".into();
        assert_eq!(decode(&with_revision(&stored, 1_234_567)), expected);
    }

    #[test]
    fn another_served_version_changes_the_api_version_alone() {
        let stored = Encoded::new(&tricky()).at(3);
        let mut expected = decode(&stored);
        expected["apiVersion"] = "example.com/v2".into();
        assert_eq!(decode(&in_version(&stored, "example.com/v2")), expected);
        assert_eq!(in_version(&stored, "v1"), stored);
    }
}
