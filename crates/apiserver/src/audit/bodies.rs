//! The bodies of requests and answers, as far as an event wants them: read, decoded into trees, and passed on unchanged.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use machinery::gvk::GroupVersionKind;
use machinery::status::StatusError;
use serde_json::Value;

use super::{Event, Level};
use crate::http::body::{self, boxed};
use crate::http::respond::Answer;
use crate::http::{Body, RequestBody};
use crate::request::RequestInfo;

/// Takes the request's body into the event.
pub async fn request(event: &mut Event, info: &RequestInfo, request: Request<RequestBody>) -> Result<Request<RequestBody>, StatusError> {
    let names_object = matches!(info.verb.as_str(), "create" | "update");
    let wanted = event.wants(Level::Request) && info.mutates() || names_object;
    if !wanted || !info.is_resource || info.long_running() {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    let bytes = body::read(body).await?;
    if let Some(object) = decoded(&parts.headers, &bytes) {
        event.request(object);
    }
    Ok(Request::from_parts(parts, boxed(Full::new(bytes))))
}

/// Takes the answer into the event.
pub async fn answer(event: &mut Event, info: &RequestInfo, answer: Answer) -> Answer {
    let code = answer.status().as_u16();
    let whole = matches!(answer.body(), Body::Full(_)) || event.wants(Level::RequestResponse) && !matches!(answer.body(), Body::Proxied(_));
    let failed = code >= 400;
    if !info.is_resource && !failed || info.long_running() || !whole || !(failed || event.wants(Level::RequestResponse)) {
        event.status(code, None);
        return answer;
    }
    let (parts, body) = answer.into_parts();
    let bytes = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) => {
            tracing::warn!(%error, "an answer could not be read for the audit log");
            Bytes::new()
        }
    };
    let object = decoded(&parts.headers, &bytes);
    let status = object.as_ref().filter(|o| o["kind"] == "Status" && o["apiVersion"] == "v1");
    event.status(code, status);
    if event.wants(Level::RequestResponse)
        && let Some(object) = object
    {
        event.response(object);
    }
    Answer::from_parts(parts, Body::from(bytes))
}

/// JSON, YAML and protobuf as a tree; anything else is no object.
fn decoded(headers: &HeaderMap, bytes: &Bytes) -> Option<Value> {
    if bytes.is_empty() {
        return None;
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|t| t.to_str().ok()).unwrap_or("application/json");
    let kind = kind.split(';').next().unwrap_or_default().trim();
    match kind {
        "application/vnd.kubernetes.protobuf" => {
            let unknown = GroupVersionKind { group: String::new(), version: String::new(), kind: String::new() };
            crate::protobuf::decode(bytes, &unknown).ok()
        }
        k if k.ends_with("yaml") => machinery::yaml::parse(bytes).ok().map(|p| p.value),
        k if k.ends_with("json") => machinery::json::parse(bytes).ok().map(|p| p.value),
        _ => None,
    }
}
