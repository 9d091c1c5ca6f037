//! FlowSchemas and PriorityLevelConfigurations.

use flowcontrol::defaults::{self, MANDATORY};
use machinery::field::{Error, ErrorList, ErrorType, Path};
use machinery::names;
use serde_json::{Value, json};

use super::workload::{StatusOnly, keep_status, reset_status};
use crate::columns::{age, name};
use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::equal::semantic;
use crate::validate::go;
use crate::validate::rules::{Seen, dns_subdomain, named, one_of};
use crate::validate::tree::{at, flag, has, int, int0, list, opt, remove, s, set, strings};

const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
const HASH_BITS_MAX: i64 = 60;
/// The object of either kind that passes requests without limit.
const EXEMPT: &str = "exempt";

pub struct FlowSchemas;

impl Strategy for FlowSchemas {
    fn meta_rules(&self) -> MetaRules {
        MetaRules { update_again: false, create_on_update: true, ..MetaRules::default() }
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        reset_status(object, "flowcontrol.v1.FlowSchemaStatus");
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, empty, p) = (ErrorList::new(), json!({}), Path::new("spec"));
        let v = opt(object, "spec").unwrap_or(&empty);
        let (precedence, at_precedence) = (int0(v, "matchingPrecedence"), p.child("matchingPrecedence"));
        let mut wrong = |text: String| e.push(Error::invalid(&at_precedence, &json!(precedence), text));
        if precedence <= 0 {
            wrong("must be a positive value".to_owned());
        }
        if precedence > PRECEDENCE_MAX {
            wrong(format!("must not be greater than {PRECEDENCE_MAX}"));
        }
        if precedence == 1 && at(object, "metadata").is_none_or(|m| s(m, "name") != EXEMPT) {
            wrong("only the schema named 'exempt' may have matchingPrecedence 1".to_owned());
        }
        if let Some(method) = opt(v, "distinguisherMethod").filter(|m| !["ByNamespace", "ByUser"].contains(&s(m, "type"))) {
            e.push(Error {
                kind: ErrorType::NotSupported,
                field: p.child("distinguisherMethod").child("type").to_string(),
                value: go::text(method, "flowcontrol.v1.FlowDistinguisherMethod"),
                detail: "supported values: \"ByNamespace\", \"ByUser\"".to_owned(),
            });
        }
        let at_level = p.child("priorityLevelConfiguration");
        match opt(v, "priorityLevelConfiguration").map_or("", |l| s(l, "name")) {
            "" => e.push(Error::required(&at_level.child("name"), "must reference a priority level")),
            level => dns_subdomain(&at_level.child("name"), level, &mut e),
        }
        let rules = p.child("rules");
        for (i, rule) in list(v, "rules").iter().enumerate() {
            schema_rule(rule, &rules.index(i), &mut e);
        }
        fixed(object, &defaults::flow_schemas(), "flowcontrol.v1.FlowSchemaSpec", &mut e);
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(status) as &dyn Strategy)
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let empty = json!({});
        let v = opt(o, "spec").unwrap_or(&empty);
        let level = opt(v, "priorityLevelConfiguration").map_or("", |l| s(l, "name"));
        let method = opt(v, "distinguisherMethod").map_or("<none>", |m| s(m, "type"));
        let conditions = at(o, "status").map_or(&[][..], |st| list(st, "conditions"));
        let dangling = conditions.iter().find(|c| s(c, "type") == "Dangling").map_or("?", |c| s(c, "status"));
        let precedence = int0(v, "matchingPrecedence");
        Some(vec![name(o), json!(level), json!(precedence), json!(method), age(o, now), json!(dangling)])
    }
}

fn status(new: &Value, _old: &Value, e: &mut ErrorList) {
    let p = Path::new("status.conditions");
    let all = at(new, "status").map_or(&[][..], |st| list(st, "conditions"));
    let mut seen = Seen::default();
    for (i, condition) in all.iter().enumerate() {
        let at_type = p.index(i);
        let ty = s(condition, "type");
        if seen.again(ty) {
            e.push(Error::duplicate(&at_type.child("type"), &json!(ty)));
        }
        if ty.is_empty() {
            e.push(Error::required(&at_type.child("type"), ""));
        }
    }
}

