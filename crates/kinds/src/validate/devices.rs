//! Rules of `resource.k8s.io` that several of its kinds share: names of drivers, pools and attributes, and what a claim asks for.

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use super::rules::{Seen, dns_label, dns_subdomain, named, one_of};
use super::tree::{int0, list, opt, opt_s, s, strings};

pub const DRIVER_MAX_BYTES: usize = 63;
pub const POOL_MAX_BYTES: usize = 253;
const ID_MAX_BYTES: usize = 32;
const EXPRESSION_MAX_BYTES: usize = 10 * 1024;
const LIST_MAX: usize = 32;
const FIRST_AVAILABLE_MAX: usize = 8;
const RAW_MAX_BYTES: usize = 10 * 1024;
const ONE_REQUEST: &str = "exactly one of `exactly` or `firstAvailable` is required";
const NAME_REF: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// `validateDriverName`
pub fn driver_name(name: &str, p: &Path<'_>, e: &mut ErrorList) {
    if name.is_empty() {
        e.push(Error::required(p, ""));
        return;
    }
    if name.len() > DRIVER_MAX_BYTES {
        e.push(Error::too_long(p, DRIVER_MAX_BYTES));
    }
    named(p, name, names::dns1123_subdomain(&name.to_lowercase()), e);
}

/// `validatePoolName`: subdomains between slashes.
pub fn pool_name(name: &str, p: &Path<'_>, e: &mut ErrorList) {
    if name.is_empty() {
        e.push(Error::required(p, ""));
        return;
    }
    if name.len() > POOL_MAX_BYTES {
        e.push(Error::too_long(p, POOL_MAX_BYTES));
    }
    for part in name.split('/') {
        dns_subdomain(p, part, e);
    }
}

fn identifier(name: &str, p: &Path<'_>, e: &mut ErrorList) {
    if name.len() > ID_MAX_BYTES {
        e.push(Error::too_long(p, ID_MAX_BYTES));
    }
    named(p, name, names::c_identifier(name), e);
}

/// `validateQualifiedName`: `[domain/]identifier`.
pub fn qualified_name(name: &str, p: &Path<'_>, e: &mut ErrorList) {
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        [id] => identifier(id, p, e),
        [domain, id] => {
            if domain.is_empty() {
                e.push(Error::invalid_str(p, "", "the domain must not be empty"));
            } else {
                driver_name(domain, p, e);
            }
            if id.is_empty() {
                e.push(Error::invalid_str(p, "", "the name must not be empty"));
            } else {
                identifier(id, p, e);
            }
        }
        _ => e.push(Error::invalid_str(p, name, "must contain at most one slash")),
    }
}

fn fully_qualified(name: &str, p: &Path<'_>, e: &mut ErrorList) {
    qualified_name(name, p, e);
    if !name.contains('/') {
        e.push(Error::invalid_str(p, name, "a fully qualified name must be a domain and a name separated by a slash"));
    }
}

/// The items of a list of no more than `max`; a longer one's are not judged.
pub fn at_most<'a>(v: &'a Value, key: &str, p: &Path<'_>, max: usize, e: &mut ErrorList) -> &'a [Value] {
    let items = list(v, key);
    if items.len() <= max {
        return items;
    }
    e.push(Error::too_many(&p.child(key), items.len(), max));
    &[]
}

/// `Duplicate value` for each item whose key an earlier one has.
pub fn no_repeats<'a>(keys: impl Iterator<Item = &'a str>, p: &Path<'_>, e: &mut ErrorList) {
    let mut seen = Seen::default();
    for (i, key) in keys.enumerate() {
        if seen.again(key) {
            e.push(Error::duplicate(&p.index(i), &json!(key)));
        }
    }
}

fn texts(items: &[Value]) -> impl Iterator<Item = &str> {
    items.iter().filter_map(Value::as_str)
}

/// The names of items.
pub fn names_of(items: &[Value]) -> impl Iterator<Item = &str> {
    items.iter().map(|item| s(item, "name"))
}

