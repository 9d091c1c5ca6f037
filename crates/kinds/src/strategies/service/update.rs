//! What an update of a Service means: linked fields follow each other, values the server chose stay, fields of the old type go.

use machinery::field::{Error, ErrorList, Path};
use serde_json::{Value, json};

use super::headless;
use crate::validate::tree::{flag_is, int0, is_empty, keep, list, list_mut, opt, remove, s, set};

/// `clusterIP` and `clusterIPs[0]` are one value (`normalizeClusterIPs`): who changed one of them meant the other too.
pub fn normalise(object: &mut Value, old: Option<&Value>) {
    let Some(v) = object.get_mut("spec").filter(|v| v.is_object()) else { return };
    let ip = s(v, "clusterIP").to_owned();
    let Some(old) = old else {
        if is_empty(v, "clusterIPs") && !ip.is_empty() {
            set(v, "clusterIPs", json!([ip]));
        }
        return;
    };
    let empty = json!({});
    let o = opt(old, "spec").unwrap_or(&empty);
    let same_ip = s(o, "clusterIP") == ip;
    if is_empty(v, "clusterIPs") && same_ip && !is_empty(o, "clusterIPs") {
        keep(v, o, "clusterIPs");
    }
    if !same_ip && list(v, "clusterIPs") == list(o, "clusterIPs") {
        if ip.is_empty() {
            remove(v, "clusterIPs");
        } else {
            set(v, "clusterIPs", json!([ip]));
        }
    }
}

/// `validateUpgradeDowngradeClusterIPs`: a second address may come and go, the first stays.
pub fn primary(n: &Value, o: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let elsewhere = |v: &Value| s(v, "type") == "ExternalName";
    if elsewhere(n) || elsewhere(o) || (headless(n) && headless(o)) {
        return;
    }
    let at = p.child("clusterIPs");
    let (now, before) = (list(n, "clusterIPs"), list(o, "clusterIPs"));
    let shown = opt(n, "clusterIPs").unwrap_or(&Value::Null);
    if now.len() == before.len() {
        for (i, _) in now.iter().zip(before).enumerate().filter(|(_, (a, b))| a != b) {
            e.push(Error::invalid(&at.index(i), shown, "may not change once set"));
        }
        return;
    }
    if now.is_empty() {
        e.push(Error::invalid(&at.index(0), shown, "primary clusterIP can not be unset"));
    } else if !before.is_empty() && now[0] != before[0] {
        e.push(Error::invalid(&at.index(0), shown, "may not change once set"));
    }
    if now.len() == 1 && before.len() > 1 && s(n, "ipFamilyPolicy") != "SingleStack" {
        let policy = opt(n, "ipFamilyPolicy").unwrap_or(&Value::Null);
        e.push(Error::invalid(&p.child("ipFamilyPolicy"), policy, "must be set to 'SingleStack' when releasing the secondary clusterIP"));
    }
}

/// `validateUpgradeDowngradeIPFamilies`: of the families, too, the second may come and go. Upstream shows the addresses in two
/// of the errors.
pub fn families(n: &Value, o: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let elsewhere = |v: &Value| s(v, "type") == "ExternalName";
    if elsewhere(n) || elsewhere(o) || headless(n) != headless(o) || headless(n) {
        return;
    }
    let root = p.child("ipFamilies");
    let at = root.index(0);
    let (now, before) = (list(n, "ipFamilies"), list(o, "ipFamilies"));
    let shown = |key: &str| opt(n, key).unwrap_or(&Value::Null).clone();
    let first_changed = !now.is_empty() && !before.is_empty() && now[0] != before[0];
    if now.len() == before.len() {
        for _ in now.iter().zip(before).filter(|(a, b)| a != b) {
            e.push(Error::invalid(&at, &shown("ipFamilies"), "may not change once set"));
        }
        return;
    }
    let fewer = now.len() < before.len();
    if fewer && is_empty(n, "clusterIPs") {
        e.push(Error::invalid(&at, &shown("ipFamilies"), "primary ipFamily can not be unset"));
    }
    if first_changed {
        e.push(Error::invalid(&at, &shown("clusterIPs"), "may not change once set"));
    }
    if fewer && now.len() == 1 && s(n, "ipFamilyPolicy") != "SingleStack" {
        let text = "must be set to 'SingleStack' when releasing the secondary ipFamily";
        e.push(Error::invalid(&p.child("ipFamilyPolicy"), &shown("ipFamilyPolicy"), text));
    }
}

