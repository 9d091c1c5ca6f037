//! Pods that wait to be scheduled: ready by priority, backing off, or parked until the cluster changes in their favour.
//! Upstream's SchedulingQueue with queueing hints reduced to what each plugin's row says may help it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::plugins::{PLUGINS, Wake};
use crate::pod::PodInfo;

/// Upstream's `podInitialBackoffSeconds` and `podMaxBackoffSeconds`.
pub const BACKOFF_FIRST: SignedDuration = SignedDuration::from_secs(1);
pub const BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(10);
/// A parked pod is tried again after this long whatever happens (`podMaxInUnschedulablePodsDuration`).
const PARKED_MAX: SignedDuration = SignedDuration::from_mins(5);

/// A pod and how its attempts went.
#[derive(Clone, Debug)]
pub struct Queued {
    pub pod: Arc<PodInfo>,
    pub attempts: u32,
    /// When it came into the queue.
    pub since: Timestamp,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Active(ActiveKey),
    Backoff(Timestamp),
    /// Turned down by these plugins (names), at this time.
    Parked {
        by: BTreeSet<&'static str>,
        at: Timestamp,
    },
    /// Handed out; an attempt is under way. Holds what happened meanwhile.
    InFlight {
        woken_by: Vec<Wake>,
    },
}

/// How many pods wait, by where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub active: usize,
    pub backoff: usize,
    pub parked: usize,
}

/// Higher priority first, then first come, then by name.
type ActiveKey = (Reverse<i32>, Timestamp, String);

/// The queue. Keys are `namespace/name`.
#[derive(Debug, Default)]
pub struct Queue {
    pods: BTreeMap<String, Queued>,
    active: BTreeSet<ActiveKey>,
    backoff: BTreeSet<(Timestamp, String)>,
    /// Since when.
    parked: BTreeSet<(Timestamp, String)>,
    in_flight: BTreeSet<String>,
}

impl Queue {
    /// Adds a pod, or takes over its newer form. A change of the pod itself ends its parking.
    pub fn add(&mut self, pod: Arc<PodInfo>, now: Timestamp) {
        let key = pod.key();
        let Some(known) = self.pods.get_mut(&key) else {
            let place = Place::Parked { by: BTreeSet::new(), at: now };
            self.pods.insert(key.clone(), Queued { pod, attempts: 0, since: now, place });
            self.activate(&key);
            return;
        };
        let changed = known.pod.uid() != pod.uid() || known.pod.pod.spec != pod.pod.spec || known.pod.labels() != pod.labels();
        known.pod = pod;
        if changed && matches!(known.place, Place::Parked { .. }) {
            self.activate(&key);
        }
    }

    pub fn remove(&mut self, key: &str) {
        if let Some(queued) = self.pods.remove(key) {
            self.leave(key, &queued.place);
        }
    }

    /// What is known of a pod that waits or is tried.
    pub fn get(&self, key: &str) -> Option<&Queued> {
        self.pods.get(key)
    }

    pub fn sizes(&self) -> Sizes {
        Sizes { active: self.active.len(), backoff: self.backoff.len(), parked: self.parked.len() }
    }

    pub fn contains(&self, key: &str) -> bool {
        self.pods.contains_key(key)
    }

