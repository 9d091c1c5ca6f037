//! Rules that many kinds use. Each appends to the list of errors and is one line to call.

use std::collections::BTreeSet;

use machinery::names::{self, Problems};
use machinery::quantity::Quantity;
use serde_json::{Value, json};

use super::tree::{entries, int, list, opt, s};
use super::{Error, ErrorList, Path};

/// One error per problem of a value.
pub fn named(path: &Path<'_>, value: &str, problems: Problems, e: &mut ErrorList) {
    e.extend(problems.into_iter().map(|p| Error::invalid_str(path, value, p)));
}

/// The value must be a DNS-1123 label; empty is no label either.
pub fn dns_label(path: &Path<'_>, value: &str, e: &mut ErrorList) {
    named(path, value, names::dns1123_label(value), e);
}

pub fn dns_subdomain(path: &Path<'_>, value: &str, e: &mut ErrorList) {
    named(path, value, names::dns1123_subdomain(value), e);
}

pub fn qualified(path: &Path<'_>, value: &str, e: &mut ErrorList) {
    named(path, value, names::qualified_name(value), e);
}

/// A field that must not be empty.
pub fn required(v: &Value, key: &str, p: &Path<'_>, e: &mut ErrorList) -> bool {
    let there = match opt(v, key) {
        None => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(_) | Value::Bool(_) | Value::Number(_) | Value::Null) => true,
    };
    if !there {
        e.push(Error::required(&p.child(key), ""));
    }
    there
}

/// One of `allowed`, which are in the order upstream prints them.
pub fn one_of(path: &Path<'_>, value: &str, allowed: &[&str], e: &mut ErrorList) {
    if !allowed.contains(&value) {
        e.push(Error::not_supported(path, &json!(value), allowed));
    }
}

/// Required, and one of `allowed`.
pub fn required_one_of(v: &Value, key: &str, p: &Path<'_>, allowed: &[&str], e: &mut ErrorList) {
    match s(v, key) {
        "" => e.push(Error::required(&p.child(key), "")),
        value => one_of(&p.child(key), value, allowed, e),
    }
}

/// Optional, but one of `allowed` where given.
pub fn optional_one_of(v: &Value, key: &str, p: &Path<'_>, allowed: &[&str], e: &mut ErrorList) {
    if let Some(value) = opt(v, key).and_then(Value::as_str) {
        one_of(&p.child(key), value, allowed, e);
    }
}

/// Not negative, where given.
pub fn non_negative(v: &Value, key: &str, p: &Path<'_>, e: &mut ErrorList) {
    if let Some(n) = int(v, key).filter(|n| *n < 0) {
        e.push(Error::invalid(&p.child(key), &json!(n), NON_NEGATIVE));
    }
}

pub const NON_NEGATIVE: &str = "must be greater than or equal to 0";

/// Greater than zero, where given.
pub fn positive(v: &Value, key: &str, p: &Path<'_>, e: &mut ErrorList) {
    if let Some(n) = int(v, key).filter(|n| *n <= 0) {
        e.push(Error::invalid(&p.child(key), &json!(n), "must be greater than zero"));
    }
}

/// Within bounds, where given.
pub fn in_range(v: &Value, key: &str, p: &Path<'_>, low: i64, high: i64, e: &mut ErrorList) {
    if let Some(n) = int(v, key).filter(|n| !(low..=high).contains(n)) {
        e.push(Error::invalid(&p.child(key), &json!(n), names::inclusive_range(low, high)));
    }
}

/// `1` to `65535`.
pub fn port(path: &Path<'_>, n: i64, e: &mut ErrorList) {
    if !(1..=65535).contains(&n) {
        e.push(Error::invalid(path, &json!(n), names::inclusive_range(1, 65535)));
    }
}

