//! Custom resources take part in what controllers do for all: the garbage collector follows their owner references both ways,
//! and a namespace that goes takes them along. Time is paused: looking for new kinds takes no waiting.

use std::sync::Arc;
use std::time::Duration;

use auth::User;
use controller_runtime::{ControllerManager, MANAGER};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

struct Cluster {
    handle: Arc<apiserver::Handle>,
    client: client::Client,
}

impl Cluster {
    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, kube::Error> {
        let body = body.map_or_else(Vec::new, |b| b.to_string().into_bytes());
        let request = http::Request::builder().method(method).uri(path).header("content-type", "application/json").body(body);
        self.client.request(request.unwrap_or_else(|e| panic!("{e}"))).await
    }

    async fn ok(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        self.ask(method, path, body).await.unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// Waits, in paused time, until there is no such object.
    async fn gone(&self, path: &str) {
        for _ in 0..300 {
            if matches!(self.ask("GET", path, None).await, Err(kube::Error::Api(e)) if e.code == 404) {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("{path} stays: {:?}", self.ask("GET", path, None).await);
    }
}

async fn start(dir: &std::path::Path) -> Cluster {
    let mut config = apiserver::Config::new(dir);
    config.bind_address = std::net::IpAddr::from([127, 0, 0, 1]);
    config.secure_port = 0;
    let handle = apiserver::Server::start(config, Arc::new(store::Embedded::in_memory())).await.unwrap_or_else(|e| panic!("{e}"));
    let client = client::in_process(handle.service());
    Cluster { handle: Arc::new(handle), client }
}

fn owned(object: Value, owner: &Value) -> Value {
    let mut object = object;
    object["metadata"]["ownerReferences"] = json!([{"apiVersion": owner["apiVersion"], "kind": owner["kind"],
        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}]);
    object
}

#[tokio::test(start_paused = true)]
async fn custom_resources_are_collected_and_go_with_their_namespace() {
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    let cluster = start(dir.path()).await;
    let cancel = CancellationToken::new();
    let running = {
        let (handle, cancel) = (cluster.handle.clone(), cancel.clone());
        tokio::spawn(async move {
            let client_for = |name: &str| {
                let manager = name == MANAGER;
                let user =
                    if manager { User::new("system:kube-controller-manager", &[]) } else { User::service_account("kube-system", name) };
                client::in_process(handle.service_as(user))
            };
            ControllerManager::run(controller_runtime::Config::default(), client_for, cancel).await
        })
    };
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.g.io"},
        "spec": {"group": "g.io", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    cluster.ok("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", Some(&definition)).await;
    cluster.ok("POST", "/api/v1/namespaces", Some(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}))).await;
    let (things, maps) = ("/apis/g.io/v1/namespaces/n/things", "/api/v1/namespaces/n/configmaps");
    let thing = |name: &str| json!({"apiVersion": "g.io/v1", "kind": "Thing", "metadata": {"name": name}});
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let owner = cluster.ok("POST", things, Some(&thing("owner"))).await;
    let middle = cluster.ok("POST", maps, Some(&owned(map("middle"), &owner))).await;
    cluster.ok("POST", things, Some(&owned(thing("leaf"), &middle))).await;
    cluster.ok("POST", things, Some(&thing("stays"))).await;
    // The collector looks for new kinds every half minute.
    tokio::time::sleep(Duration::from_secs(60)).await;
    cluster.ok("DELETE", &format!("{things}/owner"), None).await;
    cluster.gone(&format!("{maps}/middle")).await;
    cluster.gone(&format!("{things}/leaf")).await;
    cluster.ok("GET", &format!("{things}/stays"), None).await;
    cluster.ok("DELETE", "/api/v1/namespaces/n", None).await;
    cluster.gone("/api/v1/namespaces/n").await;
    let left = cluster.ok("GET", "/apis/g.io/v1/things", None).await;
    assert_eq!(left["items"], json!([]), "{left}");
    cancel.cancel();
    running.await.unwrap_or_else(|e| panic!("{e}")).unwrap_or_else(|e| panic!("{e}"));
    if let Ok(handle) = Arc::try_unwrap(cluster.handle) {
        handle.shutdown().await;
    }
}
