//! Webhooks of every kind of behaviour, against a running API server.

use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::testing::{Asked, Cluster, HttpsServer, json_response, text_response};

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn review(asked: &Asked, mut response: Value) -> Response<Full<Bytes>> {
    response["uid"] = asked.body["request"]["uid"].clone();
    json_response(200, &json!({"kind": "AdmissionReview", "apiVersion": asked.body["apiVersion"], "response": response}))
}

fn patching(asked: &Asked, patch: &Value) -> Response<Full<Bytes>> {
    let patch = base64::engine::general_purpose::STANDARD.encode(patch.to_string());
    review(asked, json!({"allowed": true, "patchType": "JSONPatch", "patch": patch}))
}

/// What it does is in the path.
async fn behave(asked: Asked) -> Response<Full<Bytes>> {
    let path = asked.uri.split('?').next().unwrap().to_owned();
    let steps: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match steps.as_slice() {
        ["allow"] => review(&asked, json!({"allowed": true})),
        ["warn"] => review(&asked, json!({"allowed": true, "warnings": ["mind the gap"], "auditAnnotations": {"k": "v"}})),
        ["deny"] => review(&asked, json!({"allowed": false, "status": {"message": "not today", "code": 409, "reason": "Conflict"}})),
        ["mute"] => review(&asked, json!({"allowed": false})),
        // Adds `data.KEY`, once.
        ["add", key] => {
            let object = &asked.body["request"]["object"];
            if object["data"].get(*key).is_some() {
                return review(&asked, json!({"allowed": true}));
            }
            let mut operations = vec![json!({"op": "add", "path": format!("/data/{key}"), "value": "here"})];
            if !object["data"].is_object() {
                operations.insert(0, json!({"op": "add", "path": "/data", "value": {}}));
            }
            patching(&asked, &json!(operations))
        }
        // Counts how often it was called.
        ["count", key] => {
            let object = &asked.body["request"]["object"];
            let seen: u32 = object["data"].get(*key).and_then(Value::as_str).and_then(|t| t.parse().ok()).unwrap_or(0);
            let text = (seen + 1).to_string();
            patching(&asked, &json!([{"op": "add", "path": format!("/data/{key}"), "value": text}]))
        }
        ["init"] => {
            let container = json!({"name": "added", "image": "i"});
            patching(&asked, &json!([{"op": "add", "path": "/spec/initContainers", "value": [container]}]))
        }
        ["bad-patch"] => patching(&asked, &json!([{"op": "remove", "path": "/none"}])),
        ["bad-type"] => patching(&asked, &json!([{"op": "add", "path": "/data", "value": {"a": 1}}])),
        ["uid"] => {
            let body = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": {"uid": "x", "allowed": true}});
            json_response(200, &body)
        }
        ["broken"] => text_response(500, "it broke"),
        ["slow"] => {
            tokio::time::sleep(Duration::from_secs(20)).await;
            text_response(200, "")
        }
        other => panic!("{other:?}"),
    }
}

struct Lab {
    cluster: Cluster,
    server: HttpsServer,
}

impl Lab {
    async fn start() -> Self {
        Self { cluster: Cluster::start().await, server: HttpsServer::start(&["127.0.0.1"], behave).await }
    }

    fn hook(&self, path: &str, change: Value) -> Value {
        let mut hook = json!({
            "name": format!("{}.example.com", path.trim_matches('/').replace('/', "-")), "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": self.server.url(path), "caBundle": self.server.ca_bundle()},
            "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
        });
        for (key, value) in change.as_object().into_iter().flatten() {
            hook[key] = value.clone();
        }
        hook
    }

    async fn configure(&self, path: &str, name: &str, hooks: Vec<Value>) {
        let kind = if path == MUTATING { "MutatingWebhookConfiguration" } else { "ValidatingWebhookConfiguration" };
        let body = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": hooks});
        self.cluster.ok("POST", path, &body).await;
    }

    async fn remove(&self, path: &str, name: &str) {
        self.cluster.ok("DELETE", &format!("{path}/{name}"), &Value::Null).await;
    }

    async fn map(&self, name: &str) -> crate::testing::Answer {
        self.map_with(name, json!({})).await
    }

    async fn map_with(&self, name: &str, labels: Value) -> crate::testing::Answer {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"own": "1"}});
        self.cluster.ask("POST", MAPS, &body).await
    }
}

