//! Audit: who asked for what, when, and what came of it, as far as the policy wants it, to a log and to a webhook. The chain
//! begins an [`Event`] once it knows who asks, and finishes it with the answer. Nothing costs anything without a policy.

pub mod bodies;
mod event;
mod log;
pub mod policy;
mod webhook;

use std::path::PathBuf;
use std::sync::Arc;

use machinery::status::StatusError;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use event::{Asked, Event};
pub use log::{Format, LogOptions, Mode};
pub use policy::{Level, Policy, Stage};
pub use webhook::WebhookOptions;

use crate::error::{Error, Result};
use crate::metrics::table;
use crate::state::Api;

/// What the flags say.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--audit-policy-file`; without it nothing is audited.
    pub policy_file: Option<PathBuf>,
    pub log: Option<LogOptions>,
    pub webhook: Option<WebhookOptions>,
    /// `--audit-log-truncate-max-event-size` and its like, where truncating is on.
    pub event_bytes_max: Option<usize>,
}

/// What audits. Made before the server, started with it.
pub struct Audit {
    policy: Option<Policy>,
    log: Option<log::Log>,
    /// Of what is written later.
    batch: Option<mpsc::Sender<Value>>,
    webhook: Option<mpsc::Sender<Value>>,
    event_bytes_max: usize,
}

/// What is to be started.
pub struct Pending {
    log: Option<mpsc::Receiver<Value>>,
    webhook: Option<(WebhookOptions, crate::webhook::Endpoint, mpsc::Receiver<Value>)>,
}

impl Audit {
    /// Reads the policy and opens the log.
    pub fn open(options: &Options) -> Result<(Self, Pending)> {
        let bad = |what: &str, why: String| Error::Config(format!("{what}: {why}"));
        let policy = match &options.policy_file {
            None => None,
            Some(path) => {
                let name = format!("--audit-policy-file {}", path.display());
                let bytes = std::fs::read(path).map_err(|e| bad(&name, e.to_string()))?;
                Some(Policy::parse(&bytes).map_err(|e| bad(&name, e))?)
            }
        };
        let log = options.log.clone().filter(|_| policy.is_some());
        let log = log.map(|o| log::Log::open(o).map_err(|e| bad("--audit-log-path", e.to_string()))).transpose()?;
        let event_bytes_max = options.event_bytes_max.unwrap_or(usize::MAX);
        let mut audit = Self { policy, log, batch: None, webhook: None, event_bytes_max };
        let mut pending = Pending { log: None, webhook: None };
        if let Some(Mode::Batch { buffer }) = audit.log.as_ref().map(log::Log::mode) {
            let (sender, receiver) = mpsc::channel(buffer);
            (audit.batch, pending.log) = (Some(sender), Some(receiver));
        }
        let Some(options) = options.webhook.clone().filter(|_| audit.policy.is_some()) else { return Ok((audit, pending)) };
        let endpoint =
            crate::webhook::Endpoint::from_kubeconfig(&options.config_file).map_err(|e| bad("--audit-webhook-config-file", e))?;
        let (sender, receiver) = mpsc::channel(options.buffer.max(1));
        audit.webhook = Some(sender);
        pending.webhook = Some((options, endpoint, receiver));
        Ok((audit, pending))
    }

    /// Whether anything is noted at all.
    pub fn is_on(&self) -> bool {
        self.policy.is_some() && (self.log.is_some() || self.webhook.is_some())
    }

    /// The event of a request, if the policy wants one. The request is noted as received at once; an error, where it must not
    /// go on if that fails.
    pub fn begin(&self, api: &Api, asked: &Asked<'_>) -> Result<Option<Event>, StatusError> {
        let Some(policy) = self.policy.as_ref().filter(|_| self.is_on()) else { return Ok(None) };
        let verdict = policy.judge(asked.user, asked.info);
        api.metrics.count(&table::AUDIT_LEVEL, &[verdict.level.name()]);
        if verdict.level == Level::None {
            return Ok(None);
        }
        let event = Event::new(asked, verdict);
        let noted = self.emit(api, &event, Stage::RequestReceived);
        let strict = self.log.as_ref().is_some_and(|log| log.mode() == Mode::BlockingStrict);
        if strict && !noted { Err(StatusError::internal("failed to update audit event")) } else { Ok(Some(event)) }
    }

    /// Writes an event as it is at a stage, where the policy wants that; whether the log took it.
    pub fn emit(&self, api: &Api, event: &Event, stage: Stage) -> bool {
        let Some(mut value) = event.at(stage) else { return true };
        api.metrics.count(&table::AUDIT_EVENTS, &[]);
        if self.event_bytes_max != usize::MAX && value.to_string().len() > self.event_bytes_max {
            event::truncate(&mut value);
        }
        let later = |queue: &mpsc::Sender<Value>, value: Value| {
            let taken = queue.try_send(value).is_ok();
            if !taken {
                tracing::warn!("too many audit events: one was dropped");
                api.metrics.count(&table::AUDIT_ERRORS, &["buffered"]);
            }
            taken
        };
        let taken = match (&self.log, &self.batch) {
            (Some(_), Some(batch)) => later(batch, value.clone()),
            (Some(log), None) => log.write(&value).inspect_err(|error| log::failed(api, error)).is_ok(),
            (None, _) => true,
        };
        if let Some(webhook) = &self.webhook {
            later(webhook, value);
        }
        taken
    }
}

impl Pending {
    pub fn start(self, api: &Arc<Api>, tasks: &mut JoinSet<()>, cancel: &CancellationToken) {
        if let Some(events) = self.log {
            tasks.spawn(log::run(api.clone(), events, cancel.clone()));
        }
        if let Some((options, endpoint, events)) = self.webhook {
            tasks.spawn(webhook::run(api.clone(), options, endpoint, events, cancel.clone()));
        }
    }
}
