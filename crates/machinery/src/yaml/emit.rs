//! Trees to YAML text with the layout and quoting of Go's `yaml.v2`: sorted keys, lists not indented, long lines folded.

use serde_json::{Map, Number, Value};

use super::scalar::is_fraction;
use crate::field::go_float;

/// Where long lines are folded.
const WIDTH: usize = 80;
/// Longer keys are written with `?`.
const SIMPLE_KEY_MAX: usize = 128;

pub fn to_string(value: &Value) -> String {
    let mut out = Emitter { text: String::with_capacity(1024) };
    match value {
        Value::Object(map) if !map.is_empty() => out.map(map, 0, false),
        Value::Array(items) if !items.is_empty() => out.list(items, 0, false),
        other => {
            out.leaf(other, 2);
            out.text.push('\n');
        }
    }
    out.text
}

struct Emitter {
    text: String,
}

#[derive(PartialEq)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

impl Emitter {
    fn indent(&mut self, indent: usize) {
        self.text.extend(std::iter::repeat_n(' ', indent));
    }

    fn column(&self) -> usize {
        self.text.rsplit('\n').next().unwrap_or("").chars().count()
    }

    /// `inline`: the first line continues one that is begun (`- `).
    fn map(&mut self, map: &Map<String, Value>, indent: usize, inline: bool) {
        let keys = in_order(map.keys().collect());
        for (at, key) in keys.into_iter().enumerate() {
            if at > 0 || !inline {
                self.indent(indent);
            }
            let long = key.len() > SIMPLE_KEY_MAX || key.contains('\n');
            if long {
                self.text.push_str("? ");
                self.scalar(key, indent + 2, false);
                self.text.push('\n');
                self.indent(indent);
                self.text.push(':');
            } else {
                self.scalar(key, indent + 2, true);
                self.text.push(':');
            }
            self.value(&map[key], indent);
        }
    }

