//! DeviceClasses, ResourceClaims and ResourceClaimTemplates. Whether a namespace allows administrator's access is the API
//! server's to know.

use machinery::field::{Error, ErrorList, ErrorType, Path};
use serde_json::{Value, json};

use super::workload::{StatusOnly, keep_status};
use crate::columns::{age, name};
use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::conditions::conditions;
use crate::validate::devices::{
    at_most, binding_conditions, claim, configuration, driver_name, no_repeats, pool_name, raw_object, request_name_ref, request_names,
    request_refs, selectors, toleration,
};
use crate::validate::equal::semantic;
use crate::validate::go;
use crate::validate::rules::{IMMUTABLE, Seen, dns_label, one_of};
use crate::validate::selector::node_selector;
use crate::validate::tree::{at, has, int, list, list_mut, opt, opt_s, s, same, same_at, set};
use crate::validate::volume::claim::template_metadata;

const RESERVED_MAX: usize = 256;
const LIST_MAX: usize = 32;

pub struct DeviceClasses;

impl Strategy for DeviceClasses {
    fn meta_rules(&self) -> MetaRules {
        MetaRules { create_on_update: true, ..MetaRules::default() }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, empty, p) = (ErrorList::new(), json!({}), Path::new("spec"));
        let v = opt(object, "spec").unwrap_or(&empty);
        selectors(v, &p, &mut e);
        let at_config = p.child("config");
        for (i, config) in at_most(v, "config", &p, LIST_MAX, &mut e).iter().enumerate() {
            configuration(config, &at_config.index(i), &mut e);
        }
        if let Some(resource) = opt_s(v, "extendedResourceName").filter(|r| !crate::validate::resources::is_extended(r)) {
            e.push(Error::invalid_str(&p.child("extendedResourceName"), resource, "must be a valid extended resource name"));
        }
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        Some(vec![name(o), age(o, now)])
    }
}

/// One device where the number is not said.
fn default_counts(devices: Option<&mut Value>) {
    fn count(v: &mut Value) {
        if s(v, "allocationMode") == "ExactCount" && int(v, "count").unwrap_or(0) == 0 {
            set(v, "count", 1);
        }
    }
    let Some(devices) = devices else { return };
    for request in list_mut(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly") {
            count(exactly);
        }
        list_mut(request, "firstAvailable").iter_mut().for_each(count);
    }
}

const ADMIN_TEXT: &str =
    "admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace";

fn is_admin(request: &Value) -> bool {
    opt(request, "exactly").unwrap_or(request).get("adminAccess").and_then(Value::as_bool) == Some(true)
}

/// Whether a claim, or a template of one, asks for administrative access to devices, which its namespace must allow.
pub fn asks_admin_access(resource: &crate::resource::Resource, object: &Value) -> bool {
    resource.group == "resource.k8s.io"
        && resource.namespaced
        && ["spec.devices", "spec.spec.devices", "status.allocation.devices"]
            .iter()
            .any(|path| at(object, path).is_some_and(|d| list(d, "requests").iter().chain(list(d, "results")).any(is_admin)))
}

/// `AuthorizedForAdmin`: the first request that asks for it is named.
fn admin(ctx: &Context, devices: Option<&Value>, e: &mut ErrorList) {
    let asking = devices.and_then(|d| list(d, "requests").iter().position(is_admin));
    if let Some(i) = asking.filter(|_| !ctx.admin_access) {
        let p = Path::new("spec.devices.requests");
        e.push(Error::forbidden(&p.index(i).child("adminAccess"), ADMIN_TEXT));
    }
}

pub struct ResourceClaims;

/// `status`
struct ClaimStatus;

