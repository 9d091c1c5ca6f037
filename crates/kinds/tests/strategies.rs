//! Laws of every kind's strategy: defaults settle at once, what is valid stays valid when nothing changes, what Go does not print
//! can be taken away at any time, and no object of a kind's type makes its rules panic.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use kinds::{Context, Resource, table, types};
use machinery::gvk::{GroupVersion, GroupVersionKind};
use machinery::schema::{Scalar, Type, TypeId};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Kinds that are never stored.
const NOT_HERE: [&str; 9] = [
    "Binding",
    "ComponentStatus",
    "LocalSubjectAccessReview",
    "SelfSubjectAccessReview",
    "SelfSubjectReview",
    "SelfSubjectRulesReview",
    "SubjectAccessReview",
    "TokenReview",
    "LeaseCandidate",
];

fn context(row: &Resource) -> Context {
    Context { version: row.version.clone(), now: "2026-01-02T03:04:05Z".into(), user: "u".into(), ..Context::default() }
}

fn minimal() -> Vec<(&'static Resource, Value)> {
    let lines = include_str!("minimal.jsonl").lines();
    lines
        .map(|line| {
            let object: Value = serde_json::from_str(line).unwrap();
            let gv = GroupVersion::parse(object["apiVersion"].as_str().unwrap()).unwrap();
            let gvk = GroupVersionKind::new(gv.group, gv.version, object["kind"].as_str().unwrap());
            (&**table().by_kind(&gvk).unwrap(), object)
        })
        .collect()
}

/// As the server makes it, with the errors.
fn created(row: &Resource, mut object: Value) -> (Value, Vec<String>) {
    let ctx = context(row);
    assert_eq!(row.decode(&mut object), Ok(Vec::new()), "{}", row.kind);
    row.defaults.apply(&mut object);
    row.strategy.default(&ctx, &mut object);
    let meta = machinery::object::metadata_mut(&mut object);
    meta.insert("uid".into(), json!("0e7a6a2c-1d3b-4a5e-8f90-123456789abc"));
    meta.insert("creationTimestamp".into(), json!("2026-01-02T03:04:05Z"));
    meta.insert("resourceVersion".into(), json!("1"));
    if row.namespaced {
        meta.insert("namespace".into(), json!("ns"));
    }
    row.strategy.prepare_for_create(&ctx, &mut object);
    let errors = kinds::validate::create(row, &ctx, &object).iter().map(ToString::to_string).collect();
    row.omit(&mut object);
    row.defaults.apply(&mut object);
    row.strategy.default(&ctx, &mut object);
    (object, errors)
}

