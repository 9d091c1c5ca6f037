//! A volume's phase, and what becomes of it when its claim is gone. Upstream's `syncVolume` and `reclaimVolume`.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeStatus};
use serde_json::json;

use super::{BY_CONTROLLER, PROVISIONED_BY, matching, volume_name};
use crate::action::{Action, Event, Outcome};
use crate::meta;
use crate::view::{Context, Key, View};

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(volume) = view.persistent_volumes.get("", &key.name) else { return Outcome::nothing() };
    let Some(spec) = volume.spec.as_ref() else { return Outcome::nothing() };
    let kept_for = spec.claim_ref.as_ref().filter(|claim| claim.uid.as_deref().is_some_and(|uid| !uid.is_empty()));
    let Some(reference) = kept_for else { return phase(&volume, "Available", "", context) };
    let (namespace, name) = (reference.namespace.as_deref().unwrap_or_default(), reference.name.as_deref().unwrap_or_default());
    let claim = view.persistent_volume_claims.get(namespace, name);
    let Some(claim) = claim.filter(|claim| Some(meta::uid(&**claim)) == reference.uid.as_deref()) else {
        return released(&volume, context);
    };
    let bound_to = volume_name(&claim);
    if bound_to == meta::name(&*volume) {
        return phase(&volume, "Bound", "", context);
    }
    if bound_to.is_empty() {
        // The claim's own pass goes on with it, if it can.
        if matching::same_mode(&volume, &claim) {
            return Outcome::nothing();
        }
        let text = format!(
            "Cannot bind PersistentVolume to requested PersistentVolumeClaim {:?} due to incompatible volumeMode.",
            meta::name(&*claim)
        );
        return tell_once(Event::warning(&*volume, "VolumeMismatch", text), context);
    }
    // The claim has another volume.
    if meta::annotation(&*volume, PROVISIONED_BY).is_some() && spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete") {
        return released(&volume, context);
    }
    if meta::annotation(&*volume, BY_CONTROLLER).is_some() {
        let patch = json!({"metadata": {"annotations": {BY_CONTROLLER: null}}, "spec": {"claimRef": null}});
        return vec![Action::update(&*volume, patch)].into();
    }
    // A user keeps it for that name: only the incarnation is forgotten.
    vec![Action::update(&*volume, json!({"spec": {"claimRef": {"uid": null, "resourceVersion": null}}}))].into()
}

fn phase(volume: &PersistentVolume, phase: &str, message: &str, context: &Context<'_>) -> Outcome {
    let old = volume.status.clone().unwrap_or_default();
    let same = old.phase.as_deref() == Some(phase);
    let since = if same { old.last_phase_transition_time.clone() } else { Some(meta::time(context.now)) };
    let message = (!message.is_empty()).then(|| message.to_owned());
    let new = PersistentVolumeStatus { phase: Some(phase.to_owned()), last_phase_transition_time: since, message, reason: None };
    Action::update_status(volume, &volume.status, &new).into_iter().collect::<Vec<_>>().into()
}

fn released(volume: &PersistentVolume, context: &Context<'_>) -> Outcome {
    let now = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    if !matches!(now, Some("Released" | "Failed")) {
        return phase(volume, "Released", "", context);
    }
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    let (reason, text) = match policy {
        Some("Retain") => return Outcome::nothing(),
        Some("Recycle") => ("VolumeFailedRecycle", "No recycler plugin found for the volume!".to_owned()),
        // Who made it, or the driver it belongs to, deletes it.
        Some("Delete") if meta::annotation(volume, PROVISIONED_BY).is_some() || is_csi(volume) => return Outcome::nothing(),
        Some("Delete") => {
            let name = meta::name(volume);
            ("VolumeFailedDelete", format!("error getting deleter volume plugin for volume {name:?}: no deletable volume plugin matched"))
        }
        _ => ("VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy".to_owned()),
    };
    let mut outcome = phase(volume, "Failed", &text, context);
    if !outcome.actions.is_empty() {
        outcome.actions.push(Action::Record(Event::warning(volume, reason, text)));
    }
    outcome
}

fn is_csi(volume: &PersistentVolume) -> bool {
    volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some())
}

fn tell_once(event: Event, context: &Context<'_>) -> Outcome {
    let told = json!([event.reason, event.message]);
    let actions = if context.memory == Some(&told) { Vec::new() } else { vec![Action::Record(event)] };
    Outcome { actions, requeue_after: None, memory: Some(told) }
}
