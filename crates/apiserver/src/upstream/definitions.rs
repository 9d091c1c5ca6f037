//! CustomResourceDefinitions as upstream keeps them: in `apiextensions.k8s.io/v1beta1`, which nobody serves any more. What
//! all versions have in common stands outside of them there. Pure.

use serde_json::{Map, Value, json};

pub const API_VERSION: &str = "apiextensions.k8s.io/v1beta1";

/// What is kept once for all versions: its old name, its name in a version, and what is in there.
const COMMON: [(&str, &str); 2] = [("validation", "schema"), ("subresources", "subresources")];

/// The definition in v1.
pub fn to_v1(mut object: Value) -> Value {
    object["apiVersion"] = json!("apiextensions.k8s.io/v1");
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        convert_spec(spec);
    }
    object
}

fn convert_spec(spec: &mut Map<String, Value>) {
    let version = spec.remove("version");
    let mut versions = match spec.remove("versions") {
        Some(Value::Array(versions)) if !versions.is_empty() => versions,
        _ => vec![json!({"name": version.unwrap_or_default(), "served": true, "storage": true})],
    };
    let columns = spec.remove("additionalPrinterColumns");
    let common = COMMON.map(|(old, new)| (new, spec.remove(old)));
    for version in versions.iter_mut().filter_map(Value::as_object_mut) {
        for (name, shared) in &common {
            if let Some(shared) = shared.as_ref().filter(|_| !version.contains_key(*name)) {
                version.insert((*name).to_owned(), shared.clone());
            }
        }
        if let Some(columns) = columns.as_ref().filter(|_| !version.contains_key("additionalPrinterColumns")) {
            version.insert("additionalPrinterColumns".to_owned(), columns.clone());
        }
        for column in version.get_mut("additionalPrinterColumns").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(column) = column.as_object_mut()
                && let Some(path) = column.remove("JSONPath")
            {
                column.insert("jsonPath".to_owned(), path);
            }
        }
    }
    spec.insert("versions".to_owned(), Value::Array(versions));
    // There, not to say so means yes; in v1 no is not said.
    match spec.get("preserveUnknownFields") {
        None => drop(spec.insert("preserveUnknownFields".to_owned(), json!(true))),
        Some(Value::Bool(false)) => drop(spec.remove("preserveUnknownFields")),
        Some(_) => {}
    }
    let conversion = spec.entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
    if let Some(conversion) = conversion.as_object_mut() {
        convert_conversion(conversion);
    }
}

fn convert_conversion(conversion: &mut Map<String, Value>) {
    let (client, reviewed) = (conversion.remove("webhookClientConfig"), conversion.remove("conversionReviewVersions"));
    if conversion.get("strategy").and_then(Value::as_str) != Some("Webhook") {
        return;
    }
    let mut webhook = Map::new();
    if let Some(client) = client {
        webhook.insert("clientConfig".to_owned(), client);
    }
    webhook.insert("conversionReviewVersions".to_owned(), reviewed.unwrap_or_else(|| json!(["v1beta1"])));
    conversion.insert("webhook".to_owned(), Value::Object(webhook));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_versions_share_goes_into_each() {
        let schema = json!({"openAPIV3Schema": {"type": "object"}});
        let kept = json!({"kind": "CustomResourceDefinition", "apiVersion": API_VERSION, "metadata": {"name": "xs.g.io"}, "spec": {
            "group": "g.io", "version": "v1", "names": {"plural": "xs", "kind": "X"}, "scope": "Namespaced",
            "validation": schema, "subresources": {"status": {}}, "preserveUnknownFields": false,
            "additionalPrinterColumns": [{"name": "Age", "type": "date", "JSONPath": ".metadata.creationTimestamp"}],
            "versions": [{"name": "v1", "served": true, "storage": true}, {"name": "v2", "served": true, "storage": false}],
            "conversion": {"strategy": "Webhook", "webhookClientConfig": {"url": "https://x"}, "conversionReviewVersions": ["v1"]}},
            "status": {"storedVersions": ["v1"]}});
        let column = json!([{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]);
        let version = |name: &str, storage: bool| {
            json!({"name": name, "served": true, "storage": storage, "schema": schema, "subresources": {"status": {}},
                "additionalPrinterColumns": column})
        };
        let want = json!({"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1", "metadata": {"name": "xs.g.io"}, "spec": {
            "group": "g.io", "names": {"plural": "xs", "kind": "X"}, "scope": "Namespaced",
            "versions": [version("v1", true), version("v2", false)],
            "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": {"url": "https://x"}, "conversionReviewVersions": ["v1"]}}},
            "status": {"storedVersions": ["v1"]}});
        assert_eq!(to_v1(kept), want);
    }

    #[test]
    fn an_old_definition_of_one_version_is_understood() {
        let kept = json!({"apiVersion": API_VERSION, "spec": {"group": "g.io", "version": "v1alpha1", "scope": "Cluster"}});
        let made = to_v1(kept);
        assert_eq!(made["spec"]["versions"], json!([{"name": "v1alpha1", "served": true, "storage": true}]));
        assert_eq!((&made["spec"]["preserveUnknownFields"], &made["spec"]["conversion"]), (&json!(true), &json!({"strategy": "None"})));
    }
}
