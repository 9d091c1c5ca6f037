//! Values against their schema, with the order, types and texts of `kube-openapi`'s validator, and what an update need not
//! hold to because it has not touched it (ratcheting, KEP-4008).

use std::collections::BTreeMap;

use serde_json::Value;

use super::check::{invalid_type, plain};
use super::numbers::enum_equal;
use super::trail::Trail;
use super::{Additional, Checks, Kind, ListType, Place, Schema};
use crate::field::{Error, ErrorList, ErrorType, go_marshal, go_quote, go_value};

const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Where errors are: the field path of the whole value, and the way below it.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub place: Place<'a>,
    pub trail: &'a Trail<'a>,
}

impl At<'_> {
    pub fn error(&self, kind: ErrorType, value: String, detail: impl Into<String>) -> Error {
        self.error_below("", kind, value, detail)
    }

    /// An error at a property.
    pub fn error_below(&self, name: &str, kind: ErrorType, value: String, detail: impl Into<String>) -> Error {
        let mut below = self.trail.to_string();
        if !name.is_empty() {
            below.push('.');
            below.push_str(name);
        }
        let below = below.strip_prefix('.').unwrap_or(&below);
        let field = if below.is_empty() { self.place.text() } else { self.place.child(below).text() };
        Error { kind, field, value, detail: detail.into() }
    }
}

/// What was found, and how many checks passed: of several alternatives that fail, the one that came furthest is told of.
#[derive(Default)]
pub(super) struct Outcome {
    pub errors: ErrorList,
    pub passed: u32,
}

impl Outcome {
    fn merge(&mut self, other: Self) {
        self.errors.extend(other.errors);
        self.passed = self.passed.saturating_add(other.passed);
    }

    /// As [`Self::merge`], without errors that are there already.
    fn merge_new(&mut self, other: Self) {
        let fresh: Vec<Error> = other.errors.into_iter().filter(|e| !self.errors.contains(e)).collect();
        self.errors.extend(fresh);
        self.passed = self.passed.saturating_add(other.passed);
    }

    pub fn pass(&mut self) {
        self.passed = self.passed.saturating_add(1);
    }
}

/// The value an update replaces, with the schema that tells which of its parts belong to which new ones.
#[derive(Clone, Copy)]
struct Old<'a> {
    value: &'a Value,
    schema: &'a Schema,
}

impl<'a> Old<'a> {
    fn property(self, name: &str) -> Option<Self> {
        let schema = self.schema.properties.get(name).or_else(|| self.schema.additional_schema())?;
        Some(Self { value: self.value.as_object()?.get(name)?, schema })
    }

    /// The items of an associative list by their keys; nothing else can be told to be the same item.
    fn items(self) -> Option<(&'a Schema, BTreeMap<String, &'a Value>)> {
        let schema = self.schema.items.as_deref().filter(|_| self.schema.list_type == Some(ListType::Map))?;
        let mut items = BTreeMap::new();
        for item in self.value.as_array()? {
            items.entry(Value::Object(self.schema.key_of(item)).to_string()).or_insert(item);
        }
        Some((schema, items))
    }
}

impl Schema {
    /// Everything but metadata of its own that a custom resource must hold to: types and value validations, embedded
    /// resources, list types. `old` is what an update replaces; parts that are as they were may go on being invalid.
    ///
    /// Rules in CEL come after these and are not here: see `kinds`.
    pub fn validate(&self, meta: super::ObjectMeta<'_>, new: &Value, old: Option<&Value>) -> ErrorList {
        let mut errors = self.check(new, old, Place::root());
        errors.extend(self.embedded(meta, new));
        errors.extend(self.lists(new, old));
        errors
    }

    /// Embedded resources alone.
    pub fn embedded(&self, meta: super::ObjectMeta<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        self.check_embedded(meta, object, &Place::root(), &mut errors);
        errors
    }