impl Strategy for ClaimStatus {
    fn prepare_for_update(&self, ctx: &Context, new: &mut Value, old: &Value) {
        StatusOnly(claim_status).prepare_for_update(ctx, new, old);
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        let results = |o: &Value| at(o, "status.allocation.devices").map_or(Vec::new(), |d| list(d, "results").to_vec());
        let had = results(old).iter().any(is_admin);
        if let Some(i) = results(new).iter().position(is_admin).filter(|_| !had && !ctx.admin_access) {
            let p = Path::new("status.allocation.devices.results");
            e.push(Error::forbidden(&p.index(i).child("adminAccess"), ADMIN_TEXT));
        }
        claim_status(new, old, &mut e);
        e
    }
}

impl Strategy for ResourceClaims {
    fn meta_rules(&self) -> MetaRules {
        MetaRules { create_on_update: true, ..MetaRules::default() }
    }

    fn default(&self, _ctx: &Context, object: &mut Value) {
        default_counts(object.pointer_mut("/spec/devices"));
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        set(object, "status", json!({}));
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
    }

    fn validate(&self, ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, empty) = (ErrorList::new(), json!({}));
        admin(ctx, at(object, "spec.devices"), &mut e);
        claim(at(object, "spec.devices").unwrap_or(&empty), &Path::new("spec.devices"), &mut e);
        e
    }

    /// The spec was judged when the claim was made, and never changes.
    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        if !same_at(new, old, "spec") {
            e.push(go::invalid(&Path::new("spec"), opt(new, "spec").unwrap_or(&json!({})), "resource.v1.ResourceClaimSpec", IMMUTABLE));
        }
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&ClaimStatus as &dyn Strategy)
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let deleted = at(o, "metadata.deletionTimestamp").is_some();
        let allocated = at(o, "status.allocation").is_some();
        let reserved = allocated && at(o, "status").is_some_and(|st| !list(st, "reservedFor").is_empty());
        let states = [(deleted, "deleted"), (!allocated && !deleted, "pending"), (allocated, "allocated"), (reserved, "reserved")];
        let shown: Vec<&str> = states.iter().filter(|(is, _)| *is).map(|(_, text)| *text).collect();
        Some(vec![name(o), json!(shown.join(",")), age(o, now)])
    }
}

fn claim_status(new: &Value, old: &Value, e: &mut ErrorList) {
    let (empty, p) = (json!({}), Path::new("status"));
    let v = opt(new, "status").unwrap_or(&empty);
    consumers(v, &p, e);
    let (at_devices, devices) = (p.child("devices"), list(v, "devices"));
    for (i, device) in devices.iter().enumerate() {
        device_status(device, v, &at_devices.index(i), e);
    }
    let mut seen = Seen::default();
    for (i, device) in devices.iter().enumerate() {
        if seen.again(shared_key(device)) {
            e.push(shared_error(ErrorType::Duplicate, device, &at_devices.index(i), ""));
        }
    }
    reserved_for(v, new, old, &p, e);
    let known = request_names(at(new, "spec.devices").unwrap_or(&empty));
    let at_allocation = p.child("allocation");
    match (opt(v, "allocation"), at(old, "status.allocation")) {
        // What was allocated never changes, and is not judged again.
        (Some(allocation), Some(before)) if !same(Some(allocation), Some(before)) => {
            e.push(go::invalid(&at_allocation, allocation, "resource.v1.AllocationResult", IMMUTABLE));
        }
        (Some(allocation), None) => allocation_result(allocation, &known, &at_allocation, e),
        _ => {}
    }
}

fn consumers(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (at_reserved, all) = (p.child("reservedFor"), at_most(v, "reservedFor", p, RESERVED_MAX, e));
    for (i, consumer) in all.iter().enumerate() {
        let p = at_reserved.index(i);
        for key in ["resource", "name", "uid"] {
            if s(consumer, key).is_empty() {
                e.push(Error::required(&p.child(key), ""));
            }
        }
    }
    no_repeats(all.iter().map(|c| s(c, "uid")), &at_reserved, e);
}

