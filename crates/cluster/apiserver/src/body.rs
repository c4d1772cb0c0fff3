//! Response bodies: a boxed stream of byte chunks, so that one type serves a stored object, a list and an endless watch.
//!
//! Invariant: a body never fails half-way with an error that a client could take for data; a stream just ends.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body_util::BodyExt;
use http_body_util::{Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, SizeHint};

/// The body of every response of [`crate::ApiServer::handle`].
pub struct Body(UnsyncBoxBody<Bytes, Infallible>);

impl Body {
    /// A body that is all there.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self(Full::new(bytes.into()).boxed_unsync())
    }

    #[must_use]
    pub fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// A body that arrives in chunks, each sent as soon as it is there.
    pub fn stream(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self(StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk)))).boxed_unsync())
    }

    /// The chunks as they come.
    pub fn into_stream(self) -> impl Stream<Item = Bytes> + Send + 'static {
        self.0.into_data_stream().filter_map(|chunk| match chunk {
            Ok(chunk) => std::future::ready(Some(chunk)),
            Err(never) => match never {},
        })
    }

    /// All bytes of a finite body: for tests and the in-process client.
    pub async fn collect(self) -> Bytes {
        match self.0.collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(never) => match never {},
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
