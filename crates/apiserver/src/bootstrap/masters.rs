//! Which API servers of the cluster live: each keeps a key with a lease, as upstream's lease reconciler does, and
//! `default/kubernetes` leads to all whose key is there. Only where servers share a store.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use store::{Expect, ListOptions, Op};
use tokio_util::sync::CancellationToken;

use super::{ensure_one, objects};
use crate::state::{Api, store_error};

const PREFIX: &str = "/registry/masterleases/";
/// Upstream's times.
const TTL: Duration = Duration::from_secs(15);
const EVERY: Duration = Duration::from_secs(10);

/// Says that this server lives, and looks which others do. `true`: that has changed.
pub async fn announce(api: &Api) -> Result<bool, String> {
    let own = api.config.advertised();
    let value = json!({"kind": "Endpoints", "apiVersion": "v1", "metadata": {}, "subsets": [{"addresses": [{"ip": own.to_string()}]}]});
    let op = Op::Put { key: key(own).into(), value: value.to_string().into(), expect: Expect::Anything, ttl: Some(TTL) };
    api.store.write(op).await.map_err(|e| store_error(e).message)?;
    look(api).await
}

async fn look(api: &Api) -> Result<bool, String> {
    let listing = api.store.list(PREFIX, ListOptions::default()).await.map_err(|e| store_error(e).message)?;
    let living = listing.items.iter().filter_map(|item| item.key.strip_prefix(PREFIX)?.parse().ok());
    let living: Arc<BTreeSet<IpAddr>> = Arc::new(living.collect());
    let before = api.masters.swap(living.clone());
    Ok(before != living)
}

fn key(address: IpAddr) -> String {
    format!("{PREFIX}{address}")
}

/// Keeps announcing; says at the end that this server is gone.
pub async fn keep(api: Arc<Api>, cancel: CancellationToken) {
    loop {
        tokio::select! { biased;
            () = cancel.cancelled() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
        let round = async {
            if announce(&api).await? {
                lead(&api).await?;
            }
            Ok::<_, String>(())
        };
        if let Err(error) = round.await {
            tracing::warn!(%error, "where default/kubernetes leads could not be looked after");
        }
    }
    let gone = async {
        let op = Op::Delete { key: key(api.config.advertised()).into(), expect: Expect::Anything };
        api.store.write(op).await.map_err(|e| store_error(e).message)?;
        if look(&api).await? && !api.masters.load().is_empty() {
            lead(&api).await?;
        }
        Ok::<_, String>(())
    };
    if let Err(error) = gone.await {
        tracing::warn!(%error, "this server could not be taken out of default/kubernetes");
    }
}

/// Has `default/kubernetes` lead to all that live.
async fn lead(api: &Arc<Api>) -> Result<(), String> {
    for object in objects::own_service(api) {
        ensure_one(api, &object).await?;
    }
    Ok(())
}
