//! APIServices: which groups and versions are served, and by whom.

use machinery::field::{Error, ErrorList, Path};
use machinery::names::{self, Problems};
use serde_json::{Value, json};

use crate::columns::{age, name};
use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::rules::{named, one_of};
use crate::validate::tree::{at, flag, int, int0, keep, list, opt, s, set, set_default};

/// Priorities end here.
const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1_000;

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or("")
}

pub struct ApiServices;

struct Status;

impl Strategy for ApiServices {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        if let Some(service) = object.pointer_mut("/spec/service").filter(|v| v.is_object()) {
            set_default(service, "port", 443);
        }
    }

    fn prepare_for_create(&self, ctx: &Context, object: &mut Value) {
        // What the server itself serves is there at once.
        let status = if at(object, "spec.service").is_none() {
            json!({"conditions": [{
                "lastTransitionTime": ctx.now, "message": "Local APIServices are always available", "reason": "Local", "status": "True",
                "type": "Available",
            }]})
        } else {
            json!({})
        };
        set(object, "status", status);
    }

    fn meta_rules(&self) -> MetaRules {
        MetaRules { kube_finalizers: false, update_again: true, create_on_update: false, own: false }
    }

    fn name_problems(&self, object: &Value, name: &str, prefix: bool) -> Problems {
        let problems = names::path_segment(name, prefix);
        if !problems.is_empty() {
            return problems;
        }
        let segment = machinery::names::path_segment(name, false);
        if !segment.is_empty() {
            return segment;
        }
        let wanted = format!("{}.{}", text(object, "spec.version"), text(object, "spec.group"));
        if name == wanted { Problems::new() } else { vec![format!("must be `spec.version+\".\"+spec.group`: \"{wanted}\"").into()] }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        spec(object.get("spec").unwrap_or(&Value::Null), &Path::new("spec"), &mut errors);
        errors
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&Status as &dyn Strategy)
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let service = at(o, "spec.service").map_or_else(|| "Local".to_owned(), |v| format!("{}/{}", s(v, "namespace"), s(v, "name")));
        let conditions = at(o, "status").map_or(&[][..], |st| list(st, "conditions"));
        let available = conditions.iter().find(|c| s(c, "type") == "Available").map_or_else(
            || "Unknown".to_owned(),
            |c| if s(c, "status") == "True" { "True".to_owned() } else { format!("{} ({})", s(c, "status"), s(c, "reason")) },
        );
        Some(vec![name(o), json!(service), json!(available), age(o, now)])
    }
}

impl Strategy for Status {
    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, _old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let p = Path::new("status");
        let p = p.child("conditions");
        for (index, condition) in new.get("status").map_or(&[][..], |status| list(status, "conditions")).iter().enumerate() {
            one_of(&p.index(index).child("status"), s(condition, "status"), &["False", "True", "Unknown"], &mut errors);
        }
        errors
    }
}

fn spec(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (group, version, bundle) = (s(v, "group"), s(v, "version"), s(v, "caBundle"));
    if group.is_empty() && version != "v1" {
        e.push(Error::required(&p.child("group"), "only v1 may have an empty group and it better be legacy kube"));
    }
    if !group.is_empty() {
        named(&p.child("group"), group, names::dns1123_subdomain(group), e);
    }
    named(&p.child("version"), version, names::dns1035_label(version), e);
    for (key, max) in [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)] {
        let priority = int0(v, key);
        if !(1..=max).contains(&priority) {
            e.push(Error::invalid(&p.child(key), &json!(priority), format!("must be positive and less than {max}")));
        }
    }
    let (insecure, at_insecure) = (flag(v, "insecureSkipTLSVerify"), p.child("insecureSkipTLSVerify"));
    let Some(service) = opt(v, "service") else {
        if !bundle.is_empty() {
            let length = format!("{} bytes", bundle.trim_end_matches('=').len() * 3 / 4);
            e.push(Error::invalid_str(&p.child("caBundle"), &length, "local APIServices may not have a caBundle"));
        }
        if insecure {
            e.push(Error::invalid(&at_insecure, &json!(true), "local APIServices may not have insecureSkipTLSVerify"));
        }
        return;
    };
    let at_service = p.child("service");
    for key in ["namespace", "name"] {
        if s(service, key).is_empty() {
            e.push(Error::required(&at_service.child(key), ""));
        }
    }
    let port = int(service, "port").unwrap_or(443);
    let problems = names::port_number(port);
    if !problems.is_empty() {
        e.push(Error::invalid(&at_service.child("port"), &json!(port), format!("port is not valid: {}", problems.join(", "))));
    }
    if insecure && !bundle.is_empty() {
        e.push(Error::invalid(&at_insecure, &json!(true), "may not be true if caBundle is present"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(spec: Value) -> Vec<String> {
        ApiServices.validate(&Context::default(), &json!({"spec": spec})).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_rule_has_its_text() {
        let service = json!({"namespace": "a", "name": "b"});
        let with = |rest: Value| {
            let mut all = json!({"group": "a.b", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1, "service": service});
            all.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            all
        };
        for (given, wanted) in [
            (json!({}), vec![]),
            (
                json!({"group": "", "version": "v2"}),
                vec!["spec.group: Required value: only v1 may have an empty group and it better be legacy kube"],
            ),
            (json!({"groupPriorityMinimum": 0}), vec!["spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000"]),
            (json!({"versionPriority": 1001}), vec!["spec.versionPriority: Invalid value: 1001: must be positive and less than 1000"]),
            (
                json!({"service": null, "caBundle": "aGk="}),
                vec!["spec.caBundle: Invalid value: \"2 bytes\": local APIServices may not have a caBundle"],
            ),
            (json!({"service": {}}), vec!["spec.service.namespace: Required value", "spec.service.name: Required value"]),
            (
                json!({"insecureSkipTLSVerify": true, "caBundle": "aGk="}),
                vec!["spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present"],
            ),
        ] {
            assert_eq!(errors(with(given.clone())), wanted, "{given}");
        }
    }
}