#[tokio::test]
async fn patches_are_applied_in_order_and_reviews_carry_everything() {
    let lab = Lab::start().await;
    lab.configure(MUTATING, "b", vec![lab.hook("/add/second", json!({}))]).await;
    lab.configure(MUTATING, "a", vec![lab.hook("/add/first", json!({}))]).await;
    lab.configure(VALIDATING, "c", vec![lab.hook("/warn", json!({"admissionReviewVersions": ["v1beta1", "v1"]}))]).await;
    let made = lab.map("m").await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(made.body["data"], json!({"own": "1", "first": "here", "second": "here"}));
    assert_eq!(made.warnings(), ["mind the gap"]);
    let calls = lab.server.take_calls();
    let paths: Vec<&str> = calls.iter().map(|c| c.uri.as_str()).collect();
    assert_eq!(paths, ["/add/first?timeout=10s", "/add/second?timeout=10s", "/warn?timeout=10s"]);
    assert_eq!(calls[1].body["request"]["object"]["data"]["first"], "here", "each sees what the one before did");
    assert_eq!(
        (&calls[0].body["apiVersion"], &calls[2].body["apiVersion"]),
        (&json!("admission.k8s.io/v1"), &json!("admission.k8s.io/v1beta1"))
    );
    let request = &calls[2].body["request"];
    for (key, want) in [
        ("kind", json!({"group": "", "version": "v1", "kind": "ConfigMap"})),
        ("resource", json!({"group": "", "version": "v1", "resource": "configmaps"})),
        ("requestResource", json!({"group": "", "version": "v1", "resource": "configmaps"})),
        ("operation", json!("CREATE")),
        ("name", json!("m")),
        ("namespace", json!("default")),
        ("dryRun", json!(false)),
        ("oldObject", Value::Null),
        ("options", json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"})),
    ] {
        assert_eq!(request[key], want, "{key}");
    }
    assert_eq!(request["userInfo"]["username"], "system:apiserver");
    assert_eq!(request["object"]["data"]["second"], "here");
    let uid = made.body["metadata"]["uid"].as_str().unwrap();
    assert_eq!(request["object"]["metadata"]["uid"], uid, "validation sees what will be stored");

    // A patch goes through it all as well, and the old object comes along.
    let patch = json!({"data": {"first": null, "more": "2"}});
    let patched = lab.cluster.ask_as("PATCH", &format!("{MAPS}/m?fieldManager=me"), "application/merge-patch+json", &patch).await;
    assert_eq!(patched.body["data"], json!({"own": "1", "first": "here", "second": "here", "more": "2"}), "{}", patched.body);
    let calls = lab.server.take_calls();
    let request = &calls[0].body["request"];
    assert_eq!((&request["operation"], &request["oldObject"]["data"]["first"]), (&json!("UPDATE"), &json!("here")));
    assert_eq!(request["options"], json!({"kind": "PatchOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me"}));
    lab.cluster.end().await;
}

#[tokio::test]
async fn what_a_webhook_adds_gets_its_defaults() {
    let lab = Lab::start().await;
    let pods = json!([{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]);
    lab.configure(MUTATING, "a", vec![lab.hook("/init", json!({"rules": pods}))]).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = lab.cluster.ok("POST", "/api/v1/namespaces/default/pods", &pod).await;
    let added = &made["spec"]["initContainers"][0];
    assert_eq!((&added["imagePullPolicy"], &added["terminationMessagePolicy"]), (&json!("Always"), &json!("File")), "{added}");
    lab.cluster.end().await;
}

#[tokio::test]
async fn refusals_and_failures_have_upstreams_words() {
    let lab = Lab::start().await;
    let failed = |hook: &str, why: &str| (500, format!("Internal error occurred: failed calling webhook \"{hook}.example.com\": {why}"));
    let slow =
        failed("slow", &format!("failed to call webhook: Post \"{}?timeout=1s\": context deadline exceeded", lab.server.url("/slow")));
    let uid = lab.hook("/uid", json!({}));
    let gone = json!({"url": "https://127.0.0.1:1/x"});
    for (path, change, kind, want) in [
        ("/deny", json!({}), VALIDATING, (409, "admission webhook \"deny.example.com\" denied the request: not today".to_owned())),
        ("/deny", json!({}), MUTATING, (409, "admission webhook \"deny.example.com\" denied the request: not today".to_owned())),
        ("/mute", json!({}), VALIDATING, (400, "admission webhook \"mute.example.com\" denied the request without explanation".to_owned())),
        (
            "/broken",
            json!({}),
            VALIDATING,
            failed("broken", "failed to call webhook: an error on the server (\"it broke\") has prevented the request from succeeding"),
        ),
        ("/slow", json!({"timeoutSeconds": 1}), MUTATING, slow),
        (
            "/allow",
            json!({"clientConfig": gone}),
            MUTATING,
            failed(
                "allow",
                "failed to call webhook: Post \"https://127.0.0.1:1/x?timeout=10s\": dial tcp 127.0.0.1:1: connect: connection refused",
            ),
        ),
        (
            "/add/x",
            json!({}),
            VALIDATING,
            failed("add-x", "received invalid webhook response: validating webhook may not return response.patch"),
        ),
        ("/bad-patch", json!({}), MUTATING, (500, "Internal error occurred: ".to_owned())),
        ("/bad-type", json!({}), MUTATING, (500, "Internal error occurred: ".to_owned())),
    ] {
        lab.configure(kind, "w", vec![lab.hook(path, change)]).await;
        let answer = lab.map("m").await;
        assert_eq!(answer.code, want.0, "{path}: {}", answer.body);
        assert!(answer.message().starts_with(&want.1), "{path}: {:?} is not {:?}", answer.message(), want.1);
        lab.remove(kind, "w").await;
    }
    lab.configure(VALIDATING, "w", vec![uid]).await;
    let sent = lab.map("m").await;
    let uid = lab.server.calls().last().unwrap().body["request"]["uid"].as_str().unwrap().to_owned();
    assert_eq!(sent.message(), failed("uid", &format!("received invalid webhook response: expected response.uid={uid:?}, got \"x\"")).1);
    assert_eq!((&sent.body["reason"], &sent.body["status"]), (&json!("InternalError"), &json!("Failure")));
    assert_eq!(lab.cluster.get(&format!("{MAPS}/m")).await.code, 404, "nothing was written");
    lab.remove(VALIDATING, "w").await;

    // The same, where failing is no reason to refuse; but a refusal still is one.
    let open = |path: &str| lab.hook(path, json!({"failurePolicy": "Ignore", "timeoutSeconds": 1}));
    lab.configure(MUTATING, "w", vec![open("/slow"), open("/broken"), open("/add/x")]).await;
    lab.configure(VALIDATING, "w", vec![open("/slow"), open("/uid")]).await;
    let made = lab.map("open").await;
    assert_eq!((made.code, &made.body["data"]["x"]), (201, &json!("here")), "{}", made.body);
    lab.configure(VALIDATING, "x", vec![open("/deny")]).await;
    assert_eq!(lab.map("denied").await.code, 409);
    // Nobody judges the configurations themselves.
    let all = json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    lab.configure(VALIDATING, "y", vec![lab.hook("/deny", all)]).await;
    assert_eq!(lab.cluster.ask("DELETE", "/api/v1/namespaces/default/configmaps/open", &Value::Null).await.code, 409);
    lab.remove(VALIDATING, "y").await;
    lab.cluster.end().await;
}

#[tokio::test]
async fn only_what_is_selected_is_asked_about() {
    let lab = Lab::start().await;
    let rule = |operations: &[&str], resource: &str| json!([{"operations": operations, "apiGroups": ["*"], "apiVersions": ["*"], "resources": [resource]}]);
    let namespace =
        |name: &str, labels: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    for (change, asked) in [
        (json!({"rules": rule(&["CREATE"], "configmaps")}), true),
        (json!({"rules": rule(&["UPDATE"], "configmaps")}), false),
        (json!({"rules": rule(&["CREATE"], "configmaps/*")}), true),
        (json!({"rules": rule(&["CREATE"], "secrets")}), false),
        (
            json!({"rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["*"], "scope": "Cluster"}]}),
            false,
        ),
        (
            json!({"rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["*"], "scope": "Namespaced"}]}),
            true,
        ),
        (json!({"rules": [{"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["*"]}]}), false),
        (json!({"objectSelector": {"matchLabels": {"a": "b"}}}), true),
        (json!({"objectSelector": {"matchLabels": {"a": "c"}}}), false),
        (json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}), true),
        (
            json!({"namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["default"]}]}}),
            false,
        ),
    ] {
        lab.configure(VALIDATING, "w", vec![lab.hook("/deny", change.clone())]).await;
        let answer = lab.map_with("m", json!({"a": "b"})).await;
        assert_eq!(answer.code == 409, asked, "{change}: {}", answer.body);
        if answer.code == 201 {
            lab.cluster.ok("DELETE", &format!("{MAPS}/m"), &Value::Null).await;
        }
        lab.remove(VALIDATING, "w").await;
    }
    // A namespace is in none, and judged by its own labels.
    let on_namespaces = json!({"rules": rule(&["*"], "namespaces"), "namespaceSelector": {"matchLabels": {"judged": "yes"}}});
    lab.configure(VALIDATING, "w", vec![lab.hook("/deny", on_namespaces)]).await;
    assert_eq!(lab.cluster.ask("POST", "/api/v1/namespaces", &namespace("free", json!({}))).await.code, 201);
    assert_eq!(lab.cluster.ask("POST", "/api/v1/namespaces", &namespace("held", json!({"judged": "yes"}))).await.code, 409);
    let request = lab.server.calls().pop().unwrap().body["request"].clone();
    assert_eq!((&request["namespace"], &request["name"]), (&json!("held"), &json!("held")));
    lab.cluster.end().await;
}

#[tokio::test]
async fn other_versions_are_shown_as_the_rule_names_them() {
    let lab = Lab::start().await;
    let rules = |version: &str| json!([{"operations": ["*"], "apiGroups": ["autoscaling"], "apiVersions": [version], "resources": ["horizontalpodautoscalers"]}]);
    let path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let scaler = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "s"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}, "targetCPUUtilizationPercentage": 50}});
    lab.configure(VALIDATING, "w", vec![lab.hook("/allow", json!({"rules": rules("v2"), "matchPolicy": "Exact"}))]).await;
    lab.cluster.ok("POST", &format!("{path}?dryRun=All"), &scaler).await;
    assert!(lab.server.take_calls().is_empty());
    lab.configure(VALIDATING, "x", vec![lab.hook("/allow", json!({"rules": rules("v2")}))]).await;
    lab.cluster.ok("POST", path, &scaler).await;
    let request = lab.server.take_calls().pop().unwrap().body["request"].clone();
    assert_eq!((&request["kind"]["version"], &request["requestKind"]["version"]), (&json!("v2"), &json!("v1")));
    assert_eq!((&request["resource"]["version"], &request["requestResource"]["version"]), (&json!("v2"), &json!("v1")));
    assert_eq!(request["object"]["apiVersion"], "autoscaling/v2");
    assert_eq!(request["object"]["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
    lab.cluster.end().await;
}

#[tokio::test]
async fn those_who_want_it_are_asked_again() {
    let lab = Lab::start().await;
    let again = |path: &str| lab.hook(path, json!({"reinvocationPolicy": "IfNeeded"}));
    lab.configure(MUTATING, "a", vec![again("/count/again"), lab.hook("/count/once", json!({})), lab.hook("/add/late", json!({}))]).await;
    let made = lab.map("m").await;
    assert_eq!(made.body["data"], json!({"own": "1", "again": "2", "once": "1", "late": "here"}), "{}", made.body);
    lab.remove(MUTATING, "a").await;
    // Nothing changed after it: it is not asked again.
    lab.configure(MUTATING, "a", vec![lab.hook("/add/early", json!({})), again("/count/again")]).await;
    assert_eq!(lab.map("n").await.body["data"]["again"], "1");
    lab.cluster.end().await;
}

#[tokio::test]
async fn deletions_connections_and_subresources_are_asked_about() {
    let lab = Lab::start().await;
    let all = json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pod = lab.cluster.ok("POST", "/api/v1/namespaces/default/pods", &pod).await;
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod["spec"]}}});
    lab.cluster.ok("POST", "/apis/apps/v1/namespaces/default/replicasets", &set).await;
    lab.cluster
        .ok("POST", "/api/v1/namespaces/default/configmaps", &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}}))
        .await;
    lab.configure(VALIDATING, "w", vec![lab.hook("/deny", all)]).await;
    let pods = "/api/v1/namespaces/default/pods/p";
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "r"}, "spec": {"replicas": 3}});
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let mut status = pod.clone();
    status["status"]["message"] = json!("hm");
    for (method, path, body, operation, kind, name) in [
        ("GET", format!("{pods}/exec?command=ls&command=-l&stdin=true"), Value::Null, "CONNECT", "PodExecOptions", "p"),
        ("GET", format!("{pods}/attach?stdout=1"), Value::Null, "CONNECT", "PodAttachOptions", "p"),
        ("GET", format!("{pods}/portforward?ports=80"), Value::Null, "CONNECT", "PodPortForwardOptions", "p"),
        ("GET", format!("{pods}/proxy/a/b"), Value::Null, "CONNECT", "PodProxyOptions", "p"),
        ("PUT", format!("{pods}/status"), status, "UPDATE", "Pod", "p"),
        ("POST", format!("{pods}/eviction"), eviction, "CREATE", "Eviction", "p"),
        ("POST", format!("{pods}/binding"), binding.clone(), "CREATE", "Binding", "p"),
        ("POST", "/api/v1/namespaces/default/bindings".to_owned(), binding, "CREATE", "Binding", "p"),
        ("PUT", "/apis/apps/v1/namespaces/default/replicasets/r/scale".to_owned(), scale, "UPDATE", "Scale", "r"),
        ("POST", "/api/v1/namespaces/default/serviceaccounts/default/token".to_owned(), token, "CREATE", "TokenRequest", "default"),
        ("DELETE", pods.to_owned(), Value::Null, "DELETE", "Pod", "p"),
        ("DELETE", MAPS.to_owned(), Value::Null, "DELETE", "ConfigMap", ""),
        (
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned(),
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}),
            "CREATE",
            "SelfSubjectAccessReview",
            "",
        ),
    ] {
        if kind == "TokenRequest" {
            lab.remove(VALIDATING, "w").await;
            lab.cluster
                .ask(
                    "POST",
                    "/api/v1/namespaces/default/serviceaccounts",
                    &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}),
                )
                .await;
            let all = json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
            lab.configure(VALIDATING, "w", vec![lab.hook("/deny", all)]).await;
        }
        lab.server.take_calls();
        let answer = lab.cluster.ask(method, &path, &body).await;
        assert_eq!(answer.code, 409, "{method} {path}: {}", answer.body);
        let calls = lab.server.take_calls();
        // The server's own writes are asked about as well.
        let request = &calls.iter().find(|c| c.body["request"]["kind"]["kind"] == kind).expect(path.as_str()).body["request"];
        let got =
            (request["operation"].as_str().unwrap(), request["kind"]["kind"].as_str().unwrap(), request["name"].as_str().unwrap_or(""));
        assert_eq!(got, (operation, kind, name), "{method} {path}");
        match kind {
            "PodExecOptions" => {
                assert_eq!(request["object"], json!({"kind": "PodExecOptions", "apiVersion": "v1", "command": ["ls", "-l"], "stdin": true}))
            }
            "PodPortForwardOptions" => assert_eq!(request["object"]["ports"], json!([80])),
            "PodProxyOptions" => assert_eq!(request["object"]["path"], "/a/b"),
            "Scale" => assert_eq!((&request["object"]["spec"]["replicas"], &request["subResource"]), (&json!(3), &json!("scale"))),
            _ => {}
        }
        if operation == "DELETE" {
            assert_eq!((&request["object"], &request["oldObject"]["kind"]), (&Value::Null, &json!(kind)));
            assert_eq!(request["options"]["kind"], "DeleteOptions");
        }
    }
    lab.cluster.end().await;
}

