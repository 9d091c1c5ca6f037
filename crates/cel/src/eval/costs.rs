//! What calls cost when they run: cel-go's `CostTracker` and Kubernetes' `CostEstimator.CallCost`.

use serde_json::Value as Json;

use crate::library::regex_size;
use crate::opaque::Opaque;
use crate::value::{List, Map, Value};

pub(crate) const LIST: u64 = 10;
pub(crate) const MAP: u64 = 30;
pub(crate) const STRUCT: u64 = 40;
/// Of walking through one character.
pub(crate) const PER_CHAR: f64 = 0.1;
/// Of a regular expression, by its length.
pub(crate) const PER_REGEX_CHAR: f64 = 0.25;

fn size(value: &Value<'_>) -> u64 {
    match value {
        Value::Opaque(Opaque::Ip(ip)) => bytes(ip.is_ipv4()),
        Value::Opaque(Opaque::Cidr { prefix, .. }) => u64::from(*prefix).div_ceil(8),
        other => other.size().map_or(1, |n| n as u64),
    }
}

fn bytes(v4: bool) -> u64 {
    if v4 { 4 } else { 16 }
}

/// Parsing a selector of this many characters, and the list and the requirements it makes.
pub(crate) fn selector(length: u64) -> u64 {
    let requirements = times(times(length, 0.5), (LIST + STRUCT) as f64);
    LIST.saturating_add(times(length, PER_CHAR)).saturating_add(requirements)
}

/// Rounded up.
pub(crate) fn times(size: u64, factor: f64) -> u64 {
    let product = (size as f64 * factor).ceil();
    if product >= u64::MAX as f64 { u64::MAX } else { product as u64 }
}

/// Every part of a value counts.
fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(s) => (s.len() as f64 * PER_CHAR) as u64,
        Value::Bytes(b) => (b.len() as f64 * PER_CHAR) as u64,
        Value::List(list) => list.iter().map(|item| traversal(&item)).sum(),
        Value::Map(map) => map.keys().map(|k| traversal(&k.value()) + map.get(&k).map_or(0, |v| traversal(&v))).sum(),
        _ => 1,
    }
}

/// Parts of a tree.
fn parts(tree: &Json) -> u64 {
    match tree {
        Json::Array(items) => 1 + items.iter().map(parts).sum::<u64>(),
        Json::Object(entries) => 1 + entries.values().map(parts).sum::<u64>(),
        _ => 1,
    }
}

/// Parts of a value.
fn weight(value: &Value<'_>) -> u64 {
    match value {
        Value::List(List::Json { items, .. }) => 1 + items.iter().map(parts).sum::<u64>(),
        Value::List(List::Owned(items)) => 1 + items.iter().map(weight).sum::<u64>(),
        Value::Map(Map::Json { entries, .. } | Map::Object { entries, .. }) => 1 + entries.values().map(parts).sum::<u64>(),
        Value::Map(Map::Owned(entries)) => 1 + entries.values().map(weight).sum::<u64>(),
        Value::Struct(object) => 1 + object.fields.values().map(weight).sum::<u64>(),
        _ => 1,
    }
}

