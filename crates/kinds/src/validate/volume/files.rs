//! Volumes whose files come from the API: secrets, config maps, the downward API, and projections of several.

use machinery::field::{Error, ErrorList, Path};
use serde_json::{Value, json};

use super::super::rules::required;
use super::super::tree::{has, int, list, opt, s};
use super::local_path_strict;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Fields a volume file may take from its pod.
const POD_FIELDS: [&str; 5] = ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Fields that can be selected by a path but not in a volume.
const OTHER_FIELDS: [&str; 7] =
    ["spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"];
const RESOURCES: [&str; 6] =
    ["limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"];

fn mode(v: &Value, key: &str, p: &Path<'_>, e: &mut ErrorList) {
    if let Some(n) = int(v, key).filter(|n| !(0..=0o777).contains(n)) {
        e.push(Error::invalid(&p.child(key), &json!(n), MODE));
    }
}

fn items(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("items");
    for (i, item) in list(v, "items").iter().enumerate() {
        let at = at.index(i);
        required(item, "key", &at, e);
        required(item, "path", &at, e);
        local_path_strict(s(item, "path"), &at.child("path"), e);
        mode(item, "mode", &at, e);
    }
}

pub fn secret(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("secret");
    required(v, "secretName", &p, e);
    mode(v, "defaultMode", &p, e);
    items(v, &p, e);
}

pub fn config_map(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("configMap");
    required(v, "name", &p, e);
    mode(v, "defaultMode", &p, e);
    items(v, &p, e);
}

pub fn downward_api_volume(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("downwardAPI");
    mode(v, "defaultMode", &p, e);
    for file in list(v, "items") {
        downward_file(file, &p, e);
    }
}

/// Upstream leaves the index out of these paths.
fn downward_file(file: &Value, p: &Path<'_>, e: &mut ErrorList) {
    required(file, "path", p, e);
    local_path_strict(s(file, "path"), &p.child("path"), e);
    match (opt(file, "fieldRef"), opt(file, "resourceFieldRef")) {
        (Some(field), resource) => {
            field_ref(field, &p.child("fieldRef"), &POD_FIELDS, e);
            if resource.is_some() {
                let text = "fieldRef and resourceFieldRef can not be specified simultaneously";
                e.push(Error::invalid_str(p, "resource", text));
            }
        }
        (None, Some(resource)) => resource_ref(resource, &p.child("resourceFieldRef"), &RESOURCES, true, e),
        (None, None) => e.push(Error::required(p, "one of fieldRef and resourceFieldRef is required")),
    }
    mode(file, "mode", p, e);
}

/// A reference to a field of the pod; `allowed` are the paths supported here.
pub fn field_ref(r: &Value, p: &Path<'_>, allowed: &[&str], e: &mut ErrorList) {
    if s(r, "apiVersion").is_empty() {
        e.push(Error::required(&p.child("apiVersion"), ""));
        return;
    }
    let path = s(r, "fieldPath");
    let at = p.child("fieldPath");
    if path.is_empty() {
        e.push(Error::required(&at, ""));
        return;
    }
    if s(r, "apiVersion") != "v1" {
        e.push(Error::invalid_str(&at, path, format!("error converting fieldPath: unsupported pod version: {}", s(r, "apiVersion"))));
        return;
    }
    if let Some((base, key)) =
        path.strip_suffix(']').and_then(|rest| rest.split_once("['")).and_then(|(b, k)| Some((b, k.strip_suffix('\'')?)))
    {
        match base {
            "metadata.annotations" => super::super::rules::named(&at, path, machinery::names::qualified_name(&key.to_lowercase()), e),
            "metadata.labels" => super::super::rules::named(&at, path, machinery::names::qualified_name(key), e),
            _ => e.push(Error::invalid_str(&at, path, "does not support subscript")),
        }
        return;
    }
    let known = POD_FIELDS.contains(&path) || OTHER_FIELDS.contains(&path) || path == "spec.host";
    if !known {
        e.push(Error::invalid_str(&at, path, format!("error converting fieldPath: field label not supported: {path}")));
    } else if !allowed.contains(&path) {
        e.push(Error::not_supported(&at, &json!(path), allowed));
    }
}

