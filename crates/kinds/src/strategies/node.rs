//! Nodes.

use machinery::field::{Error, ErrorList, Path};
use machinery::names_net;
use serde_json::{Value, json};

use super::workload::{StatusOnly, keep_status};
use crate::columns::{age, name};
use crate::strategy::{Context, Strategy};
use crate::validate::resources;
use crate::validate::rules::{Seen, legacy_cidr, named, one_of, resource_entries};
use crate::validate::scheduling::TAINT_EFFECTS;
use crate::validate::tree::{at, flag, has, is_empty, list, opt, remove, s, set, strings};

static NULL: Value = Value::Null;

pub struct Nodes;

/// `status`, without what dynamic configuration of kubelets once left there.
struct NodeStatus;

impl Strategy for NodeStatus {
    fn prepare_for_update(&self, ctx: &Context, new: &mut Value, old: &Value) {
        StatusOnly(status).prepare_for_update(ctx, new, old);
        if let Some(status) = new.get_mut("status") {
            remove(status, "config");
        }
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        StatusOnly(status).validate_update(ctx, new, old)
    }
}

impl Strategy for Nodes {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        let Some(status) = object.get_mut("status").filter(|v| v.is_object()) else { return };
        if !has(status, "allocatable") && !is_empty(status, "capacity") {
            let capacity = status["capacity"].clone();
            set(status, "allocatable", capacity);
        }
    }

    fn warnings(&self, _ctx: &Context, new: &Value, _old: Option<&Value>) -> Vec<String> {
        crate::warnings::node(new)
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        if let Some(v) = object.get_mut("spec") {
            remove(v, "configSource");
        }
        if let Some(status) = object.get_mut("status") {
            remove(status, "config");
        }
        pod_cidrs(object);
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
        if at(old, "spec.configSource").is_none()
            && let Some(v) = new.get_mut("spec")
        {
            remove(v, "configSource");
        }
        pod_cidrs(new);
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        // Upstream names the path of taints after the metadata.
        let meta = Path::new("metadata");
        let v = opt(object, "spec").unwrap_or(&NULL);
        taints(v, &meta.child("taints"), &mut e);
        resources_of(object, &mut e);
        features(object, &mut e);
        let spec = Path::new("spec");
        let p = spec.child("podCIDRs");
        let cidrs: Vec<&str> = strings(v, "podCIDRs").collect();
        for (i, cidr) in cidrs.iter().enumerate() {
            legacy_cidr(&p.index(i), cidr, &[], &mut e);
        }
        if let Some((i, bad)) =
            cidrs.iter().enumerate().find(|(_, c)| names_net::parse_cidr_sloppy(c).is_none()).filter(|_| cidrs.len() > 1)
        {
            let text = format!(
                "invalid PodCIDRs. failed to check with dual stack with error:invalid CIDR[{i}]: <nil> (invalid CIDR address: {bad})"
            );
            e.push(Error::internal(&p, text));
        }
        if cidrs.len() > 1 {
            let same_family = names_net::is_v6_text(cidrs[0]) == names_net::is_v6_text(cidrs[1]);
            if cidrs.len() > 2 || same_family {
                e.push(Error::invalid(&p, &json!(cidrs), "may specify no more than one CIDR for each IP family"));
            }
        }
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = self.validate(ctx, new);
        let p = Path::new("spec");
        let (n, o) = (opt(new, "spec").unwrap_or(&NULL), opt(old, "spec").unwrap_or(&NULL));
        // Once for each that is another, or once where there are more or fewer.
        let (now, before) = (list(n, "podCIDRs"), list(o, "podCIDRs"));
        let changed = match before.len() {
            0 => 0,
            count if count != now.len() => 1,
            _ => now.iter().zip(before).filter(|(a, b)| a != b).count(),
        };
        let text = "node updates may not change podCIDR except from \"\" to valid";
        e.extend((0..changed).map(|_| Error::forbidden(&p.child("podCIDRs"), text)));
        if !s(o, "providerID").is_empty() && s(n, "providerID") != s(o, "providerID") {
            e.push(Error::forbidden(&p.child("providerID"), "node updates may not change providerID except from \"\" to valid"));
        }
        // Upstream looks at taints once more here.
        let meta = Path::new("metadata");
        taints(n, &meta.child("taints"), &mut e);
        if s(n, "externalID") != s(o, "externalID") {
            e.push(Error::forbidden(&p.child("externalID"), "may not be updated"));
        }
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&NodeStatus as &dyn Strategy)
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        Some(cells(o, now))
    }
}

