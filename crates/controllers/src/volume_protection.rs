//! Claims that pods use and volumes that are bound are not deleted yet: a finalizer holds them. Upstream's `pvcprotection` and
//! `pvprotection`.

use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::action::{Action, Outcome};
use crate::ephemeral_volume::claim_name;
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta, pods};

pub const CLAIMS: Controller = Controller {
    name: "persistentvolumeclaim-protection-controller",
    identity: "pvc-protection-controller",
    component: "persistentvolumeclaim-protection-controller",
    watches: &[Watch::PersistentVolumeClaims(|_, claim| vec![meta::key(claim)]), Watch::Pods(|_, pod| claims_of(pod))],
    reconcile: protect_claim,
};

pub const VOLUMES: Controller = Controller {
    name: "persistentvolume-protection-controller",
    identity: "pv-protection-controller",
    component: "persistentvolume-protection-controller",
    watches: &[Watch::PersistentVolumes(|_, volume| vec![meta::key(volume)])],
    reconcile: protect_volume,
};

pub const OF_CLAIM: &str = "kubernetes.io/pvc-protection";
pub const OF_VOLUME: &str = "kubernetes.io/pv-protection";

/// The claims that a pod uses.
pub fn claims_of(pod: &Pod) -> Vec<Key> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let names = volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(claim_name(pod, volume)),
        (None, None) => None,
    });
    names.map(|name| Key::new(meta::namespace(pod), &name)).collect()
}

fn protect_claim(view: &View<'_>, key: &Key, _context: &Context<'_>) -> Outcome {
    let Some(claim) = view.persistent_volume_claims.get(&key.namespace, &key.name) else { return Outcome::nothing() };
    let used = || {
        let pods = view.pods.list_namespace(&key.namespace);
        // A pod that is not on a node yet uses nothing; one that has ended holds nothing.
        let mut holding = pods.iter().filter(|pod| !pods::node_name(pod).is_empty() && !pods::is_finished(pod));
        holding.any(|pod| claims_of(pod).contains(key))
    };
    protect(&*claim, OF_CLAIM, used)
}

fn protect_volume(view: &View<'_>, key: &Key, _context: &Context<'_>) -> Outcome {
    let Some(volume) = view.persistent_volumes.get("", &key.name) else { return Outcome::nothing() };
    protect(&*volume, OF_VOLUME, || volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound"))
}

/// Puts the finalizer on what stays, takes it off what goes and is not used.
fn protect<K: Metadata<Ty = ObjectMeta>>(object: &K, finalizer: &str, used: impl FnOnce() -> bool) -> Outcome {
    let mut finalizers = object.metadata().finalizers.clone().unwrap_or_default();
    let has = finalizers.iter().any(|one| one == finalizer);
    match (meta::is_deleting(object), has) {
        (false, false) => finalizers.push(finalizer.to_owned()),
        (true, true) if !used() => finalizers.retain(|one| one != finalizer),
        _ => return Outcome::nothing(),
    }
    vec![Action::update(object, json!({"metadata": {"finalizers": finalizers}}))].into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

    #[test]
    fn what_is_used_stays_until_it_is_not() {
        let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        let mut model = Model::new(&[
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "d", "name": "c"}, "spec": {}}),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "d", "name": "p"}, "spec": {"nodeName": "n", "containers": [], "volumes": volumes}}),
            json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": {}, "status": {"phase": "Bound"}}),
        ]);
        let (claim, volume) = (Key::new("d", "c"), Key::cluster("v"));
        model.settle(&CLAIMS, &claim);
        model.settle(&VOLUMES, &volume);
        assert_eq!(model.get::<PersistentVolumeClaim>("d", "c")["metadata"]["finalizers"], json!([OF_CLAIM]));
        let going = json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}});
        model.merge::<PersistentVolumeClaim>("d", "c", &going);
        model.merge::<PersistentVolume>("", "v", &going);
        model.settle(&CLAIMS, &claim);
        model.settle(&VOLUMES, &volume);
        assert_eq!((model.of_kind::<PersistentVolumeClaim>().len(), model.of_kind::<PersistentVolume>().len()), (1, 1));
        model.merge::<Pod>("d", "p", &json!({"status": {"phase": "Succeeded"}}));
        model.merge::<PersistentVolume>("", "v", &json!({"status": {"phase": "Released"}}));
        model.settle(&CLAIMS, &claim);
        model.settle(&VOLUMES, &volume);
        assert_eq!((model.of_kind::<PersistentVolumeClaim>().len(), model.of_kind::<PersistentVolume>().len()), (0, 0));
    }
}
