//! How a definition's versions are converted: not at all, or by a webhook that can be reached and speaks a version we know.

use machinery::names;
use serde_json::{Value, json};

use super::definition::enum_string;
use crate::validate::admission::{webhook_service, webhook_url};
use crate::validate::tree::{opt, opt_s, s, strings};
use crate::validate::{Error, ErrorList, Path};

pub const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

pub fn review_versions(webhook: &Value) -> Vec<&str> {
    strings(webhook, "conversionReviewVersions").collect()
}

pub fn ca_bundle(spec: &Value) -> Option<&str> {
    opt(spec, "conversion").and_then(|c| opt(c, "webhook")).and_then(|w| opt(w, "clientConfig")).map(|c| s(c, "caBundle"))
}

/// Why a bundle of certificates, in base64, cannot be loaded.
pub fn ca_problem(bundle: &str) -> Option<&'static str> {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let pem = engine.decode(bundle).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let certificate = pem.split("-----BEGIN CERTIFICATE-----").skip(1).filter_map(|part| part.split_once("-----END CERTIFICATE-----"));
    let sound = certificate
        .map(|(body, _)| engine.decode(body.split_whitespace().collect::<String>()))
        .all(|der| der.is_ok_and(|der| der.first() == Some(&0x30)));
    (!sound || !pem.contains("-----BEGIN CERTIFICATE-----"))
        .then_some("unable to load root certificates: unable to parse bytes as PEM block")
}

pub fn validate(v: &Value, recognized: bool, allow_invalid_ca_bundle: bool, p: &Path<'_>, e: &mut ErrorList) {
    let strategy = s(v, "strategy");
    enum_string(strategy, &["None", "Webhook"], &p.child("strategy"), e);
    let null = Value::Null;
    let webhook = opt(v, "webhook").unwrap_or(&null);
    let (config, versions) = (opt(webhook, "clientConfig"), review_versions(webhook));
    let (at_config, at_versions) = (p.child("webhookClientConfig"), p.child("conversionReviewVersions"));
    if strategy != "Webhook" {
        const NOT_SET: &str = "should not be set when strategy is not set to Webhook";
        if config.is_some() {
            e.push(Error::forbidden(&at_config, NOT_SET));
        }
        if !versions.is_empty() {
            e.push(Error::forbidden(&at_versions, NOT_SET));
        }
        return;
    }
    match config {
        None => e.push(Error::required(&at_config, "required when strategy is set to Webhook")),
        Some(config) => {
            match (opt_s(config, "url"), opt(config, "service")) {
                (Some(url), None) => webhook_url(url, &at_config.child("url"), e),
                (None, Some(service)) => webhook_service(service, &at_config.child("service"), e),
                _ => e.push(Error::required(&at_config, "exactly one of url or service is required")),
            }
            let bundle = s(config, "caBundle");
            if let Some(why) = Some(bundle).filter(|b| !b.is_empty() && !allow_invalid_ca_bundle).and_then(ca_problem) {
                e.push(Error::invalid_str(&at_config.child("caBundle"), bundle, why));
            }
        }
    }
    conversion_review_versions(&versions, recognized, &at_versions, e);
}

fn conversion_review_versions(versions: &[&str], recognized: bool, p: &Path<'_>, e: &mut ErrorList) {
    if versions.is_empty() {
        e.push(Error::required(p, ""));
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        let at = p.index(index);
        if versions[..index].contains(version) {
            e.push(Error::invalid_str(&at, version, "duplicate version"));
            continue;
        }
        e.extend(names::dns1035_label(version).into_iter().map(|problem| Error::invalid_str(&at, version, problem)));
    }
    if recognized && !versions.iter().any(|v| REVIEW_VERSIONS.contains(v)) {
        e.push(Error::invalid(p, &json!(versions), format!("must include at least one of {}", REVIEW_VERSIONS.join(", "))));
    }
}
