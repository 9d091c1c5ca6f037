//! EncryptionConfiguration (`apiserver.config.k8s.io/v1`): which resources are encrypted with what, as upstream reads and
//! judges it.

use std::time::Duration;

use base64::Engine as _;
use machinery::object::str_at;
use serde_json::Value;

use crate::local::Cipher;
use crate::{Error, Result};

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub rules: Vec<Rule>,
}

/// Some resources and what may be done to them; the first provider writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// `secrets`, `deployments.apps`, `*.apps`, `*.`, `*.*`
    pub resources: Vec<String>,
    pub providers: Vec<ProviderConfig>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ProviderConfig {
    Identity,
    /// The kind as prefixes name it, and its keys by name; the first writes.
    Local {
        kind: &'static str,
        keys: Vec<(String, Cipher)>,
    },
    Kms {
        name: String,
        /// A path.
        socket: String,
        timeout: Duration,
    },
}

fn bad(why: impl Into<String>) -> Error {
    Error::Config(why.into())
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

impl Config {
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let value = machinery::yaml::parse(bytes).map_err(|e| bad(e.to_string()))?.value;
        let version = str_at(&value, "apiVersion");
        if str_at(&value, "kind") != "EncryptionConfiguration" || version != "apiserver.config.k8s.io/v1" {
            return Err(bad(format!("no kind {:?} is registered for version {version:?}", str_at(&value, "kind"))));
        }
        let rules = list(&value, "resources");
        if rules.is_empty() {
            return Err(bad("resources: Required value: at least one resource must be specified"));
        }
        let rules: Vec<Rule> =
            rules.iter().enumerate().map(|(i, rule)| Rule::parse(rule, &format!("resources[{i}]"))).collect::<Result<_>>()?;
        let config = Self { rules };
        config.no_doubles()?;
        Ok(config)
    }

    /// A KMS provider's name is part of what it stores.
    fn no_doubles(&self) -> Result<()> {
        let mut seen: Vec<&str> = Vec::new();
        for resource in self.rules.iter().flat_map(|r| &r.resources) {
            if seen.contains(&resource.as_str()) {
                return Err(bad(format!("resources: Invalid value: {resource:?}: resource was already specified")));
            }
            seen.push(resource);
        }
        Ok(())
    }

    /// The providers of a resource: an exact name first, then the wildcards of its group, then `*.*`.
    pub fn providers(&self, group: &str, resource: &str) -> &[ProviderConfig] {
        let exact = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        for wanted in [exact, format!("*.{group}"), "*.*".to_owned()] {
            if let Some(rule) = self.rules.iter().find(|r| r.resources.contains(&wanted)) {
                return &rule.providers;
            }
        }
        &[]
    }
}

impl Rule {
    fn parse(rule: &Value, path: &str) -> Result<Self> {
        let resources: Vec<String> = list(rule, "resources").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if resources.is_empty() {
            return Err(bad(format!("{path}.resources: Required value: at least one resource must be specified")));
        }
        for resource in &resources {
            let why = if resource == "*" {
                "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"
            } else if resource.starts_with("events") && matches!(resource.as_str(), "events" | "events." | "events.events.k8s.io") {
                continue;
            } else if resource.to_lowercase() != *resource {
                "resource name should not contain capital letters"
            } else if resource.contains("apiserveripinfo") || resource.contains("serviceipallocations") {
                "resources that are not API objects cannot be encrypted"
            } else {
                continue;
            };
            return Err(bad(format!("{path}.resources: Invalid value: {resource:?}: {why}")));
        }
        let providers = list(rule, "providers");
        if providers.is_empty() {
            return Err(bad(format!("{path}.providers: Required value: at least one provider must be specified")));
        }
        // `secrets.` is `secrets`: a dot without a group means the core group.
        let plain = |r: String| match r.strip_suffix('.') {
            Some(core) if core != "*" => core.to_owned(),
            _ => r,
        };
        let providers = providers.iter().enumerate().map(|(i, p)| ProviderConfig::parse(p, &format!("{path}.providers[{i}]")));
        Ok(Self { resources: resources.into_iter().map(plain).collect(), providers: providers.collect::<Result<_>>()? })
    }
}