/// Values the server chose stay where the client leaves them out (`patchAllocatedValues`).
pub fn keep_allocated(new: &mut Value, old: &Value) {
    let empty = json!({});
    let o = opt(old, "spec").unwrap_or(&empty);
    let Some(n) = new.get_mut("spec").filter(|v| v.is_object()) else { return };
    let has_ip = |v: &Value| matches!(s(v, "type"), "ClusterIP" | "NodePort" | "LoadBalancer");
    if has_ip(o) && has_ip(n) {
        if s(n, "clusterIP").is_empty() {
            keep(n, o, "clusterIP");
        }
        if is_empty(n, "clusterIPs") && s(n, "clusterIP") == s(o, "clusterIP") {
            keep(n, o, "clusterIPs");
        }
    }
    let has_ports =
        |v: &Value| s(v, "type") == "NodePort" || (s(v, "type") == "LoadBalancer" && !flag_is(v, "allocateLoadBalancerNodePorts", false));
    if has_ports(o) && has_ports(n) {
        let used = |v: &Value| list(v, "ports").iter().map(|p| int0(p, "nodePort")).filter(|n| *n != 0).collect::<Vec<_>>();
        let (before, now) = (used(o), used(n));
        for port in list_mut(n, "ports").iter_mut().filter(|p| int0(p, "nodePort") == 0) {
            let known = list(o, "ports").iter().rfind(|p| s(p, "name") == s(port, "name")).map_or(0, |p| int0(p, "nodePort"));
            if known != 0 && !(before.contains(&known) && now.contains(&known)) {
                set(port, "nodePort", known);
            }
        }
    }
    let has_health = |v: &Value| s(v, "type") == "LoadBalancer" && s(v, "externalTrafficPolicy") == "Local";
    if has_health(o) && has_health(n) && int0(n, "healthCheckNodePort") == 0 {
        keep(n, o, "healthCheckNodePort");
    }
}

/// Fields that belong to the old type and were not touched go with it.
pub fn drop_of_type(new: &mut Value, old: &Value) {
    let empty = json!({});
    let o = opt(old, "spec").unwrap_or(&empty);
    let Some(n) = new.get_mut("spec").filter(|v| v.is_object()) else { return };
    let was = |ty: &str, kinds: &[&str]| kinds.contains(&ty);
    let (old_ty, new_ty) = (s(o, "type").to_owned(), s(n, "type").to_owned());
    let untouched = |n: &Value, key: &str| opt(n, key) == opt(o, key);
    if old_ty != "ExternalName" && new_ty == "ExternalName" {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            if untouched(n, key) {
                remove(n, key);
            }
        }
    }
    let nodes = ["NodePort", "LoadBalancer"];
    if was(&old_ty, &nodes) && !was(&new_ty, &nodes) {
        let before: Vec<i64> = list(o, "ports").iter().map(|p| int0(p, "nodePort")).collect();
        for (p, old_port) in list_mut(n, "ports").iter_mut().zip(before) {
            if int0(p, "nodePort") == old_port {
                remove(p, "nodePort");
            }
        }
        if untouched(n, "externalTrafficPolicy") && is_empty(n, "externalIPs") {
            remove(n, "externalTrafficPolicy");
        }
    }
    if old_ty == "LoadBalancer" && new_ty != "LoadBalancer" {
        for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"] {
            if untouched(n, key) {
                remove(n, key);
            }
        }
    }
}
