//! JSON bytes to a tree, as Go's decoder reads them: duplicate keys noticed, integers kept exact, Go's error texts.
//!
//! `serde_json` would do for trusted bytes; request bodies come through here. Typing is `decode`'s.

use serde_json::{Map, Number, Value};

use crate::field::go_quote;

/// Deeper nesting is refused, here and in YAML. Upstream allows 10,000; but our walks are recursive, stored objects are read back
/// by `serde_json`, which stops at 128, and the deepest known definitions of custom resources nest about 80 levels.
pub const DEPTH_MAX: usize = 120;

/// Strict errors beyond this many are not collected, as upstream.
const DUPLICATES_MAX: usize = 100;

/// A document, and a strict error per key that came twice (`duplicate field "spec.containers[0].name"`); the last one counts.
#[derive(Debug, PartialEq)]
pub struct Parsed {
    pub value: Value,
    pub strict: Vec<String>,
}

/// Why bytes are not JSON, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("unexpected end of JSON input")]
    End,
    #[error("invalid character {0} {1}")]
    Character(String, &'static str),
    #[error("exceeded max depth")]
    Depth,
    /// A number beyond all floats.
    #[error("json: cannot unmarshal number {0} into Go value of type float64")]
    Number(String),
}

/// Go's word for the kind of a JSON value, as its errors of decoding have it.
pub fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Parses a whole document.
pub fn parse(bytes: &[u8]) -> Result<Parsed, JsonError> {
    let mut parser = Parser { bytes, at: 0, duplicates: Vec::new(), too_large: None };
    let value = parser.value(None, 0)?;
    parser.space();
    if parser.at < bytes.len() {
        return Err(parser.bad("after top-level value"));
    }
    if let Some(number) = parser.too_large {
        return Err(JsonError::Number(number));
    }
    Ok(Parsed { value, strict: parser.duplicates })
}

/// The path to a value, on the stack: it becomes text only for a duplicate.
struct Place<'a> {
    parent: Option<&'a Place<'a>>,
    step: Step<'a>,
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl Place<'_> {
    fn text(&self) -> String {
        let mut out = self.parent.map(Place::text).unwrap_or_default();
        match self.step {
            Step::Key(key) => {
                if self.parent.is_some() {
                    out.push('.');
                }
                out.push_str(key);
            }
            Step::Index(index) => out.push_str(&format!("[{index}]")),
        }
        out
    }
}

/// Text with a replacement for each byte that is none, as Go has it.
fn lossy(mut bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    while let Some(chunk) = bytes.utf8_chunks().next() {
        out.push_str(chunk.valid());
        let bad = usize::from(!chunk.invalid().is_empty());
        out.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, bad));
        bytes = &bytes[chunk.valid().len() + bad..];
    }
    out
}

/// A byte as Go's decoder quotes it: taken for a character.
fn shown(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        _ => format!("'{}'", go_quote(char::from(byte).encode_utf8(&mut [0; 4])).trim_matches('"')),
    }
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    duplicates: Vec<String>,
    /// The first number that no float holds: what is no JSON at all is told of first.
    too_large: Option<String>,
}

