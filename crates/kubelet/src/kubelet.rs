//! `Kubelet::run`: makes what the node's parts share, starts them, and gives each pod its worker.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::{Client, EventRecorder, EventType, Happening, Informer, Informers, Scope};
use cri::{Clients, v1};
use k8s_openapi::api::core::v1::{Node as ApiNode, ObjectReference, Pod, Service};
use kube::Resource;
use podsync::Record;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::objects::Objects;
use crate::pleg::{self, Seen};
use crate::worker::{self, Message};
use crate::{Error, gc, labels, node, server};

/// Messages that may wait for one pod's worker.
const QUEUE_LENGTH: usize = 64;

/// What the parts of a running kubelet share.
pub struct Node {
    pub config: Config,
    pub cri: Clients,
    pub client: Client,
    pub recorder: EventRecorder,
    pub objects: Objects,
    pub services: Informer<Service>,
    pub pods: Informer<Pod>,
    pub runtime_name: String,
    pub runtime_version: String,
    pub memory_bytes: i64,
    pub allocatable_milli: BTreeMap<String, i64>,
    pub ips: Vec<String>,
    /// When the manager last went round: what /healthz/syncloop looks at.
    pub last_sync: Mutex<std::time::Instant>,
}

impl Node {
    /// Records an API Event about a pod.
    pub fn record(&self, pod: &Pod, record: &Record) {
        let mut regarding = pod.object_ref(&());
        regarding.field_path = record.container.as_ref().map(|name| {
            let init = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten()).any(|c| c.name == *name);
            format!("spec.{}{{{name}}}", if init { "initContainers" } else { "containers" })
        });
        self.recorder.record(Happening {
            regarding,
            related: None,
            event_type: if record.warning { EventType::Warning } else { EventType::Normal },
            reason: record.reason.to_owned(),
            action: String::new(),
            note: record.message.clone(),
        });
    }

    /// Records an API Event about the node.
    pub fn record_node(&self, warning: bool, reason: &str, message: String) {
        let name = self.config.node_name.clone();
        let regarding = ObjectReference {
            kind: Some(ApiNode::kind(&()).into_owned()),
            name: Some(name.clone()),
            uid: Some(name),
            ..ObjectReference::default()
        };
        let event_type = if warning { EventType::Warning } else { EventType::Normal };
        self.recorder.record(Happening {
            regarding,
            related: None,
            event_type,
            reason: reason.to_owned(),
            action: String::new(),
            note: message,
        });
    }
}

/// The kubelet of one node.
pub struct Kubelet;

struct Handle {
    sender: mpsc::Sender<Message>,
    namespace: String,
    name: String,
}

struct Manager {
    node: Arc<Node>,
    workers: BTreeMap<String, Handle>,
    tasks: JoinSet<String>,
    cancel: CancellationToken,
}

impl Kubelet {
    /// Runs until `cancel`; pods run on after it. `runtime` is the CRI socket's path. `informers` may be shared with
    /// other components of the process.
    pub async fn run(
        config: Config,
        client: Client,
        informers: Informers,
        runtime: impl AsRef<Path>,
        cancel: CancellationToken,
    ) -> Result<(), Error> {
        let connected = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            connected = connect(runtime.as_ref()) => connected,
        };
        let (cri, version) = connected;
        for dir in [config.root_dir.join("pods"), config.pod_logs_dir.clone()] {
            std::fs::create_dir_all(&dir).map_err(Error::io(format!("make {}", dir.display())))?;
        }
        let facts = node::facts(&config);
        let clock = client::Clock::System;
        let node = Arc::new(Node {
            recorder: EventRecorder::legacy(client.clone(), "kubelet", &config.node_name, clock),
            objects: Objects::new(client.clone()),
            services: informers.of::<Service>(Scope::all()),
            pods: informers.of::<Pod>(Scope::all().with_fields(&format!("spec.nodeName={}", config.node_name))),
            runtime_name: version.runtime_name,
            runtime_version: version.runtime_version,
            memory_bytes: facts.memory_bytes,
            allocatable_milli: facts.allocatable_milli(),
            ips: config.node_ips.iter().map(ToString::to_string).collect(),
            last_sync: Mutex::new(std::time::Instant::now()),
            config,
            cri,
            client,
        });
        let mut parts: JoinSet<Result<(), Error>> = JoinSet::new();
        if node.config.server.is_some() {
            let serving = server::bind(node.clone()).await?;
            parts.spawn(serving.run(cancel.clone()));
        }
        parts.spawn(node::keep_status(node.clone(), facts, cancel.clone()));
        parts.spawn(node::keep_lease(node.clone(), cancel.clone()));
        parts.spawn(gc::keep_tidy(node.clone(), cancel.clone()));
        let manager = Manager { node, workers: BTreeMap::new(), tasks: JoinSet::new(), cancel: cancel.clone() };
        let result = tokio::select! {
            biased;
            result = manager.run() => result,
            Some(ended) = parts.join_next() => match ended {
                Ok(result) => result,
                Err(error) => Err(Error::Server(error.to_string())),
            },
        };
        cancel.cancel();
        while parts.join_next().await.is_some() {}
        result
    }
}

