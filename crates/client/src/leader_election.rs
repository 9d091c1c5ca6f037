//! Leader election by a Lease, with upstream's `leaderelection` rules: a holder renews, others take over when the lease
//! has not changed for its duration as seen by their own clock.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;

use crate::Registry;
use crate::metrics::LEADER;
use crate::time::{Clock, Entropy};

/// What to hold, and how fast. [`Election::new`] has upstream's times.
#[derive(Clone, Debug)]
pub struct Election {
    pub namespace: String,
    pub name: String,
    /// Unique among the candidates.
    pub identity: String,
    pub lease_duration: Duration,
    pub renew_deadline: Duration,
    pub retry_period: Duration,
    /// Where it is told whether this process leads.
    pub metrics: Option<Arc<Registry>>,
}

impl Election {
    pub fn new(name: &str, identity: &str) -> Self {
        Self {
            namespace: "kube-system".to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            metrics: None,
        }
    }
}

impl Election {
    fn tell(&self, leads: bool) {
        if let Some(metrics) = &self.metrics {
            metrics.set(&LEADER, &[&self.name], f64::from(u8::from(leads)));
        }
    }
}

/// Holds, or tries to hold, the lease.
#[derive(Debug)]
pub struct Leadership {
    election: Election,
    leases: Api<Lease>,
    clock: Clock,
    entropy: Entropy,
    /// The lease as last seen to change, and when that was by our clock.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Leadership {
    pub fn new(client: Client, election: Election, clock: Clock, entropy: Entropy) -> Self {
        election.tell(false);
        let leases = Api::namespaced(client, &election.namespace);
        Self { election, leases, clock, entropy, seen: None }
    }

    /// Waits until the lease is ours. Cancel safe.
    pub async fn acquire(&mut self) {
        loop {
            match self.try_hold().await {
                Ok(true) => {
                    tracing::info!(lease = %self.election.name, identity = %self.election.identity, "became leader");
                    self.election.tell(true);
                    return;
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, lease = %self.election.name, "cannot take part in the election"),
            }
            let period_ms = u64::try_from(self.election.retry_period.as_millis()).unwrap_or(u64::MAX);
            let jitter = Duration::from_millis(self.entropy.below(period_ms.saturating_mul(12) / 10 + 1));
            tokio::time::sleep(self.election.retry_period + jitter).await;
        }
    }

    /// Renews the lease and returns when it is lost. The caller must stop leading then. Cancel safe.
    pub async fn hold(&mut self) {
        self.renew().await;
        self.election.tell(false);
    }

    async fn renew(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.election.retry_period).await;
            let rest = self.election.renew_deadline.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(rest, self.try_hold()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(%error, lease = %self.election.name, "cannot renew the lease"),
                Err(_) => return,
            }
            if renewed.elapsed() >= self.election.renew_deadline {
                return;
            }
        }
    }

    /// Gives the lease up, so that another can take it at once.
    pub async fn release(&mut self) -> kube::Result<()> {
        self.election.tell(false);
        let Some(mut lease) = self.leases.get_opt(&self.election.name).await? else { return Ok(()) };
        let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.election.identity)) else {
            return Ok(());
        };
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        self.leases.replace(&self.election.name, &PostParams::default(), &lease).await?;
        Ok(())
    }

    async fn try_hold(&mut self) -> kube::Result<bool> {
        let now = self.clock.now();
        let Some(mut lease) = self.leases.get_opt(&self.election.name).await? else {
            let metadata = ObjectMeta {
                name: Some(self.election.name.clone()),
                namespace: Some(self.election.namespace.clone()),
                ..ObjectMeta::default()
            };
            let lease = Lease { metadata, spec: Some(self.held(now, None)) };
            return settle(self.leases.create(&PostParams::default(), &lease).await);
        };
        let old = lease.spec.take().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(spec, _)| *spec != old) {
            self.seen = Some((old.clone(), Instant::now()));
        }
        let holder = old.holder_identity.as_deref().unwrap_or_default();
        let ours = holder == self.election.identity;
        let fresh = self.seen.as_ref().is_some_and(|(spec, at)| at.elapsed() < duration_of(spec));
        if !ours && !holder.is_empty() && fresh {
            return Ok(false);
        }
        lease.spec = Some(self.held(now, Some(&old)));
        settle(self.leases.replace(&self.election.name, &PostParams::default(), &lease).await)
    }

    fn held(&self, now: Timestamp, old: Option<&LeaseSpec>) -> LeaseSpec {
        let old = old.cloned().unwrap_or_default();
        let ours = old.holder_identity.as_deref() == Some(&self.election.identity);
        let transitions = old.lease_transitions.unwrap_or(0);
        let acquired = if ours { old.acquire_time } else { Some(MicroTime(now)) };
        LeaseSpec {
            holder_identity: Some(self.election.identity.clone()),
            lease_duration_seconds: i32::try_from(self.election.lease_duration.as_secs()).ok(),
            acquire_time: acquired,
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if ours || old.holder_identity.is_none() { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }
}

fn duration_of(spec: &LeaseSpec) -> Duration {
    Duration::from_secs(spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0))
}

/// Losing a race is not an error.
fn settle(written: kube::Result<Lease>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
