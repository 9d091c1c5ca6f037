//! Writes pod statuses: what to send is a pure function of what the API server has and what is planned.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};

use crate::Error;
use crate::labels;

/// Fields of a status that other parties write.
const FOREIGN: [&str; 4] = ["resourceClaimStatuses", "nominatedNodeName", "extendedResourceClaimStatus", "resize"];

/// The strategic merge patch from one status to another; None when nothing differs.
pub fn patch(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let tree = |s: &PodStatus| match serde_json::to_value(s) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (old, new) = (tree(old), tree(new));
    let mut out = Map::new();
    for (key, value) in &new {
        if FOREIGN.contains(&key.as_str()) || old.get(key) == Some(value) {
            continue;
        }
        let mut value = value.clone();
        // Addresses merge by value: without this an old one would stay.
        if matches!(key.as_str(), "podIPs" | "hostIPs")
            && old.contains_key(key)
            && let Value::Array(list) = &mut value
        {
            list.insert(0, json!({"$patch": "replace"}));
        }
        if key == "conditions" {
            forget_fields(old.get(key), &mut value);
        }
        out.insert(key.clone(), value);
    }
    for key in old.keys().filter(|k| !new.contains_key(*k) && !FOREIGN.contains(&k.as_str())) {
        out.insert(key.clone(), Value::Null);
    }
    (!out.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": out}))
}

/// Conditions merge by type: a reason that is no more must be said to be none.
fn forget_fields(old: Option<&Value>, new: &mut Value) {
    for condition in new.as_array_mut().into_iter().flatten() {
        let before = old.and_then(Value::as_array).and_then(|l| l.iter().find(|o| o["type"] == condition["type"]));
        for key in before.and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            if condition.get(key).is_none() {
                condition[key.as_str()] = Value::Null;
            }
        }
    }
}

/// Writes a status. False: the pod is not there any more (or is another one).
pub async fn write(client: &kube::Client, pod: &Pod, old: &PodStatus, new: &PodStatus) -> Result<bool, Error> {
    let (namespace, name, uid) = labels::identity(pod);
    let Some(patch) = patch(uid, old, new) else { return Ok(true) };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    match pods.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_sent() {
        let status = |v: Value| serde_json::from_value::<PodStatus>(v).unwrap();
        let ready = |c: Value| status(json!({"conditions": [c]}));
        let turned = patch(
            "u",
            &ready(json!({"type": "Ready", "status": "False", "reason": "R", "message": "M"})),
            &ready(json!({"type": "Ready", "status": "True"})),
        );
        assert_eq!(turned.unwrap()["status"]["conditions"], json!([{"type": "Ready", "status": "True", "reason": null, "message": null}]));
        let old = status(json!({"phase": "Pending", "reason": "x", "podIPs": [{"ip": "1.1.1.1"}], "resize": "Proposed"}));
        assert_eq!(patch("u", &old, &old), None);
        let new = status(json!({"phase": "Running", "podIPs": [{"ip": "1.1.1.2"}]}));
        let want = json!({"metadata": {"uid": "u"}, "status": {"phase": "Running", "reason": null, "podIPs": [{"$patch": "replace"}, {"ip": "1.1.1.2"}]}});
        assert_eq!(patch("u", &old, &new), Some(want));
    }
}
