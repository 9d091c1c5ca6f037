//! YAML 1.1 as Go reads it: `yes` is a boolean, `0644` is octal, a repeated key is noticed and the last one counts. Only the first
//! document is read. The parser is `granit-parser`; what scalars are is decided in `scalar`, what errors are called in `problem`.

use crate::field::go_float;
use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Number, Value};

use super::problem;
use super::scalar::{self, Scalar};

/// How many nodes aliases may add, so that a small body makes no large tree.
const ALIAS_NODES_MAX: usize = 100_000;
/// As deep as JSON may nest.
const DEPTH_MAX: usize = 120;

/// A document; `strict` holds a text per repeated key: `line 3: key "kind" already set in map`.
#[derive(Debug, PartialEq)]
pub struct Parsed {
    pub value: Value,
    pub strict: Vec<String>,
}

/// Why a text is no YAML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error converting YAML to JSON: {0}")]
pub struct YamlError(pub(super) String);

impl YamlError {
    /// The error itself, as upstream's `YAMLToJSON` gives it: `yaml: line 1: ..`. Its `Unmarshal` says more.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.0
    }

    pub(super) fn yaml(text: impl std::fmt::Display) -> Self {
        Self(format!("yaml: {text}"))
    }
}

/// Reads one document. An empty one is null.
pub fn parse(bytes: &[u8]) -> Result<Parsed, YamlError> {
    if let Some(value) = as_json(bytes) {
        return Ok(Parsed { value, strict: Vec::new() });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| no_text(bytes, error))?;
    if text.chars().any(is_control) {
        return Err(YamlError::yaml("control characters are not allowed"));
    }
    let mut composer = Composer { unterminated: (!text.ends_with(['\n', '\r'])).then(|| text.chars().count()), ..Composer::default() };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| problem::of(text, &error, &composer.open_collections()))?;
        if composer.take(event, span)? {
            break;
        }
    }
    match composer.late {
        Some(error) => Err(error),
        None => Ok(Parsed { value: composer.value.unwrap_or(Value::Null), strict: composer.strict }),
    }
}

fn no_text(bytes: &[u8], error: std::str::Utf8Error) -> YamlError {
    let leads = bytes.get(error.valid_up_to()).is_some_and(|b| matches!(b, 0xc2..=0xf4));
    YamlError::yaml(match error.error_len() {
        None => "incomplete UTF-8 octet sequence",
        Some(_) if leads => "invalid trailing UTF-8 octet",
        Some(_) => "invalid leading UTF-8 octet",
    })
}

fn is_control(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}') || matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// Clients mostly apply JSON, which is YAML too, and read ten times as fast. What the two read differently (floats, escapes, keys
/// that come twice, deep nesting, tabs) is left to the YAML reader.
fn as_json(bytes: &[u8]) -> Option<Value> {
    fn plain(value: &Value, depth: usize) -> bool {
        match value {
            Value::Number(number) => number.is_i64(),
            Value::Array(items) => depth > 0 && items.iter().all(|item| plain(item, depth - 1)),
            Value::Object(map) => depth > 0 && map.iter().all(|(key, item)| key != "<<" && plain(item, depth - 1)),
            _ => true,
        }
    }
    if bytes.first() != Some(&b'{') || bytes.iter().any(|b| matches!(b, b'\t' | b'\\') || !b.is_ascii()) {
        return None;
    }
    let parsed = crate::json::parse(bytes).ok()?;
    (parsed.strict.is_empty() && plain(&parsed.value, DEPTH_MAX - 1)).then_some(parsed.value)
}

/// A key, and how Go would print it.
struct Key {
    name: String,
    shown: String,
    /// `<<`: the value is merged into the map.
    merges: bool,
}

enum Kind {
    List(Vec<Value>),
    Map(Map<String, Value>, Option<Key>),
}

/// A collection that is being read.
struct Open {
    kind: Kind,
    anchor: usize,
    /// Counted from 1.
    line: usize,
    flow: bool,
    nodes: usize,
}

/// An anchored value, once it is complete, and its size.
type Anchored = Option<(Value, usize)>;

