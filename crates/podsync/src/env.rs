//! A container's environment: service variables, `envFrom`, `env` with expansion, ConfigMaps, Secrets and the downward
//! API, with upstream's messages (`makeEnvironmentVariables`). Called when a container is about to be created.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret};

use crate::downward::{self, Facts};
use crate::expand::expand;

/// Where the ConfigMaps and Secrets of the pod's namespace are read: None is "does not exist".
pub struct Sources<'a> {
    pub config_map: &'a dyn Fn(&str) -> Option<ConfigMap>,
    pub secret: &'a dyn Fn(&str) -> Option<Secret>,
}

/// Names of the ConfigMaps and Secrets a pod's containers read for their environment.
pub fn references(pod: &Pod) -> (Vec<String>, Vec<String>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    let Some(spec) = &pod.spec else { return (maps, secrets) };
    for c in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        for from in c.env_from.iter().flatten() {
            maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
            secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
        }
        for source in c.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
            secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
        }
    }
    maps.sort();
    maps.dedup();
    secrets.sort();
    secrets.dedup();
    (maps, secrets)
}

/// The environment in the order upstream hands it to the runtime: declared ones, then service variables.
/// An error is the message of `CreateContainerConfigError`.
pub fn environment(
    pod: &Pod,
    c: &Container,
    services: &BTreeMap<String, String>,
    sources: &Sources<'_>,
    facts: &Facts,
) -> Result<Vec<(String, String)>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut result: BTreeMap<String, String> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut set = |result: &mut BTreeMap<String, String>, name: String, value: String| {
        if result.insert(name.clone(), value).is_none() {
            order.push(name);
        }
    };
    for from in c.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(r) = &from.config_map_ref {
            match (sources.config_map)(&r.name) {
                Some(map) => map.data.into_iter().flatten().for_each(|(k, v)| set(&mut result, format!("{prefix}{k}"), v)),
                None if r.optional == Some(true) => {}
                None => return Err(not_found("configmaps", &r.name)),
            }
        } else if let Some(r) = &from.secret_ref {
            match (sources.secret)(&r.name) {
                Some(secret) => {
                    for (k, v) in secret.data.into_iter().flatten() {
                        set(&mut result, format!("{prefix}{k}"), String::from_utf8_lossy(&v.0).into_owned());
                    }
                }
                None if r.optional == Some(true) => {}
                None => return Err(not_found("secrets", &r.name)),
            }
        }
    }
    let mut known: BTreeMap<String, String> = services.clone();
    known.extend(result.clone());
    for var in c.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (Some(v), _) if !v.is_empty() => Some(expand(v, &known)),
            (_, Some(source)) => from_source(source, pod, c, namespace, sources, facts)?,
            (v, None) => Some(v.clone().unwrap_or_default()),
        };
        if let Some(value) = value {
            known.insert(var.name.clone(), value.clone());
            set(&mut result, var.name.clone(), value);
        }
    }
    let mut out: Vec<(String, String)> = order.into_iter().filter_map(|n| result.get(&n).cloned().map(|v| (n, v))).collect();
    out.extend(services.iter().filter(|(k, _)| !result.contains_key(*k)).map(|(k, v)| (k.clone(), v.clone())));
    Ok(out)
}

fn not_found(resource: &str, name: &str) -> String {
    let kind = resource.trim_end_matches('s');
    format!("{kind} {name:?} not found")
}

/// The value of a `valueFrom`; None when an optional reference is missing.
fn from_source(
    source: &EnvVarSource,
    pod: &Pod,
    c: &Container,
    namespace: &str,
    sources: &Sources<'_>,
    facts: &Facts,
) -> Result<Option<String>, String> {
    if let Some(f) = &source.field_ref {
        return downward::field(&f.field_path, pod, facts).map(Some);
    }
    if let Some(r) = &source.resource_field_ref {
        let other = r.container_name.as_deref().filter(|n| !n.is_empty() && *n != c.name);
        let spec = pod.spec.as_ref();
        let found =
            other.and_then(|n| spec.and_then(|s| s.containers.iter().chain(s.init_containers.iter().flatten()).find(|c| c.name == n)));
        return downward::resource(r, found.unwrap_or(c), facts).map(Some);
    }
    if let Some(r) = &source.config_map_key_ref {
        let optional = r.optional == Some(true);
        return match (sources.config_map)(&r.name) {
            None if optional => Ok(None),
            None => Err(not_found("configmaps", &r.name)),
            Some(map) => match map.data.as_ref().and_then(|d| d.get(&r.key)) {
                Some(v) => Ok(Some(v.clone())),
                None if optional => Ok(None),
                None => Err(format!("couldn't find key {} in ConfigMap {namespace}/{}", r.key, r.name)),
            },
        };
    }
    if let Some(r) = &source.secret_key_ref {
        let optional = r.optional == Some(true);
        return match (sources.secret)(&r.name) {
            None if optional => Ok(None),
            None => Err(not_found("secrets", &r.name)),
            Some(secret) => match secret.data.as_ref().and_then(|d| d.get(&r.key)) {
                Some(v) => Ok(Some(String::from_utf8_lossy(&v.0).into_owned())),
                None if optional => Ok(None),
                None => Err(format!("couldn't find key {} in Secret {namespace}/{}", r.key, r.name)),
            },
        };
    }
    Ok(Some(String::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(container: serde_json::Value) -> Result<Vec<(String, String)>, String> {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [container]}})).unwrap();
        let map = |name: &str| (name == "cm").then(|| serde_json::from_value(json!({"data": {"k": "v", "b.c": "d"}})).unwrap());
        let secret = |name: &str| (name == "s").then(|| serde_json::from_value(json!({"data": {"pw": "aGk="}})).unwrap());
        let services = BTreeMap::from([("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned())]);
        let c = pod.spec.as_ref().unwrap().containers[0].clone();
        environment(&pod, &c, &services, &Sources { config_map: &map, secret: &secret }, &Facts::default())
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn everything_in_order() {
        let got = run(json!({"name": "a",
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "X", "value": "$(P_k)-$(KUBERNETES_SERVICE_HOST)-$(NOPE)"},
                {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pw"}}},
                {"name": "Z", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "no", "optional": true}}},
                {"name": "E"}]}));
        let want = pairs(&[
            ("P_b.c", "d"),
            ("P_k", "v"),
            ("X", "v-10.96.0.1-$(NOPE)"),
            ("Y", "hi"),
            ("Z", "p"),
            ("E", ""),
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ]);
        assert_eq!(got, Ok(want));
    }

    #[test]
    fn upstream_texts() {
        let env = |from: serde_json::Value| run(json!({"name": "a", "env": [{"name": "X", "valueFrom": from}]})).unwrap_err();
        assert_eq!(env(json!({"configMapKeyRef": {"name": "nope", "key": "k"}})), "configmap \"nope\" not found");
        assert_eq!(env(json!({"configMapKeyRef": {"name": "cm", "key": "zz"}})), "couldn't find key zz in ConfigMap ns/cm");
        assert_eq!(env(json!({"secretKeyRef": {"name": "s", "key": "zz"}})), "couldn't find key zz in Secret ns/s");
        assert_eq!(env(json!({"secretKeyRef": {"name": "nope", "key": "zz"}})), "secret \"nope\" not found");
    }
}