#[tokio::test]
async fn dry_runs_call_only_what_has_no_side_effects() {
    let lab = Lab::start().await;
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}});
    let dry = format!("{MAPS}?dryRun=All");
    lab.configure(MUTATING, "w", vec![lab.hook("/add/x", json!({"sideEffects": "NoneOnDryRun"}))]).await;
    assert_eq!(lab.cluster.ok("POST", &dry, &body).await["data"]["x"], "here");
    let request = lab.server.take_calls().pop().unwrap().body["request"].clone();
    assert_eq!((&request["dryRun"], &request["options"]["dryRun"]), (&json!(true), &json!(["All"])));
    assert_eq!(lab.cluster.get(&format!("{MAPS}/m")).await.code, 404);
    lab.cluster.end().await;
}

#[tokio::test]
async fn a_conflict_has_the_patch_judged_again() {
    let lab = Lab::start().await;
    lab.cluster.ok("POST", MAPS, &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {}})).await;
    lab.configure(MUTATING, "w", vec![lab.hook("/count/n", json!({}))]).await;
    let url = format!("{MAPS}/m");
    let patches = (0..4).map(|i| {
        let (lab, url) = (&lab, &url);
        async move { lab.cluster.ask_as("PATCH", url, "application/merge-patch+json", &json!({"data": {format!("k{i}"): "v"}})).await.code }
    });
    assert_eq!(futures::future::join_all(patches).await, [200; 4]);
    let end = lab.cluster.get(&url).await.body;
    assert_eq!(end["data"]["n"], "4", "every write that held was judged on what it changed: {}", end["data"]);
    assert!(lab.server.calls().len() >= 4);
    lab.cluster.end().await;
}

