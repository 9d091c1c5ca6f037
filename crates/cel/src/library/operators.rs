//! Operators: arithmetic, comparison, equality, membership, indexing. Logic and conditions are the evaluator's own.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::decls::Row;
use crate::error::EvalError;
use crate::library::{LIST_MAX, TEXT_MAX, bounded};
use crate::regexes::Regexes;
use crate::time;
use crate::types::ListSemantics;
use crate::value::{Key, List, Map, Text, Value};

type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(crate) const ROWS: &[Row] = &[
    ("_?_:_", never, &[("conditional", "(bool, A, A) -> A")]),
    ("_&&_", never, &[("logical_and", "(bool, bool) -> bool")]),
    ("_||_", never, &[("logical_or", "(bool, bool) -> bool")]),
    ("@not_strictly_false", never, &[("not_strictly_false", "(bool) -> bool")]),
    ("!_", not, &[("logical_not", "(bool) -> bool")]),
    ("_==_", equals, &[("equals", "(A, A) -> bool")]),
    ("_!=_", not_equals, &[("not_equals", "(A, A) -> bool")]),
    (
        "_+_",
        add,
        &[
            ("add_bytes", "(bytes, bytes) -> bytes"),
            ("add_double", "(double, double) -> double"),
            ("add_duration_duration", "(duration, duration) -> duration"),
            ("add_duration_timestamp", "(duration, timestamp) -> timestamp"),
            ("add_timestamp_duration", "(timestamp, duration) -> timestamp"),
            ("add_int64", "(int, int) -> int"),
            ("add_list", "(list(A), list(A)) -> list(A)"),
            ("add_string", "(string, string) -> string"),
            ("add_uint64", "(uint, uint) -> uint"),
        ],
    ),
    (
        "_-_",
        subtract,
        &[
            ("subtract_double", "(double, double) -> double"),
            ("subtract_duration_duration", "(duration, duration) -> duration"),
            ("subtract_int64", "(int, int) -> int"),
            ("subtract_timestamp_duration", "(timestamp, duration) -> timestamp"),
            ("subtract_timestamp_timestamp", "(timestamp, timestamp) -> duration"),
            ("subtract_uint64", "(uint, uint) -> uint"),
        ],
    ),
    (
        "_*_",
        multiply,
        &[
            ("multiply_double", "(double, double) -> double"),
            ("multiply_int64", "(int, int) -> int"),
            ("multiply_uint64", "(uint, uint) -> uint"),
        ],
    ),
    (
        "_/_",
        divide,
        &[
            ("divide_double", "(double, double) -> double"),
            ("divide_int64", "(int, int) -> int"),
            ("divide_uint64", "(uint, uint) -> uint"),
        ],
    ),
    ("_%_", modulo, &[("modulo_int64", "(int, int) -> int"), ("modulo_uint64", "(uint, uint) -> uint")]),
    ("-_", negate, &[("negate_double", "(double) -> double"), ("negate_int64", "(int) -> int")]),
    (
        "_<_",
        less,
        &[
            ("less_bool", "(bool, bool) -> bool"),
            ("less_int64", "(int, int) -> bool"),
            ("less_int64_double", "(int, double) -> bool"),
            ("less_int64_uint64", "(int, uint) -> bool"),
            ("less_uint64", "(uint, uint) -> bool"),
            ("less_uint64_double", "(uint, double) -> bool"),
            ("less_uint64_int64", "(uint, int) -> bool"),
            ("less_double", "(double, double) -> bool"),
            ("less_double_int64", "(double, int) -> bool"),
            ("less_double_uint64", "(double, uint) -> bool"),
            ("less_string", "(string, string) -> bool"),
            ("less_bytes", "(bytes, bytes) -> bool"),
            ("less_timestamp", "(timestamp, timestamp) -> bool"),
            ("less_duration", "(duration, duration) -> bool"),
        ],
    ),
    (
        "_<=_",
        less_equals,
        &[
            ("less_equals_bool", "(bool, bool) -> bool"),
            ("less_equals_int64", "(int, int) -> bool"),
            ("less_equals_int64_double", "(int, double) -> bool"),
            ("less_equals_int64_uint64", "(int, uint) -> bool"),
            ("less_equals_uint64", "(uint, uint) -> bool"),
            ("less_equals_uint64_double", "(uint, double) -> bool"),
            ("less_equals_uint64_int64", "(uint, int) -> bool"),
            ("less_equals_double", "(double, double) -> bool"),
            ("less_equals_double_int64", "(double, int) -> bool"),
            ("less_equals_double_uint64", "(double, uint) -> bool"),
            ("less_equals_string", "(string, string) -> bool"),
            ("less_equals_bytes", "(bytes, bytes) -> bool"),
            ("less_equals_timestamp", "(timestamp, timestamp) -> bool"),
            ("less_equals_duration", "(duration, duration) -> bool"),
        ],
    ),
    (
        "_>_",
        greater,
        &[
            ("greater_bool", "(bool, bool) -> bool"),
            ("greater_int64", "(int, int) -> bool"),
            ("greater_int64_double", "(int, double) -> bool"),
            ("greater_int64_uint64", "(int, uint) -> bool"),
            ("greater_uint64", "(uint, uint) -> bool"),
            ("greater_uint64_double", "(uint, double) -> bool"),
            ("greater_uint64_int64", "(uint, int) -> bool"),
            ("greater_double", "(double, double) -> bool"),
            ("greater_double_int64", "(double, int) -> bool"),
            ("greater_double_uint64", "(double, uint) -> bool"),
            ("greater_string", "(string, string) -> bool"),
            ("greater_bytes", "(bytes, bytes) -> bool"),
            ("greater_timestamp", "(timestamp, timestamp) -> bool"),
            ("greater_duration", "(duration, duration) -> bool"),
        ],
    ),
    (
        "_>=_",
        greater_equals,
        &[
            ("greater_equals_bool", "(bool, bool) -> bool"),
            ("greater_equals_int64", "(int, int) -> bool"),
            ("greater_equals_int64_double", "(int, double) -> bool"),
            ("greater_equals_int64_uint64", "(int, uint) -> bool"),
            ("greater_equals_uint64", "(uint, uint) -> bool"),
            ("greater_equals_uint64_double", "(uint, double) -> bool"),
            ("greater_equals_uint64_int64", "(uint, int) -> bool"),
            ("greater_equals_double", "(double, double) -> bool"),
            ("greater_equals_double_int64", "(double, int) -> bool"),
            ("greater_equals_double_uint64", "(double, uint) -> bool"),
            ("greater_equals_string", "(string, string) -> bool"),
            ("greater_equals_bytes", "(bytes, bytes) -> bool"),
            ("greater_equals_timestamp", "(timestamp, timestamp) -> bool"),
            ("greater_equals_duration", "(duration, duration) -> bool"),
        ],
    ),
    ("@in", contained, &[("in_list", "(A, list(A)) -> bool"), ("in_map", "(A, map(A, B)) -> bool")]),
    (
        "_[_]",
        never,
        &[
            ("index_list", "(list(A), int) -> A"),
            ("index_map", "(map(A, B), A) -> B"),
            ("optional_list_index_int", "(optional(list(A)), int) -> optional(A)"),
            ("optional_map_index_value", "(optional(map(A, B)), A) -> optional(B)"),
        ],
    ),
    (
        "_[?_]",
        never,
        &[
            ("list_optindex_optional_int", "(list(A), int) -> optional(A)"),
            ("map_optindex_optional_value", "(map(A, B), A) -> optional(B)"),
            ("optional_list_optindex_optional_int", "(optional(list(A)), int) -> optional(A)"),
            ("optional_map_optindex_optional_value", "(optional(map(A, B)), A) -> optional(B)"),
        ],
    ),
    ("_?._", never, &[("select_optional_field", "(dyn, string) -> optional(A)")]),
];

