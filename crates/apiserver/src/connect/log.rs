//! `pods/log`: what the kubelet has of a container's output, passed on as it comes.

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use machinery::field::{self, Path};
use machinery::gvk::{GroupKind, GroupResource};
use machinery::object;
use machinery::status::{Details, StatusError};
use serde_json::json;

use super::backend::BackendError;
use super::{kubelet, pod};
use crate::chain::Call;
use crate::http::body::boxed;
use crate::http::query::encode;
use crate::http::respond::Answer;
use crate::http::{Body, Query};
use crate::metrics::table;
use crate::verbs::Target;

/// How much of a kubelet's refusal is read.
const REFUSAL_BYTES_MAX: usize = 50_000;

pub async fn serve(call: Call, target: Target) -> Result<Answer, StatusError> {
    let options = Options::parse(&call.query)?;
    options.validate(&target.name, call.api.config.features.enabled("PodLogsQuerySplitStreams"))?;
    let pod = pod::read(&call.api, &target).await?;
    let container = pod::container(&pod, call.query.text("container"))?;
    // Upstream answers an empty stream for a pod that is nowhere yet.
    let Ok(node) = pod::node(&pod) else {
        let mut nothing = Answer::new(Body::empty());
        *nothing.status_mut() = StatusCode::NO_CONTENT;
        return Ok(nothing);
    };
    let verify = !call.query.flag("insecureSkipTLSVerifyBackend");
    let backend = kubelet::of(&call.api, node, verify).await?;
    let path = format!("/containerLogs/{}/{}/{container}{}", target.namespace, object::name(&pod), options.query(&call.query));
    let request = Request::builder().method(Method::GET).uri(&path).header("host", backend.authority());
    let request = request.body(boxed(http_body_util::Empty::new())).map_err(|e| StatusError::internal(e.to_string()))?;
    let answer = call.api.connections.send(&backend, request).await;
    if let Err(BackendError::Tls(_)) = &answer {
        call.api.metrics.count(&table::LOG_TLS_FAILURES, &[]);
    }
    let answer = answer.map_err(|e| StatusError::new(500, "", format!("Get \"https://{}{path}\": {e}", backend.authority())))?;
    if !(200..=206).contains(&answer.status().as_u16()) {
        return Err(refusal(answer, &target.name).await);
    }
    let mut out = Answer::new(Body::Proxied(answer.into_body()));
    out.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(out)
}

/// A kubelet's refusal as a Status (upstream's `GenericHttpResponseChecker`).
async fn refusal(answer: http::Response<Incoming>, name: &str) -> StatusError {
    let code = answer.status().as_u16();
    let text = match Limited::new(answer.into_body(), REFUSAL_BYTES_MAX).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(e) => return StatusError::internal(e.to_string()),
    };
    let resource = GroupResource::new("", "pods/log");
    let generic = |reason: &'static str, why: String| StatusError {
        details: Some(Box::new(Details { kind: resource.resource.clone(), name: name.to_owned(), ..Details::default() })),
        // Two blanks: upstream has no verb to name here.
        ..StatusError::new(code, reason, format!("{why} ( {resource} {name})"))
    };
    match code {
        400 => StatusError::bad_request(text),
        500 => StatusError::internal(text),
        404 => generic("NotFound", "the server could not find the requested resource".to_owned()),
        401 => generic("Unauthorized", "the server has asked for the client to provide credentials".to_owned()),
        403 => generic("Forbidden", text),
        422 => generic("Invalid", "the server rejected our request due to an error in our request".to_owned()),
        503 => generic("ServiceUnavailable", "the server is currently unable to handle the request".to_owned()),
        501.. => generic("InternalError", format!("an error on the server ({text:?}) has prevented the request from succeeding")),
        _ => generic("", format!("the server responded with the status code {code} but did not return more information")),
    }
}

/// `PodLogOptions`, but for the container.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    since_seconds: Option<i64>,
    since_time: Option<String>,
    tail_lines: Option<i64>,
    limit_bytes: Option<i64>,
    stream: Option<String>,
}

/// What `stream` may be.
const STREAMS: [&str; 3] = ["All", "Stderr", "Stdout"];

