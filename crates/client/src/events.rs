//! Records events as upstream's components do: core/v1 with counting and aggregation for the kubelet and the controllers,
//! events.k8s.io/v1 with series for the scheduler.
//!
//! `record` never waits: a bounded queue feeds one task, and what does not fit is dropped and logged, because an event
//! is never worth stalling the work it tells of.

mod correlator;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::Request;
use kube::core::params::{Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::time::Clock;
use correlator::{Correlator, Step, Style};

/// Events that wait at most.
const QUEUE_LENGTH: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Something worth telling about an object.
#[derive(Clone, Debug)]
pub struct Happening {
    pub regarding: ObjectReference,
    pub related: Option<ObjectReference>,
    pub event_type: EventType,
    pub reason: String,
    /// What was done; only events.k8s.io/v1 has it.
    pub action: String,
    /// The human-readable text.
    pub note: String,
}

/// Cheap to clone; the task ends when the last clone is gone, after what was queued.
#[derive(Clone)]
pub struct EventRecorder {
    /// Boxed: the channel keeps room for 32 from the start, and there is one for each controller.
    queue: mpsc::Sender<Box<Happening>>,
    _task: Arc<Mutex<JoinSet<()>>>,
}

impl fmt::Debug for EventRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventRecorder")
    }
}

impl EventRecorder {
    /// In the style of events.k8s.io/v1: `component` is the reporting controller, `instance` the reporting instance.
    pub fn new(client: Client, component: &str, instance: &str, clock: Clock) -> Self {
        Self::start(client, Style::Series, component, instance, clock)
    }

    /// In the style of core/v1, as the kubelet and the controllers of upstream: `host` is empty where upstream leaves it so.
    pub fn legacy(client: Client, component: &str, host: &str, clock: Clock) -> Self {
        Self::start(client, Style::Counted, component, host, clock)
    }

    fn start(client: Client, style: Style, component: &str, instance: &str, clock: Clock) -> Self {
        let (queue, happenings) = mpsc::channel(QUEUE_LENGTH);
        let correlator = Correlator::new(style, component, instance);
        let mut tasks = JoinSet::new();
        tasks.spawn(run(client, correlator, happenings, clock));
        Self { queue, _task: Arc::new(Mutex::new(tasks)) }
    }

    pub fn record(&self, happening: Happening) {
        if let Err(error) = self.queue.try_send(Box::new(happening)) {
            tracing::warn!(%error, "an event was dropped");
        }
    }

    /// Records about a typed object.
    pub fn event<K: Resource<DynamicType: Default>>(&self, object: &K, event_type: EventType, reason: &str, action: &str, note: String) {
        let regarding = object.object_ref(&K::DynamicType::default());
        self.record(Happening { regarding, related: None, event_type, reason: reason.to_owned(), action: action.to_owned(), note });
    }

    /// Waits for nothing but ends the task at once, unsent events included.
    pub fn abort(&self) {
        self._task.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

async fn run(client: Client, mut correlator: Correlator, mut happenings: mpsc::Receiver<Box<Happening>>, clock: Clock) {
    while let Some(happening) = happenings.recv().await {
        let now = clock.now();
        let Some(step) = correlator.correlate(*happening, now) else { continue };
        send_and_remember(&client, &mut correlator, step).await;
    }
}

/// A patch of an event that has expired makes it anew, as upstream does.
async fn send_and_remember(client: &Client, correlator: &mut Correlator, step: Step) {
    let written = match &step {
        Step::Create { path, event, .. } => create(client, path, event).await,
        Step::Patch { path, name, patch, event, .. } => match update(client, path, name, patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => create(client, path, event).await,
            other => other,
        },
    };
    match written {
        Ok(event) => correlator.remember(&step, &event),
        Err(kube::Error::Api(status)) => {
            tracing::debug!(reason = status.reason, message = status.message, "the server rejected an event");
        }
        Err(error) => tracing::warn!(%error, "an event could not be written"),
    }
}

async fn create(client: &Client, path: &str, event: &Value) -> kube::Result<Value> {
    let body = serde_json::to_vec(event).map_err(kube::Error::SerdeError)?;
    let request = Request::new(path).create(&PostParams::default(), body).map_err(kube::Error::BuildRequest)?;
    client.request(request).await
}

async fn update(client: &Client, path: &str, name: &str, patch: &Value) -> kube::Result<Value> {
    let request = Request::new(path).patch(name, &PatchParams::default(), &Patch::Merge(patch)).map_err(kube::Error::BuildRequest)?;
    client.request(request).await
}
