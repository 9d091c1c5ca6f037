//! A span for each request, sent to a collector where `--tracing-config-file` names one. Requests this server makes on behalf
//! of a sampled one carry its context on.

use std::time::SystemTime;

use auth::User;
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue, Method};
use telemetry::{Context, Exporter, Sampler, Span};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::identifiers;
use crate::request::RequestInfo;

/// Whose trace contexts are believed; others' become links.
const BELIEVED: [&str; 2] = ["system:masters", "system:monitoring"];

tokio::task_local! {
    static CURRENT: Context;
}

pub struct Tracer {
    sampler: Sampler,
    exporter: Exporter,
}

impl Tracer {
    pub fn open(config: &Config, tasks: &mut JoinSet<()>, cancel: &CancellationToken) -> Result<Option<Self>> {
        let Some(path) = &config.tracing_config_file else { return Ok(None) };
        let bad = |why: String| Error::Config(format!("--tracing-config-file {}: {why}", path.display()));
        let bytes = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
        let file = telemetry::Config::parse(&bytes).map_err(bad)?;
        let (exporter, spans) = Exporter::new();
        tasks.spawn(telemetry::run(file.endpoint, "apiserver", spans, cancel.clone()));
        Ok(Some(Self { sampler: Sampler::new(file.sampling_rate_per_million), exporter }))
    }

    /// The span of a request, if it is sampled.
    pub fn begin(&self, user: &User, method: &Method, headers: &HeaderMap, info: &RequestInfo, audit_id: &str) -> Option<Span> {
        let sent = Context::of(headers);
        let believed = BELIEVED.iter().any(|group| user.in_group(group));
        let parent = sent.filter(|_| believed);
        let context = self.sampler.begin(parent, identifiers::random_bytes(), identifiers::random_bytes());
        if !context.sampled {
            return None;
        }
        let mut attributes = vec![
            ("http.request.method", method.to_string()),
            ("url.path", info.path.clone()),
            ("url.scheme", "https".to_owned()),
            ("audit-id", audit_id.to_owned()),
        ];
        if let Some(agent) = headers.get(USER_AGENT).and_then(|a| a.to_str().ok()) {
            attributes.push(("user_agent.original", agent.to_owned()));
        }
        let (name, link) = (name(method, info), sent.filter(|_| !believed));
        Some(Span { context, parent: parent.map(|p| p.span), link, name, attributes, started: SystemTime::now() })
    }

    pub fn finish(&self, span: Span, code: u16) {
        self.exporter.finish(span, code, SystemTime::now());
    }
}

/// Upstream's `getSpanNameFromRequestInfo`: a name must not differ from object to object.
fn name(method: &Method, info: &RequestInfo) -> String {
    if !info.is_resource {
        return method.to_string();
    }
    let mut out = format!("{method} /{}", info.prefix);
    for (part, shown) in [(&info.group, info.group.as_str()), (&info.version, info.version.as_str())] {
        if !part.is_empty() {
            out.push('/');
            out.push_str(shown);
        }
    }
    if !info.namespace.is_empty() {
        out.push_str("/namespaces/{:namespace}");
    }
    out.push('/');
    out.push_str(&info.resource);
    if !info.name.is_empty() {
        out.push_str("/{:name}");
    }
    if !info.subresource.is_empty() {
        out.push('/');
        out.push_str(&info.subresource);
    }
    out
}

/// Runs the handling of a sampled request, so that [`onward`] knows of it.
pub async fn within<T>(context: Context, work: impl Future<Output = T>) -> T {
    CURRENT.scope(context, work).await
}

/// The `traceparent` of requests made while handling a sampled one.
pub fn onward() -> Option<HeaderValue> {
    CURRENT.try_with(Context::header).ok().flatten()
}
