//! What the API server itself says of a CustomResourceDefinition in its status: accepted names and conditions. Upstream's
//! naming, establishing, non-structural-schema and API-approval controllers, as one pure function.

use std::collections::BTreeSet;

use machinery::field::go_quote;
use serde_json::{Map, Value, json};

use crate::validate::tree::{at, list, opt, s, strings};

/// Keeps a definition until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
const APPROVED: &str = "api-approved.kubernetes.io";

pub fn condition<'a>(definition: &'a Value, kind: &str) -> Option<&'a Value> {
    list(definition.get("status")?, "conditions").iter().find(|c| s(c, "type") == kind)
}

pub fn is_true(definition: &Value, kind: &str) -> bool {
    condition(definition, kind).is_some_and(|c| s(c, "status") == "True")
}

/// Names taken in a group: those the others were given.
#[derive(Default)]
struct Taken<'a> {
    /// Plural, singular and short names live in one space.
    resources: BTreeSet<&'a str>,
    /// As do kinds and list kinds.
    kinds: BTreeSet<&'a str>,
}

impl<'a> Taken<'a> {
    fn by_others(definition: &Value, others: impl Iterator<Item = &'a Value>) -> Self {
        let (name, group) = (own_name(definition), group(definition));
        let mut taken = Self::default();
        for other in others.filter(|o| own_name(o) != name && self::group(o) == group) {
            let Some(names) = at(other, "status.acceptedNames") else { continue };
            taken.resources.extend([s(names, "plural"), s(names, "singular")]);
            taken.resources.extend(strings(names, "shortNames"));
            taken.kinds.extend([s(names, "kind"), s(names, "listKind")]);
        }
        taken.resources.remove("");
        taken.kinds.remove("");
        taken
    }
}

fn own_name(definition: &Value) -> &str {
    definition.get("metadata").map_or("", |m| s(m, "name"))
}

fn group(definition: &Value) -> &str {
    definition.get("spec").map_or("", |spec| s(spec, "group"))
}

/// The status a definition should have, if it should change. `others` are all definitions; `now` is RFC 3339.
pub fn reconcile<'a>(definition: &Value, others: impl Iterator<Item = &'a Value>, now: &str) -> Option<Value> {
    let before = definition.get("status").unwrap_or(&Value::Null);
    let mut changed = json!({"status": before});
    let taken = Taken::by_others(definition, others);
    let (accepted, names, established) = accept(definition, &taken);
    machinery::object::map_mut(&mut changed, "status").insert("acceptedNames".to_owned(), accepted);
    set(&mut changed, &names, now);
    if let Some(established) = established {
        set(&mut changed, &established, now);
    }
    for (kind, wanted) in [("NonStructuralSchema", None), ("KubernetesAPIApprovalPolicyConformant", approval(definition))] {
        match wanted {
            Some(condition) => set(&mut changed, &condition, now),
            None => remove(&mut changed, kind),
        }
    }
    if names_hold(&changed) && !is_true(&changed, "Established") {
        set(&mut changed, &one("Established", "True", "InitialNamesAccepted", "the initial names have been accepted"), now);
    }
    (changed["status"] != *before).then(|| changed["status"].take())
}

fn names_hold(definition: &Value) -> bool {
    is_true(definition, "NamesAccepted")
}

