//! A pod per rule: what violates which level as of which version, and in what words.

use serde_json::{Value, json};

use super::{Level, Policy, Standard, Version, evaluate};

fn pod(spec: &Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": spec})
}

fn hardened(extra: &Value) -> Value {
    let mut spec = json!({
        "containers": [{"name": "c", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
    });
    json_patch_merge(&mut spec, extra);
    pod(&spec)
}

fn json_patch_merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                json_patch_merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn details(level: Level, version: Version, pod: &Value) -> String {
    evaluate(Standard { level, version }, pod).details()
}

#[test]
fn nothing_violates_privileged() {
    let worst = pod(&json!({"hostNetwork": true, "containers": [{"name": "c", "securityContext": {"privileged": true}}]}));
    assert!(evaluate(Standard::default(), &worst).is_empty());
}

#[test]
fn baseline_names_what_it_forbids() {
    let c = |security: Value| json!({"containers": [{"name": "c", "securityContext": security}]});
    let table = [
        (json!({"hostPID": true, "hostIPC": true}), "host namespaces (hostPID=true, hostIPC=true)"),
        (json!({"volumes": [{"name": "a", "hostPath": {}}, {"name": "b", "hostPath": {}}]}), "hostPath volumes (volumes \"a\", \"b\")"),
        (
            json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}]}, {"name": "b", "ports": [{"hostPort": 81}]}]}),
            "hostPorts (containers \"a\", \"b\" use hostPorts 80, 81)",
        ),
        (c(json!({"privileged": true})), "privileged (container \"c\" must not set securityContext.privileged=true)"),
        (c(json!({"procMount": "Unmasked"})), "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")"),
        (
            c(json!({"capabilities": {"add": ["SYS_TIME", "KILL", "NET_ADMIN"]}})),
            "non-default capabilities (container \"c\" must not include \"NET_ADMIN\", \"SYS_TIME\" in securityContext.capabilities.add)",
        ),
        (
            c(json!({"seLinuxOptions": {"type": "odd", "user": "u", "role": "r"}})),
            "seLinuxOptions (container \"c\" set forbidden securityContext.seLinuxOptions: type \"odd\"; user may not be set; role may not be set)",
        ),
        (
            c(json!({"appArmorProfile": {"type": "Unconfined"}})),
            "forbidden AppArmor profile (container \"c\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            c(json!({"seccompProfile": {"type": "Unconfined"}})),
            "seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}}), "forbidden sysctls (kernel.msgmax)"),
        (
            json!({"containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "h"}}}]}),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"h\")",
        ),
        (
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}}, "containers": [{"name": "c", "securityContext": {"windowsOptions": {"hostProcess": true}}}]}),
            "hostProcess (pod and container \"c\" must not set securityContext.windowsOptions.hostProcess=true)",
        ),
    ];
    for (spec, expected) in table {
        assert_eq!(details(Level::Baseline, Version::Latest, &pod(&spec)), expected, "{spec}");
    }
}

#[test]
fn rules_came_with_versions() {
    let probing = pod(&json!({"containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "h"}}}]}));
    assert_eq!(details(Level::Baseline, Version::Minor(33), &probing), "");
    let user_namespace = pod(&json!({"hostUsers": false, "containers": [{"name": "c", "securityContext": {"procMount": "Unmasked"}}]}));
    assert_eq!(details(Level::Baseline, Version::Latest, &user_namespace), "");
    assert!(details(Level::Baseline, Version::Minor(24), &user_namespace).starts_with("procMount"));
    let sysctl = pod(&json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}}));
    assert_eq!(details(Level::Baseline, Version::Minor(32), &sysctl), "");
    assert_eq!(details(Level::Baseline, Version::Minor(31), &sysctl), "forbidden sysctls (net.ipv4.tcp_rmem)");
    let windows = pod(&json!({"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c"}]}));
    assert_eq!(details(Level::Restricted, Version::Latest, &windows), "");
    assert!(!details(Level::Restricted, Version::Minor(24), &windows).is_empty());
}

#[test]
fn restricted_wants_a_hardened_pod() {
    assert_eq!(details(Level::Restricted, Version::Latest, &hardened(&json!({}))), "");
    assert_eq!(
        details(Level::Restricted, Version::Latest, &pod(&json!({"containers": [{"name": "c"}]}))),
        "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    let table = [
        (json!({"volumes": [{"name": "n", "nfs": {}}]}), "restricted volume types (volume \"n\" uses restricted volume type \"nfs\")"),
        (
            json!({"volumes": [{"name": "n", "hostPath": {}}]}),
            "restricted volume types (volume \"n\" uses restricted volume type \"hostPath\")",
        ),
        (json!({"securityContext": {"runAsUser": 0}}), "runAsUser=0 (pod must not set runAsUser=0)"),
        (json!({"securityContext": {"runAsNonRoot": false}}), "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)"),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
    ];
    for (extra, expected) in table {
        assert_eq!(details(Level::Restricted, Version::Latest, &hardened(&extra)), expected, "{extra}");
    }
}

#[test]
fn labels_make_a_policy() {
    let of = |labels: Value| Policy::of(&json!({"metadata": {"labels": labels}}));
    let (policy, errors) =
        of(json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.24"}));
    assert!(errors.is_empty());
    assert_eq!(policy.enforce.to_string(), "baseline:v1.24");
    assert_eq!(policy.warn, policy.enforce, "who enforces is warned of workloads, too");
    assert_eq!(policy.audit, Standard::default());
    let (policy, errors) = of(json!({"pod-security.kubernetes.io/enforce": "bad", "pod-security.kubernetes.io/warn-version": "v9"}));
    assert_eq!(policy.enforce.level, Level::Restricted, "a bad label must not open the door");
    assert_eq!(errors.len(), 2);
    for bad in ["", "1.2", "v1", "v1.", "v1.01", "v2.0", "v1.99999999999", "latest "] {
        let (_, errors) = of(json!({"pod-security.kubernetes.io/audit-version": bad}));
        assert_eq!(errors.len(), 1, "{bad}");
    }
}
