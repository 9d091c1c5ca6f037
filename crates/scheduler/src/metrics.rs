//! What the scheduler counts, by upstream's names. Called by its state; without a registry nothing is counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::Registry;
use k8s_openapi::jiff::Timestamp;
use scheduling::queue::{Queued, Sizes};
use tokio::time::Instant;

telemetry::metrics_table! {
    ATTEMPTS Counter STABLE "scheduler_schedule_attempts_total"
        ["profile" "result"] []
        "Attempts to schedule pods by result."
    ATTEMPT_DURATION Histogram STABLE "scheduler_scheduling_attempt_duration_seconds"
        ["profile" "result"] [0.001 0.002 0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1.024 2.048 4.096 8.192 16.384]
        "Time of an attempt, with its binding."
    ALGORITHM_DURATION Histogram ALPHA "scheduler_scheduling_algorithm_duration_seconds"
        [] [0.001 0.002 0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1.024 2.048 4.096 8.192 16.384]
        "Time to decide."
    POD_ATTEMPTS Histogram STABLE "scheduler_pod_scheduling_attempts"
        [] [1.0 2.0 4.0 8.0 16.0]
        "Attempts a pod took to be scheduled."
    POD_DURATION Histogram BETA "scheduler_pod_scheduling_sli_duration_seconds"
        ["attempts"] [0.01 0.02 0.04 0.08 0.16 0.32 0.64 1.28 2.56 5.12 10.24 20.48 40.96 81.92 163.84 327.68 655.36 1310.72 2621.44 5242.88]
        "Time from when a pod came into the queue until it was bound."
    PENDING Gauge STABLE "scheduler_pending_pods"
        ["queue"] []
        "Pods that wait, by where."
    INCOMING Counter STABLE "scheduler_queue_incoming_pods_total"
        ["event" "queue"] []
        "Pods that came into a queue."
    PREEMPTIONS Counter STABLE "scheduler_preemption_attempts_total"
        [] []
        "Attempts to make room for a pod."
    VICTIMS Histogram STABLE "scheduler_preemption_victims"
        [] [1.0 2.0 4.0 8.0 16.0 32.0 64.0]
        "Pods chosen to make room for one."
    CACHE Gauge ALPHA "scheduler_cache_size"
        ["type"] []
        "Nodes, pods and assumed pods that are known."
}

/// The counters of one scheduler.
#[derive(Default)]
pub struct Meter {
    registry: Option<Arc<Registry>>,
    profile: String,
    /// Pods that are being bound, and since when.
    attempts: BTreeMap<String, Instant>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Result {
    Scheduled,
    Unschedulable,
    Error,
}

impl Meter {
    pub fn new(registry: Option<Arc<Registry>>, profile: &str) -> Self {
        Self { registry, profile: profile.to_owned(), attempts: BTreeMap::new() }
    }

    /// A decision was made; of one that places the pod, the attempt goes on until it is bound.
    pub fn decided(&mut self, key: &str, result: Result, began: Instant) {
        let Some(registry) = &self.registry else { return };
        registry.observe(&ALGORITHM_DURATION, &[], began.elapsed().as_secs_f64());
        if result == Result::Scheduled {
            self.attempts.insert(key.to_owned(), began);
            return;
        }
        self.ended(result, began);
        if result == Result::Unschedulable {
            self.came("ScheduleAttemptFailure", "unschedulable");
        }
    }

    fn ended(&self, result: Result, began: Instant) {
        let Some(registry) = &self.registry else { return };
        let name = match result {
            Result::Scheduled => "scheduled",
            Result::Unschedulable => "unschedulable",
            Result::Error => "error",
        };
        registry.count(&ATTEMPTS, &[&self.profile, name]);
        registry.observe(&ATTEMPT_DURATION, &[&self.profile, name], began.elapsed().as_secs_f64());
    }

    /// A pod came into a queue.
    pub fn came(&self, event: &str, queue: &str) {
        if let Some(registry) = &self.registry {
            registry.count(&INCOMING, &[event, queue]);
        }
    }

    /// A pod of ours has its node. Told once, however often it is heard.
    pub fn bound(&mut self, key: &str, queued: Option<&Queued>, now: Timestamp) {
        let (Some(began), Some(registry)) = (self.attempts.remove(key), &self.registry) else { return };
        self.ended(Result::Scheduled, began);
        let Some(queued) = queued else { return };
        registry.observe(&POD_ATTEMPTS, &[], f64::from(queued.attempts));
        let attempts = if queued.attempts < 15 { queued.attempts.to_string() } else { "15+".to_owned() };
        registry.observe(&POD_DURATION, &[&attempts], now.duration_since(queued.since).as_secs_f64());
    }

    /// The binding failed, or the pod is gone.
    pub fn unbound(&mut self, key: &str, failed: bool) {
        if let Some(began) = self.attempts.remove(key)
            && failed
        {
            self.ended(Result::Error, began);
        }
    }

    pub fn preempted(&self, victims: usize) {
        let Some(registry) = &self.registry else { return };
        registry.count(&PREEMPTIONS, &[]);
        if victims > 0 {
            registry.observe(&VICTIMS, &[], victims as f64);
        }
    }

    pub fn sizes(&self, queue: &Sizes, gated: usize, nodes: usize, assumed: usize) {
        let Some(registry) = &self.registry else { return };
        for (name, size) in [("active", queue.active), ("backoff", queue.backoff), ("unschedulable", queue.parked), ("gated", gated)] {
            registry.set(&PENDING, &[name], size as f64);
        }
        for (name, size) in [("nodes", nodes), ("assumed_pods", assumed)] {
            registry.set(&CACHE, &[name], size as f64);
        }
    }
}
