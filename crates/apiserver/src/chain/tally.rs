//! What is counted about a request, and how upstream labels it. Begun and ended by the chain, for each request once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Request;
use http::header::CONTENT_TYPE;

use crate::http::respond::Answer;
use crate::http::{Body, Query, RequestBody};
use crate::metrics::{InFlight, LongRunning, RequestLabels, Series, table};
use crate::request::RequestInfo;
use crate::root;
use crate::state::Api;

/// A request that is being counted.
pub(super) struct Tally<'a> {
    api: &'a Api,
    started: Instant,
    /// `None` for what nobody serves.
    series: Option<Arc<Series>>,
    long_running: Option<LongRunning>,
    in_flight: Option<(usize, InFlight<'a>)>,
    row: Option<&'a kinds::Resource>,
    body_bytes: Option<u64>,
    verb: &'static str,
    /// What `fieldValidation` asks for.
    validation: &'static str,
}

impl<'a> Tally<'a> {
    pub(super) fn begin(
        api: &'a Api,
        request: &Request<RequestBody>,
        info: &RequestInfo,
        query: &Query,
        row: Option<&'a kinds::Resource>,
        started: Instant,
    ) -> Self {
        let series = labels(info, request, query, row).map(|labels| api.metrics.requests.series(&labels));
        let long = info.long_running();
        Self {
            api,
            started,
            long_running: series.as_ref().filter(|_| long).map(Series::long_running),
            series,
            in_flight: (!long).then(|| api.metrics.requests.begin(info.mutates())),
            row,
            body_bytes: http_body::Body::size_hint(request.body()).exact().filter(|_| info.mutates() && !long),
            verb: body_verb(info),
            validation: match query.text("fieldValidation") {
                "Strict" => "Strict",
                "Ignore" => "Ignore",
                _ => "Warn",
            },
        }
    }

    /// Requests of its kind in flight, itself counted; 0 for a long-running one.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.as_ref().map_or(0, |(count, _)| *count)
    }

    /// Counts the answer; a long-running one is counted as running as long as its body is.
    pub(super) fn end(self, answer: Answer, waited: Duration) -> Answer {
        let metrics = &self.api.metrics;
        if let Some(row) = self.row {
            if matches!(self.verb, "create" | "update" | "patch") {
                metrics.observe(&table::FIELD_VALIDATION_DURATION, &[self.validation], self.started.elapsed().as_secs_f64());
            }
            if let Some(size) = self.body_bytes {
                metrics.observe(&table::REQUEST_BODY_SIZE, &[row.group.as_str(), row.resource.as_str(), self.verb], size as f64);
            }
        }
        if let Some(series) = &self.series {
            let bytes = http_body::Body::size_hint(answer.body()).exact();
            series.answered(answer.status().as_u16(), self.started.elapsed(), waited, bytes);
        }
        match self.long_running {
            Some(running) => answer.map(|body| Body::held(body, running)),
            None => answer,
        }
    }
}

fn body_verb(info: &RequestInfo) -> &'static str {
    match info.verb.as_str() {
        "create" => "create",
        "update" => "update",
        "patch" => "patch",
        "delete" => "delete",
        "deletecollection" => "deletecollection",
        _ => "",
    }
}

/// How upstream counts a request; `None` for what nobody serves.
fn labels<'a>(
    info: &'a RequestInfo,
    request: &Request<RequestBody>,
    query: &Query,
    row: Option<&'a kinds::Resource>,
) -> Option<RequestLabels<'a>> {
    let applies = || request.headers().get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/apply-patch+"));
    if !info.is_resource {
        let subresource = root::counted_as(&info.path)?;
        let verb = if info.verb == "get" { "GET" } else { "other" };
        let labels = RequestLabels { verb, scope: "", group: "", version: "", resource: "", subresource, dry_run: false };
        return Some(labels);
    }
    let row = row?;
    let connects = matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy");
    let verb = match info.verb.as_str() {
        _ if connects => "CONNECT",
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" => "POST",
        "update" => "PUT",
        "patch" if applies() => "APPLY",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "other",
    };
    let scope = match () {
        () if !info.name.is_empty() || info.verb == "create" => "resource",
        () if !info.namespace.is_empty() => "namespace",
        () => "cluster",
    };
    let subresource = if info.subresource.is_empty() { "" } else { &row.subresource(&info.subresource)?.name };
    Some(RequestLabels {
        verb,
        scope,
        group: &row.group,
        version: &row.version,
        resource: &row.resource,
        subresource,
        dry_run: info.mutates() && query.has("dryRun"),
    })
}
