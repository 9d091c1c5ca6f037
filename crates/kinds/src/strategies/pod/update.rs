//! What may change in a pod after its creation.

use machinery::field::{Error, ErrorList, Path};
use serde_json::{Value, json};

use super::gated;
use crate::validate::equal::semantic;
use crate::validate::template::{MIRROR, annotation_updates};
use crate::validate::tree::{int, is_empty, keep, list, list_mut, opt, s};

const ONLY: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// `ValidatePodUpdate`.
pub fn spec(new: &Value, old: &Value) -> ErrorList {
    let mut e = ErrorList::new();
    super::whole(new, &mut e);
    annotation_updates(new, old, &mut e);
    let p = Path::new("spec");
    let empty = json!({});
    let (ns, os) = (opt(new, "spec").unwrap_or(&empty), opt(old, "spec").unwrap_or(&empty));
    for key in ["containers", "initContainers"] {
        let at = p.child(key);
        if list(ns, key).len() != list(os, key).len() {
            e.push(Error::forbidden(&at, "pod updates may not add or remove containers"));
            return e;
        }
        for (i, c) in list(ns, key).iter().enumerate() {
            if s(c, "image").is_empty() {
                e.push(Error::required(&at.index(i).child("image"), ""));
            } else if s(c, "image").trim() != s(c, "image") {
                let text = "must not have leading or trailing whitespace";
                e.push(Error::invalid_str(&at.index(i).child("image"), s(c, "image"), text));
            }
        }
    }
    if !deadline(ns, os, &p, &mut e) {
        return e;
    }
    tolerations(ns, os, &p, &mut e);
    gates(ns, os, &p, &mut e);
    if semantic(Some(ns), Some(os), "core.v1.PodSpec") {
        return e;
    }
    let munged = munge(ns, os, &p, &mut e);
    if !semantic(Some(&munged), Some(os), "core.v1.PodSpec") {
        let text = format!("{ONLY}\n{}", crate::validate::go::diff(&munged, os, "core.v1.PodSpec"));
        e.push(Error::forbidden(&p, text));
    }
    e
}

/// False where nothing more is looked at.
fn deadline(ns: &Value, os: &Value, p: &Path<'_>, e: &mut ErrorList) -> bool {
    let at = p.child("activeDeadlineSeconds");
    match (int(ns, "activeDeadlineSeconds"), int(os, "activeDeadlineSeconds")) {
        (Some(n), _) if !(0..=i64::from(i32::MAX)).contains(&n) => {
            e.push(Error::invalid(&at, &json!(n), machinery::names::inclusive_range(0, i64::from(i32::MAX))));
            false
        }
        (Some(n), Some(o)) if n > o => {
            e.push(Error::invalid(&at, &json!(n), "must be less than or equal to previous value"));
            false
        }
        (None, Some(_)) => {
            e.push(Error::invalid(&at, &Value::Null, "must not update from a positive integer to nil value"));
            true
        }
        _ => true,
    }
}

fn gates(ns: &Value, os: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("schedulingGates");
    let old: std::collections::BTreeSet<&str> = list(os, "schedulingGates").iter().map(|g| s(g, "name")).collect();
    for (i, gate) in list(ns, "schedulingGates").iter().enumerate() {
        if !old.contains(&s(gate, "name")) {
            let text = format!("only deletion is allowed, but found new scheduling gate '{}'", s(gate, "name"));
            e.push(Error::forbidden(&at.index(i).child("name"), text));
        }
    }
}

/// `validateOnlyAddedTolerations`
fn tolerations(ns: &Value, os: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (new, old) = (list(ns, "tolerations"), list(os, "tolerations"));
    let except_seconds = |t: &Value| {
        let mut t = t.clone();
        crate::validate::tree::remove(&mut t, "tolerationSeconds");
        t
    };
    let kept = |o: &Value| new.iter().any(|n| semantic(Some(&except_seconds(n)), Some(&except_seconds(o)), "core.v1.Toleration"));
    if old.iter().all(kept) {
        crate::validate::scheduling::tolerations(ns, p, e);
    } else {
        e.push(Error::forbidden(&p.child("tolerations"), "existing toleration can not be modified except its tolerationSeconds"));
    }
}

/// The new spec with all that may change put back.
fn munge(ns: &Value, os: &Value, p: &Path<'_>, e: &mut ErrorList) -> Value {
    let mut out = ns.clone();
    for key in ["containers", "initContainers"] {
        for (c, old) in list_mut(&mut out, key).iter_mut().zip(list(os, key)) {
            keep(c, old, "image");
        }
    }
    for key in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        keep(&mut out, os, key);
    }
    if int(os, "terminationGracePeriodSeconds").is_some_and(|n| n < 0) && int(ns, "terminationGracePeriodSeconds") == Some(1) {
        keep(&mut out, os, "terminationGracePeriodSeconds");
    }
    // serviceAccount mirrors serviceAccountName.
    keep(&mut out, os, "serviceAccount");
    if !is_empty(os, "schedulingGates") {
        gated::munge(&mut out, os, p, e);
    }
    out
}

/// `ValidatePodEphemeralContainersUpdate`: only additions.
pub fn ephemeral(new: &Value, old: &Value) -> ErrorList {
    const TYPE: &str = "core.v1.EphemeralContainer";
    if crate::validate::tree::at(old, "metadata.annotations").is_some_and(|a| crate::validate::tree::has(a, MIRROR)) {
        return vec![Error::forbidden(&Path::new(""), "static pods do not support ephemeral containers")];
    }
    let mut e = ErrorList::new();
    super::whole(new, &mut e);
    annotation_updates(new, old, &mut e);
    let empty = json!({});
    let (ns, os) = (opt(new, "spec").unwrap_or(&empty), opt(old, "spec").unwrap_or(&empty));
    let spec = Path::new("spec");
    let at = spec.child("ephemeralContainers");
    for old in list(os, "ephemeralContainers") {
        let name = machinery::field::go_quote(s(old, "name"));
        match list(ns, "ephemeralContainers").iter().find(|n| s(n, "name") == s(old, "name")) {
            None => e.push(Error::forbidden(&at, format!("existing ephemeral containers {name} may not be removed\n"))),
            Some(n) if !semantic(Some(n), Some(old), TYPE) => {
                let diff = crate::validate::go::diff(n, old, TYPE);
                e.push(Error::forbidden(&at, format!("existing ephemeral containers {name} may not be changed\n{diff}")));
            }
            Some(_) => {}
        }
    }
    e
}
