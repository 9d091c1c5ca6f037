//! Deployment: rolls its ReplicaSets from template to template. Upstream's `pkg/controller/deployment`.
//!
//! A pass works on copies of the replica counts and annotations ([`Revisions`]), then writes each changed ReplicaSet once
//! and the Deployment's status once.

mod progress;
mod replica_sets;
mod rolling;
mod scale;
mod template;

pub(crate) use template::hash;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::action::{Action, Event, Outcome};
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta, pods, selector};
use replica_sets::Revisions;

pub const CONTROLLER: Controller = Controller {
    name: "deployment-controller",
    identity: "deployment-controller",
    component: "deployment-controller",
    watches: &[Watch::Deployments(|_, deployment| vec![meta::key(deployment)]), Watch::ReplicaSets(keys_of_set), Watch::Pods(keys_of_pod)],
    reconcile,
};

fn keys_of_set(view: &View<'_>, set: &ReplicaSet) -> Vec<Key> {
    if meta::controller(set).is_some() {
        return meta::controller_key::<Deployment, _>(set).into_iter().collect();
    }
    let deployments = view.deployments.list_namespace(meta::namespace(set));
    let wanting = deployments.iter().filter(|deployment| {
        let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
        selector.is_some_and(|selector| !selector::is_empty(selector) && selector::matches(selector, set.metadata.labels.as_ref()))
    });
    wanting.map(|deployment| meta::key(&**deployment)).collect()
}

/// A pod that goes matters only to a Deployment that waits for the old ones to be gone.
fn keys_of_pod(view: &View<'_>, pod: &Pod) -> Vec<Key> {
    let Some(set_key) = meta::controller_key::<ReplicaSet, _>(pod) else { return Vec::new() };
    let set = view.replica_sets.get(&set_key.namespace, &set_key.name);
    let key = set.and_then(|set| meta::controller_key::<Deployment, _>(&*set));
    let deployment = key.and_then(|key| view.deployments.get(&key.namespace, &key.name));
    deployment.filter(|deployment| is_recreate(deployment)).map(|deployment| meta::key(&*deployment)).into_iter().collect()
}

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(deployment) = view.deployments.get(&key.namespace, &key.name) else { return Outcome::nothing() };
    let Some(spec) = deployment.spec.as_ref() else { return Outcome::nothing() };
    if selector::is_empty(&spec.selector) {
        let text = "This deployment is selecting all pods. A non-empty selector is required.";
        return vec![Action::Record(Event::warning(&*deployment, "SelectingAll", text.to_owned()))].into();
    }
    let claimed = pods::claim(view.replica_sets, &*deployment, &spec.selector);
    let mut outcome = Outcome::from(claimed.actions);
    let mut sets = Revisions::new(&deployment, claimed.owned);
    if !meta::is_deleting(&*deployment) {
        progress::note_pause(&mut sets, context);
        roll_out(view, &mut sets, context);
    }
    let changed_sets = sets.set_actions();
    progress::sync_status(&mut sets, context, &mut outcome);
    if context.failure.is_some() {
        // What failed will likely fail again, and the status must say so.
        outcome.actions.extend(sets.status_action());
        outcome.actions.extend(changed_sets);
    } else {
        outcome.actions.extend(changed_sets);
        outcome.actions.extend(sets.status_action());
    }
    outcome.actions.append(&mut sets.old_to_delete);
    outcome
}

/// One step of the roll-out; the change it makes brings the next.
fn roll_out(view: &View<'_>, sets: &mut Revisions<'_>, context: &Context<'_>) {
    let paused = sets.spec().paused == Some(true);
    if paused || sets.is_scaling_event() {
        sets.sync_revision(view, context, false);
        scale::scale(sets);
        if paused {
            sets.clean_up();
        }
        return;
    }
    let recreate = is_recreate(sets.deployment);
    sets.sync_revision(view, context, !recreate);
    if sets.collided {
        return;
    }
    let stepped = if recreate { rolling::recreate(view, sets, context) } else { rolling::roll(sets) };
    if !stepped && sets.is_complete(&progress::status(sets)) {
        sets.clean_up();
    }
}

fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// Pods above and below the wanted number that a roll-out may use, resolved as upstream's `ResolveFenceposts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    surge: i32,
    unavailable: i32,
}

fn bounds(deployment: &Deployment) -> Bounds {
    let spec = deployment.spec.as_ref();
    let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    if is_recreate(deployment) {
        return Bounds { surge: 0, unavailable: 0 };
    }
    let rolling = spec.and_then(|spec| spec.strategy.as_ref()?.rolling_update.as_ref());
    let default = IntOrString::String("25%".to_owned());
    let surge = scaled(rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&default), replicas, true);
    let unavailable = scaled(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&default), replicas, false);
    let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
    Bounds { surge, unavailable: if replicas == 0 { 0 } else { unavailable.min(replicas) } }
}

/// A number or a percentage of a total, as upstream's `GetScaledValueFromIntOrPercent`.
pub(crate) fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%').and_then(|number| number.parse::<i32>().ok()).unwrap_or(0).into();
            let product = percent * i64::from(total);
            let value = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(value).unwrap_or(i32::MAX)
        }
    }
}

/// The sets in order of age, the oldest first, as upstream's `ReplicaSetsByCreationTimestamp`.
fn by_age(a: &Arc<ReplicaSet>, b: &Arc<ReplicaSet>) -> std::cmp::Ordering {
    (meta::created(&**a), meta::name(&**a)).cmp(&(meta::created(&**b), meta::name(&**b)))
}

#[cfg(test)]
mod tests;
