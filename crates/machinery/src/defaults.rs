//! Defaults that are plain values: `spec.containers[].terminationMessagePath` is `/dev/termination-log`. The rules come from
//! `kinds`' facts; computed defaults are code in strategies, and custom resources default from their schema (`schema`).

use serde_json::Value;

/// The rules of one kind, as a tree of field names.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    fields: Vec<(String, Node)>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// The value of a missing field.
    value: Option<Value>,
    /// Not a Go pointer: an empty string or a zero counts as missing.
    zero_is_missing: bool,
    /// The fields below are those of the list's items (or of the map's values).
    each: bool,
    below: Defaults,
}

impl Defaults {
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Adds a rule. `path` is dotted; `[]` after a name goes into each item. `zero_is_missing` says that the field is no
    /// pointer in Go, so that its zero is the same as its absence.
    pub fn add(&mut self, path: &str, value: Value, zero_is_missing: bool) {
        let (step, rest) = path.split_once('.').unwrap_or((path, ""));
        let (name, each) = step.strip_suffix("[]").map_or((step, false), |n| (n, true));
        let at = match self.fields.iter().position(|(n, _)| n == name) {
            Some(at) => at,
            None => {
                self.fields.push((name.to_owned(), Node::default()));
                self.fields.len() - 1
            }
        };
        let node = &mut self.fields[at].1;
        if rest.is_empty() {
            node.value = Some(value);
            node.zero_is_missing = zero_is_missing;
        } else {
            node.each |= each;
            node.below.add(rest, value, zero_is_missing);
        }
    }

    /// Copies the rules below `from` of another kind to below `to` of this one: those of a Pod's `spec` to `spec.template.spec`.
    pub fn graft(&mut self, to: &str, source: &Defaults, from: &str, except: &[&str]) {
        let Some(mut source) = source.below(from).cloned() else { return };
        source.fields.retain(|(name, _)| !except.contains(&name.as_str()));
        self.merge(to, source);
    }

    fn below(&self, path: &str) -> Option<&Defaults> {
        path.split('.').try_fold(self, |d, name| d.fields.iter().find(|(n, _)| n == name).map(|(_, node)| &node.below))
    }

    fn merge(&mut self, path: &str, source: Defaults) {
        let (name, rest) = path.split_once('.').unwrap_or((path, ""));
        let at = match self.fields.iter().position(|(n, _)| n == name) {
            Some(at) => at,
            None => {
                self.fields.push((name.to_owned(), Node::default()));
                self.fields.len() - 1
            }
        };
        let below = &mut self.fields[at].1.below;
        if rest.is_empty() {
            // Grafted rules come after and give way to rules of the kind itself.
            for (name, node) in source.fields {
                if !below.fields.iter().any(|(n, existing)| *n == name && existing.each == node.each && existing.value.is_some()) {
                    below.fields.retain(|(n, _)| *n != name);
                    below.fields.push((name, node));
                }
            }
        } else {
            below.merge(rest, source);
        }
    }

    /// Gives missing fields of present parents their values. The object is a decoded one: parents that are not pointers in Go
    /// are there.
    pub fn apply(&self, object: &mut Value) {
        let Value::Object(map) = object else { return };
        for (name, node) in &self.fields {
            if let Some(value) = &node.value {
                match map.get_mut(name) {
                    None => {
                        map.insert(name.clone(), value.clone());
                    }
                    Some(present) if present.is_null() || (node.zero_is_missing && is_zero(present)) => *present = value.clone(),
                    Some(_) => {}
                }
            }
            if node.below.is_empty() {
                continue;
            }
            match map.get_mut(name) {
                Some(Value::Array(items)) if node.each => items.iter_mut().for_each(|item| node.below.apply(item)),
                Some(Value::Object(values)) if node.each => values.values_mut().for_each(|item| node.below.apply(item)),
                Some(child) => node.below.apply(child),
                None => {}
            }
        }
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(s) => s.is_empty(),
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn missing_fields_of_present_parents_get_values() {
        let mut rules = Defaults::default();
        rules.add("spec.replicas", json!(1), false);
        rules.add("spec.containers[].policy", json!("File"), true);
        rules.add("spec.probe.period", json!(10), true);
        let mut object = json!({"spec": {"containers": [{"name": "a"}, {"policy": "X"}, {"policy": ""}]}});
        rules.apply(&mut object);
        assert_eq!(
            object,
            json!({"spec": {"replicas": 1, "containers": [{"name": "a", "policy": "File"}, {"policy": "X"}, {"policy": "File"}]}})
        );
    }

    #[test]
    fn an_absent_object_is_filled_before_what_is_in_it() {
        let mut rules = Defaults::default();
        rules.add("a", json!({}), false);
        rules.add("a.b", json!(0), false);
        let mut object = json!({});
        rules.apply(&mut object);
        assert_eq!(object, json!({"a": {"b": 0}}));
    }

    #[test]
    fn rules_of_a_pod_serve_templates() {
        let mut pod = Defaults::default();
        pod.add("spec.dnsPolicy", json!("ClusterFirst"), true);
        pod.add("spec.enableServiceLinks", json!(true), false);
        let mut deployment = Defaults::default();
        deployment.graft("spec.template.spec", &pod, "spec", &["enableServiceLinks"]);
        let mut object = json!({"spec": {"template": {"spec": {}}}});
        deployment.apply(&mut object);
        assert_eq!(object, json!({"spec": {"template": {"spec": {"dnsPolicy": "ClusterFirst"}}}}));
    }
}
