//! Verbs over HTTP: whose fields a Scale changes, lists in protobuf, documents of OpenAPI, tokens that have grown old.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::testing::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const APPLY: &str = "application/apply-patch+yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

async fn raw(cluster: &Cluster, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, Bytes) {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = cluster.api.service().oneshot(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    let (parts, body) = answer.into_parts();
    (parts.status.as_u16(), parts.headers, body.collect().await.unwrap().to_bytes())
}

fn replica_set(replicas: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "a"}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

fn scale(replicas: i64) -> Value {
    json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"}, "spec": {"replicas": replicas}})
}

/// The owners of the replicas: manager, operation, subresource.
fn owners(object: &Value) -> Vec<(String, String, String)> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let has = |e: &&Value| e["fieldsV1"]["f:spec"].get("f:replicas").is_some();
    let text = |e: &Value, key: &str| e[key].as_str().unwrap_or_default().to_owned();
    entries.iter().filter(has).map(|e| (text(e, "manager"), text(e, "operation"), text(e, "subresource"))).collect()
}

#[tokio::test]
async fn a_scale_takes_and_gives_the_ownership_of_replicas() {
    let cluster = Cluster::start().await;
    let one = format!("{SETS}/a");
    let through = format!("{one}/scale");
    let owner = |m: &str, o: &str, s: &str| vec![(m.to_owned(), o.to_owned(), s.to_owned())];
    let applied = cluster.ask_as("PATCH", &format!("{one}?fieldManager=owner"), APPLY, &replica_set(1)).await;
    assert_eq!((applied.code, owners(&applied.body)), (201, owner("owner", "Apply", "")));
    // Applied through the Scale, another's replicas are a conflict; forced, they change hands.
    let refused = cluster.ask_as("PATCH", &format!("{through}?fieldManager=scaler"), APPLY, &scale(3)).await;
    let text = "Apply failed with 1 conflict: conflict with \"owner\": .spec.replicas";
    assert_eq!((refused.code, refused.message()), (409, text), "{}", refused.body);
    let forced = cluster.ask_as("PATCH", &format!("{through}?fieldManager=scaler&force=true"), APPLY, &scale(3)).await;
    assert_eq!((forced.code, &forced.body["spec"]["replicas"]), (200, &json!(3)), "{}", forced.body);
    let object = cluster.get(&one).await.body;
    assert_eq!((owners(&object), &object["spec"]["replicas"]), (owner("scaler", "Apply", "scale"), &json!(3)));
    // And the owner of the object meets the one who scaled.
    let refused = cluster.ask_as("PATCH", &format!("{one}?fieldManager=owner"), APPLY, &replica_set(1)).await;
    let text = "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\": .spec.replicas";
    assert_eq!((refused.code, refused.message()), (409, text));
    // Writes without apply take without asking.
    let patch = json!({"spec": {"replicas": 5}});
    let patched = cluster.ask_as("PATCH", &format!("{through}?fieldManager=patcher"), "application/merge-patch+json", &patch).await;
    assert_eq!(patched.code, 200, "{}", patched.body);
    assert_eq!(owners(&cluster.get(&one).await.body), owner("patcher", "Update", "scale"));
    // What does not change the replicas changes no owner, nor the version.
    let before = cluster.get(&one).await.body;
    let same = cluster.ask("PUT", &format!("{through}?fieldManager=other"), &scale(5)).await;
    assert_eq!((same.code, cluster.get(&one).await.body), (200, before));
    let mut stale = scale(6);
    stale["metadata"]["resourceVersion"] = json!("1");
    assert_eq!(cluster.ask("PUT", &through, &stale).await.code, 409);
    cluster.end().await;
}

