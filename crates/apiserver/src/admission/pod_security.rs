//! The Pod Security Standards that a namespace's labels ask for: refuses pods, warns of workloads (KEP-2579). The rules are
//! `kinds::podsecurity`.

use std::collections::BTreeMap;

use async_trait::async_trait;
use kinds::podsecurity::{Level, Policy, Standard, Version, evaluate};
use machinery::object::{name, str_at};
use machinery::status::StatusError;
use serde_json::Value;

use super::configuration::{Given, known};
use super::{Operation, Plugin, Request};

/// Subresources of pods that do not speak of what the pod runs.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];
/// So many pods are looked at when a namespace becomes stricter.
const PODS_CHECKED_MAX: usize = 3000;
/// Workloads, and where their pod template is.
const TEMPLATES: [(&str, &str, &str); 8] = [
    ("", "ReplicationController", "/spec/template"),
    ("", "PodTemplate", "/template"),
    ("apps", "ReplicaSet", "/spec/template"),
    ("apps", "Deployment", "/spec/template"),
    ("apps", "StatefulSet", "/spec/template"),
    ("apps", "DaemonSet", "/spec/template"),
    ("batch", "Job", "/spec/template"),
    ("batch", "CronJob", "/spec/jobTemplate/spec/template"),
];

/// With what a `PodSecurityConfiguration` says: the policy of namespaces without labels, and who is let through whatever it says.
#[derive(Debug, Default)]
pub struct PodSecurity {
    defaults: Policy,
    exempt: Exemptions,
}

#[derive(Debug, Default)]
struct Exemptions {
    usernames: Vec<String>,
    namespaces: Vec<String>,
    runtime_classes: Vec<String>,
}

const VERSIONS: [&str; 3] = [
    "pod-security.admission.config.k8s.io/v1",
    "pod-security.admission.config.k8s.io/v1beta1",
    "pod-security.admission.config.k8s.io/v1alpha1",
];

