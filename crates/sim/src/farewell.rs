//! The end of a simulated cluster's life: a Job completes, a Deployment is deleted and takes its pods along, a namespace is
//! deleted with everything in it.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::faults::Faults;
use crate::workloads;

/// Everything here must happen within this time.
const PATIENCE: Duration = Duration::from_secs(40 * 60);

pub async fn run(client: Client, faults: &Faults) -> Result<(), String> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    create(&namespaces, json!({"metadata": {"name": "guest"}})).await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "guest");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "guest");
    until("the namespace has its ServiceAccount and root certificate", || async {
        Ok(accounts.get_opt("default").await?.is_some() && maps.get_opt("kube-root-ca.crt").await?.is_some())
    })
    .await?;
    create(&maps, json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}})).await?;
    complete_job(&client).await?;
    daemons_everywhere(&client).await?;
    // The user's own requests always arrive; those of controllers, scheduler and nodes get lost, and nodes fail.
    faults.turn(true);
    let all = async {
        workloads::stateful(&client).await?;
        workloads::by_the_clock(&client).await?;
        workloads::counted(&client).await?;
        workloads::mirrored(&client).await
    };
    let result = all.await;
    faults.turn(false);
    result?;
    delete_deployment(&client).await?;

    delete(&namespaces, "guest", &DeleteParams::default()).await?;
    until("the namespace tells what holds it", || async {
        let namespace = namespaces.get("guest").await?;
        let conditions = namespace.status.and_then(|status| status.conditions).unwrap_or_default();
        Ok(conditions.iter().any(|one| one.type_ == "NamespaceFinalizersRemaining" && one.status == "True"))
    })
    .await?;
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("held", &PatchParams::default(), &free).await.map_err(|error| format!("freeing the ConfigMap: {error}"))?;
    until("the namespace is gone", || async { Ok(namespaces.get_opt("guest").await?.is_none()) }).await
}

/// Ends the pods of a Job as a kubelet would.
async fn complete_job(client: &Client) -> Result<(), String> {
    let (jobs, pods): (Api<Job>, Api<Pod>) = (Api::namespaced(client.clone(), "guest"), Api::namespaced(client.clone(), "guest"));
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "app:v1"}]}});
    create(&jobs, json!({"metadata": {"name": "work"}, "spec": {"completions": 3, "parallelism": 2, "template": template}})).await?;
    until("the Job is complete", || async {
        for pod in pods.list(&ListParams::default()).await?.items {
            let (name, running) = (pod.metadata.name.clone().unwrap_or_default(), controllers::pods::is_ready(&pod));
            if running && !controllers::pods::is_finished(&pod) {
                let ended = json!({"status": {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False"}]}});
                pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(ended)).await?;
            }
        }
        let status = jobs.get("work").await?.status.unwrap_or_default();
        let complete = status.conditions.iter().flatten().any(|one| one.type_ == "Complete" && one.status == "True");
        Ok(complete && status.succeeded == Some(3))
    })
    .await?;
    delete(&jobs, "work", &DeleteParams::foreground()).await?;
    until("the Job and its pods are gone", || async { Ok(is_empty(&jobs).await? && is_empty(&pods).await?) }).await
}

/// The namespace takes it along later.
async fn daemons_everywhere(client: &Client) -> Result<(), String> {
    let (sets, nodes): (Api<DaemonSet>, Api<Node>) = (Api::namespaced(client.clone(), "guest"), Api::all(client.clone()));
    let template = json!({"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "c", "image": "app:v1"}]}});
    create(&sets, json!({"metadata": {"name": "agent"}, "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": template}}))
        .await?;
    until("each node has its daemon", || async {
        let nodes = i32::try_from(nodes.list(&ListParams::default()).await?.items.len()).unwrap_or(i32::MAX);
        let status = sets.get("agent").await?.status.unwrap_or_default();
        Ok(status.desired_number_scheduled == nodes && status.number_available == Some(nodes) && status.number_misscheduled == 0)
    })
    .await
}

async fn delete_deployment(client: &Client) -> Result<(), String> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let (sets, pods): (Api<ReplicaSet>, Api<Pod>) =
        (Api::namespaced(client.clone(), "default"), Api::namespaced(client.clone(), "default"));
    delete(&deployments, "web", &DeleteParams::background()).await?;
    until("the Deployment's ReplicaSets and pods are gone", || async { Ok(is_empty(&sets).await? && is_empty(&pods).await?) }).await
}

pub(crate) async fn is_empty<K>(api: &Api<K>) -> kube::Result<bool>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + for<'de> k8s_openapi::serde::Deserialize<'de>,
{
    Ok(api.list(&ListParams::default()).await?.items.is_empty())
}

pub(crate) async fn create<K>(api: &Api<K>, object: Value) -> Result<(), String>
where
    K: k8s_openapi::serde::Serialize + for<'de> k8s_openapi::serde::Deserialize<'de> + Clone + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object).map_err(|error| error.to_string())?;
    api.create(&PostParams::default(), &object).await.map(drop).map_err(|error| format!("creating: {error}"))
}

pub(crate) async fn delete<K>(api: &Api<K>, name: &str, params: &DeleteParams) -> Result<(), String>
where
    K: for<'de> k8s_openapi::serde::Deserialize<'de> + Clone + std::fmt::Debug,
{
    api.delete(name, params).await.map(drop).map_err(|error| format!("deleting {name}: {error}"))
}

/// Asks once a second until it is so.
pub(crate) async fn until<F: Future<Output = kube::Result<bool>>>(what: &str, mut is_so: impl FnMut() -> F) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match is_so().await {
            Ok(true) => return Ok(()),
            Ok(false) if Instant::now() < deadline => tokio::time::sleep(Duration::from_secs(1)).await,
            Ok(false) => return Err(format!("not within {} s: {what}", PATIENCE.as_secs())),
            Err(error) => return Err(format!("waiting until {what}: {error}")),
        }
    }
}