/// For what the evaluator does itself.
fn never<'a>(_: &mut Regexes<'_>, _: &[Value<'a>]) -> Outcome<'a> {
    Err(EvalError::no_such_overload())
}

fn not<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    args[0].as_bool().map(|b| Value::Bool(!b)).ok_or_else(EvalError::no_such_overload)
}

fn equals<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(equal(&args[0], &args[1])))
}

fn not_equals<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(!equal(&args[0], &args[1])))
}

fn overflow(what: &str) -> EvalError {
    EvalError::new(format!("{what} overflow"))
}

fn add<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_add(*b).ok_or_else(|| overflow("integer"))?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_add(*b).ok_or_else(|| overflow("unsigned integer"))?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
        (Value::String(a), Value::String(b)) => {
            bounded(a.len() + b.len(), TEXT_MAX)?;
            Value::String(Text::Shared([&**a, &**b].concat().into()))
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            bounded(a.len() + b.len(), TEXT_MAX)?;
            Value::Bytes([&**a, &**b].concat().into())
        }
        (Value::List(a), Value::List(b)) => {
            bounded(a.len() + b.len(), LIST_MAX)?;
            concat(a, b)
        }
        (Value::Duration(a), Value::Duration(b)) => Value::Duration(a.checked_add(*b).ok_or_else(|| overflow("duration"))?),
        (Value::Timestamp(t), Value::Duration(d)) | (Value::Duration(d), Value::Timestamp(t)) => {
            Value::Timestamp(time::shift(*t, i128::from(*d)).ok_or_else(|| overflow("timestamp"))?)
        }
        _ => return Err(EvalError::no_such_overload()),
    })
}

