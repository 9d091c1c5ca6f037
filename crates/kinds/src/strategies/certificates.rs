//! CertificateSigningRequests. Who asks for a certificate is set by the server.

use base64::Engine as _;
use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use super::workload::keep_status;
use crate::columns::{age, name};
use crate::strategy::{Context, Strategy};
use crate::validate::rules::one_of;
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

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = CertificateSigningRequests.validate(ctx, new);
        let (root, before) = (Path::new("status"), opt(old, "status").unwrap_or(&NULL));
        let (p, status) = (root.child("conditions"), opt(new, "status").unwrap_or(&NULL));
        let all = list(status, "conditions");
        for (i, c) in all.iter().enumerate() {
            request_condition(c, all, &p.index(i), &mut e);
        }
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

/// Conditions that are true once and for all.
const LASTING: [&str; 3] = ["Approved", "Denied", "Failed"];

fn request_condition(c: &Value, all: &[Value], p: &Path<'_>, e: &mut ErrorList) {
    let (ty, status) = (s(c, "type"), s(c, "status"));
    if ty.is_empty() {
        e.push(Error::required(&p.child("type"), ""));
    }
    match status {
        "" => e.push(Error::required(&p.child("status"), "")),
        _ if LASTING.contains(&ty) && status != "True" => {
            e.push(Error::not_supported(&p.child("status"), &json!(status), &["True"]));
        }
        _ => crate::validate::rules::one_of(&p.child("status"), status, &["False", "True", "Unknown"], e),
    }
    let denied = |o: &Value| s(o, "type") == "Denied";
    if ty == "Approved" && all.iter().any(denied) {
        e.push(Error::invalid_str(&p.child("type"), ty, "Approved and Denied conditions are mutually exclusive"));
    }
}

impl Strategy for CertificateSigningRequests {
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
        let (mut e, p) = (ErrorList::new(), Path::new("spec"));
        let v = opt(object, "spec").unwrap_or(&NULL);
        let request = s(v, "request");
        let pem = base64::engine::general_purpose::STANDARD.decode(request).unwrap_or_default();
        if !pem.windows(37).any(|w| w.starts_with(b"-----BEGIN CERTIFICATE REQUEST-----")) {
            let shown = if request.is_empty() { Value::Null } else { json!(request) };
            e.push(Error::invalid(&p.child("request"), &shown, "PEM block type must be CERTIFICATE REQUEST"));
        }
        let at_usages = p.child("usages");
        if is_empty(v, "usages") {
            e.push(Error::required(&at_usages, ""));
        }
        let usages: Vec<&str> = strings(v, "usages").collect();
        for (i, usage) in usages.iter().enumerate() {
            one_of(&at_usages.index(i), usage, &USAGES, &mut e);
            if usages[..i].contains(usage) {
                e.push(Error::duplicate(&at_usages.index(i), &json!(usage)));
            }
        }
        signer(s(v, "signerName"), &p.child("signerName"), &mut e);
        if let Some(n) = int(v, "expirationSeconds").filter(|n| *n < 600) {
            let text = "may not specify a duration less than 600 seconds (10 minutes)";
            e.push(Error::invalid(&p.child("expirationSeconds"), &json!(n), text));
        }
        e
    }

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

fn signer(text: &str, p: &Path<'_>, e: &mut ErrorList) {
    let Some((domain, path)) = text.split_once('/') else {
        e.push(if text.is_empty() {
            Error::required(p, "")
        } else {
            Error::invalid_str(p, text, "must be a fully qualified domain and path of the form 'example.com/signer-name'")
        });
        return;
    };
    for problem in names::dns1123_subdomain(domain).into_iter().chain(names::dns1123_subdomain(path)) {
        e.push(Error::invalid_str(p, text, format!("validating label {}: {problem}", machinery::field::go_quote(domain))));
    }
    if !domain.contains('.') {
        e.push(Error::invalid_str(p, text, "should be a domain with at least two segments separated by dots"));
    }
}
