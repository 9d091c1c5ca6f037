//! Managed fields kept apart from their object give what they give in its tree, byte for byte, whatever is written by whom.
#![expect(clippy::unwrap_used, reason = "tests")]

use kinds::{table, types};
use machinery::apply::{self, ApplyError, Managers, Writer};
use machinery::decode::decode;
use machinery::gvk::GroupVersionKind;
use machinery::schema::TypeId;
use proptest::prelude::*;
use serde_json::{Value, json};

fn deployment() -> TypeId {
    table().type_of(&GroupVersionKind::new("apps", "v1", "Deployment")).unwrap()
}

#[derive(Clone, Debug)]
struct Write {
    config: Value,
    manager: String,
    second: u8,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    /// A PUT that brings no managed fields.
    Update,
    /// A PUT that brings those there are.
    Echo,
    Status,
    Apply {
        force: bool,
    },
}

fn write() -> impl Strategy<Value = Write> {
    let how = prop_oneof![Just(How::Update), Just(How::Echo), Just(How::Status), any::<bool>().prop_map(|force| How::Apply { force })];
    // More than ten updaters, so that the oldest are merged; and texts that JSON escapes.
    let manager = prop_oneof![4 => "m[0-9a-d]".boxed(), 1 => Just("q\"\\é\u{1}".to_owned()).boxed()];
    (config(), manager, 0..60u8, how).prop_map(|(config, manager, second, how)| Write { config, manager, second, how })
}

fn config() -> impl Strategy<Value = Value> {
    let labels = proptest::collection::btree_map("[a-c\"]", "[x-z]", 0..3);
    let env = proptest::collection::btree_map("[A-C]", "[x-z]", 0..3);
    let containers = proptest::collection::btree_map("c[1-3]", ("[i-k]", env), 1..3);
    let conditions = proptest::collection::btree_map("[P-R]", "(True|False)", 0..3);
    (labels, containers, proptest::option::of(0..5), conditions).prop_map(|(labels, containers, replicas, conditions)| {
        let env = |env: std::collections::BTreeMap<String, String>| -> Vec<Value> {
            env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
        };
        let containers: Vec<Value> =
            containers.into_iter().map(|(name, (image, e))| json!({"name": name, "image": image, "env": env(e)})).collect();
        let conditions: Vec<Value> = conditions.into_iter().map(|(ty, status)| json!({"type": ty, "status": status})).collect();
        let mut spec = json!({"template": {"spec": {"containers": containers}}});
        if let Some(replicas) = replicas {
            spec["replicas"] = json!(replicas);
        }
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "uid": "u", "labels": labels}, "spec": spec,
            "status": {"conditions": conditions, "replicas": replicas}})
    })
}

/// An object both ways.
#[derive(Clone)]
struct Both {
    whole: Value,
    tree: Value,
    managers: Managers,
}

impl Both {
    fn new(mut config: Value) -> Self {
        decode(types(), deployment(), &mut config).unwrap();
        let writer = Writer { manager: "maker", api_version: "apps/v1", subresource: "", time: "2026-01-01T00:00:00Z", reset_fields: &[] };
        config["metadata"].as_object_mut().unwrap().remove("uid");
        apply::on_update(types(), deployment(), None, &mut config, &writer);
        config["metadata"]["uid"] = json!("u");
        let mut tree = config.clone();
        let managers = Managers::take_from(types(), deployment(), &mut tree).unwrap();
        Self { whole: config, tree, managers }
    }

    fn take(&mut self, write: &Write) -> Result<(), ApplyError> {
        let time = format!("2026-01-01T00:00:{:02}Z", write.second);
        let (subresource, reset_fields) = if write.how == How::Status { ("status", ["spec"]) } else { ("", ["status"]) };
        let reset_fields = reset_fields.map(str::to_owned);
        let writer = Writer { manager: &write.manager, api_version: "apps/v1", subresource, time: &time, reset_fields: &reset_fields };
        let mut config = write.config.clone();
        if let How::Apply { force } = write.how {
            config["metadata"].as_object_mut().unwrap().remove("uid");
            let whole = apply::apply(types(), deployment(), Some(&self.whole), &config, &writer, force);
            let apart = apply::apply_apart(types(), deployment(), (&self.tree, &self.managers), &config, &writer, force);
            let (whole, (apart, managers)) = match (whole, apart) {
                (Ok(whole), Ok(apart)) => (whole, apart),
                (Err(whole), Err(apart)) => {
                    assert_eq!(whole, apart);
                    return Err(whole);
                }
                (whole, apart) => panic!("{whole:?}\n{apart:?}"),
            };
            assert_eq!(whole.unchanged, apart.unchanged);
            (self.whole, self.tree, self.managers) = (whole.object, apart.object, managers);
            return Ok(());
        }
        decode(types(), deployment(), &mut config).unwrap();
        if write.how == How::Echo {
            config["metadata"]["managedFields"] = self.whole["metadata"]["managedFields"].clone();
        }
        let (mut whole, mut tree) = (config.clone(), config);
        apply::on_update(types(), deployment(), Some(&self.whole), &mut whole, &writer);
        assert!(self.managers.take_same(&mut tree));
        let managers = apply::on_update_apart(types(), deployment(), (&self.tree, &self.managers), &tree, &writer);
        let next = Both { whole, tree, managers };
        let same = apply::same_but_for_times(&self.whole, &next.whole);
        assert_eq!(same, next.tree == self.tree && next.managers.same_but_for_times(&self.managers));
        *self = next;
        Ok(())
    }