/// A reference to a container's resource; in volumes the container must be named.
pub fn resource_ref(r: &Value, p: &Path<'_>, allowed: &[&str], volume: bool, e: &mut ErrorList) {
    let resource = s(r, "resource");
    if volume && s(r, "containerName").is_empty() {
        e.push(Error::required(&p.child("containerName"), ""));
    } else if resource.is_empty() {
        e.push(Error::required(&p.child("resource"), ""));
    } else if !allowed.contains(&resource) && !resource.starts_with("requests.hugepages-") && !resource.starts_with("limits.hugepages-") {
        e.push(Error::not_supported(&p.child("resource"), &json!(resource), allowed));
    }
    divisor(r, p, e);
}

/// Which divisors make sense for a resource.
fn divisor(r: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let Some(text) = opt(r, "divisor").and_then(Value::as_str).filter(|d| !d.is_empty() && *d != "0") else { return };
    let resource = s(r, "resource");
    let (allowed, what): (&[&str], &str) = match resource.rsplit_once('.').map(|(_, name)| name) {
        Some("cpu") => (&["1m", "1"], "only divisor's values 1m and 1 are supported with the cpu resource"),
        Some("memory") => (
            &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"],
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource",
        ),
        Some("ephemeral-storage") => (
            &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"],
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the local ephemeral storage resource",
        ),
        _ if resource.contains(".hugepages-") => (
            &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"],
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the hugepages resource",
        ),
        _ => return,
    };
    if !allowed.contains(&text) {
        let at = p.child("divisor");
        e.push(Error::invalid_str(&at, resource, what));
    }
}

pub fn projected(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("projected");
    mode(v, "defaultMode", &p, e);
    let at = p.child("sources");
    let mut paths: Vec<&str> = Vec::new();
    for (i, source) in list(v, "sources").iter().enumerate() {
        projection(source, &at.index(i), &p, &mut paths, e);
    }
}

fn projection<'a>(source: &'a Value, at: &Path<'_>, whole: &Path<'_>, paths: &mut Vec<&'a str>, e: &mut ErrorList) {
    let mut found = 0;
    let mut more = |key: &str, e: &mut ErrorList| {
        found += 1;
        if found > 1 {
            e.push(Error::forbidden(&at.child(key), "may not specify more than 1 volume type"));
        }
        found == 1
    };
    if let Some(v) = opt(source, "secret")
        && more("secret", e)
    {
        let at = at.child("secret");
        required(v, "name", &at, e);
        projected_items(v, &at, whole, paths, e);
    }
    if let Some(v) = opt(source, "configMap")
        && more("configMap", e)
    {
        let at = at.child("configMap");
        required(v, "name", &at, e);
        projected_items(v, &at, whole, paths, e);
    }
    if let Some(v) = opt(source, "downwardAPI")
        && more("downwardAPI", e)
    {
        let at = at.child("downwardAPI");
        for file in list(v, "items") {
            downward_file(file, &at, e);
            claim_path(s(file, "path"), whole, paths, e);
        }
    }
    if let Some(v) = opt(source, "serviceAccountToken")
        && more("serviceAccountToken", e)
    {
        service_account_token(v, &at.child("serviceAccountToken"), whole, paths, e);
    }
    if let Some(v) = opt(source, "clusterTrustBundle")
        && more("clusterTrustBundle", e)
    {
        trust_bundle(v, &at.child("clusterTrustBundle"), whole, paths, e);
    }
    if let Some(v) = opt(source, "podCertificate")
        && more("podCertificate", e)
    {
        pod_certificate(v, &at.child("podCertificate"), e);
    }
}

