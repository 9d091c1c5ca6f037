//! Small kinds of cluster policy: Lease, PriorityClass, RuntimeClass, ResourceQuota, LimitRange.

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use machinery::quantity::Quantity;
use serde_json::{Value, json};

use super::workload::{StatusOnly, keep_status};
use crate::columns::{age, name};
use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::rules::{IMMUTABLE, Seen, dns_label, labels, named, non_negative, one_of, quantity_at, resource_entries};
use crate::validate::tree::{at, entries, flag, int, is_empty, list, list_mut, map, opt, opt_s, s, same, same_at, set, strings};
use crate::validate::{resources, scheduling};

static NULL: Value = Value::Null;

pub struct Leases;

impl Strategy for Leases {
    fn meta_rules(&self) -> MetaRules {
        MetaRules { kube_finalizers: false, ..MetaRules::default() }
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        coordinated_off(object);
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, _old: &Value) {
        coordinated_off(new);
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, p) = (ErrorList::new(), Path::new("spec"));
        let v = opt(object, "spec").unwrap_or(&NULL);
        if let Some(n) = int(v, "leaseDurationSeconds").filter(|n| *n <= 0) {
            e.push(Error::invalid(&p.child("leaseDurationSeconds"), &json!(n), "must be greater than 0"));
        }
        non_negative(v, "leaseTransitions", &p, &mut e);
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        Some(vec![name(o), at(o, "spec.holderIdentity").cloned().unwrap_or_else(|| json!("")), age(o, now)])
    }
}

/// Coordinated leader election is off by default: its fields are dropped.
fn coordinated_off(object: &mut Value) {
    if let Some(v) = object.get_mut("spec") {
        for key in ["strategy", "preferredHolder"] {
            crate::validate::tree::remove(v, key);
        }
    }
}

/// `IsKnownSystemPriorityClass`
fn system_class_problem(name: &str, value: i64, default: bool) -> Option<String> {
    let known = match name {
        "system-cluster-critical" => 2_000_000_000,
        "system-node-critical" => 2_000_001_000,
        _ => return Some(format!("{name} is not a known system priority class")),
    };
    if value != known {
        return Some(format!("value of {name} PriorityClass must be {known}"));
    }
    default.then(|| format!("globalDefault of {name} PriorityClass must be false"))
}

pub struct PriorityClasses;

impl Strategy for PriorityClasses {
    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        let own = machinery::object::name(object);
        let value = int(object, "value").unwrap_or(0);
        if own.starts_with("system-") {
            if let Some(problem) = system_class_problem(own, value, flag(object, "globalDefault")) {
                let meta = Path::new("metadata");
                let text = "priority class names with 'system-' prefix are reserved for system use only. error: ";
                e.push(Error::forbidden(&meta.child("name"), format!("{text}{problem}")));
            }
        } else if value > 1_000_000_000 {
            e.push(Error::forbidden(&Path::new("value"), "maximum allowed value of a user defined priority is 1000000000"));
        }
        match opt_s(object, "preemptionPolicy") {
            None => {}
            Some("") => e.push(Error::required(&Path::new("preemptionPolicy"), "")),
            Some(policy) => one_of(&Path::new("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"], &mut e),
        }
        e
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        if !same(opt(new, "value"), opt(old, "value")) {
            e.push(Error::forbidden(&Path::new("value"), "may not be changed in an update."));
        }
        if !same_at(new, old, "preemptionPolicy") {
            let value = opt(new, "preemptionPolicy").unwrap_or(&NULL);
            e.push(Error::invalid(&Path::new("preemptionPolicy"), value, IMMUTABLE));
        }
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let policy = opt_s(o, "preemptionPolicy").unwrap_or("");
        Some(vec![name(o), json!(int(o, "value").unwrap_or(0)), json!(flag(o, "globalDefault")), age(o, now), json!(policy)])
    }
}

pub struct RuntimeClasses;

impl Strategy for RuntimeClasses {
    fn warnings(&self, _ctx: &Context, new: &Value, _old: Option<&Value>) -> Vec<String> {
        crate::warnings::runtime_class(new)
    }