    /// Lists that are sets and maps alone: an object that broke their rules may go on doing so.
    pub fn lists(&self, new: &Value, old: Option<&Value>) -> ErrorList {
        let found = |object: &Value| {
            let mut errors = ErrorList::new();
            self.check_lists(object, &Place::root(), &mut errors);
            errors
        };
        if old.is_some_and(|old| !found(old).is_empty()) { ErrorList::new() } else { found(new) }
    }

    /// Types and value validations alone (`ValidateCustomResource`). `place` is where the value is.
    pub fn check(&self, new: &Value, old: Option<&Value>, place: Place<'_>) -> ErrorList {
        let old = old.map(|value| Old { value, schema: self });
        self.value(new, old, At { place, trail: &Trail::default() }).errors
    }

    /// A value that is a node of its own, not an alternative of one: what has not changed is not judged.
    fn value(&self, value: &Value, old: Option<Old<'_>>, at: At<'_>) -> Outcome {
        let mut outcome = self.judge(value, old, at);
        if !outcome.errors.is_empty() && old.is_some_and(|old| old.value == value) {
            outcome.errors.clear();
        }
        outcome
    }

    fn judge(&self, value: &Value, old: Option<Old<'_>>, at: At<'_>) -> Outcome {
        let mut out = Outcome::default();
        let checks = self.checks.as_deref();
        out.merge(self.check_type(value, at));
        if value.is_null() {
            out.errors.extend(checks.and_then(|c| check_enum(c, value, at)));
            return out;
        }
        if self.has_type() {
            out.pass();
        }
        if let Some(checks) = checks {
            out.merge_new(combined(checks, value, old, at));
        } else {
            out.pass();
        }
        out.pass();
        match value {
            Value::String(text) => {
                out.merge_new(Outcome { errors: checks.map(|c| super::check::string(c, text, at)).unwrap_or_default(), passed: 1 });
                out.passed += u32::from(self.known_format().is_some());
            }
            Value::Number(number) => {
                let found = checks.map(|c| super::check::number(c, number, at)).unwrap_or_default();
                out.merge_new(Outcome { errors: found, passed: 2 });
            }
            _ => {}
        }
        match value {
            Value::Array(items) => {
                out.merge_new(self.array(items, old, at));
                out.pass();
            }
            Value::Object(map) => {
                out.errors.extend(checks.and_then(|c| check_enum(c, value, at)));
                out.merge_new(self.object(map, old, at));
                out.passed += 2;
            }
            _ => {}
        }
        if !value.is_object() {
            out.errors.extend(checks.and_then(|c| check_enum(c, value, at)));
            out.pass();
        }
        out.pass();
        out
    }

    fn has_type(&self) -> bool {
        self.kind.is_some() || self.int_or_string || self.known_format().is_some()
    }

    fn known_format(&self) -> Option<&str> {
        self.checks.as_ref().map(|c| c.format.as_str()).filter(|f| super::format_is_known(f))
    }

    fn allows(&self, kind: Kind) -> bool {
        if self.int_or_string { matches!(kind, Kind::Integer | Kind::String) } else { self.kind == Some(kind) }
    }

