//! Quantities: `quantity('200Mi').isLessThan(...)`.

use std::cmp::Ordering;

use machinery::quantity::{Format, Quantity};

use crate::decls::Row;
use crate::error::EvalError;
use crate::library::str_arg;
use crate::opaque::Opaque;
use crate::regexes::Regexes;
use crate::value::Value;

type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(crate) const ROWS: &[Row] = &[
    ("quantity", make, &[("string_to_quantity", "(string) -> Quantity")]),
    ("isQuantity", |_, a| Ok(Value::Bool(Quantity::parse(str_arg(&a[0])?).is_ok())), &[("is_quantity_string", "(string) -> bool")]),
    ("sign", |_, a| Ok(Value::Int(order(quantity(&a[0])?, Quantity::ZERO))), &[("quantity_sign", "(Quantity) -> int")]),
    ("isInteger", |_, a| Ok(Value::Bool(whole(quantity(&a[0])?).is_some())), &[("quantity_is_integer", "Quantity.() -> bool")]),
    ("asInteger", as_integer, &[("quantity_as_integer", "Quantity.() -> int")]),
    (
        "asApproximateFloat",
        |_, a| Ok(Value::Double(quantity(&a[0])?.as_f64())),
        &[("quantity_as_approximate_float", "Quantity.() -> double")],
    ),
    (
        "add",
        |_, a| arithmetic(a, 1),
        &[("quantity_add", "Quantity.(Quantity) -> Quantity"), ("quantity_add_int", "Quantity.(int) -> Quantity")],
    ),
    (
        "sub",
        |_, a| arithmetic(a, -1),
        &[("quantity_sub", "Quantity.(Quantity) -> Quantity"), ("quantity_sub_int", "Quantity.(int) -> Quantity")],
    ),
    ("isLessThan", |_, a| Ok(Value::Bool(compare(a)? < 0)), &[("quantity_is_less_than", "Quantity.(Quantity) -> bool")]),
    ("isGreaterThan", |_, a| Ok(Value::Bool(compare(a)? > 0)), &[("quantity_is_greater_than", "Quantity.(Quantity) -> bool")]),
    ("compareTo", |_, a| compare(a).map(Value::Int), &[("quantity_compare_to", "Quantity.(Quantity) -> int")]),
];

fn quantity(value: &Value<'_>) -> Result<Quantity, EvalError> {
    match value {
        Value::Opaque(Opaque::Quantity(q)) => Ok(*q),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn make<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let parsed = Quantity::parse(str_arg(&args[0])?).map_err(|why| EvalError::new(why.to_string()))?;
    Ok(Value::Opaque(Opaque::Quantity(parsed)))
}

fn order(a: Quantity, b: Quantity) -> i64 {
    match a.cmp(&b) {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    }
}

fn whole(q: Quantity) -> Option<i64> {
    let value = q.value();
    (Quantity::new(value, Format::DecimalSI) == q).then_some(value)
}

fn as_integer<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    whole(quantity(&args[0])?).map(Value::Int).ok_or_else(|| EvalError::new("cannot convert value to integer"))
}

fn arithmetic<'a>(args: &[Value<'a>], sign: i64) -> Outcome<'a> {
    let left = quantity(&args[0])?;
    let right = match &args[1] {
        Value::Int(n) => Quantity::new(*n, Format::DecimalSI),
        other => quantity(other)?,
    };
    Ok(Value::Opaque(Opaque::Quantity(if sign > 0 { left + right } else { left - right })))
}

fn compare(args: &[Value<'_>]) -> Result<i64, EvalError> {
    Ok(order(quantity(&args[0])?, quantity(&args[1])?))
}
