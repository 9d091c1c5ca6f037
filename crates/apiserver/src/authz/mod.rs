//! May they: `system:masters` may everything, then the Node authorizer and RBAC, over state mirrored from the store.

pub mod escalation;
pub mod options;
#[cfg(test)]
mod tests;
mod webhook;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use auth::node::Graph;
use auth::rbac::{Policy, Rule, rules_of};
use auth::{Attributes, Decision, user};
use machinery::object::str_at;
use machinery::status::StatusError;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cache::members;
use crate::error::Result;
use crate::metrics::table;
use crate::mirror::{self, Progress, Sink};
use crate::registry::Registry;
use crate::reload;
use crate::state::Api;
use options::Mode;

/// The authorizers' state.
pub struct Authorizer {
    rbac: Arc<Mutex<PolicySink>>,
    /// Made of `rbac` when first asked for after a change.
    policy: Arc<ArcSwapOption<Policy>>,
    graph: Arc<Mutex<GraphSink>>,
    node_rules: Vec<Rule>,
    chain: ArcSwap<Vec<Step>>,
    /// Whether Node and RBAC were there at the start: a reload cannot add them.
    started_with: [bool; 2],
    config: Option<PathBuf>,
    reload: Option<Duration>,
    /// For those who ask other servers; set when the server is whole.
    api: OnceLock<Weak<Api>>,
    progress: Vec<Progress>,
    /// Those of them that feed the graph.
    graph_progress: Vec<Progress>,
}

/// One authorizer; the first with an opinion decides.
enum Step {
    Node,
    Rbac,
    Always(Decision),
    Webhook(Box<webhook::Webhook>),
}

impl Step {
    fn is_node(&self) -> bool {
        matches!(self, Self::Node)
    }

    fn is_rbac(&self) -> bool {
        matches!(self, Self::Rbac)
    }

    fn new(mode: Mode) -> Result<Self> {
        Ok(match mode {
            Mode::Node => Self::Node,
            Mode::Rbac => Self::Rbac,
            Mode::AlwaysAllow => Self::Always(Decision::Allow(String::new())),
            Mode::AlwaysDeny => Self::Always(Decision::NoOpinion("Everything is forbidden.".to_owned())),
            Mode::Webhook(options) => Self::Webhook(Box::new(webhook::Webhook::new(options)?)),
        })
    }
}

/// What the Node authorizer's graph is made of.
const GRAPH_KINDS: [(&str, &str); 4] =
    [("", "Pod"), ("", "PersistentVolume"), ("storage.k8s.io", "VolumeAttachment"), ("resource.k8s.io", "ResourceSlice")];
/// How far behind the graph may be.
const GRAPH_LAG: std::time::Duration = std::time::Duration::from_millis(100);
const RBAC_KINDS: [&str; 4] = ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];

impl Authorizer {
    /// Reads the state and spawns what keeps it current.
    pub async fn start(
        store: &Arc<dyn store::Store>,
        registry: &Registry,
        options: &options::Options,
        tasks: &mut JoinSet<()>,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let chain = options.chain()?.into_iter().map(Step::new).collect::<Result<Vec<Step>>>()?;
        let policy = Arc::new(ArcSwapOption::empty());
        let rbac = Arc::new(Mutex::new(PolicySink { objects: BTreeMap::new(), policy: policy.clone() }));
        let graph = Arc::new(Mutex::new(GraphSink::default()));
        let (mut progress, mut graph_progress) = (Vec::new(), Vec::new());
        for kind in RBAC_KINDS {
            let Some(row) = registry.kind("rbac.authorization.k8s.io", kind) else { continue };
            let prefix = format!("{}/", row.storage_prefix);
            let (reached, task) = mirror::start(store.clone(), prefix, rbac.clone(), cancel.clone()).await?;
            progress.push(reached);
            tasks.spawn(task);
        }
        for (group, kind) in GRAPH_KINDS {
            let Some(row) = registry.kind(group, kind) else { continue };
            let prefix = format!("{}/", row.storage_prefix);
            graph.lock().unwrap_or_else(PoisonError::into_inner).prefixes.push((prefix.clone(), kind));
            // Reading all pods is most of a start, and only nodes ask for what they say.
            let (reached, task) = mirror::start_later(store.clone(), prefix, graph.clone(), cancel.clone());
            graph_progress.push(reached.clone());
            progress.push(reached);
            tasks.spawn(task);
        }
        let node_role = auth::bootstrap::objects()
            .into_iter()
            .find(|o| str_at(o, "kind") == "ClusterRole" && str_at(o, "metadata.name") == "system:node");
        Ok(Self {
            rbac,
            policy,
            graph,
            node_rules: node_role.as_ref().map(rules_of).unwrap_or_default(),
            started_with: [chain.iter().any(Step::is_node), chain.iter().any(Step::is_rbac)],
            chain: ArcSwap::from_pointee(chain),
            config: options.config.clone(),
            reload: options.reload,
            api: OnceLock::new(),
            progress,
            graph_progress,
        })
    }

