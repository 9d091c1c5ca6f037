//! The loop of one controller: changes and timers become keys, keys become passes of `reconcile`.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use controllers::{Context, Controller, Failure, Key};
use futures::stream::select_all;
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::caches::Caches;
use crate::execute::{Executor, Stop};
use crate::garbage::Counts;
use crate::meter::queue_name;
use crate::queue::Queue;

/// How often it is told how long keys have been worked on: as upstream's.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(500);

/// What a pass over a key came to.
struct Pass {
    key: Key,
    failure: Option<Failure>,
    memory: Option<Value>,
    failed: bool,
    again_at: Option<Instant>,
    /// It asked how many objects there are.
    counted: bool,
}

/// Notes whether anything is counted.
struct Noting<'a> {
    counts: &'a Counts,
    asked: AtomicBool,
}

impl controllers::Counts for Noting<'_> {
    fn count(&self, namespace: &str, resource: &str) -> Option<usize> {
        self.asked.store(true, Ordering::Relaxed);
        self.counts.count(namespace, resource)
    }
}

/// Keys that depend on numbers of objects, by namespace, and the news of these; none until a pass counts.
#[derive(Default)]
struct Counting {
    keys: BTreeMap<String, BTreeSet<Key>>,
    news: Option<broadcast::Receiver<Arc<str>>>,
}

impl Counting {
    fn note(&mut self, key: &Key, counted: bool, counts: &Counts) {
        if counted {
            self.news.get_or_insert_with(|| counts.fewer());
            self.keys.entry(key.namespace.clone()).or_default().insert(key.clone());
        } else if let Some(keys) = self.keys.get_mut(&key.namespace) {
            keys.remove(key);
            if keys.is_empty() {
                self.keys.remove(&key.namespace);
            }
        }
    }

    /// Keys to look at again; waits until there may be some.
    async fn fewer(&mut self) -> Vec<Key> {
        let Some(news) = &mut self.news else { return std::future::pending().await };
        match news.recv().await {
            Ok(namespace) => self.keys.get(&*namespace).into_iter().flatten().cloned().collect(),
            Err(broadcast::error::RecvError::Lagged(_)) => self.keys.values().flatten().cloned().collect(),
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Everything a pass needs.
struct Shared {
    controller: &'static Controller,
    caches: Arc<Caches>,
    executor: Executor,
    config: Arc<Config>,
    counts: Arc<Counts>,
    started: Instant,
}

pub async fn run(
    controller: &'static Controller,
    caches: Arc<Caches>,
    executor: Executor,
    config: Arc<Config>,
    counts: Arc<Counts>,
    cancel: CancellationToken,
) {
    let synced = tokio::select! {
        biased;
        () = cancel.cancelled() => return,
        synced = caches.synced() => synced,
    };
    if let Err(error) = synced {
        tracing::error!(%error, "no informers");
        return;
    }
    let mut changes = select_all(controller.watches.iter().map(|watch| caches.watch(*watch)));
    let workers = config.workers.max(1);
    let shared = Arc::new(Shared { controller, caches, executor, config, counts, started: Instant::now() });
    let mut queue: Queue<Key> = Queue::metered(queue_name(controller.name), shared.config.metrics.as_ref());
    let mut failures: BTreeMap<Key, Failure> = BTreeMap::new();
    let mut memories: BTreeMap<Key, Value> = BTreeMap::new();
    let mut passes: JoinSet<Pass> = JoinSet::new();
    let mut counting = Counting::default();
    let mut looked = Instant::now();
    loop {
        if queue.is_watched() && looked.elapsed() >= LOOK_EVERY {
            queue.look();
            looked = Instant::now();
        }
        while passes.len() < workers
            && let Some(key) = queue.start(Instant::now())
        {
            let (failure, memory) = (failures.remove(&key), memories.remove(&key));
            passes.spawn(guarded_pass(shared.clone(), key, failure, memory));
        }
        let due = queue.next_due().unwrap_or_else(|| Instant::now() + std::time::Duration::from_secs(3600));
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            Some(ended) = passes.join_next() => match ended {
                Ok(pass) => {
                    counting.note(&pass.key, pass.counted, &shared.counts);
                    if let Some(failure) = pass.failure {
                        failures.insert(pass.key.clone(), failure);
                    }
                    if let Some(memory) = pass.memory {
                        memories.insert(pass.key.clone(), memory);
                    }
                    queue.finish(pass.key, pass.failed, pass.again_at, Instant::now());
                }
                Err(error) => tracing::error!(%error, "a pass was cancelled"),
            },
            keys = counting.fewer() => keys.into_iter().for_each(|key| queue.add(key)),
            Some(keys) = changes.next() => keys.into_iter().for_each(|key| queue.add(key)),
            () = tokio::time::sleep_until(due), if passes.len() < workers => {}
            () = tokio::time::sleep(LOOK_EVERY), if queue.is_watched() => {}
        }
    }
    // A pass may be between two actions; each is harmless alone, so waiting for the rest gains nothing.
    passes.shutdown().await;
}

/// A bug in one pass must not take its key out of the queue for good.
async fn guarded_pass(shared: Arc<Shared>, key: Key, failure: Option<Failure>, memory: Option<Value>) -> Pass {
    match AssertUnwindSafe(pass(shared, key.clone(), failure, memory)).catch_unwind().await {
        Ok(pass) => pass,
        Err(_) => {
            tracing::error!(%key, "a pass panicked");
            Pass { key, failure: None, memory: None, failed: true, again_at: None, counted: false }
        }
    }
}

async fn pass(shared: Arc<Shared>, key: Key, failure: Option<Failure>, memory: Option<Value>) -> Pass {
    let noting = Noting { counts: &shared.counts, asked: AtomicBool::new(false) };
    let outcome = {
        let config = &shared.config;
        let context = Context::new(config.clock.now(), config.entropy.next_u64(), &config.controllers, failure.as_ref());
        let context = context.remembering(memory.as_ref()).counting(&noting).up_for(shared.started.elapsed());
        (shared.controller.reconcile)(&shared.caches.view(), &key, &context)
    };
    let again_at = outcome.requeue_after.map(|after| Instant::now() + after);
    let (written, result) = shared.executor.execute_all(&outcome.actions).await;
    if let Err(error) = shared.caches.settle(&written).await {
        tracing::error!(%error, %key, "cannot wait for the caches");
    }
    let (failed, failure) = match result {
        Ok(()) | Err(Stop::Pointless) => (false, None),
        Err(Stop::Stale) => (true, None),
        Err(Stop::Refused(failure)) => {
            tracing::warn!(%key, verb = failure.verb, kind = failure.kind, message = failure.message, "refused");
            (true, Some(failure))
        }
        Err(Stop::Unreachable(error)) => {
            tracing::warn!(%key, error, "no answer");
            (true, None)
        }
    };
    let counted = noting.asked.into_inner();
    Pass { key, failure, memory: outcome.memory, failed, again_at, counted }
}
