//! Defaults of a schema, put into an object. Upstream's `structuraldefaulting.Default` and
//! `PruneNonNullableNullsWithoutDefaults`.

use serde_json::Value;

use super::Schema;

impl Schema {
    /// Gives missing fields of present parents their defaults; a null that the schema does not allow counts as missing.
    pub fn default(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (name, property) in &self.properties {
                    let Some(default) = &property.default else { continue };
                    match map.get_mut(name) {
                        None => {
                            map.insert(name.clone(), default.clone());
                        }
                        Some(present) if present.is_null() && !property.nullable => *present = default.clone(),
                        Some(_) => {}
                    }
                }
                for (name, item) in map.iter_mut() {
                    if let Some(property) = self.properties.get(name) {
                        property.default(item);
                    } else if let Some(schema) = self.additional_schema() {
                        schema.default_element(item);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    items.iter_mut().for_each(|item| schema.default_element(item));
                }
            }
            _ => {}
        }
    }

    fn default_element(&self, item: &mut Value) {
        if item.is_null()
            && !self.nullable
            && let Some(default) = &self.default
        {
            *item = default.clone();
        }
        self.default(item);
    }

    /// Drops nulls where the schema allows none and has no default to put in their place.
    pub fn prune_nulls(&self, value: &mut Value) {
        match value {
            Value::Object(map) => map.retain(|name, item| {
                let schema = self.properties.get(name).or_else(|| self.additional_schema());
                let Some(schema) = schema else { return true };
                if item.is_null() {
                    return schema.nullable || schema.default.is_some();
                }
                schema.prune_nulls(item);
                true
            }),
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    items.iter_mut().for_each(|item| schema.prune_nulls(item));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_fill_what_is_missing() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "string", "default": "A"},
            "n": {"type": "string", "default": "N", "nullable": true},
            "x": {"type": "string"},
            "y": {"type": "string", "nullable": true},
            "o": {"type": "object", "properties": {"b": {"type": "integer", "default": 1}}},
            "p": {"type": "object", "default": {}, "properties": {"b": {"type": "integer", "default": 1}}},
            "l": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string", "default": "TCP"}}}},
            "m": {"type": "object", "additionalProperties": {"type": "string", "default": "V"}},
        }});
        let schema = Schema::parse(&schema).unwrap();
        for (given, wanted) in [
            (json!({}), json!({"a": "A", "n": "N", "p": {"b": 1}})),
            (json!({"a": null, "n": null, "x": null, "y": null}), json!({"a": "A", "n": null, "y": null, "p": {"b": 1}})),
            (json!({"a": "", "n": "", "o": {}, "p": {"b": 0}}), json!({"a": "", "n": "", "o": {"b": 1}, "p": {"b": 0}})),
            (
                json!({"l": [{}, {"k": "x"}], "m": {"z": null}, "p": {}}),
                json!({"a": "A", "n": "N", "l": [{"k": "TCP"}, {"k": "x"}], "m": {"z": "V"}, "p": {"b": 1}}),
            ),
        ] {
            let mut object = given.clone();
            schema.prune_nulls(&mut object);
            schema.default(&mut object);
            assert_eq!(object, wanted, "{given}");
        }
    }
}
