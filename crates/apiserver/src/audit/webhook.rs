//! The audit webhook: events are sent to the server a kubeconfig names, in batches or before the request goes on, again where
//! that fails. What comes faster than batches can be sent is dropped and counted, as upstream does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::batch::{Batches, Batching, Mode};
use crate::metrics::table;
use crate::state::Api;
use crate::webhook::{self, CallError, Endpoint, Manner};

const ATTEMPTS: u32 = 5;
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long what is left may take when the server stops.
const LAST: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub struct WebhookOptions {
    pub config_file: PathBuf,
    pub mode: Mode,
    pub backoff: Duration,
    /// Bytes of events in one call.
    pub batch_bytes_max: usize,
}

impl WebhookOptions {
    pub fn new(config_file: PathBuf) -> Self {
        let (wait_max, backoff) = (Duration::from_secs(30), Duration::from_secs(10));
        let batching = Batching { buffer: 10_000, events_max: 400, wait_max, throttle: Some((10.0, 15.0)) };
        Self { config_file, mode: Mode::Batch(batching), backoff, batch_bytes_max: usize::MAX }
    }
}

/// Sends events until cancelled, and then what is left.
pub async fn run(api: Arc<Api>, options: WebhookOptions, to: Endpoint, mut events: Batches, cancel: CancellationToken) {
    let mut batch = Vec::new();
    loop {
        tokio::select! { biased;
            () = cancel.cancelled() => break,
            () = events.next(&mut batch) => {}
        }
        if batch.is_empty() {
            return;
        }
        tokio::select! { biased;
            () = cancel.cancelled() => break,
            _ = send(&api, &options, &to, &batch) => {}
        }
        batch.clear();
    }
    batch.extend(events.rest());
    if !batch.is_empty() {
        last(&api, &to, batch).await;
    }
}

/// Parts of a batch that are not too large, each of one event at least.
fn parts(batch: &[Value], bytes_max: usize) -> Vec<&[Value]> {
    if bytes_max == usize::MAX {
        return vec![batch];
    }
    let (mut parts, mut start, mut bytes) = (Vec::new(), 0, 0_usize);
    for (at, event) in batch.iter().enumerate() {
        let size = event.to_string().len();
        if at > start && bytes + size > bytes_max {
            parts.push(&batch[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += size;
    }
    parts.push(&batch[start..]);
    parts
}

fn body(batch: &[Value]) -> Value {
    json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": batch})
}

async fn post(api: &Arc<Api>, to: &Endpoint, batch: &Value, timeout: Duration) -> Result<(), CallError> {
    match webhook::post(api, to, batch, Manner { timeout, tell_timeout: false }).await {
        // What it says to a success is of no interest.
        Ok(_) | Err(CallError::Decode(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Sends events, again where that fails; whether all arrived.
pub async fn send(api: &Arc<Api>, options: &WebhookOptions, to: &Endpoint, batch: &[Value]) -> bool {
    let mut arrived = true;
    for part in parts(batch, options.batch_bytes_max) {
        arrived &= deliver(api, options, to, part).await;
    }
    arrived
}

async fn deliver(api: &Arc<Api>, options: &WebhookOptions, to: &Endpoint, batch: &[Value]) -> bool {
    let list = body(batch);
    let mut pause = options.backoff;
    for attempt in 1..=ATTEMPTS {
        match post(api, to, &list, TIMEOUT).await {
            Ok(()) => return true,
            Err(error) if attempt == ATTEMPTS => {
                tracing::error!(%error, events = batch.len(), "audit events could not be sent");
                let plugin = if matches!(options.mode, Mode::Batch(_)) { "buffered" } else { "webhook" };
                api.metrics.add(&table::AUDIT_ERRORS, &[plugin], batch.len() as f64);
            }
            Err(error) => {
                tracing::warn!(%error, "sending audit events again");
                tokio::time::sleep(pause).await;
                pause = pause.mul_f64(1.5);
            }
        }
    }
    false
}

async fn last(api: &Arc<Api>, to: &Endpoint, batch: Vec<Value>) {
    if let Err(error) = post(api, to, &body(&batch), LAST).await {
        tracing::error!(%error, events = batch.len(), "the last audit events could not be sent");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_not_too_large() {
        let batch: Vec<Value> = ["a".repeat(50), "b".repeat(50), "c".repeat(200), "d".into()].into_iter().map(Value::from).collect();
        let sizes = |max| parts(&batch, max).into_iter().map(<[Value]>::len).collect::<Vec<_>>();
        assert_eq!((sizes(usize::MAX), sizes(110), sizes(1)), (vec![4], vec![2, 1, 1], vec![1, 1, 1, 1]));
    }
}
