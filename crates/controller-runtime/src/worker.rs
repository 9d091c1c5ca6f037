//! The loop of one controller: changes and timers become keys, keys become passes of `reconcile`.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use controllers::{Context, Controller, Failure, Key};
use futures::stream::select_all;
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::caches::Caches;
use crate::execute::{Executor, Stop};
use crate::garbage::Counts;
use crate::queue::Queue;

/// What a pass over a key came to.
struct Pass {
    key: Key,
    failure: Option<Failure>,
    memory: Option<Value>,
    failed: bool,
    again_at: Option<Instant>,
}

/// Everything a pass needs.
struct Shared {
    controller: &'static Controller,
    caches: Arc<Caches>,
    executor: Executor,
    config: Arc<Config>,
    counts: Arc<Counts>,
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
    let shared = Arc::new(Shared { controller, caches, executor, config, counts });
    let mut queue: Queue<Key> = Queue::new();
    let mut failures: BTreeMap<Key, Failure> = BTreeMap::new();
    let mut memories: BTreeMap<Key, Value> = BTreeMap::new();
    let mut passes: JoinSet<Pass> = JoinSet::new();
    loop {
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
            Some(keys) = changes.next() => keys.into_iter().for_each(|key| queue.add(key)),
            () = tokio::time::sleep_until(due), if passes.len() < workers => {}
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
            Pass { key, failure: None, memory: None, failed: true, again_at: None }
        }
    }
}

async fn pass(shared: Arc<Shared>, key: Key, failure: Option<Failure>, memory: Option<Value>) -> Pass {
    let outcome = {
        let config = &shared.config;
        let context = Context::new(config.clock.now(), config.entropy.next_u64(), &config.controllers, failure.as_ref());
        let context = context.remembering(memory.as_ref()).counting(&*shared.counts);
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
    Pass { key, failure, memory: outcome.memory, failed, again_at }
}
