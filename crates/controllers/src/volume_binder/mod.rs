//! PersistentVolumes and claims: finding each claim its volume, and what becomes of volumes whose claim is gone. Upstream's
//! `pkg/controller/volume/persistentvolume`. Nothing is provisioned here: that is asked of an external provisioner.
//!
//! A pass makes at most one change to an object; its echo brings the next. The volume is written before the claim, so that a
//! crash in between leaves a volume that says whose it is.

mod claim;
mod matching;
mod volume;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use crate::view::{Key, View, Watch};
use crate::{Controller, meta, volume_protection};

pub const CLAIMS: Controller = Controller {
    name: "persistentvolume-binder-controller",
    identity: "persistent-volume-binder",
    component: "persistentvolume-controller",
    watches: &[
        Watch::PersistentVolumeClaims(|_, claim| vec![meta::key(claim)]),
        Watch::PersistentVolumes(claims_of_volume),
        Watch::StorageClasses(|view, _| unbound(view)),
        Watch::Pods(|_, pod| volume_protection::claims_of(pod)),
    ],
    reconcile: claim::reconcile,
};

pub const VOLUMES: Controller = Controller {
    name: "persistentvolume-binder-controller",
    identity: "persistent-volume-binder",
    component: "persistentvolume-controller",
    watches: &[
        Watch::PersistentVolumes(|_, volume| vec![meta::key(volume)]),
        Watch::PersistentVolumeClaims(|view, claim| volumes_of_claim(view, claim).iter().map(|volume| meta::key(&**volume)).collect()),
    ],
    reconcile: volume::reconcile,
};

/// The claim is bound for good; without it, the binding is only begun.
const COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// This controller chose the other side, so it may let go of it again.
const BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

fn unbound(view: &View<'_>) -> Vec<Key> {
    let all = view.persistent_volume_claims.list();
    let waiting = all.iter().filter(|claim| claim.spec.as_ref().is_none_or(|spec| spec.volume_name.is_none()));
    waiting.map(|claim| meta::key(&**claim)).collect()
}

fn claims_of_volume(view: &View<'_>, volume: &PersistentVolume) -> Vec<Key> {
    let spec = volume.spec.as_ref();
    let mut keys: Vec<Key> = match spec.and_then(|spec| spec.claim_ref.as_ref()) {
        Some(claim) => {
            let (namespace, name) = (claim.namespace.as_deref().unwrap_or_default(), claim.name.as_deref().unwrap_or_default());
            vec![Key::new(namespace, name)]
        }
        None => unbound(view),
    };
    let all = view.persistent_volume_claims.list();
    let naming = all.iter().filter(|claim| volume_name(claim) == meta::name(volume));
    keys.extend(naming.map(|claim| meta::key(&**claim)));
    keys
}

fn volumes_of_claim(view: &View<'_>, claim: &PersistentVolumeClaim) -> Vec<Arc<PersistentVolume>> {
    let named = |volume: &PersistentVolume| refers_to(volume, claim) || volume_name(claim) == meta::name(volume);
    view.persistent_volumes.list().into_iter().filter(|volume| named(volume)).collect()
}

fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

/// Whether a volume is kept for a claim: by name, and by UID if it says one.
fn refers_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return false };
    let same_uid = reference.uid.as_deref().is_none_or(|uid| uid.is_empty() || uid == meta::uid(claim));
    same_uid && reference.namespace.as_deref() == Some(meta::namespace(claim)) && reference.name.as_deref() == Some(meta::name(claim))
}

#[cfg(test)]
mod tests;
