//! `metav1.Status` and the error every API layer returns, with upstream's codes, reasons and wording
//! (`k8s.io/apimachinery/pkg/api/errors`).

use serde_json::{Value, json};

use crate::field;
use crate::gvk::{GroupKind, GroupResource};

/// A failed request: an HTTP code and the `metav1.Status` that goes with it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct StatusError {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    /// Boxed: most results are good ones and should not carry its size.
    pub details: Option<Box<Details>>,
}

/// `metav1.StatusDetails`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    pub group: String,
    /// Upstream puts the kind here for 422, the resource name otherwise.
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    /// Seconds; zero is left out.
    pub retry_after_seconds: i32,
    /// The whole Status as somebody else wrote it, a webhook: sent as it is.
    pub verbatim: Option<Value>,
}

/// `metav1.StatusCause`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

impl StatusError {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    fn about(code: u16, reason: &'static str, message: String, resource: &GroupResource, name: &str) -> Self {
        let details =
            Details { group: resource.group.clone(), kind: resource.resource.clone(), name: name.to_owned(), ..Details::default() };
        Self { code, reason, message, details: Some(Box::new(details)) }
    }

    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::about(404, "NotFound", format!("{resource} \"{name}\" not found"), resource, name)
    }

    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::about(409, "AlreadyExists", format!("{resource} \"{name}\" already exists"), resource, name)
    }

    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> Self {
        Self::about(409, "Conflict", format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}"), resource, name)
    }

    /// The conflict of a stale write.
    pub fn stale(resource: &GroupResource, name: &str) -> Self {
        Self::conflict(resource, name, "the object has been modified; please apply your changes to the latest version and try again")
    }

    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = match (resource.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} \"{name}\" is forbidden: {why}"),
        };
        Self::about(403, "Forbidden", message, resource, name)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub fn bad_request(why: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", why)
    }

    pub fn method_not_supported(resource: &GroupResource, action: &str) -> Self {
        let details = Details { group: resource.group.clone(), kind: resource.resource.clone(), ..Details::default() };
        let message = format!("{action} is not supported on resources of kind \"{resource}\"");
        Self { code: 405, reason: "MethodNotAllowed", message, details: Some(Box::new(details)) }
    }

    pub fn unsupported_media_type(why: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", why)
    }

    pub fn not_acceptable(why: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", why)
    }

    pub fn request_entity_too_large(why: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", why)
    }

    /// 410: the resource version asked for is gone; clients must list again.
    pub fn expired(why: impl Into<String>) -> Self {
        Self::new(410, "Expired", why)
    }

    pub fn too_many_requests(why: impl Into<String>, retry_after_seconds: i32) -> Self {
        let details = Details { retry_after_seconds, ..Details::default() };
        Self { code: 429, reason: "TooManyRequests", message: why.into(), details: Some(Box::new(details)) }
    }

    pub fn internal(why: impl Into<String>) -> Self {
        let why = why.into();
        let details = Details { causes: vec![Cause { message: why.clone(), ..Cause::default() }], ..Details::default() };
        Self { code: 500, reason: "InternalError", message: format!("Internal error occurred: {why}"), details: Some(Box::new(details)) }
    }

    /// 422 with a cause per field error. A single error stands alone, several in brackets, as Go's aggregate prints.
    pub fn invalid(kind: &GroupKind, name: &str, errors: &[field::Error]) -> Self {
        let joined = field::aggregate(errors);
        let causes =
            errors.iter().map(|e| Cause { reason: e.kind.reason().to_owned(), message: e.body(), field: e.field.clone() }).collect();
        let details = Details { group: kind.group.clone(), kind: kind.kind.clone(), name: name.to_owned(), causes, ..Details::default() };
        Self { code: 422, reason: "Invalid", message: format!("{kind} \"{name}\" is invalid: {joined}"), details: Some(Box::new(details)) }
    }

    /// A Status somebody else wrote.
    pub fn verbatim(code: u16, status: Value) -> Self {
        let message = crate::object::str_at(&status, "message").to_owned();
        let details = Details { verbatim: Some(status), ..Details::default() };
        Self { code, reason: "", message, details: Some(Box::new(details)) }
    }

    /// The `metav1.Status` object sent to the client.
    pub fn to_status(&self) -> Value {
        if let Some(status) = self.details.as_ref().and_then(|d| d.verbatim.as_ref()) {
            return status.clone();
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = details.to_value();
        }
        status
    }
}

impl Details {
    pub fn to_value(&self) -> Value {
        let mut out = serde_json::Map::new();
        for (key, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !text.is_empty() {
                out.insert(key.to_owned(), json!(text));
            }
        }
        if !self.causes.is_empty() {
            out.insert("causes".to_owned(), self.causes.iter().map(Cause::to_value).collect());
        }
        if self.retry_after_seconds != 0 {
            out.insert("retryAfterSeconds".to_owned(), json!(self.retry_after_seconds));
        }
        Value::Object(out)
    }
}

impl Cause {
    fn to_value(&self) -> Value {
        let mut out = serde_json::Map::new();
        for (key, text) in [("reason", &self.reason), ("message", &self.message), ("field", &self.field)] {
            if !text.is_empty() {
                out.insert(key.to_owned(), json!(text));
            }
        }
        Value::Object(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{Error, Path};

    #[test]
    fn invalid_joins_errors_as_go_aggregates_do() {
        let spec = Path::new("spec");
        let kind = GroupKind { group: "apps".into(), kind: "Deployment".into() };
        let one = StatusError::invalid(&kind, "a", &[Error::required(&spec, "")]);
        assert_eq!(one.message, "Deployment.apps \"a\" is invalid: spec: Required value");
        let two = StatusError::invalid(&kind, "a", &[Error::required(&spec, ""), Error::forbidden(&spec, "no")]);
        assert_eq!(two.message, "Deployment.apps \"a\" is invalid: [spec: Required value, spec: Forbidden: no]");
        assert_eq!(two.to_status()["details"]["causes"][1]["reason"], "FieldValueForbidden");
    }
}