fn projected_items<'a>(v: &'a Value, at: &Path<'_>, whole: &Path<'_>, paths: &mut Vec<&'a str>, e: &mut ErrorList) {
    let items_at = at.child("items");
    for (i, item) in list(v, "items").iter().enumerate() {
        let at = items_at.index(i);
        required(item, "key", &at, e);
        required(item, "path", &at, e);
        local_path_strict(s(item, "path"), &at.child("path"), e);
        mode(item, "mode", &at, e);
        claim_path(s(item, "path"), whole, paths, e);
    }
}

/// Two sources must not write one file.
fn claim_path<'a>(path: &'a str, whole: &Path<'_>, paths: &mut Vec<&'a str>, e: &mut ErrorList) {
    if path.is_empty() {
        return;
    }
    if paths.contains(&path) {
        let text = format!("conflicting duplicate paths: {path}");
        e.push(Error::invalid_str(whole, path, text));
    }
    paths.push(path);
}

fn service_account_token<'a>(v: &'a Value, at: &Path<'_>, whole: &Path<'_>, paths: &mut Vec<&'a str>, e: &mut ErrorList) {
    // Decoding has given an hour where nothing was said.
    if let Some(seconds) = int(v, "expirationSeconds") {
        let p = at.child("expirationSeconds");
        if seconds < 600 {
            e.push(Error::invalid(&p, &json!(seconds), "may not specify a duration less than 10 minutes"));
        }
        if seconds > 1 << 32 {
            e.push(Error::invalid(&p, &json!(seconds), "may not specify a duration larger than 2^32 seconds"));
        }
    }
    if s(v, "path").is_empty() {
        e.push(Error::required(&whole.child("path"), ""));
    } else {
        local_path_strict(s(v, "path"), &at.child("path"), e);
        claim_path(s(v, "path"), whole, paths, e);
    }
}

fn trust_bundle<'a>(v: &'a Value, at: &Path<'_>, whole: &Path<'_>, paths: &mut Vec<&'a str>, e: &mut ErrorList) {
    match (has(v, "name"), has(v, "signerName")) {
        (true, true) => e.push(Error::invalid(at, v, "only one of name and signerName may be used")),
        (false, false) => e.push(Error::required(at, "either name or signerName must be specified")),
        (true, false) => {
            if s(v, "name").is_empty() {
                e.push(Error::required(&at.child("name"), "must be a valid object name"));
            }
            if has(v, "labelSelector") {
                e.push(Error::invalid(&at.child("labelSelector"), &v["labelSelector"], "labelSelector must be unset if name is specified"));
            }
        }
        (false, true) => {
            if s(v, "signerName").is_empty() {
                e.push(Error::required(&at.child("signerName"), "must be a valid signer name"));
            }
            super::super::selector::label_selector_at(v, "labelSelector", at, e);
        }
    }
    if required(v, "path", at, e) {
        local_path_strict(s(v, "path"), &at.child("path"), e);
        claim_path(s(v, "path"), whole, paths, e);
    }
}

fn pod_certificate(v: &Value, at: &Path<'_>, e: &mut ErrorList) {
    required(v, "signerName", at, e);
    super::super::rules::required_one_of(v, "keyType", at, &["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"], e);
    if let Some(seconds) = int(v, "maxExpirationSeconds") {
        let p = at.child("maxExpirationSeconds");
        if seconds < 3600 {
            e.push(Error::invalid(&p, &json!(seconds), "if provided, maxExpirationSeconds must be >= 3600"));
        }
        if seconds > 91 * 86_400 {
            e.push(Error::invalid(&p, &json!(seconds), "if provided, maxExpirationSeconds must be <= 7862400"));
        }
    }
    let paths = ["credentialBundlePath", "keyPath", "certificateChainPath"];
    if paths.iter().all(|key| s(v, key).is_empty()) {
        e.push(Error::required(at, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath"));
    }
    for key in paths {
        if !s(v, key).is_empty() {
            local_path_strict(s(v, key), &at.child(key), e);
        }
    }
}
