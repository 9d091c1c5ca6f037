//! The way of every request: who, for whom, what, may they, then the handler. Upstream's `DefaultBuildHandlerChain`.

mod tally;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use auth::Attributes;
use flowcontrol::Digest;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, CACHE_CONTROL, HOST, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Request};
use machinery::status::StatusError;

use crate::admission::Notes;
use crate::audit::{self, Asked, Event, Stage};
use crate::authn::{self, Origin};
use crate::flow::{self, Schema, Seat};
use crate::http::respond::{self, Answer};
use crate::http::{Body, Negotiated, Query, RequestBody, negotiate};
use crate::metrics::table;
use crate::request::RequestInfo;
use crate::state::Api;
use crate::{aggregation, identifiers, root, trace, verbs};
use tally::Tally;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const AUDIT_ID_BYTES_MAX: usize = 64;
const FLOW_SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const PRIORITY_LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

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

/// What is found out about a request on its way, for the answer and for who counts.
struct Passage {
    negotiated: Negotiated,
    notes: Arc<Notes>,
    /// Of its kind in flight, itself counted.
    in_flight: usize,
    schema: Option<Arc<Schema>>,
    waited: Duration,
    id: HeaderValue,
    /// Where somebody keeps an audit log: reading a clock costs as much as looking something up, and a request reads it often.
    received: Option<jiff::Timestamp>,
    started: Instant,
    audit: Option<Event>,
    /// Where there is an event.
    info: RequestInfo,
    span: Option<telemetry::Span>,
}

/// Answers one request.
pub async fn handle(api: Arc<Api>, request: Request<RequestBody>, origin: Origin) -> Answer {
    let started = Instant::now();
    let query = Query::parse(request.uri().query().unwrap_or(""));
    let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
    let plain = negotiate::negotiate(request.headers(), &query, true, true).unwrap_or_default();
    let row = if info.is_resource { api.registry.resource(&info.group, &info.version, &info.resource) } else { None };
    let tally = Tally::begin(&api, &request, &info, &query, row.as_deref(), started);
    let notes = Arc::new(Notes::default());
    let mut passage = Passage {
        negotiated: plain.clone(),
        notes: notes.clone(),
        in_flight: tally.in_flight(),
        schema: None,
        waited: Duration::ZERO,
        id: audit_id(request.headers()),
        received: api.audit.is_on().then(jiff::Timestamp::now),
        started,
        audit: None,
        info: RequestInfo::default(),
        span: None,
    };
    let answered = if api.draining.load(Ordering::Acquire) && !info.long_running() {
        Err(StatusError { details: None, ..StatusError::new(503, "ServiceUnavailable", "apiserver is shutting down") })
    } else {
        within(api.clone(), request, origin, query, info, &mut passage).await
    };
    let draining = api.draining.load(Ordering::Acquire);
    let mut answer = answered.unwrap_or_else(|error| respond::error(&plain, &error));
    respond::warn(&mut answer, &notes.take_warnings());
    // Upstream's router refuses methods and patch types before a built-in resource gets to say anything.
    let unrouted = matches!(answer.status().as_u16(), 405 | 415);
    if let Some(text) = row.as_ref().filter(|r| r.custom.is_some() || !unrouted).and_then(|r| r.deprecation()) {
        respond::warn_first(&mut answer, text);
    }
    stamp(answer.headers_mut(), &passage, draining);
    if let Some(event) = passage.audit.take() {
        answer = finish(&api, event, &notes, &passage.info, answer).await;
    }
    if let Some((tracer, span)) = api.tracer.as_ref().zip(passage.span.take()) {
        tracer.finish(span, answer.status().as_u16());
    }
    tally.end(answer, passage.waited)
}

/// The headers that every answer has.
fn stamp(headers: &mut HeaderMap, passage: &Passage, draining: bool) {
    if let Some(schema) = &passage.schema {
        headers.insert(FLOW_SCHEMA, schema.schema_header.clone());
        headers.insert(PRIORITY_LEVEL, schema.level_header.clone());
    }
    if draining {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    headers.insert(AUDIT_ID, passage.id.clone());
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
}

/// Notes how a request ended. A long-running one has only begun.
async fn finish(api: &Arc<Api>, mut event: Event, notes: &Notes, info: &RequestInfo, answer: Answer) -> Answer {
    let mut answer = audit::bodies::answer(&mut event, info, answer).await;
    event.annotations(notes.annotations());
    if info.long_running() && answer.status().as_u16() < 300 {
        api.audit.emit(api, &event, Stage::ResponseStarted).await;
        let ended = Ended { api: api.clone(), event };
        answer = answer.map(|body| Body::held(body, ended));
    } else {
        api.audit.emit(api, &event, Stage::ResponseComplete).await;
    }
    answer
}

/// Notes the end of a long answer when that is dropped.
struct Ended {
    api: Arc<Api>,
    event: Event,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.api.audit.emit_later(&self.api, &self.event, Stage::ResponseComplete);
    }
}

