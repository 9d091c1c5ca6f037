//! ResourceSlices: what a driver says of the devices in a pool.

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use machinery::quantity::Quantity;
use serde_json::{Value, json};

use crate::columns::{age, name};
use crate::strategy::{Context, Strategy};
use crate::validate::devices::{EFFECTS, at_most, binding_conditions, driver_name, names_of, no_repeats, pool_name, qualified_name};
use crate::validate::go;
use crate::validate::rules::{IMMUTABLE, dns_label, dns_subdomain, named, one_of, quantity, quantity_at};
use crate::validate::selector::node_selector;
use crate::validate::tree::{entries, flag, has, int0, is_empty, list, list_mut, map, opt, opt_s, s, set};

const DEVICES_MAX: usize = 128;
/// Where a device has taints or consumes counters.
const ADVANCED_DEVICES_MAX: usize = 64;
const CONSUMED_MAX: usize = 2;
const COUNTERS_MAX: usize = 32;
const OPTIONS_MAX: usize = 10;
const COUNTER_SETS_MAX: usize = 8;
const TAINTS_MAX: usize = 16;
const ATTRIBUTES_MAX: usize = 32;
const VALUE_MAX_BYTES: usize = 64;
const WHERE: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
const EXACTLY_ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";

pub struct ResourceSlices;

impl Strategy for ResourceSlices {
    fn default(&self, ctx: &Context, object: &mut Value) {
        let Some(spec) = object.get_mut("spec") else { return };
        for device in list_mut(spec, "devices") {
            for taint in list_mut(device, "taints") {
                if !has(taint, "timeAdded") {
                    set(taint, "timeAdded", ctx.now.clone());
                }
            }
        }
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        drop_disabled(object);
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, _old: &Value) {
        drop_disabled(new);
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        judge(object, None)
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        judge(new, Some(old))
    }

    fn warnings(&self, _ctx: &Context, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let driver = opt(new, "spec").map_or("", |v| s(v, "driver"));
        if driver.chars().any(char::is_uppercase) {
            let quoted = machinery::field::go_quote(driver);
            return vec![format!("spec.driver: driver names should be lowercase; {quoted} contains uppercase characters")];
        }
        Vec::new()
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let empty = json!({});
        let v = opt(o, "spec").unwrap_or(&empty);
        let pool = opt(v, "pool").map_or("", |p| s(p, "name"));
        Some(vec![name(o), json!(s(v, "nodeName")), json!(s(v, "driver")), json!(pool), age(o, now)])
    }
}

/// Lists as attributes and mappings to a node's resources are alpha, and off.
fn drop_disabled(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else { return };
    for device in list_mut(spec, "devices") {
        crate::validate::tree::remove(device, "nodeAllocatableResourceMappings");
        let Some(attributes) = crate::validate::tree::obj_mut(device, "attributes") else { continue };
        for attribute in attributes.values_mut() {
            for key in ["ints", "bools", "strings", "versions"] {
                crate::validate::tree::remove(attribute, key);
            }
        }
    }
}

