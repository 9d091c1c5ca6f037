//! Cells of printer columns: a JSONPath per column, found and printed as `client-go/util/jsonpath` does it with missing keys
//! allowed. Of what such a path can say, recursion with `..` and filters that compare with another path are there too.

use serde_json::{Value, json};

use crate::validate::tree::{list, s};

/// Steps of a path.
const STEPS_MAX: usize = 64;

/// One column.
#[derive(Clone, Debug)]
pub struct Cell {
    column_type: String,
    /// `None`: a path nobody understands, whose cells are empty.
    path: Option<Vec<Step>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    /// `[from:to:step]`
    Slice(Option<i64>, Option<i64>, i64),
    Each,
    /// `..`
    Below,
    Filter(Filter),
}

/// `?(@.type=="Ready")`
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Operand,
    /// Without one, the left side must be there.
    compared: Option<(Operator, Operand)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// The columns of a version; none means name and age.
pub fn cells_of(version: &Value) -> Vec<Cell> {
    let columns = list(version, "additionalPrinterColumns").iter();
    columns.map(|c| Cell { column_type: s(c, "type").to_owned(), path: parse(s(c, "jsonPath")) }).collect()
}

impl Cell {
    pub fn of(&self, object: &Value, now: i64) -> Value {
        let Some(found) = self.path.as_ref().and_then(|path| find(object, path).into_iter().next()) else { return Value::Null };
        match self.column_type.as_str() {
            "string" => json!(printed(found)),
            "integer" => found.as_i64().or_else(|| found.as_f64().map(truncated)).map_or(Value::Null, Value::from),
            "number" => found.as_f64().map_or(Value::Null, Value::from),
            "boolean" => found.as_bool().map_or(Value::Null, Value::from),
            "date" => found.as_str().map_or(Value::Null, |text| match machinery::time::parse(text) {
                Some(_) => crate::columns::since(Some(found), now),
                None => json!("<invalid>"),
            }),
            _ => Value::Null,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "as Go converts")]
fn truncated(number: f64) -> i64 {
    number as i64
}

/// Lists and maps as JSON, the rest as Go's `fmt` has it.
fn printed(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

/// The values a path leads to.
fn find<'a>(root: &'a Value, path: &[Step]) -> Vec<&'a Value> {
    let mut found = vec![root];
    for step in path {
        found = found.into_iter().flat_map(|value| step.of(value)).collect();
    }
    found
}

impl Step {
    fn of<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
            (Self::Index(at), Value::Array(items)) => position(*at, items.len()).and_then(|at| items.get(at)).into_iter().collect(),
            (Self::Slice(from, to, step), Value::Array(items)) => slice(items, *from, *to, *step),
            (Self::Each, Value::Array(items)) => items.iter().collect(),
            (Self::Each, Value::Object(map)) => map.values().collect(),
            (Self::Filter(filter), Value::Array(items)) => items.iter().filter(|item| filter.takes(item)).collect(),
            (Self::Filter(filter), Value::Object(map)) => map.values().filter(|item| filter.takes(item)).collect(),
            (Self::Below, value) => {
                let mut out = Vec::new();
                below(value, &mut out);
                out
            }
            _ => Vec::new(),
        }
    }
}

fn below<'a>(value: &'a Value, out: &mut Vec<&'a Value>) {
    out.push(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| below(item, out)),
        Value::Object(map) => map.values().for_each(|item| below(item, out)),
        _ => {}
    }
}

/// Negative counts from the end.
fn position(at: i64, len: usize) -> Option<usize> {
    if at >= 0 { usize::try_from(at).ok() } else { len.checked_sub(usize::try_from(at.unsigned_abs()).ok()?) }
}

fn slice(items: &[Value], from: Option<i64>, to: Option<i64>, step: i64) -> Vec<&Value> {
    let bound = |at: Option<i64>, default: usize| at.map_or(Some(default), |at| position(at, items.len())).map(|at| at.min(items.len()));
    let (Some(from), Some(to)) = (bound(from, 0), bound(to, items.len())) else { return Vec::new() };
    let step = usize::try_from(step).unwrap_or(0);
    if from >= to || step == 0 {
        return Vec::new();
    }
    items[from..to].iter().step_by(step).collect()
}

impl Filter {
    fn takes(&self, item: &Value) -> bool {
        let values = |operand: &Operand| match operand {
            Operand::Path(path) => find(item, path).into_iter().next().cloned(),
            Operand::Literal(value) => Some(value.clone()),
        };
        let Some(left) = values(&self.left) else { return false };
        let Some((operator, right)) = &self.compared else { return true };
        values(right).is_some_and(|right| operator.holds(&left, &right))
    }
}

impl Operator {
    fn holds(self, left: &Value, right: &Value) -> bool {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let order = match (left, right) {
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Value::Number(_), Value::Number(_)) => left.as_f64().and_then(|a| a.partial_cmp(&right.as_f64()?)),
            (a, b) if a == b => Some(Equal),
            _ => return self == Self::NotEqual,
        };
        match self {
            Self::Equal => order == Some(Equal),
            Self::NotEqual => order != Some(Equal),
            Self::Less => order == Some(Less),
            Self::LessOrEqual => matches!(order, Some(Less | Equal)),
            Self::Greater => order == Some(Greater),
            Self::GreaterOrEqual => matches!(order, Some(Greater | Equal)),
        }
    }
}