fn schema_rule(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let subjects = p.child("subjects");
    if list(v, "subjects").is_empty() {
        e.push(Error::required(&subjects, "subjects must contain at least one value"));
    }
    for (i, given) in list(v, "subjects").iter().enumerate() {
        subject(given, &subjects.index(i), e);
    }
    let (resource, other) = (list(v, "resourceRules"), list(v, "nonResourceRules"));
    if resource.is_empty() && other.is_empty() {
        e.push(Error::required(p, "at least one of resourceRules and nonResourceRules has to be non-empty"));
    }
    let at = p.child("resourceRules");
    for (i, rule) in resource.iter().enumerate() {
        resource_rule(rule, &at.index(i), e);
    }
    let at = p.child("nonResourceRules");
    for (i, rule) in other.iter().enumerate() {
        non_resource_rule(rule, &at.index(i), e);
    }
}

fn subject(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    const MEMBERS: [(&str, &str); 3] = [("serviceAccount", "ServiceAccount"), ("user", "User"), ("group", "Group")];
    let Some((own, kind)) = MEMBERS.iter().find(|(_, kind)| *kind == s(v, "kind")) else {
        e.push(Error::not_supported(&p.child("kind"), &json!(s(v, "kind")), &["Group", "ServiceAccount", "User"]));
        return;
    };
    let at = p.child(own);
    match opt(v, own) {
        None => e.push(Error::required(&at, format!("{own} is required when subject kind is '{kind}'"))),
        Some(member) => {
            let given = s(member, "name");
            if given.is_empty() {
                e.push(Error::required(&at.child("name"), ""));
            } else if *own == "serviceAccount" && given != "*" {
                named(&at.child("name"), given, names::dns1123_subdomain(given), e);
            }
            if *own == "serviceAccount" {
                match s(member, "namespace") {
                    "" => e.push(Error::required(&at.child("namespace"), "must specify namespace for service account")),
                    ns => named(&at.child("namespace"), ns, names::dns1123_label(ns), e),
                }
            }
        }
    }
    for (other, kind) in MEMBERS.iter().filter(|(member, _)| member != own && has(v, member)) {
        e.push(Error::forbidden(&p.child(other), format!("{other} is forbidden when subject kind is not '{kind}'")));
    }
}

fn verbs(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let all: Vec<&str> = strings(v, "verbs").collect();
    let at = p.child("verbs");
    required_or_lone(&all, "verbs must contain at least one value", "verbs", &at, e);
    if !all.contains(&"*") && !all.iter().all(|verb| VERBS.contains(verb)) {
        e.push(Error::not_supported(&at, &json!(all), &VERBS));
    }
}

fn required_or_lone(all: &[&str], missing: &str, noun: &str, p: &Path<'_>, e: &mut ErrorList) {
    if all.is_empty() {
        e.push(Error::required(p, missing));
    } else if all.len() > 1 && all.contains(&"*") {
        e.push(Error::invalid(p, &json!(all), format!("if '*' is present, must not specify other {noun}")));
    }
}

fn resource_rule(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    verbs(v, p, e);
    for (key, noun, missing) in [
        ("apiGroups", "api groups", "resource rules must supply at least one api group"),
        ("resources", "resources", "resource rules must supply at least one resource"),
    ] {
        required_or_lone(&strings(v, key).collect::<Vec<_>>(), missing, noun, &p.child(key), e);
    }
    let namespaces: Vec<&str> = strings(v, "namespaces").collect();
    let at = p.child("namespaces");
    if namespaces.is_empty() {
        if !flag(v, "clusterScope") {
            e.push(Error::required(&at, "resource rules that are not cluster scoped must supply at least one namespace"));
        }
    } else if namespaces.contains(&"*") {
        required_or_lone(&namespaces, "", "namespaces", &at, e);
    } else {
        for (i, ns) in namespaces.iter().enumerate() {
            for problem in names::dns1123_label(ns) {
                e.push(Error::invalid_str(
                    &at.index(i),
                    ns,
                    format!("each member of this list must be '*' or a DNS-1123 label; {problem}"),
                ));
            }
        }
    }
}