    fn meta_rules(&self) -> MetaRules {
        MetaRules { kube_finalizers: false, create_on_update: true, ..MetaRules::default() }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        match s(object, "handler") {
            "" => e.push(Error::required(&Path::new("handler"), "")),
            handler => dns_label(&Path::new("handler"), handler, &mut e),
        }
        if let Some(overhead) = opt(object, "overhead").filter(|o| map(o, "podFixed").is_some()) {
            let limits = json!({ "limits": overhead["podFixed"] });
            resources::requirements(&limits, false, &std::collections::BTreeSet::new(), &Path::new("overhead"), &mut e);
        }
        if let Some(v) = opt(object, "scheduling") {
            let p = Path::new("scheduling");
            labels(v, "nodeSelector", &p, &mut e);
            scheduling::tolerations(v, &p, &mut e);
        }
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = self.validate(ctx, new);
        if s(new, "handler") != s(old, "handler") {
            e.push(Error::invalid_str(&Path::new("handler"), s(new, "handler"), IMMUTABLE));
        }
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        Some(vec![name(o), json!(s(o, "handler")), age(o, now)])
    }
}

pub struct ResourceQuotas;

const SCOPES: [&str; 7] =
    ["BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating", "VolumeAttributesClass"];

impl Strategy for ResourceQuotas {
    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        set(object, "status", json!({}));
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, p) = (ErrorList::new(), Path::new("spec"));
        let v = opt(object, "spec").unwrap_or(&NULL);
        quota_list(v, "hard", &p, &mut e);
        let scopes: Vec<&str> = strings(v, "scopes").collect();
        for scope in &scopes {
            if !SCOPES.contains(scope) {
                e.push(Error::invalid(&p.child("scopes"), &json!(scopes), "unsupported scope"));
            }
            for _ in 0..outside_scope(v, scope) {
                e.push(Error::invalid(&p.child("scopes"), &json!(scopes), OTHER_RESOURCE));
            }
        }
        for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
            if pair.iter().all(|scope| scopes.contains(scope)) {
                e.push(Error::invalid(&p.child("scopes"), &json!(scopes), "conflicting scopes"));
            }
        }
        scope_selector(v, &p, &mut e);
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = self.validate(ctx, new);
        let set = |o: &'_ Value| -> std::collections::BTreeSet<String> {
            at(o, "spec").map_or_else(Default::default, |v| strings(v, "scopes").map(str::to_owned).collect())
        };
        if set(new) != set(old) {
            e.push(Error::invalid(&Path::new("spec").child("scopes"), at(new, "spec.scopes").unwrap_or(&NULL), IMMUTABLE));
        }
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(quota_status) as &dyn Strategy)
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (key, hard) in at(o, "status.hard").and_then(Value::as_object).into_iter().flatten() {
            let used = at(o, "status.used").and_then(|u| u.get(key)).and_then(Value::as_str).unwrap_or("0");
            let text = format!("{key}: {used}/{}", hard.as_str().unwrap_or("0"));
            if key.starts_with("limits") { limits.push(text) } else { requests.push(text) }
        }
        Some(vec![name(o), json!(requests.join(", ")), json!(limits.join(", ")), age(o, now)])
    }
}

const OTHER_RESOURCE: &str = "unsupported scope applied to resource";

/// How many of a quota's limits are on plain resources that a scope does not speak of
/// (`IsResourceQuotaScopeValidForResource`).
fn outside_scope(spec: &Value, scope: &str) -> usize {
    const COMPUTE: [&str; 6] = ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
    const OTHERS: [&str; 12] = [
        "ephemeral-storage",
        "requests.storage",
        "requests.ephemeral-storage",
        "limits.ephemeral-storage",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "persistentvolumeclaims",
        "configmaps",
        "services.nodeports",
        "services.loadbalancers",
    ];
    let fits = |name: &str| match scope {
        "BestEffort" => name == "pods",
        "NotBestEffort" | "Terminating" | "NotTerminating" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            name == "pods" || COMPUTE.contains(&name)
        }
        "VolumeAttributesClass" => matches!(name, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    };
    let plain = |name: &str| name == "pods" || COMPUTE.contains(&name) || OTHERS.contains(&name);
    let hard = spec.get("hard").and_then(Value::as_object);
    hard.into_iter().flatten().filter(|(name, _)| plain(name) && !fits(name)).count()
}

