//! A datastore goes to a real etcd and comes back whole.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::server::Server;
use bytes::Bytes;
use etcd::migrate::{MigrateError, Migration, Phase};
use etcd::{Etcd, Options};
use store::{Embedded, Expect, ListOptions, Op, Store};

async fn fill(store: &dyn Store, keys: u64) {
    for i in 0..keys {
        let key = format!("/registry/{}/ns/{i:05}", ["pods", "events", "configmaps"][usize::try_from(i % 3).unwrap()]);
        let value = Bytes::from(format!("{{\"kind\":\"X\",\"n\":{i}}}"));
        store.write(Op::Put { key: key.as_str().into(), value, expect: Expect::Absent, ttl: None }).await.unwrap();
        // A history, so that the revision is ahead of the number of keys.
        if i % 2 == 0 {
            let value = Bytes::from(format!("{{\"kind\":\"X\",\"m\":{i}}}"));
            store.write(Op::Put { key: key.as_str().into(), value, expect: Expect::Anything, ttl: None }).await.unwrap();
        }
    }
    let passing = Op::Put { key: "/registry/masterleases/10.0.0.1".into(), value: "x".into(), expect: Expect::Anything, ttl: None };
    store.write(passing).await.unwrap();
}

async fn content(store: &dyn Store) -> BTreeMap<String, Bytes> {
    let all = store.list("/registry/", ListOptions::default()).await.unwrap();
    all.items.into_iter().filter(|i| !i.key.contains("masterleases")).map(|i| (i.key.to_string(), i.value)).collect()
}

async fn migrate(from: &dyn Store, to: &dyn Store, phases: &Mutex<Vec<Phase>>) -> Result<etcd::migrate::Summary, MigrateError> {
    let progress = |phase, done, total| {
        assert!(done <= total);
        let mut phases = phases.lock().unwrap();
        if phases.last() != Some(&phase) {
            phases.push(phase);
        }
    };
    let ttl = |key: &str| key.contains("/events/").then_some(Duration::from_secs(3600));
    Migration { from, to, form: &|_, value| Ok(value.clone()), ttl: &ttl, progress: &progress }.run().await
}

#[tokio::test]
async fn a_datastore_goes_to_etcd_and_back() {
    let Some(server) = Server::start("migrate") else { return };
    let etcd = Etcd::connect(Options::new([server.url.as_str()])).await.unwrap();
    let first = Embedded::in_memory();
    fill(&first, 2500).await;
    let phases = Mutex::default();
    let summary = migrate(&first, &etcd, &phases).await.unwrap();
    assert_eq!(summary.keys, 2500);
    assert!(summary.to >= summary.from, "{summary:?}: clients never see a revision twice");
    assert_eq!(*phases.lock().unwrap(), [Phase::Copy, Phase::Raise, Phase::Verify]);
    assert_eq!(content(&first).await, content(&etcd).await);
    if let Some(leases) = server.leases() {
        assert_eq!(leases, 1, "events end by themselves");
    }
    assert!(matches!(migrate(&first, &etcd, &phases).await, Err(MigrateError::Occupied(2500))));
    let back = Embedded::in_memory();
    let summary = migrate(&etcd, &back, &phases).await.unwrap();
    assert!(summary.to >= summary.from, "{summary:?}");
    assert_eq!(content(&first).await, content(&back).await);
}