#[derive(Default)]
struct Composer {
    stack: Vec<Open>,
    anchors: std::collections::BTreeMap<usize, Anchored>,
    alias_nodes: usize,
    value: Option<Value>,
    strict: Vec<String>,
    /// The first thing that is YAML, but not JSON: what is no YAML at all is told of first.
    late: Option<YamlError>,
    /// Where a text ends that ends in no line break, in characters.
    unterminated: Option<usize>,
}

/// A finished node on its way into what holds it.
struct Node {
    value: Value,
    nodes: usize,
    line: usize,
    /// Of a scalar that is no text, as a key is shown.
    shown: Option<String>,
    plain: bool,
}

impl Composer {
    fn open_collections(&self) -> Vec<problem::Collection> {
        let is_map = |open: &Open| matches!(open.kind, Kind::Map(..));
        self.stack.iter().map(|open| problem::Collection { line: open.line, flow: open.flow, map: is_map(open) }).collect()
    }

    /// Takes the next event; true when the document is complete.
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<bool, YamlError> {
        let line = span.start.line();
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let mut text = text.into_owned();
                let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                if is_block && text.ends_with('\n') && self.unterminated.is_some_and(|end| span.end.index() >= end) {
                    // The line break that Go does not make up.
                    text.pop();
                }
                // It begins where its `|` or `>` is.
                let line = line - usize::from(is_block && line > 1);
                let scalar = scalar::resolve(&text, &short(tag.as_deref()), plain).map_err(YamlError::yaml)?;
                let (value, shown) = self.json_of(scalar);
                self.remember(anchor, &value, 1);
                self.put(Node { value, nodes: 1, line, shown, plain })?;
            }
            Event::SequenceStart(style, anchor, _) => self.open(Kind::List(Vec::new()), anchor, line, is_flow(style))?,
            Event::MappingStart(style, anchor, _) => self.open(Kind::Map(Map::new(), None), anchor, line, is_flow(style))?,
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Alias(id) => {
                let (value, nodes) = match self.anchors.get(&id) {
                    Some(Some(known)) => known.clone(),
                    _ => return Err(YamlError::yaml("anchor value contains itself")),
                };
                self.alias_nodes = self.alias_nodes.saturating_add(nodes);
                if self.alias_nodes > ALIAS_NODES_MAX {
                    return Err(YamlError::yaml("document contains excessive aliasing"));
                }
                self.put(Node { value, nodes, line, shown: None, plain: false })?;
            }
            Event::DocumentEnd => return Ok(true),
            _ => {}
        }
        Ok(self.stack.is_empty() && self.value.is_some())
    }

    /// A scalar as JSON, and how it is shown as a key where it is no text.
    fn json_of(&mut self, scalar: Scalar) -> (Value, Option<String>) {
        let value = match scalar {
            Scalar::Text(text) => return (Value::String(text), None),
            Scalar::Null => Value::Null,
            Scalar::Bool(b) => Value::Bool(b),
            Scalar::Int(n) => Value::from(n),
            Scalar::Uint(n) if self.is_at_key() => {
                self.refuse(format!("unsupported map key of type: uint64, key: {n:#x}"));
                Value::from(n)
            }
            Scalar::Uint(n) => Value::from(n),
            Scalar::Float(x) if self.is_at_key() => Value::String(float_name(x)),
            Scalar::Float(x) => float(x).unwrap_or_else(|error| {
                self.late.get_or_insert(error);
                Value::Null
            }),
        };
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (value, Some(shown))
    }

    fn refuse(&mut self, text: String) {
        self.late.get_or_insert(YamlError(text));
    }

    fn is_at_key(&self) -> bool {
        matches!(self.stack.last(), Some(Open { kind: Kind::Map(_, None), .. }))
    }

    fn open(&mut self, kind: Kind, anchor: usize, line: usize, flow: bool) -> Result<(), YamlError> {
        if self.stack.len() >= DEPTH_MAX {
            return Err(YamlError::yaml(format!("exceeded max depth of {DEPTH_MAX}")));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, None);
        }
        self.stack.push(Open { kind, anchor, line, flow, nodes: 1 });
        Ok(())
    }

    fn close(&mut self) -> Result<(), YamlError> {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        let value = match open.kind {
            Kind::List(items) => Value::Array(items),
            Kind::Map(map, _) => Value::Object(map),
        };
        self.remember(open.anchor, &value, open.nodes);
        self.put(Node { value, nodes: open.nodes, line: open.line, shown: None, plain: false })
    }

    fn remember(&mut self, anchor: usize, value: &Value, nodes: usize) {
        if anchor > 0 {
            self.anchors.insert(anchor, Some((value.clone(), nodes)));
        }
    }

    /// Puts a node where it belongs: into a list, as a key, as a key's value, or as the document.
    fn put(&mut self, node: Node) -> Result<(), YamlError> {
        let Some(open) = self.stack.last_mut() else {
            self.value = Some(node.value);
            return Ok(());
        };
        open.nodes = open.nodes.saturating_add(node.nodes);
        match &mut open.kind {
            Kind::List(items) => items.push(node.value),
            Kind::Map(_, at @ None) => {
                let (key, error) = key(node);
                *at = Some(key);
                self.late = self.late.take().or(error);
            }
            Kind::Map(map, at) => {
                let Some(key) = at.take() else { return Ok(()) };
                if key.merges {
                    return merge(map, node.value);
                }
                if map.contains_key(&key.name) {
                    self.strict.push(format!("line {}: key {} already set in map", node.line, key.shown));
                }
                map.insert(key.name, node.value);
            }
        }
        Ok(())
    }
}