/// The client's own name for the request, or one made up.
fn audit_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(AUDIT_ID).filter(|id| !id.is_empty() && id.len() <= AUDIT_ID_BYTES_MAX);
    given.cloned().or_else(|| HeaderValue::from_str(&identifiers::uuid()).ok()).unwrap_or(HeaderValue::from_static(""))
}

/// The answer, or 504 when it takes too long (upstream's `WithRequestDeadline` and `WithTimeoutForNonLongRunningRequests`).
async fn within(
    api: Arc<Api>,
    request: Request<RequestBody>,
    origin: Origin,
    query: Query,
    info: RequestInfo,
    passage: &mut Passage,
) -> Result<Answer, StatusError> {
    if info.long_running() {
        return pass(api, request, origin, query, info, passage).await;
    }
    let most = api.config.request_timeout;
    let asked = match query.get("timeout").filter(|t| !t.is_empty()) {
        Some(text) => {
            let nanos = machinery::duration::parse(text)
                .map_err(|e| StatusError::bad_request(format!("invalid timeout specified in the request URL - {e}")))?;
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
        }
        None => Duration::ZERO,
    };
    let limit = if asked.is_zero() || asked > most { most } else { asked };
    let why = if info.is_resource && info.mutates() {
        "request did not complete within requested timeout - context deadline exceeded"
    } else {
        "request did not complete within the allotted timeout"
    };
    let work = pass(api, request, origin, query, info, passage);
    // By tokio's clock, which a simulation lets run ahead of the machine's: from that, all would be late at once.
    match tokio::time::timeout(limit, work).await {
        Ok(answered) => answered,
        Err(_) => Err(StatusError { details: Some(Box::default()), ..StatusError::new(504, "Timeout", format!("Timeout: {why}")) }),
    }
}

async fn pass(
    api: Arc<Api>,
    request: Request<RequestBody>,
    origin: Origin,
    query: Query,
    info: RequestInfo,
    passage: &mut Passage,
) -> Result<Answer, StatusError> {
    let (mut parts, body) = request.into_parts();
    let real = identify(&api, &mut parts, &origin, &info, passage).await?;
    let mut asked = attributes(&real, &info, &query);
    asked.user = authn::impersonate::impersonate(&api, &asked, &mut parts.headers).await?;
    if let Some(event) = passage.audit.as_mut().filter(|_| asked.user.name != real.name || asked.user.groups != real.groups) {
        event.impersonated(&asked.user);
    }
    let seat = match admit(&api, &asked.user, &info, &query, passage).await {
        Ok(seat) => seat,
        Err(refusal) => return Ok(refusal),
    };
    let begun = seat.as_ref().map_or_else(Instant::now, Seat::since);
    authorize(&api, &asked, &passage.notes, begun).await?;
    crate::authz::require_for_stream(&api.authorizer, &asked, &parts.headers).await?;
    let user = asked.user;
    let named = parts.headers.get(HOST).and_then(|h| h.to_str().ok()).map(str::to_owned);
    let host = named.or_else(|| parts.uri.authority().map(ToString::to_string)).unwrap_or_default();
    let (method, headers) = (parts.method.clone(), parts.headers.clone());
    let (negotiated, notes) = (passage.negotiated.clone(), passage.notes.clone());
    let call = Call { api, user, info, query, method, headers, host, client: origin.address(), negotiated, notes };
    let mut request = Request::from_parts(parts, body);
    if let Some(event) = passage.audit.as_mut() {
        request = audit::bodies::request(event, &call.info, request).await?;
    }
    // Boxed: the handlers' futures are large, and the chain's is held by every connection.
    if let Some(route) = call.api.aggregation.route(&call.info) {
        return Box::pin(aggregation::serve(call, request, &route)).await;
    }
    let handler: BoxFuture<'static, Result<Answer, StatusError>> =
        if call.info.is_resource { Box::pin(verbs::serve(call, request)) } else { Box::pin(root::serve(call, request)) };
    match &passage.span {
        None => handler.await,
        Some(span) => trace::within(span.context, handler).await,
    }
}

