//! `pods/resize`: cpu and memory of running containers, within the pod's quality of service.

use machinery::field::{Error, ErrorList, Path};
use serde_json::{Value, json};

use crate::validate::equal::semantic;
use crate::validate::tree::{at, entries, has, is_empty, keep, list, list_mut, opt, s, set};

use crate::validate::template::MIRROR;
const KINDS: [&str; 2] = ["containers", "initContainers"];

/// The pod as it was, with the resources asked for; as asked where containers were added, removed, moved or renamed, which
/// validation refuses (`dropNonResizeUpdates`).
pub fn prepare(new: &mut Value, old: &Value) {
    let empty = json!({});
    let (ns, os) = (opt(new, "spec").unwrap_or(&empty), opt(old, "spec").unwrap_or(&empty));
    if !KINDS.iter().all(|key| same_order(ns, os, key)) {
        keep(new, old, "status");
        return;
    }
    let asked = std::mem::replace(new, old.clone());
    let Some(spec) = new.get_mut("spec") else { return };
    let wanted = opt(&asked, "spec").unwrap_or(&empty);
    for key in KINDS {
        for (c, asked) in list_mut(spec, key).iter_mut().zip(list(wanted, key)) {
            keep(c, asked, "resources");
            keep(c, asked, "resizePolicy");
        }
    }
    keep(spec, wanted, "resources");
    if let (Some(meta), Some(given)) = (new.get_mut("metadata"), opt(&asked, "metadata")) {
        for key in ["resourceVersion", "uid", "managedFields"] {
            keep(meta, given, key);
        }
    }
}

fn same_order(ns: &Value, os: &Value, key: &str) -> bool {
    let (new, old) = (list(ns, key), list(os, key));
    new.len() == old.len() && new.iter().zip(old).all(|(n, o)| s(n, "name") == s(o, "name"))
}

/// `ValidatePodResize`
pub fn validate(new: &Value, old: &Value) -> ErrorList {
    let alone = |text: &str| vec![Error::forbidden(&Path::new(""), text)];
    let mut e = ErrorList::new();
    super::whole(new, &mut e);
    if at(old, "metadata.annotations").is_some_and(|a| has(a, MIRROR)) {
        return alone("static pods cannot be resized");
    }
    let empty = json!({});
    let (ns, os) = (opt(new, "spec").unwrap_or(&empty), opt(old, "spec").unwrap_or(&empty));
    if opt(os, "os").is_some_and(|os| s(os, "name") == "windows") {
        return alone("windows pods cannot be resized");
    }
    let p = Path::new("spec");
    let known = at(old, "status.qosClass").and_then(Value::as_str).map_or_else(|| super::qos_class(old), str::to_owned);
    if known != super::qos_class(new) {
        e.push(Error::invalid_str(&p, &known, "Pod QOS Class may not change as a result of resizing"));
    }
    if !supported(old) {
        e.push(Error::forbidden(&p, "Pod running on node without support for resize"));
    }
    let mut munged = ns.clone();
    pod_level(ns, os, &mut munged, &p, &mut e);
    if at(old, "status").is_some_and(|st| !is_empty(st, "nodeAllocatableResourceClaimStatuses")) {
        e.push(Error::forbidden(&p, "pods with node allocatable resource claims cannot be resized"));
    }
    if !ordering(ns, os, &p, &mut e) {
        return e;
    }
    containers(ns, os, &mut munged, &p, &mut e);
    if e.is_empty() && !semantic(Some(&munged), Some(os), "core.v1.PodSpec") {
        e.push(Error::forbidden(&p, ONLY));
    }
    e
}

const ONLY: &str = "only cpu and memory resources are mutable";

/// `validatePodLevelResourcesResize`; in `munged`, cpu and memory are put back.
fn pod_level(ns: &Value, os: &Value, munged: &mut Value, p: &Path<'_>, e: &mut ErrorList) {
    const TYPE: &str = "core.v1.ResourceRequirements";
    let set = |spec: &Value| opt(spec, "resources").is_some_and(|r| !is_empty(r, "requests") || !is_empty(r, "limits"));
    if !set(ns) && !set(os) {
        return;
    }
    let own = p.child("resources");
    let before = opt(os, "resources");
    if before.is_some() && !has(ns, "resources") {
        e.push(Error::forbidden(&own, "pod-level resources cannot be removed"));
        return;
    }
    if before.is_some() {
        removed(opt(ns, "resources"), before, "pod-level resource", &own, e);
    }
    put_back(munged, os);
    if before.is_none() && opt(munged, "resources").is_some_and(|r| ["requests", "limits", "claims"].iter().all(|key| is_empty(r, key))) {
        crate::validate::tree::remove(munged, "resources");
    }
    if !semantic(opt(munged, "resources"), before, TYPE) {
        e.push(Error::forbidden(p, format!("{ONLY} at pod-level")));
    }
}

/// A node that can resize says what its running containers have.
fn supported(pod: &Value) -> bool {
    let statuses = at(pod, "status").map_or(&[][..], |st| list(st, "containerStatuses"));
    let running = statuses.iter().find(|c| at(c, "state.running").is_some());
    running.is_none_or(|c| has(c, "resources"))
}