/// `validateScopeSelector`
fn scope_selector(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    const EXISTS_ONLY: [&str; 5] = ["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];
    let Some(selector) = opt(v, "scopeSelector") else { return };
    let root = p.child("scopeSelector");
    let at_all = root.child("matchExpressions");
    let mut scopes: Vec<&str> = Vec::new();
    for r in list(selector, "matchExpressions") {
        let (scope, operator) = (s(r, "scopeName"), s(r, "operator"));
        if !SCOPES.contains(&scope) {
            e.push(Error::invalid_str(&at_all.child("scopeName"), scope, "unsupported scope"));
        }
        for _ in 0..outside_scope(v, scope) {
            e.push(crate::validate::go::invalid(&at_all, selector, "core.v1.ScopeSelector", OTHER_RESOURCE));
        }
        if EXISTS_ONLY.contains(&scope) && operator != "Exists" {
            let text = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            e.push(Error::invalid_str(&at_all.child("operator"), operator, text));
        }
        let values = at_all.child("values");
        match operator {
            "In" | "NotIn" if is_empty(r, "values") => {
                e.push(Error::required(&values, "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"));
            }
            "Exists" | "DoesNotExist" if !is_empty(r, "values") => {
                let text = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                e.push(Error::invalid(&values, &r["values"], text));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => e.push(Error::invalid_str(&at_all.child("operator"), other, "not a valid selector operator")),
        }
        scopes.push(scope);
    }
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| scopes.contains(scope)) {
            // Upstream shows the other field.
            e.push(Error::invalid(&at_all, opt(v, "scopes").unwrap_or(&NULL), "conflicting scopes"));
        }
    }
}

fn quota_list(v: &Value, key: &str, p: &Path<'_>, e: &mut ErrorList) {
    let root = p.child(key);
    for (name, q) in resource_entries(v, key) {
        let item = root.key(name);
        resources::name(name, &item, e);
        if !name.contains('/') && !resources::is_standard_quota(name) {
            e.push(Error::invalid_str(&item, name, "must be a standard resource for quota"));
        }
        resources::amount(name, q, &item, e);
    }
}

fn quota_status(new: &Value, _old: &Value, e: &mut ErrorList) {
    let p = Path::new("status");
    let status = opt(new, "status").unwrap_or(&NULL);
    for key in ["hard", "used"] {
        quota_list(status, key, &p, e);
    }
}

pub struct LimitRanges;

/// A uid as random as the given one: its last group turned over.
fn another_uid(uid: &str) -> String {
    let start = uid.len().saturating_sub(12);
    let (head, tail) = uid.split_at_checked(start).unwrap_or((uid, ""));
    let turned = tail.chars().map(|c| c.to_digit(16).and_then(|d| char::from_digit(15 - d, 16)).unwrap_or(c));
    head.chars().chain(turned).collect()
}

const MAPS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

impl Strategy for LimitRanges {
    /// One without a name is called by a uid.
    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        let meta = machinery::object::metadata_mut(object);
        let named = meta.get("name").and_then(Value::as_str).is_some_and(|n| !n.is_empty());
        if let Some(uid) = meta.get("uid").and_then(Value::as_str).filter(|_| !named) {
            let name = json!(another_uid(uid));
            meta.insert("name".to_owned(), name);
        }
    }

    fn meta_rules(&self) -> MetaRules {
        MetaRules { update_again: false, create_on_update: true, ..MetaRules::default() }
    }

    fn default(&self, _ctx: &Context, object: &mut Value) {
        let Some(v) = object.get_mut("spec") else { return };
        for item in list_mut(v, "limits").iter_mut().filter(|i| s(i, "type") == "Container") {
            let get = |item: &Value, key: &str| map(item, key).cloned().unwrap_or_default();
            let mut default = get(item, "default");
            for (key, value) in get(item, "max") {
                default.entry(key).or_insert(value);
            }
            let mut request = get(item, "defaultRequest");
            for (key, value) in default.clone().into_iter().chain(get(item, "min")) {
                request.entry(key).or_insert(value);
            }
            for (key, value) in [("default", default), ("defaultRequest", request)] {
                if !value.is_empty() {
                    set(item, key, value);
                }
            }
        }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, spec) = (ErrorList::new(), Path::new("spec"));
        let p = spec.child("limits");
        let limits = opt(object, "spec").map_or(&[][..], |v| list(v, "limits"));
        let mut seen = Seen::default();
        for (i, v) in limits.iter().enumerate() {
            let item = p.index(i);
            limit_type(s(v, "type"), &item.child("type"), &mut e);
            if seen.again(s(v, "type")) {
                e.push(Error::duplicate(&item.child("type"), &json!(s(v, "type"))));
            }
            limit(v, &item, &mut e);
        }
        e
    }

    fn cells(&self, o: &Value, _now: i64) -> Option<Vec<Value>> {
        Some(vec![name(o), crate::columns::created_at(o)])
    }
}

