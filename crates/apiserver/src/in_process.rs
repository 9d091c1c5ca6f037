//! The server as a tower service for components of the same process: no socket, no TLS, the same chain.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use auth::User;
use bytes::Bytes;
use http::{Request, Response};

use crate::authn::Origin;
use crate::chain;
use crate::http::body::boxed;
use crate::http::{Body, BoxError};
use crate::state::Api;

/// Made by `Handle::service_as`. Cheap to clone.
#[derive(Clone)]
pub struct InProcess {
    api: Arc<Api>,
    user: User,
}

impl InProcess {
    pub(crate) fn new(api: Arc<Api>, user: User) -> Self {
        Self { api, user }
    }

    /// The same server for another identity.
    pub fn with_user(&self, user: User) -> Self {
        Self { api: self.api.clone(), user }
    }
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (api, origin) = (self.api.clone(), Origin::InProcess(self.user.clone()));
        Box::pin(async move { Ok(chain::handle(api, request.map(boxed), origin).await) })
    }
}