fn is_flow(style: granit_parser::StructureStyle) -> bool {
    style == granit_parser::StructureStyle::Flow
}

/// `!!int` of `tag:yaml.org,2002:int`; empty for none.
fn short(tag: Option<&Tag>) -> String {
    tag.map_or(String::new(), |tag| {
        if tag.handle() == "tag:yaml.org,2002:" { format!("!!{}", tag.suffix()) } else { format!("{}{}", tag.handle(), tag.suffix()) }
    })
}

/// A whole float is an integer once Go has written it as JSON. What JSON has no number for is an error.
fn float(x: f64) -> Result<Value, YamlError> {
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    let whole = || Value::from(x as i64);
    if x.is_finite() {
        return Ok(if x.fract() == 0.0 && x.abs() < 9.2e18 { whole() } else { Number::from_f64(x).map_or(Value::Null, Value::Number) });
    }
    let name = if x.is_nan() { "NaN" } else { ["-Inf", "+Inf"][usize::from(x > 0.0)] };
    Err(YamlError(format!("json: unsupported value: {name}")))
}

/// A float as a key: Go writes what is left of it in 32 bits.
fn float_name(x: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "as Go does")]
    let x = x as f32;
    match () {
        () if x.is_nan() => ".nan".to_owned(),
        () if x.is_infinite() => ["-.inf", ".inf"][usize::from(x > 0.0)].to_owned(),
        () => format!("{x}").parse().map_or_else(|_| x.to_string(), go_float),
    }
}

/// A node as a key, and what is wrong with it as one.
fn key(node: Node) -> (Key, Option<YamlError>) {
    let error = match &node.value {
        Value::String(name) => {
            let (merges, name) = (node.plain && name == "<<", name.clone());
            return (Key { shown: node.shown.unwrap_or_else(|| crate::field::go_quote(&name)), name, merges }, None);
        }
        Value::Null => Some(YamlError("unsupported map key of type: %!s(<nil>), key: <nil>".to_owned())),
        Value::Array(_) | Value::Object(_) => Some(YamlError::yaml(format!("invalid map key: {}", node.value))),
        Value::Bool(_) | Value::Number(_) => None,
    };
    (Key { name: node.value.to_string(), shown: node.shown.unwrap_or_default(), merges: false }, error)
}

