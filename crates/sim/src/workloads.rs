//! Workloads of a simulated cluster beyond Deployments: a StatefulSet with its claims and volumes, a CronJob, and what a quota
//! counts of them. All in the namespace that is deleted in the end.

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Endpoints, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, ResourceQuota, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::farewell::{create, delete, is_empty, until};

const NAMESPACE: &str = "guest";

/// Comes up in order on volumes of its own, and rolls to another image.
pub async fn stateful(client: &Client) -> Result<(), String> {
    let (sets, pods): (Api<StatefulSet>, Api<Pod>) =
        (Api::namespaced(client.clone(), NAMESPACE), Api::namespaced(client.clone(), NAMESPACE));
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), NAMESPACE);
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    for number in 0..3 {
        let spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "sim", "hostPath": {"path": "/sim"}});
        create(&volumes, json!({"metadata": {"name": format!("volume-{number}")}, "spec": spec})).await?;
    }
    let template = json!({"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "app:v1"}]}});
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "sim", "resources": {"requests": {"storage": "1Gi"}}}});
    let spec = json!({"replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "template": template, "volumeClaimTemplates": [claim]});
    create(&sets, json!({"metadata": {"name": "db"}, "spec": spec})).await?;
    let rolled_out = || async {
        let set = sets.get("db").await?;
        let status = set.status.unwrap_or_default();
        let counts = [status.ready_replicas, status.available_replicas, status.current_replicas, status.updated_replicas];
        let seen = status.observed_generation == set.metadata.generation;
        Ok(seen && counts == [Some(3); 4] && status.current_revision == status.update_revision)
    };
    until("the StatefulSet is up", rolled_out).await?;
    until("its claims are bound, each to a volume of its own", || async {
        let claims = claims.list(&ListParams::default()).await?.items;
        let volumes: std::collections::BTreeSet<_> = claims.iter().filter_map(|claim| claim.spec.as_ref()?.volume_name.clone()).collect();
        let bound = claims.iter().all(|claim| claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound"));
        Ok(bound && volumes.len() == 3 && claims.len() == 3)
    })
    .await?;
    let change = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "app:v2"}]}}}}));
    sets.patch("db", &PatchParams::default(), &change).await.map_err(|error| format!("patching the StatefulSet: {error}"))?;
    until("the StatefulSet has rolled out", rolled_out).await?;
    let image = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.containers.first()?.image.clone());
    let listed = pods.list(&ListParams::default().labels("app=db")).await.map_err(|error| error.to_string())?.items;
    if listed.len() != 3 || listed.iter().any(|pod| image(pod).as_deref() != Some("app:v2")) {
        return Err("the StatefulSet says it has rolled out, but its pods are not of the new image".to_owned());
    }
    let revisions: Api<ControllerRevision> = Api::namespaced(client.clone(), NAMESPACE);
    let history = revisions.list(&ListParams::default().labels("app=db")).await.map_err(|error| error.to_string())?.items;
    if history.len() != 2 {
        return Err(format!("the StatefulSet had two templates, but has {} revisions", history.len()));
    }
    Ok(())
}

/// Starts its Jobs on time; with it go its Jobs and their pods.
pub async fn by_the_clock(client: &Client) -> Result<(), String> {
    let (crons, jobs): (Api<CronJob>, Api<Job>) = (Api::namespaced(client.clone(), NAMESPACE), Api::namespaced(client.clone(), NAMESPACE));
    let template = json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "app:v1"}]}}}});
    create(&crons, json!({"metadata": {"name": "tick"}, "spec": {"schedule": "* * * * *", "jobTemplate": template}})).await?;
    until("the CronJob has started three Jobs", || async {
        let active = crons.get("tick").await?.status.and_then(|status| status.active).unwrap_or_default();
        Ok(active.len() >= 3)
    })
    .await?;
    let started = jobs.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items;
    let mut minutes: Vec<String> = started.iter().filter_map(|job| job.metadata.name.clone()).collect();
    minutes.dedup();
    if minutes.len() != started.len() {
        return Err(format!("a time came twice: {minutes:?}"));
    }
    delete(&crons, "tick", &DeleteParams::background()).await?;
    until("the CronJob's Jobs are gone", || async { is_empty(&jobs).await }).await
}

/// A quota tells what there is, of kinds that are cached and of one that is only counted.
pub async fn counted(client: &Client) -> Result<(), String> {
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), NAMESPACE);
    let sets: Api<ReplicationController> = Api::namespaced(client.clone(), NAMESPACE);
    let template = json!({"metadata": {"labels": {"app": "old"}}, "spec": {"containers": [{"name": "c", "image": "app:v1"}]}});
    create(&sets, json!({"metadata": {"name": "old"}, "spec": {"replicas": 2, "selector": {"app": "old"}, "template": template}})).await?;
    let hard = json!({"pods": "100", "persistentvolumeclaims": "5", "count/statefulsets.apps": "4", "replicationcontrollers": "2"});
    create(&quotas, json!({"metadata": {"name": "limits"}, "spec": {"hard": hard}})).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    until("the quota tells what is used", || async {
        let there = pods.list(&ListParams::default()).await?.items.len();
        let used = quotas.get("limits").await?.status.and_then(|status| status.used).unwrap_or_default();
        let amount = |name: &str| used.get(name).map(|amount| amount.0.clone()).unwrap_or_default();
        let old = pods.list(&ListParams::default().labels("app=old")).await?.items.len();
        Ok(old == 2
            && amount("pods") == there.to_string()
            && amount("persistentvolumeclaims") == "3"
            && amount("count/statefulsets.apps") == "1"
            && amount("replicationcontrollers") == "1")
    })
    .await
}

/// Endpoints kept by hand become one slice, and it stays the same one.
pub async fn mirrored(client: &Client) -> Result<(), String> {
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let endpoints: Api<Endpoints> = Api::namespaced(client.clone(), NAMESPACE);
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    create(&services, json!({"metadata": {"name": "outside"}, "spec": {"ports": [{"port": 80}]}})).await?;
    let subsets = json!([{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 80}]}, {"addresses": [{"ip": "192.0.2.8"}]}]);
    create(&endpoints, json!({"metadata": {"name": "outside"}, "subsets": subsets})).await?;
    let of_service = ListParams::default().labels("kubernetes.io/service-name=outside");
    let names = || async {
        let listed = slices.list(&of_service).await?.items;
        Ok::<_, kube::Error>(listed.into_iter().filter_map(|slice| slice.metadata.uid).collect::<Vec<_>>())
    };
    until("the Endpoints are mirrored", || async { Ok(names().await?.len() == 2) }).await?;
    let before = names().await.map_err(|error| error.to_string())?;
    tokio::time::sleep(std::time::Duration::from_secs(30)).await;
    let after = names().await.map_err(|error| error.to_string())?;
    if before == after { Ok(()) } else { Err(format!("slices {before:?} were replaced by {after:?}")) }
}
