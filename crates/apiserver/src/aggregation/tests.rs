//! Servers behind APIServices, and an API server in front of them.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::testing::{Asked, Cluster, HttpsServer, json_response, text_response};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

/// A server of `g.io/v1 things`.
async fn things(asked: Asked) -> Response<Full<Bytes>> {
    let path = asked.uri.split('?').next().unwrap();
    match path {
        "/apis/g.io/v1" => json_response(
            200,
            &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "g.io/v1", "resources": [
            {"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing", "verbs": ["get", "list"], "shortNames": ["th"]},
            {"name": "things/status", "singularName": "", "namespaced": true, "kind": "Thing", "verbs": ["get"]}]}),
        ),
        "/openapi/v3" => {
            json_response(200, &json!({"paths": {"apis/g.io/v1": {"serverRelativeURL": "/openapi/v3/apis/g.io/v1?hash=ABC"}}}))
        }
        "/openapi/v3/apis/g.io/v1" => json_response(200, &json!({"openapi": "3.0.0", "info": {"title": "things"}})),
        "/openapi/v2" => json_response(
            200,
            &json!({"swagger": "2.0", "paths": {"/apis/g.io/v1/things": {"get": {}}, "/api/v1/pods": {"get": {}}}, "definitions": {}}),
        ),
        p if p.starts_with("/apis/g.io/v1/") => json_response(200, &json!({"asked": asked.uri})),
        _ => text_response(404, "404 page not found\n"),
    }
}

struct Lab {
    cluster: Cluster,
    server: HttpsServer,
}

impl Lab {
    /// The server is reached by a Service of type ExternalName: endpoints may not lead to this host.
    async fn start() -> Self {
        let lab = Self { cluster: Cluster::start().await, server: HttpsServer::start(&["things.default.svc"], things).await };
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "things"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
        lab.cluster.ok("POST", "/api/v1/namespaces/default/services", &service).await;
        lab
    }

    fn api_service(&self, change: Value) -> Value {
        let mut spec = json!({"group": "g.io", "version": "v1", "groupPriorityMinimum": 17850, "versionPriority": 10, "caBundle": self.server.ca_bundle(),
            "service": {"namespace": "default", "name": "things", "port": self.server.port}});
        for (key, value) in change.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.g.io"}, "spec": spec})
    }

    async fn register(&self, change: Value) {
        self.cluster.ok("POST", SERVICES, &self.api_service(change)).await;
    }

    /// The condition once it has this reason.
    async fn condition(&self, reason: &str) -> Value {
        let condition = async || self.cluster.get(&format!("{SERVICES}/v1.g.io")).await.body["status"]["conditions"][0].clone();
        trial::found(reason, async || Some(condition().await).filter(|last| last["reason"] == reason)).await
    }
}

