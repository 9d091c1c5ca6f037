//! StatefulSet: pods with names, claims and an order. Upstream's `pkg/controller/statefulset`.
//!
//! A pass decides on what it sees and stops where a pod must change first; that pod's change brings the next pass.

mod claims;
mod identity;
mod update;

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use serde_json::json;

use crate::action::{Action, Event, Outcome, slow_start};
use crate::history::{self, History};
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta, pods, selector};
use claims::Policy;

pub const CONTROLLER: Controller = Controller {
    name: "statefulset-controller",
    identity: "statefulset-controller",
    component: "statefulset-controller",
    watches: &[
        Watch::StatefulSets(|_, set| vec![meta::key(set)]),
        Watch::Pods(keys_of_pod),
        Watch::ControllerRevisions(|_, revision| meta::controller_key::<StatefulSet, _>(revision).into_iter().collect()),
        Watch::PersistentVolumeClaims(keys_of_claim),
    ],
    reconcile,
};

fn keys_of_pod(view: &View<'_>, pod: &Pod) -> Vec<Key> {
    if meta::controller(pod).is_some() {
        return meta::controller_key::<StatefulSet, _>(pod).into_iter().collect();
    }
    let sets = view.stateful_sets.list_namespace(meta::namespace(pod));
    sets.iter().filter(|set| identity::ordinal(set, pod).is_some()).map(|set| meta::key(&**set)).collect()
}

/// A claim that goes may have held up the pod that wants it.
fn keys_of_claim(view: &View<'_>, claim: &PersistentVolumeClaim) -> Vec<Key> {
    let sets = view.stateful_sets.list_namespace(meta::namespace(claim));
    let stem = meta::name(claim).rsplit_once('-').map_or("", |(stem, _)| stem);
    let of_set = |set: &&Arc<StatefulSet>| {
        let templates = set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten());
        let mut stems = templates.map(|template| format!("{}-{}", meta::name(template), meta::name(&***set)));
        stems.any(|one| one == stem)
    };
    sets.iter().filter(of_set).map(|set| meta::key(&**set)).collect()
}

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(set) = view.stateful_sets.get(&key.namespace, &key.name) else { return Outcome::nothing() };
    let Some(spec) = set.spec.as_ref() else { return Outcome::nothing() };
    if selector::is_empty(&spec.selector) {
        return Outcome::nothing();
    }
    let claimed = pods::claim_if(view.pods, &*set, &spec.selector, |pod| identity::ordinal(&set, pod).is_some());
    let mut outcome = Outcome::from(claimed.actions);
    let old = set.status.clone().unwrap_or_default();
    let mut history = History::of(view, &*set, &spec.selector, &spec.template, old.collision_count);
    // One that goes may wait for its revisions to go: new ones would keep it, or be left behind.
    if !meta::is_deleting(&*set) {
        outcome.actions.append(&mut history.actions);
    }
    let of_status = history.all.iter().find(|one| Some(meta::name(&***one)) == old.current_revision.as_deref());
    let current = of_status.unwrap_or(&history.update).clone();
    let mut pass = Pass {
        view,
        set: &set,
        spec,
        context,
        current: meta::name(&*current).to_owned(),
        current_template: history::template_of(&current).unwrap_or_else(|| spec.template.clone()),
        update: meta::name(&*history.update).to_owned(),
        owned: claimed.owned,
        claims: Vec::new(),
        creates: Vec::new(),
        changes: Vec::new(),
    };
    let status = pass.status(&history);
    if !meta::is_deleting(&*set) {
        pass.manage();
    }
    outcome.actions.extend(Action::update_status(&*set, &set.status, &status));
    outcome.actions.extend(pass.claims);
    outcome.actions.extend(slow_start(pass.creates));
    if !pass.changes.is_empty() {
        outcome.actions.push(Action::Together(pass.changes));
    }
    if !meta::is_deleting(&*set) {
        let live: BTreeSet<String> =
            pass.owned.iter().map(|pod| identity::revision(pod).to_owned()).chain([pass.current, pass.update]).collect();
        outcome.actions.extend(history.clean_up(&live, spec.revision_history_limit));
    }
    let settling = status.ready_replicas != status.available_replicas;
    if let (true, Some(seconds)) = (settling, spec.min_ready_seconds.and_then(|seconds| u64::try_from(seconds).ok())) {
        outcome.requeue_in(std::time::Duration::from_secs(seconds.max(1)));
    }
    outcome
}

