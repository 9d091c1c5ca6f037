//! Kinds that extend the API itself: CustomResourceDefinition and APIService, as far as their names and metadata go (their
//! schemas are judged by what serves custom resources).

use machinery::names::Problems;
use serde_json::{Value, json};

use crate::columns::{age, name};
use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::tree::{at, list, s, set_default};

const NO_KUBE_FINALIZERS: MetaRules = MetaRules { kube_finalizers: false, update_again: true, create_on_update: false };

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or("")
}

pub struct CustomResourceDefinitions;

impl Strategy for CustomResourceDefinitions {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        let Some(names) = object.pointer_mut("/spec/names").filter(|v| v.is_object()) else { return };
        let kind = s(names, "kind").to_owned();
        if !kind.is_empty() {
            set_default(names, "singular", kind.to_lowercase());
            set_default(names, "listKind", format!("{kind}List"));
        }
    }

    fn meta_rules(&self) -> MetaRules {
        NO_KUBE_FINALIZERS
    }

    fn name_problems(&self, object: &Value, name: &str, _prefix: bool) -> Problems {
        let wanted = format!("{}.{}", text(object, "spec.names.plural"), text(object, "spec.group"));
        if name == wanted { Problems::new() } else { vec!["must be spec.names.plural+\".\"+spec.group".into()] }
    }
}

pub struct ApiServices;

impl Strategy for ApiServices {
    fn meta_rules(&self) -> MetaRules {
        NO_KUBE_FINALIZERS
    }

    fn name_problems(&self, object: &Value, name: &str, _prefix: bool) -> Problems {
        let wanted = format!("{}.{}", text(object, "spec.version"), text(object, "spec.group"));
        if name == wanted { Problems::new() } else { vec![format!("must be `spec.version+\".\"+spec.group`: \"{wanted}\"").into()] }
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
