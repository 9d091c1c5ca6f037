//! CertificateSigningRequests. Who asks for a certificate is set by the server.

use base64::Engine as _;
use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use super::workload::keep_status;
use crate::columns::{age, name};
use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::pem;
use crate::validate::rules::{Seen, one_of};
use crate::validate::tree::{at, has, int, is_empty, keep, list, list_mut, opt, remove, s, set, strings};

static NULL: Value = Value::Null;

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

pub struct CertificateSigningRequests;

/// `status` and `approval`: the spec stays.
struct KeepSpec {
    approval: bool,
}

impl Strategy for KeepSpec {
    fn meta_rules(&self) -> MetaRules {
        MetaRules { create_on_update: true, ..MetaRules::default() }
    }

    fn prepare_for_update(&self, ctx: &Context, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
        let before = opt(old, "status").cloned().unwrap_or_else(|| json!({}));
        if !new.get("status").is_some_and(Value::is_object) {
            set(new, "status", json!({}));
        }
        let Some(status) = new.get_mut("status") else { return };
        if self.approval {
            keep(status, &before, "certificate");
        } else if !["Approved", "Denied"].iter().all(|ty| preserve(status, &before, ty)) {
            keep(status, &before, "conditions");
        }
        condition_times(status, &before, &ctx.now);
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = judge(new, Some(old));
        let (root, before) = (Path::new("status"), opt(old, "status").unwrap_or(&NULL));
        let (p, status) = (root.child("conditions"), opt(new, "status").unwrap_or(&NULL));
        for ty in LASTING {
            let count = |v: &Value| list(v, "conditions").iter().filter(|c| s(c, "type") == ty).count();
            if count(status) < count(before) {
                e.push(Error::forbidden(&p, format!("updates may not remove a condition of type \"{ty}\"")));
            }
        }
        let (now, then) = (s(status, "certificate"), s(before, "certificate"));
        if !self.approval && now != then && !then.is_empty() {
            e.push(Error::forbidden(&root.child("certificate"), "updates may not modify existing certificate content"));
        }
        e
    }
}

/// Through `status` nobody approves or denies: as many conditions of the type as before get their old values; false if there are
/// more or fewer (`preserveConditionInstances`).
fn preserve(status: &mut Value, before: &Value, ty: &str) -> bool {
    let old: Vec<&Value> = list(before, "conditions").iter().filter(|c| s(c, "type") == ty).collect();
    let mut new: Vec<&mut Value> = list_mut(status, "conditions").iter_mut().filter(|c| s(c, "type") == ty).collect();
    if old.len() != new.len() {
        return false;
    }
    for (new, old) in new.iter_mut().zip(old) {
        **new = old.clone();
    }
    true
}

/// `populateConditionTimestamps`
fn condition_times(status: &mut Value, before: &Value, now: &str) {
    for c in list_mut(status, "conditions") {
        if !has(c, "lastUpdateTime") {
            set(c, "lastUpdateTime", now);
        }
        if has(c, "lastTransitionTime") {
            continue;
        }
        let same = |o: &&Value| s(o, "type") == s(c, "type") && s(o, "status") == s(c, "status") && has(o, "lastTransitionTime");
        let since = list(before, "conditions").iter().find(same).and_then(|o| opt(o, "lastTransitionTime")).cloned();
        set(c, "lastTransitionTime", since.unwrap_or_else(|| json!(now)));
    }
}

const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const DOMAIN_MAX_BYTES: usize = 253;
/// A domain, a slash, and room for a namespace and a name.
const SIGNER_MAX_BYTES: usize = DOMAIN_MAX_BYTES + 1 + 253 + 63 + 1;
/// Conditions that are true once and for all.
const LASTING: [&str; 3] = ["Approved", "Denied", "Failed"];