/// A port number or name (`ValidatePortNumOrName`).
pub fn port_or_name(v: Option<&Value>, path: &Path<'_>, e: &mut ErrorList) {
    match v {
        Some(Value::String(name)) => named(path, name, names::port_name(name), e),
        Some(Value::Number(n)) => port(path, n.as_i64().unwrap_or(0), e),
        _ => port(path, 0, e),
    }
}

/// An address in a field older than strict parsing (`IsValidIPForLegacyField`): strict, but for what was there before.
pub fn legacy_ip(path: &Path<'_>, value: &str, kept: &[&str], e: &mut ErrorList) {
    e.extend(machinery::names_net::ip_legacy(path, value, !kept.contains(&value)));
}

/// The same of a network (`IsValidCIDRForLegacyField`).
pub fn legacy_cidr(path: &Path<'_>, value: &str, kept: &[&str], e: &mut ErrorList) {
    e.extend(machinery::names_net::cidr_legacy(path, value, !kept.contains(&value)));
}

/// A label map in a spec.
pub fn labels(v: &Value, key: &str, p: &Path<'_>, e: &mut ErrorList) {
    machinery::metadata::labels(v.get(key), &p.child(key), e);
}

/// A field that may not change (`ValidateImmutableField`).
pub fn immutable(new: &Value, old: &Value, key: &str, p: &Path<'_>, e: &mut ErrorList) {
    if !super::tree::same(opt(new, key), opt(old, key)) {
        e.push(Error::invalid(&p.child(key), opt(new, key).unwrap_or(&Value::Null), IMMUTABLE));
    }
}

pub const IMMUTABLE: &str = "field is immutable";

/// Keys met so far, so that a list of any length is judged in a time that its length bounds.
pub struct Seen<T>(BTreeSet<T>);

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<T: Ord> Seen<T> {
    /// Whether it was met before; from now on it was.
    pub fn again(&mut self, key: T) -> bool {
        !self.0.insert(key)
    }
}

/// Repeated values of one field in a list: `Duplicate value` at each later one.
pub fn unique<'a>(items: &'a [Value], key: &str, p: &Path<'_>, e: &mut ErrorList) {
    let mut seen: Seen<&'a str> = Seen::default();
    for (i, item) in items.iter().enumerate() {
        let value = s(item, key);
        if seen.again(value) {
            e.push(Error::duplicate(&p.index(i).child(key), &json!(value)));
        }
    }
}

/// A quantity in a tree; texts that do not parse were refused by decoding.
pub fn quantity(v: &Value) -> Option<Quantity> {
    match v {
        Value::String(text) => Quantity::parse(text.trim()).ok(),
        Value::Number(n) => Quantity::parse(&n.to_string()).ok(),
        _ => None,
    }
}

pub fn quantity_at(v: &Value, key: &str) -> Option<Quantity> {
    v.get(key).and_then(quantity)
}

/// `ValidateNonnegativeQuantity`.
pub fn non_negative_quantity(path: &Path<'_>, q: Quantity, e: &mut ErrorList) {
    if q.sign() < 0 {
        e.push(Error::invalid_str(path, &q.to_string(), NON_NEGATIVE));
    }
}

/// A resource list's entries with parsed amounts.
pub fn resource_entries<'a>(v: &'a Value, key: &str) -> impl Iterator<Item = (&'a str, Quantity)> {
    entries(v, key).map(|(k, q)| (k.as_str(), quantity(q).unwrap_or_default()))
}

/// Problems at a path for each string in a list.
pub fn each_string(v: &Value, key: &str, p: &Path<'_>, rule: fn(&str) -> Problems, e: &mut ErrorList) {
    let at = p.child(key);
    for (i, item) in list(v, key).iter().enumerate() {
        let text = item.as_str().unwrap_or("");
        named(&at.index(i), text, rule(text), e);
    }
}

/// Several quoted names in Go's `%q` of a slice: `["A" "B"]`.
pub fn go_slice(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|v| machinery::field::go_quote(v)).collect();
    format!("[{}]", quoted.join(" "))
}