#[tokio::test]
async fn a_list_in_protobuf_is_the_list() {
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c"] {
        cluster.ok("POST", MAPS, &json!({"metadata": {"name": name}, "data": {"k": name}})).await;
    }
    let want = cluster.get(MAPS).await.body;
    // Twice: the second time from what was kept of the first.
    for _ in 0..2 {
        let (code, headers, bytes) = raw(&cluster, MAPS, &[("accept", PROTOBUF)]).await;
        assert_eq!((code, headers["content-type"].to_str().unwrap()), (200, PROTOBUF));
        let mut got = crate::protobuf::decode(&bytes, &machinery::gvk::GroupVersionKind::new("", "v1", "ConfigMapList")).unwrap();
        assert_eq!(got["metadata"].as_object_mut().map(|m| m.remove("selfLink")), Some(None));
        for item in got["items"].as_array_mut().unwrap() {
            item.as_object_mut().unwrap().retain(|key, _| !matches!(key.as_str(), "kind" | "apiVersion"));
        }
        assert_eq!(got["items"], want["items"]);
    }
    cluster.ok("PUT", &format!("{MAPS}/b"), &json!({"metadata": {"name": "b"}, "data": {"k": "new"}})).await;
    let (_, _, bytes) = raw(&cluster, MAPS, &[("accept", PROTOBUF)]).await;
    let got = crate::protobuf::decode(&bytes, &machinery::gvk::GroupVersionKind::new("", "v1", "ConfigMapList")).unwrap();
    assert_eq!(got["items"][1]["data"]["k"], "new");
    cluster.end().await;
}

#[tokio::test]
async fn the_openapi_document_comes_in_the_form_asked_for() {
    let cluster = Cluster::start().await;
    let (v2, wanted) = ("/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf");
    let (code, headers, bytes) = raw(&cluster, v2, &[("accept", wanted)]).await;
    assert_eq!((code, headers["content-type"].to_str().unwrap()), (200, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"));
    assert!(bytes.starts_with(b"\x0a\x032.0") && bytes.len() > 500_000, "{} bytes", bytes.len());
    assert_eq!(raw(&cluster, v2, &[("accept", "text/html")]).await.0, 406);
    let (_, headers, json) = raw(&cluster, v2, &[]).await;
    assert!(serde_json::from_slice::<Value>(&json).unwrap()["definitions"]["io.k8s.api.core.v1.Pod"]["description"].is_string());
    let tag = headers["etag"].to_str().unwrap();
    assert_eq!(raw(&cluster, v2, &[("if-none-match", tag)]).await.0, 304);
    let (_, headers, packed) = raw(&cluster, v2, &[("accept-encoding", "gzip")]).await;
    assert_eq!(headers["content-encoding"], "gzip");
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*packed), &mut unpacked).unwrap();
    assert_eq!(unpacked, json);
    cluster.end().await;
}

#[tokio::test]
async fn an_old_token_goes_on_inconsistently() {
    let cluster = Cluster::start_with(|config| config.compaction_interval = Duration::from_millis(50)).await;
    for name in ["a", "b", "c"] {
        cluster.ok("POST", MAPS, &json!({"metadata": {"name": name}})).await;
    }
    let page = cluster.get(&format!("{MAPS}?limit=1")).await.body;
    let names = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&page), ["a"]);
    let token = URL_SAFE_NO_PAD.decode(page["metadata"]["continue"].as_str().unwrap()).unwrap();
    let mut token: Value = serde_json::from_slice(&token).unwrap();
    token["rv"] = json!(1);
    let old = URL_SAFE_NO_PAD.encode(token.to_string());
    // Compaction takes the history away, also from who writes nothing.
    let page = async || cluster.get(&format!("{MAPS}?limit=1&continue={old}")).await;
    let gone = trial::found("the token is too old", async || Some(page().await).filter(|answer| answer.code != 200)).await;
    assert_eq!((gone.code, &gone.body["reason"]), (410, &json!("Expired")), "{}", gone.body);
    let rest = gone.body["metadata"]["continue"].as_str().unwrap();
    let rest = cluster.get(&format!("{MAPS}?continue={rest}")).await;
    assert_eq!((rest.code, names(&rest.body)), (200, vec!["b".to_owned(), "c".to_owned()]));
    cluster.end().await;
}

#[tokio::test]
async fn what_the_router_and_apply_do_not_take() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.ask("HEAD", MAPS, &Value::Null).await.code, 405);
    let nowhere = cluster.ask("POST", "/api/v1/namespaces//configmaps", &json!({"metadata": {"name": "a"}})).await;
    assert_eq!((nowhere.code, nowhere.message()), (422, "ConfigMap \"a\" is invalid: metadata.namespace: Required value"));
    let nameless = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}});
    let refused = cluster.ask_as("PATCH", &format!("{MAPS}/a?fieldManager=m"), APPLY, &nameless).await;
    let text = "the name of the object (a based on URL) was undeterminable: name must be provided";
    assert_eq!((refused.code, refused.message()), (400, text));
    let unknown = cluster.get("/api/v2").await;
    assert_eq!((unknown.code, unknown.message()), (404, "the server could not find the requested resource"));
    cluster.end().await;
}
