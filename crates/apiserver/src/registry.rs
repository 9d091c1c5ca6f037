//! The resources this server serves: the table of built-in kinds, and rows made at run time. Looked up by every request;
//! listed by discovery.
//!
//! A reader takes no lock: rows made at run time lie in a snapshot that is replaced as a whole. Who derives something from
//! all rows keeps it by [`Snapshot::version`], or waits for the next by [`Registry::subscribe`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use kinds::Resource;
use machinery::gvk::{GroupVersion, GroupVersionKind, GroupVersionResource};
use tokio::sync::watch;

/// Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    current: ArcSwap<Snapshot>,
    /// By who made them: the name of a custom resource definition.
    made: Mutex<BTreeMap<String, Vec<Arc<Resource>>>>,
    version: watch::Sender<u64>,
}

/// All rows at one time.
pub struct Snapshot {
    version: u64,
    custom: Vec<Arc<Resource>>,
    by_resource: HashMap<GroupVersionResource, Arc<Resource>>,
    by_kind: HashMap<GroupVersionKind, Arc<Resource>>,
    group_versions: Vec<GroupVersion>,
}

impl Default for Registry {
    fn default() -> Self {
        let current = ArcSwap::from_pointee(Snapshot::new(0, Vec::new()));
        Self { shared: Arc::new(Shared { current, made: Mutex::default(), version: watch::Sender::new(0) }) }
    }
}

impl Registry {
    pub fn resource(&self, group: &str, version: &str, resource: &str) -> Option<Arc<Resource>> {
        if let Some(built_in) = kinds::table().find(group, version, resource) {
            return Some(built_in.clone());
        }
        let gvr = GroupVersionResource::new(group, version, resource);
        self.shared.current.load().by_resource.get(&gvr).cloned()
    }

    /// The preferred version of a kind.
    pub fn kind(&self, group: &str, kind: &str) -> Option<Arc<Resource>> {
        self.shared.current.load().resources().find(|r| r.group == group && r.kind == kind).cloned()
    }

    pub fn versioned_kind(&self, gvk: &GroupVersionKind) -> Option<Arc<Resource>> {
        let built_in = kinds::table().by_kind(gvk);
        built_in.cloned().or_else(|| self.shared.current.load().by_kind.get(gvk).cloned())
    }

    pub fn is_built_in(&self, gvk: &GroupVersionKind) -> bool {
        kinds::table().by_kind(gvk).is_some() || kinds::table().type_of(gvk).is_some()
    }

    pub fn has_group_version(&self, group: &str, version: &str) -> bool {
        self.shared.current.load().has_group_version(group, version)
    }

    /// All rows as they are now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.current.load_full()
    }

    /// Tells of each new snapshot by its version.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.version.subscribe()
    }

    /// Replaces the rows somebody made; none takes them away. Answers the rows there were.
    pub fn set(&self, maker: &str, rows: Vec<Arc<Resource>>) -> Vec<Arc<Resource>> {
        let mut made = self.shared.made.lock().unwrap_or_else(PoisonError::into_inner);
        let before = if rows.is_empty() { made.remove(maker) } else { made.insert(maker.to_owned(), rows) };
        let version = self.shared.current.load().version + 1;
        let rows = made.values().flatten().cloned().collect();
        self.shared.current.store(Arc::new(Snapshot::new(version, rows)));
        self.shared.version.send_replace(version);
        before.unwrap_or_default()
    }
}

impl Snapshot {
    fn new(version: u64, mut custom: Vec<Arc<Resource>>) -> Self {
        custom.sort_by(|a, b| {
            a.group.cmp(&b.group).then_with(|| newer_first(&a.version, &b.version)).then_with(|| a.resource.cmp(&b.resource))
        });
        // The table's own resources cannot be replaced.
        custom.retain(|r| kinds::table().by_resource(&r.gvr()).is_none());
        let mut group_versions = kinds::table().group_versions().to_vec();
        for row in &custom {
            let gv = GroupVersion::new(row.group.clone(), row.version.clone());
            if !group_versions.contains(&gv) {
                let after = group_versions.iter().rposition(|g| g.group == gv.group).map_or(group_versions.len(), |at| at + 1);
                group_versions.insert(after, gv);
            }
        }
        let by_resource = custom.iter().map(|r| (r.gvr(), r.clone())).collect();
        let by_kind = custom.iter().map(|r| (r.gvk(), r.clone())).collect();
        Self { version, custom, by_resource, by_kind, group_versions }
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// In discovery's order: built-in ones, then custom ones by group, the newest version first.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        kinds::table().resources().iter().chain(&self.custom)
    }

