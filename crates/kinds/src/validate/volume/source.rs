//! Sources that name storage elsewhere; pods and PersistentVolumes share these rules. Each gets the source and the path of
//! what holds it.

use machinery::field::{Error, ErrorList, Path};
use serde_json::{Value, json};

use super::super::rules::{dns_subdomain, in_range, one_of, required};
use super::super::tree::{flag, has, int, int0, is_empty, opt, s, strings};

const HOST_PATH_TYPES: [&str; 8] = ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// `p` is the path of the source itself.
pub fn host_path(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if !required(v, "path", p, e) {
        return;
    }
    super::no_back_steps(s(v, "path"), &p.child("path"), e);
    if let Some(ty) = opt(v, "type").and_then(Value::as_str)
        && !HOST_PATH_TYPES.contains(&ty)
    {
        e.push(Error::not_supported(&p.child("type"), &json!(ty), &HOST_PATH_TYPES));
    }
}

pub fn git_repo(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("gitRepo");
    required(v, "repository", &p, e);
    super::local_path(s(v, "directory"), &p.child("directory"), e);
}

fn partition(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    if int0(v, "partition") != 0 {
        in_range(v, "partition", p, 1, 255, e);
    }
}

pub fn gce(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("persistentDisk");
    required(v, "pdName", &p, e);
    partition(v, &p, e);
}

pub fn aws(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("awsElasticBlockStore");
    required(v, "volumeID", &p, e);
    partition(v, &p, e);
}

pub fn nfs(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("nfs");
    required(v, "server", &p, e);
    required(v, "path", &p, e);
    let path = s(v, "path");
    if !path.starts_with('/') {
        e.push(Error::invalid_str(&p.child("path"), path, "must be an absolute path"));
    }
}

pub fn iscsi(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("iscsi");
    required(v, "targetPortal", &p, e);
    if required(v, "iqn", &p, e) {
        let iqn = s(v, "iqn");
        if !["iqn", "eui", "naa"].iter().any(|prefix| iqn.starts_with(prefix)) {
            e.push(Error::invalid_str(&p.child("iqn"), iqn, "must be valid format starting with iqn, eui, or naa"));
        } else if !iscsi_name(iqn) {
            e.push(Error::invalid_str(&p.child("iqn"), iqn, "must be valid format"));
        }
    }
    if !(0..=255).contains(&int0(v, "lun")) {
        e.push(Error::invalid(&p.child("lun"), &json!(int0(v, "lun")), machinery::names::inclusive_range(0, 255)));
    }
    if (flag(v, "chapAuthDiscovery") || flag(v, "chapAuthSession")) && !has(v, "secretRef") {
        e.push(Error::required(&p.child("secretRef"), ""));
    }
    if let Some(name) = opt(v, "initiatorName").and_then(Value::as_str)
        && !iscsi_name(name)
    {
        e.push(Error::invalid_str(&p.child("initiatorname"), name, "must be valid format"));
    }
}

/// `iqn.2001-04.com.example:x`, `eui.` and 16 hex digits, `naa.` and 16 or 32 hex digits.
fn iscsi_name(name: &str) -> bool {
    let hex = |text: &str, lens: &[usize]| lens.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(rest) = name.strip_prefix("eui.") {
        return hex(rest, &[16]);
    }
    if let Some(rest) = name.strip_prefix("naa.") {
        return hex(rest, &[16, 32]);
    }
    let Some(rest) = name.strip_prefix("iqn.") else { return false };
    let b = rest.as_bytes();
    let date =
        b.len() > 8 && b[..4].iter().all(u8::is_ascii_digit) && b[4] == b'-' && b[5..7].iter().all(u8::is_ascii_digit) && b[7] == b'.';
    date && rest
        .get(8..)
        .is_some_and(|host| host.split(':').next().is_some_and(|h| h.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))))
}

pub fn glusterfs(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("glusterfs");
    required(v, "endpoints", &p, e);
    required(v, "path", &p, e);
}

/// PersistentVolumes may also name the namespace of the endpoints.
pub fn glusterfs_pv(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    glusterfs(v, p, e);
    if let Some(namespace) = opt(v, "endpointsNamespace").and_then(Value::as_str) {
        let p = p.child("glusterfs");
        super::super::rules::dns_label(&p.child("endpointsNamespace"), namespace, e);
    }
}

