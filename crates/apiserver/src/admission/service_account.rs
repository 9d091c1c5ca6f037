//! A pod runs as a ServiceAccount, which must exist, and gets its token mounted (upstream's `plugin/pkg/admission/serviceaccount`).

use async_trait::async_trait;
use machinery::object::{map_mut, str_at};
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::{Operation, Plugin, Request};
use crate::identifiers;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const MIRROR: &str = "/metadata/annotations/kubernetes.io~1config.mirror";
/// An hour and seven seconds: the extra marks tokens made this way.
const TOKEN_SECONDS: i64 = 3607;

pub struct ServiceAccount;

#[async_trait]
impl Plugin for ServiceAccount {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.is("", "Pod") && request.operation == Operation::Create
    }

    async fn mutate(&self, request: &Request<'_>, value: &mut Value, _old: Option<&Value>) -> Result<(), StatusError> {
        if value.pointer(MIRROR).is_some() {
            return mirror_pod(request, value);
        }
        if str_at(value, "spec.serviceAccountName").is_empty() {
            map_mut(value, "spec").insert("serviceAccountName".into(), json!("default"));
        }
        let name = str_at(value, "spec.serviceAccountName").to_owned();
        map_mut(value, "spec").insert("serviceAccount".into(), json!(name));
        let Some(account) = request.api.read_kind("", "ServiceAccount", request.namespace, &name).await? else {
            let why = format!("error looking up service account {}/{name}: serviceaccount {name:?} not found", request.namespace);
            return Err(request.forbidden(value, &why));
        };
        if should_mount(&account, value) {
            mount(value);
        }
        if value.pointer("/spec/imagePullSecrets").and_then(Value::as_array).is_none_or(Vec::is_empty)
            && let Some(secrets) = account.get("imagePullSecrets").filter(|s| s.as_array().is_some_and(|s| !s.is_empty()))
        {
            map_mut(value, "spec").insert("imagePullSecrets".into(), secrets.clone());
        }
        Ok(())
    }
}

fn mirror_pod(request: &Request<'_>, pod: &Value) -> Result<(), StatusError> {
    if !str_at(pod, "spec.serviceAccountName").is_empty() {
        return Err(request.forbidden(pod, "a mirror pod may not reference service accounts"));
    }
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
    let has_secret = volumes.into_iter().flatten().any(|v| v.get("secret").is_some());
    if has_secret {
        return Err(request.forbidden(pod, "a mirror pod may not reference secrets"));
    }
    Ok(())
}

fn should_mount(account: &Value, pod: &Value) -> bool {
    let pod_says = pod.pointer("/spec/automountServiceAccountToken").and_then(Value::as_bool);
    let account_says = account.get("automountServiceAccountToken").and_then(Value::as_bool);
    pod_says.or(account_says).unwrap_or(true)
}

fn mount(pod: &mut Value) {
    let volume = format!("kube-api-access-{}", identifiers::suffix());
    let mut used = false;
    for list in ["initContainers", "containers"] {
        let containers = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let mounts = container.get("volumeMounts").and_then(Value::as_array).cloned().unwrap_or_default();
            if mounts.iter().any(|m| m["mountPath"] == MOUNT_PATH) || !container.is_object() {
                continue;
            }
            let mut mounts = mounts;
            mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
            container["volumeMounts"] = json!(mounts);
            used = true;
        }
    }
    if !used {
        return;
    }
    let mut volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).cloned().unwrap_or_default();
    volumes.push(json!({"name": volume, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}}));
    map_mut(pod, "spec").insert("volumes".into(), json!(volumes));
}