/// `v.selectors`
pub fn selectors(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("selectors");
    for (i, selector) in at_most(v, "selectors", p, LIST_MAX, e).iter().enumerate() {
        let at_cel = at.index(i);
        match opt(selector, "cel") {
            None => e.push(Error::required(&at_cel.child("cel"), "")),
            Some(cel) if s(cel, "expression").len() > EXPRESSION_MAX_BYTES => {
                e.push(Error::too_long(&at_cel.child("cel").child("expression"), EXPRESSION_MAX_BYTES));
            }
            Some(cel) => crate::expressions::check_selector(s(cel, "expression"), &at_cel.child("cel").child("expression"), e),
        }
    }
}

/// A value that must be a JSON object (`validateRawExtension`).
pub fn raw_object(v: &Value, key: &str, p: &Path<'_>, e: &mut ErrorList) {
    match opt(v, key) {
        None => e.push(Error::required(&p.child(key), "")),
        Some(given) if given.to_string().len() > RAW_MAX_BYTES => e.push(Error::too_long(&p.child(key), RAW_MAX_BYTES)),
        Some(Value::Object(_)) => {}
        Some(_) => e.push(Error::invalid_str(&p.child(key), "<value omitted>", "must be a valid JSON object")),
    }
}

/// `validateDeviceConfiguration`
pub fn configuration(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("opaque");
    match opt(v, "opaque") {
        None => e.push(Error::required(&at, "")),
        Some(opaque) => {
            driver_name(s(opaque, "driver"), &at.child("driver"), e);
            raw_object(opaque, "parameters", &at, e);
        }
    }
}

/// The names by which the rest of a claim may speak of its requests.
pub fn request_names(devices: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for request in list(devices, "requests") {
        let name = s(request, "name");
        out.push(name.to_owned());
        out.extend(list(request, "firstAvailable").iter().map(|sub| format!("{name}/{}", s(sub, "name"))));
    }
    // An unnamed request cannot be spoken of.
    out.retain(|name| !name.is_empty());
    out
}

/// `validateRequestNameRef`
pub fn request_name_ref(name: &str, known: &[String], p: &Path<'_>, e: &mut ErrorList) {
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() <= 2 {
        for part in parts {
            dns_label(p, part, e);
        }
        if known.iter().any(|k| k == name) {
            return;
        }
    }
    e.push(Error::invalid_str(p, name, NAME_REF));
}

/// `v.requests` as references to the requests of a claim.
pub fn request_refs(v: &Value, known: &[String], p: &Path<'_>, e: &mut ErrorList) {
    let (at, all) = (p.child("requests"), at_most(v, "requests", p, LIST_MAX, e));
    for (i, name) in texts(all).enumerate() {
        request_name_ref(name, known, &at.index(i), e);
    }
    no_repeats(texts(all), &at, e);
}

/// `validateDeviceClaim`
pub fn claim(devices: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let known = request_names(devices);
    let (at, requests) = (p.child("requests"), at_most(devices, "requests", p, LIST_MAX, e));
    for (i, r) in requests.iter().enumerate() {
        request(r, &at.index(i), e);
    }
    no_repeats(names_of(requests), &at, e);
    let at = p.child("constraints");
    for (i, c) in at_most(devices, "constraints", p, LIST_MAX, e).iter().enumerate() {
        constraint(c, &known, &at.index(i), e);
    }
    let at = p.child("config");
    for (i, c) in at_most(devices, "config", p, LIST_MAX, e).iter().enumerate() {
        request_refs(c, &known, &at.index(i), e);
        configuration(c, &at.index(i), e);
    }
}

fn request(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    dns_label(&p.child("name"), s(v, "name"), e);
    let subs = list(v, "firstAvailable");
    match (opt(v, "exactly"), subs.is_empty()) {
        (None, true) => e.push(Error::required(p, ONE_REQUEST)),
        (Some(_), false) => {
            e.push(Error::invalid(p, &Value::Null, format!("{ONE_REQUEST}, but multiple fields are set")));
        }
        (Some(exactly), true) => one_request(exactly, &p.child("exactly"), e),
        (None, false) => {
            let (at, subs) = (p.child("firstAvailable"), at_most(v, "firstAvailable", p, FIRST_AVAILABLE_MAX, e));
            for (i, sub) in subs.iter().enumerate() {
                dns_label(&at.index(i).child("name"), s(sub, "name"), e);
                one_request(sub, &at.index(i), e);
            }
            no_repeats(names_of(subs), &at, e);
        }
    }
}

