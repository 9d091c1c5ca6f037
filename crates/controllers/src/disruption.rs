//! PodDisruptionBudgets: how many pods may be evicted now. Upstream's `disruption` controller. The `scale` of owners other
//! than the built-in ones is not looked up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::action::{Action, Event, Outcome};
use crate::deployment::scaled;
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta, pods, selector};

pub const CONTROLLER: Controller = Controller {
    name: "disruption-controller",
    identity: "disruption-controller",
    component: "controllermanager",
    watches: &[
        Watch::PodDisruptionBudgets(|_, budget| vec![meta::key(budget)]),
        Watch::Pods(budgets_of_pod),
        Watch::ReplicaSets(|view, set| budgets_in(view, meta::namespace(set))),
        Watch::Deployments(|view, deployment| budgets_in(view, meta::namespace(deployment))),
        Watch::StatefulSets(|view, set| budgets_in(view, meta::namespace(set))),
        Watch::ReplicationControllers(|view, set| budgets_in(view, meta::namespace(set))),
    ],
    reconcile,
};

/// An eviction that was promised but has not happened by then is forgotten, as upstream's `DeletionTimeout`.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);

fn budgets_in(view: &View<'_>, namespace: &str) -> Vec<Key> {
    view.pod_disruption_budgets.list_namespace(namespace).iter().map(|budget| meta::key(&**budget)).collect()
}

fn budgets_of_pod(view: &View<'_>, pod: &Pod) -> Vec<Key> {
    let budgets = view.pod_disruption_budgets.list_namespace(meta::namespace(pod));
    budgets.iter().filter(|budget| covers(budget, pod)).map(|budget| meta::key(&**budget)).collect()
}

fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| selector::matches(selector, pod.metadata.labels.as_ref()))
}

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let budget = view.pod_disruption_budgets.get(&key.namespace, &key.name).filter(|budget| !meta::is_deleting(&**budget));
    let Some(budget) = budget else { return Outcome::nothing() };
    let Some(spec) = budget.spec.as_ref() else { return Outcome::nothing() };
    let all = view.pods.list_namespace(&key.namespace);
    let covered: Vec<Arc<Pod>> = all.into_iter().filter(|pod| covers(&budget, pod) && !pods::is_finished(pod)).collect();
    let mut outcome = Outcome::nothing();
    if covered.is_empty() {
        outcome.actions.push(Action::Record(Event::normal(&*budget, "NoPods", "No matching pods found".to_owned())));
    }
    let old = budget.status.clone().unwrap_or_default();
    let disrupted = still_promised(&old, &covered, context, &mut outcome);
    let healthy = covered.iter().filter(|pod| {
        let promised = meta::is_deleting(&***pod) || disrupted.contains_key(meta::name(&***pod));
        pods::is_ready(pod) && !promised
    });
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let (expected, desired) = expectation(view, spec, &covered);
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: budget.metadata.generation,
        conditions: old.conditions.clone(),
    };
    set_condition(&mut status, allowed > 0, budget.metadata.generation, context.now);
    let write = Action::update_status(&*budget, &budget.status, &status);
    // Told once per change, not on every look.
    if write.is_none() {
        outcome.actions.clear();
    }
    outcome.actions.extend(write);
    outcome
}

/// Evictions that were granted and of which the pod does not show anything yet.
fn still_promised(
    old: &PodDisruptionBudgetStatus,
    covered: &[Arc<Pod>],
    context: &Context<'_>,
    outcome: &mut Outcome,
) -> BTreeMap<String, Time> {
    let waiting: BTreeSet<&str> = covered.iter().filter(|pod| !meta::is_deleting(&***pod)).map(|pod| meta::name(&**pod)).collect();
    let mut promised = BTreeMap::new();
    for (name, since) in old.disrupted_pods.iter().flatten().filter(|(name, _)| waiting.contains(name.as_str())) {
        let rest = DELETION_TIMEOUT - meta::since(since, context.now);
        if rest > SignedDuration::ZERO {
            promised.insert(name.clone(), since.clone());
            outcome.requeue_in(meta::unsigned(rest) + Duration::from_millis(10));
        }
    }
    promised
}

/// How many pods there should be, and how many of them must be healthy.
fn expectation(view: &View<'_>, spec: &PodDisruptionBudgetSpec, covered: &[Arc<Pod>]) -> (i32, i32) {
    let count = i32::try_from(covered.len()).unwrap_or(i32::MAX);
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(unavailable), _) => {
            let expected = expected_of_owners(view, covered);
            (expected, (expected - scaled(unavailable, expected, true)).max(0))
        }
        (None, Some(IntOrString::Int(available))) => (count, *available),
        (None, Some(percentage)) => {
            let expected = expected_of_owners(view, covered);
            (expected, scaled(percentage, expected, true))
        }
        (None, None) => (count, 0),
    }
}