    /// After `key:`, at the map's indent.
    fn value(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                self.text.push('\n');
                self.map(map, indent + 2, false);
            }
            Value::Array(items) if !items.is_empty() => {
                self.text.push('\n');
                self.list(items, indent, false);
            }
            leaf => {
                self.text.push(' ');
                self.leaf(leaf, indent + 2);
                self.text.push('\n');
            }
        }
    }

    fn list(&mut self, items: &[Value], indent: usize, inline: bool) {
        for (at, item) in items.iter().enumerate() {
            if at > 0 || !inline {
                self.indent(indent);
            }
            self.text.push_str("- ");
            match item {
                Value::Object(map) if !map.is_empty() => self.map(map, indent + 2, true),
                Value::Array(inner) if !inner.is_empty() => self.list(inner, indent + 2, true),
                leaf => {
                    self.leaf(leaf, indent + 2);
                    self.text.push('\n');
                }
            }
        }
    }

    fn leaf(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Null => self.text.push_str("null"),
            Value::Bool(b) => self.text.push_str(if *b { "true" } else { "false" }),
            Value::Number(n) => self.text.push_str(&number(n)),
            Value::String(s) => self.scalar(s, indent, false),
            Value::Array(_) => self.text.push_str("[]"),
            Value::Object(_) => self.text.push_str("{}"),
        }
    }

    fn scalar(&mut self, text: &str, indent: usize, key: bool) {
        match style(text, key) {
            Style::Plain => self.folded(text, indent, key, |c, out| out.push(c)),
            Style::Single => {
                self.text.push('\'');
                self.folded(text, indent, key, |c, out| {
                    if c == '\'' {
                        out.push('\'');
                    }
                    out.push(c);
                });
                self.text.push('\'');
            }
            Style::Double => self.double(text, indent, key),
            Style::Literal => self.literal(text, indent),
        }
    }

    /// Plain and single-quoted text: a lone space past the width becomes a line break.
    fn folded(&mut self, text: &str, indent: usize, key: bool, put: impl Fn(char, &mut String)) {
        let chars: Vec<char> = text.chars().collect();
        let mut column = self.column();
        let mut after_space = false;
        for (at, c) in chars.iter().enumerate() {
            let inner = at > 0 && at + 1 < chars.len() && chars[at + 1] != ' ';
            if *c == ' ' && !key && !after_space && column > WIDTH && inner {
                self.text.push('\n');
                self.indent(indent);
                column = indent;
            } else {
                let before = self.text.len();
                put(*c, &mut self.text);
                column += self.text[before..].chars().count();
            }
            after_space = *c == ' ';
        }
    }

    fn double(&mut self, text: &str, indent: usize, key: bool) {
        self.text.push('"');
        let chars: Vec<char> = text.chars().collect();
        let mut column = self.column();
        let mut after_space = false;
        for (at, c) in chars.iter().enumerate() {
            let escape = match c {
                '"' => "\\\"".to_owned(),
                '\\' => "\\\\".to_owned(),
                '\0' => "\\0".to_owned(),
                '\u{7}' => "\\a".to_owned(),
                '\u{8}' => "\\b".to_owned(),
                '\t' => "\\t".to_owned(),
                '\n' => "\\n".to_owned(),
                '\u{b}' => "\\v".to_owned(),
                '\u{c}' => "\\f".to_owned(),
                '\r' => "\\r".to_owned(),
                '\u{1b}' => "\\e".to_owned(),
                '\u{85}' => "\\N".to_owned(),
                '\u{a0}' => "\\_".to_owned(),
                '\u{2028}' => "\\L".to_owned(),
                '\u{2029}' => "\\P".to_owned(),
                c if printable(*c) => String::new(),
                c if (*c as u32) <= 0xff => format!("\\x{:02X}", *c as u32),
                c if (*c as u32) <= 0xffff => format!("\\u{:04X}", *c as u32),
                c => format!("\\U{:08X}", *c as u32),
            };
            let inner = at > 0 && at + 1 < chars.len();
            if *c == ' ' && !key && !after_space && column > WIDTH && inner {
                self.text.push('\n');
                self.indent(indent);
                column = indent;
                if chars[at + 1] == ' ' {
                    self.text.push('\\');
                    column += 1;
                }
            } else if escape.is_empty() {
                self.text.push(*c);
                column += 1;
            } else {
                column += escape.len();
                self.text.push_str(&escape);
            }
            after_space = *c == ' ' && escape.is_empty();
        }
        self.text.push('"');
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.text.push('|');
        if text.starts_with([' ', '\n']) {
            self.text.push('2');
        }
        match text.strip_suffix('\n') {
            None => self.text.push('-'),
            Some(rest) if rest.is_empty() || rest.ends_with('\n') => self.text.push('+'),
            Some(_) => {}
        }
        let body = text.strip_suffix('\n').unwrap_or(text);
        for line in body.split('\n') {
            self.text.push('\n');
            if !line.is_empty() {
                self.indent(indent);
                self.text.push_str(line);
            }
        }
    }
}

/// What libyaml takes for printable: no tab, nothing beyond the basic plane.
fn printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && c != '\u{feff}'
}

fn style(text: &str, key: bool) -> Style {
    let analysis = analyse(text);
    if text.contains('\n') {
        return if analysis.block && !key { Style::Literal } else { Style::Double };
    }
    if resolves(text) || base60(text) || !analysis.single {
        return Style::Double;
    }
    if analysis.plain { Style::Plain } else { Style::Single }
}

struct Analysis {
    plain: bool,
    single: bool,
    block: bool,
}