fn non_resource_rule(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    verbs(v, p, e);
    let urls: Vec<&str> = strings(v, "nonResourceURLs").collect();
    let at = p.child("nonResourceURLs");
    required_or_lone(&urls, "nonResourceURLs must contain at least one value", "non-resource URLs", &at, e);
    if urls.contains(&"*") {
        return;
    }
    for (i, url) in urls.iter().enumerate() {
        if let Some(text) = url_problem(url) {
            e.push(Error::invalid_str(&at.index(i), url, text));
        }
    }
}

/// `ValidateNonResourceURLPath`: the first thing that is wrong.
fn url_problem(url: &str) -> Option<&'static str> {
    let stars = url.matches('*').count();
    match url {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !url.starts_with('/') => Some("must start with slash"),
        _ if url.contains(' ') => Some("must not contain white-space"),
        _ if url.contains("//") => Some("must not contain double slash"),
        _ if stars > 1 || (stars == 1 && !url.ends_with("/*")) => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}

/// Mandatory objects have the spec that they have; of the exempt level the part that says how exempt it is may change.
fn fixed(object: &Value, defaults: &[Value], ty: &str, e: &mut ErrorList) {
    let name = machinery::object::name(object);
    let Some(wanted) = defaults.iter().find(|d| MANDATORY.contains(&name) && machinery::object::name(d) == name) else { return };
    let (p, empty) = (Path::new("spec"), json!({}));
    let (own, mut wanted) = (opt(object, "spec").unwrap_or(&empty), wanted["spec"].clone());
    let free = wanted.get("exempt").is_some();
    if free {
        match opt(own, "exempt") {
            Some(exempt) => set(&mut wanted, "exempt", exempt.clone()),
            None => remove(&mut wanted, "exempt"),
        }
    }
    if !semantic(Some(own), Some(&wanted), ty) {
        let but = if free { " except the 'spec.exempt' field" } else { "" };
        e.push(go::invalid(&p, own, ty, format!("spec of '{name}'{but} must equal the fixed value")));
    }
}

pub struct PriorityLevelConfigurations;

impl Strategy for PriorityLevelConfigurations {
    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        reset_status(object, "flowcontrol.v1.PriorityLevelConfigurationStatus");
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
    }

    fn meta_rules(&self) -> MetaRules {
        MetaRules { update_again: false, create_on_update: true, ..MetaRules::default() }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, empty, p) = (ErrorList::new(), json!({}), Path::new("spec"));
        let v = opt(object, "spec").unwrap_or(&empty);
        let (ty, exempt) = (s(v, "type"), at(object, "metadata").is_some_and(|m| s(m, "name") == EXEMPT));
        if exempt != (ty == "Exempt") {
            let text = "type must be 'Exempt' if and only if name is 'exempt'";
            e.push(Error::invalid_str(&p.child("type"), ty, text));
        }
        match ty {
            "Exempt" => {
                if has(v, "limited") {
                    e.push(Error::forbidden(&p.child("limited"), "must be nil if the type is not Limited"));
                }
                if let Some(exempt) = opt(v, "exempt") {
                    shares(exempt, &p.child("exempt"), &mut e);
                    lendable(exempt, &p.child("exempt"), &mut e);
                }
            }
            "Limited" => {
                if has(v, "exempt") {
                    e.push(Error::forbidden(&p.child("exempt"), "must be nil if the type is Limited"));
                }
                match opt(v, "limited") {
                    None => e.push(Error::required(&p.child("limited"), "must not be empty when type is Limited")),
                    Some(limited) => limited_rules(limited, &p.child("limited"), &mut e),
                }
            }
            _ => e.push(Error::not_supported(&p.child("type"), &json!(ty), &["Exempt", "Limited"])),
        }
        fixed(object, &defaults::priority_levels(), "flowcontrol.v1.PriorityLevelConfigurationSpec", &mut e);
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(status) as &dyn Strategy)
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let empty = json!({});
        let v = opt(o, "spec").unwrap_or(&empty);
        let or_none = |n: Option<i64>| n.map_or_else(|| json!("<none>"), |n| json!(n));
        let shares = opt(v, "limited").or_else(|| opt(v, "exempt")).map(|l| int0(l, "nominalConcurrencyShares"));
        let queuing = at(v, "limited.limitResponse.queuing");
        let of = |key: &str| or_none(queuing.map(|q| int0(q, key)));
        Some(vec![name(o), json!(s(v, "type")), or_none(shares), of("queues"), of("handSize"), of("queueLengthLimit"), age(o, now)])
    }
}