/// `<<: *base`, `<<: [*one, *other]`: what the map has before goes under, what comes after goes over. Of several, the first counts.
fn merge(map: &mut Map<String, Value>, value: Value) -> Result<(), YamlError> {
    let wrong = || YamlError::yaml("map merge requires map or sequence of maps as the value");
    let parts = match value {
        Value::Object(part) => vec![part],
        Value::Array(items) => {
            let parts: Option<Vec<_>> = items.into_iter().rev().map(|v| if let Value::Object(m) = v { Some(m) } else { None }).collect();
            parts.ok_or_else(wrong)?
        }
        _ => return Err(wrong()),
    };
    parts.into_iter().for_each(|part| map.extend(part));
    Ok(())
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
            ("1: a\ntrue: b\n1.5: c\nyes: d\n.inf: e", json!({"1": "a", "true": "d", "1.5": "c", ".inf": "e"})),
            ("a: 2020-01-01T00:00:00Z", json!({"a": "2020-01-01T00:00:00Z"})),
            ("a: &x {b: 1}\nc: *x", json!({"a": {"b": 1}, "c": {"b": 1}})),
            ("base: &x {b: 1, c: 2}\nd:\n  b: 0\n  <<: *x\n  c: 3", json!({"base": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}})),
            ("a: {<<: [{b: 1}, {b: 2, c: 3}]}", json!({"a": {"b": 1, "c": 3}})),
            ("a: 1\n---\nb: 2\n", json!({"a": 1})),
            ("a: |\n  x\n  y\nb: >-\n  x\n  y", json!({"a": "x\ny\n", "b": "x y"})),
            ("a: !!str 5\nb: !!int \"5\"", json!({"a": "5", "b": 5})),
            ("", Value::Null),
            ("# nothing\n", Value::Null),
            ("---\n...\n", Value::Null),
        ] {
            assert_eq!(parse(text.as_bytes()).map(|p| p.value), Ok(want), "{text}");
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
        assert_eq!(parse(b"1: a\n1: b").unwrap().strict, ["line 2: key 1 already set in map"]);
    }

    #[test]
    fn odd_texts_are_read_as_go_reads_them() {
        let value = |text: &str| parse(text.as_bytes()).unwrap().value;
        assert_eq!(value("k: |\n  a\n  b"), serde_json::json!({"k": "a\nb"}));
        assert_eq!(value("k: |\n  a\n"), serde_json::json!({"k": "a\n"}));
        assert_eq!(value("k: 1e3\n1e3: 1.\n1.5: 0"), serde_json::json!({"k": 1000, "1000": 1, "1.5": 0}));
        assert_eq!(value("18446744073709551616: 0"), serde_json::json!({"1.8446744e+19": 0}));
        let error = |text: &[u8]| parse(text).unwrap_err().reason().to_owned();
        assert_eq!(error(b"a: .inf\nb: ["), "yaml: line 2: did not find expected node content");
        assert_eq!(error(b"a: \x01"), "yaml: control characters are not allowed");
        assert_eq!(error(b"a: \xc3("), "yaml: invalid trailing UTF-8 octet");
        assert_eq!(error(b"9223372036854775808: 1"), "unsupported map key of type: uint64, key: 0x8000000000000000");
        assert_eq!(parse(b"b: {}\nb: |\n  x\n").unwrap().strict, ["line 2: key \"b\" already set in map"]);
    }

    #[test]
    fn hostile_texts_are_refused() {
        let depth = |n: usize| parse(format!("{}{}", "[".repeat(n), "]".repeat(n)).as_bytes());
        assert!(depth(DEPTH_MAX).is_ok() && depth(DEPTH_MAX + 1).is_err() && depth(30_000).is_err());
        assert!(parse("- ".repeat(30_000).as_bytes()).is_err() && parse("[".repeat(3000).as_bytes()).is_err());
        let bomb: String = (0..30).map(|n| format!("a{}: &a{} [{}]\n", n + 1, n + 1, format!("*a{n},").repeat(9))).collect();
        let error = parse(format!("a0: &a0 [x,x,x,x]\n{bomb}").as_bytes()).unwrap_err().to_string();
        assert!(error.ends_with("yaml: document contains excessive aliasing"), "{error}");
        assert!(parse(b"a: &x [*x]").is_err());
        assert_eq!(parse(b"a: .nan").unwrap_err().to_string(), "error converting YAML to JSON: json: unsupported value: NaN");
        assert!(parse(b"? [a]\n: b").is_err() && parse(b"~: b").is_err() && parse(b"<<: 5").is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_text_panics(text in "[ a-c:#,{}\\[\\]&*!|>'\"0-9\n\t-]{0,60}") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn what_is_written_reads_back(text in "[ -~\n\t\u{e9}]{0,40}", key in "[a-z:#.0-9 -]{1,10}") {
            let value = json!({"k": {key: [text.clone(), {"s": text}]}});
            let written = super::super::to_string(&value);
            prop_assert_eq!(parse(written.as_bytes()).map(|p| p.value), Ok(value), "{}", written);
        }
    }
}
