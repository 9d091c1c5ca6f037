//! The flags of `skiff kube-apiserver` about how it serves: limits, flow control, stopping, feature gates.

use std::path::PathBuf;

use anyhow::{Result, bail};
use apiserver::audit;
use apiserver::features::{self, Gates};
use clap::Args;

use super::duration;

const AUDIT_VERSION: &str = "audit.k8s.io/v1";

#[derive(Args)]
#[group(id = "serving")]
pub struct Flags {
    /// Reads at once; with flow control the sum of both limits is shared by priority levels. 0: no limit
    #[arg(long, default_value_t = 400)]
    max_requests_inflight: usize,
    /// Writes at once
    #[arg(long, default_value_t = 200)]
    max_mutating_requests_inflight: usize,
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    enable_priority_and_fairness: bool,
    /// How long a request may take, unless it is long-running, as 1m
    #[arg(long, default_value = "1m0s")]
    request_timeout: String,
    /// Seconds after which a watch that names no time-out ends, at least
    #[arg(long, default_value_t = 1800)]
    min_request_timeout: u64,
    /// How long requests are still taken, while /readyz fails, before the server stops
    #[arg(long, default_value = "0s")]
    shutdown_delay_duration: String,
    /// How long /livez believes a server that starts
    #[arg(long, default_value = "0s")]
    livez_grace_period: String,
    /// Where traces of requests are sent, and how many
    #[arg(long)]
    tracing_config_file: Option<PathBuf>,
    /// What is encrypted in the datastore, and with which keys
    #[arg(long)]
    encryption_provider_config: Option<PathBuf>,
    /// Read that file again when it changes
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    encryption_provider_config_automatic_reload: bool,
    /// Which requests are noted in the audit log, and how much of them; without it none are
    #[arg(long)]
    audit_policy_file: Option<PathBuf>,
    /// The audit log; -: standard output
    #[arg(long)]
    audit_log_path: Option<PathBuf>,
    /// Days old audit logs are kept; 0: for ever
    #[arg(long, default_value_t = 366)]
    audit_log_maxage: u64,
    /// How many old audit logs are kept; 0: all
    #[arg(long, default_value_t = 100)]
    audit_log_maxbackup: usize,
    /// Megabytes an audit log has before it is rotated
    #[arg(long, default_value_t = 100)]
    audit_log_maxsize: u64,
    /// json or legacy
    #[arg(long, default_value = "json")]
    audit_log_format: String,
    /// blocking, blocking-strict or batch
    #[arg(long, default_value = "blocking")]
    audit_log_mode: String,
    /// Events that wait to be written, in mode batch
    #[arg(long, default_value_t = 10_000)]
    audit_log_batch_buffer_size: usize,
    /// Events written together, in mode batch
    #[arg(long, default_value_t = 1)]
    audit_log_batch_max_size: usize,
    #[arg(long, default_value = "0s")]
    audit_log_batch_max_wait: String,
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    audit_log_batch_throttle_enable: bool,
    /// Batches a second
    #[arg(long, default_value_t = 0.0)]
    audit_log_batch_throttle_qps: f64,
    #[arg(long, default_value_t = 0.0)]
    audit_log_batch_throttle_burst: f64,
    /// Only audit.k8s.io/v1 is known
    #[arg(long, default_value = AUDIT_VERSION)]
    audit_log_version: String,
    /// Pack old audit logs
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    audit_log_compress: bool,
    /// A kubeconfig of the server audit events are sent to
    #[arg(long)]
    audit_webhook_config_file: Option<PathBuf>,
    /// blocking, blocking-strict or batch
    #[arg(long, default_value = "batch")]
    audit_webhook_mode: String,
    /// Only audit.k8s.io/v1 is known
    #[arg(long, default_value = AUDIT_VERSION)]
    audit_webhook_version: String,
    #[arg(long, default_value_t = 10_000)]
    audit_webhook_batch_buffer_size: usize,
    #[arg(long, default_value_t = 400)]
    audit_webhook_batch_max_size: usize,
    #[arg(long, default_value = "30s")]
    audit_webhook_batch_max_wait: String,
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    audit_webhook_batch_throttle_enable: bool,
    /// Batches a second
    #[arg(long, default_value_t = 10.0)]
    audit_webhook_batch_throttle_qps: f64,
    #[arg(long, default_value_t = 15.0)]
    audit_webhook_batch_throttle_burst: f64,
    #[arg(long, default_value = "10s")]
    audit_webhook_initial_backoff: String,
    /// Leave bodies out of events that are too large
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    audit_log_truncate_enabled: bool,
    #[arg(long, default_value_t = 102_400)]
    audit_log_truncate_max_event_size: usize,
    /// Without effect: the log is written event by event
    #[arg(long, default_value_t = 10 << 20)]
    audit_log_truncate_max_batch_size: usize,
    /// Leave bodies out of events that are too large
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    audit_webhook_truncate_enabled: bool,
    #[arg(long, default_value_t = 102_400)]
    audit_webhook_truncate_max_event_size: usize,
    /// Bytes of events sent together
    #[arg(long, default_value_t = 10 << 20)]
    audit_webhook_truncate_max_batch_size: usize,
    /// Regular expressions of sites whose pages may read answers, pinned to both ends
    #[arg(long, value_delimiter = ',')]
    cors_allowed_origins: Vec<String>,
    /// Of max-age=SECONDS, includeSubDomains, preload
    #[arg(long, value_delimiter = ',')]
    strict_transport_security_directives: Vec<String>,
    /// How likely a request ends its HTTP/2 connection: 0 to 0.02
    #[arg(long, default_value_t = 0.0)]
    goaway_chance: f64,
    /// By Go's names; those of TLS 1.3 are always on
    #[arg(long, value_delimiter = ',')]
    tls_cipher_suites: Vec<String>,
    /// VersionTLS12 or VersionTLS13
    #[arg(long, default_value = "")]
    tls_min_version: String,
    /// A=true,B=false; see --feature-gates=help
    #[arg(long, default_value = "")]
    feature_gates: String,
}