fn one_request(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    match s(v, "deviceClassName") {
        "" => e.push(Error::required(&p.child("deviceClassName"), "")),
        class => dns_subdomain(&p.child("deviceClassName"), class, e),
    }
    selectors(v, p, e);
    let (mode, count) = (s(v, "allocationMode"), int0(v, "count"));
    match mode {
        "All" if count != 0 => {
            let text = "must not be specified when allocationMode is 'All'";
            e.push(Error::invalid(&p.child("count"), &json!(count), text));
        }
        "ExactCount" if count <= 0 => e.push(Error::invalid(&p.child("count"), &json!(count), "must be greater than zero")),
        "All" | "ExactCount" => {}
        _ => e.push(Error::not_supported(&p.child("allocationMode"), &json!(mode), &["All", "ExactCount"])),
    }
    let at = p.child("tolerations");
    for (i, v) in list(v, "tolerations").iter().enumerate() {
        toleration(v, &at.index(i), e);
    }
}

pub const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

pub fn toleration(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (key, value) = (s(v, "key"), s(v, "value"));
    if !key.is_empty() {
        named(&p.child("key"), key, names::qualified_name(key), e);
    }
    match s(v, "operator") {
        "Exists" if !value.is_empty() => {
            e.push(Error::invalid_str(&p.child("value"), value, "must be empty for operator `Exists`"));
        }
        "Exists" => {}
        "Equal" => named(&p.child("value"), value, names::label_value(value), e),
        operator => e.push(Error::not_supported(&p.child("operator"), &json!(operator), &["Equal", "Exists"])),
    }
    if let Some(effect) = opt_s(v, "effect").filter(|effect| !effect.is_empty()) {
        one_of(&p.child("effect"), effect, &EFFECTS, e);
    }
}

fn constraint(v: &Value, known: &[String], p: &Path<'_>, e: &mut ErrorList) {
    request_refs(v, known, p, e);
    match (opt_s(v, "matchAttribute"), opt_s(v, "distinctAttribute")) {
        (Some(name), _) => fully_qualified(name, &p.child("matchAttribute"), e),
        (None, Some(name)) => fully_qualified(name, &p.child("distinctAttribute"), e),
        // Upstream's text speaks of several fields, though none is set.
        (None, None) => {
            let text = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
            e.push(Error::required(p, text));
        }
    }
}

/// Conditions under which a device is bound or given up; each needs the other.
pub fn binding_conditions(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    const LISTS: [&str; 2] = ["bindingConditions", "bindingFailureConditions"];
    for key in LISTS {
        let at = p.child(key);
        for (i, name) in texts(at_most(v, key, p, 4, e)).enumerate() {
            named(&at.index(i), name, names::qualified_name(name), e);
        }
    }
    no_repeats(strings(v, LISTS[0]), &p.child(LISTS[0]), e);
    let (at, failures) = (p.child(LISTS[1]), strings(v, LISTS[1]).collect::<Vec<_>>());
    for (i, name) in failures.iter().enumerate() {
        if failures[..i].contains(name) {
            e.push(Error::duplicate(&at.index(i), &json!(name)));
        }
        if strings(v, LISTS[0]).any(|other| other == *name) {
            e.push(Error::invalid_str(&at.index(i), name, format!("{} must not overlap with {}", LISTS[1], LISTS[0])));
        }
    }
    for (one, other) in [(LISTS[0], LISTS[1]), (LISTS[1], LISTS[0])] {
        if list(v, one).is_empty() && !list(v, other).is_empty() {
            e.push(Error::invalid(&p.child(one), &Value::Null, format!("{one} are required to use {other}")));
        }
    }
}
