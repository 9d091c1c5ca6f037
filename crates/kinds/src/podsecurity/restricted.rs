//! The restricted standard: what hardening asks for must be set. These checks come on top of baseline's.

use machinery::field::go_quote;
use serde_json::Value;

use super::Version;
use super::baseline::{USER_NAMESPACES, seccomp_profile};
use super::checks::{Pod, Values, Violation, containers, plural, quoted, security, setters};
use crate::validate::tree::{flag_is, has, int, list, opt, s, strings};

/// Volumes a restricted pod may have.
const VOLUMES: [&str; 8] = ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];

/// In the order of upstream's check names.
pub fn violations(pod: &Pod<'_>, version: Version) -> Vec<Violation> {
    // Linux's means do not exist on Windows.
    let linux = version < Version::Minor(25) || !pod.is_windows();
    let relaxed = version >= USER_NAMESPACES && pod.has_user_namespace();
    let since = |minor| version >= Version::Minor(minor);
    let found = [
        (since(8) && linux).then(|| escalation(pod)).flatten(),
        (since(22) && linux).then(|| capabilities(pod)).flatten(),
        volumes(pod),
        (!relaxed).then(|| non_root(pod)).flatten(),
        (since(23) && !relaxed).then(|| root_user(pod)).flatten(),
        (since(19) && linux).then(|| seccomp(pod)).flatten(),
    ];
    found.into_iter().flatten().collect()
}

fn escalation(pod: &Pod<'_>) -> Option<Violation> {
    let names = pod.bad(|c| !flag_is(security(c), "allowPrivilegeEscalation", false));
    let detail = |who| format!("{who} must set securityContext.allowPrivilegeEscalation=false");
    containers(&names).map(|who| Violation { reason: "allowPrivilegeEscalation != false", detail: detail(who) })
}

fn capabilities(pod: &Pod<'_>) -> Option<Violation> {
    let keeps = pod.bad(|c| !strings(&security(c)["capabilities"], "drop").any(|name| name == "ALL"));
    let mut added = Values::new();
    let adds = pod.bad(|c| {
        let extra: Vec<&str> = strings(&security(c)["capabilities"], "add").filter(|name| *name != "NET_BIND_SERVICE").collect();
        added.extend(&extra);
        !extra.is_empty()
    });
    let keeps = containers(&keeps).map(|who| format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    let adds = containers(&adds).map(|who| format!("{who} must not include {} in securityContext.capabilities.add", quoted(added)));
    let detail: Vec<String> = keeps.into_iter().chain(adds).collect();
    (!detail.is_empty()).then(|| Violation { reason: "unrestricted capabilities", detail: detail.join("; ") })
}

fn volumes(pod: &Pod<'_>) -> Option<Violation> {
    let is_fine = |volume: &Value| VOLUMES.iter().any(|source| has(volume, source));
    let bad: Vec<&Value> = list(pod.spec, "volumes").iter().filter(|v| !is_fine(v)).collect();
    if bad.is_empty() {
        return None;
    }
    let source = |volume: &Value| volume.as_object().into_iter().flatten().map(|(key, _)| key.clone()).find(|key| key != "name");
    let mut types: Vec<String> = bad.iter().map(|v| source(v).unwrap_or_else(|| "unknown".to_owned())).collect();
    types.sort();
    types.dedup();
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", bad.len()),
        quoted(bad.iter().map(|v| s(v, "name"))),
        plural("uses", "use", bad.len()),
        plural("restricted volume type", "restricted volume types", types.len()),
        types.iter().map(|t| go_quote(t)).collect::<Vec<_>>().join(", "),
    );
    Some(Violation { reason: "restricted volume types", detail })
}

fn non_root(pod: &Pod<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let set = |context, wanted| flag_is(context, "runAsNonRoot", wanted);
    let refusing = pod.bad(|c| set(security(c), false));
    if let Some(who) = setters(set(pod.security(), false), &refusing) {
        return Some(Violation { reason: REASON, detail: format!("{who} must not set securityContext.runAsNonRoot=false") });
    }
    let silent = pod.bad(|c| !has(security(c), "runAsNonRoot"));
    let who = containers(&silent).filter(|_| !set(pod.security(), true))?;
    Some(Violation { reason: REASON, detail: format!("pod or {who} must set securityContext.runAsNonRoot=true") })
}

fn root_user(pod: &Pod<'_>) -> Option<Violation> {
    let is_root = |context| int(context, "runAsUser") == Some(0);
    let names = pod.bad(|c| is_root(security(c)));
    let detail = |who| format!("{who} must not set runAsUser=0");
    setters(is_root(pod.security()), &names).map(|who| Violation { reason: "runAsUser=0", detail: detail(who) })
}

fn seccomp(pod: &Pod<'_>) -> Option<Violation> {
    if let Some(bad) = seccomp_profile(pod) {
        return Some(bad);
    }
    if opt(pod.security(), "seccompProfile").is_some() {
        return None;
    }
    let names = pod.bad(|c| opt(security(c), "seccompProfile").is_none());
    let detail = |who| format!("pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"");
    containers(&names).map(|who| Violation { reason: "seccompProfile", detail: detail(who) })
}