    /// Follows the file, where authorizers come from one. What a webhook said before is forgotten.
    pub async fn follow(api: Arc<Api>, cancel: CancellationToken) {
        let Some(path) = api.authorizer.config.clone() else { return };
        let metrics = [&table::AUTHORIZATION_RELOADS, &table::AUTHORIZATION_RELOADED];
        let file = reload::File { what: "authorization", path: path.clone(), every: api.authorizer.reload, metrics };
        reload::follow(api, file, cancel, |api, text| {
            let modes = options::read(text, &path)?;
            let chain = modes.into_iter().map(Step::new).collect::<Result<Vec<Step>>>().map_err(|e| e.to_string())?;
            let now = [("Node", chain.iter().any(Step::is_node)), ("RBAC", chain.iter().any(Step::is_rbac))];
            let added = now.into_iter().zip(api.authorizer.started_with).find(|((_, is), was)| *is && !was);
            if let Some(((name, _), _)) = added {
                return Err(format!("authorizer type {name} is not allowed if it was not enabled at initial server startup"));
            }
            api.authorizer.chain.store(Arc::new(chain));
            Ok(())
        })
        .await;
    }

    pub fn policy(&self) -> Arc<Policy> {
        if let Some(policy) = self.policy.load_full() {
            return policy;
        }
        // Under the lock, so that no change comes between the objects and what is made of them.
        let rbac = self.rbac.lock().unwrap_or_else(PoisonError::into_inner);
        let policy = Arc::new(Policy::new(rbac.objects.values()));
        self.policy.store(Some(policy.clone()));
        policy
    }

    /// After a write: returns when decisions take it into account.
    pub async fn caught_up(&self, key: &str, revision: store::Revision) {
        crate::mirror::caught_up(&self.progress, key, revision).await;
    }

    /// Lets authorizers reach other servers.
    pub fn attach(&self, api: &Arc<Api>) {
        if self.api.set(Arc::downgrade(api)).is_err() {
            tracing::error!("an authorizer was attached twice");
        }
    }