impl ProviderConfig {
    fn parse(provider: &Value, path: &str) -> Result<Self> {
        let entries = provider.as_object().filter(|o| o.len() == 1);
        let many = || {
            bad(format!(
                "{path}: Invalid value: more than one provider specified in a single element, should split into different list elements"
            ))
        };
        let (kind, spec) = entries.and_then(|o| o.iter().next()).ok_or_else(many)?;
        match kind.as_str() {
            "identity" => Ok(Self::Identity),
            "aescbc" => keys(spec, "aescbc", &[16, 24, 32], Cipher::AesCbc, path),
            "aesgcm" => keys(spec, "aesgcm", &[16, 24, 32], Cipher::AesGcm, path),
            "secretbox" => keys(spec, "secretbox", &[32], Cipher::SecretBox, path),
            "kms" => kms(spec, path),
            other => Err(bad(format!("{path}: provider does not contain any of the expected providers: {other}"))),
        }
    }
}

fn keys(spec: &Value, kind: &'static str, sizes: &[usize], make: fn(Vec<u8>) -> Cipher, path: &str) -> Result<ProviderConfig> {
    let given = list(spec, "keys");
    if given.is_empty() {
        return Err(bad(format!("{path}.{kind}.keys: Required value: at least one key must be specified")));
    }
    let mut keys: Vec<(String, Cipher)> = Vec::new();
    for (i, key) in given.iter().enumerate() {
        let path = format!("{path}.{kind}.keys[{i}]");
        let (name, secret) = (str_at(key, "name"), str_at(key, "secret"));
        if name.is_empty() || secret.is_empty() {
            return Err(bad(format!("{path}: Required value: a key needs a name and a secret")));
        }
        // Never the secret itself in an error.
        let decoded = base64::engine::general_purpose::STANDARD.decode(secret);
        let decoded = decoded.map_err(|_| bad(format!("{path}.secret: Invalid value: \"REDACTED\": secrets must be base64 encoded")))?;
        if !sizes.contains(&decoded.len()) {
            let why = format!("secret is not of the expected length, got {}, expected one of {sizes:?}", decoded.len());
            return Err(bad(format!("{path}.secret: Invalid value: \"REDACTED\": {why}")));
        }
        if keys.iter().any(|(known, _)| known == name) {
            return Err(bad(format!("{path}.name: Duplicate value: {name:?}")));
        }
        keys.push((name.to_owned(), make(decoded)));
    }
    Ok(ProviderConfig::Local { kind, keys })
}

fn kms(spec: &Value, path: &str) -> Result<ProviderConfig> {
    let (name, endpoint) = (str_at(spec, "name"), str_at(spec, "endpoint"));
    if str_at(spec, "apiVersion") != "v2" {
        return Err(bad(format!("{path}.kms.apiVersion: Invalid value: {:?}: only v2 is supported", str_at(spec, "apiVersion"))));
    }
    if name.is_empty() || name.contains(':') {
        return Err(bad(format!("{path}.kms.name: Invalid value: {name:?}: the name must be set and must not contain ':'")));
    }
    let socket = endpoint.strip_prefix("unix://").filter(|s| !s.is_empty());
    let socket =
        socket.ok_or_else(|| bad(format!("{path}.kms.endpoint: Invalid value: {endpoint:?}: unsupported scheme, must be unix")))?;
    let timeout = match str_at(spec, "timeout") {
        "" => Duration::from_secs(3),
        text => {
            let nanos = machinery::duration::parse(text).ok().and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
            Duration::from_nanos(
                nanos.ok_or_else(|| bad(format!("{path}.kms.timeout: Invalid value: {text:?}: should be a positive value")))?,
            )
        }
    };
    Ok(ProviderConfig::Kms { name: name.to_owned(), socket: socket.to_owned(), timeout })
}