    fn type_names(&self) -> &'static str {
        if self.int_or_string { "integer,string" } else { self.kind.map_or("", Kind::name) }
    }

    fn check_type(&self, value: &Value, at: At<'_>) -> Outcome {
        let fail = |wanted: &str, found: &str| Outcome { errors: vec![invalid_type(at, wanted, found)], passed: 0 };
        let format = self.known_format();
        let typed = self.kind.is_some() || self.int_or_string;
        let (found, found_format) = match value {
            Value::Null if typed && !self.nullable => return fail(self.type_names(), "null"),
            Value::Null => return Outcome { errors: ErrorList::new(), passed: 1 },
            _ if !typed && format.is_none() => return Outcome::default(),
            Value::Bool(_) => (Kind::Boolean, ""),
            Value::String(_) => (Kind::String, ""),
            Value::Array(_) => (Kind::Array, ""),
            Value::Object(_) => (Kind::Object, ""),
            Value::Number(n) if n.as_i64().is_some() => (Kind::Integer, "int64"),
            Value::Number(_) => (Kind::Number, "float64"),
        };
        let whole = matches!(value, Value::Number(n) if super::numbers::is_whole(n.as_f64().unwrap_or(f64::NAN)));
        let number_fits = match found {
            Kind::Number => whole && self.allows(Kind::Integer),
            Kind::Integer => self.allows(Kind::Number),
            _ => false,
        };
        let fits = self.allows(found) || number_fits;
        let text_like = matches!(found, Kind::String | Kind::Array);
        if let Some(format) = format {
            if !text_like && !fits {
                return fail(format, found_format);
            }
            // The format is all that is asked of texts.
            if text_like && !(self.allows(Kind::Number) || self.allows(Kind::Integer)) {
                return Outcome { errors: ErrorList::new(), passed: 1 };
            }
        }
        if fits { Outcome { errors: ErrorList::new(), passed: 1 } } else { fail(self.type_names(), found.name()) }
    }

    fn array(&self, items: &[Value], old: Option<Old<'_>>, at: At<'_>) -> Outcome {
        let mut out = Outcome::default();
        if let Some(schema) = &self.items {
            let before = old.and_then(Old::items);
            for (index, item) in items.iter().enumerate() {
                let trail = at.trail.index(index);
                let old = before.as_ref().and_then(|(schema, found)| {
                    let keys = old.map(|o| Value::Object(o.schema.key_of(item)).to_string())?;
                    Some(Old { value: found.get(&keys)?, schema })
                });
                out.merge(schema.value(item, old, At { trail: &trail, ..at }));
            }
        }
        let Some(checks) = &self.checks else {
            out.pass();
            return out;
        };
        out.errors.extend(super::check::items(checks, items, at));
        out.pass();
        out
    }

    fn object(&self, map: &serde_json::Map<String, Value>, old: Option<Old<'_>>, at: At<'_>) -> Outcome {
        let checks = self.checks.as_deref();
        let mut out = Outcome { errors: checks.map(|c| super::check::property_count(c, map.len(), at)).unwrap_or_default(), passed: 0 };
        let old_of = |name: &str| match at.trail.is_root() && META_FIELDS.contains(&name) {
            true => None,
            false => old.and_then(|o| o.property(name)),
        };
        match &self.additional {
            Some(Additional::Allowed(false)) => {
                for name in map.keys().filter(|name| !self.properties.contains_key(*name)) {
                    let text = format!("{}.{name} in body is a forbidden property", at.trail);
                    out.errors.push(at.error(ErrorType::Invalid, go_quote(name), text));
                }
            }
            Some(Additional::Schema(schema)) => {
                for (name, item) in map.iter().filter(|(name, _)| !self.properties.contains_key(*name)) {
                    let trail = at.trail.entry(name);
                    out.merge(schema.value(item, old_of(name), At { trail: &trail, ..at }));
                }
            }
            Some(Additional::Allowed(true)) | None => {}
        }
        for (name, schema) in &self.properties {
            if let Some(item) = map.get(name) {
                let trail = at.trail.key(name);
                out.merge(schema.value(item, old_of(name), At { trail: &trail, ..at }));
            }
        }
        let required = checks.map_or(&[][..], |c| c.required.as_slice());
        let missing = required.iter().filter(|name| !map.contains_key(*name));
        out.merge_new(Outcome {
            errors: missing.map(|name| at.error_below(name, ErrorType::Required, String::new(), "")).collect(),
            passed: 0,
        });
        out
    }
}

fn check_enum(checks: &Checks, value: &Value, at: At<'_>) -> Option<Error> {
    if checks.enumeration.is_empty() || checks.enumeration.iter().any(|entry| enum_equal(value, entry)) {
        return None;
    }
    let quoted: Vec<String> =
        checks.enumeration.iter().map(|v| go_quote(&v.as_str().map_or_else(|| go_marshal(v), str::to_owned))).collect();
    Some(at.error(ErrorType::NotSupported, go_value(value), format!("supported values: {}", quoted.join(", "))))
}