impl PodSecurity {
    pub fn new(given: Option<&Given>) -> Result<Self, String> {
        let Some(given) = given else { return Ok(Self::default()) };
        given.expect(&VERSIONS, "PodSecurityConfiguration", &["defaults", "exemptions"])?;
        let (defaults, exemptions) = (&given.tree["defaults"], &given.tree["exemptions"]);
        let standard = |mode: &str| {
            let (level, version) = (defaults[mode].as_str().unwrap_or("privileged"), format!("{mode}-version"));
            let text = defaults[&version].as_str().unwrap_or("latest");
            let invalid = |key: &str, value: &str| format!("defaults.{key}: Invalid value: {value:?}");
            Ok::<_, String>(Standard {
                level: Level::parse(level).ok_or_else(|| invalid(mode, level))?,
                version: Version::parse(text).ok_or_else(|| invalid(&version, text))?,
            })
        };
        known(defaults, "defaults.", &["enforce", "enforce-version", "audit", "audit-version", "warn", "warn-version"])?;
        known(exemptions, "exemptions.", &["usernames", "namespaces", "runtimeClasses"])?;
        let list = |key: &str, valid: fn(&str) -> bool| {
            let all: Vec<String> = exemptions[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
            for (i, one) in all.iter().enumerate() {
                if all[..i].contains(one) {
                    return Err(format!("exemptions.{key}[{i}]: Duplicate value: {one:?}"));
                }
                if !valid(one) {
                    return Err(format!("exemptions.{key}[{i}]: Invalid value: {one:?}"));
                }
            }
            Ok(all)
        };
        Ok(Self {
            defaults: Policy { enforce: standard("enforce")?, audit: standard("audit")?, warn: standard("warn")? },
            exempt: Exemptions {
                usernames: list("usernames", |name| !name.is_empty())?,
                namespaces: list("namespaces", |name| machinery::names::dns1123_label(name).is_empty())?,
                runtime_classes: list("runtimeClasses", |name| machinery::names::dns1123_subdomain(name).is_empty())?,
            },
        })
    }

    /// Whether nothing is asked of a pod (or of a workload's), and why; told to the auditor, but of namespaces.
    fn exempts(&self, request: &Request<'_>, spec: Option<&Value>) -> bool {
        let exempt = &self.exempt;
        if exempt.namespaces.iter().any(|n| n == request.namespace) {
            request.annotate(EXEMPT, "namespace");
        } else if exempt.usernames.contains(&request.user.name) {
            request.annotate(EXEMPT, "user");
        } else if spec
            .is_some_and(|s| s["runtimeClassName"].as_str().is_some_and(|class| exempt.runtime_classes.iter().any(|c| c == class)))
        {
            request.annotate(EXEMPT, "runtimeClass");
        } else {
            return false;
        }
        true
    }
}

const EXEMPT: &str = "pod-security.kubernetes.io/exempt";

#[async_trait]
impl Plugin for PodSecurity {
    fn handles(&self, request: &Request<'_>) -> bool {
        if !matches!(request.operation, Operation::Create | Operation::Update) {
            return false;
        }
        is_pod(request) || request.is("", "Namespace") || template(request).is_some()
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, old: Option<&Value>) -> Result<(), StatusError> {
        if request.is("", "Namespace") {
            return self.validate_namespace(request, value, old);
        }
        let spec = match template(request) {
            Some(pointer) => value.pointer(pointer).map(|t| &t["spec"]),
            None => Some(&value["spec"]),
        };
        if self.exempts(request, spec) {
            return Ok(());
        }
        let Some(namespace) = request.api.read_kind("", "Namespace", "", request.namespace).await? else {
            return Err(StatusError::internal(format!("failed to lookup namespace {}", request.namespace)));
        };
        let (policy, errors) = Policy::over(&namespace, self.defaults);
        if policy == Policy::default() && errors.is_empty() {
            return Ok(());
        }
        if let Some(error) = errors.first() {
            request.annotate("pod-security.kubernetes.io/error", format!("Failed to parse policy: {error}"));
        }
        match template(request) {
            Some(pointer) => {
                if let Some(template) = value.pointer(pointer) {
                    judge(request, policy, template);
                }
            }
            None if old.is_some_and(|old| !is_significant(value, old)) => {}
            None => {
                enforce(request, policy, value)?;
                judge(request, policy, value);
            }
        }
        Ok(())
    }
}

fn is_pod(request: &Request<'_>) -> bool {
    request.resource.group.is_empty() && request.resource.kind == "Pod" && !IGNORED.contains(&request.subresource)
}

fn template(request: &Request<'_>) -> Option<&'static str> {
    TEMPLATES.into_iter().find(|(group, kind, _)| request.is(group, kind)).map(|(.., pointer)| pointer)
}

fn enforce(request: &Request<'_>, policy: Policy, pod: &Value) -> Result<(), StatusError> {
    request.annotate("pod-security.kubernetes.io/enforce-policy", policy.enforce.to_string());
    let violations = evaluate(policy.enforce, pod);
    if violations.is_empty() {
        return Ok(());
    }
    Err(request.forbidden(pod, &format!("violates PodSecurity \"{}\": {}", policy.enforce, violations.details())))
}

/// What does not stop the request: a note for the auditor, a warning for the client.
fn judge(request: &Request<'_>, policy: Policy, pod: &Value) {
    let said = |standard: Standard| {
        let violations = evaluate(standard, pod);
        (!violations.is_empty()).then(|| format!("would violate PodSecurity \"{standard}\": {}", violations.details()))
    };
    if let Some(text) = said(policy.audit) {
        request.annotate("pod-security.kubernetes.io/audit-violations", text);
    }
    if let Some(text) = said(policy.warn) {
        request.warn(text);
    }
}

impl PodSecurity {
    /// A namespace's labels must make sense; pods that its new policy would refuse are named.
    fn validate_namespace(&self, request: &Request<'_>, value: &Value, old: Option<&Value>) -> Result<(), StatusError> {
        let (new, errors) = Policy::over(value, self.defaults);
        let before = old.map(|old| Policy::over(old, self.defaults));
        let known = before.as_ref().is_some_and(|(_, old_errors)| *old_errors == errors);
        if !errors.is_empty() && !known {
            return Err(StatusError::invalid(&request.resource.group_kind(), name(value), &errors));
        }
        let Some((before, _)) = before else { return Ok(()) };
        let relaxed = new.enforce.version == before.enforce.version && new.enforce.level <= before.enforce.level;
        if new.enforce == before.enforce || new.enforce.level == Level::Privileged || relaxed {
            return Ok(());
        }
        if !self.exempt.namespaces.iter().any(|n| n == request.namespace) {
            warn_of_pods(request, new.enforce, &self.exempt.runtime_classes);
        }
        Ok(())
    }
}

fn warn_of_pods(request: &Request<'_>, standard: Standard, exempt: &[String]) {
    let mut pods = request.api.cached_all("", "Pod", request.namespace);
    pods.retain(|pod| !exempt.iter().any(|class| class == str_at(pod, "spec.runtimeClassName")));
    // By what is wrong: the first pod's name, and how many there are.
    let mut wrong: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in pods.iter().take(PODS_CHECKED_MAX) {
        let violations = evaluate(standard, pod);
        if !violations.is_empty() {
            let (first, count) = wrong.entry(violations.reasons()).or_insert_with(|| (name(pod).to_owned(), 0));
            if name(pod) < first.as_str() {
                name(pod).clone_into(first);
            }
            *count += 1;
        }
    }
    if pods.len() > PODS_CHECKED_MAX {
        request.warn(format!(
            "new PodSecurity enforce level only checked against the first {PODS_CHECKED_MAX} of {} existing pods",
            pods.len()
        ));
    }
    if !wrong.is_empty() {
        request
            .warn(format!("existing pods in namespace {:?} violate the new PodSecurity enforce level \"{standard}\"", request.namespace));
    }
    let mut texts: Vec<String> = wrong
        .into_iter()
        .map(|(reasons, (first, count))| match count {
            1 => format!("{first}: {reasons}"),
            2 => format!("{first} (and 1 other pod): {reasons}"),
            _ => format!("{first} (and {} other pods): {reasons}", count - 1),
        })
        .collect();
    texts.sort();
    texts.into_iter().for_each(|text| request.warn(text));
}

/// Whether an update of a pod changes what the standards look at and an update can change.
fn is_significant(new: &Value, old: &Value) -> bool {
    let list = |pod: &'_ Value, key: &str| pod.pointer(&format!("/spec/{key}")).and_then(Value::as_array).cloned().unwrap_or_default();
    let note = |pod: &Value, key: &str| pod["metadata"]["annotations"][key].clone();
    if note(new, "seccomp.security.alpha.kubernetes.io/pod") != note(old, "seccomp.security.alpha.kubernetes.io/pod") {
        return true;
    }
    let changed = |one: &Value, other: &Value| {
        let seccomp = format!("container.seccomp.security.alpha.kubernetes.io/{}", str_at(one, "name"));
        one["image"] != other["image"] || note(new, &seccomp) != note(old, &seccomp)
    };
    for key in ["containers", "initContainers"] {
        let (now, before) = (list(new, key), list(old, key));
        if now.len() != before.len() || now.iter().zip(&before).any(|(one, other)| changed(one, other)) {
            return true;
        }
    }
    let before = list(old, "ephemeralContainers");
    list(new, "ephemeralContainers")
        .iter()
        .any(|one| before.iter().find(|other| other["name"] == one["name"]).is_none_or(|other| changed(one, other)))
}
