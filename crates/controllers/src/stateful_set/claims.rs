//! What becomes of a StatefulSet's claims when it is scaled down or deleted: told by their owners, carried out by the
//! garbage collector. Upstream's `claimOwnerMatchesSetAndPod` and `updateClaimOwnerRefForSetAndPod`.

use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

use crate::action::{Action, Event, Target};
use crate::meta;

/// Whether claims go with the set, and whether they go with a pod that was scaled away.
#[derive(Clone, Copy)]
pub struct Policy {
    with_set: bool,
    with_pod: bool,
}

impl Policy {
    pub fn of(spec: &StatefulSetSpec) -> Self {
        let policy = spec.persistent_volume_claim_retention_policy.as_ref();
        let is_delete = |value: Option<&String>| value.is_some_and(|value| value == "Delete");
        Self {
            with_set: is_delete(policy.and_then(|policy| policy.when_deleted.as_ref())),
            with_pod: is_delete(policy.and_then(|policy| policy.when_scaled.as_ref())),
        }
    }

    pub fn goes_with_set(self) -> bool {
        self.with_set
    }
}

/// Corrects the owners of a claim; `condemned` when its pod is being scaled away. Before the set becomes one, the API server
/// is asked whether it still lives: what is seen may be older than a deletion that left the claim behind, on purpose.
pub fn correct_owners(set: &StatefulSet, pod: Option<&Pod>, claim: &PersistentVolumeClaim, policy: Policy, condemned: bool) -> Vec<Action> {
    let (set_owns, pod_owns) = match (policy.with_set, policy.with_pod) {
        (with_set, false) => (with_set, false),
        (with_set, true) => (with_set && !condemned, condemned),
    };
    let before = claim.metadata.owner_references.clone().unwrap_or_default();
    let is_ours = |owner: &OwnerReference| owner.uid == meta::uid(set) || pod.is_some_and(|pod| owner.uid == meta::uid(pod));
    if (set_owns || pod_owns) && before.iter().any(|owner| owner.controller == Some(true) && !is_ours(owner)) {
        let claim = meta::name(claim);
        let text = format!(
            "PersistentVolumeClaim {claim} has a conflicting OwnerReference that acts as a manging controller, the retention policy is ignored for this claim"
        );
        return vec![Action::Record(Event::warning(set, "ConflictingController", text))];
    }
    let mut owners: Vec<OwnerReference> = before.iter().filter(|owner| !is_ours(owner)).cloned().collect();
    if set_owns {
        owners.push(meta::controller_ref(set));
    }
    if let Some(pod) = pod.filter(|_| pod_owns) {
        owners.push(meta::controller_ref(pod));
    }
    let uids = |owners: &[OwnerReference]| owners.iter().map(|owner| owner.uid.clone()).collect::<Vec<_>>();
    let mut actions = Vec::new();
    if uids(&owners) != uids(&before) {
        if set_owns && before.iter().all(|owner| owner.uid != meta::uid(set)) {
            actions.push(Action::RequireLive { target: Target::of(set), uid: meta::uid(set).to_owned() });
        }
        actions.push(Action::update(claim, json!({"metadata": {"ownerReferences": owners}})));
    }
    actions
}

/// Whether a claim is going, or will go with an earlier pod of the same name.
pub fn is_stale(claim: &PersistentVolumeClaim, pod_name: &str) -> bool {
    let of_pod = |owner: &&OwnerReference| owner.kind == Pod::KIND && owner.name == pod_name;
    meta::is_deleting(claim) || claim.metadata.owner_references.iter().flatten().any(|owner| of_pod(&owner))
}
