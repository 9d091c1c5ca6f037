//! Leases for keys that end by themselves. As upstream does it, keys written within a while share one: a lease per event
//! would cost etcd more than the event.

use std::collections::HashMap;
use std::time::Duration;

use store::{Error, Result};
use tokio::time::Instant;

use crate::endpoints::{Endpoints, Kind, with_leader};
use crate::etcdserverpb::LeaseGrantRequest;
use crate::etcdserverpb::lease_client::LeaseClient;

/// A lease takes new keys for so long, but at most for a twentieth of the time to live.
const REUSE_MAX: Duration = Duration::from_secs(60);
const KEYS_MAX: u32 = 1000;

#[derive(Default)]
pub struct Leases(tokio::sync::Mutex<HashMap<u64, Lease>>);

struct Lease {
    id: i64,
    ends: Instant,
    keys: u32,
}

impl Leases {
    /// A lease that lives for at least so long.
    pub async fn of(&self, endpoints: &Endpoints, ttl: Duration) -> Result<i64> {
        let seconds = ttl.as_millis().div_ceil(1000).max(1);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX).min(i32::MAX as u64);
        let mut all = self.0.lock().await;
        let now = Instant::now();
        if let Some(lease) = all.get_mut(&seconds).filter(|l| l.ends > now + ttl && l.keys < KEYS_MAX) {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let reuse = (seconds / 20).min(REUSE_MAX.as_secs());
        let granted = i64::try_from(seconds + reuse).unwrap_or(i64::MAX);
        // A grant made twice leaves a lease without keys, which ends by itself.
        let answer = endpoints.call(Kind::Read, |channel| async move {
            LeaseClient::new(channel).lease_grant(with_leader(LeaseGrantRequest { ttl: granted, id: 0 })).await
        });
        let answer = answer.await?;
        if !answer.error.is_empty() {
            return Err(Error::Cluster(answer.error));
        }
        let ends = now + Duration::from_secs(seconds + reuse);
        all.retain(|_, lease| lease.ends > now);
        all.insert(seconds, Lease { id: answer.id, ends, keys: 1 });
        Ok(answer.id)
    }

    /// etcd does not know the lease any more.
    pub async fn forget(&self, id: i64) {
        self.0.lock().await.retain(|_, lease| lease.id != id);
    }
}
