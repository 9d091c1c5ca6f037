//! The keywords that look at one value: lengths, patterns, formats, bounds, counts. Their texts are `kube-openapi`'s.

use serde_json::{Number, Value};

use super::Checks;
use super::numbers::{Num, is_multiple};
use super::validate::At;
use crate::field::{Error, ErrorList, ErrorType, go_float, go_quote};

/// `must be of type string: "integer"`
pub(super) fn invalid_type(at: At<'_>, wanted: &str, found: &str) -> Error {
    let found = go_quote(found);
    let detail = format!("{} in body must be of type {wanted}: {found}", at.trail);
    at.error(ErrorType::TypeInvalid, found, detail)
}

/// An error that upstream knows no field of.
pub(super) fn plain(at: At<'_>, text: String) -> Error {
    let field = at.place.text();
    Error { kind: ErrorType::Invalid, field, value: go_quote(""), detail: text }
}

fn invalid(at: At<'_>, value: String, rest: &str) -> Error {
    at.error(ErrorType::Invalid, value, format!("{} in body {rest}", at.trail))
}

/// The first of length, pattern that fails; and the format.
pub(super) fn string(checks: &Checks, text: &str, at: At<'_>) -> ErrorList {
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let mut errors = ErrorList::new();
    if let Some(max) = checks.max_length.filter(|max| length > *max) {
        errors.push(at.error(ErrorType::TooLong, String::new(), too_long(max)));
    } else if let Some(min) = checks.min_length.filter(|min| length < *min) {
        errors.push(invalid(at, go_quote(text), &format!("should be at least {min} chars long")));
    } else if let Some(pattern) = &checks.pattern {
        let shown = match pattern.matches(text) {
            Ok(true) => None,
            Ok(false) => Some(pattern.text.clone()),
            Err(why) => Some(format!("{}, but pattern is invalid: {why}", pattern.text)),
        };
        errors.extend(shown.map(|shown| invalid(at, go_quote(text), &format!("should match '{shown}'"))));
    }
    if super::formats::rule(&checks.format).is_some_and(|holds| !holds(text)) {
        errors.push(invalid_type(at, &checks.format, text));
    }
    errors
}

fn too_long(max: i64) -> String {
    let noun = if max == 1 { "byte" } else { "bytes" };
    format!("may not be more than {max} {noun}")
}

/// Multiples and bounds.
pub(super) fn number(checks: &Checks, number: &Number, at: At<'_>) -> ErrorList {
    let data = Num::of(number);
    let shown = match data {
        Num::Int(n) => n.to_string(),
        Num::Float(f) => go_float(f),
    };
    let mut errors = ErrorList::new();
    if let Some(factor) = checks.multiple_of {
        errors.extend(multiple(data, factor, &shown, at));
    }
    // Whole numbers are compared with the bound cut to a whole number.
    let bound = |limit: f64| match data {
        Num::Int(_) => Num::Int(limit as i64),
        Num::Float(_) => Num::Float(limit),
    };
    if let Some(limit) = checks.minimum.map(bound) {
        let (above, equal) = compare(data, limit);
        if (!above && !equal) || (equal && checks.exclusive_minimum) {
            let or_equal = if checks.exclusive_minimum { "" } else { " or equal to" };
            errors.push(invalid(at, shown.clone(), &format!("should be greater than{or_equal} {}", text(limit))));
        }
    }
    if let Some(limit) = checks.maximum.map(bound) {
        let (above, equal) = compare(data, limit);
        if above || (equal && checks.exclusive_maximum) {
            let or_equal = if checks.exclusive_maximum { "" } else { " or equal to" };
            errors.push(invalid(at, shown, &format!("should be less than{or_equal} {}", text(limit))));
        }
    }
    errors
}

fn text(number: Num) -> String {
    match number {
        Num::Int(n) => n.to_string(),
        Num::Float(f) => go_float(f),
    }
}

/// Whether `a` is greater than, or equal to, `b`.
fn compare(a: Num, b: Num) -> (bool, bool) {
    match (a, b) {
        (Num::Int(a), Num::Int(b)) => (a > b, a == b),
        (a, b) => (a.float() > b.float(), a.float() == b.float()),
    }
}

fn multiple(data: Num, factor: f64, shown: &str, at: At<'_>) -> Option<Error> {
    if factor < 0.0 {
        let text = format!("factor MultipleOf declared for {} must be positive: {}", at.trail, go_float(factor));
        return Some(at.error(ErrorType::Invalid, go_float(factor), text));
    }
    let (holds, factor_text) = match data {
        Num::Int(n) if factor >= 1.0 => (n % (factor as i64) == 0, (factor as i64).to_string()),
        _ => (is_multiple(data.float(), factor), go_float(factor)),
    };
    (!holds).then(|| invalid(at, shown.to_owned(), &format!("should be a multiple of {factor_text}")))
}

/// Counts of items, and whether they are unique.
pub(super) fn items(checks: &Checks, items: &[Value], at: At<'_>) -> ErrorList {
    let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let mut errors = ErrorList::new();
    if let Some(min) = checks.min_items.filter(|min| count < *min) {
        errors.push(invalid(at, count.to_string(), &format!("should have at least {min} items")));
    }
    if let Some(max) = checks.max_items.filter(|max| count > *max) {
        errors.push(at.error(ErrorType::TooMany, count.to_string(), too_many(max)));
    }
    if checks.unique_items {
        let distinct: std::collections::BTreeSet<String> = items.iter().map(Value::to_string).collect();
        if distinct.len() < items.len() {
            errors.push(invalid(at, go_quote(""), "shouldn't contain duplicates"));
        }
    }
    errors
}

fn too_many(max: i64) -> String {
    let noun = if max == 1 { "item" } else { "items" };
    format!("must have at most {max} {noun}")
}

/// Too few or too many properties.
pub(super) fn property_count(checks: &Checks, count: usize, at: At<'_>) -> ErrorList {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let mut errors = ErrorList::new();
    if let Some(min) = checks.min_properties.filter(|min| count < *min) {
        errors.push(invalid(at, count.to_string(), &format!("should have at least {min} properties")));
    }
    if let Some(max) = checks.max_properties.filter(|max| count > *max) {
        errors.push(at.error(ErrorType::TooMany, count.to_string(), too_many(max)));
    }
    errors
}
