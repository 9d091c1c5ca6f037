//! Volumes of pods (`validateVolumeSource`): a table of types with a rule each. The rules that PersistentVolumes share are in
//! `source`; claims inside `ephemeral` are validated by `claim`.

pub mod claim;
pub mod files;
pub mod source;

use std::collections::BTreeMap;

use machinery::field::{Error, ErrorList, Path};
use serde_json::{Value, json};

use super::rules::{Seen, dns_label, named, required};
use super::tree::{has, list, opt, s};

/// Judges one source; the path is that of the volume, because upstream's names for some sources differ from the field's.
type Rule = fn(&Value, &Path<'_>, &mut ErrorList);

/// The field, its name in "more than 1 volume type", the rule. In upstream's order.
const SOURCES: [(&str, &str, Rule); 30] = [
    ("emptyDir", "emptyDir", empty_dir),
    ("hostPath", "hostPath", |v, p, e| source::host_path(v, &p.child("hostPath"), e)),
    ("gitRepo", "gitRepo", source::git_repo),
    ("gcePersistentDisk", "gcePersistentDisk", source::gce),
    ("awsElasticBlockStore", "awsElasticBlockStore", source::aws),
    ("secret", "secret", files::secret),
    ("nfs", "nfs", source::nfs),
    ("iscsi", "iscsi", source::iscsi),
    ("glusterfs", "glusterfs", source::glusterfs),
    ("flocker", "flocker", source::flocker),
    ("persistentVolumeClaim", "persistentVolumeClaim", |v, p, e| {
        required(v, "claimName", &p.child("persistentVolumeClaim"), e);
    }),
    ("rbd", "rbd", source::rbd),
    ("cinder", "cinder", |v, p, e| source::cinder(v, p, false, e)),
    ("cephfs", "cephFS", source::cephfs),
    ("quobyte", "quobyte", source::quobyte),
    ("downwardAPI", "downwarAPI", files::downward_api_volume),
    ("fc", "fc", source::fc),
    ("flexVolume", "flexVolume", source::flex),
    ("configMap", "configMap", files::config_map),
    ("azureFile", "azureFile", source::azure_file),
    ("vsphereVolume", "vsphereVolume", source::vsphere),
    ("photonPersistentDisk", "photonPersistentDisk", source::photon),
    ("portworxVolume", "portworxVolume", source::portworx),
    ("azureDisk", "azureDisk", source::azure_disk),
    ("storageos", "storageos", |v, p, e| source::storageos(v, p, false, e)),
    ("projected", "projected", files::projected),
    ("scaleIO", "scaleIO", source::scale_io),
    ("csi", "csi", source::csi_inline),
    ("ephemeral", "ephemeral", ephemeral),
    ("image", "image", image),
];

/// The volumes of a pod. `meta` is the pod's metadata, whose name ephemeral claims take.
pub fn volumes(spec: &Value, meta: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child("volumes");
    let mut seen = Seen::default();
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        let at = at.index(i);
        one(volume, &at, meta, e);
        let name = s(volume, "name");
        if name.is_empty() {
            e.push(Error::required(&at.child("name"), ""));
            continue;
        }
        let before = e.len();
        dns_label(&at.child("name"), name, e);
        if e.len() != before {
            continue;
        }
        if seen.again(name) {
            e.push(Error::duplicate(&at.child("name"), &json!(name)));
        }
    }
}

fn one(volume: &Value, p: &Path<'_>, meta: &Value, e: &mut ErrorList) {
    let mut found = 0;
    for (key, forbidden, rule) in SOURCES {
        let Some(value) = opt(volume, key) else { continue };
        if found > 0 {
            e.push(Error::forbidden(&p.child(forbidden), "may not specify more than 1 volume type"));
            continue;
        }
        found += 1;
        rule(value, p, e);
        if key == "ephemeral" {
            ephemeral_name(volume, meta, p, e);
        }
    }
    if found == 0 {
        e.push(Error::required(p, "must specify a volume type"));
    }
}