/// Lists with set or map semantics merge instead.
fn concat<'a>(a: &List<'a>, b: &List<'a>) -> Value<'a> {
    let mut out: Vec<Value<'a>> = a.iter().collect();
    match a.semantics() {
        ListSemantics::Atomic => out.extend(b.iter()),
        ListSemantics::Set => {
            let mut known: BTreeSet<String> = out.iter().map(text).collect();
            out.extend(b.iter().filter(|item| known.insert(text(item))));
        }
        ListSemantics::Map(keys) => {
            let mut known: BTreeMap<String, usize> = out.iter().enumerate().map(|(i, o)| (key_text(o, keys), i)).collect();
            for item in b.iter() {
                let at = *known.entry(key_text(&item, keys)).or_insert(out.len());
                match out.get_mut(at) {
                    Some(slot) => *slot = item,
                    None => out.push(item),
                }
            }
        }
    }
    Value::list(out)
}

fn subtract<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_sub(*b).ok_or_else(|| overflow("integer"))?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_sub(*b).ok_or_else(|| overflow("unsigned integer"))?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a - b),
        (Value::Duration(a), Value::Duration(b)) => Value::Duration(a.checked_sub(*b).ok_or_else(|| overflow("duration"))?),
        (Value::Timestamp(t), Value::Duration(d)) => {
            Value::Timestamp(time::shift(*t, -i128::from(*d)).ok_or_else(|| overflow("timestamp"))?)
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => {
            let nanos = a.as_nanosecond() - b.as_nanosecond();
            Value::Duration(i64::try_from(nanos).map_err(|_| overflow("duration"))?)
        }
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn multiply<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_mul(*b).ok_or_else(|| overflow("integer"))?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_mul(*b).ok_or_else(|| overflow("unsigned integer"))?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a * b),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn divide<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(match (&args[0], &args[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => return Err(EvalError::new("division by zero")),
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_div(*b).ok_or_else(|| overflow("integer"))?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a / b),
        (Value::Double(a), Value::Double(b)) => Value::Double(a / b),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn modulo<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(match (&args[0], &args[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => return Err(EvalError::new("modulus by zero")),
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_rem(*b).ok_or_else(|| overflow("integer"))?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a % b),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn negate<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(match &args[0] {
        Value::Int(n) => Value::Int(n.checked_neg().ok_or_else(|| overflow("integer"))?),
        Value::Double(d) => Value::Double(-d),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn ordered<'a>(args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Outcome<'a> {
    let nan = args.iter().any(|a| matches!(a, Value::Double(d) if d.is_nan()));
    if nan {
        return Err(EvalError::new("NaN values cannot be ordered"));
    }
    compare(&args[0], &args[1]).map(|o| Value::Bool(holds(o))).ok_or_else(EvalError::no_such_overload)
}

fn less<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_lt)
}

fn less_equals<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_le)
}

fn greater<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_gt)
}

fn greater_equals<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_ge)
}

fn contained<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(match &args[1] {
        Value::List(list) => list.iter().any(|item| equal(&item, &args[0])),
        Value::Map(map) => Key::of(&args[0]).is_some_and(|key| map.get(&key).is_some()),
        _ => return Err(EvalError::no_such_overload()),
    }))
}

fn numbers(a: f64, b: f64) -> Option<Ordering> {
    a.partial_cmp(&b)
}