fn limit_type(ty: &str, p: &Path<'_>, e: &mut ErrorList) {
    let problems = names::qualified_name(ty);
    if !problems.is_empty() {
        named(p, ty, problems, e);
    } else if !ty.contains('/') && !matches!(ty, "Pod" | "Container" | "PersistentVolumeClaim") {
        e.push(Error::invalid_str(p, ty, "must be a standard limit type or fully qualified"));
    }
}

fn limit(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let ty = s(v, "type");
    let mut keys: Vec<&str> = Vec::new();
    for field in MAPS {
        let root = p.child(field);
        if ty == "PersistentVolumeClaim" && field == "maxLimitRequestRatio" {
            bounded_storage(v, p, e);
        }
        if ty == "Pod" && field.starts_with("default") {
            if !is_empty(v, field) {
                e.push(Error::forbidden(&root, "may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        for (key, _) in entries(v, field) {
            let rule = if matches!(ty, "Pod" | "Container") { resources::container_name } else { resources::name };
            rule(key, &root.key(key), e);
            if !keys.contains(&key.as_str()) {
                keys.push(key);
            }
        }
    }
    for key in keys {
        limits_of(v, key, p, e);
    }
}

fn bounded_storage(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if !["min", "max"].iter().any(|field| opt(v, field).is_some_and(|m| m.get("storage").is_some())) {
        let text = "either minimum or maximum storage value is required, but neither was provided";
        e.push(Error::required(&p.child("limits"), text));
    }
}

/// The amounts of one resource beside each other.
fn limits_of(v: &Value, key: &str, p: &Path<'_>, e: &mut ErrorList) {
    // Those of pods are not read.
    let read = |field: &str| !(s(v, "type") == "Pod" && field.starts_with("default"));
    let get = |field: &str| opt(v, field).filter(|_| read(field)).and_then(|m| quantity_at(m, key));
    let (max, min, default, request) = (get("max"), get("min"), get("default"), get("defaultRequest"));
    // Which of the two the error shows, upstream decides from case to case.
    for (low, high, field, names, shows_low) in [
        (min, max, "min", ["min", "max"], true),
        (min, request, "defaultRequest", ["min", "default request"], false),
        (request, max, "defaultRequest", ["default request", "max"], true),
        (request, default, "defaultRequest", ["default request", "default limit"], true),
        (min, default, "default", ["min", "default"], true),
        (default, max, "default", ["default", "max"], false),
    ] {
        if let (Some(a), Some(b)) = (low, high)
            && a > b
        {
            let text = format!("{} value {a} is greater than {} value {b}", names[0], names[1]);
            let shown = if shows_low { a } else { b };
            e.push(Error::invalid_str(&p.child(field).key(key), &shown.to_string(), text));
        }
    }
    if let Some(ratio) = get("maxLimitRequestRatio") {
        limit_ratio(ratio, min, max, &p.child("maxLimitRequestRatio").key(key), e);
    }
    if let (Some(default), Some(request)) = (default, request)
        && default != request
        && !resources::overcommit_allowed(key)
    {
        let text = format!("default value {default} must equal to defaultRequest value {request} in {key}");
        e.push(Error::invalid_str(&p.child("defaultRequest").key(key), &request.to_string(), text));
    }
}

fn limit_ratio(ratio: Quantity, min: Option<Quantity>, max: Option<Quantity>, p: &Path<'_>, e: &mut ErrorList) {
    if ratio.nano_value() < 1_000_000_000 {
        e.push(Error::invalid_str(p, &ratio.to_string(), format!("ratio {ratio} is less than 1")));
    }
    let (Some(min), Some(max)) = (min, max) else { return };
    // In thousandths, where they are small enough.
    let small = [ratio, min, max].iter().all(|q| q.value() < i64::MAX / 1000);
    let (own, min, max) = if small {
        (as_float(ratio.milli_value()) / 1000.0, min.milli_value(), max.milli_value())
    } else {
        (as_float(ratio.value()), min.value(), max.value())
    };
    let most = as_float(max) / as_float(min);
    if own > most {
        e.push(Error::invalid_str(p, &ratio.to_string(), format!("ratio {ratio} is greater than max/min = {most:.6}")));
    }
}

#[expect(clippy::cast_precision_loss, reason = "upstream divides as float64")]
fn as_float(n: i64) -> f64 {
    n as f64
}