/// Who asks, before they speak for somebody else. The audit event and the span of the request begin here.
async fn identify(
    api: &Arc<Api>,
    parts: &mut http::request::Parts,
    origin: &Origin,
    info: &RequestInfo,
    passage: &mut Passage,
) -> Result<auth::User, StatusError> {
    // What the headers say of who asks is gone after this.
    let attempted = if parts.headers.contains_key(AUTHORIZATION) { "bearer" } else { "x509" };
    let begun = passage.started;
    let authenticated = authn::authenticate(api, origin, &mut parts.headers, &info.path, begun).await;
    let outcome = if authenticated.is_ok() { &api.metrics.hot().authenticated } else { &api.metrics.hot().unauthenticated };
    outcome.note(begun.elapsed());
    let asked = Asked {
        id: id_text(&passage.id),
        user: authenticated.as_ref().ok().map(|a| &a.user),
        info,
        uri: &parts.uri,
        headers: &parts.headers,
        client: origin.address(),
        received: passage.received.unwrap_or_default(),
    };
    passage.audit = api.audit.begin(api, &asked).await?;
    if passage.audit.is_some() {
        passage.info = info.clone();
    }
    let authn::Authenticated { user, remarks } = match authenticated {
        Ok(found) => found,
        Err(error) => {
            unauthenticated(api, passage, attempted).await;
            return Err(error);
        }
    };
    passage.notes.warn_of(remarks.warnings);
    remarks.notes.into_iter().for_each(|(key, text)| passage.notes.annotate(key, text));
    passage.span = api.tracer.as_ref().and_then(|t| t.begin(&user, &parts.method, &parts.headers, info, id_text(&passage.id)));
    Ok(user)
}

fn id_text(id: &HeaderValue) -> &str {
    id.to_str().unwrap_or_default()
}

/// Notes a request whose credentials are no good. It has no other stage.
async fn unauthenticated(api: &Arc<Api>, passage: &mut Passage, attempted: &str) {
    if let Some(mut event) = passage.audit.take() {
        let said = serde_json::json!({"status": "Failure", "message": format!("Authentication failed, attempted: {attempted}"), "reason": "Unauthorized"});
        event.status(401, Some(&said));
        api.audit.emit(api, &event, Stage::ResponseStarted).await;
    }
}

/// May they; the decision and its reason are noted.
async fn authorize(api: &Api, asked: &Attributes, notes: &Notes, begun: Instant) -> Result<(), StatusError> {
    let decided = api.authorizer.decide(asked).await;
    let hot = api.metrics.hot();
    let outcome = if matches!(decided, auth::Decision::Allow(_)) { &hot.allowed } else { &hot.denied };
    outcome.note(begun.elapsed());
    let (decision, reason, answer) = match decided {
        auth::Decision::Allow(reason) => ("allow", reason, Ok(())),
        auth::Decision::NoOpinion(reason) | auth::Decision::Deny(reason) => {
            let refused = asked.forbidden(&reason);
            ("forbid", reason, Err(refused))
        }
    };
    if api.audit.is_on() {
        notes.annotate("authorization.k8s.io/decision", decision);
        notes.annotate("authorization.k8s.io/reason", reason);
    }
    answer
}

/// A seat while the request runs; long-running ones but watches need none. Or the answer that there is none.
async fn admit(
    api: &Arc<Api>,
    user: &auth::User,
    info: &RequestInfo,
    query: &Query,
    passage: &mut Passage,
) -> Result<Option<Seat>, Answer> {
    if info.long_running() && info.verb != "watch" {
        return Ok(None);
    }
    if !api.flow.enabled {
        let limit = if info.mutates() { api.config.max_mutating_requests_inflight } else { api.config.max_requests_inflight };
        let over = limit != 0 && passage.in_flight > limit && !user.in_group(auth::user::SYSTEM_MASTERS);
        return if over { Err(too_many_requests("1")) } else { Ok(None) };
    }
    let digest = Digest {
        user: &user.name,
        groups: &user.groups,
        verb: &info.verb,
        is_resource: info.is_resource,
        group: &info.group,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        path: &info.path,
    };
    let Some(schema) = api.flow.classify(&digest) else { return Ok(None) };
    passage.schema = Some(schema.clone());
    match api.flow.admit(schema, &digest, |most| flow::estimate::work(api, info, query, most)).await {
        Ok(seat) => {
            passage.waited = seat.waited;
            Ok(Some(seat))
        }
        Err(refused) => {
            let names = [refused.schema.spec.name.as_str(), refused.schema.level.name.as_str(), refused.why.name()];
            api.metrics.count(&table::FLOW_REJECTED, &names);
            Err(too_many_requests("1"))
        }
    }
}

/// Upstream's `tooManyRequests`: no Status, whatever the client takes.
fn too_many_requests(retry_after: &'static str) -> Answer {
    let mut answer = respond::text(429, "Too many requests, please try again later.\n");
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(retry_after));
    answer
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
