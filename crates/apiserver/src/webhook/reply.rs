//! What a server's answer means, as client-go's `Request.Do().Into()` reads it.

use bytes::Bytes;
use machinery::object::str_at;
use machinery::status::{Cause, Details, StatusError};
use serde_json::Value;

use super::CallError;

/// A whole answer.
pub struct Answer {
    pub code: u16,
    pub content_type: String,
    pub body: Bytes,
}

pub fn read(answer: Answer) -> Result<Value, CallError> {
    let parsed = machinery::json::parse(&answer.body).map(|p| p.value);
    let failure = parsed.as_ref().ok().filter(|v| is_failure(v));
    if !(200..=206).contains(&answer.code) {
        let from_status = failure.map(status);
        return Err(CallError::Status(from_status.unwrap_or_else(|| generic(&answer))));
    }
    if let Some(failure) = failure {
        return Err(CallError::Status(status(failure)));
    }
    if answer.body.is_empty() {
        let text = format!("0-length response with status code: {} and content type: {}", answer.code, answer.content_type);
        return Err(CallError::Decode(text));
    }
    let value = parsed.map_err(|e| CallError::Decode(format!("couldn't get version/kind; json parse error: {e}")))?;
    for (key, name) in [("kind", "Kind"), ("apiVersion", "apiVersion")] {
        if str_at(&value, key).is_empty() {
            let shown = String::from_utf8_lossy(&answer.body[..answer.body.len().min(1024)]).into_owned();
            return Err(CallError::Decode(format!("Object '{name}' is missing in '{shown}'")));
        }
    }
    Ok(value)
}

fn is_failure(value: &Value) -> bool {
    value.get("kind") == Some(&Value::from("Status")) && str_at(value, "apiVersion") == "v1" && str_at(value, "status") != "Success"
}

fn status(value: &Value) -> StatusError {
    let code = value.get("code").and_then(Value::as_u64).and_then(|c| u16::try_from(c).ok()).unwrap_or(500);
    StatusError::verbatim(code, value.clone())
}

/// The error of an answer that says nothing we know (`NewGenericServerResponse`).
fn generic(answer: &Answer) -> StatusError {
    let is_text = answer.content_type.is_empty() || answer.content_type.starts_with("text/");
    let said = if is_text { String::from_utf8_lossy(&answer.body).trim().to_owned() } else { "unknown".to_owned() };
    let (reason, message) = match answer.code {
        409 => ("AlreadyExists", "the server reported a conflict".to_owned()),
        404 => ("NotFound", "the server could not find the requested resource".to_owned()),
        400 => ("BadRequest", "the server rejected our request for an unknown reason".to_owned()),
        401 => ("Unauthorized", "the server has asked for the client to provide credentials".to_owned()),
        403 => ("Forbidden", said.clone()),
        406 if said.is_empty() || said == "unknown" => {
            ("NotAcceptable", "the server was unable to respond with a content type that the client supports".to_owned())
        }
        406 => ("NotAcceptable", said.clone()),
        415 => ("UnsupportedMediaType", said.clone()),
        405 => ("MethodNotAllowed", "the server does not allow this method on the requested resource".to_owned()),
        422 => ("Invalid", "the server rejected our request due to an error in our request".to_owned()),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request".to_owned()),
        504 => (
            "Timeout",
            "the server was unable to return a response in the time allotted, but may still be processing the request".to_owned(),
        ),
        429 => ("TooManyRequests", "the server has received too many requests and has asked us to try again later".to_owned()),
        code if code >= 500 => ("InternalError", format!("an error on the server ({said:?}) has prevented the request from succeeding")),
        code => ("", format!("the server responded with the status code {code} but did not return more information")),
    };
    let cause = Cause { reason: "UnexpectedServerResponse".into(), message: said, field: String::new() };
    let details = Details { causes: vec![cause], ..Details::default() };
    StatusError { details: Some(Box::new(details)), ..StatusError::new(answer.code, reason, message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(code: u16, content_type: &str, body: &'static str) -> String {
        let answer = Answer { code, content_type: content_type.to_owned(), body: body.into() };
        read(answer).map_or_else(|e| e.to_string(), |v| v.to_string())
    }

    #[test]
    fn answers_read_as_client_go_reads_them() {
        assert_eq!(text(500, "text/plain", "boom\n"), "an error on the server (\"boom\") has prevented the request from succeeding");
        assert_eq!(
            text(500, "text/html; x", "a \"b\""),
            "an error on the server (\"a \\\"b\\\"\") has prevented the request from succeeding"
        );
        assert_eq!(text(404, "application/json", "{}"), "the server could not find the requested resource");
        assert_eq!(text(302, "", ""), "the server responded with the status code 302 but did not return more information");
        assert_eq!(text(200, "application/json", ""), "0-length response with status code: 200 and content type: application/json");
        assert_eq!(text(200, "", "{\"a\":1}"), "Object 'Kind' is missing in '{\"a\":1}'");
        assert!(text(200, "", "nonsense").starts_with("couldn't get version/kind; json parse error: "));
        let status = "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\"message\":\"no\",\"code\":403}";
        assert_eq!(text(403, "application/json", status), "no");
        assert_eq!(text(200, "application/json", "{\"kind\":\"A\",\"apiVersion\":\"b\"}"), "{\"apiVersion\":\"b\",\"kind\":\"A\"}");
    }
}
