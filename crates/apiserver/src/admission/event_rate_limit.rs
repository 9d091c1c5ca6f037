//! No flood of events: buckets of tokens for the whole server, per namespace, per user, or per source and object, as configured.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use machinery::object::str_at;
use machinery::status::StatusError;
use serde_json::Value;

use super::configuration::{Given, known};
use super::{Operation, Plugin, Request};

const VERSIONS: [&str; 1] = ["eventratelimit.admission.k8s.io/v1alpha1"];
const CACHE_SIZE: usize = 4096;

pub struct EventRateLimit(Vec<Limit>);

struct Limit {
    kind: Kind,
    qps: f64,
    burst: f64,
    /// So many buckets are kept; the one not used for longest goes first.
    size: usize,
    buckets: Mutex<VecDeque<(String, Bucket)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Server,
    Namespace,
    User,
    SourceAndObject,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn take(&mut self, qps: f64, burst: f64, now: Instant) -> bool {
        self.tokens = (self.tokens + now.saturating_duration_since(self.filled).as_secs_f64() * qps).min(burst);
        self.filled = now;
        let some = self.tokens >= 1.0;
        if some {
            self.tokens -= 1.0;
        }
        some
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Server => "Server",
            Self::Namespace => "Namespace",
            Self::User => "User",
            Self::SourceAndObject => "SourceAndObject",
        }
    }

    fn key(self, request: &Request<'_>, event: &Value) -> String {
        match self {
            Self::Server => String::new(),
            Self::Namespace => request.namespace.to_owned(),
            Self::User => request.user.name.clone(),
            Self::SourceAndObject => {
                let object = if event.get("involvedObject").is_some() { "involvedObject" } else { "regarding" };
                let paths = ["source.component", "source.host"].map(str::to_owned);
                let more = ["kind", "namespace", "name", "uid", "apiVersion"].map(|key| format!("{object}.{key}"));
                paths.iter().chain(&more).map(|path| str_at(event, path)).collect()
            }
        }
    }
}

impl EventRateLimit {
    pub fn new(given: Option<&Given>) -> Result<Self, String> {
        let given = given.ok_or("limits: Required value: this plugin needs a configuration")?;
        given.expect(&VERSIONS, "Configuration", &["limits"])?;
        let limits = given.tree.get("limits").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if limits.is_empty() {
            return Err("limits: Invalid value: [] : no limits specified".to_owned());
        }
        limits.iter().enumerate().map(|(i, limit)| Limit::parse(limit, &format!("limits[{i}]."))).collect::<Result<_, _>>().map(Self)
    }
}

impl Limit {
    fn parse(limit: &Value, path: &str) -> Result<Self, String> {
        known(limit, path, &["type", "qps", "burst", "cacheSize"])?;
        let kinds = [Kind::Server, Kind::Namespace, Kind::User, Kind::SourceAndObject];
        let given = str_at(limit, "type");
        let kind = kinds.into_iter().find(|k| k.name() == given).ok_or_else(|| format!("{path}type: Unsupported value: {given:?}"))?;
        let positive = |key: &str| {
            let number = limit[key].as_i64().unwrap_or(0);
            u32::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| format!("{path}{key}: Invalid value: {number}: must be positive"))
        };
        let size = match limit["cacheSize"].as_i64().unwrap_or(0) {
            0 => CACHE_SIZE,
            given => usize::try_from(given).map_err(|_| format!("{path}cacheSize: Invalid value: {given}: must not be negative"))?,
        };
        let size = if kind == Kind::Server { 1 } else { size };
        Ok(Self { kind, qps: positive("qps")?.into(), burst: positive("burst")?.into(), size, buckets: Mutex::default() })
    }

    fn accepts(&self, key: &str, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let found = buckets.iter().position(|(known, _)| known == key).and_then(|at| buckets.remove(at));
        let (key, mut bucket) = found.unwrap_or_else(|| (key.to_owned(), Bucket { tokens: self.burst, filled: now }));
        let accepted = bucket.take(self.qps, self.burst, now);
        buckets.push_front((key, bucket));
        buckets.truncate(self.size);
        accepted
    }
}

#[async_trait]
impl Plugin for EventRateLimit {
    fn handles(&self, request: &Request<'_>) -> bool {
        let is_event = request.resource.kind == "Event" && request.subresource.is_empty();
        is_event && matches!(request.operation, Operation::Create | Operation::Update) && !request.dry_run
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, _old: Option<&Value>) -> Result<(), StatusError> {
        let now = Instant::now();
        let refused = self.0.iter().filter_map(|limit| {
            let key = limit.kind.key(request, value);
            (!limit.accepts(&key, now)).then(|| format!("limit reached on type {} for key {key}", limit.kind.name()))
        });
        let refused: Vec<String> = refused.collect();
        if refused.is_empty() { Ok(()) } else { Err(StatusError::too_many_requests(machinery::field::aggregate(&refused), 0)) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn given(limits: &Value) -> Given {
        let tree = json!({"apiVersion": VERSIONS[0], "kind": "Configuration", "limits": limits});
        Given { tree, ..Given::default() }
    }

    #[test]
    fn buckets_fill_again_and_the_oldest_goes() {
        let plugin = EventRateLimit::new(Some(&given(&json!([{"type": "Namespace", "qps": 2, "burst": 3, "cacheSize": 2}])))).unwrap();
        let (limit, start) = (&plugin.0[0], Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!([0; 4].map(|ms| limit.accepts("a", at(ms))), [true, true, true, false]);
        assert!(limit.accepts("b", at(0)) && limit.accepts("a", at(500)) && !limit.accepts("a", at(600)));
        // A third key drives the first out: it starts anew.
        assert!(limit.accepts("b", at(700)) && limit.accepts("c", at(700)) && limit.accepts("a", at(700)));
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        assert!(EventRateLimit::new(None).is_err());
        for bad in [
            json!([]),
            json!([{"type": "Cluster", "qps": 1, "burst": 1}]),
            json!([{"type": "User", "qps": 0, "burst": 1}]),
            json!([{"type": "User", "qps": 1, "burst": -1}]),
            json!([{"type": "User", "qps": 1, "burst": 1, "cacheSize": -1}]),
            json!([{"type": "User", "qps": 1, "burst": 1, "cache": 1}]),
        ] {
            assert!(EventRateLimit::new(Some(&given(&bad))).is_err(), "{bad}");
        }
    }
}
