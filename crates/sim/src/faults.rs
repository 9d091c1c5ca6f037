//! A service that misbehaves from a seed: requests are slow, get lost before or after they took effect, and watches break.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use client::Entropy;
use futures::{FutureExt, StreamExt};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use tower::{BoxError, Service, ServiceExt};

/// In a thousand requests, so many get lost before they arrive, and so many of the answers.
const LOST_REQUESTS: u64 = 10;
const LOST_ANSWERS: u64 = 10;
const DELAY_MS_MAX: u64 = 20;
const WATCH_LAG_MS_MAX: u64 = 300;
const WATCH_SECONDS_MAX: u64 = 120;

/// Shared by all clients of a simulation.
#[derive(Clone)]
pub struct Faults {
    entropy: Entropy,
    on: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    start: tokio::time::Instant,
}

impl Faults {
    pub fn new(entropy: Entropy) -> Self {
        Self { entropy, on: Arc::default(), count: Arc::default(), start: tokio::time::Instant::now() }
    }

    pub fn turn(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    pub fn are_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// How many requests, answers and watches were lost.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub fn wrap<S>(&self, service: S) -> Faulty<S> {
        Faulty { faults: self.clone(), service }
    }

    /// True in `per_mille` of the cases, and only while faults are on.
    fn strikes(&self, per_mille: u64) -> bool {
        let strikes = self.are_on() && self.entropy.below(1000) < per_mille;
        self.count.fetch_add(u64::from(strikes), Ordering::Relaxed);
        strikes
    }
}

#[derive(Clone)]
pub struct Faulty<S> {
    faults: Faults,
    service: S,
}

type FaultyBody = UnsyncBoxBody<Bytes, BoxError>;

impl<S, B> Service<Request<Body>> for Faulty<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: http_body_util::BodyExt + http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<FaultyBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (faults, service) = (self.faults.clone(), self.service.clone());
        async move {
            tracing::debug!(at = ?faults.start.elapsed(), method = %request.method(), uri = %request.uri(), "request");
            let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            tokio::time::sleep(Duration::from_millis(faults.entropy.below(DELAY_MS_MAX))).await;
            if faults.strikes(LOST_REQUESTS) {
                return Err("the request got lost".into());
            }
            let answer = service.oneshot(request).await.map_err(Into::into)?;
            if faults.strikes(LOST_ANSWERS) {
                return Err("the answer got lost".into());
            }
            let (parts, body) = answer.into_parts();
            let body = body.map_err(Into::into);
            if !is_watch || !faults.are_on() {
                return Ok(Response::from_parts(parts, body.boxed_unsync()));
            }
            let end = tokio::time::sleep(Duration::from_secs(1 + faults.entropy.below(WATCH_SECONDS_MAX)));
            faults.count.fetch_add(1, Ordering::Relaxed);
            let frames = body.into_data_stream().map(|bytes| bytes.map(http_body::Frame::data)).take_until(end);
            // What a watch tells is late, so that caches are behind.
            let frames = frames.then(move |frame| {
                let late = Duration::from_millis(faults.entropy.below(WATCH_LAG_MS_MAX));
                async move {
                    tokio::time::sleep(late).await;
                    frame
                }
            });
            Ok(Response::from_parts(parts, BodyExt::boxed_unsync(StreamBody::new(frames))))
        }
        .boxed()
    }
}
