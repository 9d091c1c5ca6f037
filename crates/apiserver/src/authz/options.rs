//! What can be told about authorization: modes by flag, or an `AuthorizationConfiguration` with any number of webhooks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use auth::authorization::Conditions;
use serde_json::Value;

use crate::error::{Error, Result};

#[derive(Clone, Debug)]
pub struct Options {
    /// `--authorization-mode`
    pub modes: Vec<String>,
    /// `--authorization-webhook-config-file`, `-version` and cache times.
    pub webhook_config_file: Option<PathBuf>,
    pub webhook_version: String,
    pub webhook_cache_authorized: Duration,
    pub webhook_cache_unauthorized: Duration,
    /// `--authorization-config`; instead of all of the above.
    pub config: Option<PathBuf>,
    /// How often that file is looked at.
    pub reload: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            modes: vec!["Node".to_owned(), "RBAC".to_owned()],
            webhook_config_file: None,
            webhook_version: "v1".to_owned(),
            webhook_cache_authorized: Duration::from_secs(300),
            webhook_cache_unauthorized: Duration::from_secs(30),
            config: None,
            reload: None,
        }
    }
}

/// One authorizer of the chain, as configured.
#[derive(Debug)]
pub enum Mode {
    Node,
    Rbac,
    AlwaysAllow,
    AlwaysDeny,
    Webhook(Webhook),
}

#[derive(Debug)]
pub struct Webhook {
    pub kubeconfig: PathBuf,
    pub timeout: Duration,
    pub authorized_ttl: Duration,
    pub unauthorized_ttl: Duration,
    /// `v1` or `v1beta1`
    pub version: String,
    /// An answer that does not come is a no.
    pub deny_on_failure: bool,
    pub conditions: Conditions,
}

impl Options {
    pub fn chain(&self) -> Result<Vec<Mode>> {
        if let Some(path) = &self.config {
            let failed = |why: String| Error::Config(format!("{}: {why}", path.display()));
            let text = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
            return read(&text, path).map_err(failed);
        }
        let mode = |name: &String| match name.as_str() {
            "Webhook" => {
                let kubeconfig = self.webhook_config_file.clone();
                let kubeconfig = kubeconfig
                    .ok_or_else(|| Error::Config("authorization-mode Webhook's authorization config file not passed".to_owned()))?;
                Ok(Mode::Webhook(Webhook {
                    kubeconfig,
                    timeout: Duration::from_secs(30),
                    authorized_ttl: self.webhook_cache_authorized,
                    unauthorized_ttl: self.webhook_cache_unauthorized,
                    version: self.webhook_version.clone(),
                    deny_on_failure: false,
                    conditions: Conditions::default(),
                }))
            }
            name => plain(name).ok_or_else(|| Error::Config(format!("authorization-mode {name:?} is not a valid mode"))),
        };
        self.modes.iter().map(mode).collect()
    }
}

fn plain(name: &str) -> Option<Mode> {
    Some(match name {
        "Node" => Mode::Node,
        "RBAC" => Mode::Rbac,
        "AlwaysAllow" => Mode::AlwaysAllow,
        "AlwaysDeny" => Mode::AlwaysDeny,
        _ => return None,
    })
}

/// From a file's text; relative paths are relative to its directory.
pub fn read(text: &[u8], path: &Path) -> Result<Vec<Mode>, String> {
    let tree = machinery::yaml::parse(text).map_err(|e| e.to_string())?.value;
    parse(&tree, path.parent().unwrap_or(Path::new("."))).map_err(|errors| errors.join("; "))
}

/// From the file's tree; relative paths are relative to `dir`.
pub fn parse(tree: &Value, dir: &Path) -> Result<Vec<Mode>, Vec<String>> {
    let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let version = text(tree, "apiVersion");
    let known = version.strip_prefix("apiserver.config.k8s.io/").is_some_and(|v| matches!(v, "v1" | "v1beta1" | "v1alpha1"));
    if text(tree, "kind") != "AuthorizationConfiguration" || !known {
        return Err(vec![format!("no kind {:?} is registered for version {version:?}", text(tree, "kind"))]);
    }
    let (mut chain, mut errors, mut names) = (Vec::new(), Vec::new(), Vec::new());
    let list = tree.get("authorizers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if list.is_empty() {
        errors.push("authorizers: Required value: at least one authorization mode must be defined".to_owned());
    }
    unknown(tree, "", &["apiVersion", "kind", "authorizers"], &mut errors);
    for (i, one) in list.iter().enumerate() {
        let (path, kind, name) = (format!("authorizers[{i}]"), text(one, "type"), text(one, "name"));
        unknown(one, &path, &["type", "name", "webhook"], &mut errors);
        if kind != "Webhook" && list[..i].iter().any(|other| text(other, "type") == kind) {
            errors.push(format!("{path}.type: Duplicate value: {kind:?}"));
        }
        errors.extend(
            machinery::names::dns1123_subdomain(&name)
                .iter()
                .filter(|_| !name.is_empty())
                .map(|why| format!("{path}.name: Invalid value: {name:?}: {why}")),
        );
        if name.is_empty() {
            errors.push(format!("{path}.name: Required value"));
        } else if names.contains(&name) {
            errors.push(format!("{path}.name: Duplicate value: {name:?}"));
        }
        names.push(name);
        match (kind.as_str(), one.get("webhook").filter(|w| !w.is_null())) {
            ("Webhook", Some(webhook)) => match of_webhook(webhook, &format!("{path}.webhook"), dir) {
                Ok(webhook) => chain.push(Mode::Webhook(webhook)),
                Err(more) => errors.extend(more),
            },
            ("Webhook", None) => errors.push(format!("{path}.webhook: Required value: required when type=Webhook")),
            (_, Some(_)) => errors.push(format!("{path}.webhook: Invalid value: \"non-null\": may only be specified when type=Webhook")),
            (kind, None) => match plain(kind) {
                Some(mode) => chain.push(mode),
                None => errors.push(format!("{path}.type: Unsupported value: {kind:?}")),
            },
        }
    }
    if errors.is_empty() { Ok(chain) } else { Err(errors) }
}

