//! The machines under the simulated nodes: some are cut off for a while, some are gone and come back empty.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

#[derive(Clone, Default)]
pub(crate) struct Hosts {
    troubles: Arc<Mutex<BTreeMap<usize, Trouble>>>,
    /// How pods have ended, by UID: containers end once, whatever the API was told of it.
    ended: Arc<Mutex<BTreeMap<String, &'static str>>>,
    /// Addresses given out on each node: a kubelet that is started again gives none of them anew.
    addresses: Arc<Mutex<BTreeMap<usize, u32>>>,
}

#[derive(Clone, Copy, Default)]
struct Trouble {
    until: Option<Instant>,
    /// Everything on it is gone.
    lost: bool,
}

impl Hosts {
    fn with<R>(&self, node: usize, change: impl FnOnce(&mut Trouble) -> R) -> R {
        change(self.troubles.lock().unwrap_or_else(PoisonError::into_inner).entry(node).or_default())
    }

    /// The number of the next address for a pod on a node.
    pub fn next_address(&self, node: usize) -> u32 {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let next = addresses.entry(node).or_default();
        *next += 1;
        *next
    }

    /// How a pod has ended: as it did before, or as it does now.
    pub fn end(&self, uid: &str, phase: &'static str) -> &'static str {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).entry(uid.to_owned()).or_insert(phase)
    }

    /// How a pod has ended, if it has.
    pub fn ended(&self, uid: &str) -> Option<&'static str> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).get(uid).copied()
    }

    pub fn silence(&self, node: usize, time: Duration) {
        self.with(node, |trouble| trouble.until = trouble.until.max(Some(Instant::now() + time)));
    }

    pub fn remove(&self, node: usize, time: Duration) {
        self.with(node, |trouble| *trouble = Trouble { until: trouble.until.max(Some(Instant::now() + time)), lost: true });
    }

    /// Whether the machine is away now.
    pub fn is_away(&self, node: usize) -> bool {
        self.with(node, |trouble| trouble.until.is_some_and(|until| until > Instant::now()))
    }

    /// Everything is to be well from now on.
    pub fn heal(&self) {
        for trouble in self.troubles.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
            trouble.until = None;
        }
    }

    /// Whether it lost what ran on it; says so once.
    pub fn was_lost(&self, node: usize) -> bool {
        self.with(node, |trouble| std::mem::take(&mut trouble.lost))
    }
}