/// `podCIDR` and `podCIDRs[0]` are one value.
fn pod_cidrs(object: &mut Value) {
    let Some(v) = object.get_mut("spec").filter(|v| v.is_object()) else { return };
    let (one, first) = (s(v, "podCIDR").to_owned(), strings(v, "podCIDRs").next().map(str::to_owned));
    match first {
        None if !one.is_empty() => set(v, "podCIDRs", json!([one])),
        Some(first) if one.is_empty() => set(v, "podCIDR", first),
        // The single one wins over a list that begins otherwise.
        Some(first) if first != one => set(v, "podCIDRs", json!([one])),
        _ => {}
    }
}

fn taints(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let mut seen = Seen::default();
    for (i, taint) in list(v, "taints").iter().enumerate() {
        let item = p.index(i);
        named(&item.child("key"), s(taint, "key"), machinery::names::qualified_name(s(taint, "key")), e);
        let value = s(taint, "value");
        let problems = machinery::names::label_value(value);
        if !problems.is_empty() {
            e.push(Error::invalid_str(&item.child("value"), value, problems.join(";")));
        }
        match s(taint, "effect") {
            "" => e.push(Error::required(&item.child("effect"), "")),
            effect => one_of(&item.child("effect"), effect, &TAINT_EFFECTS, e),
        }
        if seen.again((s(taint, "key"), s(taint, "effect"))) {
            let value = crate::validate::go::text(taint, "core.v1.Taint");
            let mut duplicate = Error::duplicate(&item, &NULL);
            duplicate.value = value;
            duplicate.detail = "taints must be unique by key and effect pair".to_owned();
            e.push(duplicate);
        }
    }
}

fn resources_of(object: &Value, e: &mut ErrorList) {
    let p = Path::new("status");
    let status = opt(object, "status").unwrap_or(&NULL);
    for key in ["capacity", "allocatable"] {
        let root = p.child(key);
        for (name, q) in resource_entries(status, key) {
            resources::amount(name, q, &root.key(name), e);
        }
    }
}

/// `UpperCamelCase` segments between slashes.
fn feature_problem(name: &str) -> bool {
    name.split('/').enumerate().any(|(i, part)| {
        let first = part.chars().next();
        let head = first.is_some_and(|c| if i == 0 { c.is_ascii_uppercase() } else { c.is_ascii_alphabetic() });
        !head || !part.chars().all(|c| c.is_ascii_alphanumeric())
    })
}

fn features(object: &Value, e: &mut ErrorList) {
    let p = Path::new("status");
    let root = p.child("declaredFeatures");
    let all: Vec<&str> = opt(object, "status").map(|st| strings(st, "declaredFeatures").collect()).unwrap_or_default();
    let mut seen = Seen::default();
    for (i, name) in all.iter().enumerate() {
        if seen.again(*name) {
            e.push(Error::duplicate(&root.index(i), &json!(name)));
        }
        if feature_problem(name) {
            let text = format!(
                "invalid feature name {}: must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes",
                machinery::field::go_quote(name)
            );
            e.push(Error::invalid_str(&root.index(i), name, text));
        }
    }
}

fn status(new: &Value, _old: &Value, e: &mut ErrorList) {
    resources_of(new, e);
    features(new, e);
    let p = Path::new("status");
    let root = p.child("addresses");
    let addresses = at(new, "status").map_or(&[][..], |st| list(st, "addresses"));
    let mut seen = Seen::default();
    for (i, address) in addresses.iter().enumerate() {
        if seen.again((s(address, "type"), s(address, "address"))) {
            e.push(Error::duplicate(&root.index(i), address));
        }
    }
}

fn cells(o: &Value, now: i64) -> Vec<Value> {
    let status = opt(o, "status").unwrap_or(&NULL);
    let ready = list(status, "conditions").iter().find(|c| s(c, "type") == "Ready").map(|c| s(c, "status"));
    let mut texts = vec![match ready {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if opt(o, "spec").is_some_and(|v| flag(v, "unschedulable")) {
        texts.push("SchedulingDisabled");
    }
    let mut roles: Vec<String> = machinery::object::labels(o)
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role.to_owned()),
            _ if key == "kubernetes.io/role" && !value.is_empty() => Some(value.to_owned()),
            _ => None,
        })
        .collect();
    roles.sort();
    roles.dedup();
    let roles = if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") };
    let address = |ty: &str| list(status, "addresses").iter().find(|a| s(a, "type") == ty).map_or("<none>", |a| s(a, "address")).to_owned();
    let info = |key: &str, none: &str| {
        let text = opt(status, "nodeInfo").map_or("", |i| s(i, key));
        if text.is_empty() { none.to_owned() } else { text.to_owned() }
    };
    vec![
        name(o),
        json!(texts.join(",")),
        json!(roles),
        age(o, now),
        json!(info("kubeletVersion", "")),
        json!(address("InternalIP")),
        json!(address("ExternalIP")),
        json!(info("osImage", "<unknown>")),
        json!(info("kernelVersion", "<unknown>")),
        json!(info("containerRuntimeVersion", "<unknown>")),
    ]
}
