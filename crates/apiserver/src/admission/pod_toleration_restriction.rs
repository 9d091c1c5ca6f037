//! A namespace (or the plugin's configuration) gives its pods tolerations, and says which they may have at all.

use async_trait::async_trait;
use machinery::object::map_mut;
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::configuration::Given;
use super::pods::{containers, written};
use super::{Operation, Plugin, Request};

const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const WHITELIST: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";
const VERSIONS: [&str; 1] = ["podtolerationrestriction.admission.k8s.io/v1alpha1"];

/// Of the whole cluster, for namespaces that say nothing.
pub struct PodTolerationRestriction {
    defaults: Vec<Value>,
    whitelist: Vec<Value>,
}

impl PodTolerationRestriction {
    pub fn new(given: Option<&Given>) -> Result<Self, String> {
        let Some(given) = given else { return Ok(Self { defaults: Vec::new(), whitelist: Vec::new() }) };
        given.expect(&VERSIONS, "Configuration", &["default", "whitelist"])?;
        let list = |key: &str| given.tree.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(Self { defaults: list("default"), whitelist: list("whitelist") })
    }
}

#[async_trait]
impl Plugin for PodTolerationRestriction {
    fn handles(&self, request: &Request<'_>) -> bool {
        written(request)
    }

    async fn mutate(&self, request: &Request<'_>, value: &mut Value, _old: Option<&Value>) -> Result<(), StatusError> {
        let mut all = tolerations(value);
        if request.operation == Operation::Create {
            let defaults = of_namespace(request, DEFAULTS).await?.unwrap_or_else(|| self.defaults.clone());
            all = merge(defaults, all);
        }
        if !is_best_effort(value) {
            all = merge(all, vec![json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"})]);
        }
        if !all.is_empty() {
            map_mut(value, "spec").insert("tolerations".into(), Value::Array(all));
        }
        Ok(())
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, _old: Option<&Value>) -> Result<(), StatusError> {
        let all = tolerations(value);
        if all.is_empty() {
            return Ok(());
        }
        let (whitelist, scope) = match of_namespace(request, WHITELIST).await? {
            Some(own) => (own, "namespace"),
            None => (self.whitelist.clone(), "cluster"),
        };
        if whitelist.is_empty() || all.iter().all(|t| whitelist.iter().any(|allowed| covers(allowed, t))) {
            return Ok(());
        }
        let why = format!("pod tolerations (possibly merged with {scope} default tolerations) conflict with its {scope} whitelist");
        Err(StatusError::internal(why))
    }
}

fn tolerations(pod: &Value) -> Vec<Value> {
    pod.pointer("/spec/tolerations").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// The list in an annotation of the namespace; `None` without one.
async fn of_namespace(request: &Request<'_>, key: &str) -> Result<Option<Vec<Value>>, StatusError> {
    let Some(namespace) = request.api.read_kind("", "Namespace", "", request.namespace).await? else {
        return Err(StatusError::not_found(&machinery::gvk::GroupResource::new("", "namespaces"), request.namespace));
    };
    let Some(text) = namespace["metadata"]["annotations"].get(key).and_then(Value::as_str) else { return Ok(None) };
    if text.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let read = machinery::json::parse(text.as_bytes()).map_err(|e| StatusError::internal(e.to_string()))?;
    match read.value {
        Value::Array(list) => Ok(Some(list)),
        _ => Err(StatusError::internal(format!("annotation {key}: not a list of tolerations"))),
    }
}

/// No container asks for or is bound in CPU or memory.
fn is_best_effort(pod: &Value) -> bool {
    let amounts = |holder: &Value| {
        let of = |key: &str| holder.pointer(&format!("/resources/{key}")).and_then(Value::as_object);
        ["requests", "limits"].into_iter().filter_map(of).flatten().any(|(name, _)| matches!(name.as_str(), "cpu" | "memory"))
    };
    !containers(pod).any(|(_, c)| amounts(c)) && !amounts(&pod["spec"])
}

/// Both lists without what another entry covers.
fn merge(first: Vec<Value>, second: Vec<Value>) -> Vec<Value> {
    let all = [first, second].concat();
    let mut merged: Vec<Value> = Vec::new();
    for (i, one) in all.iter().enumerate() {
        let later = all[i + 1..].iter().any(|other| covers(other, one) && other != one);
        if !later && !merged.iter().any(|other| covers(other, one)) {
            merged.push(one.clone());
        }
    }
    merged
}

/// Whether whatever `one` tolerates `wide` tolerates too (upstream's `isSuperset`).
fn covers(wide: &Value, one: &Value) -> bool {
    let text = |t: &Value, key: &str| t[key].as_str().unwrap_or_default().to_owned();
    let same = |key: &str| text(wide, key) == text(one, key);
    if wide == one {
        return true;
    }
    let everything = text(wide, "key").is_empty() && text(wide, "operator") == "Exists";
    if !same("key") && !everything || !same("effect") && !text(wide, "effect").is_empty() {
        return false;
    }
    if text(wide, "effect") == "NoExecute"
        && let Some(limit) = wide["tolerationSeconds"].as_i64()
        && one["tolerationSeconds"].as_i64().is_none_or(|seconds| seconds > limit)
    {
        return false;
    }
    match text(wide, "operator").as_str() {
        "Exists" => true,
        "Equal" | "" => matches!(text(one, "operator").as_str(), "Equal" | "") && same("value"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_toleration_covers_goes() {
        let all = json!({"operator": "Exists"});
        let a = json!({"key": "a", "operator": "Equal", "value": "1", "effect": "NoSchedule"});
        let a_exists = json!({"key": "a", "operator": "Exists"});
        let short = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
        let long = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9});
        for (wide, one, expected) in [
            (&all, &a, true),
            (&a, &all, false),
            (&a_exists, &a, true),
            (&a, &a_exists, false),
            (&long, &short, true),
            (&short, &long, false),
            (&a, &a, true),
        ] {
            assert_eq!(covers(wide, one), expected, "{wide} {one}");
        }
        assert_eq!(merge(vec![a.clone()], vec![a.clone(), short.clone()]), [a.clone(), short.clone()]);
        assert_eq!(merge(vec![a.clone(), short], vec![a_exists.clone()]), [a_exists]);
    }
}
