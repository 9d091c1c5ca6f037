//! Audit: who asked for what, when, and what came of it, as far as the policy wants it, to a log and to a webhook. The chain
//! begins an [`Event`] once it knows who asks, and finishes it with the answer. Nothing costs anything without a policy.

pub mod bodies;
mod event;
mod log;
pub mod policy;
mod webhook;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use event::{Asked, Event};
pub use log::{Format, LogOptions};
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
    webhook: Option<mpsc::Sender<Value>>,
    event_bytes_max: usize,
}

/// What is to be started.
pub struct Pending(Option<(WebhookOptions, crate::webhook::Endpoint, mpsc::Receiver<Value>)>);

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
        let mut audit = Self { policy, log, webhook: None, event_bytes_max: options.event_bytes_max.unwrap_or(usize::MAX) };
        let Some(options) = options.webhook.clone().filter(|_| audit.policy.is_some()) else { return Ok((audit, Pending(None))) };
        let endpoint = webhook::endpoint(&options.config_file).map_err(|e| bad("--audit-webhook-config-file", e))?;
        let (sender, receiver) = mpsc::channel(options.buffer.max(1));
        audit.webhook = Some(sender);
        Ok((audit, Pending(Some((options, endpoint, receiver)))))
    }

    /// Whether anything is noted at all.
    pub fn is_on(&self) -> bool {
        self.policy.is_some() && (self.log.is_some() || self.webhook.is_some())
    }

    /// The event of a request, if the policy wants one. The request is noted as received at once.
    pub fn begin(&self, api: &Api, asked: &Asked<'_>) -> Option<Event> {
        let policy = self.policy.as_ref().filter(|_| self.is_on())?;
        let verdict = policy.judge(asked.user, asked.info);
        api.metrics.count(&table::AUDIT_LEVEL, &[verdict.level.name()]);
        if verdict.level == Level::None {
            return None;
        }
        let event = Event::new(asked, verdict);
        self.emit(api, &event, Stage::RequestReceived);
        Some(event)
    }

    /// Writes an event as it is at a stage, where the policy wants that.
    pub fn emit(&self, api: &Api, event: &Event, stage: Stage) {
        let Some(mut value) = event.at(stage) else { return };
        api.metrics.count(&table::AUDIT_EVENTS, &[]);
        if self.event_bytes_max != usize::MAX && value.to_string().len() > self.event_bytes_max {
            event::truncate(&mut value);
        }
        if let Some(log) = &self.log
            && let Err(error) = log.write(&value)
        {
            tracing::error!(%error, "the audit log cannot be written");
            api.metrics.count(&table::AUDIT_ERRORS, &["log"]);
        }
        if let Some(webhook) = &self.webhook
            && webhook.try_send(value).is_err()
        {
            tracing::warn!("too many audit events: one was dropped");
            api.metrics.count(&table::AUDIT_ERRORS, &["buffered"]);
        }
    }
}

impl Pending {
    pub fn start(self, api: &Arc<Api>, tasks: &mut JoinSet<()>, cancel: &CancellationToken) {
        if let Some((options, endpoint, events)) = self.0 {
            tasks.spawn(webhook::run(api.clone(), options, endpoint, events, cancel.clone()));
        }
    }
}
