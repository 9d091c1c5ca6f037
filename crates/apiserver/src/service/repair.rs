//! What Services hold and nobody has claimed for them: of servers that kept claims elsewhere (upstream's), or of a write cut
//! short. And port claims that no Service holds any more. `bootstrap` runs this at the start and from time to time.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use store::{Expect, ListOptions, Op, Revision};

use super::claims::{self, Claim, PORTS_PREFIX};
use crate::state::{Api, store_error};
use crate::{codec, identifiers, registry};

/// A claim without a Service is freed when it is seen so in so many rounds: before, its Service may be about to be written.
const ROUNDS: u32 = 3;

/// Claims seen without a Service, by key: when made, and in how many rounds.
#[derive(Default)]
pub struct Leaks(HashMap<String, (Revision, u32)>);

/// One round.
pub async fn run(api: &Api, leaks: &mut Leaks) -> Result<(), String> {
    let failed = |e| store_error(e).message;
    let Some(services) = api.registry.kind("", "Service") else { return Ok(()) };
    let ports = api.store.list(&format!("{PORTS_PREFIX}/"), ListOptions::default()).await.map_err(failed)?;
    let stored = api.store.list(&registry::prefix(&services, ""), ListOptions::default()).await.map_err(failed)?;
    let addresses = match api.registry.kind("networking.k8s.io", "IPAddress") {
        Some(row) => api.store.list(&registry::prefix(&row, ""), ListOptions::default()).await.map_err(failed)?.items,
        None => Vec::new(),
    };
    let claimed: HashSet<&str> = ports.items.iter().chain(&addresses).map(|i| &*i.key).collect();
    let mut held = HashSet::new();
    for item in &stored.items {
        let service = codec::decode(&item.value, item.mod_revision);
        for claim in claims::held(&service) {
            let Some((key, value)) = missing(api, &claim, &service) else { continue };
            held.insert(key.clone());
            if claimed.contains(&*key) {
                continue;
            }
            let op = Op::Put { key: key.as_str().into(), value, expect: Expect::Absent, ttl: None };
            match api.store.write(op).await {
                Ok(_) => tracing::info!(%key, "claimed for a Service that holds it"),
                Err(store::Error::Conflict(_)) => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
    let mut seen = HashMap::new();
    for item in ports.items.iter().filter(|i| !held.contains(&*i.key)) {
        let rounds = leaks.0.get(&*item.key).filter(|(revision, _)| *revision == item.mod_revision).map_or(0, |(_, rounds)| *rounds) + 1;
        if rounds < ROUNDS {
            seen.insert(item.key.to_string(), (item.mod_revision, rounds));
            continue;
        }
        let op = Op::Delete { key: item.key.clone(), expect: Expect::Revision(item.mod_revision) };
        match api.store.write(op).await {
            Ok(_) => tracing::info!(key = %item.key, "freed: no Service holds it"),
            Err(store::Error::Conflict(_)) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    leaks.0 = seen;
    Ok(())
}

/// What claims this for a Service.
fn missing(api: &Api, claim: &Claim, service: &Value) -> Option<(String, bytes::Bytes)> {
    let (namespace, name) = (machinery::object::namespace(service), machinery::object::name(service));
    match claim {
        Claim::Port(port) => Some((format!("{PORTS_PREFIX}/{port}"), json!({"namespace": namespace, "name": name}).to_string().into())),
        Claim::Address(ip) => {
            let resource = api.registry.kind("networking.k8s.io", "IPAddress")?;
            let object = claims::address_object(ip, "services", namespace, name, &identifiers::now());
            Some((registry::key(&resource, "", ip), codec::encode(&object)))
        }
    }
}
