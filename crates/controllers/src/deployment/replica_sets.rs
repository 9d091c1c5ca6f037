//! The ReplicaSets of a Deployment during one pass: which is the new one, their revisions, and what a pass changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use super::{Bounds, bounds, by_age, progress, template};
use crate::action::{Action, Event, merge_diff, to_value};
use crate::meta;
use crate::view::{Context, View};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that its ReplicaSets do not inherit.
const NOT_INHERITED: [&str; 6] =
    ["kubectl.kubernetes.io/last-applied-configuration", REVISION, REVISION_HISTORY, DESIRED, MAX, "deprecated.deployment.rollback.to"];
/// The history annotation forgets its oldest entries beyond so many characters.
const HISTORY_CHARS_MAX: usize = 2000;

/// A ReplicaSet and what this pass makes of it.
pub struct Revision {
    pub set: Arc<ReplicaSet>,
    pub replicas: i32,
    annotations: BTreeMap<String, String>,
    min_ready_seconds: Option<i32>,
    fresh: bool,
    event: Option<Event>,
}

impl Revision {
    fn of(set: Arc<ReplicaSet>) -> Self {
        let spec = set.spec.as_ref();
        Self {
            replicas: spec.and_then(|spec| spec.replicas).unwrap_or(1),
            min_ready_seconds: spec.and_then(|spec| spec.min_ready_seconds),
            annotations: set.metadata.annotations.clone().unwrap_or_default(),
            fresh: false,
            event: None,
            set,
        }
    }

    pub fn available(&self) -> i32 {
        self.set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
    }

    fn number(&self) -> i64 {
        self.annotations.get(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// What `max-replicas` was when it was last scaled.
    pub fn max_replicas(&self) -> Option<i32> {
        self.annotations.get(MAX).and_then(|text| text.parse().ok())
    }

    fn action(&self) -> Option<Action> {
        let action = if self.fresh {
            let mut set = ReplicaSet::clone(&self.set);
            set.metadata.annotations = Some(self.annotations.clone());
            if let Some(spec) = set.spec.as_mut() {
                spec.replicas = Some(self.replicas);
            }
            Action::create(&set)
        } else {
            let mut patch = Map::new();
            let spec = self.set.spec.as_ref();
            let old =
                json!({"replicas": spec.and_then(|spec| spec.replicas), "minReadySeconds": spec.and_then(|spec| spec.min_ready_seconds)});
            if let Some(diff) = merge_diff(&old, &json!({"replicas": self.replicas, "minReadySeconds": self.min_ready_seconds})) {
                patch.insert("spec".to_owned(), diff);
            }
            let annotations = self.set.metadata.annotations.clone().unwrap_or_default();
            if let Some(diff) = merge_diff(&to_value(&annotations), &to_value(&self.annotations)) {
                patch.insert("metadata".to_owned(), json!({ "annotations": diff }));
            }
            if patch.is_empty() {
                return None;
            }
            Action::patch(&*self.set, Value::Object(patch))
        };
        Some(match &self.event {
            Some(event) => action.tell_done(event.clone()),
            None => action,
        })
    }
}

/// All ReplicaSets of a Deployment.
pub struct Revisions<'a> {
    pub deployment: &'a Deployment,
    /// Oldest first; without the new one.
    pub old: Vec<Revision>,
    pub new: Option<Revision>,
    /// The name of the new ReplicaSet is taken by a stranger: count up and try again.
    pub collided: bool,
    pub status: DeploymentStatus,
    pub old_to_delete: Vec<Action>,
    revision: Option<String>,
}

impl<'a> Revisions<'a> {
    pub fn new(deployment: &'a Deployment, mut sets: Vec<Arc<ReplicaSet>>) -> Self {
        sets.sort_by(by_age);
        let wanted = deployment.spec.as_ref().map(|spec| &spec.template);
        let is_new = |set: &Arc<ReplicaSet>| {
            let has = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            wanted.zip(has).is_some_and(|(wanted, has)| template::equal(wanted, has))
        };
        let new = sets.iter().position(is_new).map(|at| Revision::of(sets.remove(at)));
        let old = sets.into_iter().map(Revision::of).collect();
        let status = deployment.status.clone().unwrap_or_default();
        Self { deployment, old, new, collided: false, status, old_to_delete: Vec::new(), revision: None }
    }

    pub fn spec(&self) -> &'a DeploymentSpec {
        static EMPTY: std::sync::LazyLock<DeploymentSpec> = std::sync::LazyLock::new(DeploymentSpec::default);
        self.deployment.spec.as_ref().unwrap_or(&EMPTY)
    }

