//! What webhook configurations and admission policies share: rules with operations, match resources, match conditions.
//! Expressions must compile in the environment they are given.

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use super::rules::{Seen, named, one_of};
use super::selector::label_selector;
use super::tree::{list, opt, opt_s, s, strings};
use crate::expressions;

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
const MATCH_CONDITIONS_MAX: usize = 64;

/// `validateRuleWithOperations`
pub fn rule_with_operations(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let operations: Vec<&str> = strings(v, "operations").collect();
    let at = p.child("operations");
    if operations.is_empty() {
        e.push(Error::required(&at, ""));
    }
    lone_star(&operations, "operations", &at, e);
    for (i, operation) in operations.iter().enumerate() {
        one_of(&at.index(i), operation, &OPERATIONS, e);
    }
    for (key, noun) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let all: Vec<&str> = strings(v, key).collect();
        let at = p.child(key);
        if all.is_empty() {
            e.push(Error::required(&at, ""));
        }
        lone_star(&all, noun, &at, e);
        for (i, _) in all.iter().enumerate().filter(|(_, text)| key == "apiVersions" && text.is_empty()) {
            e.push(Error::required(&at.index(i), ""));
        }
    }
    resources(v, &p.child("resources"), e);
    if let Some(scope) = opt_s(v, "scope") {
        one_of(&p.child("scope"), scope, &SCOPES, e);
    }
}

fn lone_star(all: &[&str], noun: &str, p: &Path<'_>, e: &mut ErrorList) {
    if all.len() > 1 && all.contains(&"*") {
        e.push(Error::invalid(p, &json!(all), format!("if '*' is present, must not specify other {noun}")));
    }
}

fn resources(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let all: Vec<&str> = strings(v, "resources").collect();
    if all.is_empty() {
        e.push(Error::required(p, ""));
    }
    let (mut starred_subs, mut starred_resources): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut plain = false;
    for (i, given) in all.iter().enumerate() {
        if given.is_empty() {
            e.push(Error::required(&p.index(i), ""));
            continue;
        }
        let Some((resource, sub)) = given.split_once('/') else {
            plain |= *given != "*";
            continue;
        };
        if starred_subs.contains(&resource) {
            e.push(Error::invalid_str(&p.index(i), given, format!("if '{resource}/*' is present, must not specify {given}")));
        }
        if starred_resources.contains(&sub) {
            e.push(Error::invalid_str(&p.index(i), given, format!("if '*/{sub}' is present, must not specify {given}")));
        }
        if sub == "*" {
            starred_subs.push(resource);
        }
        if resource == "*" {
            starred_resources.push(sub);
        }
    }
    if all.len() > 1 && all.contains(&"*/*") {
        e.push(Error::invalid(p, &json!(all), "if '*/*' is present, must not specify other resources"));
    }
    if plain && all.contains(&"*") {
        e.push(Error::invalid(p, &json!(all), "if '*' is present, must not specify other resources without subresources"));
    }
}

/// `validateMatchResources`
pub fn match_resources(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    match opt_s(v, "matchPolicy") {
        None => e.push(Error::required(&p.child("matchPolicy"), "")),
        Some(policy) => one_of(&p.child("matchPolicy"), policy, &["Equivalent", "Exact"], e),
    }
    for key in ["namespaceSelector", "objectSelector"] {
        match opt(v, key) {
            None => e.push(Error::required(&p.child(key), "")),
            Some(selector) => label_selector(selector, &p.child(key), e),
        }
    }
    for key in ["resourceRules", "excludeResourceRules"] {
        let at = p.child(key);
        for (i, rule) in list(v, key).iter().enumerate() {
            let p = at.index(i);
            let (at_names, all) = (p.child("resourceNames"), strings(rule, "resourceNames").collect::<Vec<_>>());
            let mut seen = Seen::default();
            for (j, name) in all.iter().enumerate() {
                named(&at_names.index(j), name, names::path_segment(name, false), e);
                if seen.again(*name) {
                    e.push(Error::duplicate(&at_names.index(j), &json!(name)));
                }
            }
            rule_with_operations(rule, &p, e);
        }
    }
}

