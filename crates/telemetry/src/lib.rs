//! What a component tells of itself: its [`metrics`], and OpenTelemetry traces, as much as a server that answers requests needs: the trace context of a request's headers, whether
//! to sample, one span per request, and an exporter that sends them over OTLP. Called by the API server's chain; the
//! `opentelemetry` crates would be many times this size. Metrics are every component's.

mod context;
mod export;
pub mod metrics;

pub use context::{Context, Sampler};
pub use export::{Exporter, Span, run};

#[expect(clippy::allow_attributes, reason = "generated")]
pub mod proto {
    tonic::include_proto!("opentelemetry.proto.collector.trace.v1");
}

/// What the tracing configuration file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `host:port` of the collector.
    pub endpoint: String,
    /// Of a million requests without a sampled parent so many are sampled.
    pub sampling_rate_per_million: u32,
}

impl Config {
    /// Reads a TracingConfiguration.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        use machinery::object::str_at;
        let value = machinery::yaml::parse(bytes).map_err(|e| e.to_string())?.value;
        let version = str_at(&value, "apiVersion");
        let known =
            matches!(version, "apiserver.config.k8s.io/v1" | "apiserver.config.k8s.io/v1beta1" | "apiserver.config.k8s.io/v1alpha1");
        if str_at(&value, "kind") != "TracingConfiguration" || !known {
            return Err(format!("no kind {:?} is registered for version {version:?}", str_at(&value, "kind")));
        }
        let rate = value.get("samplingRatePerMillion").and_then(serde_json::Value::as_i64).unwrap_or(0);
        let rate = u32::try_from(rate).ok().filter(|r| *r <= 1_000_000);
        let sampling_rate_per_million =
            rate.ok_or("samplingRatePerMillion: Invalid value: sampling rate must be between 0 and 1000000".to_owned())?;
        let endpoint = match str_at(&value, "endpoint") {
            "" => "localhost:4317",
            given => given,
        };
        Ok(Self { endpoint: endpoint.trim_start_matches("http://").to_owned(), sampling_rate_per_million })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_read() {
        let parse =
            |text: &str| Config::parse(format!("apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\n{text}").as_bytes());
        assert_eq!(parse("").unwrap(), Config { endpoint: "localhost:4317".to_owned(), sampling_rate_per_million: 0 });
        assert_eq!(parse("endpoint: a:1\nsamplingRatePerMillion: 7").unwrap().sampling_rate_per_million, 7);
        assert!(parse("samplingRatePerMillion: 1000001").is_err() && Config::parse(b"kind: Other").is_err());
    }
}
