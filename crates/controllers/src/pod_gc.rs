//! Pods that nobody else will clean up: on nodes that are gone, deleted before they were placed, or finished long ago and
//! too many. Upstream's `podgc`.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;

use crate::action::{Action, Outcome, Target};
use crate::taint_eviction::disrupt;
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta, pods};

pub const CONTROLLER: Controller = Controller {
    name: "pod-garbage-collector-controller",
    identity: "pod-garbage-collector",
    component: "pod-garbage-collector",
    watches: &[
        Watch::Nodes(|_, node| if meta::is_deleting(node) { vec![all()] } else { Vec::new() }),
        Watch::Pods(|_, pod| if pods::node_name(pod).is_empty() && meta::is_deleting(pod) { vec![all()] } else { Vec::new() }),
        // So that the first pass comes; after that it comes by itself.
        Watch::Namespaces(|_, namespace| if meta::name(namespace) == "kube-system" { vec![all()] } else { Vec::new() }),
    ],
    reconcile,
};

/// How often to look, as upstream.
const PERIOD: Duration = Duration::from_secs(20);

fn all() -> Key {
    Key::cluster("pods")
}

pub fn reconcile(view: &View<'_>, _key: &Key, context: &Context<'_>) -> Outcome {
    let mut outcome = Outcome::nothing();
    outcome.requeue_in(PERIOD);
    let pods = view.pods.list();
    let mut finished: Vec<&Pod> = Vec::new();
    for pod in pods.iter() {
        let node = pods::node_name(pod);
        if node.is_empty() && meta::is_deleting(&**pod) {
            outcome.actions.extend(fail(pod, None));
            outcome.actions.push(force_delete(pod));
        } else if !node.is_empty() && view.nodes.get("", node).is_none() {
            outcome.actions.push(Action::RequireAbsent { target: Target::named::<Node>("", node) });
            outcome.actions.extend(fail(pod, disrupt(pod, "DeletionByPodGC", "PodGC: node no longer exists", context.now)));
            outcome.actions.push(force_delete(pod));
        } else if pods::is_finished(pod) && !meta::is_deleting(&**pod) {
            finished.push(pod);
        }
    }
    let surplus = finished.len().saturating_sub(context.config.terminated_pods_max);
    if surplus > 0 {
        finished.sort_by_key(|pod| (meta::created(*pod), meta::name(*pod).to_owned()));
        outcome.actions.extend(finished.into_iter().take(surplus).map(force_delete));
    }
    outcome
}

fn force_delete(pod: &Pod) -> Action {
    let mut action = Action::delete(pod);
    if let Action::Delete { grace_seconds, .. } = &mut action {
        *grace_seconds = Some(0);
    }
    action
}

/// A pod whose node is gone, or that is deleted before it has one, has failed: nobody else will say so, and who counts pods and
/// holds them with a finalizer until then must see it. Upstream's `markFailedAndDeletePodWithCondition`.
fn fail(pod: &Pod, disrupted: Option<Action>) -> Option<Action> {
    if pods::is_finished(pod) {
        return None;
    }
    let mut action = disrupted.unwrap_or_else(|| Action::patch(pod, json!({})).on_subresource("status"));
    if let Action::Patch { patch, .. } = &mut action {
        patch["status"]["phase"] = json!("Failed");
    }
    Some(action)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, pod_status};
    use serde_json::Value;

    fn pod(name: &str, node: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "d", "name": name}, "spec": {"nodeName": node}})
    }

    #[test]
    fn lost_and_surplus_pods_go() {
        let mut model = Model::new(&[
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}),
            pod("here", "n1"),
            pod("lost", "gone"),
            pod("waiting", ""),
            pod("done-1", "n1"),
            pod("done-2", "n1"),
        ]);
        let done = pod_status("Succeeded", false, model.now);
        model.merge::<Pod>("d", "done-1", &done);
        model.merge::<Pod>("d", "done-2", &done);
        model.config.terminated_pods_max = 1;
        model.settle(&CONTROLLER, &all());
        let names: Vec<_> = model.of_kind::<Pod>().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["done-2", "here", "waiting"]);
        assert_eq!(model.log[0], "require Node gone");
    }

    #[test]
    fn a_pod_that_is_deleted_before_it_has_a_node_has_failed() {
        let mut held = pod("held", "");
        held["metadata"]["finalizers"] = json!([crate::job::TRACKING]);
        held["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let mut model = Model::new(&[held]);
        model.step(&CONTROLLER, &all());
        assert_eq!(model.of_kind::<Pod>()[0]["status"]["phase"], "Failed", "{:?}", model.log);
    }
}