/// `yaml_emitter_analyze_scalar`
fn analyse(text: &str) -> Analysis {
    let chars: Vec<char> = text.chars().collect();
    let blank = |at: usize| chars.get(at).is_none_or(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\0'));
    let special = chars.iter().any(|c| !printable(*c));
    let breaks = text.contains('\n');
    let mut indicators = text.starts_with("---") || text.starts_with("...");
    for (at, c) in chars.iter().enumerate() {
        indicators |= match c {
            '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' if at == 0 => true,
            '?' | '-' if at == 0 => blank(1),
            ':' => blank(at + 1),
            '#' => blank(at - 1),
            _ => false,
        };
    }
    let pair = |a: char, b: char| chars.windows(2).any(|w| w == [a, b]);
    let (space_break, break_space) = (pair(' ', '\n'), pair('\n', ' '));
    let edge = text.starts_with([' ', '\n']) || text.ends_with([' ', '\n']);
    Analysis {
        plain: !(indicators || edge || breaks || special),
        single: !(break_space || space_break || special),
        block: !(text.ends_with(' ') || space_break || special),
    }
}

/// Whether the plain text would be read as something other than a string.
fn resolves(text: &str) -> bool {
    let words = [
        "", "~", "null", "Null", "NULL", "y", "Y", "yes", "Yes", "YES", "n", "N", "no", "No", "NO", "true", "True", "TRUE", "false",
        "False", "FALSE", "on", "On", "ON", "off", "Off", "OFF", ".nan", ".NaN", ".NAN", ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF",
        "-.inf", "-.Inf", "-.INF",
    ];
    if words.contains(&text) {
        return true;
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return false;
    }
    integer(&unsigned.replace('_', "")) || is_finite_fraction(&text.replace('_', "")) || timestamp(text)
}

fn is_finite_fraction(text: &str) -> bool {
    is_fraction(text) && text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// A number as Go writes the YAML of its JSON: whole floats are integers there.
fn number(n: &Number) -> String {
    match n.as_f64().filter(|_| n.is_f64()) {
        #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
        Some(f) if f.fract() == 0.0 && f.abs() < 9.2e18 => (f as i64).to_string(),
        Some(f) => go_float(f),
        None => n.to_string(),
    }
}

/// Go's `ParseInt` with base 0.
fn integer(text: &str) -> bool {
    let of_base = |digits: &str, base: u32| !digits.is_empty() && digits.len() <= 64 && digits.chars().all(|c| c.is_digit(base));
    match text.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => of_base(&text[2..], 16) && text.len() <= 18,
        Some("0b") => of_base(&text[2..], 2),
        Some("0o") => of_base(&text[2..], 8),
        Some(two) if two.starts_with('0') => of_base(text, 8) && text.len() <= 22,
        _ => of_base(text, 10) && text.parse::<u64>().is_ok(),
    }
}

/// `2006-1-2`, with or without a time of day.
fn timestamp(text: &str) -> bool {
    let digits = |t: &str, max: usize| (1..=max).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit());
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some((&text[at..=at], &text[at + 1..]))),
        None => (text, None),
    };
    let parts: Vec<&str> = date.split('-').collect();
    let [year, month, day] = parts.as_slice() else { return false };
    if year.len() != 4 || !digits(year, 4) || !digits(month, 2) || !digits(day, 2) {
        return false;
    }
    let Some((separator, time)) = time else { return true };
    let zone_at = time.find(['Z', '+', '-']);
    let (clock, zone) = time.split_at(zone_at.unwrap_or(time.len()));
    if (separator == " ") == zone_at.is_some() {
        return false;
    }
    let zone_ok = zone.is_empty() || zone == "Z" || (zone.len() == 6 && zone.as_bytes()[3] == b':');
    let (clock, fraction) = clock.split_once('.').map_or((clock, None), |(c, f)| (c, Some(f)));
    let parts: Vec<&str> = clock.split(':').collect();
    let [hour, minute, second] = parts.as_slice() else { return false };
    zone_ok && digits(hour, 2) && digits(minute, 2) && digits(second, 2) && fraction.is_none_or(|f| digits(f, 9))
}

/// Sexagesimal numbers of YAML 1.1: `1:30`.
fn base60(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut parts = text.split(':');
    let first = parts.next().unwrap_or("");
    let rest: Vec<&str> = parts.collect();
    if rest.is_empty() || !first.starts_with(|c: char| c.is_ascii_digit()) || !first.chars().all(|c| c.is_ascii_digit() || c == '_') {
        return false;
    }
    rest.iter().enumerate().all(|(at, part)| {
        let part = if at + 1 == rest.len() { part.split_once('.').map_or(*part, |(p, _)| p) } else { part };
        matches!(part.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9'])
    })
}

/// Sorts by merging. [`natural`] is no total order for some keys (upstream's is none either), which the standard library's
/// sort answers with a panic.
fn in_order(keys: Vec<&String>) -> Vec<&String> {
    if keys.len() < 2 {
        return keys;
    }
    let mut left = keys;
    let right = left.split_off(left.len() / 2);
    let (left, right) = (in_order(left), in_order(right));
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let next = if natural(a, b).is_gt() { right.next() } else { left.next() };
        merged.extend(next);
    }
    merged.extend(left);
    merged.extend(right);
    merged
}