impl Flags {
    pub fn apply(&self, config: &mut apiserver::Config) -> Result<()> {
        config.max_requests_inflight = self.max_requests_inflight;
        config.max_mutating_requests_inflight = self.max_mutating_requests_inflight;
        config.priority_and_fairness = self.enable_priority_and_fairness;
        config.request_timeout = duration("request-timeout", &self.request_timeout)?;
        config.min_request_timeout = self.min_request_timeout;
        config.shutdown_delay = duration("shutdown-delay-duration", &self.shutdown_delay_duration)?;
        config.livez_grace_period = duration("livez-grace-period", &self.livez_grace_period)?;
        config.tracing_config_file.clone_from(&self.tracing_config_file);
        config.encryption_provider_config.clone_from(&self.encryption_provider_config);
        config.encryption_reload = self.encryption_provider_config_automatic_reload.then_some(std::time::Duration::from_secs(60));
        config.audit = self.audit()?;
        config.cors_allowed_origins.clone_from(&self.cors_allowed_origins);
        config.strict_transport_security_directives.clone_from(&self.strict_transport_security_directives);
        if !(0.0..=0.02).contains(&self.goaway_chance) {
            bail!("--goaway-chance can not be less than 0 or greater than 0.02");
        }
        config.goaway_chance = self.goaway_chance;
        config.tls_cipher_suites.clone_from(&self.tls_cipher_suites);
        config.tls_min_version.clone_from(&self.tls_min_version);
        if self.feature_gates == "help" {
            bail!("the feature gates, each with its stage and default:\n{}", gates());
        }
        config.features = Gates::parse(&self.feature_gates)?;
        config.flags = given();
        Ok(())
    }
}

