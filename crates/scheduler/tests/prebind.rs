//! The scheduler against a real API server, with its own rights only: what it writes before it binds a pod.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use auth::User;
use client::{Client, Informers};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

async fn create<K>(api: Api<K>, object: Value)
where
    K: kube::Resource + serde::Serialize + serde::de::DeserializeOwned + Clone + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

/// Polls an object until it satisfies a condition.
async fn until<K>(api: &Api<K>, name: &str, satisfied: impl Fn(&Value) -> bool) -> Value
where
    K: kube::Resource + serde::Serialize + serde::de::DeserializeOwned + Clone + std::fmt::Debug,
{
    let object = async || serde_json::to_value(api.get(name).await.unwrap()).unwrap();
    trial::found(name, async || Some(object().await).filter(|last| satisfied(last))).await
}

fn own<K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(client: &Client) -> Api<K> {
    Api::namespaced(client.clone(), "default")
}

async fn add_node(client: &Client) {
    create(own::<ServiceAccount>(client), json!({ "metadata": { "name": "default", "namespace": "default" } })).await;
    create(Api::<Node>::all(client.clone()), json!({ "metadata": { "name": "a" } })).await;
    let offers = json!({ "cpu": "4", "memory": "8Gi", "pods": "10" });
    let status = json!({ "status": { "capacity": offers, "allocatable": offers } });
    Api::<Node>::all(client.clone()).patch_status("a", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let untainted = json!({ "spec": { "taints": null } });
    Api::<Node>::all(client.clone()).patch("a", &PatchParams::default(), &Patch::Merge(untainted)).await.unwrap();
}

fn pod(name: &str, mut spec: Value) -> Value {
    spec["containers"] = json!([{ "name": "c", "image": "app" }]);
    spec["automountServiceAccountToken"] = json!(false);
    json!({ "metadata": { "name": name, "namespace": "default" }, "spec": spec })
}

async fn volumes(client: &Client) {
    let class = json!({ "metadata": { "name": "local" }, "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer" });
    create(Api::<StorageClass>::all(client.clone()), class).await;
    let volume = json!({ "metadata": { "name": "v" }, "spec": {
        "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "local", "hostPath": { "path": "/tmp/v" },
    } });
    let pvs: Api<PersistentVolume> = Api::all(client.clone());
    create(pvs.clone(), volume).await;
    let available = json!({ "status": { "phase": "Available" } });
    pvs.patch_status("v", &PatchParams::default(), &Patch::Merge(available)).await.unwrap();
    let claims: Api<PersistentVolumeClaim> = own(client);
    let spec = json!({ "accessModes": ["ReadWriteOnce"], "storageClassName": "local", "resources": { "requests": { "storage": "1Gi" } } });
    create(claims.clone(), json!({ "metadata": { "name": "data", "namespace": "default" }, "spec": spec })).await;
    let volume = json!({ "name": "d", "persistentVolumeClaim": { "claimName": "data" } });
    create(own::<Pod>(client), pod("p", json!({ "volumes": [volume] }))).await;
    // The scheduler reserves the volume; the volume controller, played here, completes the binding.
    until(&pvs, "v", |v| v["spec"]["claimRef"]["name"] == "data").await;
    until(&own::<Pod>(client), "p", |p| p["status"]["nominatedNodeName"] == "a" && p["spec"]["nodeName"].is_null()).await;
    let bound = json!({ "metadata": { "annotations": { "pv.kubernetes.io/bind-completed": "yes" } }, "spec": { "volumeName": "v" } });
    claims.patch("data", &PatchParams::default(), &Patch::Merge(bound)).await.unwrap();
    until(&own::<Pod>(client), "p", |p| p["spec"]["nodeName"] == "a").await;
}

async fn devices(client: &Client) {
    create(Api::<DeviceClass>::all(client.clone()), json!({ "metadata": { "name": "gpu" }, "spec": {} })).await;
    let pool = json!({ "name": "a", "generation": 1, "resourceSliceCount": 1 });
    let slice = json!({ "driver": "gpu.example.com", "nodeName": "a", "pool": pool, "devices": [{ "name": "d0" }] });
    create(Api::<ResourceSlice>::all(client.clone()), json!({ "metadata": { "name": "s" }, "spec": slice })).await;
    let wants = json!({ "resourceClaims": [{ "name": "r", "resourceClaimName": "gpu" }] });
    create(own::<Pod>(client), pod("q", wants)).await;
    let requests = json!([{ "name": "r", "exactly": { "deviceClassName": "gpu" } }]);
    let claim = json!({ "metadata": { "name": "gpu", "namespace": "default" }, "spec": { "devices": { "requests": requests } } });
    create(own::<ResourceClaim>(client), claim).await;
    until(&own::<Pod>(client), "q", |p| p["spec"]["nodeName"] == "a").await;
    let claim = until(&own::<ResourceClaim>(client), "gpu", |_| true).await;
    assert_eq!(claim["status"]["allocation"]["devices"]["results"][0]["device"], "d0", "{claim}");
    assert_eq!(claim["status"]["reservedFor"][0]["name"], "q");
    assert_eq!(claim["metadata"]["finalizers"][0], "resource.kubernetes.io/delete-protection");
}

#[tokio::test]
async fn volumes_and_devices_come_before_bindings() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = apiserver::Config::new(dir.path());
    config.bind_address = std::net::IpAddr::from([127, 0, 0, 1]);
    config.secure_port = 0;
    let handle = apiserver::Server::start(config, Arc::new(store::Embedded::in_memory())).await.unwrap();
    let admin = client::in_process(handle.service());
    add_node(&admin).await;
    let own_client = client::in_process(handle.service_as(User::new("system:kube-scheduler", &[])));
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    let scheduler = tokio::spawn(async move {
        let informers = Informers::new(own_client.clone());
        scheduler::run(scheduler::Config::default(), own_client, &informers, token).await
    });
    volumes(&admin).await;
    devices(&admin).await;
    cancel.cancel();
    scheduler.await.unwrap().unwrap();
    handle.shutdown().await;
}