#[tokio::test]
async fn match_conditions_decide_whether_it_is_asked() {
    let lab = Lab::start().await;
    let conditions = |list: &[&str]| -> Value {
        let all: Vec<Value> = list.iter().enumerate().map(|(i, e)| json!({"name": format!("c{i}"), "expression": e})).collect();
        json!({"matchConditions": all})
    };
    for (list, code) in [
        (&["object.metadata.name == 'm'", "request.operation == 'CREATE'"][..], 409),
        (&["object.metadata.name == 'm'", "request.userInfo.username != 'system:apiserver'"], 201),
        (&["!('system:masters' in request.userInfo.groups)"], 201),
        (&["authorizer.group('').resource('configmaps').namespace('default').check('get').allowed()"], 409),
        (&["authorizer.requestResource.check('create').allowed()"], 409),
        // One that is false decides, whatever fails beside it.
        (&["object.none.none == 1", "false"], 201),
        (&["object.none.none == 1"], 403),
    ] {
        lab.configure(VALIDATING, "w", vec![lab.hook("/deny", conditions(list))]).await;
        let answer = lab.map("m").await;
        assert_eq!(answer.code, code, "{list:?}: {}", answer.body);
        if code == 403 {
            let want = "configmaps \"m\" is forbidden: expression 'object.none.none == 1' resulted in error: no such key: none";
            assert_eq!(answer.message(), want);
        }
        if code == 201 {
            lab.cluster.ok("DELETE", &format!("{MAPS}/m"), &Value::Null).await;
        }
        lab.remove(VALIDATING, "w").await;
    }
    let mut open = conditions(&["object.none.none == 1"]);
    open["failurePolicy"] = json!("Ignore");
    lab.configure(VALIDATING, "w", vec![lab.hook("/deny", open)]).await;
    assert_eq!(lab.map("m").await.code, 201);
    lab.cluster.end().await;
}