fn reserved_for(v: &Value, new: &Value, old: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (at_reserved, all) = (p.child("reservedFor"), list(v, "reservedFor"));
    if all.is_empty() {
        return;
    }
    if !has(v, "allocation") {
        e.push(Error::forbidden(&at_reserved, "may not be specified when `allocated` is not set"));
    } else if at(new, "metadata.deletionTimestamp").is_some() {
        let before = at(old, "status").map_or(&[][..], |st| list(st, "reservedFor"));
        if all.iter().any(|c| !before.contains(c)) {
            let text = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            e.push(Error::forbidden(&at_reserved, text));
        }
    }
}

fn allocation_result(v: &Value, known: &[String], p: &Path<'_>, e: &mut ErrorList) {
    let (empty, at_devices) = (json!({}), p.child("devices"));
    let devices = opt(v, "devices").unwrap_or(&empty);
    let at_results = at_devices.child("results");
    for (i, result) in at_most(devices, "results", &at_devices, LIST_MAX, e).iter().enumerate() {
        let p = at_results.index(i);
        request_name_ref(s(result, "request"), known, &p.child("request"), e);
        identity(result, &p, e);
        binding_conditions(result, &p, e);
        for (i, given) in list(result, "tolerations").iter().enumerate() {
            toleration(given, &p.child("tolerations").index(i), e);
        }
        share(result, &p, e);
    }
    let at_config = at_devices.child("config");
    for (i, config) in at_most(devices, "config", &at_devices, 2 * LIST_MAX, e).iter().enumerate() {
        let p = at_config.index(i);
        match s(config, "source") {
            "" => e.push(Error::required(&p.child("source"), "")),
            source => one_of(&p.child("source"), source, &["FromClaim", "FromClass"], e),
        }
        request_refs(config, known, &p, e);
        configuration(config, &p, e);
    }
    if let Some(selector) = opt(v, "nodeSelector") {
        node_selector(selector, &p.child("nodeSelector"), e);
    }
}

/// Driver, pool and device.
fn identity(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    driver_name(s(v, "driver"), &p.child("driver"), e);
    pool_name(s(v, "pool"), &p.child("pool"), e);
    dns_label(&p.child("device"), s(v, "device"), e);
}

const PLAIN_UUID: &str =
    "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";

fn share(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let Some(share) = opt_s(v, "shareID") else { return };
    let p = p.child("shareID");
    match uuid_problem(share) {
        Some(problem) => e.push(Error::invalid_str(&p, share, format!("error validating uid: {problem}"))),
        None if share.len() != 36 || share.bytes().any(|b| b.is_ascii_uppercase()) => e.push(Error::invalid_str(&p, share, PLAIN_UUID)),
        None => {}
    }
}

/// What Go's UUID parser says of a text: besides the plain form it takes one without dashes, one in braces, and a URN.
fn uuid_problem(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let plain = match bytes.len() {
        32 => return (!bytes.iter().all(u8::is_ascii_hexdigit)).then(|| "invalid UUID format".to_owned()),
        36 => bytes,
        38 if bytes[0] != b'{' || bytes[37] != b'}' => return Some("invalid bracketed UUID format".to_owned()),
        38 => &bytes[1..37],
        45 if !bytes[..9].eq_ignore_ascii_case(b"urn:uuid:") => {
            let prefix = String::from_utf8_lossy(&bytes[..9]);
            return Some(format!("invalid urn prefix: {}", machinery::field::go_quote(&prefix)));
        }
        45 => &bytes[9..],
        other => return Some(format!("invalid UUID length: {other}")),
    };
    let good = plain.iter().enumerate().all(|(i, &b)| match i {
        8 | 13 | 18 | 23 => b == b'-',
        _ => b.is_ascii_hexdigit(),
    });
    (!good).then(|| "invalid UUID format".to_owned())
}

/// What tells a device, or a share of one, from another.
fn shared_key(v: &Value) -> [&str; 4] {
    ["driver", "pool", "device", "shareID"].map(|key| s(v, key))
}

