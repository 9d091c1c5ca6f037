//! Node and pod affinity.

use machinery::field::{Error, ErrorList, Path};
use serde_json::{Value, json};

use super::rules::{dns_label, qualified};
use super::selector::{label_selector_at, node_selector, node_selector_term};
use super::tree::{int0, list, opt, s, strings};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub fn affinity(spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let Some(v) = opt(spec, "affinity") else { return };
    let p = p.child("affinity");
    if let Some(node) = opt(v, "nodeAffinity") {
        node_affinity(node, &p.child("nodeAffinity"), e);
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        if let Some(pods) = opt(v, key) {
            pod_affinity(pods, &p.child(key), e);
        }
    }
}

fn weight(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if !(1..=100).contains(&int0(v, "weight")) {
        e.push(Error::invalid(&p.child("weight"), &json!(int0(v, "weight")), "must be in the range 1-100"));
    }
}

pub fn node_affinity(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if let Some(selector) = opt(v, REQUIRED) {
        node_selector(selector, &p.child(REQUIRED), e);
    }
    let at = p.child(PREFERRED);
    for (i, term) in list(v, PREFERRED).iter().enumerate() {
        let at = at.index(i);
        weight(term, &at, e);
        if let Some(preference) = opt(term, "preference") {
            node_selector_term(preference, &at.child("preference"), e);
        }
    }
}

fn pod_affinity(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child(REQUIRED);
    for (i, t) in list(v, REQUIRED).iter().enumerate() {
        term(t, &at.index(i), e);
    }
    let at = p.child(PREFERRED);
    let empty = json!({});
    for (i, weighted) in list(v, PREFERRED).iter().enumerate() {
        let at = at.index(i);
        weight(weighted, &at, e);
        term(opt(weighted, "podAffinityTerm").unwrap_or(&empty), &at.child("podAffinityTerm"), e);
    }
}

fn term(t: &Value, p: &Path<'_>, e: &mut ErrorList) {
    label_selector_at(t, "labelSelector", p, e);
    label_selector_at(t, "namespaceSelector", p, e);
    for name in strings(t, "namespaces") {
        dns_label(&p.child("namespace"), name, e);
    }
    super::scheduling::label_keys(t, p, e);
    let key = s(t, "topologyKey");
    if key.is_empty() {
        e.push(Error::required(&p.child("topologyKey"), "can not be empty"));
    }
    qualified(&p.child("topologyKey"), key, e);
}
