//! Definitions as they are in the store, made into rows of the registry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use base64::Engine as _;
use kinds::Resource;
use kinds::custom::{self, conditions};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::mirror::Sink;
use crate::state::Api;

pub struct Known {
    api: Weak<Api>,
    /// By key.
    definitions: BTreeMap<String, Arc<Value>>,
    /// Groups with definitions that changed since somebody looked.
    groups: BTreeSet<String>,
    /// What the rows of a definition were made of.
    served: BTreeMap<String, Value>,
    changed: Arc<Notify>,
}

impl Known {
    pub fn new(changed: Arc<Notify>) -> Self {
        Self { api: Weak::new(), definitions: BTreeMap::new(), groups: BTreeSet::new(), served: BTreeMap::new(), changed }
    }

    pub fn serve(&mut self, api: Weak<Api>) {
        self.api = api;
    }

    /// The definitions of each group in which something changed since the last call.
    pub fn changed(&mut self) -> Vec<Vec<Arc<Value>>> {
        let groups = std::mem::take(&mut self.groups);
        groups.iter().map(|group| self.definitions.values().filter(|d| group_of(d) == group).cloned().collect()).collect()
    }

    /// A group is to be looked at again.
    pub fn note(&mut self, definition: &Value) {
        self.groups.insert(group_of(definition).to_owned());
    }

    /// Whether a definition was just made and is yet to be established.
    pub fn awaits(&self, group: &str, plural: &str) -> bool {
        let name = format!("{plural}.{group}");
        let found = self.definitions.values().find(|d| machinery::object::name(d) == name);
        found.is_some_and(|d| {
            conditions::condition(d, "NamesAccepted").is_none() && machinery::object::str_at(d, "metadata.deletionTimestamp").is_empty()
        })
    }

    /// Makes the rows of a definition anew, if what they depend on has changed. Watches of the old rows end.
    fn refresh(&mut self, key: &str) {
        let Some(api) = self.api.upgrade() else { return };
        let wanted = self.definitions.get(key).filter(|d| conditions::is_true(d, "Established")).map(|d| basis(d));
        if self.served.get(key) == wanted.as_ref() {
            return;
        }
        let rows = self.definitions.get(key).filter(|_| wanted.is_some()).map_or_else(Vec::new, |d| rows(d));
        match wanted {
            Some(wanted) => drop(self.served.insert(key.to_owned(), wanted)),
            None => drop(self.served.remove(key)),
        }
        let name = key.rsplit('/').next().unwrap_or(key);
        for old in api.registry.set(name, rows) {
            api.forget_cache(&old);
        }
        // Watches can begin at any revision from now on.
        for row in api.registry.snapshot().resources().filter(|r| r.custom.as_ref().is_some_and(|c| c.definition.name == name)) {
            api.cache(row);
        }
    }
}

fn group_of(definition: &Value) -> &str {
    machinery::object::str_at(definition, "spec.group")
}

/// What rows are made of.
fn basis(definition: &Value) -> Value {
    serde_json::json!([
        definition.get("spec"),
        definition.pointer("/status/acceptedNames"),
        definition.pointer("/metadata/uid"),
        conditions::is_true(definition, "Terminating"),
    ])
}

fn rows(definition: &Value) -> Vec<Arc<Resource>> {
    match custom::rows(definition) {
        Ok(rows) => rows.into_iter().map(hashed).map(Arc::new).collect(),
        Err(error) => {
            tracing::error!(%error, name = machinery::object::name(definition), "a definition cannot be served");
            Vec::new()
        }
    }
}

/// Discovery shows by a hash whether two versions are stored as one.
fn hashed(mut row: Resource) -> Resource {
    let hash = Sha256::digest(format!("{}/{}/{}", row.group, row.storage_version.version, row.kind));
    row.storage_version_hash = base64::engine::general_purpose::STANDARD.encode(&hash[..8]);
    row
}

impl Sink for Known {
    fn apply(&mut self, key: &str, object: Option<&Value>) {
        let before = match object {
            Some(object) => self.definitions.insert(key.to_owned(), Arc::new(object.clone())),
            None => self.definitions.remove(key),
        };
        for definition in before.as_deref().into_iter().chain(object) {
            self.note(definition);
        }
        self.refresh(key);
    }

    fn settled(&mut self) {
        self.changed.notify_one();
    }
}