/// `validateCertificateSigningRequest`. What was wrong before may stay wrong.
fn judge(new: &Value, old: Option<&Value>) -> ErrorList {
    let (mut e, p) = (ErrorList::new(), Path::new("spec"));
    let (v, before) = (opt(new, "spec").unwrap_or(&NULL), old.and_then(|old| opt(old, "spec")).unwrap_or(&NULL));
    if let Some(problem) = pem::request_problem(&bytes(v, "request")) {
        e.push(Error::invalid(&p.child("request"), opt(v, "request").unwrap_or(&NULL), problem));
    }
    usages(v, before, &p.child("usages"), &mut e);
    match s(v, "signerName") {
        LEGACY_SIGNER if s(before, "signerName") != LEGACY_SIGNER => {
            let text = "the legacy signerName is not allowed via this API version";
            e.push(Error::invalid_str(&p.child("signerName"), LEGACY_SIGNER, text));
        }
        name => signer(name, &p.child("signerName"), &mut e),
    }
    if let Some(n) = int(v, "expirationSeconds").filter(|n| *n < 600) {
        let text = "may not specify a duration less than 600 seconds (10 minutes)";
        e.push(Error::invalid(&p.child("expirationSeconds"), &json!(n), text));
    }
    let root = Path::new("status");
    let (status, before) = (opt(new, "status").unwrap_or(&NULL), old.and_then(|old| opt(old, "status")).unwrap_or(&NULL));
    conditions(list(status, "conditions"), list(before, "conditions"), &root.child("conditions"), &mut e);
    let tolerated = old.is_some()
        && (s(status, "certificate") == s(before, "certificate") || pem::certificate_problem(&bytes(before, "certificate")).is_some());
    if let Some(problem) = pem::certificate_problem(&bytes(status, "certificate")).filter(|_| !tolerated) {
        e.push(Error::invalid_str(&root.child("certificate"), "<certificate data>", problem));
    }
    e
}

fn bytes(v: &Value, key: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(s(v, key)).unwrap_or_default()
}

fn repeats<'a>(mut all: impl Iterator<Item = &'a str>) -> bool {
    let mut seen = Seen::default();
    all.any(|item| seen.again(item))
}

fn usages(v: &Value, before: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if is_empty(v, "usages") {
        e.push(Error::required(p, ""));
    }
    let all: Vec<&str> = strings(v, "usages").collect();
    if strings(before, "usages").all(|usage| USAGES.contains(&usage)) {
        for (i, usage) in all.iter().enumerate() {
            one_of(&p.index(i), usage, &USAGES, e);
        }
    }
    if !repeats(strings(before, "usages")) {
        let mut seen = Seen::default();
        for (i, usage) in all.iter().enumerate().filter(|(_, usage)| seen.again(**usage)) {
            e.push(Error::duplicate(&p.index(i), &json!(usage)));
        }
    }
}

/// `validateConditions`
fn conditions(all: &[Value], before: &[Value], p: &Path<'_>, e: &mut ErrorList) {
    fn has(all: &[Value], ty: &str) -> bool {
        all.iter().any(|c| s(c, "type") == ty)
    }
    let both = has(before, "Approved") && has(before, "Denied");
    let (unnamed, repeated) = (has(before, ""), repeats(before.iter().map(|c| s(c, "type"))));
    let (mut seen, mut approved, mut denied) = (Seen::default(), false, false);
    for (i, c) in all.iter().enumerate() {
        let (ty, status, p) = (s(c, "type"), s(c, "status"), p.index(i));
        if ty.is_empty() && !unnamed {
            e.push(Error::required(&p.child("type"), ""));
        }
        match status {
            "" => e.push(Error::required(&p.child("status"), "")),
            _ if LASTING.contains(&ty) => one_of(&p.child("status"), status, &["True"], e),
            _ => one_of(&p.child("status"), status, &["False", "True", "Unknown"], e),
        }
        (approved, denied) = (approved || ty == "Approved", denied || ty == "Denied");
        if approved && denied && matches!(ty, "Approved" | "Denied") && !both {
            e.push(Error::invalid_str(&p.child("type"), ty, "Approved and Denied conditions are mutually exclusive"));
        }
        if seen.again(ty) && !repeated {
            e.push(Error::duplicate(&p.child("type"), &json!(ty)));
        }
    }
}

