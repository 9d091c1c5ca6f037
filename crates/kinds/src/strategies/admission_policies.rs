//! ValidatingAdmissionPolicies, MutatingAdmissionPolicies and their bindings. Expressions must compile.

use cel::Type;
use machinery::field::{Error, ErrorList, Path};
use machinery::gvk::GroupVersion;
use machinery::names;
use serde_json::{Value, json};

use super::workload::{StatusOnly, keep_status, reset_status};
use crate::columns::{age, name};
use crate::expressions::{self, Scope};
use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::admission::{match_conditions, match_resources};
use crate::validate::conditions::conditions;
use crate::validate::rules::{Seen, dns_subdomain, named, one_of, optional_one_of, required_one_of};
use crate::validate::selector::label_selector;
use crate::validate::tree::{at, is_empty, list, opt, opt_s, s, set, strings};

const AUDIT_ANNOTATIONS_MAX: usize = 20;
const VALUE_EXPRESSION_MAX_BYTES: usize = 5 * 1024;
const NOTHING: &str = "validations or auditAnnotations must contain at least one item";

/// A selector that was left out selects everything.
fn default_selectors(object: &mut Value, key: &str) {
    let Some(resources) = object.get_mut("spec").and_then(|v| v.get_mut(key)).filter(|v| v.is_object()) else { return };
    for key in ["namespaceSelector", "objectSelector"] {
        if opt(resources, key).is_none() {
            set(resources, key, json!({}));
        }
    }
}

const META: MetaRules = MetaRules { kube_finalizers: false, update_again: false, create_on_update: true, own: false };

pub struct ValidatingAdmissionPolicies;

impl Strategy for ValidatingAdmissionPolicies {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        default_selectors(object, "matchConstraints");
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        reset_status(object, "admissionregistration.v1.ValidatingAdmissionPolicyStatus");
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
    }

    fn meta_rules(&self) -> MetaRules {
        META
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, empty, p) = (ErrorList::new(), json!({}), Path::new("spec"));
        let v = opt(object, "spec").unwrap_or(&empty);
        policy_head(v, &p, &mut e);
        let env = variables(v, Scope { authorizer: true, ..Scope::default() }, &p, &mut e);
        let (checks, audits) = (list(v, "validations"), list(v, "auditAnnotations"));
        let (at_checks, at_audits) = (p.child("validations"), p.child("auditAnnotations"));
        if checks.is_empty() && audits.is_empty() {
            e.push(Error::required(&at_checks, NOTHING));
            e.push(Error::required(&at_audits, NOTHING));
            return e;
        }
        let messages = expressions::policy(v, Scope::default()).0;
        for (i, check) in checks.iter().enumerate() {
            validation(check, &env, &messages, &at_checks.index(i), &mut e);
        }
        if audits.len() > AUDIT_ANNOTATIONS_MAX {
            let text = format!("must not have more than {AUDIT_ANNOTATIONS_MAX} auditAnnotations");
            e.push(crate::validate::go::invalid(&at_audits, &v["auditAnnotations"], "[]admissionregistration.v1.AuditAnnotation", text));
        }
        let policy = at(object, "metadata").map_or("", |m| s(m, "name"));
        let mut seen = Seen::default();
        for (i, audit) in audits.iter().enumerate() {
            audit_annotation(policy, audit, &env, &at_audits.index(i), &mut e);
            if seen.again(s(audit, "key")) {
                e.push(Error::duplicate(&at_audits.index(i).child("key"), &json!(s(audit, "key"))));
            }
        }
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(status) as &dyn Strategy)
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let count = at(o, "spec").map_or(0, |v| list(v, "validations").len());
        Some(vec![name(o), json!(count), param_kind_text(o), age(o, now)])
    }
}

fn param_kind_text(o: &Value) -> Value {
    at(o, "spec.paramKind").map_or_else(|| json!("<unset>"), |k| json!(format!("{}/{}", s(k, "apiVersion"), s(k, "kind"))))
}

