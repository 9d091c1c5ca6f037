//! Finished spans on their way to a collector: in batches over OTLP/gRPC. What comes faster than it can be sent is dropped.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use crate::context::Context;
use crate::proto::any_value::Value as Any;
use crate::proto::trace_service_client::TraceServiceClient;
use crate::proto::{self, AnyValue, ExportTraceServiceRequest, KeyValue, Link, Resource, ResourceSpans, Scope, ScopeSpans, Status};

const QUEUE: usize = 2048;
const BATCH: usize = 512;
const EVERY: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);
/// `SPAN_KIND_SERVER` and `STATUS_CODE_ERROR`.
const SERVER: i32 = 2;
const ERROR: i32 = 2;

/// A request that is being answered.
pub struct Span {
    pub context: Context,
    pub parent: Option<[u8; 8]>,
    /// Who sent it, where that is not to be believed as a parent.
    pub link: Option<Context>,
    pub name: String,
    pub attributes: Vec<(&'static str, String)>,
    pub started: SystemTime,
}

/// Takes finished spans. Cheap to clone.
#[derive(Clone)]
pub struct Exporter(mpsc::Sender<proto::Span>);

fn nanos(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).ok().and_then(|d| u64::try_from(d.as_nanos()).ok()).unwrap_or(0)
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Any::StringValue(value.into())) }) }
}

impl Exporter {
    /// And what is to be given to [`run`].
    pub fn new() -> (Self, mpsc::Receiver<proto::Span>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// A span has ended with a status code of HTTP.
    pub fn finish(&self, span: Span, code: u16, ended: SystemTime) {
        let mut attributes: Vec<KeyValue> = span.attributes.into_iter().map(|(key, value)| text(key, value)).collect();
        let status =
            KeyValue { key: "http.response.status_code".to_owned(), value: Some(AnyValue { value: Some(Any::IntValue(i64::from(code))) }) };
        attributes.push(status);
        let sent = self.0.try_send(proto::Span {
            trace_id: span.context.trace.to_vec(),
            span_id: span.context.span.to_vec(),
            trace_state: String::new(),
            parent_span_id: span.parent.map(|p| p.to_vec()).unwrap_or_default(),
            name: span.name,
            kind: SERVER,
            start_time_unix_nano: nanos(span.started),
            end_time_unix_nano: nanos(ended),
            attributes,
            links: span.link.map(|l| Link { trace_id: l.trace.to_vec(), span_id: l.span.to_vec() }).into_iter().collect(),
            status: (code >= 500).then(|| Status { message: String::new(), code: ERROR }),
        });
        if sent.is_err() {
            tracing::debug!("too many spans: one was dropped");
        }
    }
}

/// Sends spans until cancelled, and then what is left.
pub async fn run(endpoint: String, service: &'static str, mut spans: mpsc::Receiver<proto::Span>, cancel: CancellationToken) {
    let address = match Endpoint::from_shared(format!("http://{endpoint}")) {
        Ok(address) => address.timeout(TIMEOUT).connect_timeout(TIMEOUT),
        Err(error) => return tracing::error!(%error, endpoint, "the collector's address is no address"),
    };
    let mut client = TraceServiceClient::new(address.connect_lazy());
    let mut batch = Vec::new();
    loop {
        let due = tokio::time::sleep(EVERY);
        tokio::pin!(due);
        let stop = loop {
            tokio::select! { biased;
                () = cancel.cancelled() => break true,
                received = spans.recv() => match received {
                    Some(span) => {
                        batch.push(span);
                        if batch.len() >= BATCH {
                            break false;
                        }
                    }
                    None => break true,
                },
                () = &mut due => break false,
            }
        };
        if stop {
            while let Ok(span) = spans.try_recv() {
                batch.push(span);
            }
        }
        if !batch.is_empty() {
            let request = request(service, std::mem::take(&mut batch));
            // The last ones do not hold up the end for long.
            let limit = if stop { Duration::from_secs(1) } else { TIMEOUT };
            match tokio::time::timeout(limit, client.export(request)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(error = error.message(), "spans could not be sent"),
                Err(_) => tracing::warn!("spans could not be sent in time"),
            }
        }
        if stop {
            return;
        }
    }
}

fn request(service: &'static str, spans: Vec<proto::Span>) -> ExportTraceServiceRequest {
    let scope = Scope { name: format!("skiff/{service}"), version: env!("CARGO_PKG_VERSION").to_owned() };
    let resource = Resource { attributes: vec![text("service.name", service)] };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans }] }
}