/// Names the fields that nobody reads.
fn unknown(tree: &Value, path: &str, fields: &[&str], errors: &mut Vec<String>) {
    let dot = if path.is_empty() { "" } else { "." };
    let all = tree.as_object().into_iter().flatten().filter(|(key, _)| !fields.contains(&key.as_str()));
    errors.extend(all.map(|(key, _)| format!("unknown field \"{path}{dot}{key}\"")));
}

const WEBHOOK_FIELDS: [&str; 10] = [
    "timeout",
    "authorizedTTL",
    "cacheAuthorizedRequests",
    "unauthorizedTTL",
    "cacheUnauthorizedRequests",
    "subjectAccessReviewVersion",
    "matchConditionSubjectAccessReviewVersion",
    "failurePolicy",
    "connectionInfo",
    "matchConditions",
];

fn of_webhook(webhook: &Value, path: &str, dir: &Path) -> Result<Webhook, Vec<String>> {
    let text = |key: &str| webhook.get(key).and_then(Value::as_str).unwrap_or("");
    let mut errors = Vec::new();
    unknown(webhook, path, &WEBHOOK_FIELDS, &mut errors);
    let mut duration = |key: &str, default: i64| {
        let given = text(key);
        let nanos = if given.is_empty() { Ok(default * 1_000_000_000) } else { machinery::duration::parse(given) };
        nanos.ok().and_then(|n| u64::try_from(n).ok()).map(Duration::from_nanos).unwrap_or_else(|| {
            errors.push(format!("{path}.{key}: Invalid value: {given:?}: must be greater than zero"));
            Duration::ZERO
        })
    };
    let (timeout, yes, no) = (duration("timeout", 0), duration("authorizedTTL", 300), duration("unauthorizedTTL", 30));
    if timeout.is_zero() {
        errors.push(format!("{path}.timeout: Required value"));
    } else if timeout > Duration::from_secs(30) {
        errors.push(format!("{path}.timeout: Invalid value: {:?}: must be <= 30s", text("timeout")));
    }
    let version = text("subjectAccessReviewVersion");
    if !matches!(version, "v1" | "v1beta1") {
        errors.push(format!("{path}.subjectAccessReviewVersion: Unsupported value: {version:?}: supported values: \"v1\", \"v1beta1\""));
    }
    let policy = text("failurePolicy");
    if !matches!(policy, "NoOpinion" | "Deny") {
        errors.push(format!("{path}.failurePolicy: Unsupported value: {policy:?}: supported values: \"NoOpinion\", \"Deny\""));
    }
    let connection = webhook.get("connectionInfo").unwrap_or(&Value::Null);
    let part = |key: &str| connection.get(key).and_then(Value::as_str).unwrap_or("");
    if part("type") != "KubeConfigFile" {
        errors.push(format!("{path}.connectionInfo.type: Unsupported value: {:?}: supported values: \"KubeConfigFile\"", part("type")));
    } else if part("kubeConfigFile").is_empty() {
        errors.push(format!("{path}.connectionInfo.kubeConfigFile: Required value"));
    }
    let conditions = webhook.get("matchConditions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if !conditions.is_empty() && text("matchConditionSubjectAccessReviewVersion") != "v1" {
        errors.push(format!("{path}.matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are specified"));
    }
    let texts: Vec<&str> = conditions.iter().map(|c| c.get("expression").and_then(Value::as_str).unwrap_or("")).collect();
    for (i, text) in texts.iter().enumerate() {
        unknown(&conditions[i], &format!("{path}.matchConditions[{i}]"), &["expression"], &mut errors);
        if texts[..i].contains(text) {
            errors.push(format!("{path}.matchConditions[{i}].expression: Duplicate value: {text:?}"));
        }
    }
    let conditions = Conditions::compile(&texts).unwrap_or_else(|more| {
        errors.extend(more.into_iter().map(|(i, why)| format!("{path}.matchConditions[{i}].expression: Invalid value: {why}")));
        Conditions::default()
    });
    if !errors.is_empty() {
        return Err(errors);
    }
    let cached = |key: &str, ttl: Duration| if webhook.get(key) == Some(&Value::Bool(false)) { Duration::ZERO } else { ttl };
    Ok(Webhook {
        kubeconfig: dir.join(part("kubeConfigFile")),
        timeout,
        authorized_ttl: cached("cacheAuthorizedRequests", yes),
        unauthorized_ttl: cached("cacheUnauthorizedRequests", no),
        version: version.to_owned(),
        deny_on_failure: policy == "Deny",
        conditions,
    })
}