impl Flags {
    fn audit(&self) -> Result<audit::Options> {
        let format = match self.audit_log_format.as_str() {
            "json" => audit::Format::Json,
            "legacy" => audit::Format::Legacy,
            other => bail!("--audit-log-format {other}: must be json or legacy"),
        };
        for (flag, version) in [("audit-log-version", &self.audit_log_version), ("audit-webhook-version", &self.audit_webhook_version)] {
            if version != AUDIT_VERSION {
                bail!("--{flag}: invalid group version, allowed versions are [{AUDIT_VERSION:?}]");
            }
        }
        let batching = audit::Batching {
            buffer: self.audit_log_batch_buffer_size,
            events_max: self.audit_log_batch_max_size,
            wait_max: duration("audit-log-batch-max-wait", &self.audit_log_batch_max_wait)?,
            throttle: Some((self.audit_log_batch_throttle_qps, self.audit_log_batch_throttle_burst))
                .filter(|_| self.audit_log_batch_throttle_enable),
        };
        let mode = audit::Mode::parse("log", &self.audit_log_mode, batching).map_err(anyhow::Error::msg)?;
        let log = self.audit_log_path.clone().map(|path| audit::LogOptions {
            path,
            max_age: self.audit_log_maxage,
            max_backup: self.audit_log_maxbackup,
            max_size: self.audit_log_maxsize,
            format,
            compress: self.audit_log_compress,
            mode,
        });
        let truncates = |on: bool, bytes: usize| on.then_some(bytes);
        Ok(audit::Options {
            policy_file: self.audit_policy_file.clone(),
            log,
            webhook: self.audit_webhook()?,
            log_event_bytes_max: truncates(self.audit_log_truncate_enabled, self.audit_log_truncate_max_event_size),
            webhook_event_bytes_max: truncates(self.audit_webhook_truncate_enabled, self.audit_webhook_truncate_max_event_size),
        })
    }

    fn audit_webhook(&self) -> Result<Option<audit::WebhookOptions>> {
        let throttle = (self.audit_webhook_batch_throttle_qps, self.audit_webhook_batch_throttle_burst);
        let batching = audit::Batching {
            buffer: self.audit_webhook_batch_buffer_size,
            events_max: self.audit_webhook_batch_max_size,
            wait_max: duration("audit-webhook-batch-max-wait", &self.audit_webhook_batch_max_wait)?,
            throttle: Some(throttle).filter(|_| self.audit_webhook_batch_throttle_enable),
        };
        let mode = audit::Mode::parse("webhook", &self.audit_webhook_mode, batching).map_err(anyhow::Error::msg)?;
        let Some(config_file) = self.audit_webhook_config_file.clone() else { return Ok(None) };
        let batch_bytes_max = if self.audit_webhook_truncate_enabled { self.audit_webhook_truncate_max_batch_size } else { usize::MAX };
        let backoff = duration("audit-webhook-initial-backoff", &self.audit_webhook_initial_backoff)?;
        Ok(Some(audit::WebhookOptions { config_file, mode, backoff, batch_bytes_max }))
    }
}

fn gates() -> String {
    let line = |(name, gate): (&str, features::Gate)| format!("{name}=true|false ({} - default={})", gate.stage, gate.default);
    features::all().filter(|(_, gate)| !gate.locked).map(line).collect::<Vec<_>>().join("\n")
}

/// The flags as they were given, for `/flagz`.
fn given() -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.strip_prefix("--") {
            Some(flag) => {
                let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
                out.push((name.to_owned(), value.to_owned()));
            }
            None => {
                if let Some((_, value)) = out.last_mut().filter(|(_, value)| value.is_empty()) {
                    *value = argument;
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn apply(line: &[&str]) -> Result<apiserver::Config> {
        let line = Line::try_parse_from(["x"].iter().chain(line))?;
        let mut config = apiserver::Config::new("/nowhere");
        line.flags.apply(&mut config)?;
        Ok(config)
    }

    #[test]
    fn flags_reach_the_configuration() {
        let config = apply(&["--request-timeout=90s", "--max-requests-inflight", "7", "--feature-gates=AllAlpha=true"]).unwrap();
        assert_eq!((config.request_timeout.as_secs(), config.max_requests_inflight), (90, 7));
        assert!(config.features.enabled("APIServingWithRoutine"));
        assert!(apply(&["--goaway-chance=0.5"]).is_err() && apply(&["--audit-log-mode=never"]).is_err());
        assert!(apply(&["--request-timeout=-1s"]).is_err() && apply(&["--feature-gates=No=true"]).is_err());
        assert!(
            apply(&["--feature-gates=help"]).err().unwrap().to_string().contains("\nAPIServerIdentity=true|false (BETA - default=true)\n")
        );
    }
}
