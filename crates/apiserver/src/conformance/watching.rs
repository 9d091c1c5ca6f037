//! Watchers, chunks, and what has no Table. Tests only.

use serde_json::{Value, json};

use super::Watch;
use crate::testing::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn labelled(name: &str, label: &str, n: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"watch": label}}, "data": {"n": n}})
}

async fn put(cluster: &Cluster, name: &str, label: &str, n: &str) -> String {
    let put = cluster.ok("PUT", &format!("{MAPS}/{name}"), &labelled(name, label, n)).await;
    put["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

fn event(kind: &str, name: &str, n: &str) -> (String, String, String) {
    (kind.to_owned(), name.to_owned(), n.to_owned())
}

#[tokio::test]
async fn watchers_observe_add_update_and_delete() {
    let cluster = Cluster::start().await;
    let mut a = Watch::typed(&cluster, &format!("{MAPS}?watch=1&labelSelector=watch%3DA")).await;
    let mut b = Watch::typed(&cluster, &format!("{MAPS}?watch=1&labelSelector=watch%3DB")).await;
    let mut both = Watch::typed(&cluster, &format!("{MAPS}?watch=1&labelSelector=watch+in+(A,B)")).await;
    cluster.ok("POST", MAPS, &labelled("a", "A", "0")).await;
    put(&cluster, "a", "A", "1").await;
    put(&cluster, "a", "A", "2").await;
    cluster.ok("DELETE", &format!("{MAPS}/a"), &Value::Null).await;
    cluster.ok("POST", MAPS, &labelled("b", "B", "0")).await;
    cluster.ok("DELETE", &format!("{MAPS}/b"), &Value::Null).await;
    for (kind, n) in [("ADDED", "0"), ("MODIFIED", "1"), ("MODIFIED", "2"), ("DELETED", "2")] {
        assert_eq!(a.told().await, event(kind, "a", n));
        assert_eq!(both.told().await, event(kind, "a", n));
    }
    for kind in ["ADDED", "DELETED"] {
        assert_eq!(b.told().await, event(kind, "b", "0"));
        assert_eq!(both.told().await, event(kind, "b", "0"));
    }
    cluster.end().await;
}

#[tokio::test]
async fn watchers_start_from_a_resource_version() {
    let cluster = Cluster::start().await;
    cluster.ok("POST", MAPS, &labelled("a", "A", "0")).await;
    let first = put(&cluster, "a", "A", "1").await;
    put(&cluster, "a", "A", "2").await;
    cluster.ok("DELETE", &format!("{MAPS}/a"), &Value::Null).await;
    let mut watch = Watch::typed(&cluster, &format!("{MAPS}?watch=1&labelSelector=watch%3DA&resourceVersion={first}")).await;
    assert_eq!(watch.told().await, event("MODIFIED", "a", "2"));
    assert_eq!(watch.told().await, event("DELETED", "a", "2"));
    cluster.end().await;
}

#[tokio::test]
async fn watchers_restart_from_the_last_version_observed() {
    let cluster = Cluster::start().await;
    let path = format!("{MAPS}?watch=1&labelSelector=watch%3DA");
    let mut watch = Watch::typed(&cluster, &path).await;
    cluster.ok("POST", MAPS, &labelled("a", "A", "0")).await;
    put(&cluster, "a", "A", "1").await;
    assert_eq!(watch.told().await, event("ADDED", "a", "0"));
    let last = watch.next().await["object"]["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    drop(watch);
    put(&cluster, "a", "A", "2").await;
    cluster.ok("DELETE", &format!("{MAPS}/a"), &Value::Null).await;
    let mut watch = Watch::typed(&cluster, &format!("{path}&resourceVersion={last}")).await;
    assert_eq!(watch.told().await, event("MODIFIED", "a", "2"));
    assert_eq!(watch.told().await, event("DELETED", "a", "2"));
    cluster.end().await;
}

#[tokio::test]
async fn watchers_observe_a_deletion_when_the_selector_is_left() {
    let cluster = Cluster::start().await;
    let mut watch = Watch::typed(&cluster, &format!("{MAPS}?watch=1&labelSelector=watch%3DA")).await;
    cluster.ok("POST", MAPS, &labelled("a", "A", "0")).await;
    put(&cluster, "a", "A", "1").await;
    put(&cluster, "a", "other", "1").await;
    assert_eq!(watch.told().await, event("ADDED", "a", "0"));
    assert_eq!(watch.told().await, event("MODIFIED", "a", "1"));
    assert_eq!(watch.told().await, event("DELETED", "a", "1"));
    // Nothing is heard of it until it is back.
    put(&cluster, "a", "other", "2").await;
    put(&cluster, "a", "A", "2").await;
    put(&cluster, "a", "A", "3").await;
    cluster.ok("DELETE", &format!("{MAPS}/a"), &Value::Null).await;
    for (kind, n) in [("ADDED", "2"), ("MODIFIED", "3"), ("DELETED", "3")] {
        assert_eq!(watch.told().await, event(kind, "a", n));
    }
    cluster.end().await;
}

#[tokio::test]
async fn lists_come_in_chunks() {
    let cluster = Cluster::start().await;
    let templates = "/api/v1/namespaces/default/podtemplates";
    let template = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
    for number in 0..400 {
        let name = format!("template-{number:04}");
        cluster.ok("POST", templates, &json!({"metadata": {"name": name}, "template": template})).await;
    }
    for limit in [17, 400, 133] {
        let (mut seen, mut token, mut version) = (0, String::new(), Value::Null);
        loop {
            let path = format!("{templates}?limit={limit}&continue={token}");
            let page = cluster.ok("GET", &path, &Value::Null).await;
            let (meta, items) = (&page["metadata"], page["items"].as_array().unwrap());
            assert!(items.len() <= limit);
            assert!(version.is_null() || version == meta["resourceVersion"], "one snapshot");
            version = meta["resourceVersion"].clone();
            for item in items {
                assert_eq!(item["metadata"]["name"], format!("template-{seen:04}"));
                seen += 1;
            }
            token = meta["continue"].as_str().unwrap_or("").to_owned();
            let left = meta["remainingItemCount"].as_u64().unwrap_or(0);
            assert_eq!(left, 400 - seen);
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, 400);
    }
    assert_eq!(cluster.ok("GET", templates, &Value::Null).await["items"].as_array().unwrap().len(), 400);
    cluster.end().await;
}

#[tokio::test]
async fn concurrent_watches_tell_the_same_order() {
    let cluster = Cluster::start().await;
    let path = format!("{MAPS}?watch=1&labelSelector=watch%3Dmany");
    let first_version = cluster.get(MAPS).await.body["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let writes = async {
        for number in 0..30 {
            let name = format!("m{}", number % 5);
            let (one, object) = (format!("{MAPS}/{name}"), labelled(&name, "many", &number.to_string()));
            // Some are refused: it is there already, or not.
            match number % 3 {
                0 => cluster.ask("POST", MAPS, &object).await,
                1 if number % 2 == 0 => cluster.ask("DELETE", &one, &Value::Null).await,
                _ => cluster.ask("PUT", &one, &object).await,
            };
        }
        cluster.ok("POST", MAPS, &labelled("last", "many", "0")).await;
    };
    let read = async {
        let mut told = Vec::new();
        let mut watch = Watch::typed(&cluster, &format!("{path}&resourceVersion={first_version}")).await;
        // Another watch from each event on: its first is the next event of the first watch.
        let mut others: Vec<Watch> = Vec::new();
        loop {
            let event = watch.next().await;
            let version = event["object"]["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
            for other in &mut others {
                assert_eq!(other.next().await["object"]["metadata"]["resourceVersion"], version, "after {told:?}");
            }
            others.push(Watch::typed(&cluster, &format!("{path}&resourceVersion={version}")).await);
            told.push(version);
            if event["object"]["metadata"]["name"] == "last" {
                return told;
            }
        }
    };
    let (told, ()) = tokio::join!(read, writes);
    assert!(told.len() > 10, "{told:?}");
    cluster.end().await;
}

#[tokio::test]
async fn what_has_no_metadata_has_no_table() {
    let cluster = Cluster::start().await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {
        "resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let request = http::Request::builder().method("POST").uri("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews");
    let request = request.header("accept", table).header("content-type", "application/json");
    let answer = cluster.send(request.body(http_body_util::Full::from(review.to_string())).unwrap()).await;
    assert_eq!((answer.code, &answer.body["reason"]), (406, &json!("NotAcceptable")), "{}", answer.body);
    // What has it is shown so.
    let request = http::Request::builder().uri("/api/v1/namespaces").header("accept", table);
    let answer = cluster.send(request.body(http_body_util::Full::default()).unwrap()).await;
    assert_eq!((answer.code, &answer.body["kind"]), (200, &json!("Table")));
    cluster.end().await;
}

#[tokio::test]
async fn the_components_tell_their_health() {
    let cluster = Cluster::start().await;
    cluster.api.beside("scheduler");
    let answer = cluster.get("/api/v1/componentstatuses").await;
    assert_eq!(answer.warnings(), ["v1 ComponentStatus is deprecated in v1.19+"]);
    assert_eq!(
        (&answer.body["kind"], super::names(&answer.body)),
        (&json!("ComponentStatusList"), vec!["controller-manager", "etcd-0", "scheduler"])
    );
    let condition = |status: &str, message: &str| json!([{"type": "Healthy", "status": status, "message": message}]);
    for at in [1, 2] {
        assert_eq!(answer.body["items"][at]["conditions"], condition("True", "ok"));
    }
    // Nobody answers for this one.
    let one = cluster.get("/api/v1/componentstatuses/controller-manager").await.body;
    let why = "Get \"https://127.0.0.1:10257/healthz\": dial tcp 127.0.0.1:10257: connect: connection refused";
    assert_eq!((&one["kind"], &one["conditions"]), (&json!("ComponentStatus"), &condition("False", why)));
    let one = cluster.get("/api/v1/componentstatuses?fieldSelector=metadata.name%3Detcd-0").await.body;
    assert_eq!(super::names(&one), ["etcd-0"]);
    let none = cluster.get("/api/v1/componentstatuses/nope").await;
    assert_eq!((none.code, none.message()), (404, "componentstatus \"nope\" not found"));
    let request =
        http::Request::builder().uri("/api/v1/componentstatuses").header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let table = cluster.send(request.body(http_body_util::Full::default()).unwrap()).await.body;
    assert_eq!(table["rows"][1]["cells"], json!(["etcd-0", "Healthy", "ok", ""]), "{table}");
    let sent = super::sure(&cluster, "GET", "/api/v1/componentstatuses", &Value::Null).await;
    assert_eq!(super::names(&sent).len(), 3);
    cluster.end().await;
}