/// What both kinds of policy begin with.
fn policy_head(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    match opt_s(v, "failurePolicy") {
        None => e.push(Error::required(&p.child("failurePolicy"), "")),
        Some(policy) => one_of(&p.child("failurePolicy"), policy, &["Fail", "Ignore"], e),
    }
    if let Some(kind) = opt(v, "paramKind") {
        param_kind(kind, &p.child("paramKind"), e);
    }
    let at = p.child("matchConstraints");
    match opt(v, "matchConstraints") {
        None => e.push(Error::required(&at, "")),
        Some(constraints) => {
            match_resources(constraints, &at, e);
            if is_empty(constraints, "resourceRules") {
                e.push(Error::required(&at.child("resourceRules"), ""));
            }
        }
    }
}

fn param_kind(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (given, at_version) = (s(v, "apiVersion"), p.child("apiVersion"));
    if given.is_empty() {
        e.push(Error::required(&at_version, ""));
    } else {
        match GroupVersion::parse(given) {
            Err(_) => e.push(Error::invalid_str(&at_version, given, format!("unexpected GroupVersion string: {given}"))),
            Ok(gv) => {
                let group = if gv.group.is_empty() { Vec::new() } else { names::dns1123_subdomain(&gv.group) };
                for (part, problems) in [(&gv.group, group), (&gv.version, names::dns1035_label(&gv.version))] {
                    if !problems.is_empty() {
                        e.push(Error::invalid_str(&at_version, part, problems.join(",")));
                    }
                }
            }
        }
    }
    let kind = s(v, "kind");
    let problems = names::dns1035_label(&kind.to_lowercase());
    if kind.is_empty() {
        e.push(Error::required(&p.child("kind"), ""));
    } else if !problems.is_empty() {
        let text = format!("may have mixed case, but should otherwise match: {}", problems.join(","));
        e.push(Error::invalid_str(&p.child("kind"), kind, text));
    }
}

/// Match conditions, which know no variables, and the variables; answers what all other expressions may speak of.
fn variables(v: &Value, scope: Scope, p: &Path<'_>, e: &mut ErrorList) -> cel::Env {
    if !list(v, "matchConditions").is_empty() {
        let scope = Scope { params: opt(v, "paramKind").is_some(), patches: false, ..scope };
        match_conditions(v, &expressions::admission(scope), p, e);
    }
    let at = p.child("variables");
    for (i, variable) in list(v, "variables").iter().enumerate() {
        let p = at.index(i);
        match s(variable, "name") {
            "" => e.push(Error::required(&p.child("name"), "name is not specified")),
            name if !cel::is_identifier(name) => {
                e.push(Error::invalid_str(&p.child("name"), name, "must be a valid CEL identifier"));
            }
            _ => {}
        }
        if s(variable, "expression").trim().is_empty() {
            e.push(Error::required(&p.child("expression"), "expression is not specified"));
        }
    }
    let (env, compiled) = expressions::policy(v, scope);
    for (i, (variable, (_, program))) in list(v, "variables").iter().zip(&compiled).enumerate() {
        let text = s(variable, "expression");
        if let Err(why) = program
            && !text.trim().is_empty()
        {
            e.push(Error::invalid_str(&at.index(i).child("expression"), text, why.to_string()));
        }
    }
    env
}

/// `messages` is what the message's expression may speak of: all but the authorizer.
fn validation(v: &Value, env: &cel::Env, messages: &cel::Env, p: &Path<'_>, e: &mut ErrorList) {
    let (expression, message, by_expression) = (s(v, "expression").trim(), s(v, "message"), s(v, "messageExpression"));
    let broken = |text: &str| text.contains(['\n', '\r']);
    if expression.is_empty() {
        e.push(Error::required(&p.child("expression"), "expression is not specified"));
    } else {
        expressions::check(env, s(v, "expression"), &[Type::Bool], &p.child("expression"), e);
    }
    if !by_expression.is_empty() && by_expression.trim().is_empty() {
        e.push(Error::invalid_str(&p.child("messageExpression"), by_expression, "must be non-empty if specified"));
    } else if !by_expression.is_empty() {
        expressions::check(messages, by_expression, &[Type::String], &p.child("messageExpression"), e);
    }
    let at = p.child("message");
    if !message.is_empty() && message.trim().is_empty() {
        e.push(Error::invalid_str(&at, message, "message must be non-empty if specified"));
    } else if broken(message.trim()) {
        e.push(Error::invalid_str(&at, message, "message must not contain line breaks"));
    } else if broken(expression) && message.is_empty() {
        e.push(Error::required(&at, "message must be specified if expression contains line breaks"));
    }
    optional_one_of(v, "reason", p, &["Forbidden", "Invalid", "RequestEntityTooLarge"], e);
}

