//! A model cluster for tests: a map of objects, the actions applied to it as the API server would, and views of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::action::{Action, Target, merge};
use crate::view::{Config, Context, Failure, Key, Lister, View};
use crate::{Controller, k8s, meta};

#[derive(Clone, Debug)]
pub struct Model {
    /// By kind, namespace and name.
    pub objects: BTreeMap<(String, String, String), Value>,
    pub revision: u64,
    pub now: Timestamp,
    pub config: Config,
    seed: u64,
    /// Texts of events, as `reason: message`.
    pub events: Vec<String>,
    /// Every action in short form.
    pub log: Vec<String>,
    pub refuse_creates_of: Option<String>,
    /// Subresources that access reviews allow.
    pub allowed: Vec<String>,
    /// What controllers remember, by name and key.
    memory: BTreeMap<(&'static str, Key), Value>,
}

struct OfKind<'a>(&'a Model);

impl<K: Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned> Lister<K> for OfKind<'_> {
    fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let object = self.0.objects.get(&(K::KIND.into(), namespace.into(), name.into()))?;
        Some(Arc::new(serde_json::from_value(object.clone()).unwrap()))
    }
    fn list(&self) -> Vec<Arc<K>> {
        let of_kind = self.0.objects.iter().filter(|((kind, ..), _)| kind == K::KIND);
        of_kind.map(|(_, object)| Arc::new(serde_json::from_value(object.clone()).unwrap())).collect()
    }
    fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.list().into_iter().filter(|object: &Arc<K>| meta::namespace(&**object) == namespace).collect()
    }
    fn controlled_by(&self, uid: &str) -> Vec<Arc<K>> {
        self.list().into_iter().filter(|object: &Arc<K>| meta::is_controlled_by(&**object, uid)).collect()
    }
    fn orphans(&self, namespace: &str) -> Vec<Arc<K>> {
        self.list_namespace(namespace).into_iter().filter(|object: &Arc<K>| meta::controller(&**object).is_none()).collect()
    }
    fn by_index(&self, index: &str, value: &str) -> Vec<Arc<K>> {
        let of = |object: &Arc<K>| {
            let tree = &self.0.objects[&(K::KIND.to_owned(), meta::namespace(&**object).to_owned(), meta::name(&**object).to_owned())];
            match index {
                "spec.nodeName" => tree["spec"]["nodeName"].as_str().unwrap_or("").to_owned(),
                label => format!("{}/{}", meta::namespace(&**object), tree["metadata"]["labels"][label].as_str().unwrap_or("")),
            }
        };
        self.list().into_iter().filter(|object| of(object) == value).collect()
    }
}

impl crate::view::Counts for Model {
    fn count(&self, namespace: &str, resource: &str) -> Option<usize> {
        let plural = |kind: &str| format!("{}s", kind.to_lowercase());
        let resource = resource.split('.').next().unwrap_or_default();
        Some(self.objects.keys().filter(|(kind, space, _)| space == namespace && plural(kind) == resource).count())
    }
}

impl Model {
    /// A cluster holding the documents of a YAML-like JSON array.
    pub fn new(objects: &[Value]) -> Self {
        let now = Timestamp::new(1_700_000_000, 0).unwrap();
        let (objects_map, events, log) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut model = Self {
            objects: objects_map,
            revision: 1,
            now,
            config: Config::default(),
            seed: 1,
            events,
            log,
            refuse_creates_of: None,
            allowed: Vec::new(),
            memory: BTreeMap::new(),
        };
        for object in objects {
            model.create(object.clone());
        }
        model
    }

    pub fn get<K: Resource>(&self, namespace: &str, name: &str) -> &Value {
        &self.objects[&(K::KIND.to_owned(), namespace.to_owned(), name.to_owned())]
    }

    pub fn of_kind<K: Resource>(&self) -> Vec<&Value> {
        self.objects.iter().filter(|((kind, ..), _)| kind == K::KIND).map(|(_, object)| object).collect()
    }

    /// Merges into an object as a user or kubelet would.
    pub fn merge<K: Resource>(&mut self, namespace: &str, name: &str, patch: &Value) {
        let key = (K::KIND.to_owned(), namespace.to_owned(), name.to_owned());
        self.write(key, patch);
    }