/// The sizes of everything that owns these pods.
fn expected_of_owners(view: &View<'_>, covered: &[Arc<Pod>]) -> i32 {
    let mut sizes: BTreeMap<String, i32> = BTreeMap::new();
    for pod in covered {
        let Some(owner) = meta::controller(&**pod) else { continue };
        let namespace = meta::namespace(&**pod);
        match owner.kind.as_str() {
            "ReplicaSet" => {
                let Some(set) = view.replica_sets.get(namespace, &owner.name) else { continue };
                let above = meta::controller(&*set).and_then(|owner| view.deployments.get(namespace, &owner.name));
                let (uid, size) = match above {
                    Some(deployment) => (meta::uid(&*deployment).to_owned(), deployment.spec.as_ref().and_then(|spec| spec.replicas)),
                    None => (owner.uid.clone(), set.spec.as_ref().and_then(|spec| spec.replicas)),
                };
                sizes.insert(uid, size.unwrap_or(1));
            }
            "StatefulSet" => {
                let set = view.stateful_sets.get(namespace, &owner.name);
                sizes.insert(owner.uid.clone(), set.and_then(|set| set.spec.as_ref().and_then(|spec| spec.replicas)).unwrap_or(1));
            }
            "ReplicationController" => {
                let set = view.replication_controllers.get(namespace, &owner.name);
                sizes.insert(owner.uid.clone(), set.and_then(|set| set.spec.as_ref().and_then(|spec| spec.replicas)).unwrap_or(1));
            }
            _ => {}
        }
    }
    sizes.values().sum()
}

fn set_condition(status: &mut PodDisruptionBudgetStatus, allowed: bool, generation: Option<i64>, now: Timestamp) {
    let (value, reason) = if allowed { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let conditions = status.conditions.get_or_insert_default();
    let old = conditions.iter().find(|condition| condition.type_ == "DisruptionAllowed");
    let since = old.filter(|old| old.status == value).map_or_else(|| meta::time(now), |old| old.last_transition_time.clone());
    let new = Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        last_transition_time: since,
        observed_generation: generation,
    };
    conditions.retain(|condition| condition.type_ != "DisruptionAllowed");
    conditions.push(new);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, pod_status};
    use serde_json::{Value, json};

    fn cluster(budget: Value, pods: usize) -> Model {
        let mut budget = budget;
        budget["selector"] = json!({"matchLabels": {"app": "web"}});
        let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "set", "controller": true}]);
        let mut objects = vec![
            json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"namespace": "d", "name": "b"}, "spec": budget}),
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"namespace": "d", "name": "web", "uid": "set"}, "spec": {"replicas": 4, "selector": {}}}),
        ];
        let pod = |n| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "d", "name": format!("p{n}"), "labels": {"app": "web"}, "ownerReferences": owner}});
        objects.extend((0..pods).map(pod));
        let mut model = Model::new(&objects);
        let ready = pod_status("Running", true, model.now);
        (0..pods).for_each(|n| model.merge::<Pod>("d", &format!("p{n}"), &ready));
        model.settle(&CONTROLLER, &Key::new("d", "b"));
        model
    }

    fn numbers(model: &Model) -> [i64; 4] {
        let status = &model.get::<PodDisruptionBudget>("d", "b")["status"];
        ["expectedPods", "currentHealthy", "desiredHealthy", "disruptionsAllowed"].map(|field| status[field].as_i64().unwrap())
    }

    #[test]
    fn budgets_count_what_may_go() {
        assert_eq!(numbers(&cluster(json!({"minAvailable": 2}), 3)), [3, 3, 2, 1]);
        assert_eq!(numbers(&cluster(json!({"maxUnavailable": 1}), 4)), [4, 4, 3, 1]);
        assert_eq!(numbers(&cluster(json!({"minAvailable": "50%"}), 4)), [4, 4, 2, 2]);
        assert_eq!(numbers(&cluster(json!({"maxUnavailable": 0}), 4)), [4, 4, 4, 0]);
        assert_eq!(numbers(&cluster(json!({"maxUnavailable": 1}), 0)), [0, 0, 0, 0]);
    }

    #[test]
    fn promised_evictions_count_until_they_time_out() {
        let mut model = cluster(json!({"maxUnavailable": 2}), 4);
        let now = model.now;
        model.merge::<PodDisruptionBudget>("d", "b", &json!({"status": {"disruptedPods": {"p1": now}}}));
        model.settle(&CONTROLLER, &Key::new("d", "b"));
        assert_eq!(numbers(&model), [4, 3, 2, 1]);
        model.pass(121);
        model.settle(&CONTROLLER, &Key::new("d", "b"));
        assert_eq!(numbers(&model), [4, 4, 2, 2]);
        assert!(model.get::<PodDisruptionBudget>("d", "b")["status"]["disruptedPods"].is_null());
    }
}