#[tokio::test]
async fn custom_resources_are_asked_about_in_other_versions() {
    let lab = Lab::start().await;
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema":
        {"type": "object", "properties": {"data": {"type": "object", "additionalProperties": {"type": "string"}}}}}})
    };
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.g.io"},
        "spec": {"group": "g.io", "scope": "Namespaced", "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
                 "versions": [version("v1", true), version("v2", false)]}});
    lab.cluster.ok("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await;
    let things = "/apis/g.io/v1/namespaces/default/things";
    trial::until("things are served", async || lab.cluster.get(things).await.code == 200).await;
    let rules = json!([{"operations": ["*"], "apiGroups": ["g.io"], "apiVersions": ["v2"], "resources": ["things"]}]);
    lab.configure(MUTATING, "w", vec![lab.hook("/add/hooked", json!({"rules": rules}))]).await;
    let thing = json!({"apiVersion": "g.io/v1", "kind": "Thing", "metadata": {"name": "t"}});
    let made = lab.cluster.ok("POST", things, &thing).await;
    assert_eq!((&made["apiVersion"], &made["data"]["hooked"]), (&json!("g.io/v1"), &json!("here")));
    let request = lab.server.take_calls().pop().unwrap().body["request"].clone();
    assert_eq!((&request["object"]["apiVersion"], &request["kind"]["version"]), (&json!("g.io/v2"), &json!("v2")));
    assert_eq!((&request["requestKind"]["version"], &request["requestResource"]["version"]), (&json!("v1"), &json!("v1")));
    // The group has an APIService of its own, as long as it is served.
    let path = "/apis/apiregistration.k8s.io/v1/apiservices/v2.g.io";
    let registered = lab.cluster.get(path).await.body;
    assert_eq!(registered["metadata"]["labels"], json!({"kube-aggregator.kubernetes.io/automanaged": "true"}), "{registered}");
    assert_eq!((&registered["spec"]["groupPriorityMinimum"], &registered["spec"]["versionPriority"]), (&json!(1000), &json!(100)));
    lab.remove(MUTATING, "w").await;
    lab.cluster.ok("DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.g.io", &Value::Null).await;
    trial::until("its APIService goes with it", async || lab.cluster.get(path).await.code == 404).await;
    lab.cluster.end().await;
}