    pub fn pass(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    fn create(&mut self, mut object: Value) {
        self.revision += 1;
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let key = (text(&object["kind"]), text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.revision));
        }
        object["metadata"]["generation"] = json!(1);
        object["metadata"]["creationTimestamp"] = json!(self.now);
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        assert!(!self.objects.contains_key(&key), "{key:?} already exists");
        self.objects.insert(key, object);
    }

    fn write(&mut self, key: (String, String, String), patch: &Value) {
        let object = self.objects.get_mut(&key).unwrap_or_else(|| panic!("no {key:?}"));
        let before = object.clone();
        merge(object, patch);
        if *object != before {
            self.revision += 1;
            object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
            if object["spec"] != before["spec"] {
                object["metadata"]["generation"] = json!(before["metadata"]["generation"].as_u64().unwrap_or(0) + 1);
            }
        }
        let gone =
            !object["metadata"]["deletionTimestamp"].is_null() && object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        if gone && key.0 != "Namespace" {
            self.objects.remove(&key);
        }
    }

    pub fn view<R>(&self, look: impl FnOnce(&View<'_>) -> R) -> R {
        let model = OfKind(self);
        macro_rules! make_view {
            ($($field:ident $variant:ident $kind:ident $scope:tt,)*) => { View { $($field: &model as &dyn Lister<k8s::$kind>,)* } };
        }
        look(&crate::for_each_kind!(make_view))
    }

    /// One pass of a controller; how many actions it took.
    pub fn step(&mut self, controller: &Controller, key: &Key) -> usize {
        self.seed += 1;
        let memory = self.memory.remove(&(controller.name, key.clone()));
        let context = Context::new(self.now, self.seed, &self.config, None).remembering(memory.as_ref());
        let context = context.counting(self);
        let mut outcome = self.view(|view| (controller.reconcile)(view, key, &context));
        if let Some(memory) = outcome.memory.take() {
            self.memory.insert((controller.name, key.clone()), memory);
        }
        let mut failure = self.execute_all(&outcome.actions);
        if failure.is_some() {
            let retry =
                self.view(|view| (controller.reconcile)(view, key, &Context::new(self.now, self.seed, &self.config, failure.as_ref())));
            failure = self.execute_all(&retry.actions);
            assert!(failure.is_some());
            outcome.actions.truncate(0);
        }
        outcome.actions.len()
    }

    /// Until nothing is left to do; panics when that never comes.
    pub fn settle(&mut self, controller: &Controller, key: &Key) {
        for _ in 0..50 {
            // A question that is answered with no does nothing either.
            let done = self.log.len();
            if self.step(controller, key) == 0 || self.log.len() == done {
                return;
            }
        }
        panic!("{} does not settle: {:#?}", controller.name, self.log);
    }

    fn execute_all(&mut self, actions: &[Action]) -> Option<Failure> {
        actions.iter().find_map(|action| self.execute(action))
    }

    fn execute(&mut self, action: &Action) -> Option<Failure> {
        let (verb, target) = match action {
            Action::Together(actions) => return self.execute_all(actions),
            Action::IfAllowed { review, then, otherwise } => {
                let subresource = review["spec"]["resourceAttributes"]["subresource"].as_str().unwrap_or("").to_owned();
                let allowed = self.allowed.contains(&subresource);
                return self.execute_all(if allowed { then } else { otherwise });
            }
            Action::Record(event) => {
                self.events.push(format!("{}: {}", event.reason, event.message));
                return None;
            }
            Action::Create { target, .. } => ("create", target),
            Action::Patch { target, .. } => ("patch", target),
            Action::Delete { target, .. } => ("delete", target),
            Action::Replace { target, .. } => ("replace", target),
            Action::Apply { target, .. } => ("apply", target),
            Action::RequireLive { target, .. } | Action::RequireAbsent { target } => ("require", target),
        };
        let key = key_of(target);
        match action {
            Action::Create { object, failed, .. } => {
                if self.refuse_creates_of.as_deref() == Some(target.kind.as_str()) {
                    let message = "refused".to_owned();
                    self.events.extend(failed.iter().map(|event| format!("{}: {}", event.reason, event.message.replace("{}", &message))));
                    return Some(Failure { verb, kind: target.kind.clone(), message });
                }
                self.create(object.clone());
            }
            Action::Patch { patch, .. } => {
                let has = &self.objects[&key]["metadata"]["resourceVersion"];
                assert_eq!(*has, patch["metadata"]["resourceVersion"], "stale patch of {key:?}: {:#?}", self.log);
                let mut patch = patch.clone();
                patch["metadata"].as_object_mut().unwrap().remove("resourceVersion");
                self.write(key.clone(), &patch);
            }
            Action::Apply { object, .. } => self.write(key.clone(), object),
            Action::Replace { object, .. } => {
                // What the new object lacks is gone.
                let old = self.objects[&key].as_object().cloned().unwrap_or_default();
                let stored = self.objects.get_mut(&key).unwrap();
                *stored = json!({"metadata": old["metadata"]});
                self.write(key.clone(), object);
            }
            Action::Delete { grace_seconds, .. } => self.delete(&key, *grace_seconds),
            _ => {}
        }
        self.log.push(format!("{verb} {} {}", target.kind, target.name));
        if let Action::Create { done: Some(event), .. }
        | Action::Patch { done: Some(event), .. }
        | Action::Delete { done: Some(event), .. } = action
        {
            self.events.push(format!("{}: {}", event.reason, event.message));
        }
        None
    }

    /// Graceful only for what has finalizers.
    fn delete(&mut self, key: &(String, String, String), _grace: Option<i64>) {
        let now = json!(self.now);
        if self.objects.contains_key(key) {
            self.write(key.clone(), &json!({"metadata": {"deletionTimestamp": now}}));
        }
    }
}

fn key_of(target: &Target) -> (String, String, String) {
    (target.kind.clone(), target.namespace.clone(), target.name.clone())
}

/// A pod becomes as a kubelet would report it.
pub fn pod_status(phase: &str, ready: bool, now: Timestamp) -> Value {
    let ready = if ready { "True" } else { "False" };
    json!({"status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": now}]}})
}