    /// What the whole chain says.
    pub async fn decide(&self, asked: &Attributes) -> Decision {
        if asked.user.in_group(user::SYSTEM_MASTERS) {
            return Decision::Allow(String::new());
        }
        let mut reasons = Vec::new();
        for step in self.chain.load_full().iter() {
            let decision = match step {
                Step::Node => self.by_node_soon(asked).await,
                Step::Rbac => self.policy().authorize(asked),
                Step::Always(decision) => decision.clone(),
                Step::Webhook(webhook) => match self.api.get().and_then(Weak::upgrade) {
                    Some(api) => webhook.decide(&api, asked).await,
                    None => Decision::Deny("the server is not whole".to_owned()),
                },
            };
            match decision {
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        reasons.retain(|r| !r.is_empty());
        Decision::NoOpinion(reasons.join("\n"))
    }

    /// A node may hear of a pod before the graph does: who is refused for want of a relationship is judged again as it grows,
    /// for a moment.
    async fn by_node_soon(&self, asked: &Attributes) -> Decision {
        let mut decision = self.by_node(asked).await;
        let mut mirrors = self.graph_progress.clone();
        let until = tokio::time::Instant::now() + GRAPH_LAG;
        while let Decision::NoOpinion(reason) = &decision
            && reason.starts_with("no relationship found")
            && !mirrors.is_empty()
        {
            let grown = futures::future::select_all(mirrors.iter_mut().map(|m| Box::pin(m.changed())));
            if tokio::time::timeout_at(until, grown).await.is_err() {
                break;
            }
            decision = self.by_node(asked).await;
        }
        decision
    }

    async fn by_node(&self, asked: &Attributes) -> Decision {
        if asked.user.as_node().is_none() {
            return Decision::NoOpinion(String::new());
        }
        for progress in &self.graph_progress {
            progress.read().await;
        }
        let graph = self.graph.lock().unwrap_or_else(PoisonError::into_inner);
        auth::node::authorize(&graph.graph, &self.node_rules, asked)
    }

    /// Whether every rule a user has can be listed: what others decide has none.
    pub fn is_enumerable(&self) -> bool {
        self.chain.load().iter().all(|step| matches!(step, Step::Node | Step::Rbac))
    }
}

/// `Ok`, or the 403.
pub async fn require(authorizer: &Authorizer, asked: &Attributes) -> Result<(), StatusError> {
    match authorizer.decide(asked).await {
        Decision::Allow(_) => Ok(()),
        Decision::NoOpinion(reason) | Decision::Deny(reason) => Err(asked.forbidden(&reason)),
    }
}

/// Who opens a stream into a pod by a WebSocket asks with GET, which a right to read must not allow: `create` is needed too.
pub async fn require_for_stream(authorizer: &Authorizer, asked: &Attributes, headers: &http::HeaderMap) -> Result<(), StatusError> {
    let streams = asked.group.is_empty()
        && asked.resource == "pods"
        && asked.verb == "get"
        && matches!(asked.subresource.as_str(), "exec" | "attach" | "portforward");
    let upgrades = headers.get(http::header::UPGRADE).is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !(streams && upgrades) {
        return Ok(());
    }
    require(authorizer, &Attributes { verb: "create".to_owned(), ..asked.clone() }).await
}

struct PolicySink {
    objects: BTreeMap<String, Value>,
    policy: Arc<ArcSwapOption<Policy>>,
}

impl Sink for PolicySink {
    fn apply(&mut self, key: &str, object: Option<&Value>) {
        match object {
            Some(object) => drop(self.objects.insert(key.to_owned(), object.clone())),
            None => drop(self.objects.remove(key)),
        }
    }

    fn settled(&mut self) {
        // A first start writes hundreds of roles one by one; nobody needs the policy between any two of them.
        self.policy.store(None);
    }

    fn decode(&self, bytes: &[u8], revision: store::Revision) -> Value {
        crate::codec::decode_without(bytes, revision, &["managedFields", "annotations"])
    }
}

#[derive(Default)]
struct GraphSink {
    graph: Graph,
    /// Which kind is under which prefix.
    prefixes: Vec<(String, &'static str)>,
}

/// What the graph may ask of an object under a known key, as it is stored.
fn relations(bytes: &[u8]) -> [&[u8]; 4] {
    let mut out: [&[u8]; 4] = [&[]; 4];
    for (key, value) in members(bytes) {
        match key {
            b"spec" => out[0] = value,
            b"metadata" => out[1] = members(value).find(|(key, _)| *key == b"annotations").map_or(&[], |(_, value)| value),
            b"status" => members(value).for_each(|(key, value)| match key {
                b"resourceClaimStatuses" => out[2] = value,
                b"extendedResourceClaimStatus" => out[3] = value,
                _ => {}
            }),
            _ => {}
        }
    }
    out
}

impl Sink for GraphSink {
    /// A pod's status is written many times over its life, and says next to nothing of what the pod may reach: making trees of
    /// all pods written was 7% of a status update.
    fn is_same(&self, before: &[u8], now: &[u8]) -> bool {
        relations(before) == relations(now)
    }

    /// Pods are written all the time, and most of what is written says nothing of what they may reach.
    fn decode(&self, bytes: &[u8], revision: store::Revision) -> Value {
        const UNUSED: [&str; 4] = ["managedFields", "conditions", "containerStatuses", "initContainerStatuses"];
        crate::codec::decode_without(bytes, revision, &UNUSED)
    }

    fn apply(&mut self, key: &str, object: Option<&Value>) {
        let graph = &mut self.graph;
        let Some(object) = object else {
            let mut parts = key.rsplit('/');
            let (name, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            match self.prefixes.iter().find(|(prefix, _)| key.starts_with(prefix)).map(|(_, kind)| *kind) {
                Some("Pod") => graph.remove_pod(namespace, name),
                Some("PersistentVolume") => graph.remove_volume(name),
                Some("VolumeAttachment") => graph.remove_attachment(name),
                Some("ResourceSlice") => graph.remove_slice(name),
                _ => {}
            }
            return;
        };
        match str_at(object, "kind") {
            "Pod" => graph.set_pod(object),
            "PersistentVolume" => graph.set_volume(object),
            "VolumeAttachment" => graph.set_attachment(object),
            "ResourceSlice" => graph.set_slice(object),
            _ => {}
        }
    }

    fn settled(&mut self) {}
}