fn shared_error(kind: ErrorType, v: &Value, p: &Path<'_>, detail: &str) -> Error {
    let [driver, pool, device, share] = shared_key(v).map(|t| json!(t).to_string());
    let value = format!("{{\"Driver\":{driver},\"Pool\":{pool},\"Device\":{device},\"ShareID\":{share}}}");
    Error { kind, field: p.to_string(), value, detail: detail.to_owned() }
}

fn device_status(v: &Value, status: &Value, p: &Path<'_>, e: &mut ErrorList) {
    identity(v, p, e);
    share(v, p, e);
    let results = at(status, "allocation.devices").map_or(&[][..], |d| list(d, "results"));
    if !results.iter().any(|r| shared_key(r) == shared_key(v)) {
        e.push(shared_error(ErrorType::Invalid, v, p, "must be an allocated device in the claim"));
    }
    let _all = at_most(v, "conditions", p, 8, e);
    conditions(v, "conditions", p, e);
    if has(v, "data") {
        raw_object(v, "data", p, e);
    }
    let Some(network) = opt(v, "networkData") else { return };
    let p = p.child("networkData");
    for (key, max) in [("interfaceName", 256), ("hardwareAddress", 128)] {
        if s(network, key).len() > max {
            e.push(Error::too_long(&p.child(key), max));
        }
    }
    let (at_ips, ips) = (p.child("ips"), at_most(network, "ips", &p, 16, e));
    for (i, ip) in ips.iter().enumerate() {
        e.extend(machinery::names_net::interface_address(&at_ips.index(i), ip.as_str().unwrap_or_default()));
    }
    no_repeats(ips.iter().filter_map(Value::as_str), &at_ips, e);
}

pub struct ResourceClaimTemplates;

impl Strategy for ResourceClaimTemplates {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        default_counts(object.pointer_mut("/spec/spec/devices"));
    }

    fn validate(&self, ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, empty) = (ErrorList::new(), json!({}));
        admin(ctx, at(object, "spec.spec.devices"), &mut e);
        template_metadata(opt(object, "spec").unwrap_or(&empty), &Path::new("spec"), &mut e);
        claim(at(object, "spec.spec.devices").unwrap_or(&empty), &Path::new("spec.spec.devices"), &mut e);
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = self.validate(ctx, new);
        if !semantic(opt(new, "spec"), opt(old, "spec"), "resource.v1.ResourceClaimTemplateSpec") {
            e.push(Error {
                kind: ErrorType::Invalid,
                field: "spec".to_owned(),
                value: template_text(opt(new, "spec").unwrap_or(&json!({}))),
                detail: IMMUTABLE.to_owned(),
            });
        }
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        Some(vec![name(o), age(o, now)])
    }
}

/// A template as Go prints it: its metadata is embedded.
fn template_text(spec: &Value) -> String {
    let empty = json!({});
    let meta = go::text(opt(spec, "metadata").unwrap_or(&empty), "meta.v1.ObjectMeta");
    let inner = meta.trim_start_matches('{').trim_end_matches('}');
    let inner = if inner.is_empty() { String::new() } else { meta[1..meta.len() - 1].to_owned() + "," };
    let own = go::text(opt(spec, "spec").unwrap_or(&empty), "resource.v1.ResourceClaimSpec");
    format!("{{{inner}\"Spec\":{own}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_in_the_plain_form() {
        for (text, problem) in [
            ("", Some("invalid UUID length: 0")),
            ("0e7a6a2c-1d3b-4a5e-8f90-123456789abc", None),
            ("0e7a6a2cx1d3b-4a5e-8f90-123456789abc", Some("invalid UUID format")),
        ] {
            assert_eq!(uuid_problem(text).as_deref(), problem, "{text}");
        }
    }

    #[test]
    fn names_of_requests_and_of_their_alternatives() {
        let devices = json!({"requests": [{"name": "a", "firstAvailable": [{"name": "b"}]}, {"name": "c"}]});
        assert_eq!(request_names(&devices), ["a", "a/b", "c"]);
    }
}
