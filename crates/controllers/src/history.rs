//! ControllerRevisions: the pod templates that a DaemonSet or StatefulSet has had, which `kubectl rollout history` and
//! `undo` read. Upstream's `pkg/controller/history`.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use crate::action::{Action, to_value};
use crate::deployment::hash;
use crate::view::View;
use crate::{meta, pods};

pub const HASH_LABEL: &str = "controller-revision-hash";

/// The revisions of one owner.
pub struct History {
    /// In order of their numbers.
    pub all: Vec<Arc<ControllerRevision>>,
    /// The revision of the template as it is now; it may not exist yet.
    pub update: Arc<ControllerRevision>,
    /// How often the hash had to be changed because another revision had the name.
    pub collisions: Option<i32>,
    /// What must be done so that the API says so; before anything relies on the revision.
    pub actions: Vec<Action>,
}

impl History {
    /// Claims the revisions of an owner and finds, renumbers or makes the one of its present template.
    pub fn of<O: Metadata<Ty = ObjectMeta>>(
        view: &View<'_>,
        owner: &O,
        selector: &LabelSelector,
        template: &PodTemplateSpec,
        collisions: Option<i32>,
    ) -> Self {
        let claimed = pods::claim(view.controller_revisions, owner, selector);
        let (mut all, mut actions) = (claimed.owned, claimed.actions);
        all.sort_by(|a, b| (a.revision, meta::created(&**a), meta::name(&**a)).cmp(&(b.revision, meta::created(&**b), meta::name(&**b))));
        let newest = all.last().map_or(0, |last| last.revision);
        let wanted = to_value(template);
        let equal = all.iter().rfind(|one| template_of(one).is_some_and(|has| to_value(&has) == wanted)).cloned();
        if let Some(equal) = equal {
            let update = if equal.revision == newest {
                equal
            } else {
                // Rolled back: an old template is the newest again.
                let mut renumbered = (*equal).clone();
                renumbered.revision = newest + 1;
                actions.push(Action::patch(&*equal, json!({"revision": newest + 1})));
                Arc::new(renumbered)
            };
            return Self { all, update, collisions, actions };
        }
        let (update, collisions) = create(view, owner, template, newest + 1, collisions);
        actions.push(Action::create(&update));
        Self { all, update: Arc::new(update), collisions, actions }
    }

    /// Deletes the oldest of those that nothing uses, beyond a number of them. `live` has names or hashes.
    pub fn clean_up(&self, live: &BTreeSet<String>, limit: Option<i32>) -> Vec<Action> {
        let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
        let is_live = |one: &ControllerRevision| {
            meta::name(one) == meta::name(&*self.update)
                || live.contains(meta::name(one))
                || meta::label(one, HASH_LABEL).is_some_and(|hash| live.contains(hash))
        };
        let unused: Vec<_> = self.all.iter().filter(|one| !is_live(one) && !meta::is_deleting(&***one)).collect();
        unused.iter().take(unused.len().saturating_sub(limit)).map(|one| Action::delete(&***one)).collect()
    }
}

/// A new revision under a name that no other has.
fn create<O: Metadata<Ty = ObjectMeta>>(
    view: &View<'_>,
    owner: &O,
    template: &PodTemplateSpec,
    revision: i64,
    mut collisions: Option<i32>,
) -> (ControllerRevision, Option<i32>) {
    let mut hash_text = hash(template, collisions);
    let name_of = |hash: &str| format!("{}-{hash}", meta::name(owner).get(..223).unwrap_or(meta::name(owner)));
    while view.controller_revisions.get(meta::namespace(owner), &name_of(&hash_text)).is_some() {
        collisions = Some(collisions.unwrap_or(0).saturating_add(1));
        hash_text = hash(template, collisions);
    }
    let mut labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    labels.insert(HASH_LABEL.to_owned(), hash_text.clone());
    let metadata = ObjectMeta {
        name: Some(name_of(&hash_text)),
        namespace: Some(meta::namespace(owner).to_owned()),
        labels: Some(labels),
        annotations: owner.metadata().annotations.clone(),
        owner_references: Some(vec![meta::controller_ref(owner)]),
        ..ObjectMeta::default()
    };
    (ControllerRevision { metadata, data: Some(RawExtension(data(template))), revision }, collisions)
}

/// The strategic merge patch that brings an owner back to a template.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = to_value(template);
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// The template that a revision holds.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

pub fn hash_of(revision: &ControllerRevision) -> &str {
    meta::label(revision, HASH_LABEL).unwrap_or_default()
}
