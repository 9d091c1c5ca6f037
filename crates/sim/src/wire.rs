//! The way from one instance of a component to the API server. Requests are slow or get lost before or after they took
//! effect, watches are late, stutter and break; an instance that was killed is not heard any more, and one may be killed
//! after its n-th change.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use auth::User;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use futures::{FutureExt, Stream};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Service, ServiceExt};

use crate::World;
use crate::journal::set_who;

/// A component that is to be killed right after one of its changes.
#[derive(Clone, Debug)]
pub(crate) struct CrashPoint {
    pub part: &'static str,
    /// Changes that still go well.
    pub left: u64,
}

/// One user's requests of one instance of a part.
#[derive(Clone)]
pub(crate) struct Wire {
    world: World,
    user: User,
    part: &'static str,
    alive: CancellationToken,
    /// What the user of the cluster asks always arrives.
    sure: bool,
}

type WireBody = UnsyncBoxBody<Bytes, BoxError>;

impl Wire {
    pub fn new(world: &World, user: User, part: &'static str, alive: CancellationToken) -> Self {
        Self { world: world.clone(), user, part, alive, sure: false }
    }

    pub fn sure(world: &World) -> Self {
        let user = User::new("user", &["system:masters"]);
        Self { world: world.clone(), user, part: "user", alive: CancellationToken::new(), sure: true }
    }

    async fn send(self, request: Request<Body>) -> Result<Response<WireBody>, BoxError> {
        let faults = &self.world.faults;
        let changes = is_change(&request);
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        if !self.sure {
            tokio::time::sleep(Duration::from_millis(faults.entropy.below(faults.profile.delay_ms_max))).await;
            if faults.strikes("request lost", faults.profile.lost_requests) {
                return Err("the request got lost".into());
            }
        }
        if changes && matches!(self.part, "manager" | "scheduler") {
            self.world.journal.asked(&self.user.name, request.method().as_str(), request.uri().path());
        }
        let Some((service, dead)) = self.world.gateway.service(&self.user) else {
            return Err("connection refused".into());
        };
        let answered = Named { name: self.user.name.to_string(), inner: service.oneshot(request).boxed() };
        let answer = tokio::select! {
            biased;
            () = dead.cancelled() => return Err("the connection was closed".into()),
            answer = answered => answer?,
        };
        if changes && self.world.crashes_after_change(self.part) {
            return std::future::pending().await;
        }
        if !self.sure && faults.strikes("answer lost", faults.profile.lost_answers) {
            return Err("the answer got lost".into());
        }
        let (parts, body) = answer.into_parts();
        let frames = body.map_err(Into::into).into_data_stream().boxed();
        let frames = if is_watch { self.trouble(frames) } else { frames };
        let frames = frames.take_until(dead.cancelled_owned()).map(|bytes| bytes.map(http_body::Frame::data));
        Ok(Response::from_parts(parts, BodyExt::boxed_unsync(StreamBody::new(frames))))
    }

    /// What a watch tells comes late, some of it twice, and it ends early.
    fn trouble(&self, frames: Frames) -> Frames {
        let (faults, sure) = (self.world.faults.clone(), self.sure);
        if sure || !faults.are_on() {
            return frames;
        }
        let lag = faults.clone();
        let frames = frames.flat_map(move |frame| {
            // Only whole lines can come twice.
            let whole = frame.as_ref().is_ok_and(|bytes| bytes.ends_with(b"\n"));
            let twice = whole && faults.strikes("watch stutters", faults.profile.watch_twice);
            let again = frame.as_ref().ok().filter(|_| twice).cloned().map(Ok);
            stream::iter([Some(frame), again].into_iter().flatten())
        });
        let late = lag.clone();
        let frames = frames.then(move |frame| {
            let faults = late.clone();
            async move {
                faults.lag("watch late", faults.profile.watch_lag_ms_max).await;
                frame
            }
        });
        if lag.profile.watch_seconds_max == 0 {
            return frames.boxed();
        }
        self.world.journal.small_fault("watch cut");
        let life = Duration::from_secs(1 + lag.entropy.below(lag.profile.watch_seconds_max));
        frames.take_until(tokio::time::sleep(life)).boxed()
    }
}

type Frames = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>;

/// What changes something, and is no heartbeat, review or event.
fn is_change(request: &Request<Body>) -> bool {
    let path = request.uri().path();
    let routine = ["/leases", "accessreviews", "/events", "tokenreviews"].iter().any(|part| path.contains(part));
    request.method() != Method::GET && !routine
}

impl Service<Request<Body>> for Wire {
    type Response = Response<WireBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let wire = self.clone();
        async move {
            let alive = wire.alive.clone();
            tokio::select! {
                biased;
                () = alive.cancelled() => std::future::pending().await,
                answer = wire.send(request) => answer,
            }
        }
        .boxed()
    }
}

/// A future that is polled in a user's name, so that the journal can tell who writes.
struct Named<F> {
    name: String,
    inner: F,
}

impl<F: Future + Unpin> Future for Named<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let before = set_who(self.name.clone());
        let polled = self.inner.poll_unpin(context);
        set_who(before);
        polled
    }
}