    /// In discovery's order.
    pub fn group_versions(&self) -> &[GroupVersion] {
        &self.group_versions
    }

    pub fn has_group_version(&self, group: &str, version: &str) -> bool {
        self.group_versions.iter().any(|gv| gv.group == group && gv.version == version)
    }

    /// The resources of one group version.
    pub fn of<'a>(&'a self, gv: &'a GroupVersion) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.resources().filter(|r| r.group == gv.group && r.version == gv.version)
    }
}

/// Upstream's order of versions (`CompareKubeAwareVersionStrings`, reversed): v10, v2, v1, v11beta2, v10beta3, v3beta1, v12alpha1, foo1, foo10.
pub fn newer_first(a: &str, b: &str) -> std::cmp::Ordering {
    match (parts(a), parts(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => std::cmp::Ordering::Less,
        (None, Some(_)) => std::cmp::Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Stability (GA highest), major, minor.
fn parts(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let number = |text: &str| -> Option<u64> { if text.starts_with('0') || text.is_empty() { None } else { text.parse().ok() } };
    for (stability, word) in [(1, "beta"), (0, "alpha")] {
        if let Some((major, minor)) = rest.split_once(word) {
            let minor = if minor.is_empty() { Some(0) } else { number(minor) };
            return Some((stability, number(major)?, minor?));
        }
    }
    Some((2, number(rest)?, 0))
}

/// The group and resource whose objects are kept under a key.
pub fn group_resource(key: &str) -> (String, String) {
    let rows = kinds::table().resources().iter().filter(|r| !r.storage_prefix.is_empty());
    let under = |r: &&Arc<Resource>| key.strip_prefix(r.storage_prefix.as_str()).is_some_and(|rest| rest.starts_with('/'));
    // `/registry/services/specs` and `/registry/services/endpoints`, of which none is a prefix of the other.
    if let Some(row) = rows.filter(under).max_by_key(|r| r.storage_prefix.len()) {
        return (row.group.clone(), row.resource.clone());
    }
    let mut parts = key.trim_start_matches("/registry/").split('/').map(str::to_owned);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// The store key of an object.
pub fn key(resource: &Resource, namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        format!("{}/{name}", resource.storage_prefix)
    } else {
        format!("{}/{namespace}/{name}", resource.storage_prefix)
    }
}

/// The prefix of all objects of a resource, or of those in a namespace.
pub fn prefix(resource: &Resource, namespace: &str) -> String {
    if namespace.is_empty() { format!("{}/", resource.storage_prefix) } else { format!("{}/{namespace}/", resource.storage_prefix) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_upstream_orders_them() {
        let want = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10", "v0", "v1beta01"];
        let mut got = want;
        got.reverse();
        got.sort_by(|a, b| newer_first(a, b));
        assert_eq!(got, want);
    }

    #[test]
    fn rows_made_at_run_time_come_and_go() {
        let registry = Registry::default();
        let mut seen = registry.subscribe();
        let config_maps = registry.resource("", "v1", "configmaps").unwrap();
        let row = |version: &str| Arc::new(Resource { group: "g.io".into(), version: version.into(), ..(*config_maps).clone() });
        registry.set("a", vec![row("v1beta1"), row("v1")]);
        assert!(seen.has_changed().unwrap());
        seen.mark_unchanged();
        let snapshot = registry.snapshot();
        assert_eq!(snapshot.version(), 1);
        assert_eq!(registry.kind("g.io", "ConfigMap").unwrap().version, "v1");
        assert!(registry.has_group_version("g.io", "v1beta1"));
        assert_eq!(snapshot.group_versions().last().unwrap().to_string(), "g.io/v1beta1");
        assert_eq!(registry.set("a", Vec::new()).len(), 2);
        assert!(registry.resource("g.io", "v1", "configmaps").is_none());
        assert!(snapshot.by_kind.len() == 2, "a snapshot stays as it was");
        assert!(seen.has_changed().unwrap());
    }
}