/// The order of keys: letters by code, numbers by value, letters after the rest.
fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    use std::cmp::Ordering;
    let (x, y): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(at) = x.iter().zip(&y).position(|(p, q)| p != q) else { return x.len().cmp(&y.len()) };
    let (p, q) = (x[at], y[at]);
    match (p.is_alphabetic(), q.is_alphabetic()) {
        (true, true) => return p.cmp(&q),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    let mut start = 0u64;
    if p == '0' || q == '0' {
        let before = x[..at].iter().rev().take_while(|c| c.is_ascii_digit()).any(|c| *c != '0');
        start = u64::from(before);
    }
    let number = |chars: &[char]| {
        let digits: Vec<u64> = chars[at..].iter().map_while(|c| c.to_digit(10).map(u64::from)).collect();
        (digits.iter().fold(start, |n, d| n.wrapping_mul(10).wrapping_add(*d)), digits.len())
    };
    let ((m, i), (n, j)) = (number(&x), number(&y));
    m.cmp(&n).then(i.cmp(&j)).then(p.cmp(&q))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn layout() {
        let value = json!({"b": [{"y": 1, "x": ["p", []]}, "s"], "a10": {}, "a2": null, "a": {"c": true}});
        assert_eq!(to_string(&value), "a:\n  c: true\na2: null\na10: {}\nb:\n- x:\n  - p\n  - []\n  \"y\": 1\n- s\n");
    }

    #[test]
    fn keys_without_a_total_order_do_no_harm() {
        let parts = ["1", "?", "5<", "55", "=", "0", "00", "a", "10", "<5"];
        let mut map = Map::new();
        for seed in 0..2000usize {
            let key: String = (0..6).map(|i| parts[(seed * 7 + i * seed * 3 + seed / (i + 1)) % parts.len()]).collect();
            map.insert(key, Value::Null);
        }
        let count = map.len();
        let read = crate::yaml::parse(to_string(&Value::Object(map)).as_bytes()).unwrap();
        assert_eq!(read.value.as_object().map(Map::len), Some(count));
    }

    #[test]
    fn numbers_are_gos() {
        for (given, want) in [(1.0, "1"), (-0.0, "0"), (1e6, "1000000"), (1_234_567.5, "1.2345675e+06"), (1e-7, "1e-07"), (1e20, "1e+20")] {
            assert_eq!(to_string(&Value::from(given)), format!("{want}\n"));
        }
    }

    #[test]
    fn quoting() {
        for (text, want) in [
            ("plain", "plain"),
            ("", "\"\""),
            ("yes", "\"yes\""),
            ("1", "\"1\""),
            ("0x1F", "\"0x1F\""),
            ("1.5", "\"1.5\""),
            ("10.1.1.1", "10.1.1.1"),
            ("1e3", "\"1e3\""),
            ("1.", "\"1.\""),
            ("1e400", "1e400"),
            ("<<", "<<"),
            ("1:30", "\"1:30\""),
            ("2020-01-01T00:00:00Z", "\"2020-01-01T00:00:00Z\""),
            ("2020-01-01", "\"2020-01-01\""),
            ("a: b", "'a: b'"),
            ("it's: so", "'it''s: so'"),
            ("*x", "'*x'"),
            ("-", "'-'"),
            ("-a", "-a"),
            ("k:{\"name\":\"c\"}", "k:{\"name\":\"c\"}"),
            ("a\tb", "\"a\\tb\""),
            ("\u{1f600}", "\"\\U0001F600\""),
            ("é", "é"),
            (" a", "' a'"),
            ("a\nb\n", "|\n  a\n  b"),
            ("a\nb", "|-\n  a\n  b"),
            ("a \nb", "\"a \\nb\""),
        ] {
            assert_eq!(to_string(&json!(text)), format!("{want}\n"), "{text:?}");
        }
    }

    #[test]
    fn long_lines_fold_at_a_space() {
        let text = to_string(&json!({"m": format!("{} tail of it", "x".repeat(90))}));
        assert_eq!(text, format!("m: {}\n  tail of it\n", "x".repeat(90)));
    }
}