impl Parser<'_> {
    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn bad(&self, place: &'static str) -> JsonError {
        match self.peek() {
            // Go ends a document with a space, which some things must not.
            None if place.starts_with("in ") || place.ends_with("numeric literal") => JsonError::Character("' '".to_owned(), place),
            None => JsonError::End,
            Some(c) => JsonError::Character(shown(c), place),
        }
    }

    fn value(&mut self, place: Option<&Place<'_>>, depth: usize) -> Result<Value, JsonError> {
        if depth > DEPTH_MAX {
            return Err(JsonError::Depth);
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.object(place, depth),
            Some(b'[') => self.array(place, depth),
            Some(b'"') => self.string().map(Value::String),
            Some(b't') => self.word(
                "true",
                Value::Bool(true),
                ["in literal true (expecting 'r')", "in literal true (expecting 'u')", "in literal true (expecting 'e')", ""],
            ),
            Some(b'f') => self.word(
                "false",
                Value::Bool(false),
                [
                    "in literal false (expecting 'a')",
                    "in literal false (expecting 'l')",
                    "in literal false (expecting 's')",
                    "in literal false (expecting 'e')",
                ],
            ),
            Some(b'n') => self.word(
                "null",
                Value::Null,
                ["in literal null (expecting 'u')", "in literal null (expecting 'l')", "in literal null (expecting 'l')", ""],
            ),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.bad("looking for beginning of value")),
        }
    }

    fn word(&mut self, word: &str, value: Value, expecting: [&'static str; 4]) -> Result<Value, JsonError> {
        self.at += 1;
        for (expected, text) in word.bytes().skip(1).zip(expecting) {
            if self.peek() != Some(expected) {
                return Err(self.bad(text));
            }
            self.at += 1;
        }
        Ok(value)
    }

    fn object(&mut self, place: Option<&Place<'_>>, depth: usize) -> Result<Value, JsonError> {
        self.at += 1;
        let mut map = Map::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(map));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.bad("looking for beginning of object key string"));
            }
            let key = self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.bad("after object key"));
            }
            self.at += 1;
            let here = Place { parent: place, step: Step::Key(&key) };
            if map.contains_key(&key) {
                self.repeated(place, &key);
            }
            let value = self.value(Some(&here), depth + 1)?;
            map.insert(key, value);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Value::Object(map));
                }
                _ => return Err(self.bad("after object key:value pair")),
            }
        }
    }

    fn repeated(&mut self, place: Option<&Place<'_>>, key: &str) {
        if self.duplicates.len() < DUPLICATES_MAX {
            let path = format!("duplicate field {}", go_quote(&Place { parent: place, step: Step::Key(key) }.text()));
            if !self.duplicates.contains(&path) {
                self.duplicates.push(path);
            }
        }
    }

    fn array(&mut self, place: Option<&Place<'_>>, depth: usize) -> Result<Value, JsonError> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            let here = Place { parent: place, step: Step::Index(items.len()) };
            items.push(self.value(Some(&here), depth + 1)?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::Array(items));
                }
                _ => return Err(self.bad("after array element")),
            }
        }
    }

    /// Bytes that are no UTF-8 become U+FFFD, as Go reads them.
    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let start = self.at;
        loop {
            match self.peek() {
                Some(b'"') => {
                    let text = &self.bytes[start..self.at];
                    self.at += 1;
                    return Ok(std::str::from_utf8(text).map_or_else(|_| lossy(text), str::to_owned));
                }
                Some(b'\\') => break,
                Some(0..0x20) => return Err(self.bad("in string literal")),
                Some(_) => self.at += 1,
                None => return Err(JsonError::End),
            }
        }
        let mut out: Vec<u8> = self.bytes[start..self.at].to_vec();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(String::from_utf8(out).unwrap_or_else(|e| lossy(e.as_bytes())));
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape(&mut out)?;
                }
                Some(0..0x20) => return Err(self.bad("in string literal")),
                Some(c) => {
                    out.push(c);
                    self.at += 1;
                }
                None => return Err(JsonError::End),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let c = match self.peek() {
            Some(c @ (b'"' | b'\\' | b'/')) => c,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                self.at += 1;
                let mut code = self.hex4()?;
                if (0xd800..0xdc00).contains(&code) && self.bytes[self.at..].starts_with(b"\\u") {
                    let back = self.at;
                    self.at += 2;
                    let low = self.hex4()?;
                    if (0xdc00..0xe000).contains(&low) {
                        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                    } else {
                        self.at = back;
                    }
                }
                let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(self.bad("in string escape code")),
        };
        out.push(c);
        self.at += 1;
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|c| char::from(c).to_digit(16));
            let Some(digit) = digit else { return Err(self.bad("in \\u hexadecimal character escape")) };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let leading_zero = self.peek() == Some(b'0');
        if leading_zero {
            self.at += 1;
        } else if self.digits() == 0 {
            return Err(self.bad("in numeric literal"));
        }
        let mut integer = true;
        if self.peek() == Some(b'.') {
            integer = false;
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.bad("after decimal point in numeric literal"));
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            integer = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.bad("in exponent of numeric literal"));
            }
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or("0");
        if integer && let Ok(n) = text.parse::<i64>() {
            return Ok(Value::Number(n.into()));
        }
        let Some(number) = text.parse::<f64>().ok().and_then(Number::from_f64) else {
            let text = text.to_owned();
            self.too_large.get_or_insert(text);
            return Ok(Value::Null);
        };
        Ok(Value::Number(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn error(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn errors_are_gos() {
        for (text, why) in [
            ("{\"kind\":", "unexpected end of JSON input"),
            ("", "unexpected end of JSON input"),
            ("{bad", "invalid character 'b' looking for beginning of object key string"),
            ("nope", "invalid character 'o' in literal null (expecting 'u')"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 x", "invalid character 'x' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} {}", "invalid character '{' after top-level value"),
            ("\"\n\"", "invalid character '\\n' in string literal"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            ("01", "invalid character '1' after top-level value"),
            ("'", "invalid character '\\'' looking for beginning of value"),
            ("\u{b}", "invalid character '\\v' looking for beginning of value"),
            ("\0", "invalid character '\\x00' looking for beginning of value"),
            ("[1.", "invalid character ' ' after decimal point in numeric literal"),
            ("nul", "invalid character ' ' in literal null (expecting 'l')"),
            ("\"\\u00", "invalid character ' ' in \\u hexadecimal character escape"),
            ("\"ab", "unexpected end of JSON input"),
            ("[1e400]", "json: cannot unmarshal number 1e400 into Go value of type float64"),
            ("[1e400", "unexpected end of JSON input"),
        ] {
            assert_eq!(error(text), why, "{text}");
        }
        assert_eq!(error(&"[".repeat(5000)), "exceeded max depth");
    }

    #[test]
    fn duplicates_are_named_once_and_the_last_counts() {
        let parsed = parse(br#"{"a":1,"l":[{"b":{"c":1,"c":2}}],"a":3,"a":4}"#).unwrap();
        assert_eq!(parsed.strict, ["duplicate field \"l[0].b.c\"", "duplicate field \"a\""]);
        assert_eq!(parsed.value, json!({"a": 4, "l": [{"b": {"c": 2}}]}));
        let parsed = parse(br#"{"a":1,"a":{"b":1,"b":2},"":{"c":1,"c":2}}"#).unwrap();
        assert_eq!(parsed.strict, ["duplicate field \"a\"", "duplicate field \"a.b\"", "duplicate field \".c\""]);
        assert_eq!(parse(b"\"\xe2\xa8x\"").unwrap().value, json!("\u{fffd}\u{fffd}x"));
    }

    #[test]
    fn numbers_keep_integers_exact() {
        assert_eq!(parse(b"9007199254740993").unwrap().value, json!(9_007_199_254_740_993_i64));
        assert_eq!(parse(b"1.5").unwrap().value, json!(1.5));
        assert!(parse(b"1e3").unwrap().value.is_f64());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let ours = parse(&bytes).map(|p| p.value);
            if let Ok(theirs) = serde_json::from_slice::<Value>(&bytes) && theirs.is_string() {
                prop_assert_eq!(ours.ok(), Some(theirs));
            }
        }

        #[test]
        fn strings_read_back(text in ".*") {
            let bytes = serde_json::to_vec(&text).unwrap();
            prop_assert_eq!(parse(&bytes).unwrap().value, json!(text));
        }
    }
}