/// Reads a path like `.status.conditions[?(@.type=="Ready")].status`.
fn parse(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = text.trim();
    rest = rest.strip_prefix('$').or_else(|| rest.strip_prefix('@')).unwrap_or(rest);
    while !rest.is_empty() {
        if steps.len() >= STEPS_MAX {
            return None;
        }
        if let Some(after) = rest.strip_prefix("..") {
            steps.push(Step::Below);
            if after.starts_with('[') {
                rest = after;
                continue;
            }
            let (name, after) = field(after)?;
            steps.push(name);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            let end = closing(after)?;
            steps.push(bracket(after[..end].trim())?);
            rest = &after[end + 1..];
        } else {
            let (name, after) = field(rest.strip_prefix('.').unwrap_or(rest))?;
            steps.push(name);
            rest = after;
        }
    }
    Some(steps)
}

/// A name up to the next `.` or `[`; a backslash takes the next character as it is.
fn field(text: &str) -> Option<(Step, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next()?.1),
            '.' | '[' => {
                end = at;
                break;
            }
            ' ' | '{' | '}' | '(' | ')' => return None,
            c => name.push(c),
        }
    }
    match name.as_str() {
        "" => None,
        "*" => Some((Step::Each, &text[end..])),
        _ => Some((Step::Field(name), &text[end..])),
    }
}

/// Where the bracket just opened closes, not counting those in quotes.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0usize, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(inner: &str) -> Option<Step> {
    if inner == "*" {
        return Some(Step::Each);
    }
    if let Some(name) = quoted(inner) {
        return Some(Step::Field(name));
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        return Some(Step::Filter(self::filter(filter)?));
    }
    let number = |text: &str| -> Option<Option<i64>> { if text.is_empty() { Some(None) } else { text.trim().parse().ok().map(Some) } };
    let parts: Vec<&str> = inner.split(':').collect();
    match parts.as_slice() {
        [at] => at.parse().ok().map(Step::Index),
        [from, to] => Some(Step::Slice(number(from)?, number(to)?, 1)),
        [from, to, step] => Some(Step::Slice(number(from)?, number(to)?, number(step)?.unwrap_or(1))),
        _ => None,
    }
}

fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    (!inner.contains(quote)).then(|| inner.replace('\\', ""))
}

fn filter(text: &str) -> Option<Filter> {
    const OPERATORS: [(&str, Operator); 6] = [
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    for (sign, operator) in OPERATORS {
        if let Some((left, right)) = text.split_once(sign) {
            return Some(Filter { left: operand(left.trim())?, compared: Some((operator, operand(right.trim())?)) });
        }
    }
    Some(Filter { left: operand(text.trim())?, compared: None })
}

fn operand(text: &str) -> Option<Operand> {
    if let Some(path) = text.strip_prefix('@') {
        return parse(path).map(Operand::Path);
    }
    if let Some(literal) = quoted(text) {
        return Some(Operand::Literal(Value::String(literal)));
    }
    serde_json::from_str(text).ok().map(Operand::Literal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_found_and_printed_as_upstream_does() {
        let object = json!({
            "metadata": {"creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"a.b/c": "x"}},
            "spec": {"n": 4, "f": 1.5, "b": true, "l": ["p", "q"], "m": {"k": 1}, "d": "soon", "z": null},
            "status": {"conditions": [{"type": "A", "status": "False", "n": 1}, {"type": "Ready", "status": "True", "n": 7}]},
        });
        let cases = [
            ("string", ".spec.l", json!("[\"p\",\"q\"]")),
            ("string", ".spec.m", json!("{\"k\":1}")),
            ("string", ".spec.l[0]", json!("p")),
            ("string", ".spec.l[-1]", json!("q")),
            ("string", ".spec.l[5]", Value::Null),
            ("string", ".spec.l[*]", json!("p")),
            ("string", ".spec.l[1:]", json!("q")),
            ("string", ".spec.f", json!("1.5")),
            ("string", ".spec.missing", Value::Null),
            ("integer", ".spec.n", json!(4)),
            ("integer", ".spec.f", json!(1)),
            ("integer", ".spec.b", Value::Null),
            ("number", ".spec.n", json!(4.0)),
            ("boolean", ".spec.b", json!(true)),
            ("date", ".metadata.creationTimestamp", json!("10s")),
            ("date", ".spec.d", json!("<invalid>")),
            ("string", ".metadata.labels.a\\.b/c", json!("x")),
            ("string", ".metadata.labels['a.b/c']", json!("x")),
            ("string", ".status.conditions[?(@.type==\"Ready\")].status", json!("True")),
            ("string", ".status.conditions[?(@.n>3)].type", json!("Ready")),
            ("string", ".status.conditions[?(@.type=='No')].status", Value::Null),
            ("string", "..status", json!(object["status"].to_string())),
            ("string", ".spec[", Value::Null),
        ];
        let now = machinery::time::parse("2026-01-02T03:04:15Z").unwrap_or_default();
        for (column_type, path, wanted) in cases {
            let cell = Cell { column_type: column_type.to_owned(), path: parse(path) };
            assert_eq!(cell.of(&object, now), wanted, "{column_type} {path}");
        }
    }
}
