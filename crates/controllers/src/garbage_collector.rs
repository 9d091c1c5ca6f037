//! Garbage collection: what becomes of an object whose owners go, and of one that waits for its dependents. Upstream's
//! `attemptToDeleteItem` and `attemptToOrphan`. It works on any kind, so it sees metadata only.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::json;

use crate::action::{Action, Target};

pub const NAME: &str = "generic-garbage-collector";
pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// Any object.
#[derive(Clone, Debug)]
pub struct Item {
    pub target: Target,
    pub meta: ObjectMeta,
}

impl Item {
    pub fn has_finalizer(&self, name: &str) -> bool {
        self.meta.finalizers.iter().flatten().any(|finalizer| finalizer == name)
    }

    fn is_deleting(&self) -> bool {
        self.meta.deletion_timestamp.is_some()
    }

    /// It goes when its dependents are gone.
    pub fn waits_for_dependents(&self) -> bool {
        self.is_deleting() && self.has_finalizer(FOREGROUND)
    }

    /// Its dependents are to be let go first.
    pub fn orphans_dependents(&self) -> bool {
        self.is_deleting() && self.has_finalizer(ORPHAN)
    }

    fn owners(&self) -> &[OwnerReference] {
        self.meta.owner_references.as_deref().unwrap_or_default()
    }

    fn blocks(&self, owner_uid: &str) -> bool {
        self.owners().iter().any(|owner| owner.uid == owner_uid && owner.block_owner_deletion == Some(true))
    }

    fn patch(&self, mut patch: serde_json::Value) -> Action {
        patch["metadata"]["uid"] = json!(self.meta.uid);
        patch["metadata"]["resourceVersion"] = json!(self.meta.resource_version);
        Action::Patch { target: self.target.clone(), subresource: None, update: false, patch, done: None, failed: None }
    }

    fn without_owners(&self, gone: impl Fn(&OwnerReference) -> bool) -> Action {
        let kept: Vec<_> = self.owners().iter().filter(|owner| !gone(owner)).collect();
        self.patch(json!({"metadata": {"ownerReferences": kept}}))
    }

    fn without_finalizer(&self, name: &str) -> Action {
        let kept: Vec<_> = self.meta.finalizers.iter().flatten().filter(|finalizer| *finalizer != name).collect();
        self.patch(json!({"metadata": {"finalizers": kept}}))
    }
}

/// What the API server itself said of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Solid,
    /// Being deleted in the foreground.
    WaitsForDependents,
    /// Not there, or another object of the same name.
    Absent,
}

/// `owners` are the states of the item's owner references, in order; `dependents` are the objects that name it as owner.
pub fn reconcile(item: &Item, owners: &[Owner], dependents: &[Item]) -> Vec<Action> {
    let uid = item.meta.uid.as_deref().unwrap_or_default();
    if item.orphans_dependents() {
        let named = |dependent: &&Item| dependent.owners().iter().any(|owner| owner.uid == uid);
        let released = dependents.iter().filter(named).map(|dependent| dependent.without_owners(|owner| owner.uid == uid));
        let mut actions = vec![Action::Together(released.collect()), item.without_finalizer(ORPHAN)];
        actions.retain(|action| !matches!(action, Action::Together(none) if none.is_empty()));
        return actions;
    }
    if item.waits_for_dependents() {
        let blocked = dependents.iter().any(|dependent| dependent.blocks(uid));
        return if blocked { Vec::new() } else { vec![item.without_finalizer(FOREGROUND)] };
    }
    if item.is_deleting() || item.owners().is_empty() {
        return Vec::new();
    }
    collect(item, owners, dependents)
}

