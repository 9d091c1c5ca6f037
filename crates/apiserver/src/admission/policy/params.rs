//! Parameters: the objects a binding hands to its policy (upstream's `generic.CollectParams`).

use serde_json::Value;

use super::definition::{Binding, Definition, ParamKind, ParamRef};
use crate::admission::Request;

/// One evaluation per parameter; null stands for none. The error is one of configuration.
pub async fn collect(request: &Request<'_>, policy: &Definition, binding: &Binding) -> Result<Vec<Value>, String> {
    let (Some(kind), Some(reference)) = (&policy.param_kind, &binding.params) else { return Ok(vec![Value::Null]) };
    let found = find(request, kind, reference).await?;
    if found.is_empty() && reference.deny_missing {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found)
}

async fn find(request: &Request<'_>, kind: &ParamKind, reference: &ParamRef) -> Result<Vec<Value>, String> {
    let (group, version) = kind.api_version.split_once('/').unwrap_or(("", &kind.api_version));
    let gvk = machinery::gvk::GroupVersionKind::new(group, version, &kind.kind);
    let Some(row) = request.api.registry.versioned_kind(&gvk) else {
        return Err(format!("failed to find resource referenced by paramKind: '{gvk}'"));
    };
    let namespace = match (row.namespaced, reference.namespace.as_str()) {
        (false, "") => "",
        (false, _) => return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned()),
        (true, "") if request.namespace.is_empty() => {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned());
        }
        (true, "") => request.namespace,
        (true, own) => own,
    };
    let shown = |object: Value| crate::conversion::from_storage(&row, object);
    if !reference.name.is_empty() {
        let found = request.api.read(&row, namespace, &reference.name).await.map_err(|e| e.message)?;
        return Ok(found.map(shown).into_iter().collect());
    }
    let Some(selector) = &reference.selector else { return Err("one of name or selector must be provided".to_owned()) };
    let all = request.api.read_all(group, &kind.kind, namespace).await.map_err(|e| e.message)?;
    Ok(all.into_iter().filter(|object| selector.matches_object(object)).map(shown).collect())
}