fn empty_dir(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if super::rules::quantity_at(v, "sizeLimit").is_some_and(|q| q.sign() < 0) {
        e.push(Error::forbidden(&p.child("emptyDir").child("sizeLimit"), "SizeLimit field must be a valid resource quantity"));
    }
}

fn image(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("image");
    required(v, "reference", &p, e);
    if !s(v, "pullPolicy").is_empty() {
        super::rules::one_of(&p.child("pullPolicy"), s(v, "pullPolicy"), &["Always", "IfNotPresent", "Never"], e);
    }
}

fn ephemeral(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("ephemeral");
    let at = p.child("volumeClaimTemplate");
    match opt(v, "volumeClaimTemplate") {
        None => e.push(Error::required(&at, "")),
        Some(template) => claim::template(template, &at, e),
    }
}

/// The claim will be named after pod and volume, which must make a name.
fn ephemeral_name(volume: &Value, meta: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (pod, name) = (s(meta, "name"), s(volume, "name"));
    if pod.is_empty() || name.is_empty() {
        return;
    }
    let claim = format!("{pod}-{name}");
    for problem in machinery::names::dns1123_subdomain(&claim) {
        let text = format!("PVC name {}: {problem}", machinery::field::go_quote(&claim));
        e.push(Error::invalid_str(&p.child("name"), name, text));
    }
}

/// What a container may mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mountable {
    /// A claim, which may be a block device.
    Claim,
    Image,
    Other,
}

/// The volumes of a pod spec by name, and what they are. Upstream forgets those that are wrong.
pub fn mountable(spec: &Value) -> BTreeMap<&str, Mountable> {
    let mut out = BTreeMap::new();
    for volume in list(spec, "volumes").iter().filter(|volume| is_sound(volume)) {
        let kind = if has(volume, "persistentVolumeClaim") || has(volume, "ephemeral") {
            Mountable::Claim
        } else if has(volume, "image") {
            Mountable::Image
        } else {
            Mountable::Other
        };
        out.entry(s(volume, "name")).or_insert(kind);
    }
    out
}

fn is_sound(volume: &Value) -> bool {
    let mut e = ErrorList::new();
    one(volume, &Path::new("volume"), &Value::Null, &mut e);
    e.is_empty() && machinery::names::dns1123_label(s(volume, "name")).is_empty()
}

/// A path below a volume's root: relative, without `..`.
pub fn local_path(path: &str, p: &Path<'_>, e: &mut ErrorList) {
    if path.starts_with('/') {
        e.push(Error::invalid_str(p, path, "must be a relative path"));
    }
    no_back_steps(path, p, e);
}

pub fn no_back_steps(path: &str, p: &Path<'_>, e: &mut ErrorList) {
    if path.split('/').any(|step| step == "..") {
        e.push(Error::invalid_str(p, path, "must not contain '..'"));
    }
}

/// A local path that does not start with `..` either, for files that the kubelet writes.
pub fn local_path_strict(path: &str, p: &Path<'_>, e: &mut ErrorList) {
    local_path(path, p, e);
    if path.starts_with("..") && !path.starts_with("../") {
        e.push(Error::invalid_str(p, path, "must not start with '..'"));
    }
}

/// Names of driver kinds (`ValidateCSIDriverName`).
pub fn csi_driver_name(name: &str, p: &Path<'_>, e: &mut ErrorList) {
    if name.is_empty() {
        e.push(Error::required(p, ""));
        return;
    }
    if name.len() > 63 {
        e.push(Error::too_long(p, 63));
    }
    named(p, name, machinery::names::dns1123_subdomain(&name.to_lowercase()), e);
}

/// Whether no source is given, which defaulting turns into an `emptyDir`.
pub fn has_no_source(volume: &Value) -> bool {
    SOURCES.iter().all(|(key, ..)| !has(volume, key))
}
