//! Audit: who asked for what, when, and what came of it, as far as the policy wants it, to a log and to a webhook. The chain
//! begins an [`Event`] once it knows who asks, and finishes it with the answer. Nothing costs anything without a policy.

mod batch;
pub mod bodies;
mod event;
mod log;
pub mod policy;
mod webhook;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use machinery::status::StatusError;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use batch::{Batching, Mode};
pub use event::{Asked, Event};
pub use log::{Format, LogOptions};
pub use policy::{Level, Policy, Stage};
pub use webhook::WebhookOptions;

use self::batch::Batches;
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
    /// `--audit-log-truncate-max-event-size`, where truncating is on.
    pub log_event_bytes_max: Option<usize>,
    /// `--audit-webhook-truncate-max-event-size`, likewise.
    pub webhook_event_bytes_max: Option<usize>,
}

/// What audits. Made before the server, started with it.
pub struct Audit {
    policy: Option<Policy>,
    log: Option<log::Log>,
    /// Of what is written later.
    batch: Option<mpsc::Sender<Value>>,
    webhook: Option<Webhook>,
    log_event_bytes_max: usize,
    webhook_event_bytes_max: usize,
}

/// How events get to the webhook.
enum Webhook {
    Later(mpsc::Sender<Value>),
    AtOnce(Box<(WebhookOptions, crate::webhook::Endpoint)>),
}

/// What is to be started.
pub struct Pending {
    log: Option<Batches>,
    webhook: Option<(WebhookOptions, crate::webhook::Endpoint, Batches)>,
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
        let bytes_max = |given: Option<usize>| given.unwrap_or(usize::MAX);
        let mut audit = Self {
            policy,
            log,
            batch: None,
            webhook: None,
            log_event_bytes_max: bytes_max(options.log_event_bytes_max),
            webhook_event_bytes_max: bytes_max(options.webhook_event_bytes_max),
        };
        let mut pending = Pending { log: None, webhook: None };
        if let Some(Mode::Batch(how)) = audit.log.as_ref().map(log::Log::mode) {
            let (sender, batches) = Batches::new(how);
            (audit.batch, pending.log) = (Some(sender), Some(batches));
        }
        let Some(options) = options.webhook.clone().filter(|_| audit.policy.is_some()) else { return Ok((audit, pending)) };
        let endpoint =
            crate::webhook::Endpoint::from_kubeconfig(&options.config_file).map_err(|e| bad("--audit-webhook-config-file", e))?;
        audit.webhook = Some(match options.mode {
            Mode::Batch(how) => {
                let (sender, batches) = Batches::new(how);
                pending.webhook = Some((options, endpoint, batches));
                Webhook::Later(sender)
            }
            Mode::Blocking | Mode::BlockingStrict => Webhook::AtOnce(Box::new((options, endpoint))),
        });
        Ok((audit, pending))
    }

    /// Whether anything is noted at all.
    pub fn is_on(&self) -> bool {
        self.policy.is_some() && (self.log.is_some() || self.webhook.is_some())
    }

    /// The event of a request, if the policy wants one. The request is noted as received at once; an error, where it must not
    /// go on if that fails.
    pub async fn begin(&self, api: &Arc<Api>, asked: &Asked<'_>) -> Result<Option<Event>, StatusError> {
        let Some(policy) = self.policy.as_ref().filter(|_| self.is_on()) else { return Ok(None) };
        let verdict = policy.judge(asked.user, asked.info);
        api.metrics.count(&table::AUDIT_LEVEL, &[verdict.level.name()]);
        if verdict.level == Level::None {
            return Ok(None);
        }
        let event = Event::new(asked, verdict);
        let Noted { log, webhook } = self.emit(api, &event, Stage::RequestReceived).await;
        let strict = |mode: Mode| mode == Mode::BlockingStrict;
        let lost = !log && self.log.as_ref().is_some_and(|log| strict(log.mode()))
            || !webhook && matches!(&self.webhook, Some(Webhook::AtOnce(to)) if strict(to.0.mode));
        if lost { Err(StatusError::internal("failed to update audit event")) } else { Ok(Some(event)) }
    }

    /// Notes an event as it is at a stage, where the policy wants that; who took it.
    pub async fn emit(&self, api: &Arc<Api>, event: &Event, stage: Stage) -> Noted {
        let Some(value) = event.at(stage) else { return Noted { log: true, webhook: true } };
        let log = self.note(api, &value);
        let webhook = match &self.webhook {
            Some(Webhook::AtOnce(to)) => {
                let event = truncated(&value, self.webhook_event_bytes_max).into_owned();
                webhook::send(api, &to.0, &to.1, &[event]).await
            }
            _ => true,
        };
        Noted { log, webhook }
    }

    /// The same, of who cannot wait.
    pub fn emit_later(&self, api: &Arc<Api>, event: &Event, stage: Stage) {
        let Some(value) = event.at(stage) else { return };
        self.note(api, &value);
        if let Some(Webhook::AtOnce(to)) = &self.webhook {
            let event = truncated(&value, self.webhook_event_bytes_max).into_owned();
            let (of, to) = (api.clone(), to.clone());
            api.connections.spawn(async move {
                webhook::send(&of, &to.0, &to.1, &[event]).await;
            });
        }
    }

    /// Writes an event, or lets it wait for who does; whether the log took it.
    fn note(&self, api: &Api, value: &Value) -> bool {
        api.metrics.count(&table::AUDIT_EVENTS, &[]);
        let later = |queue: &mpsc::Sender<Value>, value: Value| {
            let taken = queue.try_send(value).is_ok();
            if !taken {
                tracing::warn!("too many audit events: one was dropped");
                api.metrics.count(&table::AUDIT_ERRORS, &["buffered"]);
            }
            taken
        };
        let logged = truncated(value, self.log_event_bytes_max);
        let taken = match (&self.log, &self.batch) {
            (Some(_), Some(batch)) => later(batch, logged.into_owned()),
            (Some(log), None) => log.write(&logged).inspect_err(|error| log::failed(api, error)).is_ok(),
            (None, _) => true,
        };
        if let Some(Webhook::Later(queue)) = &self.webhook {
            later(queue, truncated(value, self.webhook_event_bytes_max).into_owned());
        }
        taken
    }
}

/// Who took an event.
pub struct Noted {
    log: bool,
    webhook: bool,
}

/// An event that is too large goes without its bodies.
fn truncated(value: &Value, bytes_max: usize) -> Cow<'_, Value> {
    if bytes_max == usize::MAX || value.to_string().len() <= bytes_max {
        return Cow::Borrowed(value);
    }
    let mut value = value.clone();
    event::truncate(&mut value);
    Cow::Owned(value)
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