#[tokio::test]
async fn what_is_served_here_is_registered() {
    let cluster = Cluster::start().await;
    let all = cluster.get(SERVICES).await.body;
    let names: Vec<&str> = all["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"v1.") && names.contains(&"v2.autoscaling") && !names.contains(&"v1.apiregistration.k8s.io"), "{names:?}");
    let apps = cluster.get(&format!("{SERVICES}/v1.apps")).await.body;
    assert_eq!(apps["metadata"]["labels"], json!({"kube-aggregator.kubernetes.io/automanaged": "onstart"}));
    assert_eq!(apps["spec"], json!({"group": "apps", "version": "v1", "groupPriorityMinimum": 17800, "versionPriority": 15}));
    let condition = &apps["status"]["conditions"][0];
    assert_eq!((&condition["reason"], &condition["status"]), (&json!("Local"), &json!("True")));
    assert_eq!(cluster.get("/apis/apps/v1/deployments").await.code, 200);
    cluster.end().await;
}

#[tokio::test]
async fn a_server_becomes_part_of_the_api() {
    let lab = Lab::start().await;
    lab.register(json!({})).await;
    let condition = lab.condition("Passed").await;
    assert_eq!((&condition["status"], &condition["message"]), (&json!("True"), &json!("all checks passed")));
    let asked = lab.server.take_calls();
    assert_eq!(asked[0].client, "front-proxy-client");
    assert_eq!(asked[0].headers["x-remote-user"], "system:kube-aggregator");
    assert_eq!(asked[0].headers["x-remote-group"], "system:masters");

    let request =
        Request::builder().uri("/apis/g.io/v1/namespaces/default/things/x%2Fy?a=%20b&watch=true").header("x-remote-user", "forged");
    let answer = lab.cluster.send(request.body(Full::default()).unwrap()).await;
    assert_eq!((answer.code, &answer.body["asked"]), (200, &json!("/apis/g.io/v1/namespaces/default/things/x%2Fy?a=%20b&watch=true")));
    let asked = lab.server.take_calls().pop().unwrap();
    let users: Vec<&str> = asked.headers.get_all("x-remote-user").iter().map(|v| v.to_str().unwrap()).collect();
    assert_eq!((users, asked.client.as_str()), (vec!["system:apiserver"], "front-proxy-client"));
    let groups: Vec<&str> = asked.headers.get_all("x-remote-group").iter().map(|v| v.to_str().unwrap()).collect();
    assert_eq!(groups, ["system:masters", "system:authenticated"]);
    lab.cluster.ok("POST", "/apis/g.io/v1/namespaces/default/things", &json!({"a": [1]})).await;
    let asked = lab.server.take_calls().pop().unwrap();
    assert_eq!((asked.method.as_str(), &asked.body), ("POST", &json!({"a": [1]})));
    lab.cluster.end().await;
}

#[tokio::test]
async fn discovery_and_openapi_show_it() {
    let lab = Lab::start().await;
    lab.register(json!({})).await;
    lab.condition("Passed").await;
    assert_eq!(lab.cluster.get("/apis/g.io/v1").await.body["resources"][0]["name"], "things");
    let group = lab.cluster.get("/apis/g.io").await.body;
    assert_eq!((&group["kind"], &group["preferredVersion"]["groupVersion"]), (&json!("APIGroup"), &json!("g.io/v1")));
    let groups = lab.cluster.get("/apis").await.body;
    let names: Vec<&str> = groups["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["apiregistration.k8s.io", "g.io", "apps"], "by priority");
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let request = Request::builder().uri("/apis").header("accept", accept).body(Full::default()).unwrap();
    let all = lab.cluster.send(request).await.body;
    let ours = all["items"].as_array().unwrap().iter().find(|i| i["metadata"]["name"] == "g.io").unwrap();
    let version = &ours["versions"][0];
    assert_eq!((&version["version"], &version["freshness"]), (&json!("v1"), &json!("Current")));
    assert_eq!(
        version["resources"],
        json!([{"resource": "things", "singularResource": "thing", "scope": "Namespaced", "verbs": ["get", "list"],
        "shortNames": ["th"], "responseKind": {"group": "g.io", "version": "v1", "kind": "Thing"},
        "subresources": [{"subresource": "status", "verbs": ["get"], "responseKind": {"group": "g.io", "version": "v1", "kind": "Thing"}}]}])
    );
    let index = lab.cluster.get("/openapi/v3").await.body;
    assert_eq!(index["paths"]["apis/g.io/v1"]["serverRelativeURL"], "/openapi/v3/apis/g.io/v1?hash=ABC");
    assert_eq!(lab.cluster.get("/openapi/v3/apis/g.io/v1").await.body["info"]["title"], "things");
    let v2 = lab.cluster.get("/openapi/v2").await.body;
    assert!(v2["paths"]["/apis/g.io/v1/things"].is_object() && v2["paths"]["/api/v1/namespaces"]["get"].is_object());
    lab.cluster.ok("DELETE", &format!("{SERVICES}/v1.g.io"), &Value::Null).await;
    assert_eq!(lab.cluster.get("/apis/g.io/v1").await.code, 404);
    assert_eq!(lab.cluster.get("/apis/g.io").await.code, 404);
    assert!(lab.cluster.get("/openapi/v2").await.body["paths"]["/apis/g.io/v1/things"].is_null());
    lab.cluster.end().await;
}

#[tokio::test]
async fn what_cannot_serve_says_why() {
    let lab = Lab::start().await;
    let stranger = HttpsServer::start(&["things.default.svc"], things).await;
    lab.register(json!({"caBundle": stranger.ca_bundle()})).await;
    let condition = lab.condition("FailedDiscoveryCheck").await;
    let url = format!("https://127.0.0.1:{}/apis/g.io/v1", lab.server.port);
    let want = format!(
        "failing or missing response from {url}: Get \"{url}\": tls: failed to verify certificate: x509: certificate signed by unknown authority"
    );
    assert_eq!((&condition["status"], &condition["message"]), (&json!("False"), &json!(want)));
    let refused = lab.cluster.get("/apis/g.io/v1/things").await;
    assert_eq!((refused.code, &refused.body), (503, &json!("service unavailable\n")));
    assert!(lab.server.calls().is_empty());
    lab.cluster.ok("DELETE", &format!("{SERVICES}/v1.g.io"), &Value::Null).await;

    lab.register(json!({"insecureSkipTLSVerify": true, "caBundle": null})).await;
    lab.condition("Passed").await;
    lab.cluster.ok("DELETE", &format!("{SERVICES}/v1.g.io"), &Value::Null).await;
    lab.register(json!({"service": {"namespace": "default", "name": "none"}})).await;
    assert_eq!(lab.condition("ServiceNotFound").await["message"], "service/none in \"default\" is not present");
    lab.cluster.ok("DELETE", &format!("{SERVICES}/v1.g.io"), &Value::Null).await;
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "plain"}, "spec": {"ports": [{"name": "https", "port": 443}]}});
    lab.cluster.ok("POST", "/api/v1/namespaces/default/services", &service).await;
    lab.register(json!({"service": {"namespace": "default", "name": "plain", "port": 444}})).await;
    assert_eq!(lab.condition("ServicePortError").await["message"], "service/plain in \"default\" is not listening on port 444");
    lab.cluster.ok("DELETE", &format!("{SERVICES}/v1.g.io"), &Value::Null).await;
    lab.register(json!({"service": {"namespace": "default", "name": "plain"}})).await;
    lab.condition("EndpointsNotFound").await;
    lab.cluster.end().await;
}

#[tokio::test]
async fn upgrades_go_through() {
    let lab = Lab::start().await;
    lab.register(json!({})).await;
    lab.condition("Passed").await;
    let mut io = lab.cluster.connect().await;
    let request = "GET /apis/g.io/v1/namespaces/default/things/x/stream HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: raw\r\n\r\n";
    io.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("\r\n\r\n") {
        assert_ne!(io.read_buf(&mut seen).await.unwrap(), 0, "{}", String::from_utf8_lossy(&seen));
    }
    assert!(seen.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&seen));
    io.write_all(b"any bytes").await.unwrap();
    let mut echo = [0; 9];
    io.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"any bytes");
    assert_eq!(lab.server.calls().pop().unwrap().headers["x-remote-user"], "admin");
    lab.cluster.end().await;
}
