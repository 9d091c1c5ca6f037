//! A claim on its way to its volume. Upstream's `syncUnboundClaim` and `syncBoundClaim`.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::{BY_CONTROLLER, COMPLETED, matching, refers_to, volume_name};
use crate::action::{Action, Event, Outcome, reference};
use crate::view::{Context, Key, View};
use crate::{meta, pods, volume_protection};

const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(claim) = view.persistent_volume_claims.get(&key.namespace, &key.name) else { return Outcome::nothing() };
    let pass = Pass { view, claim: &claim, context };
    if meta::annotation(&*claim, COMPLETED).is_some() { pass.bound() } else { pass.unbound() }
}

struct Pass<'a> {
    view: &'a View<'a>,
    claim: &'a PersistentVolumeClaim,
    context: &'a Context<'a>,
}

impl Pass<'_> {
    fn unbound(&self) -> Outcome {
        let name = volume_name(self.claim);
        if !name.is_empty() {
            return self.unbound_by_name(name);
        }
        if let Some(action) = self.give_default_class() {
            return vec![action].into();
        }
        let class = self.view.storage_classes.get("", matching::class_of(self.claim));
        let delays = class.as_ref().is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
        let placed = meta::annotation(self.claim, SELECTED_NODE).is_some();
        if let Some(volume) = matching::best(&self.view.persistent_volumes.list(), self.claim, delays) {
            return self.bind(&volume);
        }
        if delays && !placed {
            let (reason, text) = self.awaited();
            return self.pending(Some(Event::normal(self.claim, reason, text)));
        }
        if matching::class_of(self.claim).is_empty() {
            let text = "no persistent volumes available for this claim and no storage class is set";
            return self.pending(Some(Event::normal(self.claim, "FailedBinding", text.to_owned())));
        }
        self.provision(class.as_deref())
    }

    /// A claim without a class gets the default one, also one that came later.
    fn give_default_class(&self) -> Option<Action> {
        if self.claim.spec.as_ref()?.storage_class_name.is_some() || !matching::class_of(self.claim).is_empty() {
            return None;
        }
        let all = self.view.storage_classes.list();
        let defaults = all.iter().filter(|class| meta::annotation(&***class, IS_DEFAULT) == Some("true"));
        // The newest of several.
        let class = defaults.max_by_key(|class| (meta::created(&***class), std::cmp::Reverse(meta::name(&***class).to_owned())))?;
        Some(Action::update(self.claim, json!({"spec": {"storageClassName": meta::name(&**class)}})))
    }

    fn awaited(&self) -> (&'static str, String) {
        let pods = self.view.pods.list_namespace(meta::namespace(self.claim));
        let using = pods.iter().filter(|pod| !pods::is_finished(pod) && volume_protection::claims_of(pod).contains(&meta::key(self.claim)));
        let names: Vec<&str> = using.map(|pod| meta::name(&**pod)).collect();
        match names.as_slice() {
            [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
            [one] => ("WaitForPodScheduled", format!("waiting for pod {one} to be scheduled")),
            several => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", several.join(","))),
        }
    }

    fn unbound_by_name(&self, name: &str) -> Outcome {
        let Some(volume) = self.view.persistent_volumes.get("", name) else { return self.pending(None) };
        if refers_to(&volume, self.claim) {
            return self.bind(&volume);
        }
        if volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_some()) {
            let text = format!("volume {name:?} already bound to a different claim.");
            return self.pending(Some(Event::warning(self.claim, "FailedBinding", text)));
        }
        match matching::mismatch(&volume, self.claim) {
            Some(why) => {
                let text = format!("Cannot bind to requested volume {name:?}: {why}");
                self.pending(Some(Event::warning(self.claim, "VolumeMismatch", text)))
            }
            None => self.bind(&volume),
        }
    }

    fn bound(&self) -> Outcome {
        let name = volume_name(self.claim);
        if name.is_empty() {
            return self.lost("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!");
        }
        let Some(volume) = self.view.persistent_volumes.get("", name) else {
            return self.lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
        };
        let free = volume.spec.as_ref().is_none_or(|spec| spec.claim_ref.is_none());
        if free || refers_to(&volume, self.claim) {
            return self.bind(&volume);
        }
        self.lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
    }

    /// The next step: the volume's side, the claim's side, the claim's status.
    fn bind(&self, volume: &PersistentVolume) -> Outcome {
        let old = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        if old.and_then(|old| old.uid.as_deref()) != Some(meta::uid(self.claim)) {
            let mut patch = json!({"spec": {"claimRef": reference(self.claim)}});
            if !refers_to(volume, self.claim) {
                patch["metadata"]["annotations"][BY_CONTROLLER] = json!("yes");
            }
            return vec![Action::update(volume, patch)].into();
        }
        let mut patch = json!({});
        if volume_name(self.claim) != meta::name(volume) {
            patch["spec"]["volumeName"] = json!(meta::name(volume));
            patch["metadata"]["annotations"][BY_CONTROLLER] = json!("yes");
        }
        if meta::annotation(self.claim, COMPLETED).is_none() {
            patch["metadata"]["annotations"][COMPLETED] = json!("yes");
        }
        if patch != json!({}) {
            return vec![Action::update(self.claim, patch)].into();
        }
        let old = self.claim.status.clone().unwrap_or_default();
        let spec = volume.spec.clone().unwrap_or_default();
        let first = old.phase.as_deref() != Some("Bound");
        let new = PersistentVolumeClaimStatus {
            phase: Some("Bound".to_owned()),
            access_modes: spec.access_modes,
            // Once bound, its size is the resizer's to tell.
            capacity: if first { spec.capacity } else { old.capacity.clone() },
            ..old
        };
        Action::update_status(self.claim, &self.claim.status, &new).into_iter().collect::<Vec<_>>().into()
    }

    fn provision(&self, class: Option<&StorageClass>) -> Outcome {
        let Some(class) = class else {
            let text = format!("storageclass.storage.k8s.io {:?} not found", matching::class_of(self.claim));
            return self.pending(Some(Event::warning(self.claim, "ProvisioningFailed", text)));
        };
        let provisioner = class.provisioner.as_str();
        if provisioner.starts_with("kubernetes.io/") {
            let text = format!("no volume plugin matched name: {provisioner}");
            return self.pending(Some(Event::warning(self.claim, "ProvisioningFailed", text)));
        }
        let asked = |key| meta::annotation(self.claim, key) == Some(provisioner);
        if !asked(PROVISIONER) || !asked(PROVISIONER_BETA) {
            let annotations: Value = json!({PROVISIONER: provisioner, PROVISIONER_BETA: provisioner});
            return vec![Action::update(self.claim, json!({"metadata": {"annotations": annotations}}))].into();
        }
        let text = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. \
             If volume creation is delayed, please verify that the provisioner is running and correctly registered."
        );
        self.pending(Some(Event::normal(self.claim, "ExternalProvisioning", text)))
    }

    fn pending(&self, event: Option<Event>) -> Outcome {
        let status = PersistentVolumeClaimStatus { phase: Some("Pending".to_owned()), ..self.claim.status.clone().unwrap_or_default() };
        self.tell(status, event)
    }

    fn lost(&self, reason: &str, text: &str) -> Outcome {
        let status = PersistentVolumeClaimStatus { phase: Some("Lost".to_owned()), ..self.claim.status.clone().unwrap_or_default() };
        self.tell(status, Some(Event::warning(self.claim, reason, text.to_owned())))
    }

    /// Writes a status, and tells an event once until there is another to tell.
    fn tell(&self, status: PersistentVolumeClaimStatus, event: Option<Event>) -> Outcome {
        let mut outcome = Outcome::from(Action::update_status(self.claim, &self.claim.status, &status).into_iter().collect::<Vec<_>>());
        if let Some(event) = event {
            let told = json!([event.reason, event.message]);
            if self.context.memory != Some(&told) {
                outcome.actions.push(Action::Record(event));
            }
            outcome.memory = Some(told);
        }
        outcome
    }
}
