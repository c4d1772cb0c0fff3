//! Decodes a watch answer: one JSON document a line.
//!
//! Used by `Api::watch`. Invariant: a line never grows past its limit; an ERROR event becomes the Status that it
//! carries (410 means: list again).

use crate::api::Object;
use crate::{Body, ClientError};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::{BoxStream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::Deserialize;
use serde_json::value::RawValue;

const LINE_BYTES: usize = 16 << 20;

#[derive(Clone, Debug)]
pub enum WatchEvent<K> {
    Added(K),
    Modified(K),
    Deleted(K),
    Bookmark { resource_version: String },
}

#[derive(Deserialize)]
struct Line<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

pub(crate) fn decode<K: Object>(body: Body) -> BoxStream<'static, Result<WatchEvent<K>, ClientError>> {
    lines(body).map(|line| parse(&line?)).boxed()
}

/// The same for objects of any kind.
pub(crate) fn decode_raw(body: Body) -> BoxStream<'static, Result<(String, serde_json::Value), ClientError>> {
    lines(body).map(|line| parse_raw(&line?)).boxed()
}

fn parse_raw(line: &[u8]) -> Result<(String, serde_json::Value), ClientError> {
    let wrong = |source| ClientError::Decode { what: "a watch".to_owned(), source };
    let line: Line<'_> = serde_json::from_slice(line).map_err(wrong)?;
    if line.r#type == "ERROR" {
        let status: Status = serde_json::from_str(line.object.get()).map_err(wrong)?;
        return Err(ClientError::Status(Box::new(status)));
    }
    Ok((line.r#type.to_owned(), serde_json::from_str(line.object.get()).map_err(wrong)?))
}

fn lines(body: Body) -> impl futures_util::Stream<Item = Result<Bytes, ClientError>> + Send {
    let state = (body, BytesMut::new(), 0usize);
    futures_util::stream::try_unfold(state, |(mut body, mut buffer, mut searched)| async move {
        loop {
            if let Some(at) = buffer[searched..].iter().position(|b| *b == b'\n') {
                let line = buffer.split_to(searched + at).freeze();
                buffer.advance(1);
                searched = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some((line, (body, buffer, searched))));
            }
            searched = buffer.len();
            if searched > LINE_BYTES {
                return Err(ClientError::TooLarge { limit_bytes: LINE_BYTES });
            }
            match body.next().await.transpose()? {
                Some(chunk) => buffer.extend_from_slice(&chunk),
                // A last line without its end was cut off on the way: the watch goes on from the one before.
                None => return Ok(None),
            }
        }
    })
}

fn parse<K: Object>(line: &[u8]) -> Result<WatchEvent<K>, ClientError> {
    let wrong = |source| ClientError::Decode { what: format!("a watch of {}", K::KIND), source };
    let line: Line<'_> = serde_json::from_slice(line).map_err(wrong)?;
    let object = line.object.get();
    match line.r#type {
        "ADDED" => Ok(WatchEvent::Added(serde_json::from_str(object).map_err(wrong)?)),
        "MODIFIED" => Ok(WatchEvent::Modified(serde_json::from_str(object).map_err(wrong)?)),
        "DELETED" => Ok(WatchEvent::Deleted(serde_json::from_str(object).map_err(wrong)?)),
        "BOOKMARK" => {
            let value: serde_json::Value = serde_json::from_str(object).map_err(wrong)?;
            let version = value["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            Ok(WatchEvent::Bookmark { resource_version: version.to_owned() })
        }
        "ERROR" => {
            let status: Status = serde_json::from_str(object).map_err(wrong)?;
            Err(ClientError::Status(Box::new(status)))
        }
        other => Err(ClientError::InvalidRequest(format!("an unknown kind of watch event: {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    async fn events(chunks: &[&'static str]) -> Vec<Result<WatchEvent<Pod>, ClientError>> {
        let chunks: Vec<_> = chunks.iter().map(|c| Ok(Bytes::from_static(c.as_bytes()))).collect();
        decode(Body::from_stream(futures_util::stream::iter(chunks))).collect().await
    }

    #[tokio::test]
    async fn events_are_found_however_the_bytes_are_cut() {
        let got = events(&[
            "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"na",
            "me\":\"a\"}}}\n\n{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"7\"}}}",
            "\n{\"type\":\"DELETED\",\"object\":{}}\n{\"type\":\"ADD",
        ])
        .await;
        assert_eq!(got.len(), 3, "a cut-off last line is no event: {got:?}");
        assert!(matches!(&got[0], Ok(WatchEvent::Added(p)) if p.metadata.name.as_deref() == Some("a")));
        assert!(matches!(&got[1], Ok(WatchEvent::Bookmark { resource_version }) if resource_version == "7"));
        assert!(matches!(&got[2], Ok(WatchEvent::Deleted(_))));
    }

    #[tokio::test]
    async fn an_error_event_is_the_status_that_it_carries() {
        let got = events(&["{\"type\":\"ERROR\",\"object\":{\"code\":410,\"reason\":\"Expired\"}}\n"]).await;
        assert!(got[0].as_ref().is_err_and(ClientError::is_gone));
    }
}
