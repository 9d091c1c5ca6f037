//! Conversions between types: `int()`, `string()`, `timestamp()`, ...

use crate::decls::Row;
use crate::error::EvalError;
use crate::opaque::Opaque;
use crate::regexes::Regexes;
use crate::time;
use crate::value::{Text, Value};

type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(crate) const ROWS: &[Row] = &[
    ("bool", to_bool, &[("bool_to_bool", "(bool) -> bool"), ("string_to_bool", "(string) -> bool")]),
    ("bytes", to_bytes, &[("bytes_to_bytes", "(bytes) -> bytes"), ("string_to_bytes", "(string) -> bytes")]),
    (
        "double",
        to_double,
        &[
            ("double_to_double", "(double) -> double"),
            ("int64_to_double", "(int) -> double"),
            ("string_to_double", "(string) -> double"),
            ("uint64_to_double", "(uint) -> double"),
        ],
    ),
    (
        "int",
        to_int,
        &[
            ("int64_to_int64", "(int) -> int"),
            ("double_to_int64", "(double) -> int"),
            ("duration_to_int64", "(duration) -> int"),
            ("string_to_int64", "(string) -> int"),
            ("timestamp_to_int64", "(timestamp) -> int"),
            ("uint64_to_int64", "(uint) -> int"),
        ],
    ),
    (
        "uint",
        to_uint,
        &[
            ("uint64_to_uint64", "(uint) -> uint"),
            ("double_to_uint64", "(double) -> uint"),
            ("int64_to_uint64", "(int) -> uint"),
            ("string_to_uint64", "(string) -> uint"),
        ],
    ),
    (
        "string",
        to_string,
        &[
            ("string_to_string", "(string) -> string"),
            ("bool_to_string", "(bool) -> string"),
            ("bytes_to_string", "(bytes) -> string"),
            ("double_to_string", "(double) -> string"),
            ("duration_to_string", "(duration) -> string"),
            ("int64_to_string", "(int) -> string"),
            ("timestamp_to_string", "(timestamp) -> string"),
            ("uint64_to_string", "(uint) -> string"),
            ("ip_to_string", "(IP) -> string"),
            ("cidr_to_string", "(CIDR) -> string"),
        ],
    ),
    (
        "duration",
        to_duration,
        &[
            ("duration_to_duration", "(duration) -> duration"),
            ("int64_to_duration", "(int) -> duration"),
            ("string_to_duration", "(string) -> duration"),
        ],
    ),
    (
        "timestamp",
        to_timestamp,
        &[
            ("timestamp_to_timestamp", "(timestamp) -> timestamp"),
            ("int64_to_timestamp", "(int) -> timestamp"),
            ("string_to_timestamp", "(string) -> timestamp"),
        ],
    ),
];

fn mismatch<'a>(value: &Value<'a>, to: &str) -> Outcome<'a> {
    Err(EvalError::new(format!("type conversion error from '{}' to '{to}'", value.type_name())))
}

fn to_bool<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Bool(b) => Ok(Value::Bool(*b)),
        Value::String(s) => match &**s {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
            other => Err(EvalError::new(format!("strconv.ParseBool: parsing {other:?}: invalid syntax"))),
        },
        other => mismatch(other, "bool"),
    }
}

fn to_bytes<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Bytes(b) => Ok(Value::Bytes(b.clone())),
        Value::String(s) => Ok(Value::Bytes(s.as_bytes().into())),
        other => mismatch(other, "bytes"),
    }
}

fn to_double<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Double(d) => Ok(Value::Double(*d)),
        Value::Int(n) => Ok(Value::Double(*n as f64)),
        Value::Uint(n) => Ok(Value::Double(*n as f64)),
        Value::String(s) => match s.parse::<f64>() {
            Ok(d) if !s.trim().is_empty() => Ok(Value::Double(d)),
            _ => Err(EvalError::new(format!("strconv.ParseFloat: parsing {:?}: invalid syntax", &**s))),
        },
        other => mismatch(other, "double"),
    }
}

fn range(what: &str) -> EvalError {
    EvalError::new(format!("{what} overflow"))
}