/// `anyOf`, `oneOf`, `allOf` and `not`, in this order.
fn combined(checks: &Checks, value: &Value, old: Option<Old<'_>>, at: At<'_>) -> Outcome {
    let mut out = Outcome::default();
    let named = go_quote(&at.trail.to_string());
    if !checks.any_of.is_empty() {
        let (valid, best) = alternatives(&checks.any_of, true, value, old, at);
        if valid == 0 {
            out.errors.push(plain(at, format!("{named} must validate at least one schema (anyOf)")));
        }
        out.merge_new(best);
    }
    if !checks.one_of.is_empty() {
        let (valid, best) = alternatives(&checks.one_of, false, value, old, at);
        if valid != 1 {
            let found = if valid == 0 { "Found none valid".to_owned() } else { format!("Found {valid} valid alternatives") };
            out.merge_new(Outcome {
                errors: vec![plain(at, format!("{named} must validate one and only one schema (oneOf). {found}"))],
                passed: 0,
            });
        }
        if valid < 2 {
            out.merge_new(best);
        }
    }
    if !checks.all_of.is_empty() {
        let mut valid = 0;
        for schema in &checks.all_of {
            let outcome = schema.judge(value, old, at);
            valid += usize::from(outcome.errors.is_empty());
            out.merge_new(outcome);
        }
        if valid < checks.all_of.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            out.merge_new(Outcome { errors: vec![plain(at, format!("{named} must validate all the schemas (allOf){none}"))], passed: 0 });
        }
    }
    if checks.not.as_ref().is_some_and(|schema| schema.judge(value, old, at).errors.is_empty()) {
        out.merge_new(Outcome { errors: vec![plain(at, format!("{named} must not validate the schema (not)"))], passed: 0 });
    }
    out.pass();
    out
}

