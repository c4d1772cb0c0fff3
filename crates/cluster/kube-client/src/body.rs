//! A request's answer as a stream of bytes, the same over every transport.
//!
//! Transports make it, `Client` reads it. Invariant: `collect` never buffers more than its limit.

use crate::ClientError;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, Stream, StreamExt};
use std::pin::Pin;
use std::task::{Context, Poll};

pub struct Body(BoxStream<'static, Result<Bytes, ClientError>>);

impl Body {
    pub fn from_stream(stream: impl Stream<Item = Result<Bytes, ClientError>> + Send + 'static) -> Self {
        Body(stream.boxed())
    }

    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Body(futures_util::stream::once(async move { Ok(bytes) }).boxed())
    }

    pub fn empty() -> Self {
        Body(futures_util::stream::empty().boxed())
    }

    /// The whole body, or `TooLarge` once it passes `limit_bytes`.
    pub async fn collect(mut self, limit_bytes: usize) -> Result<Bytes, ClientError> {
        let Some(first) = self.0.next().await.transpose()? else {
            return Ok(Bytes::new());
        };
        let mut rest = None::<BytesMut>;
        let mut size = first.len();
        while let Some(chunk) = self.0.next().await.transpose()? {
            size += chunk.len();
            if size > limit_bytes {
                break;
            }
            rest.get_or_insert_with(|| BytesMut::from(&first[..])).extend_from_slice(&chunk);
        }
        if size > limit_bytes {
            return Err(ClientError::TooLarge { limit_bytes });
        }
        Ok(rest.map_or(first, BytesMut::freeze))
    }
}

impl Stream for Body {
    type Item = Result<Bytes, ClientError>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}