    pub fn len(&self) -> usize {
        self.pods.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Takes the next pod to try. It stays known, in flight, until `done`, `park` or `retry`.
    pub fn pop(&mut self, now: Timestamp) -> Option<Queued> {
        self.flush(now);
        let (_, _, key) = self.active.pop_first()?;
        let queued = self.pods.get_mut(&key)?;
        queued.attempts += 1;
        queued.place = Place::InFlight { woken_by: Vec::new() };
        self.in_flight.insert(key);
        Some(queued.clone())
    }

    /// When `pop` may next have something, if nothing else happens.
    pub fn next_at(&self) -> Option<Timestamp> {
        let parked = self.parked.first().and_then(|(at, _)| at.checked_add(PARKED_MAX).ok());
        self.backoff.first().map(|(at, _)| *at).into_iter().chain(parked).min()
    }

    /// The pod has a node.
    pub fn done(&mut self, key: &str) {
        self.remove(key);
    }

    /// Nothing fits; these plugins say so. It comes back when something they care about happens, at once if it already did.
    pub fn park(&mut self, key: &str, by: BTreeSet<&'static str>, now: Timestamp) {
        let Some(queued) = self.pods.get_mut(key) else { return };
        let Place::InFlight { woken_by } = &queued.place else { return };
        let helped = woken_by.iter().any(|w| wakes(&by, *w));
        queued.place = Place::Parked { by, at: now };
        self.in_flight.remove(key);
        self.parked.insert((now, key.to_owned()));
        if helped {
            self.back_off(key, now);
        }
    }

    /// Something failed on the way; it comes back after its backoff.
    pub fn retry(&mut self, key: &str, now: Timestamp) {
        if self.pods.contains_key(key) {
            self.back_off(key, now);
        }
    }

    /// The cluster changed: wakes the parked pods that it may help.
    pub fn wake(&mut self, what: Wake, now: Timestamp) {
        let mut woken = Vec::new();
        for (_, key) in &self.parked {
            if let Some(Queued { place: Place::Parked { by, .. }, .. }) = self.pods.get(key)
                && wakes(by, what)
            {
                woken.push(key.clone());
            }
        }
        for key in &self.in_flight {
            if let Some(Queued { place: Place::InFlight { woken_by }, .. }) = self.pods.get_mut(key)
                && !woken_by.contains(&what)
            {
                woken_by.push(what);
            }
        }
        for key in woken {
            self.back_off(&key, now);
        }
    }

    fn leave(&mut self, key: &str, place: &Place) {
        match place {
            Place::Active(active) => {
                self.active.remove(active);
            }
            Place::Backoff(at) => {
                self.backoff.remove(&(*at, key.to_owned()));
            }
            Place::Parked { at, .. } => {
                self.parked.remove(&(*at, key.to_owned()));
            }
            Place::InFlight { .. } => {
                self.in_flight.remove(key);
            }
        }
    }

    fn activate(&mut self, key: &str) {
        let Some(queued) = self.pods.get_mut(key) else { return };
        let active = (Reverse(queued.pod.priority()), queued.since, key.to_owned());
        let before = std::mem::replace(&mut queued.place, Place::Active(active.clone()));
        self.leave(key, &before);
        self.active.insert(active);
    }

    fn back_off(&mut self, key: &str, now: Timestamp) {
        let Some(queued) = self.pods.get_mut(key) else { return };
        // A pod counts its backoff from its last attempt; one that has been parked for longer may go at once.
        let from = match &queued.place {
            Place::Parked { at, .. } => *at,
            _ => now,
        };
        let doublings = queued.attempts.saturating_sub(1).min(8);
        let wait = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MAX);
        let until = from.checked_add(wait).unwrap_or(Timestamp::MAX);
        if until <= now {
            self.activate(key);
            return;
        }
        let before = std::mem::replace(&mut queued.place, Place::Backoff(until));
        self.leave(key, &before);
        self.backoff.insert((until, key.to_owned()));
    }

    fn flush(&mut self, now: Timestamp) {
        while let Some((until, key)) = self.backoff.first().cloned().filter(|(until, _)| *until <= now) {
            self.backoff.remove(&(until, key.clone()));
            self.activate(&key);
        }
        let too_long = |at: &Timestamp| at.checked_add(PARKED_MAX).is_ok_and(|t| t <= now);
        let stale: Vec<String> = self.parked.iter().take_while(|(at, _)| too_long(at)).map(|(_, key)| key.clone()).collect();
        for key in stale {
            self.activate(&key);
        }
    }
}

