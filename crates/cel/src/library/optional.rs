//! Optional values. `or` and `orValue` are the evaluator's: they evaluate their argument only when needed.

use std::sync::Arc;

use crate::decls::Row;
use crate::error::EvalError;
use crate::regexes::Regexes;
use crate::value::Value;

type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(crate) const ROWS: &[Row] = &[
    ("optional.of", of, &[("optional_of", "(A) -> optional(A)")]),
    ("optional.ofNonZeroValue", of_non_zero, &[("optional_ofNonZeroValue", "(A) -> optional(A)")]),
    ("optional.none", none, &[("optional_none", "() -> optional(A)")]),
    ("optional.unwrap", unwrap, &[("optional_unwrap", "(list(optional(A))) -> list(A)")]),
    ("unwrapOpt", unwrap, &[("optional_unwrapOpt", "list(optional(A)).() -> list(A)")]),
    ("value", value, &[("optional_value", "optional(A).() -> A")]),
    ("hasValue", has_value, &[("optional_hasValue", "optional(A).() -> bool")]),
    ("or", value, &[("optional_or_optional", "optional(A).(optional(A)) -> optional(A)")]),
    ("orValue", value, &[("optional_orValue_value", "optional(A).(A) -> A")]),
    ("first", first, &[("list_first", "list(A).() -> optional(A)")]),
    ("last", last, &[("list_last", "list(A).() -> optional(A)")]),
];

fn of<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Optional(Some(Arc::new(args[0].clone()))))
}

fn of_non_zero<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let zero = match &args[0] {
        Value::Null | Value::Optional(None) => true,
        Value::Bool(b) => !b,
        Value::Int(n) => *n == 0,
        Value::Uint(n) => *n == 0,
        Value::Double(d) => *d == 0.0,
        Value::Duration(d) => *d == 0,
        other => other.size() == Some(0),
    };
    Ok(Value::Optional((!zero).then(|| Arc::new(args[0].clone()))))
}

fn none<'a>(_: &mut Regexes<'_>, _: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Optional(None))
}

fn unwrap<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let Value::List(list) = &args[0] else { return Err(EvalError::no_such_overload()) };
    let there = list.iter().filter_map(|item| match item {
        Value::Optional(inner) => inner.map(|v| (*v).clone()),
        other => Some(other),
    });
    Ok(Value::list(there.collect()))
}

fn value<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Optional(Some(value)) => Ok((**value).clone()),
        Value::Optional(None) => Err(EvalError::new("optional.none() dereference")),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn has_value<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Optional(inner) => Ok(Value::Bool(inner.is_some())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn first<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let Value::List(list) = &args[0] else { return Err(EvalError::no_such_overload()) };
    Ok(Value::Optional(list.get(0).map(Arc::new)))
}

fn last<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let Value::List(list) = &args[0] else { return Err(EvalError::no_such_overload()) };
    Ok(Value::Optional(list.len().checked_sub(1).and_then(|at| list.get(at)).map(Arc::new)))
}
