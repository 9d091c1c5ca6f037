//! Values as upstream's errors print them. Upstream validates its internal types, which have no JSON names, so a structure
//! prints under its Go names with every zero and null; types of meta/v1 print as their JSON. Made from the facts table.

use std::fmt::Write as _;

use machinery::field::{Error, ErrorType, Path};
use machinery::schema::{Omit, Scalar, Struct, Type, TypeId};
use serde_json::Value;

use crate::types::types;

/// An `Invalid value` error for a structure of the named type (`core.v1.SeccompProfile`; a leading `[]` makes it a list).
pub fn invalid(path: &Path<'_>, value: &Value, ty: &str, detail: impl Into<String>) -> Error {
    Error { kind: ErrorType::Invalid, field: path.to_string(), value: text(value, ty), detail: detail.into() }
}

/// A value as Go prints it; without facts for the type, as JSON.
pub fn text(value: &Value, ty: &str) -> String {
    let mut out = String::new();
    if let Some(elem) = ty.strip_prefix("[]") {
        let Some(items) = value.as_array() else { return "null".to_owned() };
        out.push('[');
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            out.push_str(&text(item, elem));
        }
        out.push(']');
        return out;
    }
    let name = if ty.starts_with("meta.") {
        format!("io.k8s.apimachinery.pkg.apis.{ty}")
    } else if ty.starts_with("io.k8s.") {
        ty.to_owned()
    } else {
        format!("io.k8s.api.{ty}")
    };
    match types().named(&name) {
        Some(id) => print(value, id, &mut out),
        None => out.push_str(&value.to_string()),
    }
    out
}

fn print(value: &Value, id: TypeId, out: &mut String) {
    match types().get(id) {
        Type::Struct(s) if s.name.contains(".meta.v1.") => print_tagged(value, s, out),
        Type::Struct(s) if s.name.ends_with(".core.v1.PodSpec") => print_pod_spec(value, s, out),
        Type::Struct(s) => {
            out.push('{');
            let mut first = true;
            fields(value, s, &mut first, out);
            out.push('}');
        }
        Type::List(l) => match value.as_array() {
            Some(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    print(item, l.elem, out);
                }
                out.push(']');
            }
            None => out.push_str("null"),
        },
        Type::Map(m) => match value.as_object() {
            Some(entries) => {
                out.push('{');
                for (i, (key, item)) in entries.iter().enumerate() {
                    let _ = write!(out, "{}{}:", if i > 0 { "," } else { "" }, Value::String(key.clone()));
                    print(item, m.elem, out);
                }
                out.push('}');
            }
            None => out.push_str("null"),
        },
        _ => out.push_str(&value.to_string()),
    }
}