/// Whether an event may help a pod that these plugins turned down; none named: anything may.
fn wakes(by: &BTreeSet<&'static str>, what: Wake) -> bool {
    by.is_empty() || PLUGINS.iter().any(|p| by.contains(p.name) && p.wakes.contains(&what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Pod, PodSpec};

    fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
        let mut pod = Pod { spec: Some(PodSpec { priority: Some(priority), ..PodSpec::default() }), ..Pod::default() };
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.namespace = Some("default".to_owned());
        Arc::new(PodInfo::new(Arc::new(pod)))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn popped(queue: &mut Queue, now: i64) -> Option<String> {
        queue.pop(at(now)).map(|q| q.pod.name().to_owned())
    }

    #[test]
    fn priority_then_arrival() {
        let mut queue = Queue::default();
        for (name, priority, second) in [("late", 0, 2), ("early", 0, 1), ("vip", 9, 3)] {
            queue.add(pod(name, priority), at(second));
        }
        assert_eq!(popped(&mut queue, 4).as_deref(), Some("vip"));
        assert_eq!(popped(&mut queue, 4).as_deref(), Some("early"));
        assert_eq!(popped(&mut queue, 4).as_deref(), Some("late"));
        assert_eq!(popped(&mut queue, 4), None);
    }

    #[test]
    fn a_parked_pod_waits_for_what_helps_it() {
        let mut queue = Queue::default();
        queue.add(pod("a", 0), at(0));
        assert!(popped(&mut queue, 0).is_some());
        queue.park("default/a", BTreeSet::from(["NodeResourcesFit"]), at(0));
        queue.wake(Wake::Labels, at(20));
        assert_eq!(popped(&mut queue, 20), None);
        queue.wake(Wake::PodGone, at(20));
        assert_eq!(popped(&mut queue, 20).as_deref(), Some("a"));
    }

    #[test]
    fn what_helps_during_an_attempt_is_not_missed() {
        let mut queue = Queue::default();
        queue.add(pod("a", 0), at(0));
        assert!(popped(&mut queue, 0).is_some());
        queue.wake(Wake::Node, at(0));
        queue.park("default/a", BTreeSet::from(["NodeResourcesFit"]), at(0));
        assert_eq!(popped(&mut queue, 0), None);
        assert_eq!(queue.next_at(), Some(at(1)));
        assert_eq!(popped(&mut queue, 1).as_deref(), Some("a"));
    }

    #[test]
    fn backoff_doubles_to_ten_seconds() {
        let mut queue = Queue::default();
        queue.add(pod("a", 0), at(0));
        let mut now = 0;
        for wait in [1, 2, 4, 8, 10, 10] {
            assert!(popped(&mut queue, now).is_some());
            queue.retry("default/a", at(now));
            assert_eq!(queue.next_at(), Some(at(now + wait)));
            now += wait;
        }
    }

    #[test]
    fn a_parked_pod_is_tried_again_after_five_minutes() {
        let mut queue = Queue::default();
        queue.add(pod("a", 0), at(0));
        assert!(popped(&mut queue, 0).is_some());
        queue.park("default/a", BTreeSet::from(["NodeAffinity"]), at(0));
        assert_eq!(popped(&mut queue, 299), None);
        assert_eq!(popped(&mut queue, 300).as_deref(), Some("a"));
    }

    /// Whatever is done to it, the indexes agree with the places of the pods.
    fn check(queue: &Queue) {
        let count = |f: fn(&Place) -> bool| queue.pods.values().filter(|q| f(&q.place)).count();
        assert_eq!(queue.active.len(), count(|p| matches!(p, Place::Active(_))));
        assert_eq!(queue.backoff.len(), count(|p| matches!(p, Place::Backoff(_))));
        assert_eq!(queue.parked.len(), count(|p| matches!(p, Place::Parked { .. })));
        assert_eq!(queue.in_flight.len(), count(|p| matches!(p, Place::InFlight { .. })));
    }

    proptest::proptest! {
        #[test]
        fn indexes_agree(steps in proptest::collection::vec((0..7u8, 0..4u8, 0..400i64), 1..60)) {
            let mut queue = Queue::default();
            let mut now = 0;
            for (step, which, later) in steps {
                now += later;
                let key = format!("default/{which}");
                match step {
                    0 => queue.add(pod(&which.to_string(), i32::from(which)), at(now)),
                    1 => queue.remove(&key),
                    2 => drop(queue.pop(at(now))),
                    3 => queue.park(&key, BTreeSet::from(["NodeResourcesFit"]), at(now)),
                    4 => queue.retry(&key, at(now)),
                    5 => queue.wake(Wake::PodGone, at(now)),
                    _ => queue.done(&key),
                }
                check(&queue);
            }
        }
    }
}