fn judge(object: &Value, old: Option<&Value>) -> ErrorList {
    let (mut e, empty, p) = (ErrorList::new(), json!({}), Path::new("spec"));
    let v = opt(object, "spec").unwrap_or(&empty);
    driver_name(s(v, "driver"), &p.child("driver"), &mut e);
    let (at_pool, pool) = (p.child("pool"), opt(v, "pool").unwrap_or(&empty));
    pool_name(s(pool, "name"), &at_pool.child("name"), &mut e);
    if int0(pool, "resourceSliceCount") <= 0 {
        e.push(Error::invalid(&at_pool.child("resourceSliceCount"), &json!(int0(pool, "resourceSliceCount")), "must be greater than zero"));
    }
    if int0(pool, "generation") < 0 {
        e.push(Error::invalid(&at_pool.child("generation"), &pool["generation"], "must be greater than or equal to zero"));
    }
    if let Some(old) = old {
        let o = opt(old, "spec").unwrap_or(&empty);
        let old_pool = opt(o, "pool").unwrap_or(&empty);
        if s(pool, "name") != s(old_pool, "name") {
            e.push(Error::invalid_str(&at_pool.child("name"), s(pool, "name"), IMMUTABLE));
        }
        if s(v, "driver") != s(o, "driver") {
            e.push(Error::invalid_str(&p.child("driver"), s(v, "driver"), IMMUTABLE));
        }
        if opt_s(v, "nodeName") != opt_s(o, "nodeName") {
            e.push(Error::invalid(&p.child("nodeName"), opt(v, "nodeName").unwrap_or(&Value::Null), IMMUTABLE));
        }
    }
    place(v, &p, &mut e);
    if has(v, "devices") && has(v, "sharedCounters") {
        e.push(Error::invalid_str(&p, "", "only one of `sharedCounters` or `devices` is allowed"));
    }
    let advanced = list(v, "devices").iter().any(|d| !is_empty(d, "taints") || !is_empty(d, "consumesCounters"));
    let max = if advanced { ADVANCED_DEVICES_MAX } else { DEVICES_MAX };
    let (at_devices, devices) = (p.child("devices"), at_most(v, "devices", &p, max, &mut e));
    let before = old.and_then(|old| opt(old, "spec")).map_or(&[][..], |o| list(o, "devices"));
    for (i, given) in devices.iter().enumerate() {
        let before = before.iter().find(|o| s(o, "name") == s(given, "name"));
        device(given, before, flag(v, "perDeviceNodeSelection"), &at_devices.index(i), &mut e);
    }
    no_repeats(names_of(devices), &at_devices, &mut e);
    let (at_shared, shared) = (p.child("sharedCounters"), at_most(v, "sharedCounters", &p, COUNTER_SETS_MAX, &mut e));
    for (i, set) in shared.iter().enumerate() {
        let p = at_shared.index(i);
        counter_name(s(set, "name"), &p.child("name"), &mut e);
        counters(set, &p.child("counters"), &mut e);
    }
    no_repeats(names_of(shared), &at_shared, &mut e);
    e
}

/// Which of several fields are given, as upstream's errors list them.
fn braces(given: &[&str]) -> String {
    let quoted: Vec<String> = given.iter().map(|key| format!("`{key}`")).collect();
    format!("{{{}}}", quoted.join(", "))
}

fn node_name(v: &Value, empty: &str, p: &Path<'_>, e: &mut ErrorList) -> bool {
    match opt_s(v, "nodeName") {
        None => false,
        Some("") => {
            e.push(Error::invalid_str(&p.child("nodeName"), "", empty));
            false
        }
        Some(node) => {
            dns_subdomain(&p.child("nodeName"), node, e);
            true
        }
    }
}

fn selector(v: &Value, p: &Path<'_>, e: &mut ErrorList) -> bool {
    let Some(selector) = opt(v, "nodeSelector") else { return false };
    let at = p.child("nodeSelector");
    node_selector(selector, &at, e);
    if list(selector, "nodeSelectorTerms").len() != 1 {
        let terms = selector.get("nodeSelectorTerms").unwrap_or(&Value::Null);
        let text = "must have exactly one node selector term";
        e.push(go::invalid(&at.child("nodeSelectorTerms"), terms, "[]core.v1.NodeSelectorTerm", text));
    }
    true
}

fn only_true(v: &Value, key: &str, p: &Path<'_>, e: &mut ErrorList) -> bool {
    match opt(v, key) {
        None => false,
        Some(Value::Bool(true)) => true,
        Some(other) => {
            e.push(Error::invalid(&p.child(key), other, "must be either unset or set to true"));
            false
        }
    }
}

fn place(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let unset = "must be either unset or set to a non-empty string";
    let given =
        [node_name(v, unset, p, e), selector(v, p, e), only_true(v, "allNodes", p, e), only_true(v, "perDeviceNodeSelection", p, e)];
    let named: Vec<&str> = WHERE.iter().zip(given).filter(|(_, given)| *given).map(|(key, _)| *key).collect();
    match named.len() {
        0 => e.push(Error::required(p, EXACTLY_ONE)),
        1 => {}
        _ => e.push(Error::invalid_str(p, &braces(&named), format!("{EXACTLY_ONE}, but multiple fields are set"))),
    }
}

