//! The downward API: values of `fieldRef` and `resourceFieldRef`, for env and for volumes. Called by env and by the
//! kubelet's downwardAPI volume.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity::{milli, value};

/// What of the node and sandbox a field may show.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub host_ips: Vec<String>,
    pub pod_ips: Vec<String>,
    pub allocatable_milli: BTreeMap<String, i64>,
}

/// Text of a map in the downward volume's form: sorted `key="value"` lines.
fn map_text(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect();
    lines.join("\n")
}

/// The value of a `fieldRef` path.
pub fn field(path: &str, pod: &Pod, facts: &Facts) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let plain = |s: Option<&String>| Ok(s.cloned().unwrap_or_default());
    if let Some((which, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let map = match which {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(format!("invalid subscript in fieldPath: {path}")),
        };
        return plain(map.and_then(|m| m.get(key)));
    }
    match path {
        "metadata.name" => plain(meta.name.as_ref()),
        "metadata.namespace" => plain(meta.namespace.as_ref()),
        "metadata.uid" => plain(meta.uid.as_ref()),
        "metadata.labels" => Ok(map_text(meta.labels.as_ref())),
        "metadata.annotations" => Ok(map_text(meta.annotations.as_ref())),
        "spec.nodeName" => plain(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => plain(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.hostIP" => plain(facts.host_ips.first()),
        "status.hostIPs" => Ok(facts.host_ips.join(",")),
        "status.podIP" => plain(facts.pod_ips.first()),
        "status.podIPs" => Ok(facts.pod_ips.join(",")),
        _ => Err(format!("unsupported fieldPath: {path}")),
    }
}

/// The value of a `resourceFieldRef` for a container: a missing limit is the node's allocatable.
pub fn resource(select: &ResourceFieldSelector, c: &Container, facts: &Facts) -> Result<String, String> {
    let (limits, name) = match select.resource.split_once('.') {
        Some(("limits", name)) => (true, name),
        Some(("requests", name)) => (false, name),
        _ => return Err(format!("unsupported container resource : {}", select.resource)),
    };
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !known {
        return Err(format!("unsupported container resource : {}", select.resource));
    }
    let r = c.resources.as_ref();
    let list = r.and_then(|r| if limits { r.limits.as_ref() } else { r.requests.as_ref() });
    let found = list.and_then(|l| l.get(name)).cloned();
    let quantity = match found {
        Some(q) => q,
        None if limits => Quantity(format!("{}m", facts.allocatable_milli.get(name).copied().unwrap_or(0))),
        None => Quantity("0".to_owned()),
    };
    let divisor = select.divisor.clone().filter(|d| milli(d) > 0).unwrap_or(Quantity("1".to_owned()));
    Ok(divided(&quantity, &divisor, name == "cpu").to_string())
}

/// `ceil(quantity / divisor)`; thousandths matter only for CPU.
fn divided(quantity: &Quantity, divisor: &Quantity, cpu: bool) -> i64 {
    let (a, b) = if cpu { (milli(quantity), milli(divisor)) } else { (value(quantity), value(divisor)) };
    let b = b.max(1);
    a / b + i64::from(a % b > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"b": "2", "a": "x\"y"}},
            "spec": {"containers": [], "nodeName": "n"}}))
        .unwrap();
        let facts = Facts { host_ips: vec!["1.1.1.1".into()], pod_ips: vec!["10.0.0.1".into(), "fd::1".into()], ..Facts::default() };
        for (path, want) in [
            ("metadata.name", Ok("p")),
            ("metadata.labels", Ok("a=\"x\\\"y\"\nb=\"2\"")),
            ("metadata.labels['b']", Ok("2")),
            ("metadata.annotations['none']", Ok("")),
            ("status.podIPs", Ok("10.0.0.1,fd::1")),
            ("status.hostIP", Ok("1.1.1.1")),
            ("spec.nodeName", Ok("n")),
            ("status.phase", Err("unsupported fieldPath: status.phase")),
        ] {
            assert_eq!(field(path, &pod, &facts), want.map(str::to_owned).map_err(str::to_owned), "{path}");
        }
    }

    #[test]
    fn resources() {
        let c: Container =
            serde_json::from_value(json!({"name": "a", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}})).unwrap();
        let facts = Facts { allocatable_milli: BTreeMap::from([("ephemeral-storage".into(), 5000)]), ..Facts::default() };
        let get = |r: &str, d: Option<&str>| {
            let select = ResourceFieldSelector { resource: r.into(), divisor: d.map(|d| Quantity(d.into())), container_name: None };
            resource(&select, &c, &facts)
        };
        assert_eq!(get("limits.cpu", None), Ok("2".into()));
        assert_eq!(get("limits.cpu", Some("1m")), Ok("1500".into()));
        assert_eq!(get("limits.memory", Some("1Mi")), Ok("64".into()));
        assert_eq!(get("requests.cpu", None), Ok("0".into()));
        assert_eq!(get("limits.ephemeral-storage", None), Ok("5".into()));
        assert!(get("limits.gpu", None).is_err());
    }
}
