//! `'...'.format([...])`: clauses `%s %d %f %e %b %x %X %o %%`.

use crate::error::EvalError;
use crate::library::{TEXT_MAX, bounded, str_arg, text_of};
use crate::regexes::Regexes;
use crate::value::{Key, List, Map, Value};

type Outcome<'a> = Result<Value<'a>, EvalError>;

/// Digits after the point that may be asked for.
const PRECISION_MAX: usize = 1000;

pub(crate) fn format<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let pattern = str_arg(&args[0])?;
    let Value::List(values) = &args[1] else { return Err(EvalError::no_such_overload()) };
    let mut out = String::new();
    let mut next = 0;
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let precision = precision(&mut chars)?;
        let clause = chars.next().ok_or_else(|| EvalError::new("could not parse formatting clause: unexpected end of string"))?;
        let value = values.get(next).ok_or_else(|| EvalError::new(format!("index {next} out of range")))?;
        next += 1;
        clause_text(&mut out, clause, precision, &value)?;
        bounded(out.len(), TEXT_MAX)?;
    }
    if next < values.len() {
        return Err(EvalError::new(format!("too many arguments supplied to string.format (expected {next}, got {})", values.len())));
    }
    Ok(Value::string(out))
}

fn precision(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<usize, EvalError> {
    if chars.peek() != Some(&'.') {
        return Ok(6);
    }
    chars.next();
    let mut digits = String::new();
    while let Some(c) = chars.peek().filter(|c| c.is_ascii_digit()) {
        digits.push(*c);
        chars.next();
    }
    let wanted = digits.parse::<usize>().map_err(|_| EvalError::new("error while parsing precision: could not find precision"))?;
    if wanted > PRECISION_MAX {
        return Err(EvalError::new(format!("precision {wanted} exceeds maximum allowed precision of {PRECISION_MAX}")));
    }
    Ok(wanted)
}

fn refuse(clause: &str, allowed: &str, value: &Value<'_>) -> EvalError {
    EvalError::new(format!("error during formatting: {clause} clause can only be used on {allowed}, was given {}", value.type_name()))
}

fn clause_text(out: &mut String, clause: char, precision: usize, value: &Value<'_>) -> Result<(), EvalError> {
    let text = match (clause, value) {
        ('s', value) => return plain(out, value, false, 0),
        ('d', Value::Int(n)) => n.to_string(),
        ('d', Value::Uint(n)) => n.to_string(),
        ('d', value) => return Err(refuse("decimal", "integers", value)),
        ('f' | 'e', Value::Double(d)) if !d.is_finite() => infinite(*d),
        ('f' | 'e', Value::String(s)) if matches!(&**s, "NaN" | "Infinity" | "-Infinity") => s.to_string(),
        ('f', Value::Double(d)) => grouped(&format!("{d:.precision$}")),
        ('f', value) => return Err(refuse("fixed-point", "doubles", value)),
        ('e', Value::Double(d)) => scientific(*d, precision),
        ('e', value) => return Err(refuse("scientific", "doubles", value)),
        ('b', Value::Int(n)) => radix(*n, |m| format!("{m:b}")),
        ('b', Value::Uint(n)) => format!("{n:b}"),
        ('b', Value::Bool(b)) => u8::from(*b).to_string(),
        ('b', value) => return Err(refuse("only integers and bools can be formatted as binary;", "integers and bools", value)),
        ('x', Value::Int(n)) => radix(*n, |m| format!("{m:x}")),
        ('X', Value::Int(n)) => radix(*n, |m| format!("{m:X}")),
        ('x', Value::Uint(n)) => format!("{n:x}"),
        ('X', Value::Uint(n)) => format!("{n:X}"),
        ('x', Value::String(s)) => hex(s.as_bytes(), false),
        ('X', Value::String(s)) => hex(s.as_bytes(), true),
        ('x', Value::Bytes(b)) => hex(b, false),
        ('X', Value::Bytes(b)) => hex(b, true),
        ('x' | 'X', value) => return Err(refuse("hex", "integers, byte buffers, and strings", value)),
        ('o', Value::Int(n)) => radix(*n, |m| format!("{m:o}")),
        ('o', Value::Uint(n)) => format!("{n:o}"),
        ('o', value) => return Err(refuse("octal", "integers", value)),
        (other, _) => {
            return Err(EvalError::new(format!("could not parse formatting clause: unrecognized formatting clause \"{other}\"")));
        }
    };
    out.push_str(&text);
    Ok(())
}

fn infinite(d: f64) -> String {
    match d {
        d if d.is_nan() => "NaN",
        d if d > 0.0 => "∞",
        _ => "-∞",
    }
    .to_owned()
}

fn radix(n: i64, show: impl Fn(u64) -> String) -> String {
    format!("{}{}", if n < 0 { "-" } else { "" }, show(n.unsigned_abs()))
}

fn hex(bytes: &[u8], upper: bool) -> String {
    bytes.iter().map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") }).collect()
}

/// Thousands are separated, as the English locale has it.
fn grouped(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |d| ("-", d));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(w, f)| (w, Some(f)));
    let mut out = sign.to_owned();
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(c);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

