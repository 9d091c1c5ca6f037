//! Laws of decoding, patching, applying and protobuf that hold for any Deployment-like object and any bytes.
#![expect(clippy::unwrap_used, reason = "tests")]

use kinds::{table, types};
use machinery::apply::{self, ApplyError, Writer};
use machinery::decode::decode;
use machinery::gvk::GroupVersionKind;
use machinery::proto;
use machinery::schema::TypeId;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn deployment() -> TypeId {
    table().type_of(&GroupVersionKind::new("apps", "v1", "Deployment")).unwrap()
}

fn writer(manager: &str) -> Writer<'_> {
    Writer { manager, api_version: "apps/v1", subresource: "", time: "2026-01-01T00:00:00Z", reset_fields: &[] }
}

/// Some labels, some containers with some environment, by name.
fn config() -> impl Strategy<Value = Value> {
    let labels = proptest::collection::btree_map("[a-c]", "[x-z]", 1..3);
    let env = proptest::collection::btree_map("[A-C]", "[x-z]", 1..3);
    let containers = proptest::collection::btree_map("c[1-3]", ("[i-k]", env), 1..3);
    (labels, containers, proptest::option::of(0..5)).prop_map(|(labels, containers, replicas)| {
        let containers: Vec<Value> = containers
            .into_iter()
            .map(|(name, (image, env))| {
                let env: Vec<Value> = env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
                json!({"name": name, "image": image, "env": env})
            })
            .collect();
        let mut spec = json!({"template": {"spec": {"containers": containers}}});
        if let Some(replicas) = replicas {
            spec["replicas"] = json!(replicas);
        }
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": labels}, "spec": spec})
    })
}

fn applied(live: Option<&Value>, config: &Value, manager: &str, force: bool) -> Result<Value, ApplyError> {
    let mut object = apply::apply(types(), deployment(), live, config, &writer(manager), force)?.object;
    assert_eq!(decode(types(), deployment(), &mut object), Ok(Vec::new()));
    Ok(object)
}

fn without_managers(mut object: Value) -> Value {
    object["metadata"].as_object_mut().map(|m| m.remove("managedFields"));
    object
}

/// The order of lists of maps is set aside.
fn unordered(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.into_iter().map(unordered).collect();
            items.sort_by_key(ToString::to_string);
            Value::Array(items)
        }
        Value::Object(map) => Value::Object(map.into_iter().map(|(k, v)| (k, unordered(v))).collect::<Map<_, _>>()),
        other => other,
    }
}