fn shares(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if int0(v, "nominalConcurrencyShares") < 0 {
        e.push(Error::invalid(&p.child("nominalConcurrencyShares"), &v["nominalConcurrencyShares"], "must be a non-negative integer"));
    }
}

fn lendable(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    crate::validate::rules::in_range(v, "lendablePercent", p, 0, 100, e);
}

fn limited_rules(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    shares(v, p, e);
    let (at, empty) = (p.child("limitResponse"), json!({}));
    let response = opt(v, "limitResponse").unwrap_or(&empty);
    let at_queuing = at.child("queuing");
    match (s(response, "type"), opt(response, "queuing")) {
        ("Reject", Some(_)) => e.push(Error::forbidden(&at_queuing, "must be nil if limited.limitResponse.type is not Limited")),
        ("Reject", None) => {}
        ("Queue", None) => e.push(Error::required(&at_queuing, "must not be empty if limited.limitResponse.type is Limited")),
        ("Queue", Some(given)) => queuing(given, &at_queuing, e),
        (ty, _) => one_of(&at.child("type"), ty, &["Queue", "Reject"], e),
    }
    lendable(v, p, e);
    if let Some(n) = int(v, "borrowingLimitPercent").filter(|n| *n < 0) {
        e.push(Error::invalid(&p.child("borrowingLimitPercent"), &json!(n), "if specified, must be a non-negative integer"));
    }
}

fn queuing(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (length, queues, hand) = (int0(v, "queueLengthLimit"), int0(v, "queues"), int0(v, "handSize"));
    if length <= 0 {
        e.push(Error::invalid(&p.child("queueLengthLimit"), &json!(length), "must be positive"));
    }
    if queues <= 0 {
        e.push(Error::invalid(&p.child("queues"), &json!(queues), "must be positive"));
    } else if queues > QUEUES_MAX {
        e.push(Error::invalid(&p.child("queues"), &json!(queues), format!("must not be greater than {QUEUES_MAX}")));
    }
    let at = p.child("handSize");
    if hand <= 0 {
        e.push(Error::invalid(&at, &json!(hand), "must be positive"));
    } else if hand > queues {
        e.push(Error::invalid(&at, &json!(hand), format!("should not be greater than queues ({queues})")));
    } else if entropy_exceeds(queues, hand) {
        let text = format!("required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS_MAX}");
        e.push(Error::invalid(&at, &json!(hand), text));
    }
}

/// Whether dealing `hand` different cards of a deck takes more bits than the hash has (`shufflesharding.RequiredEntropyBits`).
fn entropy_exceeds(deck: i64, hand: i64) -> bool {
    let mut hands: u128 = 1;
    for i in 0..hand {
        let cards = u128::try_from(deck - i).unwrap_or(1);
        match hands.checked_mul(cards) {
            Some(n) if n <= 1 << HASH_BITS_MAX => hands = n,
            _ => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_that_fit_the_hash() {
        for (deck, hand, exceeds) in
            [(128, 6, false), (64, 8, false), (1024, 6, false), (1024, 7, true), (512, 7, true), (10_000_000, 3, true)]
        {
            assert_eq!(entropy_exceeds(deck, hand), exceeds, "{deck} {hand}");
        }
    }
}