#[test]
fn every_kind_has_a_minimal_object() {
    let there: BTreeSet<String> = minimal().iter().map(|(row, _)| format!("{}/{}", row.gvk().api_version(), row.kind)).collect();
    let wanted = table().resources().iter().filter(|row| !NOT_HERE.contains(&row.kind.as_str()));
    let missing: Vec<String> =
        wanted.map(|row| format!("{}/{}", row.gvk().api_version(), row.kind)).filter(|k| !there.contains(k)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn what_is_valid_stays_valid_when_nothing_changes() {
    for (row, object) in minimal() {
        let (old, errors) = created(row, object);
        assert_eq!(errors, Vec::<String>::new(), "{} is made", row.kind);
        let ctx = context(row);
        let mut new = old.clone();
        row.decode(&mut new).unwrap();
        row.strategy.prepare_for_update(&ctx, &mut new, &old);
        let errors: Vec<String> = kinds::validate::update(row, &ctx, &new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(errors, Vec::<String>::new(), "{} is put back as it is", row.kind);
        assert!(kinds::validate::equal::content(row, &new, &old), "{}: an update that changes nothing moves no generation", row.kind);
        row.omit(&mut new);
        assert_eq!(new, old, "{} is as it was", row.kind);
        for sub in ["status", "finalize", "approval", "ephemeralcontainers"] {
            let Some(strategy) = row.strategy.subresource(sub) else { continue };
            let mut new = old.clone();
            strategy.prepare_for_update(&ctx, &mut new, &old);
            let errors: Vec<String> =
                kinds::validate::update_with(row, strategy, &ctx, &new, &old).iter().map(ToString::to_string).collect();
            assert_eq!(errors, Vec::<String>::new(), "{}/{sub}", row.kind);
        }
    }
}

/// A change of a minimal object, and the fields that are refused.
#[test]
fn changes_are_refused_where_upstream_refuses_them() {
    for (kind, change, wanted) in [
        ("CSIDriver", json!({"spec": {"attachRequired": false}}), vec!["spec.attachedRequired"]),
        ("CSIDriver", json!({"spec": {"volumeLifecycleModes": ["Ephemeral"]}}), vec!["spec.volumeLifecycleModes"]),
        ("CSIDriver", json!({"spec": {"fsGroupPolicy": "File", "podInfoOnMount": true, "storageCapacity": true}}), vec![]),
        ("StorageClass", json!({"parameters": {}}), vec!["parameters"]),
        ("StorageClass", json!({"mountOptions": ["a"], "allowVolumeExpansion": true}), vec![]),
        ("Pod", json!({"spec": {"os": {"name": ""}}}), vec!["spec.os.name", "spec"]),
    ] {
        let (row, object) = minimal().into_iter().find(|(row, _)| row.kind == kind).unwrap();
        let old = created(row, object).0;
        let mut new = machinery::patch::merge(&old, change.to_string().as_bytes()).unwrap().0;
        row.decode(&mut new).unwrap();
        row.strategy.prepare_for_update(&context(row), &mut new, &old);
        let errors = kinds::validate::update(row, &context(row), &new, &old);
        let fields: Vec<String> = errors.iter().map(|e| e.to_string().split(": ").next().unwrap_or_default().to_owned()).collect();
        assert_eq!(fields, wanted, "{kind} {change}");
    }
}

#[test]
fn defaults_that_only_reading_adds_are_known() {
    let late = |kind: &str, more: Value| {
        let (row, mut object) = minimal().into_iter().find(|(row, _)| row.kind == kind).unwrap();
        object["metadata"].as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        row.strategy.is_defaulted_when_read(&created(row, object).0)
    };
    assert!(late("PersistentVolumeClaim", json!({})) && late("Job", json!({})));
    assert!(!late("Job", json!({"labels": {"a": "b"}})) && !late("ConfigMap", json!({})));
}

/// Where numbers for a tree come from: each choice takes the next.
struct Choices<'a>(std::slice::Iter<'a, u16>);

impl Choices<'_> {
    fn below(&mut self, n: usize) -> usize {
        self.0.next().map_or(0, |c| usize::from(*c) % n.max(1))
    }
}

fn scalar(scalar: Scalar, choices: &mut Choices<'_>) -> Value {
    const WORDS: [&str; 12] = ["", "a", "A-", "é", "10.0.0.1", "::", "TCP", "Always", "50%", "*/5 * * * *", "a/b", "None"];
    let word = WORDS[choices.below(WORDS.len())];
    match scalar {
        Scalar::Bool => json!(choices.below(2) == 1),
        Scalar::Int32 | Scalar::Int64 => json!([-1, 0, 1, 80, i32::MAX][choices.below(5)]),
        Scalar::Uint32 | Scalar::Uint64 => json!(choices.below(100)),
        Scalar::Float32 | Scalar::Float64 => json!(0.5),
        Scalar::Quantity => json!(["-1", "0", "1500m", "1Gi"][choices.below(4)]),
        Scalar::IntOrString => [json!(1), json!("50%"), json!(-5), json!("x")][choices.below(4)].clone(),
        Scalar::Time => json!("2026-01-01T00:00:00Z"),
        Scalar::MicroTime => json!("2026-01-01T00:00:00.000001Z"),
        Scalar::Duration => json!("3s"),
        Scalar::Bytes => json!("eA=="),
        Scalar::FieldsV1 => json!({}),
        Scalar::String => json!(word),
    }
}

/// A value of a type, some fields given, some not.
fn tree(ty: TypeId, depth: usize, choices: &mut Choices<'_>) -> Value {
    match types().get(ty) {
        Type::Scalar(s) => scalar(*s, choices),
        // What is neither of the two forms prints as null, and is gone when read again.
        Type::Either(_) => json!({}),
        Type::Any => [json!({}), json!("x"), json!({"type": "object"})][choices.below(3)].clone(),
        Type::List(list) => Value::Array((0..choices.below(3)).map(|_| tree(list.elem, depth + 1, choices)).collect()),
        Type::Map(map) => {
            let keys = ["a", "cpu", "storage", "é/é"];
            (0..choices.below(3)).map(|i| (keys[(i + choices.below(4)) % 4].to_owned(), tree(map.elem, depth + 1, choices))).collect()
        }
        Type::Struct(s) => {
            let mut out = Map::new();
            for field in &s.fields {
                let given = depth < 9 && (depth == 0 || field.name == "spec" || choices.below(3) == 0);
                if given && !matches!(field.name.as_str(), "kind" | "apiVersion" | "managedFields") {
                    out.insert(field.name.clone(), tree(field.ty, depth + 1, choices));
                }
            }
            Value::Object(out)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_object_of_its_type(seed in proptest::collection::vec(any::<u16>(), 400..2000)) {
        for row in table().resources() {
            let mut choices = Choices(seed.iter());
            let ctx = context(row);
            let mut object = tree(row.ty, 0, &mut choices);
            if row.decode(&mut object).is_err() {
                continue;
            }
            // What was given and is empty goes where decoding without it would have gone.
            let mut printed = object.clone();
            row.omit(&mut printed);
            prop_assert!(!row.has_hollow(&printed));
            let mut plain = object.clone();
            machinery::decode::decode(types(), row.ty, &mut plain).unwrap();
            prop_assert_eq!(&printed, &plain, "{}", row.kind);
            // Defaults settle at once.
            row.defaults.apply(&mut object);
            row.strategy.default(&ctx, &mut object);
            let mut twice = object.clone();
            row.defaults.apply(&mut twice);
            row.strategy.default(&ctx, &mut twice);
            prop_assert_eq!(&object, &twice, "{}", row.kind);
            // Nothing panics.
            let old = twice;
            row.strategy.prepare_for_create(&ctx, &mut object);
            drop(kinds::validate::create(row, &ctx, &object));
            drop(row.strategy.cells(&object, 0));
            drop(row.strategy.warnings(&ctx, &object, Some(&old)));
            let mut new = old.clone();
            row.strategy.prepare_for_update(&ctx, &mut new, &object);
            drop(kinds::validate::update(row, &ctx, &new, &object));
            for sub in ["status", "resize", "ephemeralcontainers", "finalize", "approval"] {
                if let Some(inner) = row.strategy.subresource(sub) {
                    let mut new = old.clone();
                    inner.prepare_for_update(&ctx, &mut new, &object);
                    drop(kinds::validate::update_with(row, inner, &ctx, &new, &object));
                }
            }
        }
    }
}