/// How many alternatives a value satisfies, and the outcome to go on with: the first that holds, else the one that came furthest.
fn alternatives(schemas: &[Schema], first_is_enough: bool, value: &Value, old: Option<Old<'_>>, at: At<'_>) -> (usize, Outcome) {
    let (mut valid, mut success, mut failure): (usize, Option<Outcome>, Option<Outcome>) = (0, None, None);
    for schema in schemas {
        let outcome = schema.judge(value, old, at);
        if outcome.errors.is_empty() {
            valid += 1;
            success.get_or_insert(outcome);
            if first_is_enough {
                break;
            }
        } else if valid == 0 && failure.as_ref().is_none_or(|best| outcome.passed > best.passed) {
            failure = Some(outcome);
        }
    }
    (valid, success.or(failure).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: &Value, value: &Value) -> Vec<String> {
        Schema::parse(schema).unwrap().check(value, None, Place::root()).iter().map(ToString::to_string).collect()
    }

    /// A property `a` of this schema with this value.
    fn errors(schema: Value, value: Value) -> Vec<String> {
        check(&json!({"type": "object", "properties": {"a": schema}}), &json!({"a": value}))
    }

    #[test]
    fn every_keyword_has_upstreams_text() {
        let int = |rest: Value| {
            let mut schema = json!({"type": "integer"});
            schema.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            schema
        };
        for (schema, value, wanted) in [
            (json!({"type": "string"}), json!(1), "a: Invalid value: \"integer\": a in body must be of type string: \"integer\""),
            (json!({"type": "string"}), json!(null), "a: Invalid value: \"null\": a in body must be of type string: \"null\""),
            (json!({"type": "string"}), json!([]), "a: Invalid value: \"array\": a in body must be of type string: \"array\""),
            (json!({"type": "integer"}), json!(1.5), "a: Invalid value: \"number\": a in body must be of type integer: \"number\""),
            (
                json!({"x-kubernetes-int-or-string": true}),
                json!(true),
                "a: Invalid value: \"boolean\": a in body must be of type integer,string: \"boolean\"",
            ),
            (json!({"type": "string", "maxLength": 2}), json!("abc"), "a: Too long: may not be more than 2 bytes"),
            (
                json!({"type": "string", "minLength": 2}),
                json!("\u{e9}"),
                "a: Invalid value: \"\u{e9}\": a in body should be at least 2 chars long",
            ),
            (json!({"type": "string", "pattern": "^b"}), json!("a"), "a: Invalid value: \"a\": a in body should match '^b'"),
            (
                json!({"type": "string", "format": "date-time"}),
                json!("x"),
                "a: Invalid value: \"x\": a in body must be of type date-time: \"x\"",
            ),
            (json!({"type": "string", "enum": ["x", "y"]}), json!("z"), "a: Unsupported value: \"z\": supported values: \"x\", \"y\""),
            (int(json!({"enum": [1, 2]})), json!(3), "a: Unsupported value: 3: supported values: \"1\", \"2\""),
            (int(json!({"maximum": 5})), json!(6), "a: Invalid value: 6: a in body should be less than or equal to 5"),
            (int(json!({"maximum": 5, "exclusiveMaximum": true})), json!(5), "a: Invalid value: 5: a in body should be less than 5"),
            (int(json!({"minimum": 5})), json!(4), "a: Invalid value: 4: a in body should be greater than or equal to 5"),
            (int(json!({"minimum": 5, "exclusiveMinimum": true})), json!(5), "a: Invalid value: 5: a in body should be greater than 5"),
            (int(json!({"multipleOf": 3})), json!(4), "a: Invalid value: 4: a in body should be a multiple of 3"),
            (json!({"type": "number", "multipleOf": 0.5}), json!(1.3), "a: Invalid value: 1.3: a in body should be a multiple of 0.5"),
            (json!({"type": "number", "maximum": 1.5}), json!(2.5), "a: Invalid value: 2.5: a in body should be less than or equal to 1.5"),
            (json!({"type": "array", "maxItems": 1}), json!([1, 2]), "a: Too many: 2: must have at most 1 item"),
            (json!({"type": "array", "minItems": 1}), json!([]), "a: Invalid value: 0: a in body should have at least 1 items"),
            (
                json!({"type": "array", "uniqueItems": true}),
                json!([1, 1]),
                "a: Invalid value: \"\": a in body shouldn't contain duplicates",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}}),
                json!(["x", 1]),
                "a[1]: Invalid value: \"integer\": a[1] in body must be of type string: \"integer\"",
            ),
            (json!({"type": "object", "maxProperties": 1}), json!({"x": 1, "y": 2}), "a: Too many: 2: must have at most 1 item"),
            (json!({"type": "object", "minProperties": 1}), json!({}), "a: Invalid value: 0: a in body should have at least 1 properties"),
            (json!({"type": "object", "required": ["x"]}), json!({}), "a.x: Required value"),
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}}),
                json!({"k.l": 1}),
                "a.k.l: Invalid value: \"integer\": a.k.l in body must be of type string: \"integer\"",
            ),
            (
                json!({"type": "object", "additionalProperties": false}),
                json!({"k": 1}),
                "a: Invalid value: \"k\": a.k in body is a forbidden property",
            ),
            (
                json!({"type": "object", "not": {"required": ["x"]}}),
                json!({"x": 1}),
                "<nil>: Invalid value: \"\": \"a\" must not validate the schema (not)",
            ),
        ] {
            assert_eq!(errors(schema.clone(), value.clone()), [wanted], "{schema} {value}");
        }
    }

    #[test]
    fn what_holds_says_nothing() {
        for (schema, value) in [
            (json!({"type": "integer"}), json!(1.0)),
            (json!({"type": "number"}), json!(1)),
            (json!({"type": "string", "nullable": true}), json!(null)),
            (json!({"type": "integer", "format": "int32"}), json!(5_000_000_000_i64)),
            (json!({"x-kubernetes-int-or-string": true}), json!("x")),
            (json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}), json!(1)),
            (json!({"x-kubernetes-preserve-unknown-fields": true}), json!({"x": [1, null]})),
            (json!({"type": "object", "additionalProperties": true}), json!({"x": 1})),
            (json!({"type": "string", "format": "unheard-of"}), json!("x")),
        ] {
            assert!(errors(schema.clone(), value.clone()).is_empty(), "{schema} {value}");
        }
    }

    #[test]
    fn alternatives_tell_of_the_one_that_came_furthest() {
        let any = json!({"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}, "anyOf": [
            {"required": ["x"], "properties": {"x": {"maximum": 1}}}, {"required": ["y"]},
        ]});
        assert_eq!(
            errors(any.clone(), json!({"x": 2})),
            [
                "<nil>: Invalid value: \"\": \"a\" must validate at least one schema (anyOf)",
                "a.x: Invalid value: 2: a.x in body should be less than or equal to 1"
            ]
        );
        assert!(errors(any, json!({"x": 2, "y": 1})).is_empty());
        let one = json!({"type": "object", "oneOf": [{"required": ["x"]}, {"required": ["y"]}]});
        assert_eq!(
            errors(one.clone(), json!({"x": 1, "y": 1})),
            ["<nil>: Invalid value: \"\": \"a\" must validate one and only one schema (oneOf). Found 2 valid alternatives"]
        );
        assert_eq!(
            errors(one, json!({})),
            ["<nil>: Invalid value: \"\": \"a\" must validate one and only one schema (oneOf). Found none valid", "a.x: Required value"]
        );
        let all = json!({"type": "object", "allOf": [{"required": ["x"]}, {"required": ["y"]}]});
        assert_eq!(
            errors(all, json!({"x": 1})),
            ["a.y: Required value", "<nil>: Invalid value: \"\": \"a\" must validate all the schemas (allOf)"]
        );
    }

    #[test]
    fn all_that_is_wrong_is_told_of() {
        let schema = json!({"type": "object", "minProperties": 2, "required": ["b"], "properties": {"a": {"type": "string"}}});
        let wanted = [
            "a: Invalid value: 1: a in body should have at least 2 properties",
            "a.a: Invalid value: \"integer\": a.a in body must be of type string: \"integer\"",
            "a.b: Required value",
        ];
        assert_eq!(errors(schema, json!({"a": 1})), wanted);
        let schema = json!({"type": "string", "enum": [{"<": 1.0}]});
        assert_eq!(errors(schema, json!("x")), ["a: Unsupported value: \"x\": supported values: \"{\\\"\\\\u003c\\\":1}\""]);
    }

    #[test]
    fn the_root_has_no_name() {
        let schema = json!({"type": "object", "required": ["spec"], "minProperties": 1});
        assert_eq!(check(&schema, &json!({"x": 1})), ["spec: Required value"]);
        assert_eq!(
            check(&schema, &json!({})),
            ["<nil>: Invalid value: 0:  in body should have at least 1 properties", "spec: Required value"]
        );
    }

    #[test]
    fn what_an_update_leaves_alone_is_not_judged() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {
            "a": {"type": "string", "maxLength": 1}, "b": {"type": "string"},
            "atomic": {"type": "array", "items": {"type": "string", "maxLength": 1}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
                "type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "string", "maxLength": 1}, "w": {"type": "string"}},
            }},
        }}))
        .unwrap();
        let old = json!({"a": "long", "b": "x", "atomic": ["long"], "map": [{"k": "1", "v": "long"}]});
        let fields = |new: Value| schema.check(&new, Some(&old), Place::root()).into_iter().map(|e| e.field).collect::<Vec<_>>();
        assert!(fields(json!({"a": "long", "b": "y", "atomic": ["long"], "map": [{"k": "1", "v": "long", "w": "new"}]})).is_empty());
        assert_eq!(fields(json!({"a": "longer"})), ["a"]);
        assert_eq!(fields(json!({"atomic": ["long", "y"]})), ["atomic[0]"]);
        assert_eq!(fields(json!({"map": [{"k": "2", "v": "long"}, {"k": "1", "v": "long", "w": "z"}]})), ["map[0].v"]);
    }
}
