//! What a runtime reports of one pod, in our own words: the shell translates CRI messages into these.
//! Not desired state, and not a cache.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Everything the runtime has of one pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Observed {
    pub sandboxes: Vec<ObservedSandbox>,
    pub containers: Vec<ObservedContainer>,
}

/// A pod sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedSandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at: Timestamp,
    #[serde(default)]
    pub ips: Vec<String>,
}

/// The state of a container as CRI knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunState {
    Created,
    Running,
    Exited,
    Unknown,
}

/// One instance (attempt) of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedContainer {
    pub id: String,
    pub sandbox_id: String,
    pub name: String,
    pub attempt: u32,
    pub state: RunState,
    pub created_at: Timestamp,
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
    #[serde(default)]
    pub exit_code: i32,
    #[serde(default)]
    pub reason: String,
    /// The termination message, or what the runtime said.
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub image: String,
    #[serde(default)]
    pub image_id: String,
    /// `io.kubernetes.container.hash` of the spec it was made from; empty when unknown.
    #[serde(default)]
    pub hash: String,
    /// uid, gid and supplemental groups of the first process, when the runtime tells.
    #[serde(default)]
    pub user: Option<(i64, i64, Vec<i64>)>,
    #[serde(default)]
    pub stop_signal: Option<String>,
}

impl Observed {
    /// The newest sandbox.
    pub fn sandbox(&self) -> Option<&ObservedSandbox> {
        self.sandboxes.iter().max_by_key(|s| (s.attempt, s.created_at))
    }

    /// The newest sandbox if it is ready.
    pub fn ready_sandbox(&self) -> Option<&ObservedSandbox> {
        self.sandbox().filter(|s| s.ready)
    }

    /// Instances of one container, newest first.
    pub fn instances(&self, name: &str) -> Vec<&ObservedContainer> {
        let mut all: Vec<_> = self.containers.iter().filter(|c| c.name == name).collect();
        all.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
        all
    }

    /// The newest instance of one container.
    pub fn newest(&self, name: &str) -> Option<&ObservedContainer> {
        self.containers.iter().filter(|c| c.name == name).max_by_key(|c| (c.attempt, c.created_at))
    }

    /// An instance by its ID.
    pub fn by_id(&self, id: &str) -> Option<&ObservedContainer> {
        self.containers.iter().find(|c| c.id == id)
    }

    /// Whether anything of this pod can still run.
    pub fn alive(&self) -> bool {
        self.sandboxes.iter().any(|s| s.ready) || self.containers.iter().any(|c| c.state == RunState::Running)
    }
}
