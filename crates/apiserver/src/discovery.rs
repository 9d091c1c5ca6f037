//! Discovery: which groups, versions and resources there are, in the old form (a document per group version) and the
//! aggregated one (all in one, with an ETag).

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use http::HeaderValue;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use kinds::Resource;
use machinery::gvk::GroupVersion;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};

use crate::aggregation::discovery as merged;
use crate::chain::Call;
use crate::http::respond::{self, Answer};
use crate::registry::Snapshot;

pub fn serve(call: &Call, path: &str) -> Answer {
    let registry = &*call.api.registry.snapshot();
    match path.trim_start_matches('/').split('/').collect::<Vec<_>>().as_slice() {
        ["api"] => root(call, true),
        ["apis"] => root(call, false),
        ["api", version] if registry.has_group_version("", version) => resources(call, &GroupVersion::new("", *version)),
        ["apis", group] => match merged::add_to_group(&call.api, group, group_of(registry, group)) {
            Some(mut document) => {
                document["kind"] = json!("APIGroup");
                document["apiVersion"] = json!("v1");
                respond::value(200, &call.negotiated, &document)
            }
            None => respond::page_not_found(),
        },
        ["apis", group, version] if registry.has_group_version(group, version) => resources(call, &GroupVersion::new(*group, *version)),
        ["api", _] | ["api", _, ""] => respond::error(&call.negotiated, &crate::verbs::no_such_resource()),
        _ => respond::page_not_found(),
    }
}

fn root(call: &Call, core: bool) -> Answer {
    if let Some(version) = aggregated_version(call) {
        return aggregated(call, core, version);
    }
    let document = if core {
        let address = std::net::SocketAddr::new(call.api.config.advertised(), call.api.port).to_string();
        json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]})
    } else {
        let mut groups: Vec<Value> = {
            let registry = call.api.registry.snapshot();
            groups(&registry).iter().filter_map(|g| group_of(&registry, g)).collect()
        };
        merged::add_to_groups(&call.api, &mut groups);
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
    };
    let mut answer = respond::value(200, &call.negotiated, &document);
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    answer
}

fn groups(registry: &Snapshot) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for gv in registry.group_versions().iter().filter(|gv| !gv.group.is_empty()) {
        if !names.contains(&gv.group) {
            names.push(gv.group.clone());
        }
    }
    names
}

fn group_of(registry: &Snapshot, group: &str) -> Option<Value> {
    let of_group = registry.group_versions().iter().filter(|gv| gv.group == group);
    let versions: Vec<Value> = of_group.map(|gv| json!({"groupVersion": gv.to_string(), "version": gv.version})).collect();
    let preferred = versions.first()?.clone();
    Some(json!({"name": group, "versions": versions, "preferredVersion": preferred}))
}

fn rows<'a>(registry: &'a Snapshot, gv: &'a GroupVersion) -> Vec<&'a Resource> {
    let mut rows: Vec<&Resource> = registry.of(gv).map(|r| &**r).collect();
    rows.sort_by(|a, b| a.resource.cmp(&b.resource));
    rows
}

fn resources(call: &Call, gv: &GroupVersion) -> Answer {
    let mut list: Vec<Value> = Vec::new();
    for row in rows(&call.api.registry.snapshot(), gv) {
        let mut one = json!({
            "name": row.resource, "singularName": row.singular, "namespaced": row.namespaced, "kind": row.kind, "verbs": verbs(row),
        });
        for (key, words) in [("shortNames", &row.short_names), ("categories", &row.categories)] {
            if !words.is_empty() {
                one[key] = json!(words);
            }
        }
        if !row.storage_version_hash.is_empty() {
            one["storageVersionHash"] = json!(row.storage_version_hash);
        }
        list.push(one);
        for sub in &row.subresources {
            let name = format!("{}/{}", row.resource, sub.name);
            let mut one =
                json!({"name": name, "singularName": "", "namespaced": row.namespaced, "kind": sub.kind.kind, "verbs": sub.verbs});
            if sub.kind.group != row.group || sub.kind.version != row.version {
                one["group"] = json!(sub.kind.group);
                one["version"] = json!(sub.kind.version);
            }
            list.push(one);
        }
    }
    list.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let mut document = json!({"kind": "APIResourceList", "groupVersion": gv.to_string(), "resources": list});
    if !gv.group.is_empty() {
        document["apiVersion"] = json!("v1");
    }
    respond::value(200, &call.negotiated, &document)
}

fn verbs(row: &Resource) -> Value {
    match &row.custom {
        Some(custom) if custom.terminating => json!(kinds::custom::TERMINATING_VERBS),
        _ => json!(row.verbs),
    }
}

