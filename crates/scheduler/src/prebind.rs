//! What is written before a binding: claims and volumes that are to be bound, and allocations of resource claims.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim, ResourceClaimSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use scheduling::PodInfo;
use scheduling::plugins::dynamic_resources::Plan;
use scheduling::storage::SELECTED_NODE;
use serde_json::{Value, json};

/// Kept on claims while their devices are in use.
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// Writes of a claim that somebody else wrote in between.
const ATTEMPTS_MAX: usize = 3;

/// Volumes to bind, each with its claim, and claims to provision, as they were when that was decided.
#[derive(Debug)]
pub struct VolumeWrites {
    pub bind: Vec<(Arc<PersistentVolume>, Arc<PersistentVolumeClaim>)>,
    pub provision: Vec<Arc<PersistentVolumeClaim>>,
}

/// Writes fail if an object has changed since it was looked at: the decision may no longer hold.
pub async fn write_volumes(client: &Client, pod: &PodInfo, node: &str, writes: &VolumeWrites) -> kube::Result<()> {
    nominate(client, pod, node).await?;
    for (volume, claim) in writes.bind.iter().filter(|(volume, claim)| !is_claimed(volume, claim)) {
        let prebound = volume.spec.as_ref().is_some_and(|s| s.claim_ref.is_some());
        let mut patch = json!({
            "metadata": { "resourceVersion": volume.metadata.resource_version },
            "spec": { "claimRef": {
                "kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": claim.metadata.namespace, "name": claim.metadata.name,
                "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version,
            } },
        });
        if !prebound {
            patch["metadata"]["annotations"] = json!({ "pv.kubernetes.io/bound-by-controller": "yes" });
        }
        let api: Api<PersistentVolume> = Api::all(client.clone());
        api.patch_metadata(&volume.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    for claim in &writes.provision {
        let patch = json!({
            "metadata": { "resourceVersion": claim.metadata.resource_version, "annotations": { SELECTED_NODE: node } },
        });
        let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &claim.namespace().unwrap_or_default());
        api.patch_metadata(&claim.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    Ok(())
}

fn is_claimed(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    reference.is_some_and(|r| r.uid.is_some() && r.uid == claim.metadata.uid)
}

/// A pod that will take a while to start says where it is going (`NominatedNodeNameForExpectation`).
async fn nominate(client: &Client, pod: &PodInfo, node: &str) -> kube::Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), pod.namespace());
    let patch = json!({ "metadata": { "uid": pod.uid() }, "status": { "nominatedNodeName": node } });
    api.patch_status(pod.name(), &PatchParams::default(), &Patch::Strategic(patch)).await.map(|_| ())
}

/// Reserves a pod's claims, with allocations where they had none. On failure, [`release`] undoes what was done.
pub async fn write_claims(client: &Client, pod: &PodInfo, node: &str, plan: &Plan, now: Timestamp) -> kube::Result<()> {
    if plan.claims.iter().any(|(_, allocation)| allocation.is_some()) || plan.extended.is_some() {
        nominate(client, pod, node).await?;
    }
    for (key, allocation) in &plan.claims {
        let name = key.split_once('/').map_or(key.as_str(), |(_, name)| name);
        reserve(client, pod, name, allocation.as_ref(), now).await?;
    }
    if let Some((spec, allocation)) = &plan.extended {
        let name = create_extended(client, pod, spec).await?;
        reserve(client, pod, &name, Some(allocation), now).await?;
    }
    Ok(())
}

async fn reserve(client: &Client, pod: &PodInfo, name: &str, allocation: Option<&AllocationResult>, now: Timestamp) -> kube::Result<()> {
    let api: Api<ResourceClaim> = Api::namespaced(client.clone(), pod.namespace());
    let mut attempt = 1;
    loop {
        match reserve_once(&api, pod, name, allocation, now).await {
            Err(kube::Error::Api(status)) if status.code == 409 && attempt < ATTEMPTS_MAX => attempt += 1,
            other => return other,
        }
    }
}

async fn reserve_once(
    api: &Api<ResourceClaim>,
    pod: &PodInfo,
    name: &str,
    allocation: Option<&AllocationResult>,
    now: Timestamp,
) -> kube::Result<()> {
    let mut claim = api.get(name).await?;
    let status = claim.status.clone().unwrap_or_default();
    if status.reserved_for.iter().flatten().any(|r| r.uid == pod.uid()) {
        return Ok(());
    }
    if status.allocation.is_some() == allocation.is_some() {
        // Somebody allocated it meanwhile, or freed it.
        let message = format!("claim {} got allocated or deallocated elsewhere in the meantime", scheduling::devices::claim_key(&claim));
        return Err(kube::Error::Service(message.into()));
    }
    if allocation.is_some() && !claim.finalizers().iter().any(|f| f == FINALIZER) {
        let mut finalizers = claim.finalizers().to_vec();
        finalizers.push(FINALIZER.to_owned());
        let patch = json!({ "metadata": { "resourceVersion": claim.metadata.resource_version, "finalizers": finalizers } });
        claim = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    let mut reserved: Vec<Value> = status.reserved_for.iter().flatten().map(|r| json!(r)).collect();
    reserved.push(json!({ "resource": "pods", "name": pod.name(), "uid": pod.uid() }));
    let mut patch = json!({ "metadata": { "resourceVersion": claim.metadata.resource_version }, "status": { "reservedFor": reserved } });
    if let Some(allocation) = allocation {
        let stamped = AllocationResult { allocation_timestamp: Some(Time(now)), ..allocation.clone() };
        patch["status"]["allocation"] = json!(stamped);
    }
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ())
}

