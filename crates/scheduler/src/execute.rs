//! What the scheduler writes: bindings, conditions, events, deletions of victims.

use std::sync::Arc;
use std::time::Duration;

use client::{EventRecorder, EventType};
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::ObjectMeta;
use kube::{Client, Resource};
use scheduling::PodInfo;
use scheduling::plugins::dynamic_resources::Plan;
use scheduling::storage::claim_key;
use serde_json::json;

use crate::prebind::{VolumeWrites, release, unreserve, write_claims, write_volumes};

/// How long to wait before a server that gives no answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A decision to carry out.
#[derive(Debug)]
pub enum Effect {
    Bind {
        pod: Arc<PodInfo>,
        node: String,
        /// Claims to reserve first.
        devices: Plan,
        now: Timestamp,
    },
    /// Ask for the volumes the pod needs on its node.
    Volumes { pod: Arc<PodInfo>, node: String, writes: VolumeWrites, devices: Plan },
    /// The pod stays pending: say why, and make room if that helps.
    Tell {
        pod: Arc<PodInfo>,
        reason: &'static str,
        message: String,
        nominate: Option<String>,
        victims: Vec<Arc<PodInfo>>,
        /// A claim (`namespace/name`) whose devices are to be freed.
        free_claim: Option<String>,
        now: Timestamp,
    },
}

/// What came of it.
#[derive(Debug)]
pub enum Outcome {
    /// Written; now the volumes have to come.
    Asked {
        pod: Arc<PodInfo>,
        node: String,
        claims: Vec<String>,
        devices: Plan,
    },
    Bound {
        key: String,
    },
    BindFailed {
        key: String,
        uid: String,
    },
    Told,
}

pub async fn execute(client: Client, recorder: EventRecorder, effect: Effect) -> Outcome {
    match effect {
        Effect::Bind { pod, node, devices, now } => {
            if let Err(error) = write_claims(&client, &pod, &node, &devices, now).await {
                tracing::warn!(pod = pod.key(), node, %error, "resource claims were not reserved");
                release(&client, &pod, &devices).await;
                return failed(&pod);
            }
            let outcome = bind(&client, &recorder, &pod, &node).await;
            if matches!(outcome, Outcome::BindFailed { .. }) {
                release(&client, &pod, &devices).await;
            }
            outcome
        }
        Effect::Volumes { pod, node, writes, devices } => match write_volumes(&client, &pod, &node, &writes).await {
            Ok(()) => {
                let claims = writes.bind.iter().map(|(_, claim)| claim).chain(&writes.provision).map(|c| claim_key(c)).collect();
                Outcome::Asked { pod, node, claims, devices }
            }
            Err(error) => {
                tracing::warn!(pod = pod.key(), node, %error, "volumes were not asked for");
                failed(&pod)
            }
        },
        Effect::Tell { pod, reason, message, nominate, victims, free_claim, now } => {
            if let Some(claim) = free_claim {
                free(&client, &pod, &claim).await;
            }
            recorder.event(&*pod.pod, EventType::Warning, "FailedScheduling", "Scheduling", message.clone());
            for victim in &victims {
                evict(&client, &recorder, &pod, victim, now).await;
            }
            tell(&client, &pod, reason, &message, nominate.as_deref(), now).await;
            Outcome::Told
        }
    }
}

fn failed(pod: &PodInfo) -> Outcome {
    Outcome::BindFailed { key: pod.key(), uid: pod.uid().to_owned() }
}

/// Frees the devices of a claim nobody uses, so that it can be allocated where the pod can go.
async fn free(client: &Client, pod: &PodInfo, claim: &str) {
    let (namespace, name) = claim.split_once('/').unwrap_or(("", claim));
    let api: Api<ResourceClaim> = Api::namespaced(client.clone(), namespace);
    if let Err(error) = unreserve(&api, pod, name, true).await {
        tracing::warn!(claim, %error, "a claim was not freed");
    }
}