/// Whoever applied second and changed nothing has no time: set times aside too.
fn timeless(mut object: Value) -> Value {
    for entry in object["metadata"]["managedFields"].as_array_mut().into_iter().flatten() {
        entry.as_object_mut().map(|e| e.remove("time"));
    }
    unordered(object)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applying_twice_is_applying_once(config in config()) {
        let once = applied(None, &config, "m", false).unwrap();
        let twice = apply::apply(types(), deployment(), Some(&once), &config, &writer("m"), false).unwrap();
        prop_assert!(twice.unchanged);
        let mut object = twice.object;
        decode(types(), deployment(), &mut object).unwrap();
        prop_assert_eq!(object, once);
    }

    #[test]
    fn giving_everything_up_leaves_nothing(config in config()) {
        let empty = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}});
        let with = applied(None, &config, "m", false).unwrap();
        let without = applied(Some(&with), &empty, "m", false).unwrap();
        prop_assert_eq!(without_managers(without), without_managers(applied(None, &empty, "m", false).unwrap()));
    }

    #[test]
    fn forced_appliers_each_get_their_way(a in config(), b in config()) {
        let first = applied(None, &a, "m1", false).unwrap();
        let both = applied(Some(&first), &b, "m2", true).unwrap();
        // What the second set is there, so it can apply again without a conflict.
        let again = apply::apply(types(), deployment(), Some(&both), &b, &writer("m2"), false).unwrap();
        prop_assert!(again.unchanged);
    }

    #[test]
    fn appliers_that_agree_commute(a in config(), b in config()) {
        let ab = applied(None, &a, "m1", false).and_then(|o| applied(Some(&o), &b, "m2", false));
        let ba = applied(None, &b, "m2", false).and_then(|o| applied(Some(&o), &a, "m1", false));
        match (ab, ba) {
            (Ok(ab), Ok(ba)) => prop_assert_eq!(timeless(ab), timeless(ba)),
            (Err(ApplyError::Conflicts(_)), Err(ApplyError::Conflicts(_))) => {}
            (ab, ba) => prop_assert!(false, "{ab:?}\n{ba:?}"),
        }
    }

    #[test]
    fn an_updater_owns_what_it_changed(a in config(), b in config()) {
        let (mut old, mut new) = (a, b);
        decode(types(), deployment(), &mut old).unwrap();
        decode(types(), deployment(), &mut new).unwrap();
        apply::on_update(types(), deployment(), None, &mut old, &writer("m1"));
        old["metadata"]["uid"] = json!("u");
        new["metadata"]["uid"] = json!("u");
        let unchanged = without_managers(old.clone()) == new;
        apply::on_update(types(), deployment(), Some(&old), &mut new, &writer("m2"));
        if unchanged {
            prop_assert_eq!(&old["metadata"]["managedFields"], &new["metadata"]["managedFields"]);
        }
        // A second, empty update changes nothing, not even a time.
        let mut same = new.clone();
        apply::on_update(types(), deployment(), Some(&new), &mut same, &Writer { time: "2027-01-01T00:00:00Z", ..writer("m3") });
        prop_assert_eq!(same, new);
    }

    #[test]
    fn decoding_twice_is_decoding_once(config in config()) {
        let mut once = config;
        decode(types(), deployment(), &mut once).unwrap();
        let mut twice = once.clone();
        prop_assert_eq!(decode(types(), deployment(), &mut twice), Ok(Vec::new()));
        prop_assert_eq!(&once, &twice);
        let bytes = proto::to_envelope(types(), deployment(), &once);
        let back = proto::from_envelope(types(), &bytes, |_, _| Some(deployment())).unwrap();
        prop_assert_eq!(proto::to_envelope(types(), deployment(), &back), bytes);
    }

    #[test]
    fn no_bytes_make_protobuf_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..400usize) {
        for kind in ["PodList", "ServiceAccountList", "Secret"] {
            let ty = table().type_of(&GroupVersionKind::new("", "v1", kind)).unwrap();
            let _ = proto::from_message(types(), ty, &bytes);
        }
        let crd = table().type_of(&GroupVersionKind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition")).unwrap();
        let _ = proto::from_message(types(), crd, &bytes);
        // A valid message cut short or changed in one place.
        let mut good = proto::to_message(types(), deployment(), &json!({"metadata": {"name": "a", "labels": {"a": "b"}, "creationTimestamp": "2026-01-01T00:00:00Z"}}));
        if let (Some(byte), Some(other)) = (good.get_mut(at), bytes.first()) {
            *byte = *other;
        }
        let _ = proto::from_message(types(), deployment(), &good);
        let _ = proto::open(&bytes);
    }
}

#[test]
fn the_deepest_body_there_can_be_overflows_no_stack() {
    let crd = table().type_of(&GroupVersionKind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition")).unwrap();
    let deep = format!("{}{{}}{}", "{\"not\":".repeat(113), "}".repeat(113));
    let body = format!(
        r#"{{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{{"name":"a"}},"spec":{{"versions":[{{"name":"v1","schema":{{"openAPIV3Schema":{deep}}}}}]}}}}"#
    );
    let mut object = machinery::json::parse(body.as_bytes()).unwrap().value;
    assert_eq!(decode(types(), crd, &mut object), Ok(Vec::new()));
    apply::on_update(types(), crd, None, &mut object, &writer("m"));
    let yaml = machinery::yaml::to_string(&object);
    assert_eq!(machinery::yaml::parse(yaml.as_bytes()).map(|p| p.value), Ok(object.clone()), "YAML may nest as deep");
    let bytes = proto::to_envelope(types(), crd, &object);
    assert_eq!(proto::from_envelope(types(), &bytes, |_, _| Some(crd)), Ok(object.clone()));
    assert!(serde_json::from_str::<Value>(&object.to_string()).is_ok(), "what is accepted can be read back from the store");
    let merged = machinery::patch::merge(&object, body.as_bytes()).unwrap().0;
    assert_eq!(machinery::patch::strategic(types(), crd, &merged, body.as_bytes()).unwrap().0["kind"], "CustomResourceDefinition");
}