fn collect(item: &Item, owners: &[Owner], dependents: &[Item]) -> Vec<Action> {
    if owners.contains(&Owner::Solid) {
        if owners.iter().all(|owner| *owner == Owner::Solid) {
            return Vec::new();
        }
        let gone: Vec<&str> =
            item.owners().iter().zip(owners).filter(|(_, state)| **state != Owner::Solid).map(|(owner, _)| owner.uid.as_str()).collect();
        return vec![item.without_owners(|owner| gone.contains(&owner.uid.as_str()))];
    }
    let mut actions = Vec::new();
    let propagation = if owners.contains(&Owner::WaitsForDependents) && !dependents.is_empty() {
        // A circle of owners that wait for each other would never end.
        if dependents.iter().any(Item::waits_for_dependents) {
            let kept: Vec<_> =
                item.owners().iter().cloned().map(|owner| OwnerReference { block_owner_deletion: Some(false), ..owner }).collect();
            return vec![item.patch(json!({"metadata": {"ownerReferences": kept}}))];
        }
        "Foreground"
    } else if item.has_finalizer(ORPHAN) {
        "Orphan"
    } else if item.has_finalizer(FOREGROUND) {
        "Foreground"
    } else {
        "Background"
    };
    actions.push(Action::Delete {
        target: item.target.clone(),
        uid: item.meta.uid.clone(),
        // An owner added meanwhile makes this fail.
        resource_version: item.meta.resource_version.clone(),
        propagation: Some(propagation),
        grace_seconds: None,
        done: None,
        failed: None,
    });
    actions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, meta: serde_json::Value) -> Item {
        let mut meta: ObjectMeta = serde_json::from_value(meta).unwrap();
        meta.uid = Some(format!("uid-{name}"));
        meta.name = Some(name.to_owned());
        let text = str::to_owned;
        Item {
            target: Target { api_version: text("v1"), kind: text("Pod"), plural: text("pods"), namespace: text("n"), name: text(name) },
            meta,
        }
    }

    fn owned_by(names: &[&str]) -> serde_json::Value {
        let owners: Vec<_> = names
            .iter()
            .map(|name| json!({"apiVersion": "v1", "kind": "X", "name": name, "uid": format!("uid-{name}"), "blockOwnerDeletion": true}))
            .collect();
        json!({ "ownerReferences": owners })
    }

    fn brief(actions: &[Action]) -> Vec<String> {
        let one = |action: &Action| match action {
            Action::Delete { target, propagation, .. } => format!("delete {} {}", target.name, propagation.unwrap_or("")),
            Action::Patch { target, patch, .. } => {
                let mut meta = patch["metadata"].clone();
                meta.as_object_mut().unwrap().retain(|key, _| key == "ownerReferences" || key == "finalizers");
                let owners = meta["ownerReferences"]
                    .as_array()
                    .map(|owners| owners.iter().map(|owner| owner["name"].to_string()).collect::<Vec<_>>());
                format!("patch {} owners {owners:?} finalizers {}", target.name, meta["finalizers"])
            }
            Action::Together(actions) => brief(actions).join(" + "),
            other => format!("{other:?}"),
        };
        actions.iter().map(one).collect()
    }

    #[test]
    fn without_owners_it_goes() {
        let pod = item("p", owned_by(&["a", "b"]));
        assert_eq!(brief(&reconcile(&pod, &[Owner::Absent, Owner::Absent], &[])), ["delete p Background"]);
        assert_eq!(brief(&reconcile(&pod, &[Owner::Absent, Owner::Solid], &[])), [r#"patch p owners Some(["\"b\""]) finalizers null"#]);
        assert!(reconcile(&pod, &[Owner::Solid, Owner::Solid], &[]).is_empty());
        assert!(reconcile(&item("q", json!({})), &[], &[]).is_empty());
    }

    #[test]
    fn foreground_waits_for_blocking_dependents() {
        let owner = item("o", json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion", "x"]}));
        assert!(reconcile(&owner, &[], &[item("p", owned_by(&["o"]))]).is_empty());
        assert_eq!(brief(&reconcile(&owner, &[], &[])), [r#"patch o owners None finalizers ["x"]"#]);
        let middle = item("m", owned_by(&["o"]));
        assert_eq!(brief(&reconcile(&middle, &[Owner::WaitsForDependents], &[item("p", owned_by(&["m"]))])), ["delete m Foreground"]);
        assert_eq!(brief(&reconcile(&middle, &[Owner::WaitsForDependents], &[])), ["delete m Background"]);
    }

    #[test]
    fn orphans_are_let_go_first() {
        let owner = item("o", json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["orphan"]}));
        let actions = brief(&reconcile(&owner, &[], &[item("p", owned_by(&["o", "x"])), item("q", owned_by(&["o"]))]));
        assert_eq!(actions.len(), 2);
        assert_eq!(actions[0], r#"patch p owners Some(["\"x\""]) finalizers null + patch q owners Some([]) finalizers null"#);
        assert_eq!(actions[1], "patch o owners None finalizers []");
    }
}