impl Options {
    fn parse(query: &Query) -> Result<Self, StatusError> {
        let number = |name: &str| match query.get(name) {
            None | Some("") => Ok(None),
            Some(text) => text.parse::<i64>().map(Some).map_err(|e| {
                use std::num::IntErrorKind::{NegOverflow, PosOverflow};
                let why = if matches!(e.kind(), PosOverflow | NegOverflow) { "value out of range" } else { "invalid syntax" };
                StatusError::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"))
            }),
        };
        let since_time = match query.get("sinceTime") {
            None | Some("" | "null") => None,
            Some(text) => {
                let layout = "2006-01-02T15:04:05Z07:00";
                let bad = |_| StatusError::bad_request(format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""));
                let at: jiff::Timestamp = text.parse().map_err(bad)?;
                let whole = jiff::Timestamp::from_second(at.as_second()).unwrap_or(at);
                Some(whole.to_string())
            }
        };
        Ok(Self {
            since_seconds: number("sinceSeconds")?,
            since_time,
            tail_lines: number("tailLines")?,
            limit_bytes: number("limitBytes")?,
            stream: query.get("stream").map(str::to_owned),
        })
    }

    /// Upstream's `ValidatePodLogOptions`.
    fn validate(&self, name: &str, streams: bool) -> Result<(), StatusError> {
        let mut errors = Vec::new();
        let mut least = |field: &str, value: Option<i64>, least: i64, why: &str| {
            if let Some(value) = value.filter(|v| *v < least) {
                errors.push(field::Error::invalid(&Path::new(field), &json!(value), why));
            }
        };
        least("tailLines", self.tail_lines, 0, "must be greater than or equal to 0");
        least("limitBytes", self.limit_bytes, 1, "must be greater than 0");
        if self.since_time.is_none() {
            least("sinceSeconds", self.since_seconds, 1, "must be greater than 0");
        } else if self.since_seconds.is_some() {
            errors.push(field::Error::forbidden(&Path::new(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"));
        }
        if let Some(stream) = &self.stream {
            let path = Path::new("stream");
            if !streams {
                errors.push(field::Error::forbidden(&path, "may not be specified"));
            } else if !STREAMS.contains(&stream.as_str()) {
                errors.push(field::Error::not_supported(&path, &json!(stream), &STREAMS));
            }
            if streams && stream != "All" && self.tail_lines.is_some() {
                let why = "`tailLines` and specific `stream` are mutually exclusive for now";
                errors.push(field::Error::forbidden(&Path::new(""), why));
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(StatusError::invalid(&GroupKind { group: String::new(), kind: "PodLogOptions".into() }, name, &errors))
    }

    /// What the kubelet is asked.
    fn query(&self, query: &Query) -> String {
        let mut pairs: Vec<String> = Vec::new();
        for flag in ["follow", "previous", "timestamps"] {
            if query.flag(flag) {
                pairs.push(format!("{flag}=true"));
            }
        }
        for (name, value) in [("sinceSeconds", self.since_seconds), ("tailLines", self.tail_lines), ("limitBytes", self.limit_bytes)] {
            pairs.extend(value.map(|v| format!("{name}={v}")));
        }
        pairs.extend(self.stream.as_ref().map(|s| format!("stream={}", encode(s))));
        pairs.extend(self.since_time.as_ref().map(|t| format!("sinceTime={}", encode(t))));
        if pairs.is_empty() {
            return String::new();
        }
        pairs.sort();
        format!("?{}", pairs.join("&"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_and_passed_on() {
        let parse = |text: &str| Options::parse(&Query::parse(text));
        let check = |text: &str| parse(text).and_then(|o| o.validate("p", false)).err().map(|e| (e.code, e.message));
        let asked = Query::parse("follow&tailLines=5&sinceTime=2024-01-02T03:04:05.6%2B01:00&previous=false");
        assert_eq!(Options::parse(&asked).unwrap().query(&asked), "?follow=true&sinceTime=2024-01-02T02%3A04%3A05Z&tailLines=5");
        assert_eq!(check("tailLines=0&limitBytes=1&sinceSeconds=1"), None);
        let invalid = |why: &str| Some((422, format!("PodLogOptions \"p\" is invalid: {why}")));
        assert_eq!(check("tailLines=-1"), invalid("tailLines: Invalid value: -1: must be greater than or equal to 0"));
        assert_eq!(check("sinceSeconds=0"), invalid("sinceSeconds: Invalid value: 0: must be greater than 0"));
        let both = "sinceSeconds=1&sinceTime=2024-01-02T03:04:05Z";
        assert!(check(both).unwrap().1.contains("at most one of `sinceTime` or `sinceSeconds` may be specified"));
        assert_eq!(check("stream=All"), invalid("stream: Forbidden: may not be specified"));
        let gated = |text: &str| parse(text).and_then(|o| o.validate("p", true)).err().map(|e| (e.code, e.message));
        assert_eq!((gated("stream=All&tailLines=1"), gated("stream=Stderr"), gated("tailLines=1")), (None, None, None));
        assert_eq!(gated("stream=x"), invalid("stream: Unsupported value: \"x\": supported values: \"All\", \"Stderr\", \"Stdout\""));
        let tail = gated("stream=Stdout&tailLines=1");
        assert_eq!(tail, invalid(": Forbidden: `tailLines` and specific `stream` are mutually exclusive for now"));
        let one = Query::parse("stream=Stderr");
        assert_eq!(Options::parse(&one).unwrap().query(&one), "?stream=Stderr");
        assert_eq!(check("limitBytes=x"), Some((400, "strconv.ParseInt: parsing \"x\": invalid syntax".to_owned())));
    }
}
