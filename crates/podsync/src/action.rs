//! What goes into and comes out of [`crate::Machine`]: events, actions, records (API Events) and the plan.
//! Data only.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde::Serialize;

use crate::observed::Observed;
use crate::probe::{ProbeKind, ProbeOutcome};

/// What the shell must do. Each long-running action is in flight until its `Event::Done` comes back; the machine
/// never issues it twice meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Action {
    /// Make the pod's directories and mount its volumes.
    PrepareVolumes,
    /// Find or pull the image of a container by its pull policy.
    EnsureImage {
        container: String,
    },
    CreateSandbox {
        attempt: u32,
    },
    StopSandbox {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
    /// Create and start an instance of a container. `attempt` is its restart count.
    StartContainer {
        container: String,
        sandbox: String,
        attempt: u32,
        image_id: String,
    },
    PostStart {
        container: String,
        id: String,
    },
    /// Run the preStop hook if told to, then stop within `grace_seconds` of now.
    StopContainer {
        container: String,
        id: String,
        grace_seconds: i64,
        pre_stop: bool,
    },
    RemoveContainer {
        id: String,
    },
    Probe {
        container: String,
        id: String,
        kind: ProbeKind,
        timeout_seconds: u32,
    },
    /// Unmount volumes and remove the pod's directories and cgroup; logs and dead containers stay.
    CleanUp,
    /// Write the final status, then delete the API object with grace 0 and its UID as precondition.
    DeletePod,
    /// Tell users. Never in flight.
    Record(Record),
    /// Nothing of the pod is left; the actor may end. Never in flight.
    Finished,
}

impl Action {
    /// Whether a `Done` will follow.
    pub fn is_operation(&self) -> bool {
        !matches!(self, Action::Record(_) | Action::Finished)
    }
}

/// An API Event about the pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Record {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
    /// The container it is about; its path becomes `involvedObject.fieldPath`.
    pub container: Option<String>,
}

/// Why an action failed: the waiting reason upstream shows and the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    pub reason: String,
    pub message: String,
}

impl Failure {
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Failure { reason: reason.to_owned(), message: message.into() }
    }
}

/// What happened. Each is fed to [`crate::Machine::handle`].
#[derive(Clone, Debug)]
pub enum Event {
    /// The API object is new or changed.
    Pod(Box<Pod>),
    /// The API object is gone.
    PodGone,
    /// The runtime's view of the pod.
    Observed(Observed),
    /// An action ended. `Ok` carries its product: the image ID for `EnsureImage`, the ID for `StartContainer`.
    Done {
        action: Action,
        result: Result<String, Failure>,
    },
    Probed {
        container: String,
        id: String,
        kind: ProbeKind,
        outcome: ProbeOutcome,
    },
    /// Kill the pod and leave it Failed: eviction, preemption, node shutdown.
    Evict {
        reason: String,
        message: String,
        grace_seconds: Option<i64>,
    },
    /// The object a container waits for (ConfigMap, Secret) changed: retry now.
    Retry,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub status: PodStatus,
    /// When to plan again if nothing happens before.
    pub wake_at: Option<Timestamp>,
}

/// Defaults upstream uses.
pub const BACKOFF_INITIAL: Duration = Duration::from_secs(10);
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);