async fn bind(client: &Client, recorder: &EventRecorder, pod: &PodInfo, node: &str) -> Outcome {
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(pod.name().to_owned()),
            namespace: Some(pod.namespace().to_owned()),
            uid: Some(pod.uid().to_owned()),
            ..ObjectMeta::default()
        },
        target: ObjectReference { kind: Some("Node".to_owned()), name: Some(node.to_owned()), ..ObjectReference::default() },
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), pod.namespace());
    match api.create_subresource::<_, serde_json::Value>("binding", pod.name(), &PostParams::default(), &binding).await {
        Ok(_) => {
            let note = format!("Successfully assigned {} to {node}", pod.key());
            recorder.event(&*pod.pod, EventType::Normal, "Scheduled", "Binding", note);
            Outcome::Bound { key: pod.key() }
        }
        Err(error) => {
            tracing::warn!(pod = pod.key(), node, %error, "binding failed");
            if may_be_done(&error) && is_bound(&api, pod, node).await { Outcome::Bound { key: pod.key() } } else { failed(pod) }
        }
    }
}

/// A server that failed, or that did not answer, may have written before it did.
fn may_be_done(error: &kube::Error) -> bool {
    !matches!(error, kube::Error::Api(status) if status.code < 500)
}

/// Asks until there is an answer. Meanwhile the pod keeps its room: given away, the node could be overcommitted.
async fn is_bound(api: &Api<Pod>, pod: &PodInfo, node: &str) -> bool {
    loop {
        match api.get(pod.name()).await {
            Ok(now) => {
                return now.metadata.uid.as_deref() == Some(pod.uid()) && now.spec.and_then(|spec| spec.node_name).as_deref() == Some(node);
            }
            Err(error) if !may_be_done(&error) => return false,
            Err(_) => tokio::time::sleep(ASK_AGAIN).await,
        }
    }
}

/// Writes the PodScheduled condition, unless it says the same already.
async fn tell(client: &Client, pod: &PodInfo, reason: &str, message: &str, nominate: Option<&str>, now: Timestamp) {
    let status = pod.pod.status.as_ref();
    let before = status.and_then(|s| s.conditions.as_ref()).and_then(|c| c.iter().find(|c| c.type_ == "PodScheduled"));
    let same = before.is_some_and(|c| c.status == "False" && c.reason.as_deref() == Some(reason) && c.message.as_deref() == Some(message));
    if same && nominate.is_none() {
        return;
    }
    let since = before
        .filter(|c| c.status == "False")
        .and_then(|c| c.last_transition_time.as_ref())
        .map_or_else(|| now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), |t| t.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let mut condition = json!({ "type": "PodScheduled", "status": "False", "reason": reason, "message": message, "lastTransitionTime": since, "lastProbeTime": null });
    if let Some(generation) = pod.pod.metadata.generation {
        condition["observedGeneration"] = json!(generation);
    }
    let mut patch = json!({ "metadata": { "uid": pod.uid() }, "status": { "conditions": [condition] } });
    if let Some(node) = nominate {
        patch["status"]["nominatedNodeName"] = json!(node);
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), pod.namespace());
    match api.patch_status(pod.name(), &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
        Err(error) => tracing::warn!(pod = pod.key(), %error, "the pod's condition was not written"),
    }
}

/// Marks a victim as disrupted and deletes it, if it is still the pod that was looked at.
async fn evict(client: &Client, recorder: &EventRecorder, pod: &PodInfo, victim: &PodInfo, now: Timestamp) {
    let api: Api<Pod> = Api::namespaced(client.clone(), victim.namespace());
    let message = "default-scheduler: preempting to accommodate a higher priority pod";
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": message,
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    let patch = json!({ "metadata": { "uid": victim.uid() }, "status": { "conditions": [condition] } });
    if let Err(error) = api.patch_status(victim.name(), &PatchParams::default(), &Patch::Strategic(patch)).await {
        tracing::warn!(pod = victim.key(), %error, "a victim's condition was not written");
    }
    let exactly = Preconditions { uid: Some(victim.uid().to_owned()), resource_version: None };
    match api.delete(victim.name(), &DeleteParams::default().preconditions(exactly)).await {
        Ok(_) => {
            let note = format!("Preempted by pod {} on node {}", pod.uid(), victim.node_name().unwrap_or(""));
            let regarding = victim.pod.object_ref(&());
            let related = Some(pod.pod.object_ref(&()));
            recorder.record(client::Happening {
                regarding,
                related,
                event_type: EventType::Normal,
                reason: "Preempted".to_owned(),
                action: "Preempting".to_owned(),
                note,
            });
        }
        Err(error) => tracing::warn!(pod = victim.key(), %error, "a victim was not deleted"),
    }
}
