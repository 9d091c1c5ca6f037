//! Required anti-affinity may keep pods apart by host alone: wider domains would let one pod close a zone to others.

use async_trait::async_trait;
use machinery::object::str_at;
use machinery::status::StatusError;
use serde_json::Value;

use super::pods::written;
use super::{Plugin, Request};

const HOST: &str = "kubernetes.io/hostname";
const TERMS: &str = "/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution";

pub struct LimitPodHardAntiAffinityTopology;

#[async_trait]
impl Plugin for LimitPodHardAntiAffinityTopology {
    fn handles(&self, request: &Request<'_>) -> bool {
        written(request)
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, _old: Option<&Value>) -> Result<(), StatusError> {
        let mut keys = value.pointer(TERMS).and_then(Value::as_array).into_iter().flatten().map(|term| str_at(term, "topologyKey"));
        match keys.find(|key| *key != HOST) {
            Some(key) => Err(request.forbidden(
                value,
                &format!("affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOST} is allowed"),
            )),
            None => Ok(()),
        }
    }
}