fn audit_annotation(policy: &str, v: &Value, env: &cel::Env, p: &Path<'_>, e: &mut ErrorList) {
    if policy.is_empty() {
        e.push(Error::required(&p.child("key"), "requires metadata.name be non-empty"));
    } else {
        let full = format!("{policy}/{}", s(v, "key").trim());
        named(&p.child("key"), &full, names::qualified_name(&full), e);
    }
    let expression = s(v, "valueExpression").trim();
    if expression.is_empty() {
        e.push(Error::required(&p.child("valueExpression"), "valueExpression is not specified"));
    } else if expression.len() > VALUE_EXPRESSION_MAX_BYTES {
        let text = format!("must not exceed {VALUE_EXPRESSION_MAX_BYTES} bytes in length");
        e.push(Error::required(&p.child("valueExpression"), text));
    } else {
        let at = p.child("valueExpression");
        expressions::check(env, s(v, "valueExpression"), &[Type::String, Type::Null], &at, e);
    }
}

fn status(new: &Value, _old: &Value, e: &mut ErrorList) {
    let (empty, p) = (json!({}), Path::new("status"));
    let v = opt(new, "status").unwrap_or(&empty);
    let checking = p.child("typeChecking");
    let warnings = checking.child("expressionWarnings");
    for (i, warning) in at(v, "typeChecking").map_or(&[][..], |t| list(t, "expressionWarnings")).iter().enumerate() {
        for key in ["warning", "fieldRef"] {
            if s(warning, key).is_empty() {
                e.push(Error::required(&warnings.index(i).child(key), ""));
            }
        }
    }
    conditions(v, "conditions", &p, e);
}

pub struct MutatingAdmissionPolicies;

impl Strategy for MutatingAdmissionPolicies {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        default_selectors(object, "matchConstraints");
    }

    fn meta_rules(&self) -> MetaRules {
        META
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, empty, p) = (ErrorList::new(), json!({}), Path::new("spec"));
        let v = opt(object, "spec").unwrap_or(&empty);
        policy_head(v, &p, &mut e);
        if let Some(constraints) = opt(v, "matchConstraints") {
            only_mutable(constraints, &p.child("matchConstraints"), &mut e);
        }
        let env = variables(v, Scope { authorizer: true, patches: true, ..Scope::default() }, &p, &mut e);
        let at = p.child("mutations");
        if is_empty(v, "mutations") {
            e.push(Error::required(&at, "mutations must contain at least one item"));
        }
        for (i, m) in list(v, "mutations").iter().enumerate() {
            mutation(m, &env, &at.index(i), &mut e);
        }
        required_one_of(v, "reinvocationPolicy", &p, &["IfNeeded", "Never"], &mut e);
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let count = at(o, "spec").map_or(0, |v| list(v, "mutations").len());
        Some(vec![name(o), json!(count), param_kind_text(o), age(o, now)])
    }
}

/// Nothing can be changed in what is deleted.
fn only_mutable(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let rules = p.child("resourceRules");
    for operation in list(v, "resourceRules").iter().flat_map(|rule| strings(rule, "operations")) {
        one_of(&rules.child("operations"), operation, &["*", "CONNECT", "CREATE", "UPDATE"], e);
    }
}

fn mutation_type(name: &str) -> Type {
    Type::object(cel::ObjectType::new(name))
}

fn mutation(v: &Value, env: &cel::Env, p: &Path<'_>, e: &mut ErrorList) {
    let (ours, other, ty) = match s(v, "patchType") {
        "" => {
            e.push(Error::required(&p.child("patchType"), ""));
            return;
        }
        ty @ "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", ty),
        ty @ "JSONPatch" => ("jsonPatch", "applyConfiguration", ty),
        ty => {
            e.push(Error::not_supported(&p.child("patchType"), &json!(ty), &["ApplyConfiguration", "JSONPatch"]));
            return;
        }
    };
    match opt(v, ours) {
        None => e.push(Error::required(&p.child(ours), format!("must be specified when patchType is {ty}"))),
        Some(given) if s(given, "expression").trim().is_empty() => {
            e.push(Error::required(&p.child(ours).child("expression"), ""));
        }
        Some(given) => {
            let of = if ty == "JSONPatch" { Type::list(mutation_type("JSONPatch")) } else { mutation_type("Object") };
            expressions::check(env, s(given, "expression"), &[of], &p.child(ours).child("expression"), e);
        }
    }
    if opt(v, other).is_some() {
        let text = format!("must not be specified when patchType is {ty}");
        e.push(Error::invalid_str(&p.child(other), &format!("{{{other}}}"), text));
    }
}

