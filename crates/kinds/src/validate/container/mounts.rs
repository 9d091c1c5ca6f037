//! Volume mounts and block devices of a container.

use std::collections::{BTreeMap, BTreeSet};

use machinery::field::{Error, ErrorList, Path};
use serde_json::{Value, json};

use super::super::rules::{Seen, one_of};
use super::super::tree::{flag, list, opt, opt_s, s};
use super::super::volume::{Mountable, local_path, no_back_steps};

fn texts<'a>(c: &'a Value, list_key: &str, key: &str) -> BTreeSet<&'a str> {
    list(c, list_key).iter().map(|item| s(item, key)).collect()
}

pub fn mounts(c: &Value, volumes: &BTreeMap<&str, Mountable>, p: &Path<'_>, e: &mut ErrorList) {
    let all = p.child("volumeMounts");
    let mut paths = Seen::default();
    let (device_names, device_paths) = (texts(c, "volumeDevices", "name"), texts(c, "volumeDevices", "devicePath"));
    for (i, mount) in list(c, "volumeMounts").iter().enumerate() {
        let at = all.index(i);
        let (name, path) = (s(mount, "name"), s(mount, "mountPath"));
        if name.is_empty() {
            e.push(Error::required(&at.child("name"), ""));
        }
        if !volumes.contains_key(name) {
            e.push(Error::not_found(&at.child("name"), &json!(name)));
        }
        if path.is_empty() {
            e.push(Error::required(&at.child("mountPath"), ""));
        }
        if paths.again(path) {
            e.push(Error::invalid_str(&at.child("mountPath"), path, "must be unique"));
        }
        if device_names.contains(name) {
            e.push(Error::invalid_str(&at.child("name"), name, "must not already exist in volumeDevices"));
        }
        if device_paths.contains(path) {
            e.push(Error::invalid_str(&at.child("mountPath"), path, "must not already exist as a path in volumeDevices"));
        }
        sub_paths(mount, &all, &at, e);
        propagation(mount, c, &all, e);
        recursive(mount, &all, e);
    }
}

fn sub_paths(mount: &Value, all: &Path<'_>, at: &Path<'_>, e: &mut ErrorList) {
    let (sub, expr) = (s(mount, "subPath"), s(mount, "subPathExpr"));
    if !sub.is_empty() {
        local_path(sub, &all.child("subPath"), e);
    }
    if !expr.is_empty() {
        if !sub.is_empty() {
            e.push(Error::invalid_str(&at.child("subPathExpr"), expr, "subPathExpr and subPath are mutually exclusive"));
        }
        local_path(expr, &all.child("subPathExpr"), e);
    }
}

fn propagation(mount: &Value, c: &Value, all: &Path<'_>, e: &mut ErrorList) {
    let Some(mode) = opt_s(mount, "mountPropagation") else { return };
    let at = all.child("mountPropagation");
    one_of(&at, mode, &["Bidirectional", "HostToContainer", "None"], e);
    let privileged = opt(c, "securityContext").is_some_and(|sc| flag(sc, "privileged"));
    if mode == "Bidirectional" && !privileged {
        e.push(Error::forbidden(&at, "Bidirectional mount propagation is available only to privileged containers"));
    }
}

fn recursive(mount: &Value, all: &Path<'_>, e: &mut ErrorList) {
    let Some(mode) = opt_s(mount, "recursiveReadOnly") else { return };
    let at = all.child("recursiveReadOnly");
    match mode {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !flag(mount, "readOnly") {
                e.push(Error::forbidden(&at, "may only be specified when readOnly is true"));
            }
            if opt_s(mount, "mountPropagation").is_some_and(|m| m != "None") {
                e.push(Error::forbidden(&at, "may only be specified when mountPropagation is None or not specified"));
            }
        }
        other => e.push(Error::not_supported(&at, &json!(other), &["Disabled", "Enabled", "IfPossible"])),
    }
}

pub fn devices(c: &Value, volumes: &BTreeMap<&str, Mountable>, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("volumeDevices");
    let devices = list(c, "volumeDevices");
    let (mut names, mut paths) = (Seen::default(), Seen::default());
    let (mount_names, mount_paths) = (texts(c, "volumeMounts", "name"), texts(c, "volumeMounts", "mountPath"));
    for (i, device) in devices.iter().enumerate() {
        let at = at.index(i);
        let (name, path) = (s(device, "name"), s(device, "devicePath"));
        let found = volumes.get(name);
        if name.is_empty() {
            e.push(Error::required(&at.child("name"), ""));
        }
        if names.again(name) {
            e.push(Error::invalid_str(&at.child("name"), name, "must be unique"));
        }
        match found {
            None => e.push(Error::not_found(&at.child("name"), &json!(name))),
            Some(Mountable::Claim) => {}
            Some(_) => {
                let text = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                e.push(Error::invalid_str(&at.child("name"), name, text));
            }
        }
        if path.is_empty() {
            e.push(Error::required(&at.child("devicePath"), ""));
        }
        if paths.again(path) {
            e.push(Error::invalid_str(&at.child("devicePath"), path, "must be unique"));
        }
        let mut steps = ErrorList::new();
        no_back_steps(path, &at.child("devicePath"), &mut steps);
        if !steps.is_empty() {
            e.push(Error::invalid_str(&at.child("devicePath"), path, "can not contain backsteps ('..')"));
        }
        if mount_names.contains(name) {
            e.push(Error::invalid_str(&at.child("name"), name, "must not already exist in volumeMounts"));
        }
        if mount_paths.contains(path) {
            e.push(Error::invalid_str(&at.child("devicePath"), path, "must not already exist as a path in volumeMounts"));
        }
    }
}