fn scientific(d: f64, precision: usize) -> String {
    let text = format!("{d:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
    format!("{mantissa}\u{202f}×\u{202f}10{}", superscript(sign, digits))
}

fn superscript(sign: char, digits: &str) -> String {
    let map = |c: char| match c {
        '-' => '⁻',
        '0' => '⁰',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        c @ '4'..='9' => char::from_u32(0x2070 + (c as u32 - '0' as u32)).unwrap_or(c),
        c => c,
    };
    let sign = if sign == '-' { "⁻" } else { "" };
    let digits = format!("{digits:0>2}");
    format!("{sign}{}", digits.chars().map(map).collect::<String>())
}

/// What `%s` shows; `inner` when within a list or map, where texts are quoted.
fn plain(out: &mut String, value: &Value<'_>, inner: bool, depth: usize) -> Result<(), EvalError> {
    bounded(out.len(), TEXT_MAX)?;
    bounded(depth, 500)?;
    match value {
        Value::List(list) => list_text(out, list, depth),
        Value::Map(map @ (Map::Json { .. } | Map::Owned(_) | Map::Object { .. })) => map_text(out, map, depth),
        Value::Null => {
            out.push_str("null");
            Ok(())
        }
        Value::Type(of) => {
            out.push_str(crate::value::type_name(of));
            Ok(())
        }
        Value::String(s) if inner => {
            out.push_str(&format!("{:?}", &**s));
            Ok(())
        }
        Value::Bytes(b) if inner => {
            out.push_str(&format!("b{:?}", String::from_utf8_lossy(b)));
            Ok(())
        }
        Value::Timestamp(_) | Value::Duration(_) if inner => {
            let name = if matches!(value, Value::Timestamp(_)) { "timestamp" } else { "duration" };
            out.push_str(&format!("{name}(\"{}\")", &*text_of(value)?));
            Ok(())
        }
        Value::Double(d) if inner => {
            out.push_str(&format!("{d:.6}"));
            Ok(())
        }
        Value::Int(_)
        | Value::Uint(_)
        | Value::Double(_)
        | Value::Bool(_)
        | Value::String(_)
        | Value::Bytes(_)
        | Value::Timestamp(_)
        | Value::Duration(_) => {
            out.push_str(&text_of(value)?);
            Ok(())
        }
        other => Err(refuse("string", "strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps", other)),
    }
}

fn list_text(out: &mut String, list: &List<'_>, depth: usize) -> Result<(), EvalError> {
    out.push('[');
    for (i, item) in list.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        plain(out, &item, true, depth + 1)?;
    }
    out.push(']');
    Ok(())
}

fn map_text(out: &mut String, map: &Map<'_>, depth: usize) -> Result<(), EvalError> {
    out.push('{');
    for (i, key) in map.keys().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        match &key {
            Key::String(s) => out.push_str(&format!("{:?}", &**s)),
            other => out.push_str(&other.to_string()),
        }
        out.push(':');
        if let Some(value) = map.get(&key) {
            plain(out, &value, true, depth + 1)?;
        }
    }
    out.push('}');
    Ok(())
}
