//! What the server answers: `/mutate`, `/validate`, `/convert`, and the group `things.example.com/v1`.

use std::convert::Infallible;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures::stream;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};

use super::server::Answer;
use super::{admission, things};

/// Events of one watch.
const EVENTS: usize = 5;

fn answer_with(code: u16, value: &Value) -> Answer {
    let mut response = Response::new(Full::from(value.to_string()).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

/// `proxy` is the common name of the caller's certificate, empty where it showed none.
pub async fn answer(request: Request<Incoming>, pod: &str, proxy: &str) -> Answer {
    let (parts, body) = request.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let header =
        |name: &str| -> Vec<String> { parts.headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect() };
    if let Some(response) = admission::judge(parts.uri.path(), &body["request"]).await {
        return answer_with(200, &review(&body, response));
    }
    match parts.uri.path() {
        "/healthz" => answer_with(200, &json!("ok")),
        "/mutate" => answer_with(200, &mutate(&body, pod)),
        "/validate" => answer_with(200, &validate(&body, pod)),
        "/convert" => answer_with(200, &convert(&body)),
        "/apis/things.example.com/v1" => answer_with(200, &things::resources()),
        path if path.starts_with("/apis/things.example.com/v1/") => {
            // Whom to believe is what the front proxy's certificate is for.
            if proxy != "front-proxy-client" {
                return answer_with(
                    401,
                    &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "Unauthorized", "code": 401}),
                );
            }
            if path.ends_with("/whoami") {
                let extra: Vec<&str> =
                    parts.headers.keys().map(http::HeaderName::as_str).filter(|n| n.starts_with("x-remote-extra-")).collect();
                return answer_with(
                    200,
                    &json!({"user": header("x-remote-user"), "groups": header("x-remote-group"), "extra": extra, "pod": pod, "method": parts.method.as_str(), "body": body}),
                );
            }
            if parts.uri.query().is_some_and(|q| q.contains("watch=true")) {
                return watch();
            }
            let name = path.split_once("/things/").map_or("", |(_, name)| name);
            let (code, value) = things::answer(&parts.method, name, body);
            answer_with(code, &value)
        }
        _ => answer_with(404, &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404})),
    }
}

fn review(asked: &Value, mut response: Value) -> Value {
    response["uid"] = asked["request"]["uid"].clone();
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})
}

/// Notes which pod has seen the object.
fn mutate(asked: &Value, pod: &str) -> Value {
    let mut operations = Vec::new();
    if !asked["request"]["object"]["metadata"]["annotations"].is_object() {
        operations.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
    }
    operations.push(json!({"op": "add", "path": "/metadata/annotations/example.com~1seen-by", "value": pod}));
    let patch = base64::engine::general_purpose::STANDARD.encode(json!(operations).to_string());
    review(asked, json!({"allowed": true, "patchType": "JSONPatch", "patch": patch, "warnings": ["seen by the extension"]}))
}

/// Refuses what is labelled `forbidden`, and to let go of what is labelled `kept`.
fn validate(asked: &Value, pod: &str) -> Value {
    let request = &asked["request"];
    let labelled = |object: &Value, label: &str| object["metadata"]["labels"][label] == "yes";
    let kept = request["operation"] == "DELETE" && labelled(&request["oldObject"], "kept");
    if labelled(&request["object"], "forbidden") || kept || request["operation"] == "CONNECT" {
        let why = format!("the extension forbids this {}", request["operation"].as_str().unwrap_or_default());
        return review(
            asked,
            json!({"allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": why}, "auditAnnotations": {"pod": pod}}),
        );
    }
    review(asked, json!({"allowed": true}))
}

/// `hostPort` of v1 is `host` and `port` of all later versions.
fn convert(asked: &Value) -> Value {
    let request = &asked["request"];
    let to = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let convert_one = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = json!(to);
        let Some(map) = object.as_object_mut() else { return object };
        if to.ends_with("/v1") {
            let part = |v: Option<Value>| v.and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
            let (host, port) = (part(map.remove("host")), part(map.remove("port")));
            map.insert("hostPort".to_owned(), json!(format!("{host}:{port}")));
        } else if let Some(text) = map.remove("hostPort") {
            let (host, port) = text.as_str().and_then(|t| t.split_once(':')).map(|(h, p)| (h.to_owned(), p.to_owned())).unwrap_or_default();
            map.insert("host".to_owned(), json!(host));
            map.insert("port".to_owned(), json!(port));
        }
        object
    };
    let objects: Vec<Value> = request["objects"].as_array().into_iter().flatten().map(convert_one).collect();
    json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
        "response": {"uid": request["uid"], "convertedObjects": objects, "result": {"status": "Success"}}})
}

/// A few events, one after the other, so that each must come through when it is said.
fn watch() -> Answer {
    let events = stream::unfold(0, |count| async move {
        if count == EVENTS {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let line = format!("{}\n", json!({"type": "ADDED", "object": things::thing(&format!("thing-{}", count + 2), count + 2)}));
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(line))), count + 1))
    });
    let mut response = Response::new(StreamBody::new(events).boxed_unsync());
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}
