//! The flags of `skiff kube-apiserver` about how it serves: limits, flow control, stopping, feature gates.

use anyhow::{Context as _, Result, bail};
use apiserver::features::{self, Gates};
use clap::Args;

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
        if self.feature_gates == "help" {
            bail!("the feature gates, each with its stage and default:\n{}", gates());
        }
        config.features = Gates::parse(&self.feature_gates)?;
        config.flags = given();
        Ok(())
    }
}

fn duration(flag: &str, text: &str) -> Result<std::time::Duration> {
    let nanos = machinery::duration::parse(text).map_err(anyhow::Error::msg).with_context(|| format!("--{flag}"))?;
    Ok(std::time::Duration::from_nanos(u64::try_from(nanos).with_context(|| format!("--{flag} {text}: must not be negative"))?))
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
        assert!(apply(&["--request-timeout=-1s"]).is_err() && apply(&["--feature-gates=No=true"]).is_err());
        assert!(
            apply(&["--feature-gates=help"]).err().unwrap().to_string().contains("\nAPIServerIdentity=true|false (BETA - default=true)\n")
        );
    }
}
