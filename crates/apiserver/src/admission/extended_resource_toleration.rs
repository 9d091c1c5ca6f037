//! Pods that ask for an extended resource (a GPU, say) tolerate the taint of that name, which keeps other pods off such nodes.

use std::collections::BTreeSet;

use async_trait::async_trait;
use machinery::object::map_mut;
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::pods::{containers, written};
use super::{Plugin, Request};

pub struct ExtendedResourceToleration;

#[async_trait]
impl Plugin for ExtendedResourceToleration {
    fn handles(&self, request: &Request<'_>) -> bool {
        written(request)
    }

    async fn mutate(&self, _request: &Request<'_>, value: &mut Value, _old: Option<&Value>) -> Result<(), StatusError> {
        let asked = containers(value).filter(|(path, _)| !path.contains("ephemeral"));
        let names: BTreeSet<String> = asked
            .flat_map(|(_, c)| c.pointer("/resources/requests").and_then(Value::as_object).into_iter().flatten())
            .map(|(name, _)| name.clone())
            .filter(|name| is_extended(name))
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        let mut all = value.pointer("/spec/tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
        for name in names {
            let toleration = json!({"key": name, "operator": "Exists", "effect": "NoSchedule"});
            if !all.contains(&toleration) {
                all.push(toleration);
            }
        }
        map_mut(value, "spec").insert("tolerations".into(), json!(all));
        Ok(())
    }
}

/// Upstream's `IsExtendedResourceName`: of a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.contains('/')
        && !name.split('/').next().is_some_and(|d| d == "kubernetes.io" || d.ends_with(".kubernetes.io"))
        && !name.starts_with("requests.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_make_a_resource_extended() {
        for (name, extended) in
            [("cpu", false), ("kubernetes.io/x", false), ("a.kubernetes.io/x", false), ("nvidia.com/gpu", true), ("hugepages-2Mi", false)]
        {
            assert_eq!(is_extended(name), extended, "{name}");
        }
    }
}
