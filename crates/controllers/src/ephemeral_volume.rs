//! Claims of pods' generic ephemeral volumes: made for the pod, owned by it. Upstream's `pkg/controller/volume/ephemeral`.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::action::{Action, Event, Outcome};
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta, pods};

pub const CONTROLLER: Controller = Controller {
    name: "ephemeral-volume-controller",
    identity: "ephemeral-volume-controller",
    component: "ephemeral_volume",
    watches: &[
        Watch::Pods(|_, pod| if volumes(pod).next().is_some() { vec![meta::key(pod)] } else { Vec::new() }),
        Watch::PersistentVolumeClaims(|_, claim| meta::controller_key::<Pod, _>(claim).into_iter().collect()),
    ],
    reconcile,
};

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let all = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    all.filter(|volume| volume.ephemeral.is_some())
}

/// The claim behind a volume of a pod.
pub fn claim_name(pod: &Pod, volume: &Volume) -> String {
    format!("{}-{}", meta::name(pod), volume.name)
}

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(pod) = view.pods.get(&key.namespace, &key.name) else { return Outcome::nothing() };
    if meta::is_deleting(&*pod) || pods::is_finished(&pod) {
        return Outcome::nothing();
    }
    let mut outcome = Outcome::nothing();
    for volume in volumes(&pod) {
        let name = claim_name(&pod, volume);
        match view.persistent_volume_claims.get(&key.namespace, &name) {
            Some(claim) if meta::is_controlled_by(&*claim, meta::uid(&*pod)) => {}
            Some(_) => {
                let text = format!(
                    "ephemeral volume {}: PVC {key_of} was not created for pod {key} (pod is not owner)",
                    volume.name,
                    key_of = Key::new(&key.namespace, &name)
                );
                outcome.memory = Some(serde_json::json!(text));
                if context.memory != outcome.memory.as_ref() {
                    outcome.actions.push(Action::Record(Event::warning(&*pod, "FailedBinding", text)));
                }
            }
            None => outcome.actions.extend(create(&pod, volume, name)),
        }
    }
    outcome
}

fn create(pod: &Pod, volume: &Volume, name: String) -> Option<Action> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
    let of_template = template.metadata.clone().unwrap_or_default();
    let metadata = ObjectMeta {
        name: Some(name),
        namespace: Some(meta::namespace(pod).to_owned()),
        labels: of_template.labels,
        annotations: of_template.annotations,
        owner_references: Some(vec![meta::controller_ref(pod)]),
        ..ObjectMeta::default()
    };
    let claim = PersistentVolumeClaim { metadata, spec: Some(template.spec.clone()), status: None };
    let failed = format!("ephemeral volume {}: create PVC {}: {{}}", volume.name, meta::key(&claim));
    Some(Action::create(&claim).tell_failed(Event::warning(pod, "FailedBinding", failed)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use serde_json::json;

    #[test]
    fn claims_are_made_for_the_pod_and_others_are_left() {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}});
        let volumes = json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}, {"name": "w", "ephemeral": {"volumeClaimTemplate": template}}]);
        let mut model = Model::new(&[
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "d", "name": "p"}, "spec": {"containers": [], "volumes": volumes}}),
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "d", "name": "p-w"}, "spec": {}}),
        ]);
        model.settle(&CONTROLLER, &Key::new("d", "p"));
        let claim = model.get::<PersistentVolumeClaim>("d", "p-v");
        assert_eq!((&claim["metadata"]["labels"]["a"], &claim["metadata"]["ownerReferences"][0]["name"]), (&json!("b"), &json!("p")));
        assert_eq!(model.of_kind::<PersistentVolumeClaim>().len(), 2);
        assert_eq!(model.events, ["FailedBinding: ephemeral volume w: PVC d/p-w was not created for pod d/p (pod is not owner)"]);
    }
}
