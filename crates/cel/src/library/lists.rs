//! Kubernetes' own functions on lists: order, sums, extremes, positions.

use std::cmp::Ordering;

use crate::decls::Row;
use crate::error::EvalError;
use crate::library::{compare, equal, strings};
use crate::regexes::Regexes;
use crate::value::{List, Value};

type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(crate) const ROWS: &[Row] = &[
    (
        "isSorted",
        is_sorted,
        &[
            ("list_int_is_sorted_bool", "list(int).() -> bool"),
            ("list_uint_is_sorted_bool", "list(uint).() -> bool"),
            ("list_double_is_sorted_bool", "list(double).() -> bool"),
            ("list_bool_is_sorted_bool", "list(bool).() -> bool"),
            ("list_duration_is_sorted_bool", "list(duration).() -> bool"),
            ("list_timestamp_is_sorted_bool", "list(timestamp).() -> bool"),
            ("list_string_is_sorted_bool", "list(string).() -> bool"),
            ("list_bytes_is_sorted_bool", "list(bytes).() -> bool"),
        ],
    ),
    ("sum", |_, a| sum(a, Value::Int(0)), &[("list_int_sum_int", "list(int).() -> int")]),
    ("sum", |_, a| sum(a, Value::Uint(0)), &[("list_uint_sum_uint", "list(uint).() -> uint")]),
    ("sum", |_, a| sum(a, Value::Double(0.0)), &[("list_double_sum_double", "list(double).() -> double")]),
    ("sum", |_, a| sum(a, Value::Duration(0)), &[("list_duration_sum_duration", "list(duration).() -> duration")]),
    (
        "max",
        |_, a| extreme(a, Ordering::Greater, "max"),
        &[
            ("list_int_max_int", "list(int).() -> int"),
            ("list_uint_max_uint", "list(uint).() -> uint"),
            ("list_double_max_double", "list(double).() -> double"),
            ("list_bool_max_bool", "list(bool).() -> bool"),
            ("list_duration_max_duration", "list(duration).() -> duration"),
            ("list_timestamp_max_timestamp", "list(timestamp).() -> timestamp"),
            ("list_string_max_string", "list(string).() -> string"),
            ("list_bytes_max_bytes", "list(bytes).() -> bytes"),
        ],
    ),
    (
        "min",
        |_, a| extreme(a, Ordering::Less, "min"),
        &[
            ("list_int_min_int", "list(int).() -> int"),
            ("list_uint_min_uint", "list(uint).() -> uint"),
            ("list_double_min_double", "list(double).() -> double"),
            ("list_bool_min_bool", "list(bool).() -> bool"),
            ("list_duration_min_duration", "list(duration).() -> duration"),
            ("list_timestamp_min_timestamp", "list(timestamp).() -> timestamp"),
            ("list_string_min_string", "list(string).() -> string"),
            ("list_bytes_min_bytes", "list(bytes).() -> bytes"),
        ],
    ),
    (
        "indexOf",
        index_of,
        &[
            ("list_a_index_of_int", "list(A).(A) -> int"),
            ("string_index_of_string", "string.(string) -> int"),
            ("string_index_of_string_int", "string.(string, int) -> int"),
        ],
    ),
    (
        "lastIndexOf",
        last_index_of,
        &[
            ("list_a_last_index_of_int", "list(A).(A) -> int"),
            ("string_last_index_of_string", "string.(string) -> int"),
            ("string_last_index_of_string_int", "string.(string, int) -> int"),
        ],
    ),
];

fn list<'v, 'a>(value: &'v Value<'a>) -> Result<&'v List<'a>, EvalError> {
    match value {
        Value::List(list) => Ok(list),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn is_sorted<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let mut previous: Option<Value<'_>> = None;
    for item in list(&args[0])?.iter() {
        if let Some(previous) = &previous {
            let order = compare(previous, &item).ok_or_else(EvalError::no_such_overload)?;
            if order == Ordering::Greater {
                return Ok(Value::Bool(false));
            }
        }
        previous = Some(item);
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(args: &[Value<'a>], zero: Value<'a>) -> Outcome<'a> {
    let mut total = zero;
    for item in list(&args[0])?.iter() {
        total = match (&total, &item) {
            (Value::Int(a), Value::Int(b)) => a.checked_add(*b).map(Value::Int),
            (Value::Uint(a), Value::Uint(b)) => a.checked_add(*b).map(Value::Uint),
            (Value::Duration(a), Value::Duration(b)) => a.checked_add(*b).map(Value::Duration),
            (Value::Double(a), Value::Double(b)) => Some(Value::Double(a + b)),
            _ => return Err(EvalError::no_such_overload()),
        }
        .ok_or_else(|| EvalError::new("integer overflow"))?;
    }
    Ok(total)
}

fn extreme<'a>(args: &[Value<'a>], keep: Ordering, name: &str) -> Outcome<'a> {
    let mut best: Option<Value<'a>> = None;
    for item in list(&args[0])?.iter() {
        let better = match &best {
            None => true,
            Some(best) => compare(&item, best).ok_or_else(EvalError::no_such_overload)? == keep,
        };
        if better {
            best = Some(item);
        }
    }
    best.ok_or_else(|| EvalError::new(format!("{name} called on empty list")))
}

fn at<'a>(position: Option<usize>) -> Outcome<'a> {
    Ok(Value::Int(position.and_then(|p| i64::try_from(p).ok()).unwrap_or(-1)))
}

fn index_of<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::List(list) => at(list.iter().position(|item| equal(&item, &args[1]))),
        _ => strings::index_of(args),
    }
}

fn last_index_of<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::List(list) => at((0..list.len()).rev().find(|i| list.get(*i).is_some_and(|item| equal(&item, &args[1])))),
        _ => strings::last_index_of(args),
    }
}
