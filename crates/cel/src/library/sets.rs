//! Lists as sets: `sets.contains`, `sets.equivalent`, `sets.intersects`.

use crate::decls::Row;
use crate::error::EvalError;
use crate::library::equal;
use crate::value::{List, Value};

type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(crate) const ROWS: &[Row] = &[
    ("sets.contains", |_, a| on_lists(a, contains), &[("list_sets_contains_list", "(list(A), list(A)) -> bool")]),
    (
        "sets.equivalent",
        |_, a| on_lists(a, |x, y| contains(x, y) && contains(y, x)),
        &[("list_sets_equivalent_list", "(list(A), list(A)) -> bool")],
    ),
    ("sets.intersects", |_, a| on_lists(a, intersects), &[("list_sets_intersects_list", "(list(A), list(A)) -> bool")]),
];

fn on_lists<'a>(args: &[Value<'a>], holds: fn(&List<'a>, &List<'a>) -> bool) -> Outcome<'a> {
    match args {
        [Value::List(a), Value::List(b)] => Ok(Value::Bool(holds(a, b))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn contains(all: &List<'_>, some: &List<'_>) -> bool {
    some.iter().all(|item| all.iter().any(|other| equal(&item, &other)))
}

fn intersects(a: &List<'_>, b: &List<'_>) -> bool {
    a.iter().any(|item| b.iter().any(|other| equal(&item, &other)))
}
