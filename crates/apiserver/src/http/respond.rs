//! Answers: statuses, objects and plain texts as HTTP responses.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use machinery::status::StatusError;
use serde_json::Value;

use super::{Body, Encoding, Negotiated};

pub type Answer = Response<Body>;

/// A response with a content type.
pub fn bytes(code: u16, content_type: &'static str, body: impl Into<Body>) -> Answer {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub fn text(code: u16, text: impl Into<String>) -> Answer {
    let mut response = bytes(code, "text/plain; charset=utf-8", text.into());
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// What Go's mux says of a path nobody serves.
pub fn page_not_found() -> Answer {
    text(404, "404 page not found\n")
}

/// A value in the negotiated encoding; JSON for what has no protobuf form.
pub fn value(code: u16, negotiated: &Negotiated, value: &Value) -> Answer {
    let (content_type, body) = encode(negotiated, value);
    bytes(code, content_type, body)
}

pub fn encode(negotiated: &Negotiated, value: &Value) -> (&'static str, Bytes) {
    match negotiated.encoding {
        Encoding::Yaml => (Encoding::Yaml.content_type(), to_yaml(value).into()),
        Encoding::Protobuf if let Some(bytes) = crate::protobuf::encode(value) => (Encoding::Protobuf.content_type(), bytes.into()),
        _ => (Encoding::Json.content_type(), json(value, negotiated.pretty)),
    }
}

fn json(value: &Value, pretty: bool) -> Bytes {
    // Go's encoder ends with a newline, and so do we: `kubectl get --raw` shows it.
    let mut out = if pretty { format!("{value:#}") } else { value.to_string() };
    out.push('\n');
    out.into()
}

fn to_yaml(value: &Value) -> String {
    machinery::yaml::to_string(value)
}

pub fn error(negotiated: &Negotiated, error: &StatusError) -> Answer {
    let mut response = value(error.code, negotiated, &error.to_status());
    if let Some(seconds) = error.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0)
        && let Ok(header) = HeaderValue::from_str(&seconds.to_string())
    {
        response.headers_mut().insert(RETRY_AFTER, header);
    }
    response
}

/// Adds `Warning: 299 - "text"` headers.
pub fn warn(response: &mut Answer, warnings: &[String]) {
    for text in warnings {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(header) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, header);
        }
    }
}

/// As [`warn`], before the warnings there are.
pub fn warn_first(response: &mut Answer, text: &str) {
    let others: Vec<HeaderValue> = response.headers().get_all(WARNING).iter().cloned().collect();
    response.headers_mut().remove(WARNING);
    warn(response, &[text.to_owned()]);
    for other in others {
        response.headers_mut().append(WARNING, other);
    }
}