/// Which of the names asked for are given, with the condition that says so, and what that means for being established.
fn accept(definition: &Value, taken: &Taken<'_>) -> (Value, Value, Option<Value>) {
    let nothing = json!({});
    let wanted = at(definition, "spec.names").unwrap_or(&nothing);
    let current = at(definition, "status.acceptedNames").unwrap_or(&nothing);
    let mut accepted = current.as_object().cloned().unwrap_or_default();
    let mut conflict: Option<(&str, String)> = None;
    for (key, reason) in [("plural", "PluralConflict"), ("singular", "SingularConflict")] {
        match refuse(s(wanted, key), s(current, key), &taken.resources) {
            Some(why) => conflict = Some((reason, why)),
            None => put(&mut accepted, key, wanted),
        }
    }
    let (mut refused, mut fine) = (Vec::new(), true);
    for short in strings(wanted, "shortNames") {
        if let Some(why) = refuse(short, if strings(current, "shortNames").any(|c| c == short) { short } else { "" }, &taken.resources) {
            refused.push(why);
            fine = false;
        }
    }
    if fine {
        put(&mut accepted, "shortNames", wanted);
    } else {
        conflict = Some(("ShortNamesConflict", machinery::field::aggregate(&refused)));
    }
    for (key, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        match refuse(s(wanted, key), s(current, key), &taken.kinds) {
            Some(why) => conflict = Some((reason, why)),
            None => put(&mut accepted, key, wanted),
        }
    }
    put(&mut accepted, "categories", wanted);
    for key in ["plural", "kind"] {
        accepted.entry(key).or_insert_with(|| json!(""));
    }
    let condition = match &conflict {
        Some((reason, why)) => one("NamesAccepted", "False", reason, why),
        None => one("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
    };
    // Once established, a definition stays so.
    let established = (conflict.is_some() && !is_true(definition, "Established"))
        .then(|| one("Established", "False", "NotAccepted", "not all names are accepted"));
    (Value::Object(accepted), condition, established)
}

fn refuse(wanted: &str, current: &str, taken: &BTreeSet<&str>) -> Option<String> {
    (wanted != current && taken.contains(wanted)).then(|| format!("{} is already in use", go_quote(wanted)))
}

fn put(accepted: &mut Map<String, Value>, key: &str, wanted: &Value) {
    match opt(wanted, key) {
        Some(value) => drop(accepted.insert(key.to_owned(), value.clone())),
        None => drop(accepted.remove(key)),
    }
}

/// What is to be said of a definition in a protected group.
fn approval(definition: &Value) -> Option<Value> {
    let group = group(definition);
    let protected = ["k8s.io", "kubernetes.io"].iter().any(|g| group == *g || group.ends_with(&format!(".{g}")));
    if !protected {
        return None;
    }
    let kind = "KubernetesAPIApprovalPolicyConformant";
    let annotations = at(definition, "metadata.annotations");
    let value = annotations.map_or("", |a| s(a, APPROVED));
    let said =
        format!("protected groups must have approval annotation {APPROVED:?}, see https://github.com/kubernetes/enhancements/pull/1111");
    Some(if value.is_empty() {
        one(kind, "False", "MissingAnnotation", &said)
    } else if value.starts_with("unapproved") {
        one(kind, "False", "UnapprovedAnnotation", &format!("not approved: {}", go_quote(value)))
    } else if is_url(value) {
        one(kind, "True", "ApprovedAnnotation", &format!("approved in {value}"))
    } else {
        let why = format!(
            "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"
        );
        one(kind, "False", "InvalidAnnotation", &why)
    })
}

fn is_url(text: &str) -> bool {
    machinery::go_url::Url::parse_request_uri(text).is_ok_and(|url| !url.host.is_empty() && !url.scheme.is_empty())
}

/// A condition without its time.
pub fn one(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

/// Sets a condition (upstream's `SetCRDCondition`).
pub fn set(definition: &mut Value, wanted: &Value, now: &str) {
    let status = machinery::object::map_mut(definition, "status");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else { return };
    let Some(found) = conditions.iter_mut().find(|c| s(c, "type") == s(wanted, "type")) else {
        let mut made = wanted.clone();
        made["lastTransitionTime"] = json!(now);
        return conditions.push(made);
    };
    if s(found, "status") != s(wanted, "status") {
        found["lastTransitionTime"] = json!(now);
    }
    for key in ["status", "reason", "message"] {
        found[key] = wanted[key].clone();
    }
}

fn remove(definition: &mut Value, kind: &str) {
    if let Some(conditions) = definition.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
        conditions.retain(|c| s(c, "type") != kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-02T03:04:05Z";

    fn definition(plural: &str, kind: &str, short: &[&str]) -> Value {
        json!({"metadata": {"name": format!("{plural}.g.io")}, "spec": {"group": "g.io",
            "names": {"plural": plural, "kind": kind, "listKind": format!("{kind}List"), "singular": kind.to_lowercase(), "shortNames": short}},
            "status": {"acceptedNames": {"kind": "", "plural": ""}, "conditions": null, "storedVersions": ["v1"]}})
    }

    fn settled(mut one: Value, others: &[Value]) -> Value {
        one["status"] = reconcile(&one, others.iter(), NOW).unwrap();
        assert_eq!(reconcile(&one, others.iter(), NOW), None, "settles at once");
        one
    }

    #[test]
    fn names_are_accepted_and_the_definition_is_established() {
        let one = settled(definition("as", "A", &["x"]), &[]);
        assert!(is_true(&one, "Established") && is_true(&one, "NamesAccepted"));
        assert_eq!(one["status"]["acceptedNames"], one["spec"]["names"]);
        assert_eq!(one["status"]["storedVersions"], json!(["v1"]));
        let kinds: Vec<&str> = list(&one["status"], "conditions").iter().map(|c| s(c, "type")).collect();
        assert_eq!(kinds, ["NamesAccepted", "Established"]);
    }

    #[test]
    fn names_in_use_are_refused() {
        let first = settled(definition("as", "A", &["x"]), &[]);
        let all = [first.clone()];
        let second = settled(definition("bs", "A", &["x", "y"]), &all);
        let names = condition(&second, "NamesAccepted").unwrap();
        assert_eq!(
            (s(names, "status"), s(names, "reason"), s(names, "message")),
            ("False", "ListKindConflict", "\"AList\" is already in use")
        );
        assert_eq!(second["status"]["acceptedNames"], json!({"plural": "bs", "kind": ""}));
        let established = condition(&second, "Established").unwrap();
        assert_eq!((s(established, "status"), s(established, "reason")), ("False", "NotAccepted"));
        // When the first goes, the second gets its names.
        let freed = settled(second, &[]);
        assert!(is_true(&freed, "Established"));
        // An established definition that asks for a name in use keeps what it has.
        let third = settled(definition("cs", "C", &[]), &all);
        let mut greedy = third.clone();
        greedy["spec"]["names"]["kind"] = json!("A");
        let greedy = settled(greedy, &all);
        assert!(is_true(&greedy, "Established") && !is_true(&greedy, "NamesAccepted"));
        assert_eq!(greedy["status"]["acceptedNames"]["kind"], "C");
    }

    #[test]
    fn protected_groups_say_whether_they_were_approved() {
        let mut one = definition("as", "A", &[]);
        one["spec"]["group"] = json!("x.k8s.io");
        for (value, status, reason) in [
            ("https://github.com/kubernetes/kubernetes/pull/1", "True", "ApprovedAnnotation"),
            ("unapproved, experimental", "False", "UnapprovedAnnotation"),
            ("yes", "False", "InvalidAnnotation"),
            ("", "False", "MissingAnnotation"),
        ] {
            one["metadata"]["annotations"] = json!({APPROVED: value});
            let status_now = reconcile(&one, std::iter::empty(), NOW).unwrap();
            let found = list(&status_now, "conditions").iter().find(|c| s(c, "type") == "KubernetesAPIApprovalPolicyConformant").unwrap();
            assert_eq!((s(found, "status"), s(found, "reason")), (status, reason), "{value}");
        }
    }
}
