//! A work queue: a key is in it at most once, is worked on by one worker at a time, and waits longer after each failure.
//! Synchronous; time is an argument.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::meter::Meter;

/// First and longest wait after failures, as upstream's `ItemExponentialFailureRateLimiter`.
const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_secs(1000);

#[derive(Debug)]
pub struct Queue<K> {
    ready: VecDeque<K>,
    waiting: BTreeSet<K>,
    running: BTreeSet<K>,
    /// Changed while it was worked on.
    dirty: BTreeSet<K>,
    delayed: BTreeSet<(Instant, K)>,
    due: BTreeMap<K, Instant>,
    failures: BTreeMap<K, u32>,
    meter: Option<Meter<K>>,
}

impl<K: Ord + Clone> Queue<K> {
    pub fn new() -> Self {
        Self {
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            running: BTreeSet::new(),
            dirty: BTreeSet::new(),
            delayed: BTreeSet::new(),
            due: BTreeMap::new(),
            failures: BTreeMap::new(),
            meter: None,
        }
    }

    /// The same, counted under a name.
    pub fn metered(name: &str, registry: Option<&Arc<client::Registry>>) -> Self {
        Self { meter: registry.map(|registry| Meter::new(name, registry)), ..Self::new() }
    }

    pub fn add(&mut self, key: K) {
        if self.running.contains(&key) {
            self.dirty.insert(key);
        } else if self.waiting.insert(key.clone()) {
            if let Some(meter) = &mut self.meter {
                meter.added(&key);
            }
            self.ready.push_back(key);
        }
    }

    /// Adds a key at a time; the earliest of several wins.
    pub fn add_at(&mut self, key: K, at: Instant) {
        if let Some(before) = self.due.get(&key) {
            if *before <= at {
                return;
            }
            self.delayed.remove(&(*before, key.clone()));
        }
        self.due.insert(key.clone(), at);
        self.delayed.insert((at, key));
    }

    /// The next key to work on, if any is ready.
    pub fn start(&mut self, now: Instant) -> Option<K> {
        while let Some((at, key)) = self.delayed.first().cloned() {
            if at > now {
                break;
            }
            self.delayed.remove(&(at, key.clone()));
            self.due.remove(&key);
            self.add(key);
        }
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.running.insert(key.clone());
        if let Some(meter) = &mut self.meter {
            meter.started(&key);
        }
        Some(key)
    }

    /// Tells how long what is worked on has been.
    pub fn look(&mut self) {
        if let Some(meter) = &mut self.meter {
            meter.look();
        }
    }

    /// Whether [`Self::look`] has anything to tell now and then.
    pub fn is_watched(&self) -> bool {
        self.meter.as_ref().is_some_and(Meter::is_busy)
    }

    /// When to look again.
    pub fn next_due(&self) -> Option<Instant> {
        self.delayed.first().map(|(at, _)| *at)
    }

    /// Ends the work on a key. After a failure it comes again, later each time.
    pub fn finish(&mut self, key: K, failed: bool, again_at: Option<Instant>, now: Instant) {
        self.running.remove(&key);
        if let Some(meter) = &mut self.meter {
            meter.finished(&key, failed);
        }
        if failed {
            let failures = self.failures.entry(key.clone()).or_insert(0);
            let wait = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(*failures)).min(LONGEST_WAIT);
            *failures = failures.saturating_add(1);
            self.dirty.remove(&key);
            self.add_at(key, now + wait);
            return;
        }
        self.failures.remove(&key);
        if let Some(at) = again_at {
            self.add_at(key.clone(), at);
        }
        if self.dirty.remove(&key) {
            self.add(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_queued_once_and_worked_on_alone() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.start(now), Some("a"));
        queue.add("a");
        assert_eq!((queue.start(now), queue.start(now)), (Some("b"), None));
        queue.finish("a", false, None, now);
        assert_eq!((queue.start(now), queue.start(now)), (Some("a"), None));
    }

    #[tokio::test]
    async fn failures_wait_longer_each_time() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        queue.add("a");
        for wait in [5, 10, 20, 40] {
            let start = queue.next_due().unwrap_or(now);
            assert_eq!(queue.start(start), Some("a"));
            queue.finish("a", true, None, start);
            assert_eq!(queue.next_due(), Some(start + Duration::from_millis(wait)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_counted_under_upstreams_names() {
        let registry = Arc::new(client::Registry::new(&[client::metrics::ALL]));
        let mut queue = Queue::metered("deployment", Some(&registry));
        let has = |line: &str| {
            let (name, text) = (line.replace('{', "{name=\"deployment\""), registry.text());
            assert!(text.lines().any(|l| l == name), "{name}\n{text}");
        };
        queue.add("a");
        queue.add("b");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(queue.start(Instant::now()), Some("a"));
        tokio::time::advance(Duration::from_millis(500)).await;
        has("workqueue_depth{} 1");
        has("workqueue_adds_total{} 2");
        has("workqueue_queue_duration_seconds_sum{} 2");
        queue.finish("a", true, None, Instant::now());
        has("workqueue_work_duration_seconds_sum{} 0.5");
        has("workqueue_retries_total{} 1");
        assert_eq!(queue.start(Instant::now()), Some("b"));
        tokio::time::advance(Duration::from_secs(3)).await;
        queue.look();
        has("workqueue_unfinished_work_seconds{} 3");
        has("workqueue_longest_running_processor_seconds{} 3");
        queue.finish("b", false, None, Instant::now());
        queue.look();
        has("workqueue_longest_running_processor_seconds{} 0");
    }

    #[tokio::test]
    async fn the_earliest_delay_wins() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        let (soon, late) = (now + Duration::from_secs(1), now + Duration::from_secs(9));
        queue.add_at("a", late);
        queue.add_at("a", soon);
        queue.add_at("a", late);
        assert_eq!((queue.next_due(), queue.start(now), queue.start(soon), queue.start(late)), (Some(soon), None, Some("a"), None));
    }
}
