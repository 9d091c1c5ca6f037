//! One task per pod: turns messages into `podsync` events, plans, starts actions, writes the status. The task ends when
//! the pod has left nothing behind.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use podsync::probe::ProbeKind;
use podsync::{Action, Event, Machine, Plan, Settings};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::execute::{Shared, execute};
use crate::kubelet::Node;
use crate::objects::Watched;
use crate::observe::Observer;
use crate::{labels, probes, status};

/// How long after a change of the API object its status is compared with ours.
const RECONCILE: Duration = Duration::from_secs(1);

/// What others tell a worker.
#[derive(Debug)]
pub enum Message {
    Pod(Arc<Pod>),
    Gone,
    /// The runtime has news of this pod.
    Runtime,
    /// An object the pod reads has changed.
    Objects,
}

enum Ended {
    Action(Event),
    /// A status write: what the API server now has, None when the write failed.
    Status(Option<Box<PodStatus>>),
    Renewed,
    /// A watch of a referenced object; never ends by itself.
    Watch,
}

struct Worker {
    node: Arc<Node>,
    pod: Arc<Pod>,
    machine: Machine,
    shared: Arc<Shared>,
    observer: Observer,
    tasks: JoinSet<Ended>,
    /// The runtime must be looked at before the next plan; these events wait for it.
    stale: bool,
    waiting: Vec<Event>,
    written: PodStatus,
    wanted: Option<PodStatus>,
    writing: bool,
    write_retry: Option<Timestamp>,
    /// When to compare with what the API server has: somebody else may have written our fields. A moment after a change
    /// was seen, so that our own echoes have passed.
    reconcile_at: Option<Timestamp>,
    delete_after_write: bool,
    renewing: bool,
    gone: bool,
}

/// Runs until the pod is finished or `cancel`. On `cancel` the pod's containers run on.
pub async fn run(
    node: Arc<Node>,
    pod: Arc<Pod>,
    mut messages: mpsc::Receiver<Message>,
    me: mpsc::Sender<Message>,
    cancel: CancellationToken,
) {
    let settings = Settings { runtime: node.runtime_name.clone(), host_ips: node.ips.clone() };
    let mut w = Worker {
        machine: Machine::new((*pod).clone(), settings),
        written: pod.status.clone().unwrap_or_default(),
        node,
        pod,
        shared: Arc::default(),
        observer: Observer::default(),
        tasks: JoinSet::new(),
        stale: true,
        waiting: Vec::new(),
        wanted: None,
        writing: false,
        write_retry: None,
        reconcile_at: None,
        delete_after_write: false,
        renewing: false,
        gone: false,
    };
    // Held as long as the worker lives: others then share these watches.
    let held = w.node.objects.of_pod(&w.pod);
    for map in &held.0 {
        w.forward(map.clone(), &me);
    }
    for secret in &held.1 {
        w.forward(secret.clone(), &me);
    }
    loop {
        while let Ok(message) = messages.try_recv() {
            w.take(message);
        }
        let wake = match w.step().await {
            Step::Finished => return,
            Step::Wait(at) => at,
        };
        let pause = wake.map_or(Duration::from_secs(3600), |at| podsync::time::since(at, Timestamp::now()));
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            message = messages.recv() => match message {
                Some(message) => w.take(message),
                None => return,
            },
            Some(ended) = w.tasks.join_next(), if !w.tasks.is_empty() => match ended {
                Ok(ended) => w.ended(ended),
                Err(error) => tracing::error!(%error, "a task of a pod failed"),
            },
            () = tokio::time::sleep(pause + Duration::from_millis(1)) => {}
        }
    }
}

enum Step {
    Finished,
    Wait(Option<Timestamp>),
}

impl Worker {
    fn forward<K>(&mut self, watched: Arc<Watched<K>>, me: &mpsc::Sender<Message>)
    where
        K: client::Watchable + kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    {
        let me = me.downgrade();
        self.tasks.spawn(async move {
            let mut changes = watched.subscribe().await;
            loop {
                changes.next().await;
                let Some(me) = me.upgrade() else { break };
                if me.send(Message::Objects).await.is_err() {
                    break;
                }
            }
            Ended::Watch
        });
    }

