//! What a component's requests to the API server, its work queues and its elections are counted by: upstream's names. The
//! component has a [`Registry`] of its own, and gives it to its client and its queues.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use kube::client::Body;
use telemetry::metrics::Registry;
use tokio::time::Instant;
use tower::Service;

telemetry::metrics_table! {
    REQUESTS Counter ALPHA "rest_client_requests_total"
        ["code" "host" "method"] []
        "Requests to the API server by the code of the answer."
    REQUEST_DURATION Histogram ALPHA "rest_client_request_duration_seconds"
        ["host" "verb"] [0.005 0.025 0.1 0.25 0.5 1.0 2.0 4.0 8.0 15.0 30.0 60.0]
        "Time until the API server answered."
    LEADER Gauge ALPHA "leader_election_master_status"
        ["name"] []
        "Whether this process holds the lease."
    QUEUE_DEPTH Gauge BETA "workqueue_depth"
        ["name"] []
        "Keys that wait."
    QUEUE_ADDS Counter BETA "workqueue_adds_total"
        ["name"] []
        "Keys that were added."
    QUEUE_WAIT Histogram BETA "workqueue_queue_duration_seconds"
        ["name"] [0.00000001 0.0000001 0.000001 0.000009999999999999999 0.00009999999999999999 0.001 0.01 0.1 1.0 10.0]
        "How long keys waited."
    QUEUE_WORK Histogram BETA "workqueue_work_duration_seconds"
        ["name"] [0.00000001 0.0000001 0.000001 0.000009999999999999999 0.00009999999999999999 0.001 0.01 0.1 1.0 10.0]
        "How long keys were worked on."
    QUEUE_UNFINISHED Gauge BETA "workqueue_unfinished_work_seconds"
        ["name"] []
        "How long the keys that are worked on have been, in all."
    QUEUE_LONGEST Gauge BETA "workqueue_longest_running_processor_seconds"
        ["name"] []
        "How long the oldest of them has been."
    QUEUE_RETRIES Counter BETA "workqueue_retries_total"
        ["name"] []
        "Keys that come again after a failure."
}

/// A service whose requests are counted.
#[derive(Clone)]
pub struct Metered<S> {
    service: S,
    registry: Arc<Registry>,
    host: Arc<str>,
}

impl<S> Metered<S> {
    /// `host` is where the API server is, as `host:port`.
    pub fn new(service: S, registry: Arc<Registry>, host: &str) -> Self {
        Self { service, registry, host: host.into() }
    }
}

impl<S, B> Service<Request<Body>> for Metered<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    B: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (method, began) = (request.method().clone(), Instant::now());
        let (registry, host) = (self.registry.clone(), self.host.clone());
        let answer = self.service.call(request);
        async move {
            let answer = answer.await;
            registry.observe(&REQUEST_DURATION, &[&host, method.as_str()], began.elapsed().as_secs_f64());
            let status = answer.as_ref().map(Response::status);
            // Where there was no answer, client-go says so, too.
            let code = status.as_ref().map_or("<error>", http::StatusCode::as_str);
            registry.count(&REQUESTS, &[code, &host, method.as_str()]);
            answer
        }
        .boxed()
    }
}

/// Counts the requests of a client that is made from a configuration.
#[derive(Clone)]
pub(crate) struct Layer(pub Arc<Registry>, pub String);

impl<S> tower::Layer<S> for Layer {
    type Service = Metered<S>;

    fn layer(&self, service: S) -> Metered<S> {
        Metered::new(service, self.0.clone(), &self.1)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Method;

    use super::*;

    #[tokio::test]
    async fn requests_are_counted_by_code_and_method() {
        let registry = Arc::new(Registry::new(&[ALL]));
        let service = tower::service_fn(|request: Request<Body>| async move {
            let mut answer = Response::new(Body::empty());
            if request.uri().path() == "/none" {
                *answer.status_mut() = http::StatusCode::NOT_FOUND;
            }
            Ok::<_, Infallible>(answer)
        });
        let mut service = Metered::new(service, registry.clone(), "h:1");
        for (method, path) in [(Method::GET, "/"), (Method::GET, "/"), (Method::GET, "/none"), (Method::POST, "/")] {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            service.call(request).await.unwrap();
        }
        let text = registry.text();
        let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        has("rest_client_requests_total{code=\"200\",host=\"h:1\",method=\"GET\"} 2");
        has("rest_client_requests_total{code=\"404\",host=\"h:1\",method=\"GET\"} 1");
        has("rest_client_requests_total{code=\"200\",host=\"h:1\",method=\"POST\"} 1");
        has("rest_client_request_duration_seconds_count{host=\"h:1\",verb=\"GET\"} 3");
    }
}