/// `validateMatchConditions`, of `v.matchConditions`.
pub fn match_conditions(v: &Value, env: &cel::Env, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("matchConditions");
    let all = list(v, "matchConditions");
    let mut seen = Seen::default();
    for (i, condition) in all.iter().enumerate() {
        let p = at.index(i);
        let expression = s(condition, "expression");
        if expression.trim().is_empty() {
            e.push(Error::required(&p.child("expression"), ""));
        } else {
            expressions::check(env, expression, &[cel::Type::Bool], &p.child("expression"), e);
        }
        match s(condition, "name") {
            "" => e.push(Error::required(&p.child("name"), "")),
            name => {
                named(&p.child("name"), name, names::qualified_name(name), e);
                if seen.again(name) {
                    e.push(Error::duplicate(&p.child("name"), &json!(name)));
                }
            }
        }
    }
    if all.len() > MATCH_CONDITIONS_MAX {
        e.push(Error::too_many(&at, all.len(), MATCH_CONDITIONS_MAX));
    }
}

/// `webhook.ValidateWebhookURL`; `https` alone is allowed.
pub fn webhook_url(given: &str, p: &Path<'_>, e: &mut ErrorList) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (rest, fragment) = given.split_once('#').unwrap_or((given, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    if given.chars().any(|c| c.is_ascii_control()) {
        let quoted = machinery::field::go_quote(given);
        e.push(Error::required(p, format!("url must be a valid URL: parse {quoted}: net/url: invalid control character in URL{FORM}")));
        return;
    }
    let is_scheme = |t: &str| {
        t.starts_with(|c: char| c.is_ascii_alphabetic()) && t.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    };
    let (scheme, rest) = rest.split_once(':').filter(|(scheme, _)| is_scheme(scheme)).unwrap_or(("", rest));
    let authority = rest.strip_prefix("//").map_or("", |r| r.split('/').next().unwrap_or(""));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if !scheme.eq_ignore_ascii_case("https") {
        e.push(Error::invalid_str(p, &scheme.to_ascii_lowercase(), format!("'https' is the only allowed URL scheme{FORM}")));
    }
    if host.is_empty() {
        e.push(Error::invalid_str(p, host, format!("host must be specified{FORM}")));
    }
    for (part, text) in [
        (user, "user information is not permitted in the URL"),
        (fragment, "fragments are not permitted in the URL"),
        (query, "query parameters are not permitted in the URL"),
    ] {
        if !part.is_empty() {
            e.push(Error::invalid_str(p, part, text));
        }
    }
}

/// `webhook.ValidateWebhookService`
pub fn webhook_service(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if s(v, "name").is_empty() {
        e.push(Error::required(&p.child("name"), "service name is required"));
    }
    if s(v, "namespace").is_empty() {
        e.push(Error::required(&p.child("namespace"), "service namespace is required"));
    }
    let port = super::tree::int(v, "port").unwrap_or(443);
    let problems = names::port_number(port);
    if !problems.is_empty() {
        e.push(Error::invalid(&p.child("port"), &json!(port), format!("port is not valid: {}", problems.join(","))));
    }
    let (path, at) = (s(v, "path"), p.child("path"));
    if matches!(path, "" | "/") {
        return;
    }
    if path == "//" {
        e.push(Error::invalid_str(&at, path, "segment[0] may not be empty"));
        return;
    }
    if !path.starts_with('/') {
        e.push(Error::invalid_str(&at, path, "must start with a '/'"));
    }
    let mut rest = path.chars();
    rest.next();
    let rest = rest.as_str();
    for (i, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            e.push(Error::invalid_str(&at, path, format!("segment[{i}] may not be empty")));
            continue;
        }
        for problem in names::dns1123_subdomain(step) {
            e.push(Error::invalid_str(&at, path, format!("segment[{i}]: {problem}")));
        }
    }
}

/// Exactly one of a URL and a service.
pub fn client_config(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    match (opt_s(v, "url"), opt(v, "service")) {
        (Some(url), None) => webhook_url(url, &p.child("url"), e),
        (None, Some(service)) => webhook_service(service, &p.child("service"), e),
        _ => e.push(Error::required(p, "exactly one of url or service is required")),
    }
}
