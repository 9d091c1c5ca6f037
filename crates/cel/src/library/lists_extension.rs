//! cel-go's extension of lists, version 3: parts of lists, lists in order, lists without repetitions. `sortBy` is a macro over
//! `@sortByAssociatedKeys`.

use crate::decls::Row;
use crate::error::EvalError;
use crate::library::{LIST_MAX, bounded, compare, equal, int_arg};
use crate::regexes::Regexes;
use crate::value::{List, Value};

type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(crate) const ROWS: &[Row] = &[
    ("slice", slice, &[("list_slice", "list(A).(int, int) -> list(A)")]),
    ("flatten", flatten, &[("list_flatten", "list(list(A)).() -> list(A)"), ("list_flatten_int", "list(dyn).(int) -> list(dyn)")]),
    (
        "sort",
        |_, a| sort_by(list(&a[0])?, list(&a[0])?),
        &[
            ("list_int_sort", "list(int).() -> list(int)"),
            ("list_uint_sort", "list(uint).() -> list(uint)"),
            ("list_double_sort", "list(double).() -> list(double)"),
            ("list_bool_sort", "list(bool).() -> list(bool)"),
            ("list_google.protobuf.Duration_sort", "list(duration).() -> list(duration)"),
            ("list_google.protobuf.Timestamp_sort", "list(timestamp).() -> list(timestamp)"),
            ("list_string_sort", "list(string).() -> list(string)"),
            ("list_bytes_sort", "list(bytes).() -> list(bytes)"),
        ],
    ),
    (
        "@sortByAssociatedKeys",
        |_, a| sort_by(list(&a[0])?, list(&a[1])?),
        &[
            ("list_int_sortByAssociatedKeys", "list(A).(list(int)) -> list(A)"),
            ("list_uint_sortByAssociatedKeys", "list(A).(list(uint)) -> list(A)"),
            ("list_double_sortByAssociatedKeys", "list(A).(list(double)) -> list(A)"),
            ("list_bool_sortByAssociatedKeys", "list(A).(list(bool)) -> list(A)"),
            ("list_google.protobuf.Duration_sortByAssociatedKeys", "list(A).(list(duration)) -> list(A)"),
            ("list_google.protobuf.Timestamp_sortByAssociatedKeys", "list(A).(list(timestamp)) -> list(A)"),
            ("list_string_sortByAssociatedKeys", "list(A).(list(string)) -> list(A)"),
            ("list_bytes_sortByAssociatedKeys", "list(A).(list(bytes)) -> list(A)"),
        ],
    ),
    ("lists.range", range, &[("lists_range", "(int) -> list(int)")]),
    ("reverse", reverse, &[("list_reverse", "list(A).() -> list(A)")]),
    ("distinct", distinct, &[("list_distinct", "list(A).() -> list(A)")]),
];

fn list<'v, 'a>(value: &'v Value<'a>) -> Result<&'v List<'a>, EvalError> {
    match value {
        Value::List(list) => Ok(list),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn slice<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (list, from, to) = (list(&args[0])?, int_arg(&args[1])?, int_arg(&args[2])?);
    let refused = |why: String| Err(EvalError::new(format!("cannot slice({from}, {to}), {why}")));
    let (Ok(start), Ok(end)) = (usize::try_from(from), usize::try_from(to)) else {
        return refused("negative indexes not supported".to_owned());
    };
    if start > end {
        return refused("start index must be less than or equal to end index".to_owned());
    }
    if list.len() < end {
        return refused(format!("list is length {}", list.len()));
    }
    Ok(Value::list((start..end).filter_map(|at| list.get(at)).collect()))
}

fn flatten<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let depth = args.get(1).map_or(Ok(1), int_arg)?;
    if depth < 0 {
        return Err(EvalError::new("level must be non-negative"));
    }
    let mut out = Vec::new();
    flatten_into(&mut out, list(&args[0])?, depth)?;
    Ok(Value::list(out))
}

/// Values nest no deeper than the JSON and the expressions they come from.
fn flatten_into<'a>(out: &mut Vec<Value<'a>>, list: &List<'a>, depth: i64) -> Result<(), EvalError> {
    for item in list.iter() {
        match &item {
            Value::List(inner) if depth > 0 => flatten_into(out, inner, depth - 1)?,
            _ => out.push(item),
        }
        bounded(out.len(), LIST_MAX)?;
    }
    Ok(())
}

fn sort_by<'a>(list: &List<'a>, keys: &List<'a>) -> Outcome<'a> {
    let Some(first) = keys.get(0) else { return Ok(Value::List(list.clone())) };
    if !matches!(
        first,
        Value::Int(_)
            | Value::Uint(_)
            | Value::Double(_)
            | Value::Bool(_)
            | Value::Duration(_)
            | Value::Timestamp(_)
            | Value::String(_)
            | Value::Bytes(_)
    ) {
        return Err(EvalError::new("list elements must be comparable"));
    }
    let kind = first.type_name();
    let mut pairs: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(list.len());
    for (key, item) in keys.iter().zip(list.iter()) {
        if key.type_name() != kind {
            return Err(EvalError::new("list elements must have the same type"));
        }
        pairs.push((key, item));
    }
    pairs.sort_by(|(a, _), (b, _)| compare(a, b).unwrap_or(std::cmp::Ordering::Equal));
    Ok(Value::list(pairs.into_iter().map(|(_, item)| item).collect()))
}

fn range<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let n = int_arg(&args[0])?;
    let Ok(size) = usize::try_from(n) else {
        return Err(EvalError::new(format!("lists.range: size must be non-negative, got {n}")));
    };
    bounded(size, LIST_MAX)?;
    Ok(Value::list((0..n).map(Value::Int).collect()))
}

fn reverse<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let list = list(&args[0])?;
    Ok(Value::list((0..list.len()).rev().filter_map(|at| list.get(at)).collect()))
}

fn distinct<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let mut out: Vec<Value<'a>> = Vec::new();
    for item in list(&args[0])?.iter() {
        if !out.iter().any(|seen| equal(seen, &item)) {
            out.push(item);
        }
    }
    Ok(Value::list(out))
}