struct Pass<'a> {
    view: &'a View<'a>,
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    context: &'a Context<'a>,
    /// Names of the revisions that pods come from and go to.
    current: String,
    current_template: PodTemplateSpec,
    update: String,
    owned: Vec<Arc<Pod>>,
    /// In the order they are done: claims, then pods, then all else.
    claims: Vec<Action>,
    creates: Vec<Action>,
    changes: Vec<Action>,
}

/// One place among the replicas.
enum Slot {
    Pod(Arc<Pod>),
    Missing(i32),
}

impl Pass<'_> {
    fn is_ready(&self, pod: &Pod) -> bool {
        pods::phase(pod) == "Running" && pods::is_ready(pod)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        self.is_ready(pod) && pods::is_available(pod, self.spec.min_ready_seconds.unwrap_or(0), self.context.now)
    }

    /// Available and here to stay.
    fn is_healthy(&self, pod: &Pod) -> bool {
        self.is_available(pod) && !meta::is_deleting(pod)
    }

    fn manage(&mut self) {
        let monotonic = self.spec.pod_management_policy.as_deref() != Some("Parallel");
        let by_ordinal = |ordinal: i32| self.owned.iter().find(|pod| identity::ordinal(self.set, pod) == Some(ordinal)).cloned();
        let start = identity::start(self.spec);
        let ordinals = start..start.saturating_add(identity::replicas(self.spec));
        let slots: Vec<Slot> = ordinals.map(|ordinal| by_ordinal(ordinal).map_or(Slot::Missing(ordinal), Slot::Pod)).collect();
        let mut blocked = false;
        for slot in &slots {
            blocked |= self.process_replica(slot, monotonic);
            if blocked && monotonic {
                return;
            }
        }
        if blocked || self.scale_down(&slots, monotonic) {
            return;
        }
        self.roll(&slots);
    }

    /// Whether the rest must wait for this one.
    fn process_replica(&mut self, slot: &Slot, monotonic: bool) -> bool {
        let pod = match slot {
            Slot::Missing(ordinal) => return self.create(*ordinal) || monotonic,
            Slot::Pod(pod) => pod.clone(),
        };
        let Some(ordinal) = identity::ordinal(self.set, &pod) else { return false };
        if pods::is_finished(&pod) {
            // One that is already going has its finalizers or its kubelet to wait for.
            if !meta::is_deleting(&*pod) {
                self.delete(&pod);
            }
            return true;
        }
        if meta::is_deleting(&*pod) {
            return monotonic;
        }
        if pods::phase(&pod) == "Pending" {
            self.make_claims(ordinal);
        }
        if monotonic && !self.is_available(&pod) {
            return true;
        }
        if let Some((label, value)) = identity::missing_label(&pod) {
            self.changes.push(Action::patch(&*pod, json!({"metadata": {"labels": {label: value}}})));
        }
        self.correct_claims(&pod, ordinal, false);
        false
    }

    /// Makes a pod and its claims; whether a claim that is going must be waited for.
    fn create(&mut self, ordinal: i32) -> bool {
        let name = identity::pod_name(self.set, ordinal);
        let wanted = identity::claims(self.set, self.spec, ordinal);
        let namespace = meta::namespace(self.set);
        let claims = self.view.persistent_volume_claims;
        if wanted.iter().filter_map(|claim| claims.get(namespace, meta::name(claim))).any(|claim| claims::is_stale(&claim, &name)) {
            return true;
        }
        self.make_claims(ordinal);
        // Below the partition, what is replaced comes back as it was.
        let strategy = self.spec.update_strategy.as_ref();
        let rolls = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
        let old = rolls && ordinal < identity::start(self.spec).saturating_add(self.partition());
        let (template, revision) = if old { (&self.current_template, &self.current) } else { (&self.spec.template, &self.update) };
        let pod = identity::new_pod(self.set, self.spec, template, revision, ordinal);
        let set = meta::name(self.set);
        let done = Event::normal(self.set, "SuccessfulCreate", format!("create Pod {name} in StatefulSet {set} successful"));
        let failed = Event::warning(self.set, "FailedCreate", format!("create Pod {name} in StatefulSet {set} failed error: {{}}"));
        self.creates.push(Action::create(&pod).tell_done(done).tell_failed(failed));
        false
    }

    fn make_claims(&mut self, ordinal: i32) {
        let (set, pod) = (meta::name(self.set), identity::pod_name(self.set, ordinal));
        for mut claim in identity::claims(self.set, self.spec, ordinal) {
            let name = meta::name(&claim).to_owned();
            if self.view.persistent_volume_claims.get(meta::namespace(self.set), &name).is_some() {
                continue;
            }
            if Policy::of(self.spec).goes_with_set() {
                claim.metadata.owner_references = Some(vec![meta::controller_ref(self.set)]);
            }
            let done = format!("create Claim {name} Pod {pod} in StatefulSet {set} success");
            let failed = format!("create Claim {name} for Pod {pod} in StatefulSet {set} failed error: {{}}");
            let create = Action::create(&claim).tell_done(Event::normal(self.set, "SuccessfulCreate", done));
            self.claims.push(create.tell_failed(Event::warning(self.set, "FailedCreate", failed)));
        }
    }

    fn correct_claims(&mut self, pod: &Pod, ordinal: i32, condemned: bool) {
        let policy = Policy::of(self.spec);
        for claim in identity::claims(self.set, self.spec, ordinal) {
            let Some(claim) = self.view.persistent_volume_claims.get(meta::namespace(self.set), meta::name(&claim)) else { continue };
            self.claims.extend(claims::correct_owners(self.set, Some(pod), &claim, policy, condemned));
        }
    }

    fn delete(&mut self, pod: &Pod) {
        let (set, name) = (meta::name(self.set), meta::name(pod));
        let done = Event::normal(self.set, "SuccessfulDelete", format!("delete Pod {name} in StatefulSet {set} successful"));
        let failed = Event::warning(self.set, "FailedDelete", format!("delete Pod {name} in StatefulSet {set} failed error: {{}}"));
        self.changes.push(Action::delete(pod).tell_done(done).tell_failed(failed));
    }

    /// Deletes what is beyond the range, the highest ordinal first; whether the roll-out must wait.
    fn scale_down(&mut self, slots: &[Slot], monotonic: bool) -> bool {
        let mut condemned: Vec<(i32, Arc<Pod>)> = self
            .owned
            .iter()
            .filter_map(|pod| Some((identity::ordinal(self.set, pod)?, pod.clone())))
            .filter(|(ordinal, _)| !identity::in_range(self.spec, *ordinal))
            .collect();
        condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
        for (ordinal, pod) in &condemned {
            self.correct_claims(pod, *ordinal, true);
        }
        let living = slots.iter().filter_map(|slot| if let Slot::Pod(pod) = slot { Some(pod) } else { None });
        let mut in_order = living.chain(condemned.iter().rev().map(|(_, pod)| pod));
        let first_unhealthy = in_order.find(|pod| !self.is_healthy(pod)).map(|pod| meta::uid(&**pod).to_owned());
        for (_, pod) in &condemned {
            if meta::is_deleting(&**pod) {
                if monotonic {
                    return true;
                }
                continue;
            }
            if monotonic && !self.is_available(pod) && first_unhealthy.as_deref() != Some(meta::uid(&**pod)) {
                return true;
            }
            self.delete(pod);
            if monotonic {
                return true;
            }
        }
        !condemned.is_empty()
    }
}

#[cfg(test)]
mod tests;
