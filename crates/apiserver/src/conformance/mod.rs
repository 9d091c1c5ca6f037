//! Steps that upstream's conformance tests take at the API alone, by their names in `docs/conformance.tsv`. What needs pods is in
//! the crate `e2e`. Tests only.

mod accounts;
mod definitions;
mod discovery;
mod fields;
mod namespaces;
mod operations;
mod policies;
mod publishing;
mod watching;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use machinery::gvk::GroupVersionKind;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::protobuf;
use crate::testing::{Answer, Cluster};

const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A request as upstream's typed clients make it: what is sent and what comes back is protobuf.
async fn typed(cluster: &Cluster, method: &str, path: &str, body: &Value) -> Answer {
    let bytes = if body.is_null() { Vec::new() } else { protobuf::encode(body).unwrap_or_else(|| panic!("no protobuf: {body}")) };
    let request = Request::builder().method(method).uri(path).header("accept", format!("{PROTOBUF},application/json"));
    let request = request.header("content-type", PROTOBUF).body(Full::<Bytes>::from(bytes)).unwrap();
    let answer = cluster.api.service().oneshot(request).await.unwrap();
    let (parts, body) = answer.into_parts();
    assert_eq!(parts.headers["content-type"], PROTOBUF, "{method} {path}");
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = protobuf::decode(&bytes, &GroupVersionKind::new("", "v1", "Status")).unwrap();
    Answer { code: parts.status.as_u16(), headers: parts.headers, body }
}

/// As [`typed`], of what must succeed.
async fn sure(cluster: &Cluster, method: &str, path: &str, body: &Value) -> Value {
    let answer = typed(cluster, method, path, body).await;
    assert!(answer.code < 300, "{method} {path}: {}", answer.body);
    answer.body
}

/// A text as it is, with its type.
async fn raw(cluster: &Cluster, method: &str, path: &str, content_type: &str, text: &str) -> Answer {
    let request = Request::builder().method(method).uri(path).header("content-type", content_type);
    cluster.send(request.body(Full::from(text.to_owned())).unwrap()).await
}

async fn merge(cluster: &Cluster, path: &str, patch: &Value) -> Value {
    let answer = cluster.ask_as("PATCH", path, MERGE, patch).await;
    assert_eq!(answer.code, 200, "{path}: {}", answer.body);
    answer.body
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

/// A definition of `plural.group`, established.
async fn define(cluster: &Cluster, group: &str, kind: &str, versions: &[(&str, Value)]) -> Value {
    let plural = format!("{}s", kind.to_lowercase());
    let versions: Vec<Value> = versions.iter().enumerate().map(|(at, (name, schema))| {
        json!({"name": name, "served": true, "storage": at == 0, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": schema}})
    }).collect();
    let body = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": kind}, "versions": versions}});
    cluster.ok("POST", DEFINITIONS, &body).await;
    let path = format!("{DEFINITIONS}/{plural}.{group}");
    trial::found("the definition is established", || async {
        let found = cluster.get(&path).await.body;
        kinds::custom::conditions::is_true(&found, "Established").then_some(found)
    })
    .await
}

/// A watch that is read event by event.
struct Watch {
    body: crate::Body,
    typed: bool,
    read: Vec<u8>,
    events: std::collections::VecDeque<Value>,
}

impl Watch {
    async fn start(cluster: &Cluster, path: &str) -> Self {
        Self::accepting(cluster, path, "application/json").await
    }

    /// As upstream's typed clients watch: in protobuf.
    async fn typed(cluster: &Cluster, path: &str) -> Self {
        Self::accepting(cluster, path, &format!("{PROTOBUF};stream=watch,application/json;stream=watch")).await
    }

    async fn accepting(cluster: &Cluster, path: &str, accept: &str) -> Self {
        let request = Request::builder().uri(path).header("accept", accept).body(Full::<Bytes>::default()).unwrap();
        let answer = cluster.api.service().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let typed = answer.headers()["content-type"] == format!("{PROTOBUF};stream=watch");
        assert_eq!(typed, accept.starts_with(PROTOBUF), "{:?}", answer.headers());
        Self { body: answer.into_body(), typed, read: Vec::new(), events: std::collections::VecDeque::new() }
    }

    async fn next(&mut self) -> Value {
        while self.events.is_empty() {
            let frame = tokio::time::timeout(std::time::Duration::from_secs(10), self.body.frame()).await;
            let bytes = frame.expect("an event").unwrap().unwrap().into_data().unwrap();
            if self.typed {
                self.read.extend_from_slice(&bytes);
                self.take_frames();
            } else {
                self.events.extend(serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>().map(Result::unwrap));
            }
        }
        self.events.pop_front().unwrap()
    }

    /// A frame is its length and a bare `WatchEvent`, which holds a sealed object.
    fn take_frames(&mut self) {
        while let Some(length) = self.read.first_chunk::<4>().map(|head| u32::from_be_bytes(*head) as usize) {
            if self.read.len() < 4 + length {
                return;
            }
            let frame: Vec<u8> = self.read.drain(..4 + length).skip(4).collect();
            let (kind, rest) = field(1, &frame);
            let (extension, rest) = field(2, rest);
            assert!(rest.is_empty());
            let object = protobuf::decode(field(1, extension).0, &GroupVersionKind::new("", "v1", "Status")).unwrap();
            self.events.push_back(json!({"type": String::from_utf8_lossy(kind), "object": object}));
        }
    }

    /// The next event's type, name and `data.n`.
    async fn told(&mut self) -> (String, String, String) {
        let event = self.next().await;
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        (text("/type"), text("/object/metadata/name"), text("/object/data/n"))
    }
}

/// The bytes of a message's first field, which must have this number, and what follows it.
fn field(number: u8, message: &[u8]) -> (&[u8], &[u8]) {
    assert_eq!(message[0], number << 3 | 2);
    let (mut length, mut at, mut shift) = (0, 1, 0);
    loop {
        length |= usize::from(message[at] & 0x7f) << shift;
        (at, shift) = (at + 1, shift + 7);
        if message[at - 1] < 0x80 {
            return message[at..].split_at(length);
        }
    }
}
