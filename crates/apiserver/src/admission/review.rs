//! `AdmissionReview` in v1 and v1beta1: the request that is sent, and what is taken from the answer
//! (upstream's `webhook/request`).

use base64::Engine as _;
use machinery::gvk::{GroupVersionKind, GroupVersionResource};
use machinery::object::str_at;
use serde_json::{Map, Value, json};

use super::matching::Matched;
use super::{Operation, Request};

const GROUP: &str = "admission.k8s.io";
/// What a webhook may say in warnings, together; upstream leaves that to the client's recorder, which cuts at the same length.
const WARNINGS_MAX: usize = 64;

/// The `request` of a review without its objects: also what expressions of policies see as `request`.
pub fn request(request: &Request<'_>, matched: &Matched, uid: &str) -> Value {
    let mut out = json!({
        "uid": uid,
        "kind": kind(&matched.kind),
        "resource": resource(&matched.resource),
        "requestKind": kind(&request.kind),
        "requestResource": resource(&request.gvr()),
        "operation": request.operation.name(),
        "userInfo": user_info(request),
        "dryRun": request.dry_run,
        "options": request.options(),
    });
    for (key, text) in [
        ("subResource", request.subresource),
        ("requestSubResource", request.subresource),
        ("name", request.name),
        ("namespace", request.namespace),
    ] {
        if !text.is_empty() {
            out[key] = json!(text);
        }
    }
    out
}

fn kind(of: &GroupVersionKind) -> Value {
    json!({"group": of.group, "version": of.version, "kind": of.kind})
}

fn resource(of: &GroupVersionResource) -> Value {
    json!({"group": of.group, "version": of.version, "resource": of.resource})
}

fn user_info(request: &Request<'_>) -> Value {
    let user = request.user;
    let mut out = Map::new();
    for (key, text) in [("username", &user.name), ("uid", &user.uid)] {
        if !text.is_empty() {
            out.insert(key.to_owned(), json!(text));
        }
    }
    if !user.groups.is_empty() {
        out.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        out.insert("extra".to_owned(), json!(user.extra));
    }
    Value::Object(out)
}

/// The review to send. `version` is one the webhook accepts.
pub fn review(about: &Request<'_>, matched: &Matched, uid: &str, version: &str, object: Value, old: Value) -> Value {
    let mut inner = request(about, matched, uid);
    inner["object"] = object;
    inner["oldObject"] = if matches!(about.operation, Operation::Create | Operation::Connect) { Value::Null } else { old };
    json!({"kind": "AdmissionReview", "apiVersion": format!("{GROUP}/{version}"), "request": inner})
}

/// The first version of a webhook's that we speak.
pub fn version(accepted: &[String]) -> Result<&str, String> {
    let known = accepted.iter().find(|v| matches!(v.as_str(), "v1" | "v1beta1"));
    known.map(String::as_str).ok_or_else(|| "webhook does not accept known AdmissionReview versions (v1, v1beta1)".to_owned())
}

/// A webhook's answer.
#[derive(Debug, Default, PartialEq)]
pub struct Response {
    pub allowed: bool,
    /// A `Status`; null where there is none.
    pub status: Value,
    /// JSON Patch; empty where there is none.
    pub patch: Vec<u8>,
    pub patch_type: String,
    pub audit_annotations: Vec<(String, String)>,
    pub warnings: Vec<String>,
}

/// Checks an answer (`VerifyAdmissionResponse`).
pub fn verify(review: &Value, uid: &str, version: &str, mutating: bool) -> Result<Response, String> {
    let (api_version, got) = (str_at(review, "apiVersion"), str_at(review, "kind"));
    let response = review.get("response").filter(|r| r.is_object());
    let Some(response) = response else { return Err("webhook response was absent".to_owned()) };
    let text = |key: &str| response.get(key).and_then(Value::as_str).unwrap_or("");
    let patch = base64::engine::general_purpose::STANDARD
        .decode(text("patch"))
        .map_err(|e| format!("illegal base64 data in response.patch: {e}"))?;
    let mut patch_type = text("patchType").to_owned();
    if version == "v1" {
        if text("uid") != uid {
            return Err(format!("expected response.uid={uid:?}, got {:?}", text("uid")));
        }
        let (group, v) = api_version.split_once('/').unwrap_or(("", api_version));
        if (api_version, got) != ("admission.k8s.io/v1", "AdmissionReview") {
            return Err(format!("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {group}/{v}, Kind={got}"));
        }
        check_patch(!patch.is_empty(), response.get("patchType").filter(|t| !t.is_null()).is_some(), &patch_type, mutating)?;
    } else if !patch.is_empty() {
        patch_type = "JSONPatch".to_owned();
    }
    let annotations = response.get("auditAnnotations").and_then(Value::as_object).into_iter().flatten();
    let warnings = response.get("warnings").and_then(Value::as_array).into_iter().flatten().take(WARNINGS_MAX);
    Ok(Response {
        allowed: response.get("allowed").and_then(Value::as_bool).unwrap_or(false),
        status: response.get("status").cloned().unwrap_or_default(),
        patch: if mutating { patch } else { Vec::new() },
        patch_type,
        audit_annotations: annotations.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect(),
        warnings: warnings.filter_map(Value::as_str).map(str::to_owned).collect(),
    })
}

fn check_patch(patch: bool, has_type: bool, patch_type: &str, mutating: bool) -> Result<(), String> {
    let why = match (mutating, patch, has_type) {
        (true, true, false) => "webhook returned response.patch but not response.patchType",
        (true, false, true) => "webhook returned response.patchType but not response.patch",
        (true, true, true) if patch_type.is_empty() => "webhook returned invalid response.patchType of \"\"",
        (false, true, _) => "validating webhook may not return response.patch",
        (false, _, true) => "validating webhook may not return response.patchType",
        _ => return Ok(()),
    };
    Err(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_checked_as_upstream_checks_them() {
        let v1 = |response: Value, mutating: bool| {
            verify(&json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response}), "u", "v1", mutating)
                .map_or_else(|e| e, |r| format!("{} {}", r.allowed, String::from_utf8_lossy(&r.patch)))
        };
        let patch = "W10=";
        for (response, mutating, want) in [
            (json!(null), true, "webhook response was absent"),
            (json!({"uid": "x"}), true, "expected response.uid=\"u\", got \"x\""),
            (json!({"uid": "u", "patch": patch}), true, "webhook returned response.patch but not response.patchType"),
            (json!({"uid": "u", "patchType": "JSONPatch"}), true, "webhook returned response.patchType but not response.patch"),
            (json!({"uid": "u", "patch": patch, "patchType": "JSONPatch", "allowed": true}), true, "true []"),
            (json!({"uid": "u", "patch": patch, "patchType": "JSONPatch"}), false, "validating webhook may not return response.patch"),
            (json!({"uid": "u", "patchType": "JSONPatch"}), false, "validating webhook may not return response.patchType"),
            (json!({"uid": "u"}), false, "false "),
        ] {
            assert_eq!(v1(response.clone(), mutating), want, "{response}");
        }
        let other = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1", "response": {"uid": "u"}});
        let want =
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got admission.k8s.io/v1beta1, Kind=AdmissionReview";
        assert_eq!(verify(&other, "u", "v1", true), Err(want.to_owned()));
        // The old version trusts more.
        let old = json!({"response": {"allowed": true, "patch": patch}});
        assert_eq!(verify(&old, "u", "v1beta1", true).unwrap().patch_type, "JSONPatch");
    }
}