/// Comparisons a call makes beyond what it is charged for.
pub(super) fn work_of(function: &str, args: &[Value<'_>]) -> u64 {
    match (function, args) {
        ("_==_" | "_!=_", [a, b]) if a.size().is_some() && b.size().is_some() => weight(a).min(weight(b)),
        ("@in", [_, list]) | ("indexOf" | "lastIndexOf", [list, ..]) => weight(list),
        ("distinct", [list]) => weight(list).saturating_mul(weight(list)),
        ("sets.contains" | "sets.intersects" | "sets.equivalent", _) => product(args),
        // Lists may be merged by their keys.
        ("_+_", [a @ Value::List(_), b]) => weight(a).saturating_add(weight(b)),
        _ => 0,
    }
}

pub(super) fn of_call(function: &str, overload: &str, args: &[Value<'_>], result: Option<&Value<'_>>) -> u64 {
    of_lists(function, args, result).or_else(|| of_library(function, overload, args, result)).unwrap_or_else(|| of_standard(overload, args))
}

/// The extension of lists, which makes new ones.
fn of_lists(function: &str, args: &[Value<'_>], result: Option<&Value<'_>>) -> Option<u64> {
    let made = |factor: f64, size: u64| Some(((size as f64 * factor) as u64).saturating_add(1 + LIST));
    match (function, args) {
        ("slice" | "lists.range" | "reverse", _) => made(1.0, result.map_or(0, size)),
        ("flatten", [list, rest @ ..]) => {
            let depth = match rest.first() {
                Some(Value::Int(n)) => (*n).max(0),
                _ => 1,
            };
            made(depth as f64, size(list))
        }
        ("distinct" | "sort", [list]) | ("@sortByAssociatedKeys", [_, list]) => {
            let texts = matches!(list, Value::List(l) if matches!(l.get(0), Some(Value::String(_) | Value::Bytes(_))));
            made(if texts { 2.0 + PER_CHAR } else { 2.0 }, size(list).saturating_mul(size(list)))
        }
        _ => None,
    }
}

fn of_library(function: &str, overload: &str, args: &[Value<'_>], result: Option<&Value<'_>>) -> Option<u64> {
    let first = args.first();
    let walk = |factor: f64| first.map(|a| times(size(a), factor));
    match function {
        "check" => Some(350_000),
        // Of a text as long as this, so many requirements can be made.
        "fieldSelector" | "labelSelector" => args.get(1).map(|text| selector(size(text))),
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => Some(first.map_or(0, traversal)),
        "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "jsonpatch.escapeKey" => walk(PER_CHAR),
        "replace" | "split" => walk(2.0 * PER_CHAR),
        "join" => Some(result.map_or(1, |r| times(size(r), 2.0 * PER_CHAR))),
        "find" | "findAll" => Some(regex(args)),
        "ip" if overload == "cidr_ip" => Some(1),
        "ip" | "cidr" | "isIP" | "isCIDR" | "quantity" | "isQuantity" | "semver" | "isSemver" => walk(PER_CHAR),
        "ip.isCanonical" => walk(2.0 * PER_CHAR),
        "containsIP" | "containsCIDR" => contains(function, overload, args),
        "validate" => match args {
            [Value::Opaque(Opaque::Format(name)), text] => {
                let pattern = times(regex_size(name), PER_REGEX_CHAR);
                Some((times(size(text) + 1, PER_CHAR)).saturating_mul(pattern))
            }
            _ => None,
        },
        "_==_" if args.iter().any(|a| matches!(a, Value::Opaque(_))) => Some(1),
        "sets.contains" | "sets.intersects" => Some(product(args).saturating_add(1)),
        "sets.equivalent" => Some(product(args).saturating_mul(2).saturating_add(1)),
        "format" | "strings.quote" => walk(PER_CHAR),
        _ => None,
    }
}

fn product(args: &[Value<'_>]) -> u64 {
    match args {
        [a, b] => size(a).saturating_mul(size(b)),
        _ => 0,
    }
}

fn regex(args: &[Value<'_>]) -> u64 {
    match args {
        [text, pattern, ..] => times(size(text) + 1, PER_CHAR).saturating_mul(times(size(pattern), PER_REGEX_CHAR)),
        _ => 1,
    }
}

fn contains(function: &str, overload: &str, args: &[Value<'_>]) -> Option<u64> {
    let [block, other] = args else { return None };
    let mut cost = times(size(block) * 2, PER_CHAR);
    if function == "containsCIDR" {
        cost += times(size(block), PER_CHAR) + 1;
    }
    if overload.ends_with("_string") {
        cost += times(size(other), PER_CHAR);
    }
    Some(cost)
}

fn of_standard(overload: &str, args: &[Value<'_>]) -> u64 {
    let at = |i: usize| args.get(i).map_or(1, size);
    match overload {
        "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string" => times(at(0), PER_CHAR),
        "in_list" => at(1),
        _ if crate::library::compares_contents(overload) => times(at(0).min(at(1)), PER_CHAR),
        "add_string" | "add_bytes" => times(at(0) + at(1), PER_CHAR),
        "matches_string" | "matches" => regex(args),
        "contains_string" => times(at(0), PER_CHAR).saturating_mul(times(at(1), PER_CHAR)),
        _ => 1,
    }
}
