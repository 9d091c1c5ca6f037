//! Who a StatefulSet's pod is: its ordinal, name, labels and claims. Upstream's `stateful_set_utils`.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::history::HASH_LABEL;
use crate::meta;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

pub fn start(spec: &StatefulSetSpec) -> i32 {
    spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0)
}

pub fn replicas(spec: &StatefulSetSpec) -> i32 {
    spec.replicas.unwrap_or(1).max(0)
}

pub fn in_range(spec: &StatefulSetSpec, ordinal: i32) -> bool {
    ordinal >= start(spec) && ordinal < start(spec).saturating_add(replicas(spec))
}

pub fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", meta::name(set))
}

/// The number at the end of a pod's name, if the rest is the set's name.
pub fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let digits = meta::name(pod).strip_prefix(meta::name(set))?.strip_prefix('-')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

pub fn revision(pod: &Pod) -> &str {
    meta::label(pod, HASH_LABEL).unwrap_or_default()
}

/// A pod of a template under an ordinal.
pub fn new_pod(set: &StatefulSet, spec: &StatefulSetSpec, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let of_template = template.metadata.clone().unwrap_or_default();
    let name = pod_name(set, ordinal);
    let mut labels = of_template.labels.unwrap_or_default();
    labels.insert(HASH_LABEL.to_owned(), revision.to_owned());
    labels.extend(own_labels(&name, ordinal));
    let metadata = ObjectMeta {
        name: Some(name.clone()),
        generate_name: Some(format!("{}-", meta::name(set))),
        namespace: Some(meta::namespace(set).to_owned()),
        labels: Some(labels),
        annotations: of_template.annotations,
        finalizers: of_template.finalizers,
        owner_references: Some(vec![meta::controller_ref(set)]),
        ..ObjectMeta::default()
    };
    let mut pod = Pod { metadata, spec: template.spec.clone(), status: None };
    if let Some(pod_spec) = pod.spec.as_mut() {
        pod_spec.hostname = Some(name);
        pod_spec.subdomain = Some(service_name(spec)).filter(|name| !name.is_empty());
        pod_spec.volumes = volumes(set, spec, pod_spec.volumes.take().unwrap_or_default(), ordinal);
    }
    pod
}

fn service_name(spec: &StatefulSetSpec) -> String {
    spec.service_name.clone().unwrap_or_default()
}

fn own_labels(name: &str, ordinal: i32) -> BTreeMap<String, String> {
    BTreeMap::from([(POD_NAME.to_owned(), name.to_owned()), (POD_INDEX.to_owned(), ordinal.to_string())])
}

/// The label that a pod must have, when it has another or none.
pub fn missing_label(pod: &Pod) -> Option<(&'static str, String)> {
    let name = meta::name(pod);
    (meta::label(pod, POD_NAME) != Some(name)).then(|| (POD_NAME, name.to_owned()))
}

/// Claims take the place of volumes of the same name.
fn volumes(set: &StatefulSet, spec: &StatefulSetSpec, of_template: Vec<Volume>, ordinal: i32) -> Option<Vec<Volume>> {
    let templates = spec.volume_claim_templates.as_deref().unwrap_or_default();
    let of_claim = |template: &PersistentVolumeClaim| Volume {
        name: meta::name(template).to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(set, template, ordinal),
            read_only: None,
        }),
        ..Volume::default()
    };
    let mut all: Vec<Volume> = templates.iter().map(of_claim).collect();
    all.extend(of_template.into_iter().filter(|volume| templates.iter().all(|template| meta::name(template) != volume.name)));
    (!all.is_empty()).then_some(all)
}

fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", meta::name(template), meta::name(set))
}

/// The claims of the pod under an ordinal, as they are made.
pub fn claims(set: &StatefulSet, spec: &StatefulSetSpec, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let templates = spec.volume_claim_templates.as_deref().unwrap_or_default();
    let of_template = |template: &PersistentVolumeClaim| {
        let mut claim = PersistentVolumeClaim { status: None, ..template.clone() };
        claim.metadata.name = Some(claim_name(set, template, ordinal));
        claim.metadata.namespace = Some(meta::namespace(set).to_owned());
        let labels = claim.metadata.labels.get_or_insert_default();
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        claim
    };
    templates.iter().map(of_template).collect()
}
