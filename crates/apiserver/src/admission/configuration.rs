//! `--admission-control-config-file`: an AdmissionConfiguration, which gives plugins files or trees of their own. Read once at the
//! start; each plugin judges its part.

use std::path::{Path, PathBuf};

use machinery::object::str_at;
use serde_json::Value;

/// What a plugin is given: a tree, and the directory that relative paths in it count from.
#[derive(Clone, Debug, Default)]
pub struct Given {
    pub tree: Value,
    pub dir: PathBuf,
}

/// The parts by plugin.
#[derive(Clone, Debug, Default)]
pub struct AdmissionConfiguration(Vec<(String, Given)>);

/// Versions of `AdmissionConfiguration` that are one.
const VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"];

impl AdmissionConfiguration {
    pub fn read(path: &Path) -> Result<Self, String> {
        let failed = |why: String| format!("unable to read admission control configuration from {:?} [{why}]", path.display());
        Self::of(&read_yaml(path).map_err(failed)?, path.parent().unwrap_or(Path::new("."))).map_err(failed)
    }

    /// Files named in it are read here, relative to `dir`.
    pub fn of(tree: &Value, dir: &Path) -> Result<Self, String> {
        let (version, kind) = (str_at(tree, "apiVersion"), str_at(tree, "kind"));
        if kind != "AdmissionConfiguration" || !VERSIONS.contains(&version) {
            return Err(format!("no kind {kind:?} is registered for version {version:?}"));
        }
        let mut parts: Vec<(String, Given)> = Vec::new();
        for (i, plugin) in tree.get("plugins").and_then(Value::as_array).into_iter().flatten().enumerate() {
            let name = str_at(plugin, "name").to_owned();
            if name.is_empty() {
                return Err(format!("plugins[{i}].name: Required value"));
            }
            if parts.iter().any(|(known, _)| *known == name) {
                return Err(format!("plugins[{i}].name: Duplicate value: {name:?}"));
            }
            // What is nested counts, then the file.
            let given = match (plugin.get("configuration").filter(|c| !c.is_null()), str_at(plugin, "path")) {
                (Some(tree), _) => Given { tree: tree.clone(), dir: dir.to_owned() },
                (None, "") => continue,
                (None, file) => {
                    let file = dir.join(file);
                    let tree = read_yaml(&file).map_err(|why| format!("{}: {why}", file.display()))?;
                    Given { tree, dir: file.parent().unwrap_or(dir).to_owned() }
                }
            };
            parts.push((name, given));
        }
        Ok(Self(parts))
    }

    /// `None`: the file says nothing of the plugin.
    pub fn of_plugin(&self, name: &str) -> Option<&Given> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, given)| given)
    }
}

fn read_yaml(path: &Path) -> Result<Value, String> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    Ok(machinery::yaml::parse(&bytes).map_err(|e| e.to_string())?.value)
}

impl Given {
    /// Refuses other kinds and fields that nobody reads.
    pub fn expect(&self, versions: &[&str], kind: &str, fields: &[&str]) -> Result<(), String> {
        let (version, given) = (str_at(&self.tree, "apiVersion"), str_at(&self.tree, "kind"));
        if given != kind || !versions.contains(&version) {
            return Err(format!("no kind {given:?} is registered for version {version:?}"));
        }
        known(&self.tree, "", &[fields, &["apiVersion", "kind"]].concat())
    }
}

/// Refuses fields that are none.
pub fn known(tree: &Value, path: &str, fields: &[&str]) -> Result<(), String> {
    let unknown = tree.as_object().and_then(|o| o.keys().find(|k| !fields.contains(&k.as_str())));
    unknown.map_or(Ok(()), |name| Err(format!("unknown field \"{path}{name}\"")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plugins_get_what_is_nested_or_their_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("more")).unwrap();
        std::fs::write(dir.path().join("more/limits.yaml"), "kind: Configuration\nlimits: []\n").unwrap();
        let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n\
            - {name: PodSecurity, path: nowhere, configuration: {kind: PodSecurityConfiguration}}\n\
            - {name: EventRateLimit, path: more/limits.yaml}\n- {name: Other}\n";
        let file = dir.path().join("admission.yaml");
        std::fs::write(&file, text).unwrap();
        let read = AdmissionConfiguration::read(&file).unwrap();
        assert_eq!(read.of_plugin("PodSecurity").unwrap().tree, json!({"kind": "PodSecurityConfiguration"}));
        let limits = read.of_plugin("EventRateLimit").unwrap();
        assert_eq!((&limits.tree["kind"], &limits.dir), (&json!("Configuration"), &dir.path().join("more")));
        assert!(read.of_plugin("Other").is_none());
        assert!(limits.expect(&[""], "Configuration", &["limits"]).is_ok());
        assert!(limits.expect(&[""], "Configuration", &[]).is_err_and(|why| why == "unknown field \"limits\""));
        assert!(limits.expect(&["v1"], "Configuration", &["limits"]).is_err());
        for bad in
            ["kind: Other", "plugins: []", "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins: [{path: x}]"]
        {
            std::fs::write(&file, bad).unwrap();
            assert!(AdmissionConfiguration::read(&file).is_err(), "{bad}");
        }
    }
}