/// What a PersistentVolume can be, in the order of upstream's internal type.
const VOLUME_SOURCES: [&str; 22] = [
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "hostPath",
    "glusterfs",
    "nfs",
    "rbd",
    "quobyte",
    "iscsi",
    "flexVolume",
    "cinder",
    "cephfs",
    "fc",
    "flocker",
    "azureFile",
    "vsphereVolume",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// The order of fields in upstream's internal types, where it is not that of v1; in parts.
const ORDERS: [(&str, &[&[&str]]); 5] = [
    (
        ".core.v1.PersistentVolumeSpec",
        &[
            &["capacity"],
            &VOLUME_SOURCES,
            &[
                "accessModes",
                "claimRef",
                "persistentVolumeReclaimPolicy",
                "storageClassName",
                "mountOptions",
                "volumeMode",
                "nodeAffinity",
                "volumeAttributesClassName",
            ],
        ],
    ),
    (
        ".core.v1.PodSecurityContext",
        &[&[
            "seLinuxOptions",
            "windowsOptions",
            "runAsUser",
            "runAsGroup",
            "runAsNonRoot",
            "supplementalGroups",
            "supplementalGroupsPolicy",
            "fsGroup",
            "fsGroupChangePolicy",
            "sysctls",
            "seccompProfile",
            "appArmorProfile",
            "seLinuxChangePolicy",
        ]],
    ),
    (
        ".core.v1.Volume",
        &[&[
            "name",
            "hostPath",
            "emptyDir",
            "gcePersistentDisk",
            "awsElasticBlockStore",
            "gitRepo",
            "secret",
            "nfs",
            "iscsi",
            "glusterfs",
            "persistentVolumeClaim",
            "rbd",
            "quobyte",
            "flexVolume",
            "cinder",
            "cephfs",
            "flocker",
            "downwardAPI",
            "fc",
            "azureFile",
            "configMap",
            "vsphereVolume",
            "azureDisk",
            "photonPersistentDisk",
            "projected",
            "portworxVolume",
            "scaleIO",
            "storageos",
            "csi",
            "ephemeral",
            "image",
        ]],
    ),
    (".core.v1.PersistentVolumeSource", &[&VOLUME_SOURCES]),
    (
        ".core.v1.PodSpec",
        &[&[
            "volumes",
            "initContainers",
            "containers",
            "ephemeralContainers",
            "restartPolicy",
            "terminationGracePeriodSeconds",
            "activeDeadlineSeconds",
            "dnsPolicy",
            "nodeSelector",
            "serviceAccountName",
            "automountServiceAccountToken",
            "nodeName",
            "securityContext",
            "imagePullSecrets",
            "hostname",
            "subdomain",
            "setHostnameAsFQDN",
            "affinity",
            "schedulerName",
            "tolerations",
            "hostAliases",
            "priorityClassName",
            "priority",
            "preemptionPolicy",
            "dnsConfig",
            "readinessGates",
            "runtimeClassName",
            "overhead",
            "enableServiceLinks",
            "topologySpreadConstraints",
            "os",
            "schedulingGates",
            "resourceClaims",
            "resources",
            "hostnameOverride",
            "schedulingGroup",
        ]],
    ),
];

/// The fields of a structure under their Go names, in the internal order.
fn fields(value: &Value, s: &Struct, first: &mut bool, out: &mut String) {
    let order = ORDERS.iter().find(|(ty, _)| s.name.ends_with(ty)).map(|(_, order)| *order);
    let in_order: Vec<&machinery::schema::Field> = match order {
        Some(order) => order.iter().copied().flatten().filter_map(|name| s.field(name)).collect(),
        None => s.fields.iter().collect(),
    };
    for field in in_order {
        // An embedded ObjectMeta prints its own fields, by their JSON tags.
        if field.go_name == "ObjectMeta" {
            if let (Type::Struct(meta), Some(given)) = (types().get(field.ty), value.get(&field.name)) {
                tagged_fields(given, meta, first, out);
            }
            continue;
        }
        let _ = write!(out, "{}\"{}\":", if *first { "" } else { "," }, field.go_name);
        *first = false;
        print_field(value.get(&field.name), field.ty, field.pointer, out);
    }
}

/// What v1 has beside the security context is within it in the internal type.
const HOST_FIELDS: [&str; 5] = ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"];

fn print_pod_spec(value: &Value, s: &Struct, out: &mut String) {
    let mut inner = String::new();
    let mut first = true;
    for field in HOST_FIELDS.iter().filter_map(|name| s.field(name)) {
        let _ = write!(inner, "{}\"{}\":", if first { "" } else { "," }, field.go_name);
        first = false;
        print_field(value.get(&field.name), field.ty, field.pointer, &mut inner);
    }
    let context = s.field("securityContext").map(|f| f.ty);
    if let Some(Type::Struct(of_context)) = context.map(|id| types().get(id)) {
        let empty = Value::Object(serde_json::Map::new());
        fields(value.get("securityContext").filter(|v| !v.is_null()).unwrap_or(&empty), of_context, &mut first, &mut inner);
    }
    let mut rest = String::new();
    let mut bare = value.clone();
    if let Some(map) = bare.as_object_mut() {
        map.remove("securityContext");
    }
    let mut first = true;
    fields(&bare, s, &mut first, &mut rest);
    // Containers have security contexts too: only the pod's own stands right after the node's name.
    let at = rest.rfind("\"NodeName\":").unwrap_or(0);
    let own = rest[at..].find("\"SecurityContext\":null").map(|i| at + i);
    match own {
        Some(i) => {
            let end = i + "\"SecurityContext\":null".len();
            let _ = write!(out, "{{{}\"SecurityContext\":{{{inner}}}{}}}", &rest[..i], &rest[end..]);
        }
        None => {
            let _ = write!(out, "{{{rest}}}");
        }
    }
}

fn print_field(value: Option<&Value>, id: TypeId, pointer: bool, out: &mut String) {
    match value.filter(|v| !v.is_null()) {
        Some(value) => print(value, id, out),
        None if pointer => out.push_str("null"),
        None => match types().get(id) {
            Type::Struct(_) => print(&Value::Object(serde_json::Map::new()), id, out),
            Type::Scalar(scalar) => out.push_str(zero(*scalar)),
            _ => out.push_str("null"),
        },
    }
}

const fn zero(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::String => "\"\"",
        Scalar::Bool => "false",
        Scalar::Bytes | Scalar::Time | Scalar::MicroTime | Scalar::FieldsV1 => "null",
        Scalar::Quantity => "\"0\"",
        Scalar::Duration => "\"0s\"",
        _ => "0",
    }
}

/// By the JSON tags: Go's order, empty values left out where the tag says so.
fn print_tagged(value: &Value, s: &Struct, out: &mut String) {
    out.push('{');
    let mut first = true;
    tagged_fields(value, s, &mut first, out);
    out.push('}');
}

fn tagged_fields(value: &Value, s: &Struct, first: &mut bool, out: &mut String) {
    for field in &s.fields {
        let v = value.get(&field.name).filter(|v| !v.is_null());
        let hollow = match v {
            None => true,
            Some(Value::Array(a)) => a.is_empty(),
            Some(Value::Object(m)) => m.is_empty(),
            Some(Value::String(t)) => t.is_empty(),
            Some(_) => false,
        };
        if hollow && field.omit != Omit::Never {
            continue;
        }
        let _ = write!(out, "{}\"{}\":", if *first { "" } else { "," }, field.name);
        *first = false;
        print_field(v, field.ty, field.pointer, out);
    }
}

/// Where two structures differ, as upstream's unified diff of their JSON: three lines of context, a space per level.
pub fn diff(new: &Value, old: &Value, ty: &str) -> String {
    let (a, b) = (lines(old, ty), lines(new, ty));
    super::diff::unified(&a, &b)
}

fn lines(value: &Value, ty: &str) -> Vec<String> {
    super::diff::indent(&text(value, ty))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn internal_types_print_go_names_and_zeros() {
        assert_eq!(text(&json!({"type": "Localhost"}), "core.v1.SeccompProfile"), "{\"Type\":\"Localhost\",\"LocalhostProfile\":null}");
        assert_eq!(text(&json!({"matchLabels": {"a": "b"}}), "meta.v1.LabelSelector"), "{\"matchLabels\":{\"a\":\"b\"}}");
    }
}