    /// How many pods the Deployment asks for.
    pub fn wanted(&self) -> i32 {
        self.spec().replicas.unwrap_or(1)
    }

    pub fn bounds(&self) -> Bounds {
        bounds(self.deployment)
    }

    pub fn all(&self) -> impl Iterator<Item = &Revision> {
        self.old.iter().chain(&self.new)
    }

    /// Of all sets, as this pass has them.
    pub fn total_replicas(&self) -> i32 {
        self.all().map(|revision| revision.replicas).sum()
    }

    pub fn has_deadline(&self) -> bool {
        self.spec().progress_deadline_seconds.is_some_and(|seconds| seconds != i32::MAX)
    }

    /// The Deployment was scaled since its ReplicaSets were.
    pub fn is_scaling_event(&self) -> bool {
        let wanted = self.wanted().to_string();
        self.all().any(|revision| revision.replicas > 0 && revision.annotations.get(DESIRED).is_some_and(|desired| *desired != wanted))
    }

    /// Upstream's `getAllReplicaSetsAndSyncRevision`: numbers the new ReplicaSet, and makes it if `create`.
    pub fn sync_revision(&mut self, view: &View<'_>, context: &Context<'_>, create: bool) {
        let newest = self.old.iter().map(Revision::number).max().unwrap_or(0);
        if let Some(mut new) = self.new.take() {
            inherit(&mut new, self.deployment, newest + 1);
            new.min_ready_seconds = if self.spec().min_ready_seconds.unwrap_or(0) == new.min_ready_seconds.unwrap_or(0) {
                new.min_ready_seconds
            } else {
                self.spec().min_ready_seconds
            };
            self.revision = new.annotations.get(REVISION).cloned();
            if self.has_deadline() && progress::condition(&self.status, "Progressing").is_none() {
                let text = format!("Found new replica set \"{}\"", meta::name(&*new.set));
                progress::set(&mut self.status, "Progressing", "True", "FoundNewReplicaSet", text, context.now);
            }
            self.new = Some(new);
        } else if create {
            self.make_new(view, context, newest + 1);
        }
    }

