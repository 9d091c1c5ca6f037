//! Executes actions against the API, in order, and stops at the first that fails.

use client::{Client, EventRecorder, EventType, Happening};
use controllers::{Action, Event, Failure, Target};
use futures::future::{BoxFuture, join_all};
use kube::core::Request;
use kube::core::params::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use serde_json::Value;

/// A write whose effect the caches must show before the key is looked at again.
#[derive(Clone, Debug)]
pub struct Written {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub revision: u64,
    pub deleted_uid: Option<String>,
    /// It is not known whether it happened.
    pub ambiguous: bool,
}

/// Why execution stopped.
#[derive(Debug)]
pub enum Stop {
    /// The cache was behind, or someone else was faster: look again.
    Stale,
    /// Nothing to be done about it now: the namespace is going away.
    Pointless,
    /// The server said no.
    Refused(Failure),
    /// No answer.
    Unreachable(String),
}

#[derive(Clone)]
pub struct Executor {
    client: Client,
    recorder: EventRecorder,
}

type Done = (Vec<Written>, Result<(), Stop>);

impl Executor {
    pub fn new(client: Client, recorder: EventRecorder) -> Self {
        Self { client, recorder }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Answers what was written, also when it stopped early.
    pub fn execute_all<'a>(&'a self, actions: &'a [Action]) -> BoxFuture<'a, Done> {
        Box::pin(async move {
            let mut written = Vec::new();
            for action in actions {
                let (more, result) = self.execute(action).await;
                written.extend(more);
                if result.is_err() {
                    return (written, result);
                }
            }
            (written, Ok(()))
        })
    }

    async fn execute(&self, action: &Action) -> Done {
        let (verb, target, done, failed) = match action {
            Action::Together(actions) => return self.execute_together(actions).await,
            Action::IfAllowed { review, then, otherwise } => {
                return match self.allowed(review).await {
                    Ok(true) => self.execute_all(then).await,
                    // The right may come later.
                    Ok(false) if otherwise.is_empty() => (Vec::new(), Err(Stop::Stale)),
                    Ok(false) => self.execute_all(otherwise).await,
                    Err(error) => (Vec::new(), Err(Stop::Unreachable(error.to_string()))),
                };
            }
            Action::Record(event) => {
                self.record(event, None);
                return (Vec::new(), Ok(()));
            }
            Action::RequireLive { target, uid } => return (Vec::new(), self.require_live(target, uid).await),
            Action::RequireAbsent { target } => return (Vec::new(), self.require_absent(target).await),
            Action::Replace { target, .. } => ("replace", target, &None, &None),
            Action::Apply { target, .. } => ("apply", target, &None, &None),
            Action::Create { target, done, failed, .. } => ("create", target, done, failed),
            Action::Patch { target, done, failed, .. } => ("patch", target, done, failed),
            Action::Delete { target, done, failed, .. } => ("delete", target, done, failed),
        };
        let written = |revision, deleted_uid, ambiguous| Written {
            api_version: target.api_version.clone(),
            kind: target.kind.clone(),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            revision,
            deleted_uid,
            ambiguous,
        };
        match self.send(action).await {
            Ok(answer) => {
                done.iter().for_each(|event| self.record(event, None));
                let revision = answer["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
                let deleted = match action {
                    Action::Delete { uid, .. } => uid.clone(),
                    _ => None,
                };
                (vec![written(revision, deleted, false)], Ok(()))
            }
            Err(kube::Error::Api(status)) if verb == "delete" && status.code == 404 => (Vec::new(), Ok(())),
            Err(kube::Error::Api(status)) if is_stale(&status) => {
                tracing::debug!(verb, kind = target.kind, name = target.name, message = status.message, "stale");
                (Vec::new(), Err(Stop::Stale))
            }
            Err(kube::Error::Api(status)) if is_namespace_terminating(&status) => (Vec::new(), Err(Stop::Pointless)),
            Err(kube::Error::Api(status)) => {
                failed.iter().for_each(|event| self.record(event, Some(&status.message)));
                // A server that fails may have written before it did.
                let written = if status.code >= 500 { vec![written(0, None, true)] } else { Vec::new() };
                let failure = Failure { verb, kind: target.kind.clone(), message: status.message.clone() };
                (written, Err(Stop::Refused(failure)))
            }
            Err(error) => (vec![written(0, None, true)], Err(Stop::Unreachable(error.to_string()))),
        }
    }

    async fn execute_together(&self, actions: &[Action]) -> Done {
        let results = join_all(actions.iter().map(|action| self.execute(action))).await;
        let mut written = Vec::new();
        let mut first = Ok(());
        for (more, result) in results {
            written.extend(more);
            first = first.and(result);
        }
        (written, first)
    }

    async fn send(&self, action: &Action) -> kube::Result<Value> {
        let request = match action {
            Action::Create { target, object, .. } => {
                let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
                Request::new(target.collection_path()).create(&PostParams::default(), body)
            }
            Action::Replace { target, subresource, object } => {
                let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
                let (request, params) = (Request::new(target.collection_path()), PostParams::default());
                match subresource {
                    Some(subresource) => request.replace_subresource(subresource, &target.name, &params, body),
                    None => request.replace(&target.name, &params, body),
                }
            }
            Action::Apply { target, manager, object } => {
                Request::new(target.collection_path()).patch(&target.name, &PatchParams::apply(manager).force(), &Patch::Apply(object))
            }
            Action::Patch { target, subresource, update: true, patch, .. } => return self.update(target, *subresource, patch).await,
            Action::Patch { target, subresource, patch, .. } => {
                let request = Request::new(target.collection_path());
                let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
                match subresource {
                    Some(subresource) => request.patch_subresource(subresource, &target.name, &params, &patch),
                    None => request.patch(&target.name, &params, &patch),
                }
            }
            Action::Delete { target, uid, resource_version, propagation, grace_seconds, .. } => {
                let params = DeleteParams {
                    preconditions: Some(Preconditions { uid: uid.clone(), resource_version: resource_version.clone() }),
                    propagation_policy: propagation.map(policy),
                    grace_period_seconds: grace_seconds.and_then(|seconds| u32::try_from(seconds).ok()),
                    ..DeleteParams::default()
                };
                Request::new(target.collection_path()).delete(&target.name, &params)
            }
            Action::IfAllowed { .. }
            | Action::Record(_)
            | Action::RequireLive { .. }
            | Action::RequireAbsent { .. }
            | Action::Together(_) => return Ok(Value::Null),
        };
        self.client.request(request.map_err(kube::Error::BuildRequest)?).await
    }

    /// Reads, merges and writes back; a conflict when the object is not the one that the patch was computed from.
    async fn update(&self, target: &Target, subresource: Option<&str>, patch: &Value) -> kube::Result<Value> {
        let mut object = self.get(target).await?.unwrap_or(Value::Null);
        let same = |field: &str| object["metadata"][field] == patch["metadata"][field];
        if !same("uid") || !same("resourceVersion") {
            let status = kube::core::Status { code: 409, reason: "Conflict".to_owned(), ..kube::core::Status::default() };
            return Err(kube::Error::Api(status.boxed()));
        }
        controllers::action::merge(&mut object, patch);
        let body = serde_json::to_vec(&object).map_err(kube::Error::SerdeError)?;
        let (request, params) = (Request::new(target.collection_path()), PostParams::default());
        let request = match subresource {
            Some(subresource) => request.replace_subresource(subresource, &target.name, &params, body),
            None => request.replace(&target.name, &params, body),
        };
        self.client.request(request.map_err(kube::Error::BuildRequest)?).await
    }

    /// Only metadata of the answer is looked at.
    async fn require_live(&self, target: &Target, uid: &str) -> Result<(), Stop> {
        match self.get(target).await {
            Ok(Some(object)) if object["metadata"]["uid"] == uid && object["metadata"]["deletionTimestamp"].is_null() => Ok(()),
            Ok(_) => Err(Stop::Stale),
            Err(error) => Err(Stop::Unreachable(error.to_string())),
        }
    }

    /// Whether an access review says yes.
    async fn allowed(&self, review: &Value) -> kube::Result<bool> {
        let body = serde_json::to_vec(review).map_err(kube::Error::SerdeError)?;
        let request = Request::new("/apis/authorization.k8s.io/v1/subjectaccessreviews").create(&PostParams::default(), body);
        let answer: Value = self.client.request(request.map_err(kube::Error::BuildRequest)?).await?;
        Ok(answer["status"]["allowed"] == true)
    }

    async fn require_absent(&self, target: &Target) -> Result<(), Stop> {
        match self.get(target).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(Stop::Stale),
            Err(error) => Err(Stop::Unreachable(error.to_string())),
        }
    }

    /// A live read.
    pub async fn get(&self, target: &Target) -> kube::Result<Option<Value>> {
        let request = Request::new(target.collection_path()).get(&target.name, &kube::core::params::GetParams::default());
        match self.client.request(request.map_err(kube::Error::BuildRequest)?).await {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn record(&self, event: &Event, error: Option<&str>) {
        self.recorder.record(Happening {
            regarding: event.regarding.clone(),
            related: None,
            event_type: if event.warning { EventType::Warning } else { EventType::Normal },
            reason: event.reason.clone(),
            action: event.reason.clone(),
            note: error.map_or_else(|| event.message.clone(), |error| event.message.replace("{}", error)),
        });
    }
}

fn policy(name: &str) -> PropagationPolicy {
    match name {
        "Orphan" => PropagationPolicy::Orphan,
        "Foreground" => PropagationPolicy::Foreground,
        _ => PropagationPolicy::Background,
    }
}

/// A conflict, a name that is taken, or an object that is gone: the caches know better in a moment.
fn is_stale(status: &kube::core::Status) -> bool {
    status.code == 409 || status.code == 404
}

fn is_namespace_terminating(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}