/// The version of the aggregated form the client asks for first.
fn aggregated_version(call: &Call) -> Option<&'static str> {
    let accept = call.headers.get(ACCEPT)?.to_str().ok()?;
    for clause in accept.split(',') {
        let has = |part: &str| clause.split(';').any(|p| p.trim() == part);
        if has("as=APIGroupDiscoveryList") && has("g=apidiscovery.k8s.io") && has("application/json") {
            if has("v=v2") {
                return Some("v2");
            }
            if has("v=v2beta1") {
                return Some("v2beta1");
            }
        }
        if clause.trim() == "application/json" || clause.trim().starts_with("application/json;q") {
            return None;
        }
    }
    None
}

/// The documents of the aggregated form, written out, while the registry is the same. Who follows kinds asks every half minute:
/// making them anew was most of what an idle control plane did, and touched a megabyte of memory and of code each time.
#[derive(Default)]
pub struct Documents(Mutex<Made>);

#[derive(Default)]
struct Made {
    of: Weak<Snapshot>,
    documents: Vec<(bool, &'static str, Document)>,
}

#[derive(Clone)]
struct Document {
    text: Bytes,
    etag: String,
}

impl Documents {
    fn get(&self, call: &Call, core: bool, version: &'static str) -> Document {
        let registry = call.api.registry.snapshot();
        // What other servers say may change at any time.
        if !core && call.api.aggregation.has_remote() {
            return document(call, &registry, core, version);
        }
        let kept = || {
            let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if !std::ptr::eq(made.of.as_ptr(), Arc::as_ptr(&registry)) {
                *made = Made { of: Arc::downgrade(&registry), documents: Vec::new() };
            }
            made
        };
        let same = |known: &&(bool, &'static str, Document)| (known.0, known.1) == (core, version);
        if let Some((.., document)) = kept().documents.iter().find(same) {
            return document.clone();
        }
        let document = document(call, &registry, core, version);
        let mut made = kept();
        if !made.documents.iter().any(|known| same(&known)) {
            made.documents.push((core, version, document.clone()));
        }
        document
    }
}

fn document(call: &Call, registry: &Snapshot, core: bool, version: &'static str) -> Document {
    let names = if core { vec![String::new()] } else { groups(registry) };
    let mut items: Vec<Value> = names.iter().map(|group| discovered(registry, group)).collect();
    if !core {
        merged::add_to_discovery(&call.api, &mut items);
    }
    let document =
        json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items});
    let text = document.to_string();
    let etag = format!("\"{}\"", hex::encode_upper(Sha512::digest(text.as_bytes())));
    Document { text: Bytes::copy_from_slice(text.as_bytes()), etag }
}

fn aggregated(call: &Call, core: bool, version: &'static str) -> Answer {
    let Document { text, etag } = call.api.discovery.get(call, core, version);
    let same = call.headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok()) == Some(&etag);
    let mut answer = if same { respond::bytes(304, "application/json", "") } else { respond::bytes(200, "application/json", text) };
    let content_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    if let (Ok(kind), Ok(tag)) = (HeaderValue::from_str(&content_type), HeaderValue::from_str(&etag)) {
        answer.headers_mut().insert(CONTENT_TYPE, kind);
        answer.headers_mut().insert(ETAG, tag);
    }
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    answer
}

fn discovered(registry: &Snapshot, group: &str) -> Value {
    let versions: Vec<Value> = registry
        .group_versions()
        .iter()
        .filter(|gv| gv.group == group)
        .map(|gv| {
            let resources: Vec<Value> = rows(registry, gv).into_iter().map(discovered_resource).collect();
            json!({"version": gv.version, "freshness": "Current", "resources": resources})
        })
        .collect();
    let metadata = if group.is_empty() { json!({"creationTimestamp": null}) } else { json!({"name": group, "creationTimestamp": null}) };
    json!({"metadata": metadata, "versions": versions})
}

fn discovered_resource(row: &Resource) -> Value {
    let mut one = json!({
        "resource": row.resource, "responseKind": {"group": row.group, "version": row.version, "kind": row.kind},
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" }, "singularResource": row.singular, "verbs": verbs(row),
    });
    for (key, words) in [("shortNames", &row.short_names), ("categories", &row.categories)] {
        if !words.is_empty() {
            one[key] = json!(words);
        }
    }
    if !row.subresources.is_empty() {
        one["subresources"] = row
            .subresources
            .iter()
            .map(|s| {
                json!({"subresource": s.name, "verbs": s.verbs,
                    "responseKind": {"group": s.kind.group, "version": s.kind.version, "kind": s.kind.kind}})
            })
            .collect();
    }
    one
}
