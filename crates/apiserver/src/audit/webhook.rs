//! The audit webhook: events are sent in batches to the server a kubeconfig names, again where that fails. What comes faster
//! than it can be sent is dropped and counted, as upstream does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

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
    pub buffer: usize,
    pub batch_max: usize,
    pub wait_max: Duration,
    pub backoff: Duration,
    /// Batches a second, and how many at once; `None`: as fast as they come.
    pub throttle: Option<(f64, f64)>,
}

impl WebhookOptions {
    pub fn new(config_file: PathBuf) -> Self {
        let (wait_max, backoff) = (Duration::from_secs(30), Duration::from_secs(10));
        Self { config_file, buffer: 10_000, batch_max: 400, wait_max, backoff, throttle: Some((10.0, 15.0)) }
    }
}

/// Sends events until cancelled, and then what is left.
pub async fn run(api: Arc<Api>, options: WebhookOptions, to: Endpoint, mut events: mpsc::Receiver<Value>, cancel: CancellationToken) {
    let mut tokens = options.throttle.map_or(0.0, |(_, burst)| burst);
    let mut filled = Instant::now();
    loop {
        let batch = tokio::select! { biased;
            () = cancel.cancelled() => break,
            batch = collect(&mut events, &options) => batch,
        };
        if batch.is_empty() {
            return;
        }
        if let Some((rate, burst)) = options.throttle {
            tokens = (tokens + filled.elapsed().as_secs_f64() * rate).min(burst);
            filled = Instant::now();
            if tokens < 1.0 {
                tokio::time::sleep(Duration::from_secs_f64((1.0 - tokens) / rate)).await;
            }
            tokens -= 1.0;
        }
        tokio::select! { biased;
            () = cancel.cancelled() => {
                last(&api, &to, batch).await;
                break;
            }
            () = send(&api, &options, &to, &batch) => {}
        }
    }
    let mut rest = Vec::new();
    while let Ok(event) = events.try_recv() {
        rest.push(event);
    }
    if !rest.is_empty() {
        last(&api, &to, rest).await;
    }
}

async fn collect(events: &mut mpsc::Receiver<Value>, options: &WebhookOptions) -> Vec<Value> {
    let mut batch = Vec::new();
    let Some(first) = events.recv().await else { return batch };
    batch.push(first);
    let full = async {
        while batch.len() < options.batch_max
            && let Some(event) = events.recv().await
        {
            batch.push(event);
        }
    };
    // What is there by then goes.
    drop(tokio::time::timeout(options.wait_max, full).await);
    batch
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

async fn send(api: &Arc<Api>, options: &WebhookOptions, to: &Endpoint, batch: &[Value]) {
    let list = body(batch);
    let mut pause = options.backoff;
    for attempt in 1..=ATTEMPTS {
        match post(api, to, &list, TIMEOUT).await {
            Ok(()) => return,
            Err(error) if attempt == ATTEMPTS => {
                tracing::error!(%error, events = batch.len(), "audit events could not be sent");
                api.metrics.add(&table::AUDIT_ERRORS, &["buffered"], batch.len() as f64);
            }
            Err(error) => {
                tracing::warn!(%error, "sending audit events again");
                tokio::time::sleep(pause).await;
                pause = pause.mul_f64(1.5);
            }
        }
    }
}

async fn last(api: &Arc<Api>, to: &Endpoint, batch: Vec<Value>) {
    if let Err(error) = post(api, to, &body(&batch), LAST).await {
        tracing::error!(%error, events = batch.len(), "the last audit events could not be sent");
    }
}
