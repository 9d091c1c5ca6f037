//! Merges a cluster's context into the user's kubeconfig and takes it out again, leaving everything else as it was.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::instance::write_atomically;

/// The file kubectl would write to: the first of `KUBECONFIG`, else `~/.kube/config`.
pub fn path() -> Result<PathBuf> {
    if let Some(list) = std::env::var_os("KUBECONFIG")
        && let Some(first) = std::env::split_paths(&list).find(|p| !p.as_os_str().is_empty())
    {
        return Ok(first);
    }
    let home = std::env::home_dir().context("finding the home directory: set HOME or KUBECONFIG")?;
    Ok(home.join(".kube/config"))
}

/// What a context needs.
pub struct Entry<'a> {
    pub name: &'a str,
    pub server: &'a str,
    /// PEM, base64 encoded, as in a kubeconfig's `*-data` fields.
    pub ca_data: &'a str,
    pub certificate_data: &'a str,
    pub key_data: &'a str,
}

fn read(path: &Path) -> Result<Value> {
    let text = match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => return Ok(empty()),
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(empty()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let config = machinery::yaml::parse(text.as_bytes())
        .map(|parsed| parsed.value)
        .with_context(|| format!("{} is not a kubeconfig that can be read; mend it or move it away", path.display()))?;
    if !config.is_object() {
        bail!("{} is not a kubeconfig; mend it or move it away", path.display());
    }
    Ok(config)
}

fn empty() -> Value {
    json!({ "apiVersion": "v1", "kind": "Config", "clusters": [], "contexts": [], "users": [], "preferences": {} })
}

fn write(path: &Path, config: &Value) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let text = machinery::yaml::to_string(config);
    // A link stays a link: what it points to is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    write_atomically(&target, text.as_bytes())
}

/// Puts `value` under `key` into the list entry called `name`, in place where there is one.
fn set(config: &mut Value, list: &str, name: &str, key: &str, value: Value) {
    let Some(map) = config.as_object_mut() else { return };
    let entries = map.entry(list).or_insert_with(|| json!([]));
    if !entries.is_array() {
        *entries = json!([]);
    }
    let Some(entries) = entries.as_array_mut() else { return };
    let mut entry = Map::new();
    entry.insert("name".to_owned(), json!(name));
    entry.insert(key.to_owned(), value);
    match entries.iter_mut().find(|e| e["name"] == name) {
        Some(old) => *old = Value::Object(entry),
        None => entries.push(Value::Object(entry)),
    }
}

/// The server a context of that name talks to.
pub fn server_of(path: &Path, name: &str) -> Result<Option<String>> {
    let config = read(path)?;
    let named = |list: &str, name: &str| config[list].as_array().into_iter().flatten().find(|e| e["name"] == name).cloned();
    let Some(context) = named("contexts", name) else { return Ok(None) };
    let cluster = named("clusters", context["context"]["cluster"].as_str().unwrap_or(""));
    Ok(cluster.and_then(|c| c["cluster"]["server"].as_str().map(str::to_owned)))
}

/// Adds or renews a context and makes it the current one.
pub fn merge(path: &Path, entry: &Entry<'_>) -> Result<()> {
    let mut config = read(path)?;
    set(&mut config, "clusters", entry.name, "cluster", json!({ "server": entry.server, "certificate-authority-data": entry.ca_data }));
    let user = json!({ "client-certificate-data": entry.certificate_data, "client-key-data": entry.key_data });
    set(&mut config, "users", entry.name, "user", user);
    set(&mut config, "contexts", entry.name, "context", json!({ "cluster": entry.name, "user": entry.name }));
    config["current-context"] = json!(entry.name);
    for (key, value) in [("apiVersion", json!("v1")), ("kind", json!("Config"))] {
        if config[key].is_null() {
            config[key] = value;
        }
    }
    write(path, &config)
}

/// Takes a context, its cluster and its user out. A file without them stays untouched.
pub fn remove(path: &Path, name: &str) -> Result<()> {
    let mut config = read(path)?;
    let mut found = false;
    for list in ["clusters", "contexts", "users"] {
        if let Some(entries) = config.get_mut(list).and_then(Value::as_array_mut) {
            let before = entries.len();
            entries.retain(|e| e["name"] != name);
            found |= entries.len() != before;
        }
    }
    if !found {
        return Ok(());
    }
    if config["current-context"] == name {
        config["current-context"] = json!("");
    }
    write(path, &config)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("skiff-kubeconfig-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    const ENTRY: Entry<'static> =
        Entry { name: "skiff", server: "https://127.0.0.1:6443", ca_data: "Q0E=", certificate_data: "Q0VSVA==", key_data: "S0VZ" };

    #[test]
    fn other_contexts_stay() {
        let dir = Temporary::new("stay");
        let path = dir.0.join("config");
        fs::write(
            &path,
            "apiVersion: v1\nkind: Config\ncurrent-context: work\nclusters:\n- name: work\n  cluster: {server: 'https://work', extra: 1}\ncontexts:\n- name: work\n  context: {cluster: work, user: me, namespace: team}\nusers:\n- name: me\n  user: {token: '0123', password: \"yes\", username: '~'}\n",
        )
        .unwrap();
        merge(&path, &ENTRY).unwrap();
        merge(&path, &ENTRY).unwrap();
        let config = read(&path).unwrap();
        assert_eq!(config["current-context"], "skiff");
        assert_eq!(config["clusters"].as_array().unwrap().len(), 2);
        assert_eq!(config["clusters"][0]["cluster"]["extra"], 1);
        assert_eq!(config["users"][0]["user"], json!({ "token": "0123", "password": "yes", "username": "~" }));
        assert_eq!(server_of(&path, "skiff").unwrap().as_deref(), Some("https://127.0.0.1:6443"));
        remove(&path, "skiff").unwrap();
        let config = read(&path).unwrap();
        assert_eq!(config["contexts"].as_array().unwrap().len(), 1);
        assert_eq!(config["contexts"][0]["context"]["namespace"], "team");
        assert_eq!(config["current-context"], "");
    }

    #[test]
    fn a_missing_file_is_made_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = Temporary::new("missing");
        let path = dir.0.join("sub/config");
        merge(&path, &ENTRY).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(server_of(&path, "other").unwrap(), None);
    }

    #[test]
    fn a_broken_file_is_left_alone() {
        let dir = Temporary::new("broken");
        let path = dir.0.join("config");
        fs::write(&path, "a: [").unwrap();
        assert!(merge(&path, &ENTRY).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "a: [");
    }
}