/// The claim behind a pod's extended resources, and the pod's status that names it.
async fn create_extended(client: &Client, pod: &PodInfo, spec: &ResourceClaimSpec) -> kube::Result<String> {
    let api: Api<ResourceClaim> = Api::namespaced(client.clone(), pod.namespace());
    let mut claim = ResourceClaim { spec: spec.clone(), ..ResourceClaim::default() };
    claim.metadata.generate_name = Some(format!("{}-extended-resources-", pod.name()));
    claim.metadata.namespace = Some(pod.namespace().to_owned());
    claim.metadata.annotations =
        Some([("resource.kubernetes.io/extended-resource-claim".to_owned(), "true".to_owned())].into_iter().collect());
    let owner = json!([{ "apiVersion": "v1", "kind": "Pod", "name": pod.name(), "uid": pod.uid(), "controller": true }]);
    claim.metadata.owner_references = serde_json::from_value(owner).map_err(kube::Error::SerdeError)?;
    let name = api.create(&PostParams::default(), &claim).await?.name_any();
    let mut mappings = Vec::new();
    for request in spec.devices.iter().flat_map(|d| d.requests.iter().flatten()) {
        let places = request.name.strip_prefix("container-").and_then(|rest| rest.split_once("-request-"));
        let Some((Ok(i), Ok(j))) = places.map(|(i, j)| (i.parse::<usize>(), j.parse::<usize>())) else { continue };
        let Some(container) = pod.containers().nth(i) else { continue };
        let resource = container.resources.as_ref().and_then(|r| r.requests.as_ref()?.keys().nth(j));
        mappings.push(json!({ "containerName": container.name, "resourceName": resource, "requestName": request.name }));
    }
    let status = json!({ "extendedResourceClaimStatus": { "requestMappings": mappings, "resourceClaimName": name } });
    let pods: Api<Pod> = Api::namespaced(client.clone(), pod.namespace());
    let patch = json!({ "metadata": { "uid": pod.uid() }, "status": status });
    pods.patch_status(pod.name(), &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(name)
}

/// The pod is not bound after all: its claims are no longer reserved for it, and one made up for it goes.
pub async fn release(client: &Client, pod: &PodInfo, plan: &Plan) {
    let api: Api<ResourceClaim> = Api::namespaced(client.clone(), pod.namespace());
    for (key, _) in &plan.claims {
        let name = key.split_once('/').map_or(key.as_str(), |(_, name)| name);
        if let Err(error) = unreserve(&api, pod, name, false).await {
            tracing::warn!(claim = key, %error, "a claim stays reserved for a pod that was not bound");
        }
    }
    if plan.extended.is_none() {
        return;
    }
    let mine = |c: &ResourceClaim| c.owner_references().iter().any(|o| o.uid == pod.uid() && o.controller == Some(true));
    match api.list(&kube::api::ListParams::default()).await {
        Ok(claims) => {
            for claim in
                claims.items.iter().filter(|c| mine(c) && c.annotations().contains_key("resource.kubernetes.io/extended-resource-claim"))
            {
                let name = claim.name_any();
                let undone = unreserve(&api, pod, &name, true).await;
                if let Err(error) = undone.and(api.delete(&name, &DeleteParams::default()).await.map(|_| ())) {
                    tracing::warn!(claim = name, %error, "a claim made for a pod that was not bound stays");
                }
            }
        }
        Err(error) => tracing::warn!(pod = pod.key(), %error, "claims were not listed"),
    }
}

/// Takes a pod out of a claim's users; frees its devices too where asked, if nobody else uses them.
pub async fn unreserve(api: &Api<ResourceClaim>, pod: &PodInfo, name: &str, free: bool) -> kube::Result<()> {
    let claim = api.get(name).await?;
    let all = claim.status.as_ref().and_then(|s| s.reserved_for.as_deref()).unwrap_or(&[]);
    let others: Vec<Value> = all.iter().filter(|r| r.uid != pod.uid()).map(|r| json!(r)).collect();
    if others.len() == all.len() && !free || free && !others.is_empty() {
        return Ok(());
    }
    let mut patch = json!({ "metadata": { "resourceVersion": claim.metadata.resource_version }, "status": { "reservedFor": others } });
    if free {
        patch["status"] = json!({ "reservedFor": null, "allocation": null });
    }
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    if free && claim.finalizers().iter().any(|f| f == FINALIZER) {
        let rest: Vec<&String> = claim.finalizers().iter().filter(|f| *f != FINALIZER).collect();
        let patch = json!({ "metadata": { "finalizers": rest } });
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    Ok(())
}