fn device(v: &Value, old: Option<&Value>, own_place: bool, p: &Path<'_>, e: &mut ErrorList) {
    dns_label(&p.child("name"), s(v, "name"), e);
    let facts = map(v, "attributes").map_or(0, serde_json::Map::len) + map(v, "capacity").map_or(0, serde_json::Map::len);
    if facts > ATTRIBUTES_MAX {
        let text = format!("the total number of attributes and capacities must not exceed {ATTRIBUTES_MAX}");
        e.push(Error::invalid(p, &json!(facts), text));
    }
    let at_attributes = p.child("attributes");
    for (key, attribute) in entries(v, "attributes") {
        qualified_name(key, &at_attributes, e);
        device_attribute(attribute, &at_attributes.key(key), e);
    }
    let at_capacity = p.child("capacity");
    for (key, capacity) in entries(v, "capacity") {
        qualified_name(key, &at_capacity, e);
        device_capacity(capacity, flag(v, "allowMultipleAllocations"), &at_capacity.key(key).child("requestPolicy"), e);
    }
    if old.is_none_or(|old| list(old, "taints") != list(v, "taints")) {
        let at_taints = p.child("taints");
        for (i, given) in at_most(v, "taints", p, TAINTS_MAX, e).iter().enumerate() {
            taint(given, &at_taints.index(i), e);
        }
    }
    let (at_counters, consumed) = (p.child("consumesCounters"), at_most(v, "consumesCounters", p, CONSUMED_MAX, e));
    for (i, given) in consumed.iter().enumerate() {
        let p = at_counters.index(i);
        counter_name(s(given, "counterSet"), &p.child("counterSet"), e);
        counters(given, &p.child("counters"), e);
    }
    no_repeats(consumed.iter().map(|c| s(c, "counterSet")), &at_counters, e);
    device_place(v, own_place, p, e);
    binding_conditions(v, p, e);
}

fn device_place(v: &Value, own: bool, p: &Path<'_>, e: &mut ErrorList) {
    if !own {
        if WHERE[..3].iter().any(|key| has(v, key)) {
            let text = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            e.push(Error::invalid(p, &Value::Null, text));
        }
        return;
    }
    let text = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    let node = node_name(v, "must not be empty", p, e);
    if let Some(selector) = opt(v, "nodeSelector") {
        node_selector(selector, &p.child("nodeSelector"), e);
    }
    let given = [node, has(v, "nodeSelector"), only_true(v, "allNodes", p, e)];
    let named: Vec<&str> = WHERE.iter().zip(given).filter(|(_, given)| *given).map(|(key, _)| *key).collect();
    match named.len() {
        0 => e.push(Error::required(p, text)),
        1 => {}
        _ => e.push(Error::invalid_str(p, &braces(&named), text)),
    }
}

fn device_attribute(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let mut given = usize::from(has(v, "int")) + usize::from(has(v, "bool"));
    if let Some(text) = opt_s(v, "string") {
        given += 1;
        if text.len() > VALUE_MAX_BYTES {
            e.push(Error::too_long(&p.child("string"), VALUE_MAX_BYTES));
        }
    }
    if let Some(text) = opt_s(v, "version") {
        given += 1;
        if !is_semantic_version(text) {
            e.push(Error::invalid_str(&p.child("version"), text, "must be a string compatible with semver.org spec 2.0.0"));
        }
        if text.len() > VALUE_MAX_BYTES {
            e.push(Error::too_long(&p.child("version"), VALUE_MAX_BYTES));
        }
    }
    match given {
        0 => e.push(Error::invalid_str(p, "", "exactly one value must be specified")),
        1 => {}
        _ => e.push(go::invalid(p, v, "resource.v1.DeviceAttribute", "exactly one value must be specified")),
    }
}

fn device_capacity(v: &Value, shared: bool, p: &Path<'_>, e: &mut ErrorList) {
    let Some(policy) = opt(v, "requestPolicy") else { return };
    let (all, wanted) = (quantity_at(v, "value").unwrap_or_default(), quantity_at(policy, "default"));
    match (is_empty(policy, "validValues"), opt(policy, "validRange"), wanted) {
        _ if !shared => e.push(Error::forbidden(p, "allowMultipleAllocations must be true")),
        (false, Some(_), _) => {
            let text = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
            e.push(Error::forbidden(p, text));
        }
        (true, None, _) => {}
        (false, None, None) => e.push(Error::required(&p.child("default"), "required when validValues is defined")),
        (true, Some(_), None) => e.push(Error::required(&p.child("default"), "required when validRange is defined")),
        (false, None, Some(wanted)) => valid_values(policy, all, wanted, p, e),
        (true, Some(range), Some(wanted)) => valid_range(range, all, wanted, &p.child("validRange"), e),
    }
}

fn refused(p: &Path<'_>, q: Quantity, text: impl Into<String>) -> Error {
    Error::invalid_str(p, &q.to_string(), text)
}