impl Strategy for CertificateSigningRequests {
    fn meta_rules(&self) -> MetaRules {
        MetaRules { create_on_update: true, ..MetaRules::default() }
    }

    fn prepare_for_create(&self, ctx: &Context, object: &mut Value) {
        set(object, "status", json!({}));
        if let Some(v) = object.get_mut("spec").filter(|v| v.is_object()) {
            // What a client says of itself is not believed.
            for key in ["username", "uid", "groups", "extra"] {
                remove(v, key);
            }
            for (key, text) in [("username", &ctx.user), ("uid", &ctx.uid)] {
                if !text.is_empty() {
                    set(v, key, text.clone());
                }
            }
            if !ctx.groups.is_empty() {
                set(v, "groups", json!(ctx.groups));
            }
            if !ctx.extra.is_empty() {
                set(v, "extra", json!(ctx.extra));
            }
        }
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
        keep_status(new, old);
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        judge(object, None)
    }

    /// Neither spec nor status changes here.
    fn validate_update(&self, _ctx: &Context, _new: &Value, _old: &Value) -> ErrorList {
        ErrorList::new()
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        match name {
            "status" => Some(&KeepSpec { approval: false }),
            "approval" => Some(&KeepSpec { approval: true }),
            _ => None,
        }
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let text = |path: &str| at(o, path).and_then(Value::as_str).unwrap_or("").to_owned();
        let duration =
            at(o, "spec.expirationSeconds").and_then(Value::as_i64).map_or_else(|| "<none>".to_owned(), machinery::time::human_duration);
        Some(vec![name(o), age(o, now), json!(text("spec.signerName")), json!(text("spec.username")), json!(duration), json!(condition(o))])
    }
}

fn condition(o: &Value) -> String {
    let status = opt(o, "status").unwrap_or(&NULL);
    let has = |ty: &str| list(status, "conditions").iter().any(|c| s(c, "type") == ty);
    let mut texts = vec![if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }];
    if has("Failed") {
        texts.push("Failed");
    }
    if !s(status, "certificate").is_empty() {
        texts.push("Issued");
    }
    texts.join(",")
}

/// `ValidateSignerName`: a domain of labels, and a path of subdomains.
fn signer(text: &str, p: &Path<'_>, e: &mut ErrorList) {
    if text.is_empty() {
        e.push(Error::required(p, ""));
        return;
    }
    let Some((domain, path)) = text.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        e.push(Error::invalid_str(p, text, "must be a fully qualified domain and path of the form 'example.com/signer-name'"));
        return;
    };
    if domain.len() > DOMAIN_MAX_BYTES {
        e.push(Error::too_long(p, DOMAIN_MAX_BYTES));
    }
    labels(domain, names::dns1123_label, p, e);
    if !domain.contains('.') {
        e.push(Error::invalid_str(p, domain, "should be a domain with at least two segments separated by dots"));
    }
    labels(path, names::dns1123_subdomain, p, e);
    if text.len() > SIGNER_MAX_BYTES {
        e.push(Error::too_long(p, SIGNER_MAX_BYTES));
    }
}

/// The first bad label is told of.
fn labels(all: &str, rule: fn(&str) -> names::Problems, p: &Path<'_>, e: &mut ErrorList) {
    let bad = all.split('.').map(|label| (label, rule(label))).find(|(_, problems)| !problems.is_empty());
    for (label, problem) in bad.into_iter().flat_map(|(label, problems)| problems.into_iter().map(move |problem| (label, problem))) {
        e.push(Error::invalid_str(p, all, format!("validating label {}: {problem}", machinery::field::go_quote(label))));
    }
}
