//! What else may change in a pod that waits behind scheduling gates: its node selector and node affinity may get narrower.
//! Called by the rules of pod updates.

use machinery::field::{Error, ErrorList, Path};
use serde_json::Value;

use crate::validate::equal::semantic;
use crate::validate::go;
use crate::validate::tree::{at, entries, is_empty, keep, list, opt, remove, set};

/// Puts back what may change, with errors where it changed otherwise.
pub fn munge(out: &mut Value, os: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if entries(out, "nodeSelector").collect::<Vec<_>>() != entries(os, "nodeSelector").collect::<Vec<_>>() {
        node_selector(out, os, p, e);
        keep(out, os, "nodeSelector");
    }
    let old = at(os, "affinity.nodeAffinity").cloned();
    let new = at(out, "affinity.nodeAffinity").cloned();
    if semantic(old.as_ref(), new.as_ref(), "core.v1.NodeAffinity") {
        return;
    }
    node_affinity(new.as_ref(), old.as_ref(), p, e);
    match (opt(out, "affinity"), old) {
        (None, None) => {}
        (None, Some(old)) => set(out, "affinity", serde_json::json!({"nodeAffinity": old})),
        (Some(a), _) if opt(os, "affinity").is_none() && opt(a, "podAffinity").is_none() && opt(a, "podAntiAffinity").is_none() => {
            remove(out, "affinity");
        }
        (Some(_), old) => {
            if let Some(affinity) = out.get_mut("affinity") {
                match old {
                    Some(old) => set(affinity, "nodeAffinity", old),
                    None => remove(affinity, "nodeAffinity"),
                }
            }
        }
    }
}

/// `validateNodeSelectorMutation`
fn node_selector(new: &Value, old: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let now = opt(new, "nodeSelector").unwrap_or(&Value::Null);
    if entries(old, "nodeSelector").any(|(key, value)| now.get(key) != Some(value)) {
        let text = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        e.push(Error::invalid(&p.child("nodeSelector"), now, text));
    }
}

/// `validateNodeAffinityMutation`: terms stay, and only get more requirements.
fn node_affinity(new: Option<&Value>, old: Option<&Value>, p: &Path<'_>, e: &mut ErrorList) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    fn terms(v: Option<&Value>) -> &[Value] {
        v.and_then(|v| opt(v, REQUIRED)).map_or(&[], |r| list(r, "nodeSelectorTerms"))
    }
    let (now, before) = (terms(new), terms(old));
    let (affinity, required) = (p.child("affinity"), REQUIRED);
    let (node, terms_key) = (affinity.child("nodeAffinity"), "nodeSelectorTerms");
    let required = node.child(required);
    let path = required.child(terms_key);
    if !before.is_empty() && before.len() != now.len() {
        let text = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        e.push(go::invalid(&path, &Value::Array(now.to_vec()), "[]core.v1.NodeSelectorTerm", text));
        return;
    }
    for (i, (new, old)) in now.iter().zip(before).enumerate() {
        if !only_additions(new, old) {
            let text = "only additions are allowed (no mutations or deletions)";
            e.push(go::invalid(&path.index(i), new, "core.v1.NodeSelectorTerm", text));
        }
    }
}

fn only_additions(new: &Value, old: &Value) -> bool {
    let keys = ["matchExpressions", "matchFields"];
    if keys.iter().all(|k| is_empty(old, k)) {
        return keys.iter().all(|k| is_empty(new, k));
    }
    keys.iter().all(|k| {
        let (now, before) = (list(new, k), list(old, k));
        now.len() >= before.len() && now.iter().zip(before).all(|(n, o)| semantic(Some(n), Some(o), "core.v1.NodeSelectorRequirement"))
    })
}
