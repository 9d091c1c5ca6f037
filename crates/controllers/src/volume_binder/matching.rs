//! Which volume suits a claim best. Upstream's `FindMatchingVolume`; where a volume can be used from is the scheduler's matter.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use machinery::quantity::Quantity;

use super::refers_to;
use crate::{meta, selector};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub fn class_of(claim: &PersistentVolumeClaim) -> &str {
    let spec = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    meta::annotation(claim, CLASS_ANNOTATION).or(spec).unwrap_or_default()
}

fn class_of_volume(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    meta::annotation(volume, CLASS_ANNOTATION).or(spec).unwrap_or_default()
}

pub fn capacity(volume: &PersistentVolume) -> Quantity {
    let storage = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get("storage"));
    storage.and_then(|storage| Quantity::parse(&storage.0).ok()).unwrap_or(Quantity::ZERO)
}

fn asked(claim: &PersistentVolumeClaim) -> Quantity {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    requests.and_then(|requests| Quantity::parse(&requests.get("storage")?.0).ok()).unwrap_or(Quantity::ZERO)
}

pub fn same_mode(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of_volume = volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem");
    let of_claim = claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem");
    of_volume == of_claim
}

fn has_access_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let has = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    claim.spec.iter().flat_map(|spec| spec.access_modes.iter().flatten()).all(|mode| has.contains(mode))
}

/// Why a volume that was asked for by name cannot be had: upstream's `checkVolumeSatisfyClaim`.
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    if capacity(volume) < asked(claim) {
        return Some("requested PV is too small");
    }
    if class_of_volume(volume) != class_of(claim) {
        return Some("storageClassName does not match");
    }
    if !same_mode(volume, claim) {
        return Some("incompatible volumeMode");
    }
    (!has_access_modes(volume, claim)).then_some("incompatible accessMode")
}

/// A volume that is kept for the claim, or else the smallest that suits. `only_kept` when a pod's place decides first.
pub fn best(all: &[Arc<PersistentVolume>], claim: &PersistentVolumeClaim, only_kept: bool) -> Option<Arc<PersistentVolume>> {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let suits = |volume: &PersistentVolume| same_mode(volume, claim) && capacity(volume) >= asked(claim) && !meta::is_deleting(volume);
    if let Some(kept) = all.iter().find(|volume| refers_to(volume, claim) && suits(volume)) {
        return Some(kept.clone());
    }
    if only_kept {
        return None;
    }
    let attributes = |name: Option<&String>| name.map(String::as_str).unwrap_or_default().to_owned();
    let of_claim = attributes(claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_ref()));
    let free = all.iter().filter(|volume| {
        let spec = volume.spec.as_ref();
        let available = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Available");
        available
            && spec.is_some_and(|spec| spec.claim_ref.is_none())
            && suits(volume)
            && class_of_volume(volume) == class_of(claim)
            && attributes(spec.and_then(|spec| spec.volume_attributes_class_name.as_ref())) == of_claim
            && has_access_modes(volume, claim)
            && wanted.is_none_or(|wanted| selector::matches(wanted, volume.metadata.labels.as_ref()))
    });
    // The first of equals, in order of names.
    free.fold(None, |best: Option<&Arc<PersistentVolume>>, one| match best {
        Some(best) if capacity(best) <= capacity(one) => Some(best),
        _ => Some(one),
    })
    .cloned()
}
