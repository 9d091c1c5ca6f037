//! The body of answers: bytes at once, chunks made one by one, or a stream. And requests' bodies, of whatever transport, boxed.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use machinery::status::StatusError;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type RequestBody = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// Upstream's limit for request bodies, in bytes.
pub const MAX_REQUEST_BYTES: usize = 3 * 1024 * 1024;

pub enum Body {
    Full(Option<Bytes>),
    /// Chunks made as the connection takes them.
    Lazy(Box<dyn Iterator<Item = Bytes> + Send>),
    Stream(BoxStream<'static, Result<Bytes, BoxError>>),
    /// The answer of another server, passed through.
    Proxied(hyper::body::Incoming),
    /// Another one, and something kept until it was sent or given up.
    Kept(Box<Held<Box<dyn std::any::Any + Send>>>),
}

impl Body {
    pub fn empty() -> Self {
        Self::Full(None)
    }

    /// A body that keeps something until it was sent or given up.
    pub fn held(body: Self, kept: impl Send + 'static) -> Self {
        Self::Kept(Box::new(Held::new(body, Box::new(kept))))
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self::Full(Some(bytes.into()))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Lazy(chunks) => Poll::Ready(chunks.next().map(|b| Ok(Frame::data(b)))),
            Self::Stream(stream) => stream.poll_next_unpin(cx).map(|next| next.map(|r| r.map(Frame::data))),
            Self::Proxied(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Kept(held) => Pin::new(&mut **held).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Lazy(_) | Self::Stream(_) => false,
            Self::Proxied(body) => http_body::Body::is_end_stream(body),
            Self::Kept(held) => held.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Lazy(_) | Self::Stream(_) => SizeHint::default(),
            Self::Proxied(body) => http_body::Body::size_hint(body),
            Self::Kept(held) => held.size_hint(),
        }
    }
}

/// A body that keeps something until it was sent or given up.
pub struct Held<T> {
    body: Body,
    _kept: T,
}

impl<T> Held<T> {
    pub fn new(body: Body, kept: T) -> Self {
        Self { body, _kept: kept }
    }
}

impl<T: Unpin> http_body::Body for Held<T> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The whole body, or 413 where it is larger than upstream allows.
pub async fn read(mut body: RequestBody) -> Result<Bytes, StatusError> {
    let too_large = || StatusError::request_entity_too_large(format!("Request entity too large: limit is {MAX_REQUEST_BYTES}"));
    if body.size_hint().lower() > MAX_REQUEST_BYTES as u64 {
        return Err(too_large());
    }
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| StatusError::bad_request(format!("the body could not be read: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if all.len() + data.len() > MAX_REQUEST_BYTES {
            return Err(too_large());
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

/// Any body as ours.
pub fn boxed<B>(body: B) -> RequestBody
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}