/// The order of two values of comparable types; numbers compare across types.
pub(crate) fn compare(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    Some(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Uint(a), Value::Uint(b)) => a.cmp(b),
        (Value::Int(a), Value::Uint(b)) => i128::from(*a).cmp(&i128::from(*b)),
        (Value::Uint(a), Value::Int(b)) => i128::from(*a).cmp(&i128::from(*b)),
        (Value::Double(a), Value::Double(b)) => numbers(*a, *b)?,
        (Value::Int(a), Value::Double(b)) => numbers(*a as f64, *b)?,
        (Value::Double(a), Value::Int(b)) => numbers(*a, *b as f64)?,
        (Value::Uint(a), Value::Double(b)) => numbers(*a as f64, *b)?,
        (Value::Double(a), Value::Uint(b)) => numbers(*a, *b as f64)?,
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        _ => return None,
    })
}

/// Equality over everything; values of different types are not equal, numbers are by value.
pub(crate) fn equal(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal(a, b),
            (None, None) => true,
            _ => false,
        },
        (Value::Type(a), Value::Type(b)) => same_type(a, b),
        (Value::List(a), Value::List(b)) => lists_equal(a, b),
        (Value::Map(a), Value::Map(b)) => maps_equal(a, b),
        (Value::Struct(a), Value::Struct(b)) => {
            a.name == b.name && a.fields.len() == b.fields.len() && {
                a.fields.iter().all(|(k, v)| b.fields.get(k).is_some_and(|w| equal(v, w)))
            }
        }
        (Value::Opaque(a), Value::Opaque(b)) => a.same(b),
        _ => compare(a, b) == Some(Ordering::Equal),
    }
}

/// Parameters of types do not count.
fn same_type(a: &crate::types::Type, b: &crate::types::Type) -> bool {
    use crate::types::Type;
    match (a, b) {
        (Type::List(_), Type::List(_))
        | (Type::Map(_), Type::Map(_))
        | (Type::Type(_), Type::Type(_))
        | (Type::Optional(_), Type::Optional(_)) => true,
        _ => a == b,
    }
}

fn lists_equal(a: &List<'_>, b: &List<'_>) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let semantics = if matches!(a.semantics(), ListSemantics::Atomic) { b.semantics() } else { a.semantics() };
    match semantics {
        ListSemantics::Atomic => a.iter().zip(b.iter()).all(|(a, b)| equal(&a, &b)),
        ListSemantics::Set => {
            let known: BTreeSet<String> = b.iter().map(|item| text(&item)).collect();
            a.iter().all(|item| known.contains(&text(&item)))
        }
        ListSemantics::Map(keys) => {
            let known: BTreeMap<String, Value<'_>> = b.iter().map(|item| (key_text(&item, keys), item)).collect();
            a.iter().all(|item| known.get(&key_text(&item, keys)).is_some_and(|other| equal(&item, other)))
        }
    }
}

/// A value as text, to find equal ones by: lists may be long.
fn text(value: &Value<'_>) -> String {
    value.to_json().map(|tree| tree.to_string()).unwrap_or_default()
}

/// The keys of an item of a list map, as text.
fn key_text(item: &Value<'_>, keys: &[String]) -> String {
    let at = |key: &String| match item {
        Value::Map(Map::Json { entries, .. } | Map::Object { entries, .. }) => entries.get(key).map(ToString::to_string),
        Value::Map(map) => map.get(&Key::str(key)).map(|v| text(&v)),
        _ => None,
    };
    keys.iter().map(|key| at(key).unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn maps_equal(a: &Map<'_>, b: &Map<'_>) -> bool {
    // Objects compare whole, with what their schemas do not know.
    if let (Map::Object { entries: x, .. }, Map::Object { entries: y, .. }) = (a, b)
        && x.len() != y.len()
    {
        return false;
    }
    a.len() == b.len()
        && a.keys().all(|key| match (a.get(&key), b.get(&key)) {
            (Some(x), Some(y)) => equal(&x, &y),
            _ => false,
        })
}

/// Whether an overload compares what two values hold, so that it costs as much as the smaller one has.
pub(crate) fn compares_contents(overload: &str) -> bool {
    matches!(
        overload,
        "less_string"
            | "greater_string"
            | "less_equals_string"
            | "greater_equals_string"
            | "less_bytes"
            | "greater_bytes"
            | "less_equals_bytes"
            | "greater_equals_bytes"
            | "equals"
            | "not_equals"
    )
}