    fn handle(&mut self, event: Event) {
        self.machine.handle(event, Timestamp::now());
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Pod(pod) => {
                self.pod = pod.clone();
                self.reconcile_at = Some(podsync::time::after(Timestamp::now(), RECONCILE));
                self.handle(Event::Pod(Box::new((*pod).clone())));
            }
            Message::Gone => {
                self.gone = true;
                self.handle(Event::PodGone);
            }
            Message::Runtime => self.stale = true,
            Message::Objects => {
                self.handle(Event::Retry);
                self.renew();
            }
        }
    }

    /// Brings volumes up to date, if they were made.
    fn renew(&mut self) {
        let prepared = !self.shared.prepared.lock().unwrap_or_else(PoisonError::into_inner).paths.is_empty();
        if !prepared || self.renewing || self.machine.is_ending() {
            return;
        }
        self.renewing = true;
        let (node, pod, shared) = (self.node.clone(), self.pod.clone(), self.shared.clone());
        self.tasks.spawn(async move {
            if let Err(failure) = execute(node, pod, shared, &Action::PrepareVolumes).await {
                tracing::info!(error = failure.message, "volumes could not be renewed yet");
            }
            Ended::Renewed
        });
    }

    fn ended(&mut self, ended: Ended) {
        match ended {
            Ended::Action(event) => {
                // The machine sees an action's effect before its end.
                self.stale |= matches!(&event, Event::Done { .. });
                self.waiting.push(event);
            }
            Ended::Status(result) => {
                self.writing = false;
                match result {
                    Some(written) => self.written = *written,
                    None => self.write_retry = Some(podsync::time::after(Timestamp::now(), Duration::from_secs(1))),
                }
            }
            Ended::Renewed => self.renewing = false,
            Ended::Watch => {}
        }
    }

    async fn step(&mut self) -> Step {
        if self.stale {
            let uid = labels::identity(&self.pod).2.to_owned();
            match self.observer.observe(&self.node.cri, &uid).await {
                Ok(observed) => {
                    self.stale = false;
                    let host = self.pod.spec.as_ref().and_then(|s| s.host_network) == Some(true);
                    let ips = if host { Some(self.node.ips.clone()) } else { observed.ready_sandbox().map(|s| s.ips.clone()) };
                    if let Some(ips) = ips {
                        *self.shared.ips.lock().unwrap_or_else(PoisonError::into_inner) = ips;
                    }
                    self.handle(Event::Observed(observed));
                }
                Err(error) => {
                    tracing::warn!(%error, "the runtime cannot be read; trying again");
                    return Step::Wait(Some(podsync::time::after(Timestamp::now(), Duration::from_millis(500))));
                }
            }
        }
        for event in std::mem::take(&mut self.waiting) {
            self.handle(event);
        }
        let Plan { actions, status, wake_at } = self.machine.plan(Timestamp::now());
        self.wanted = Some(status);
        for action in actions {
            match action {
                Action::Record(record) => self.node.record(&self.pod, &record),
                Action::Finished => {
                    self.forget().await;
                    return Step::Finished;
                }
                // The final status must be there before the object goes.
                Action::DeletePod => self.delete_after_write = true,
                action => self.start(action),
            }
        }
        if self.reconcile_at.is_some_and(|at| at <= Timestamp::now()) && !self.writing {
            self.reconcile_at = None;
            self.written = self.pod.status.clone().unwrap_or_default();
        }
        self.write();
        let renew_at = self.shared.prepared.lock().unwrap_or_else(PoisonError::into_inner).renew_at;
        if renew_at.is_some_and(|at| at <= Timestamp::now()) {
            self.renew();
        }
        let mut wake = podsync::time::earliest(wake_at, podsync::time::earliest(self.write_retry, self.reconcile_at));
        if !self.renewing {
            let floor = podsync::time::after(Timestamp::now(), Duration::from_secs(5));
            wake = podsync::time::earliest(wake, renew_at.map(|at| at.max(floor)));
        }
        Step::Wait(wake)
    }

    /// Removes the pod's logs and what else its name stands on.
    async fn forget(&self) {
        let (namespace, name, uid) = labels::identity(&self.pod);
        let logs = self.node.config.pod_log_dir(namespace, name, uid);
        if let Err(error) = tokio::fs::remove_dir_all(&logs).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %logs.display(), %error, "logs of a finished pod stay");
        }
    }

    fn start(&mut self, action: Action) {
        let (node, pod, shared) = (self.node.clone(), self.pod.clone(), self.shared.clone());
        if let Action::Probe { container, id, kind, timeout_seconds } = action {
            self.tasks.spawn(async move { Ended::Action(probe(&node, &pod, &shared, container, id, kind, timeout_seconds).await) });
            return;
        }
        self.tasks.spawn(async move {
            let result = execute(node, pod, shared, &action).await;
            Ended::Action(Event::Done { action, result })
        });
    }

    /// Writes the status if it differs from what was written, one write at a time; then the delete that waits for it.
    fn write(&mut self) {
        let due = self.write_retry.is_none_or(|at| at <= Timestamp::now());
        if self.writing || !due || self.gone {
            return;
        }
        self.write_retry = None;
        let Some(wanted) = self.wanted.clone() else { return };
        if status::patch(labels::identity(&self.pod).2, &self.written, &wanted).is_none() {
            if std::mem::take(&mut self.delete_after_write) {
                self.start(Action::DeletePod);
            }
            return;
        }
        self.writing = true;
        let (node, pod, old) = (self.node.clone(), self.pod.clone(), self.written.clone());
        self.tasks.spawn(async move {
            match status::write(&node.client, &pod, &old, &wanted).await {
                // Gone counts as written: its deletion comes through the watch.
                Ok(_) => Ended::Status(Some(Box::new(wanted))),
                Err(error) => {
                    tracing::warn!(%error, "a pod's status could not be written; trying again");
                    Ended::Status(None)
                }
            }
        });
    }
}

async fn probe(node: &Node, pod: &Pod, shared: &Shared, container: String, id: String, kind: ProbeKind, seconds: u32) -> Event {
    let ip = shared.ips.lock().unwrap_or_else(PoisonError::into_inner).first().cloned().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let c = spec.and_then(|s| s.containers.iter().chain(s.init_containers.iter().flatten()).find(|c| c.name == container));
    let outcome = match c.and_then(|c| kind.spec(c).map(|p| (c, p))) {
        Some((c, p)) => probes::run(node, &ip, c, &id, p, seconds).await,
        None => podsync::probe::ProbeOutcome::Error("missing probe handler".to_owned()),
    };
    Event::Probed { container, id, kind, outcome }
}