    fn assert_agree(&self) {
        let mut joined = self.tree.clone();
        assert!(joined["metadata"].get("managedFields").is_none());
        self.managers.put_into(&mut joined);
        assert_eq!(joined, self.whole);
        let mut json = Vec::new();
        self.managers.write_json(&mut json);
        let list = self.whole["metadata"].get("managedFields").cloned().unwrap_or_else(|| json!([]));
        assert_eq!(String::from_utf8(json).unwrap(), list.to_string());
        // And what is written is taken out again.
        assert_eq!(Managers::take_from(types(), deployment(), &mut joined).as_ref(), Some(&self.managers));
        assert_eq!(joined, self.tree);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn apart_gives_what_the_tree_gives(first in config(), writes in proptest::collection::vec(write(), 1..25)) {
        let mut both = Both::new(first);
        both.assert_agree();
        for write in &writes {
            // A refusal is the same both ways, and changes nothing.
            let before = both.clone();
            if both.take(write).is_err() {
                both = before;
            }
            both.assert_agree();
        }
    }
}

#[test]
fn what_is_written_otherwise_stays_in_the_tree() {
    let entry = json!({"manager": "m", "operation": "Update", "apiVersion": "apps/v1", "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}});
    let with = |change: &dyn Fn(&mut Value)| {
        let mut list = json!([entry]);
        change(&mut list);
        json!({"metadata": {"name": "a", "managedFields": list}})
    };
    let takes = |object: &Value| {
        let mut taken = object.clone();
        let managers = Managers::take_from(types(), deployment(), &mut taken);
        assert!(managers.is_some() || taken == *object);
        managers.is_some()
    };
    assert!(takes(&with(&|_| {})) && takes(&json!({"metadata": {}})) && takes(&json!({})));
    let odd: [&dyn Fn(&mut Value); 11] = [
        &|list| *list = json!([]),
        &|list| *list = json!({}),
        &|list| list[0] = json!(null),
        &|list| list[0]["operation"] = json!("Create"),
        &|list| list[0]["subresource"] = json!(""),
        &|list| list[0]["more"] = json!(1),
        &|list| drop(list[0].as_object_mut().unwrap().remove("fieldsV1")),
        &|list| list[0]["fieldsV1"] = json!({"f:spec": {".": {}}}),
        &|list| list[0]["fieldsV1"] = json!({"f:spec": null}),
        // Selectors are owned whole.
        &|list| list[0]["fieldsV1"] = json!({"f:spec": {"f:selector": {"f:matchLabels": {}}}}),
        &|list| list.as_array_mut().unwrap().push(entry.clone()),
    ];
    for change in odd {
        let object = with(change);
        assert!(!takes(&object), "{object}");
    }
    // Another order than upstream's.
    let mut applied = entry.clone();
    applied["operation"] = json!("Apply");
    assert!(!takes(&with(&|list| list.as_array_mut().unwrap().push(applied.clone()))));
    assert!(takes(&with(&|list| list.as_array_mut().unwrap().insert(0, applied.clone()))));
}

#[test]
fn managers_a_client_brings_are_known_again() {
    let mut both = Both::new(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"replicas": 1}}));
    for change in [json!([]), json!([{}]), json!({})] {
        let mut given = both.whole.clone();
        given["metadata"]["managedFields"] = change;
        let before = given.clone();
        assert!(!both.managers.take_same(&mut given));
        assert_eq!(given, before);
    }
    let mut later = both.whole.clone();
    later["metadata"]["managedFields"][0]["time"] = json!("2027-01-01T00:00:00Z");
    assert!(!both.managers.take_same(&mut later));
    assert!(both.managers.take_same(&mut both.whole));
    assert_eq!(both.whole, both.tree);
    // To bring an empty list is to ask for something, also of an object without managers.
    let mut reset = json!({"metadata": {"managedFields": []}});
    assert!(!Managers::default().take_same(&mut reset));
}
