//! CustomResourceDefinitions: defaults, what may be set, and validation, which is [`crate::apiextensions`].

use machinery::field::ErrorList;
use machinery::names::{self, Problems};
use serde_json::{Value, json};

use crate::apiextensions;
use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::tree::{flag, keep, list, s, set, set_default};

pub struct CustomResourceDefinitions;

struct Status;

impl Strategy for CustomResourceDefinitions {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|v| v.is_object()) else { return };
        if let Some(names) = spec.get_mut("names").filter(|v| v.is_object()) {
            let kind = s(names, "kind").to_owned();
            if !kind.is_empty() {
                set_default(names, "singular", kind.to_lowercase());
                set_default(names, "listKind", format!("{kind}List"));
            }
        }
        if let Some(service) = spec.pointer_mut("/conversion/webhook/clientConfig/service").filter(|v| v.is_object()) {
            set_default(service, "port", 443);
        }
        if spec.get("conversion").is_none_or(Value::is_null) {
            set(spec, "conversion", json!({"strategy": "None"}));
        }
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        set(object, "status", json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": null, "storedVersions": null}));
        remember_storage_version(object);
    }

    fn meta_rules(&self) -> MetaRules {
        MetaRules { kube_finalizers: false, update_again: true, create_on_update: false, own: false }
    }

    fn name_problems(&self, object: &Value, name: &str, prefix: bool) -> Problems {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let plural = spec.get("names").map_or("", |names| s(names, "plural"));
        let wanted = format!("{plural}.{}", s(spec, "group"));
        let masked = if prefix { names::mask_trailing_dash(name) } else { name.into() };
        let mut problems = names::dns1123_subdomain(&masked);
        if name != wanted {
            problems.push("must be spec.names.plural+\".\"+spec.group".into());
        }
        problems
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        apiextensions::validate(object)
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep(new, old, "status");
        remember_storage_version(new);
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        apiextensions::validate_update(new, old)
    }

    fn warnings(&self, _ctx: &Context, new: &Value, old: Option<&Value>) -> Vec<String> {
        let before = old.map(apiextensions::unrecognized_formats).unwrap_or_default();
        let found = apiextensions::unrecognized_formats(new);
        found
            .into_iter()
            .filter(|f| !before.contains(f))
            .map(|f| format!("unrecognized format {}", machinery::field::go_quote(&f)))
            .collect()
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&Status as &dyn Strategy)
    }
}

impl Strategy for Status {
    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, _old: &Value) -> ErrorList {
        apiextensions::validate_status_update(new)
    }
}

/// `status.storedVersions` has every version objects were ever stored in.
fn remember_storage_version(object: &mut Value) {
    let versions = object.get("spec").map_or(&[][..], |spec| list(spec, "versions"));
    let Some(name) = versions.iter().find(|v| flag(v, "storage")).map(|v| s(v, "name").to_owned()) else { return };
    let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else { return };
    let stored = status.entry("storedVersions").or_insert(Value::Null);
    match stored {
        Value::Array(all) if all.iter().any(|v| v.as_str() == Some(&name)) => {}
        Value::Array(all) => all.push(Value::from(name)),
        other => *other = json!([name]),
    }
}