fn ordering(ns: &Value, os: &Value, p: &Path<'_>, e: &mut ErrorList) -> bool {
    let mut fine = true;
    for key in KINDS {
        let (new, old, root) = (list(ns, key), list(os, key), p.child(key));
        if new.len() != old.len() {
            e.push(Error::forbidden(&root, format!("{key} may not be added or removed on resize")));
            fine = false;
            continue;
        }
        for (i, _) in new.iter().zip(old).enumerate().filter(|(_, (n, o))| s(n, "name") != s(o, "name")) {
            e.push(Error::forbidden(&root.index(i).child("name"), format!("{key} may not be renamed or reordered on resize")));
            fine = false;
        }
    }
    fine
}

fn containers(ns: &Value, os: &Value, munged: &mut Value, p: &Path<'_>, e: &mut ErrorList) {
    for key in ["initContainers", "containers"] {
        let root = p.child(key);
        for (i, (new, old)) in list(ns, key).iter().zip(list(os, key)).enumerate() {
            let own = root.index(i);
            removed(opt(new, "resources"), opt(old, "resources"), "resource", &own.child("resources"), e);
        }
    }
    for key in KINDS {
        let root = p.child(key);
        for (i, (c, old)) in list_mut(munged, key).iter_mut().zip(list(os, key)).enumerate() {
            let changed = !semantic(Some(c), Some(old), "core.v1.Container");
            if !has(c, "resources") {
                set(c, "resources", json!({}));
            }
            put_back(c, old);
            // Claims are not put back, nor left.
            if let Some(resources) = c.get_mut("resources") {
                crate::validate::tree::remove(resources, "claims");
            }
            let differs = !semantic(Some(c), Some(old), "core.v1.Container");
            if key == "containers" {
                e.extend(differs.then(|| Error::forbidden(p, ONLY)));
                continue;
            }
            if differs {
                let text = "only cpu and memory resources for init or sidecar containers are mutable";
                e.push(Error::forbidden(&root.index(i), text));
            }
            if changed && s(c, "restartPolicy") != "Always" {
                let restarting = list(c, "resizePolicy").iter().filter(|policy| s(policy, "restartPolicy") == "RestartContainer").count();
                let text = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                e.extend((0..restarting).map(|_| Error::forbidden(&root.index(i), text)));
            }
        }
    }
}

/// What was asked for once cannot be taken back.
fn removed(now: Option<&Value>, before: Option<&Value>, what: &str, p: &Path<'_>, e: &mut ErrorList) {
    let empty = json!({});
    let (now, before) = (now.unwrap_or(&empty), before.unwrap_or(&empty));
    for key in ["requests", "limits"] {
        let left = opt(now, key).unwrap_or(&Value::Null);
        if entries(before, key).any(|(name, _)| left.get(name).is_none()) {
            e.push(Error::forbidden(&p.child(key), format!("{what} {key} cannot be removed")));
        }
    }
}

fn put_back(holder: &mut Value, old: &Value) {
    let Some(resources) = holder.get_mut("resources").filter(|r| r.is_object()) else { return };
    let before = opt(old, "resources").cloned().unwrap_or_default();
    for key in ["requests", "limits"] {
        let then = opt(&before, key).cloned().unwrap_or_default();
        let mut amounts = opt(resources, key).cloned().unwrap_or_else(|| json!({}));
        for name in ["cpu", "memory"] {
            keep(&mut amounts, &then, name);
        }
        if is_empty(&json!({ "v": amounts }), "v") && !has(&before, key) {
            crate::validate::tree::remove(resources, key);
        } else {
            set(resources, key, amounts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(cpu: &str, memory: &str) -> Value {
        json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30, "serviceAccountName": "default",
            "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File",
                "resources": {"requests": {"cpu": cpu, "memory": memory}}}]},
            "status": {"qosClass": "Burstable"}})
    }

    #[test]
    fn cpu_and_memory_move_and_nothing_else() {
        let old = pod("1", "1Gi");
        let mut new = pod("2", "2Gi");
        new["spec"]["containers"][0]["image"] = json!("other");
        prepare(&mut new, &old);
        assert_eq!(new["spec"]["containers"][0]["image"], "i");
        assert_eq!(validate(&new, &old), Vec::new());
        let mut none = pod("2", "2Gi");
        none["spec"]["containers"][0]["resources"] = json!({});
        prepare(&mut none, &old);
        let fields: Vec<String> = validate(&none, &old).iter().map(|e| format!("{}: {}", e.field, e.detail)).collect();
        assert_eq!(
            fields,
            [
                "spec: Pod QOS Class may not change as a result of resizing",
                "spec.containers[0].resources.requests: resource requests cannot be removed"
            ]
        );
    }

    #[test]
    fn nodes_that_cannot_say_so() {
        let (mut old, new) = (pod("1", "1Gi"), pod("2", "1Gi"));
        old["status"]["containerStatuses"] = json!([{"name": "c", "state": {"running": {}}}]);
        assert_eq!(validate(&new, &old).len(), 1);
        old["status"]["containerStatuses"][0]["resources"] = json!({});
        assert_eq!(validate(&new, &old), Vec::new());
    }
}