/// `validateRequestPolicyValidValues`
fn valid_values(policy: &Value, all: Quantity, wanted: Quantity, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("validValues");
    let values: Vec<Quantity> = list(policy, "validValues").iter().filter_map(quantity).collect();
    for (i, pair) in values.windows(2).enumerate() {
        if pair[0] > pair[1] {
            e.push(refused(&at.index(i + 1), pair[1], "values must be sorted in ascending order"));
        }
    }
    // A list that is too long is not looked into, nor for the default.
    let judged = if at_most(policy, "validValues", p, OPTIONS_MAX, e).is_empty() { &[][..] } else { &values[..] };
    for (i, option) in judged.iter().enumerate() {
        if *option > all {
            e.push(refused(&at.index(i), *option, format!("option is larger than capacity value: {all}")));
        }
    }
    let keys: Vec<String> = judged.iter().map(|q| q.value().to_string()).collect();
    no_repeats(keys.iter().map(String::as_str), &at, e);
    if !judged.contains(&wanted) {
        e.push(refused(&at, wanted, "default value is not valid according to the requestPolicy"));
    }
}

/// `validateRequestPolicyRange`
fn valid_range(range: &Value, all: Quantity, wanted: Quantity, p: &Path<'_>, e: &mut ErrorList) {
    let (at_min, at_max, at_step) = (p.child("min"), p.child("max"), p.child("step"));
    let Some(min) = quantity_at(range, "min") else {
        e.push(Error::required(&at_min, "required when validRange is defined"));
        return;
    };
    if min > all {
        e.push(refused(&at_min, min, format!("min is larger than capacity value: {all}")));
    }
    if wanted < min {
        e.push(refused(&at_min, wanted, format!("default is less than min: {min}")));
    }
    let max = quantity_at(range, "max");
    if let Some(max) = max {
        if min > max {
            e.push(refused(&at_max, min, format!("min is larger than max: {max}")));
        }
        if max > all {
            e.push(refused(&at_max, max, format!("max is larger than capacity value: {all}")));
        }
        if wanted > max {
            e.push(refused(&at_max, wanted, format!("default is more than max: {max}")));
        }
    }
    let Some(step) = quantity_at(range, "step") else { return };
    if step.sign() <= 0 {
        e.push(refused(&at_step, step, "must be greater than zero"));
        return;
    }
    let first = min + step;
    if first > all {
        e.push(refused(&at_step, step, format!("one step {first} is larger than capacity value: {all}")));
    }
    for given in std::iter::once(wanted).chain(max) {
        if given.value().wrapping_sub(min.value()).wrapping_rem(step.value().max(1)) != 0 {
            e.push(refused(&at_step, given, format!("value is not a multiple of a given step ({step}) from ({min})")));
        }
    }
}

fn taint(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    named(&p.child("key"), s(v, "key"), names::qualified_name(s(v, "key")), e);
    named(&p.child("value"), s(v, "value"), names::label_value(s(v, "value")), e);
    match s(v, "effect") {
        "" => e.push(Error::required(&p.child("effect"), "")),
        effect => one_of(&p.child("effect"), effect, &EFFECTS, e),
    }
}

fn counter_name(name: &str, p: &Path<'_>, e: &mut ErrorList) {
    match name {
        "" => e.push(Error::required(p, "")),
        name => dns_label(p, name, e),
    }
}

fn counters(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if is_empty(v, "counters") {
        e.push(Error::required(p, ""));
    }
    let n = map(v, "counters").map_or(0, serde_json::Map::len);
    if n > COUNTERS_MAX {
        e.push(Error::too_many(p, n, COUNTERS_MAX));
        return;
    }
    for (key, _) in entries(v, "counters") {
        dns_label(p, key, e);
    }
}

/// `major.minor.patch[-pre.release][+build]` of semver.org 2.0.0.
fn is_semantic_version(text: &str) -> bool {
    let number = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()) && (t.len() == 1 || !t.starts_with('0'));
    let word = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let parts: Vec<&str> = core.split('.').collect();
    let numeric = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    parts.len() == 3
        && parts.iter().all(|t| number(t))
        && pre.is_none_or(|pre| pre.split('.').all(|t| word(t) && (!numeric(t) || number(t))))
        && build.is_none_or(|build| build.split('.').all(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semantic_versions() {
        for (text, good) in [
            ("1.2.3", true),
            ("0.0.1-alpha.1+b.01", true),
            ("1.2", false),
            ("v1.2.3", false),
            ("01.2.3", false),
            ("1.2.3-01", false),
            ("1.2.3-", false),
            ("1.2.3+", false),
            ("", false),
        ] {
            assert_eq!(is_semantic_version(text), good, "{text}");
        }
    }
}