pub fn flocker(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("flocker");
    let (name, uuid) = (s(v, "datasetName"), s(v, "datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        e.push(Error::required(&p, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        e.push(Error::invalid(&p, &json!("resource"), "datasetName and datasetUUID can not be specified simultaneously"));
    }
    if name.contains('/') {
        e.push(Error::invalid_str(&p.child("datasetName"), name, "must not contain '/'"));
    }
}

pub fn rbd(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("rbd");
    required(v, "monitors", &p, e);
    required(v, "image", &p, e);
}

/// `pv`: the secret is then in a namespace that must be named.
pub fn cinder(v: &Value, p: &Path<'_>, pv: bool, e: &mut ErrorList) {
    let p = p.child("cinder");
    required(v, "volumeID", &p, e);
    if let Some(secret) = opt(v, "secretRef") {
        let at = p.child("secretRef");
        required(secret, "name", &at, e);
        if pv {
            required(secret, "namespace", &at, e);
        }
    }
}

pub fn cephfs(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    required(v, "monitors", &p.child("cephfs"), e);
}

pub fn quobyte(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("quobyte");
    let registry = s(v, "registry");
    let pairs = |r: &str| r.split(',').all(|pair| pair.rsplit_once(':').is_some_and(|(h, n)| !h.is_empty() && !n.is_empty()));
    if registry.is_empty() {
        e.push(Error::required(&p.child("registry"), "must be a host:port pair or multiple pairs separated by commas"));
    } else if registry.len() >= 65 {
        e.push(Error::too_long(&p.child("registry"), 65));
    } else if !pairs(registry) {
        e.push(Error::invalid_str(&p.child("registry"), registry, "must be a host:port pair or multiple pairs separated by commas"));
    }
    if s(v, "tenant").len() >= 65 {
        e.push(Error::too_long(&p.child("tenant"), 65));
    }
    if !required(v, "volume", &p, e) {
        return;
    }
    if s(v, "volume").len() >= 65 {
        e.push(Error::too_long(&p.child("volume"), 65));
    }
}

pub fn fc(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("fc");
    let (wwns, wwids) = (!is_empty(v, "targetWWNs"), !is_empty(v, "wwids"));
    if !wwns && !wwids {
        e.push(Error::required(&p.child("targetWWNs"), "must specify either targetWWNs or wwids, but not both"));
    }
    if wwns && wwids {
        let names: Vec<&str> = strings(v, "targetWWNs").collect();
        e.push(Error::invalid(&p.child("targetWWNs"), &json!(names), "targetWWNs and wwids can not be specified simultaneously"));
    }
    if wwns && !wwids {
        match int(v, "lun") {
            None => e.push(Error::required(&p.child("lun"), "lun is required if targetWWNs is specified")),
            Some(n) if !(0..=255).contains(&n) => {
                e.push(Error::invalid(&p.child("lun"), &json!(n), machinery::names::inclusive_range(0, 255)));
            }
            Some(_) => {}
        }
    }
}

pub fn flex(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("flexVolume");
    required(v, "driver", &p, e);
    let at = p.child("options");
    for (key, _) in super::super::tree::entries(v, "options") {
        let namespace = key.split('/').next().unwrap_or(key);
        if format!(".{}", namespace.trim_end_matches('.')).to_lowercase().ends_with(".kubernetes.io")
            || format!(".{namespace}").to_lowercase().ends_with(".k8s.io")
        {
            e.push(Error::invalid_str(&at.key(key), key, "kubernetes.io and k8s.io namespaces are reserved"));
        }
    }
}

pub fn azure_file(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("azureFile");
    required(v, "secretName", &p, e);
    required(v, "shareName", &p, e);
    if opt(v, "secretNamespace").and_then(Value::as_str) == Some("") {
        e.push(Error::required(&p.child("secretNamespace"), ""));
    }
}

pub fn azure_disk(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("azureDisk");
    required(v, "diskName", &p, e);
    required(v, "diskURI", &p, e);
    if has(v, "cachingMode") {
        one_of(&p.child("cachingMode"), s(v, "cachingMode"), &["None", "ReadOnly", "ReadWrite"], e);
    }
    if has(v, "kind") {
        one_of(&p.child("kind"), s(v, "kind"), &["Dedicated", "Managed", "Shared"], e);
    }
    // The form of the address depends on the kind.
    let uri = s(v, "diskURI");
    if s(v, "kind") == "Managed" {
        if !uri.starts_with("/subscriptions/") {
            let form = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
            e.push(Error::not_supported(&p.child("diskURI"), &json!(uri), &[form]));
        }
    } else if !uri.starts_with("https://") {
        let form = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
        e.push(Error::not_supported(&p.child("diskURI"), &json!(uri), &[form]));
    }
}

pub fn vsphere(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    required(v, "volumePath", &p.child("vsphereVolume"), e);
}

pub fn photon(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    required(v, "pdID", &p.child("photonPersistentDisk"), e);
}

pub fn portworx(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    required(v, "volumeID", &p.child("portworxVolume"), e);
}

pub fn storageos(v: &Value, p: &Path<'_>, pv: bool, e: &mut ErrorList) {
    let p = p.child("storageos");
    let name = s(v, "volumeName");
    if name.is_empty() {
        if pv {
            e.push(Error::required(&p.child("volumeName"), ""));
        }
    } else {
        super::super::rules::dns_label(&p.child("volumeName"), name, e);
    }
    if !s(v, "volumeNamespace").is_empty() {
        super::super::rules::dns_label(&p.child("volumeNamespace"), s(v, "volumeNamespace"), e);
    }
    if let Some(secret) = opt(v, "secretRef") {
        let at = p.child("secretRef");
        required(secret, "name", &at, e);
        if pv {
            required(secret, "namespace", &at, e);
        }
    }
}

pub fn scale_io(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("scaleIO");
    required(v, "gateway", &p, e);
    required(v, "system", &p, e);
    required(v, "volumeName", &p, e);
}

pub fn csi_inline(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let p = p.child("csi");
    super::csi_driver_name(s(v, "driver"), &p.child("driver"), e);
    if let Some(secret) = opt(v, "nodePublishSecretRef")
        && required(secret, "name", &p.child("nodePublishSecretRef"), e)
    {
        dns_subdomain(&p.child("name"), s(secret, "name"), e);
    }
}