    fn make_new(&mut self, view: &View<'_>, context: &Context<'_>, number: i64) {
        let hash = template::hash(&self.spec().template, self.status.collision_count);
        let name = format!("{}-{hash}", meta::name(self.deployment));
        if view.replica_sets.get(meta::namespace(self.deployment), &name).is_some() {
            self.status.collision_count = Some(self.status.collision_count.unwrap_or(0) + 1);
            self.collided = true;
            return;
        }
        let mut new = Revision::of(Arc::new(self.new_set(&name, &hash)));
        new.fresh = true;
        inherit(&mut new, self.deployment, number);
        self.note_failure(&name, context);
        self.revision = new.annotations.get(REVISION).cloned();
        self.new = Some(new);
        let replicas = super::rolling::new_set_replicas(self);
        let bounds = self.bounds();
        let Some(new) = self.new.as_mut() else { return };
        new.replicas = replicas;
        mark_scale(&mut new.annotations, self.deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1), bounds.surge);
        if replicas > 0 {
            let text = format!("Scaled up replica set {name} from 0 to {replicas}");
            new.event = Some(Event::normal(self.deployment, "ScalingReplicaSet", text));
        }
    }

    fn note_failure(&mut self, name: &str, context: &Context<'_>) {
        if !self.has_deadline() {
            return;
        }
        match context.failure.filter(|failure| failure.verb == "create") {
            Some(failure) => {
                let text = format!("Failed to create new replica set \"{name}\": {}", failure.message);
                progress::set(&mut self.status, "Progressing", "False", "ReplicaSetCreateError", text, context.now);
            }
            None => {
                let text = format!("Created new replica set \"{name}\"");
                progress::set(&mut self.status, "Progressing", "True", "NewReplicaSetCreated", text, context.now);
            }
        }
    }

    fn new_set(&self, name: &str, hash: &str) -> ReplicaSet {
        let spec = self.spec();
        let mut template = spec.template.clone();
        let metadata = template.metadata.get_or_insert_default();
        metadata.labels.get_or_insert_default().insert(template::HASH_LABEL.to_owned(), hash.to_owned());
        let mut selector = spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(template::HASH_LABEL.to_owned(), hash.to_owned());
        ReplicaSet {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: self.deployment.metadata.namespace.clone(),
                labels: metadata.labels.clone(),
                owner_references: Some(vec![meta::controller_ref(self.deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec { min_ready_seconds: spec.min_ready_seconds, replicas: Some(0), selector, template: Some(template) }),
            status: None,
        }
    }

    /// Scales a set; the index is into `old`, `None` is the new one. Answers whether its size changed.
    pub fn scale(&mut self, at: Option<usize>, size: i32) -> bool {
        let (wanted, surge, deployment) = (self.wanted(), self.bounds().surge, self.deployment);
        let Some(revision) = at.map_or(self.new.as_mut(), |at| self.old.get_mut(at)) else { return false };
        mark_scale(&mut revision.annotations, wanted, surge);
        let before = revision.replicas;
        if before == size {
            return false;
        }
        revision.replicas = size;
        let from = revision.set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(before);
        let direction = if size > from { "up" } else { "down" };
        let text = format!("Scaled {direction} replica set {} from {from} to {size}", meta::name(&*revision.set));
        revision.event = Some(Event::normal(deployment, "ScalingReplicaSet", text));
        true
    }

    /// Deletes what the history limit leaves over, the lowest revisions first.
    pub fn clean_up(&mut self) {
        let Some(limit) = self.spec().revision_history_limit.filter(|limit| *limit != i32::MAX) else { return };
        let mut candidates: Vec<&Revision> = self.old.iter().filter(|revision| !meta::is_deleting(&*revision.set)).collect();
        let surplus = candidates.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        candidates.sort_by_key(|revision| revision.number());
        let idle = |revision: &&Revision| {
            let status = revision.set.status.as_ref();
            let seen = status.and_then(|status| status.observed_generation).unwrap_or(0);
            revision.replicas == 0
                && status.is_none_or(|status| status.replicas == 0)
                && revision.set.metadata.generation.unwrap_or(0) <= seen
        };
        let deletes: Vec<Action> =
            candidates.into_iter().take(surplus).filter(idle).map(|revision| Action::delete(&*revision.set)).collect();
        self.old_to_delete.extend(deletes);
    }

    pub fn is_complete(&self, status: &DeploymentStatus) -> bool {
        let wanted = self.wanted();
        let is = |count: Option<i32>| count.unwrap_or(0) == wanted;
        is(status.updated_replicas)
            && is(status.replicas)
            && is(status.available_replicas)
            && status.observed_generation.unwrap_or(0) >= self.deployment.metadata.generation.unwrap_or(0)
    }

    pub fn set_actions(&self) -> Vec<Action> {
        let failed = |action: Action, revision: &Revision| {
            if !revision.fresh {
                return action;
            }
            let text = format!("Failed to create new replica set \"{}\": {{}}", meta::name(&*revision.set));
            action.tell_failed(Event::warning(self.deployment, "ReplicaSetCreateError", text))
        };
        self.all().filter_map(|revision| revision.action().map(|action| failed(action, revision))).collect()
    }

    /// Writes the status and, as upstream, the revision annotation along with it.
    pub fn status_action(&self) -> Option<Action> {
        let status = Action::update_status(self.deployment, &self.deployment.status, &self.status);
        let revision = self.revision.as_deref().filter(|revision| meta::annotation(self.deployment, REVISION) != Some(revision));
        let Some(revision) = revision else { return status };
        let mut action = status.unwrap_or_else(|| Action::update(self.deployment, json!({})).on_subresource("status"));
        if let Action::Patch { patch, .. } = &mut action {
            patch["metadata"]["annotations"] = json!({ REVISION: revision });
        }
        Some(action)
    }
}

/// Upstream's `SetNewReplicaSetAnnotations`.
fn inherit(new: &mut Revision, deployment: &Deployment, number: i64) {
    for (key, value) in deployment.metadata.annotations.iter().flatten().filter(|(key, _)| !NOT_INHERITED.contains(&key.as_str())) {
        new.annotations.insert(key.clone(), value.clone());
    }
    let Some(before) = new.annotations.get(REVISION).cloned() else {
        new.annotations.insert(REVISION.to_owned(), number.to_string());
        return;
    };
    if before.parse::<i64>().unwrap_or(0) >= number {
        return;
    }
    new.annotations.insert(REVISION.to_owned(), number.to_string());
    let history = new.annotations.entry(REVISION_HISTORY.to_owned()).or_default();
    let mut numbers: Vec<&str> = history.split(',').filter(|entry| !entry.is_empty()).chain([before.as_str()]).collect();
    while numbers.len() > 1 && numbers.iter().map(|entry| entry.len() + 1).sum::<usize>() > HISTORY_CHARS_MAX {
        numbers.remove(0);
    }
    *history = numbers.join(",");
}

fn mark_scale(annotations: &mut BTreeMap<String, String>, wanted: i32, surge: i32) {
    annotations.insert(DESIRED.to_owned(), wanted.to_string());
    annotations.insert(MAX.to_owned(), wanted.saturating_add(surge).to_string());
}
