//! YAML 1.1 as Go reads it: `yes` is a boolean, `0644` is octal, a repeated key is noticed and the last one counts.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::options::DuplicateKeyPolicy;

const ALIAS_EVENTS_MAX: usize = 100_000;

/// Less than JSON may nest: the YAML reader needs some 20 KB of stack per level in a build without optimisation.
const DEPTH_MAX: usize = 72;

/// A document; `strict` holds a text per repeated key: `line 3: key "kind" already set in map`.
#[derive(Debug, PartialEq)]
pub struct Parsed {
    pub value: Value,
    pub strict: Vec<String>,
}

/// Why a text is no YAML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error converting YAML to JSON: yaml: {0}")]
pub struct YamlError(String);

/// Reads one document. An empty one is null.
pub fn parse(bytes: &[u8]) -> Result<Parsed, YamlError> {
    let text = std::str::from_utf8(bytes).map_err(|_| YamlError("invalid leading UTF-8 octet".to_owned()))?;
    let duplicates = RefCell::new(Vec::new());
    let mut options = serde_saphyr::Options::default();
    options.duplicate_keys = DuplicateKeyPolicy::LastWins;
    options.legacy_octal_numbers = true;
    let mut budget = serde_saphyr::Budget::default();
    budget.max_depth = DEPTH_MAX;
    options.budget = Some(budget);
    // What aliases may expand to, so that a small body makes no large tree.
    options.alias_limits.max_total_replayed_events = ALIAS_EVENTS_MAX;
    let seed = Node { duplicates: &duplicates, depth: 0 };
    let result = serde_saphyr::with_deserializer_from_str_with_options(text, options, |d| seed.deserialize(d));
    match result {
        Ok(value) => Ok(Parsed { value, strict: duplicates.into_inner() }),
        Err(error) => {
            let line = error.location().map_or(1, |l| l.line());
            Err(YamlError(format!("line {line}: did not find expected node content")))
        }
    }
}

#[derive(Clone, Copy)]
struct Node<'a> {
    duplicates: &'a RefCell<Vec<String>>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML node")
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(Value::from(n))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(Value::from(n))
    }

    /// A whole float is an integer once Go has written it as JSON.
    fn visit_f64<E: serde::de::Error>(self, x: f64) -> Result<Value, E> {
        #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
        if x.fract() == 0.0 && x.abs() < 1e18 {
            return Ok(Value::from(x as i64));
        }
        Number::from_f64(x).map(Value::Number).ok_or_else(|| E::custom("json: unsupported value"))
    }

    fn visit_str<E>(self, s: &str) -> Result<Value, E> {
        Ok(Value::String(s.to_owned()))
    }

    fn visit_string<E>(self, s: String) -> Result<Value, E> {
        Ok(Value::String(s))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper::<A::Error>()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper::<A::Error>()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<serde_saphyr::Spanned<String>>()? {
            let line = key.referenced.line();
            let value = entries.next_value_seed(inner)?;
            if map.contains_key(&key.value) {
                let text = format!("line {line}: key {} already set in map", crate::field::go_quote(&key.value));
                self.duplicates.borrow_mut().push(text);
            }
            map.insert(key.value, value);
        }
        Ok(Value::Object(map))
    }
}

impl Node<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= DEPTH_MAX {
            return Err(E::custom("exceeded max depth"));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn reads_as_go_does() {
        for (text, want) in [
            (
                "a: yes\nb: 'yes'\nc: 0644\nd: 1.0\ne: 1.5\nf: ~\ng: x",
                json!({"a": true, "b": "yes", "c": 420, "d": 1, "e": 1.5, "f": null, "g": "x"}),
            ),
            ("- 1\n- {a: [b, c]}", json!([1, {"a": ["b", "c"]}])),
            ("{\"a\": {\"b\": 1}}", json!({"a": {"b": 1}})),
            ("1: a\ntrue: b", json!({"1": "a", "true": "b"})),
            ("a: 2020-01-01T00:00:00Z", json!({"a": "2020-01-01T00:00:00Z"})),
            ("a: &x {b: 1}\nc: *x", json!({"a": {"b": 1}, "c": {"b": 1}})),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().value, want, "{text}");
        }
    }

    #[test]
    fn repeated_keys_are_noticed() {
        let parsed = parse(b"apiVersion: v1\nkind: A\nkind: B\nmetadata: {name: a, name: b}\n").unwrap();
        assert_eq!(parsed.value, json!({"apiVersion": "v1", "kind": "B", "metadata": {"name": "b"}}));
        assert_eq!(parsed.strict, ["line 3: key \"kind\" already set in map", "line 4: key \"name\" already set in map"]);
        assert_eq!(
            super::super::strict_text(&parsed.strict).unwrap(),
            "yaml: unmarshal errors:\n  line 3: key \"kind\" already set in map\n  line 4: key \"name\" already set in map"
        );
    }

    #[test]
    fn malformed_texts_say_where() {
        let error = parse(b"a: [").unwrap_err().to_string();
        assert!(error.starts_with("error converting YAML to JSON: yaml: line "), "{error}");
        assert!(parse("[".repeat(3000).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn what_is_written_reads_back(text in "[ -~\n\t\u{e9}]{0,40}", key in "[a-z:#.0-9 -]{1,10}") {
            let value = json!({"k": {key: [text.clone(), {"s": text}]}});
            let written = super::super::to_string(&value);
            prop_assert_eq!(parse(written.as_bytes()).map(|p| p.value), Ok(value), "{}", written);
        }
    }
}