fn parse_error(function: &str, text: &str, why: &std::num::ParseIntError) -> EvalError {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let why = if matches!(why.kind(), PosOverflow | NegOverflow) { "value out of range" } else { "invalid syntax" };
    EvalError::new(format!("strconv.{function}: parsing {text:?}: {why}"))
}

fn to_int<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Int(n) => Ok(Value::Int(*n)),
        Value::Uint(n) => i64::try_from(*n).map(Value::Int).map_err(|_| range("integer")),
        Value::Double(d) if *d > i64::MIN as f64 && *d < i64::MAX as f64 => Ok(Value::Int(*d as i64)),
        Value::Double(_) => Err(range("integer")),
        Value::String(s) => s.parse().map(Value::Int).map_err(|e| parse_error("ParseInt", s, &e)),
        Value::Timestamp(t) => Ok(Value::Int(t.as_second())),
        Value::Duration(d) => Ok(Value::Int(*d)),
        other => mismatch(other, "int"),
    }
}

fn to_uint<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Uint(n) => Ok(Value::Uint(*n)),
        Value::Int(n) => u64::try_from(*n).map(Value::Uint).map_err(|_| range("unsigned integer")),
        Value::Double(d) if *d >= 0.0 && *d < u64::MAX as f64 => Ok(Value::Uint(*d as u64)),
        Value::Double(_) => Err(range("unsigned integer")),
        Value::String(s) => s.parse().map(Value::Uint).map_err(|e| parse_error("ParseUint", s, &e)),
        other => mismatch(other, "uint"),
    }
}

/// Go's shortest form of a number, `%g`-like.
pub(crate) fn double_text(d: f64) -> String {
    if d.is_nan() {
        return "NaN".to_owned();
    }
    if d.is_infinite() {
        return if d > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let exponent = if d == 0.0 { 0 } else { d.abs().log10().floor() as i32 };
    if (-4..21).contains(&exponent) {
        return format!("{d}");
    }
    let text = format!("{d:e}");
    match text.split_once('e') {
        Some((mantissa, exp)) => {
            let (sign, digits) = exp.strip_prefix('-').map_or(('+', exp), |d| ('-', d));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

/// The text of a scalar, as `string()` gives it.
pub(crate) fn text_of<'a>(value: &Value<'a>) -> Result<Text<'a>, EvalError> {
    let text = match value {
        Value::String(s) => return Ok(s.clone()),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(d) => double_text(*d),
        Value::Bytes(b) => match std::str::from_utf8(b) {
            Ok(text) => text.to_owned(),
            Err(_) => return Err(EvalError::new("invalid UTF-8 in bytes, cannot convert to string")),
        },
        Value::Timestamp(t) => time::format_timestamp(*t),
        Value::Duration(d) => time::format_duration(*d),
        Value::Opaque(Opaque::Ip(ip)) => ip.to_string(),
        Value::Opaque(Opaque::Cidr { ip, prefix }) => format!("{ip}/{prefix}"),
        other => return Err(EvalError::new(format!("type conversion error from '{}' to 'string'", other.type_name()))),
    };
    Ok(Text::Shared(text.into()))
}

fn to_string<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    text_of(&args[0]).map(Value::String)
}

fn to_duration<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Duration(d) => Ok(Value::Duration(*d)),
        Value::Int(n) => Ok(Value::Duration(*n)),
        Value::String(s) => {
            machinery::duration::parse(s).map(Value::Duration).map_err(|_| EvalError::new(format!("time: invalid duration {:?}", &**s)))
        }
        other => mismatch(other, "google.protobuf.Duration"),
    }
}

fn to_timestamp<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Timestamp(t) => Ok(Value::Timestamp(*t)),
        Value::Int(n) => time::from_second(*n).map(Value::Timestamp).ok_or_else(|| range("timestamp")),
        Value::String(s) => time::parse_timestamp(s).map(Value::Timestamp).ok_or_else(|| {
            let text = &**s;
            EvalError::new(format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""))
        }),
        other => mismatch(other, "google.protobuf.Timestamp"),
    }
}
