//! The libraries: rows of the function table with what runs them. One file each.

use crate::decls::Row;
use crate::error::EvalError;
use crate::value::Value;

mod addresses;
mod authz;
mod convert;
mod format;
mod lists;
mod lists_extension;
mod operators;
mod optional;
mod quantity;
mod semver;
mod sets;
mod standard;
pub(crate) mod strings;
mod text_format;
mod times;
mod url;

pub(crate) use convert::text_of;
pub(crate) use format::regex_size;
pub(crate) use operators::{compare, compares_contents, equal};
pub(crate) use semver::Version;
pub(crate) use standard::insert_into;

pub(crate) static ROWS: &[&[Row]] = &[
    operators::ROWS,
    standard::ROWS,
    convert::ROWS,
    times::ROWS,
    optional::ROWS,
    strings::ROWS,
    lists::ROWS,
    lists_extension::ROWS,
    sets::ROWS,
    url::ROWS,
    addresses::ROWS,
    quantity::ROWS,
    semver::ROWS,
    format::ROWS,
    authz::ROWS,
];

/// The longest text a call may make, bytes. Inputs are a few megabytes at most: more is an attack.
pub(crate) const TEXT_MAX: usize = 16 << 20;
/// The longest list a call may make.
pub(crate) const LIST_MAX: usize = 1 << 20;

/// For results beyond what an evaluation may hold.
pub(crate) fn bounded(size: usize, max: usize) -> Result<(), EvalError> {
    if size > max { Err(EvalError::call_limit()) } else { Ok(()) }
}

pub(crate) fn str_arg<'v>(value: &'v Value<'_>) -> Result<&'v str, EvalError> {
    value.as_str().ok_or_else(EvalError::no_such_overload)
}

pub(crate) fn int_arg(value: &Value<'_>) -> Result<i64, EvalError> {
    match value {
        Value::Int(n) => Ok(*n),
        _ => Err(EvalError::no_such_overload()),
    }
}
