//! Field paths and validation errors, with upstream's wording (`k8s.io/apimachinery/pkg/util/validation/field`).
//!
//! Validation collects [`Error`]s; `status::StatusError::invalid` turns a list of them into a 422 answer.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use serde_json::Value;

/// Where in an object an error is: `spec.containers[0].ports[name=http]`. Cheap to extend: a path borrows its parent,
/// so walking an object allocates nothing until an error is made.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// The path of a top-level field; may itself be dotted, as `spec.template`.
    pub const fn new(field: &'a str) -> Self {
        Self { parent: None, step: Step::Field(field) }
    }

    /// `self.name`
    pub const fn child(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Field(name) }
    }

    /// `self[index]`
    pub const fn index(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), step: Step::Index(index) }
    }

    /// `self[key]`
    pub const fn key(&'a self, key: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Field(name) if self.parent.is_some() => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// What is wrong with a field. The text of each is upstream's `field.ErrorType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorType {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

impl ErrorType {
    /// The reason of a `StatusCause`.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }
}

/// One validation error. Displays as upstream does: `spec.x: Invalid value: "y": must be z`.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    pub kind: ErrorType,
    pub field: String,
    /// The text between the type and the detail, already in Go's form; empty where upstream prints none.
    pub value: String,
    pub detail: String,
}

/// Errors in the order they were found.
pub type ErrorList = Vec<Error>;

/// Several errors in one text, as Go's aggregates print: each once, more than one in brackets.
pub fn aggregate<T: fmt::Display>(errors: &[T]) -> String {
    let mut texts: Vec<String> = Vec::with_capacity(errors.len());
    for text in errors.iter().map(T::to_string) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

impl Error {
    fn make(kind: ErrorType, path: &Path<'_>, value: String, detail: impl Into<String>) -> Self {
        Self { kind, field: path.to_string(), value, detail: detail.into() }
    }

    pub fn not_found(path: &Path<'_>, value: &Value) -> Self {
        Self::make(ErrorType::NotFound, path, go_value(value), "")
    }

    pub fn required(path: &Path<'_>, detail: impl Into<String>) -> Self {
        Self::make(ErrorType::Required, path, String::new(), detail)
    }

    pub fn duplicate(path: &Path<'_>, value: &Value) -> Self {
        Self::make(ErrorType::Duplicate, path, go_value(value), "")
    }

    pub fn invalid(path: &Path<'_>, value: &Value, detail: impl Into<String>) -> Self {
        Self::make(ErrorType::Invalid, path, go_value(value), detail)
    }

    /// [`Error::invalid`] for a string value.
    pub fn invalid_str(path: &Path<'_>, value: &str, detail: impl Into<String>) -> Self {
        Self::make(ErrorType::Invalid, path, go_quote(value), detail)
    }

    /// `supported values: "A", "B"`, in the order given (upstream sorts most sets: sort before calling where it does).
    pub fn not_supported(path: &Path<'_>, value: &Value, supported: &[&str]) -> Self {
        let detail = if supported.is_empty() {
            String::new()
        } else {
            let quoted: Vec<String> = supported.iter().map(|s| go_quote(s)).collect();
            format!("supported values: {}", quoted.join(", "))
        };
        Self::make(ErrorType::NotSupported, path, go_value(value), detail)
    }

    pub fn forbidden(path: &Path<'_>, detail: impl Into<String>) -> Self {
        Self::make(ErrorType::Forbidden, path, String::new(), detail)
    }

    /// Upstream no longer prints the value of a too long field.
    pub fn too_long(path: &Path<'_>, max_bytes: usize) -> Self {
        Self::make(ErrorType::TooLong, path, String::new(), format!("may not be more than {max_bytes} bytes"))
    }

    pub fn too_many(path: &Path<'_>, actual: usize, max: usize) -> Self {
        let noun = if max == 1 { "item" } else { "items" };
        Self::make(ErrorType::TooMany, path, actual.to_string(), format!("must have at most {max} {noun}"))
    }

    pub fn internal(path: &Path<'_>, detail: impl Into<String>) -> Self {
        Self::make(ErrorType::Internal, path, String::new(), detail)
    }

    /// The error without its field: the message of a `StatusCause`.
    pub fn body(&self) -> String {
        let mut out = String::from(self.kind.text());
        if !self.value.is_empty() {
            let _ = write!(out, ": {}", self.value);
        }
        if !self.detail.is_empty() {
            let _ = write!(out, ": {}", self.detail);
        }
        out
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

impl std::error::Error for Error {}

/// A value as upstream's `field.Error` prints it: strings quoted, scalars plain, structures as JSON.
pub fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(s) => go_quote(s),
        Value::Array(_) | Value::Object(_) => go_marshal(value),
        // What fits no integer is a float in Go.
        Value::Number(number) if number.as_i64().is_none() => number.as_f64().map_or_else(|| number.to_string(), go_float),
        other => other.to_string(),
    }
}

/// Go's `float64` as `%v` prints it: `1.5`, `1e+06`.
pub fn go_float(f: f64) -> String {
    let text = format!("{f:e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let Ok(exponent) = exponent.parse::<i32>() else { return text };
    if (-4..6).contains(&exponent) {
        return format!("{f}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// A value as Go's `json.Marshal` writes it: safe to stand in HTML, and floats without needless zeros.
pub fn go_marshal(value: &Value) -> String {
    let mut out = String::new();
    push_json(&mut out, value);
    out
}

pub(crate) fn push_json(out: &mut String, value: &Value) {
    let separate = |out: &mut String, at: usize| out.push_str(if at > 0 { "," } else { "" });
    match value {
        Value::String(text) => push_json_text(out, text),
        Value::Number(n) if n.is_f64() => out.push_str(&go_json_float(n.as_f64().unwrap_or_default())),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                separate(out, at);
                push_json(out, item);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (at, (key, item)) in map.iter().enumerate() {
                separate(out, at);
                push_json_text(out, key);
                out.push(':');
                push_json(out, item);
            }
            out.push('}');
        }
        plain => {
            let _ = write!(out, "{plain}");
        }
    }
}

pub(crate) fn push_json_text(out: &mut String, text: &str) {
    if text.bytes().any(|c| c < b' ' || matches!(c, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2)) {
        out.push_str(&go_json(&Value::from(text).to_string()));
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

/// A `float64` as `json.Marshal` has it, whose exponents begin later than those of `%v`.
pub fn go_json_float(f: f64) -> String {
    let text = format!("{f:e}");
    let exponent = text.split_once('e').and_then(|(digits, e)| Some((digits, e.parse::<i32>().ok()?)));
    match exponent {
        Some((digits, exponent)) if exponent < -6 && f != 0.0 => format!("{digits}e-{}", -exponent),
        Some((digits, exponent)) if exponent >= 21 => format!("{digits}e+{exponent}"),
        _ => format!("{f}"),
    }
}

/// JSON as Go's `json.Marshal` has it: safe to stand in HTML.
pub fn go_json(text: &str) -> Cow<'_, str> {
    const UNSAFE: [char; 5] = ['<', '>', '&', '\u{2028}', '\u{2029}'];
    if !text.contains(UNSAFE) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if UNSAFE.contains(&c) {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Go's `%q`.
pub fn go_quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if c.is_ascii() || is_printed(c) => out.push(c),
            c if (c as u32) < 0x1_0000 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => {
                let _ = write!(out, "\\U{:08x}", c as u32);
            }
        }
    }
    out.push('"');
    out
}

/// Go's `unicode.IsPrint`: no separators, controls, format characters or what is not assigned. Rust's text escapes the same, but
/// for marks that stand first.
fn is_printed(c: char) -> bool {
    format!("x{c}").escape_debug().nth(1) != Some('\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_read_as_upstream_writes_them() {
        let spec = Path::new("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        assert_eq!(first.child("name").to_string(), "spec.containers[0].name");
        assert_eq!(spec.child("labels").key("a/b").to_string(), "spec.labels[a/b]");
    }

    #[test]
    fn errors_read_as_upstream_writes_them() {
        let p = Path::new("spec").child("x").to_string();
        assert_eq!(p, "spec.x");
        let spec = Path::new("spec");
        let x = spec.child("x");
        for (error, text) in [
            (Error::required(&x, ""), "spec.x: Required value"),
            (Error::invalid(&x, &json!({"a": "1 < 2 && 3"}), "bad"), r#"spec.x: Invalid value: {"a":"1 \u003c 2 \u0026\u0026 3"}: bad"#),
            (
                Error::invalid(&x, &json!(-1), "must be greater than or equal to 0"),
                "spec.x: Invalid value: -1: must be greater than or equal to 0",
            ),
            (Error::invalid(&x, &json!("a\"b"), "bad"), "spec.x: Invalid value: \"a\\\"b\": bad"),
            (Error::not_supported(&x, &json!("Z"), &["A", "B"]), "spec.x: Unsupported value: \"Z\": supported values: \"A\", \"B\""),
            (Error::duplicate(&x, &json!("a")), "spec.x: Duplicate value: \"a\""),
            (Error::too_long(&x, 63), "spec.x: Too long: may not be more than 63 bytes"),
            (Error::too_many(&x, 5, 3), "spec.x: Too many: 5: must have at most 3 items"),
            (Error::forbidden(&x, "may not be set"), "spec.x: Forbidden: may not be set"),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn json_is_written_as_go_writes_it() {
        for (value, expected) in [
            (json!("a<b>&c"), "\"a\\u003cb\\u003e\\u0026c\""),
            (json!("\u{2028}"), "\"\\u2028\""),
            (json!("é\t\"\\"), "\"é\\t\\\"\\\\\""),
            (json!(1.0), "1"),
            (json!(1e21), "1e+21"),
            (json!(1.5e-7), "1.5e-7"),
            (json!(0.000001), "0.000001"),
            (json!(100_000_000.5), "100000000.5"),
            (json!(7), "7"),
            (json!({"<": [1.0, null, {}]}), "{\"\\u003c\":[1,null,{}]}"),
            (json!(true), "true"),
        ] {
            assert_eq!(go_marshal(&value), expected);
        }
    }

    #[test]
    fn quotes_escape_what_go_does_not_print() {
        for (text, expected) in [
            ("a\u{7}\u{1}\u{7f}\"\\", r#""a\a\x01\x7f\"\\""#),
            ("é e\u{301} 日本 😀", "\"é e\u{301} 日本 😀\""),
            ("\u{80}\u{a0}\u{ad}\u{200b}\u{2028}\u{3000}\u{feff}", r#""\u0080\u00a0\u00ad\u200b\u2028\u3000\ufeff""#),
            ("\u{e000}\u{f0000}\u{10ffff}", r#""\ue000\U000f0000\U0010ffff""#),
        ] {
            assert_eq!(go_quote(text), expected);
        }
    }

    #[test]
    fn floats_print_as_in_go() {
        for (f, wanted) in [
            (1.5, "1.5"),
            (100_000.0, "100000"),
            (1_000_000.0, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1e100, "1e+100"),
            (-2.0, "-2"),
            (0.0, "0"),
        ] {
            assert_eq!(go_float(f), wanted);
        }
    }
}