async fn connect(path: &Path) -> (Clients, v1::VersionResponse) {
    loop {
        match cri::connect(path).await {
            Ok(clients) => match clients.runtime.clone().version(v1::VersionRequest { version: String::new() }).await {
                Ok(answer) => return (clients, answer.into_inner()),
                Err(status) => tracing::warn!(error = status.message(), "the container runtime does not answer; trying again"),
            },
            Err(error) => tracing::warn!(%error, "waiting for the container runtime"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Manager {
    async fn run(mut self) -> Result<(), Error> {
        let mut changes = self.node.pods.subscribe();
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Ok(()),
            synced = self.node.pods.synced() => synced?,
        }
        while let Some(change) = changes.try_next() {
            self.changed(change).await;
        }
        // Only now can a sandbox without a pod be told from one whose pod is not yet known.
        let (sender, mut seen) = mpsc::channel(256);
        let mut watching = JoinSet::new();
        watching.spawn(pleg::watch(self.node.cri.clone(), sender, self.cancel.clone()));
        let mut beat = tokio::time::interval(Duration::from_secs(30));
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => break,
                change = changes.next() => self.changed(change).await,
                Some(seen) = seen.recv() => self.seen(seen).await,
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => match ended {
                    Ok(uid) => { self.workers.remove(&uid); }
                    Err(error) => {
                        tracing::error!(%error, "a pod's worker failed; it is started anew");
                        self.revive();
                    }
                },
                _ = beat.tick() => {}
            }
            *self.node.last_sync.lock().unwrap_or_else(PoisonError::into_inner) = std::time::Instant::now();
        }
        while self.tasks.join_next().await.is_some() {}
        while watching.join_next().await.is_some() {}
        Ok(())
    }

    async fn changed(&mut self, change: client::Change<Pod>) {
        let uid_of = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        // A name may have gone to another pod between two looks.
        let uid = change.new.as_ref().map(|p| uid_of(p));
        let replaced: Vec<String> = self
            .workers
            .iter()
            .filter(|(u, h)| h.namespace == *change.key.namespace && h.name == *change.key.name && Some(*u) != uid.as_ref())
            .map(|(u, _)| u.clone())
            .collect();
        for old in replaced {
            self.tell(&old, Message::Gone).await;
        }
        let Some(pod) = change.new else { return };
        let uid = uid_of(&pod);
        if self.workers.contains_key(&uid) {
            self.tell(&uid, Message::Pod(pod)).await;
        } else {
            self.spawn(pod);
        }
    }

    fn spawn(&mut self, pod: Arc<Pod>) -> mpsc::Sender<Message> {
        let (namespace, name, uid) = labels::identity(&pod);
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        let handle = Handle { sender: sender.clone(), namespace: namespace.to_owned(), name: name.to_owned() };
        let uid = uid.to_owned();
        self.workers.insert(uid.clone(), handle);
        let (node, me, cancel) = (self.node.clone(), sender.clone(), self.cancel.clone());
        self.tasks.spawn(async move {
            worker::run(node, pod, receiver, me, cancel).await;
            uid
        });
        sender
    }

    /// Starts workers anew whose task ended by a bug.
    fn revive(&mut self) {
        self.workers.retain(|_, h| !h.sender.is_closed());
        for pod in self.node.pods.list() {
            if !self.workers.contains_key(labels::identity(&pod).2) {
                self.spawn(pod);
            }
        }
    }

    async fn tell(&mut self, uid: &str, message: Message) {
        if let Some(handle) = self.workers.get(uid)
            && handle.sender.send(message).await.is_err()
        {
            self.workers.remove(uid);
        }
    }

    async fn seen(&mut self, seen: Seen) {
        match seen {
            Seen::Changed(uid) => {
                if let Some(handle) = self.workers.get(&uid) {
                    // A full queue means it will look anyway.
                    if let Err(mpsc::error::TrySendError::Closed(_)) = handle.sender.try_send(Message::Runtime) {
                        self.workers.remove(&uid);
                    }
                }
            }
            Seen::Sandbox { uid, namespace, name } => {
                if self.workers.contains_key(&uid) {
                    return;
                }
                tracing::info!(%namespace, %name, %uid, "removing a sandbox whose pod is gone");
                let pod = serde_json::json!({"metadata": {"name": name, "namespace": namespace, "uid": uid}, "spec": {"containers": []}});
                match serde_json::from_value::<Pod>(pod) {
                    Ok(pod) => {
                        let sender = self.spawn(Arc::new(pod));
                        if sender.send(Message::Gone).await.is_err() {
                            self.workers.remove(&uid);
                        }
                    }
                    Err(error) => tracing::error!(%error, "an orphan's pod"),
                }
            }
        }
    }
}