/// The bindings of both kinds; `mutating` says which.
pub struct PolicyBindings {
    pub mutating: bool,
}

impl Strategy for PolicyBindings {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        default_selectors(object, "matchResources");
    }

    fn meta_rules(&self) -> MetaRules {
        META
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, empty, p) = (ErrorList::new(), json!({}), Path::new("spec"));
        let v = opt(object, "spec").unwrap_or(&empty);
        match s(v, "policyName") {
            "" => e.push(Error::required(&p.child("policyName"), "")),
            policy => dns_subdomain(&p.child("policyName"), policy, &mut e),
        }
        if let Some(reference) = opt(v, "paramRef") {
            param_ref(reference, &p.child("paramRef"), &mut e);
        }
        if let Some(resources) = opt(v, "matchResources") {
            match_resources(resources, &p.child("matchResources"), &mut e);
            if self.mutating {
                only_mutable(resources, &p.child("matchResources"), &mut e);
            }
        }
        if !self.mutating {
            actions(v, &p.child("validationActions"), &mut e);
        }
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let policy = at(o, "spec").map_or("", |v| s(v, "policyName"));
        let reference = at(o, "spec.paramRef").map_or_else(
            || "<unset>".to_owned(),
            |r| match (s(r, "namespace"), s(r, "name")) {
                (_, "") => selector_text(opt(r, "selector").unwrap_or(&Value::Null)),
                ("", name) => format!("*/{name}"),
                (namespace, name) => format!("{namespace}/{name}"),
            },
        );
        Some(vec![name(o), json!(policy), json!(reference), age(o, now)])
    }
}

/// Go's `String()` of a LabelSelector.
fn selector_text(v: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
    let labels: String = crate::validate::tree::entries(v, "matchLabels").map(|(k, v)| format!("{k}: {},", text(v))).collect();
    let requirement = |r: &Value| {
        let values: Vec<String> = list(r, "values").iter().map(text).collect();
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{}],}},", s(r, "key"), s(r, "operator"), values.join(" "))
    };
    let expressions: String = list(v, "matchExpressions").iter().map(requirement).collect();
    format!("&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}")
}

fn param_ref(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (given, selector) = (s(v, "name"), opt(v, "selector"));
    if !given.is_empty() {
        named(&p.child("name"), given, names::path_segment(given, false), e);
        if selector.is_some() {
            e.push(Error::forbidden(&p.child("name"), "name and selector are mutually exclusive"));
        }
    }
    if let Some(selector) = selector {
        label_selector(selector, &p.child("selector"), e);
        if !given.is_empty() {
            e.push(Error::forbidden(&p.child("selector"), "name and selector are mutually exclusive"));
        }
    }
    if given.is_empty() && selector.is_none() {
        e.push(Error::required(p, "one of name or selector must be specified"));
    }
    match opt_s(v, "parameterNotFoundAction") {
        None | Some("") => e.push(Error::required(&p.child("parameterNotFoundAction"), "")),
        Some(action) => one_of(&p.child("parameterNotFoundAction"), action, &["Deny", "Allow"], e),
    }
}

fn actions(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let all: Vec<&str> = strings(v, "validationActions").collect();
    let mut seen = Seen::default();
    for (i, action) in all.iter().enumerate() {
        one_of(&p.index(i), action, &["Audit", "Deny", "Warn"], e);
        if seen.again(*action) {
            e.push(Error::duplicate(&p.index(i), &json!(action)));
        }
    }
    if all.contains(&"Deny") && all.contains(&"Warn") {
        let text = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        e.push(Error::invalid(p, &json!(all), text));
    }
    if all.is_empty() {
        e.push(Error::required(p, "at least one validation action is required"));
    }
}
