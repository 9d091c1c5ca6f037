//! Environment variables and where their values come from.

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use super::super::os;
use super::super::rules::{dns_label, dns_subdomain, named, required};
use super::super::tree::{has, list, opt, s};
use super::super::volume::files::{field_ref, resource_ref};

/// Fields of the pod that a variable may take.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: [&str; 6] =
    ["limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"];
const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

pub fn env(c: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("env");
    for (i, v) in list(c, "env").iter().enumerate() {
        let at = at.index(i);
        let name = s(v, "name");
        if name.is_empty() {
            e.push(Error::required(&at.child("name"), ""));
        } else {
            named(&at.child("name"), name, names::env_var_name(name), e);
        }
        value_from(v, &at.child("valueFrom"), e);
    }
}

fn value_from(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let Some(from) = opt(v, "valueFrom") else { return };
    let mut sources = 0;
    for key in SOURCES {
        let Some(source) = opt(from, key) else { continue };
        let p = p.child(key);
        sources += 1;
        match key {
            "fieldRef" => field_ref(source, &p, &FIELDS, e),
            "resourceFieldRef" => resource_ref(source, &p, &RESOURCES, false, e),
            "fileKeyRef" => file_key(source, &p, e),
            _ => {
                dns_subdomain(&p.child("name"), s(source, "name"), e);
                key_of(source, &p, e);
            }
        }
    }
    if sources == 0 {
        let text = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        e.push(Error::invalid_str(p, "", text));
    }
    if !s(v, "value").is_empty() {
        if sources != 0 {
            e.push(Error::invalid_str(p, "", "may not be specified when `value` is not empty"));
        }
    } else if sources > 1 {
        e.push(Error::invalid_str(p, "", "may not have more than one field specified at a time"));
    }
}

fn key_of(source: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let key = s(source, "key");
    if key.is_empty() {
        e.push(Error::required(&p.child("key"), ""));
    } else {
        named(&p.child("key"), key, names::config_map_key(key), e);
    }
}

fn file_key(source: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let key = s(source, "key");
    if key.is_empty() {
        e.push(Error::required(&p.child("key"), ""));
    } else {
        named(&p.child("key"), key, names::env_var_name(key), e);
    }
    let volume = s(source, "volumeName");
    if volume.is_empty() {
        e.push(Error::required(&p.child("volumeName"), ""));
    } else {
        dns_label(&p.child("volumeName"), volume, e);
    }
    if required(source, "path", p, e) {
        super::super::volume::local_path_strict(s(source, "path"), &p.child("path"), e);
    }
}

/// The volumes files are read from must be there; asked when all else of the pod was.
pub fn file_volumes(spec: &Value, p: &Path<'_>, e: &mut ErrorList) {
    os::each_container(spec, p, |c, container| {
        let env = container.child("env");
        for (j, v) in list(c, "env").iter().enumerate() {
            let Some(source) = super::super::tree::at(v, "valueFrom.fileKeyRef") else { continue };
            let name = s(source, "volumeName");
            let (item, key_ref) = (env.index(j), "valueFrom.fileKeyRef.volumeName");
            let at = item.child(key_ref);
            // The last of a name counts, also when it is wrong.
            match list(spec, "volumes").iter().rfind(|volume| s(volume, "name") == name) {
                None => e.push(Error::not_found(&at, &json!(name))),
                Some(volume) if !has(volume, "emptyDir") => {
                    e.push(Error::invalid_str(&at, name, "referenced volume must be of type emptyDir"));
                }
                Some(_) => {}
            }
        }
    });
}

pub fn env_from(c: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("envFrom");
    for (i, v) in list(c, "envFrom").iter().enumerate() {
        let item = at.index(i);
        let prefix = s(v, "prefix");
        if !prefix.is_empty() {
            named(&item.child("prefix"), prefix, names::env_var_name(prefix), e);
        }
        let mut sources = 0;
        for key in ["configMapRef", "secretRef"] {
            let Some(source) = opt(v, key) else { continue };
            sources += 1;
            let p = item.child(key);
            match s(source, "name") {
                "" => e.push(Error::required(&p.child("name"), "")),
                name => dns_subdomain(&p.child("name"), name, e),
            }
        }
        match sources {
            0 => e.push(Error::invalid_str(&at, "", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => e.push(Error::invalid_str(&at, "", "may not have more than one field specified at a time")),
        }
    }
}
