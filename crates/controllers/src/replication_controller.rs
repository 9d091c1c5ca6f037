//! ReplicationController: a ReplicaSet of the first days. Upstream's `pkg/controller/replication`.

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec, ReplicationController, ReplicationControllerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::action::Outcome;
use crate::replica_set::{Replicated, replicate};
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta, selector};

pub const CONTROLLER: Controller = Controller {
    name: "replicationcontroller-controller",
    identity: "replication-controller",
    component: "replication-controller",
    watches: &[Watch::ReplicationControllers(|_, set| vec![meta::key(set)]), Watch::Pods(keys_of_pod)],
    reconcile,
};

impl Replicated for ReplicationController {
    type Status = ReplicationControllerStatus;

    fn replicas(&self) -> Option<i32> {
        self.spec.as_ref()?.replicas
    }
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }
    fn selector(&self) -> LabelSelector {
        let match_labels = self.spec.as_ref().and_then(|spec| spec.selector.clone());
        LabelSelector { match_labels, match_expressions: None }
    }
    fn min_ready_seconds(&self) -> Option<i32> {
        self.spec.as_ref()?.min_ready_seconds
    }
    fn status(&self) -> &Option<ReplicationControllerStatus> {
        &self.status
    }
}

fn keys_of_pod(view: &View<'_>, pod: &Pod) -> Vec<Key> {
    if meta::controller(pod).is_some() {
        return meta::controller_key::<ReplicationController, _>(pod).into_iter().collect();
    }
    let sets = view.replication_controllers.list_namespace(meta::namespace(pod));
    let wanting = sets.iter().filter(|set| {
        let wanted = set.selector();
        !selector::is_empty(&wanted) && selector::matches(&wanted, pod.metadata.labels.as_ref())
    });
    wanting.map(|set| meta::key(&**set)).collect()
}

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    match view.replication_controllers.get(&key.namespace, &key.name) {
        Some(set) => replicate(view, &*set, &[], context),
        None => Outcome::nothing(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, pod_status};
    use serde_json::json;

    #[test]
    fn keeps_its_number_and_tells_its_status() {
        let mut model = Model::new(&[
            json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"namespace": "d", "name": "rc"},
            "spec": {"replicas": 2, "selector": {"a": "b"}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}}}),
        ]);
        let key = Key::new("d", "rc");
        model.settle(&CONTROLLER, &key);
        let names: Vec<String> = model.of_kind::<Pod>().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names.len(), 2);
        assert_eq!(model.of_kind::<Pod>()[0]["metadata"]["ownerReferences"][0]["kind"], "ReplicationController");
        let ready = pod_status("Running", true, model.now);
        names.iter().for_each(|name| model.merge::<Pod>("d", name, &ready));
        model.settle(&CONTROLLER, &key);
        let status = &model.get::<ReplicationController>("d", "rc")["status"];
        assert_eq!(
            *status,
            json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 2, "fullyLabeledReplicas": 2, "observedGeneration": 1})
        );
        model.merge::<ReplicationController>("d", "rc", &json!({"spec": {"replicas": 0}}));
        model.settle(&CONTROLLER, &key);
        assert_eq!(model.of_kind::<Pod>().len(), 0);
    }
}
