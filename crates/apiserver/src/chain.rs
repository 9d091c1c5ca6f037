//! The way of every request: who, for whom, what, may they, then the handler. Upstream's `DefaultBuildHandlerChain`.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use auth::Attributes;
use futures::future::BoxFuture;
use http::header::{CACHE_CONTROL, HOST, HeaderValue};
use http::{HeaderMap, Request};
use machinery::status::StatusError;

use crate::admission::Notes;
use crate::authn::{self, Origin};
use crate::http::respond::{self, Answer};
use crate::http::{Negotiated, Query, RequestBody, negotiate};
use crate::request::RequestInfo;
use crate::state::Api;
use crate::{authz, identifiers, root, verbs};

/// A request that passed the chain, on its way to a handler.
pub struct Call {
    pub api: Arc<Api>,
    pub user: auth::User,
    pub info: RequestInfo,
    pub query: Query,
    pub method: http::Method,
    pub headers: HeaderMap,
    /// As the client named this server.
    pub host: String,
    /// Where the client is; `None` for one of this process.
    pub client: Option<IpAddr>,
    /// For errors and plain answers; handlers of resources negotiate again for views.
    pub negotiated: Negotiated,
    /// What admission has to say on the side.
    pub notes: Arc<Notes>,
}

impl Call {
    pub fn user_agent(&self) -> &str {
        self.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("")
    }
}

/// Answers one request.
pub async fn handle(api: Arc<Api>, request: Request<RequestBody>, origin: Origin) -> Answer {
    let started = Instant::now();
    let query = Query::parse(request.uri().query().unwrap_or(""));
    let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
    let long = matches!(info.verb.as_str(), "watch" | "proxy")
        || matches!(info.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy");
    let deprecation = api.registry.resource(&info.group, &info.version, &info.resource).and_then(|r| r.deprecation().map(str::to_owned));
    let labels = (info.verb.clone(), info.group.clone(), info.version.clone(), info.resource.clone(), info.subresource.clone());
    let plain = negotiate::negotiate(request.headers(), &query, true, true).unwrap_or_default();
    let metrics_of = api.clone();
    let _in_flight = metrics_of.metrics.in_flight(long);
    let notes = Arc::new(Notes::default());
    let mut answer = if !long && over_limit(&api) {
        let busy = StatusError::too_many_requests("The apiserver cannot handle this request at this time, please try again later", 1);
        respond::error(&plain, &busy)
    } else {
        match pass(api, request, origin, query, info, (plain.clone(), notes.clone())).await {
            Ok(answer) => answer,
            Err(error) => respond::error(&plain, &error),
        }
    };
    respond::warn(&mut answer, &notes.take_warnings());
    if let Some(text) = deprecation {
        respond::warn_first(&mut answer, &text);
    }
    let headers = answer.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&identifiers::uuid()) {
        headers.insert("audit-id", id);
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    metrics_of.metrics.request(&labels, answer.status().as_u16(), started.elapsed());
    answer
}

fn over_limit(api: &Api) -> bool {
    let limit = api.config.max_requests_in_flight;
    limit != 0 && api.metrics.requests_in_flight.load(Ordering::Relaxed) > limit
}

async fn pass(
    api: Arc<Api>,
    request: Request<RequestBody>,
    origin: Origin,
    query: Query,
    info: RequestInfo,
    (negotiated, notes): (Negotiated, Arc<Notes>),
) -> Result<Answer, StatusError> {
    let (mut parts, body) = request.into_parts();
    let authn::Authenticated { user: real, warnings } = authn::authenticate(&api, &origin, &mut parts.headers).await?;
    for text in warnings {
        notes.warn(text);
    }
    let user = authn::impersonate::impersonate(&api, real, &mut parts.headers).await?;
    authz::require(&api.authorizer, &attributes(&user, &info, &query)).await?;
    let named = parts.headers.get(HOST).and_then(|h| h.to_str().ok()).map(str::to_owned);
    let host = named.or_else(|| parts.uri.authority().map(ToString::to_string)).unwrap_or_default();
    let (method, headers) = (parts.method.clone(), parts.headers.clone());
    let call = Call { api, user, info, query, method, headers, host, client: origin.address(), negotiated, notes };
    let request = Request::from_parts(parts, body);
    // Boxed: the handlers' futures are large, and the chain's is held by every connection.
    let handler: BoxFuture<'static, Result<Answer, StatusError>> =
        if call.info.is_resource { Box::pin(verbs::serve(call, request)) } else { Box::pin(root::serve(call, request)) };
    handler.await
}

fn attributes(user: &auth::User, info: &RequestInfo, query: &Query) -> Attributes {
    // Selectors count where they limit what is asked for; one that does not parse limits nothing.
    let selects = info.is_resource && matches!(info.verb.as_str(), "list" | "watch" | "deletecollection");
    let text = |key: &str| if selects { query.text(key) } else { "" };
    let fields = machinery::fieldselector::parse(text("fieldSelector")).map(|s| s.terms).unwrap_or_default();
    let labels = machinery::labels::parse(text("labelSelector")).map(|s| s.requirements().to_vec()).unwrap_or_default();
    Attributes {
        user: user.clone(),
        verb: info.verb.clone(),
        namespace: if info.is_resource { info.namespace.clone() } else { String::new() },
        group: info.group.clone(),
        version: info.version.clone(),
        resource: info.resource.clone(),
        subresource: info.subresource.clone(),
        name: info.name.clone(),
        is_resource: info.is_resource,
        path: info.path.clone(),
        field_selector: fields,
        label_selector: labels,
    }
}
