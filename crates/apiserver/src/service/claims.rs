//! What Services hold, as keys of the store, and making and freeing them.

use machinery::object::{self, str_at};
use machinery::status::StatusError;
use serde_json::{Value, json};
use store::{Expect, Op};

use crate::state::{Api, store_error};
use crate::verbs::Target;
use crate::verbs::write::Ctx;
use crate::{codec, identifiers, registry};

/// Where a node port is claimed; the value names the Service.
pub const PORTS_PREFIX: &str = "/registry/skiff/nodeports";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    Address(String),
    /// `TCP/30001`
    Port(String),
}

/// The claims made for one write that is not yet done.
#[derive(Default)]
pub struct Claims(Vec<Claim>);

impl Claims {
    /// The write failed: gives all back.
    pub async fn release(&self, api: &Api) {
        free(api, &self.0).await;
    }

    /// Claims an address by creating its IPAddress. `false`: somebody has it.
    pub async fn address(&mut self, ctx: &Ctx, target: &Target, service: &Value, ip: &str) -> Result<bool, StatusError> {
        let Some(resource) = ctx.api.registry.kind("networking.k8s.io", "IPAddress") else {
            return Err(StatusError::internal("no IPAddress kind"));
        };
        let object = address_object(ip, &target.resource.resource, &target.namespace, object::name(service), &ctx.now);
        let key = registry::key(&resource, "", ip);
        self.claim(ctx, Claim::Address(ip.to_owned()), &key, codec::encode(&object)).await
    }

    /// Claims a node port. `false`: somebody has it.
    pub async fn port(&mut self, ctx: &Ctx, target: &Target, protocol: &str, port: i64) -> Result<bool, StatusError> {
        let name = format!("{protocol}/{port}");
        let key = format!("{PORTS_PREFIX}/{name}");
        let value = json!({"namespace": target.namespace, "name": target.name}).to_string();
        self.claim(ctx, Claim::Port(name), &key, value.into()).await
    }

    async fn claim(&mut self, ctx: &Ctx, claim: Claim, key: &str, value: bytes::Bytes) -> Result<bool, StatusError> {
        let op = Op::Put { key: key.into(), value, expect: Expect::Absent, ttl: None };
        match ctx.api.store.write(op).await {
            Ok(_) => {
                self.0.push(claim);
                Ok(true)
            }
            Err(store::Error::Conflict(_)) => Ok(false),
            Err(e) => Err(store_error(e)),
        }
    }
}

/// The IPAddress that claims an address for a Service.
pub fn address_object(ip: &str, resource: &str, namespace: &str, name: &str, now: &str) -> Value {
    let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
    json!({
        "kind": "IPAddress", "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "name": ip, "uid": identifiers::uuid(), "creationTimestamp": now,
            "labels": {"ipaddress.kubernetes.io/ip-family": family, "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"},
        },
        "spec": {"parentRef": {"group": "", "resource": resource, "namespace": namespace, "name": name}},
    })
}

/// What a Service holds.
pub fn held(service: &Value) -> Vec<Claim> {
    let mut out = Vec::new();
    let addresses = service.pointer("/spec/clusterIPs").and_then(Value::as_array);
    for ip in addresses.into_iter().flatten().filter_map(Value::as_str).filter(|ip| !matches!(*ip, "" | "None")) {
        out.push(Claim::Address(ip.to_owned()));
    }
    for port in service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten() {
        if let Some(number) = port.get("nodePort").and_then(Value::as_i64).filter(|n| *n > 0) {
            let claim = Claim::Port(format!("{}/{number}", protocol(port)));
            if !out.contains(&claim) {
                out.push(claim);
            }
        }
    }
    if let Some(number) = service.pointer("/spec/healthCheckNodePort").and_then(Value::as_i64).filter(|n| *n > 0) {
        out.push(Claim::Port(format!("TCP/{number}")));
    }
    out
}

pub fn protocol(port: &Value) -> &str {
    match str_at(port, "protocol") {
        "" => "TCP",
        given => given,
    }
}

pub async fn free(api: &Api, claims: &[Claim]) {
    for claim in claims {
        let key = match claim {
            Claim::Address(ip) => match api.registry.kind("networking.k8s.io", "IPAddress") {
                Some(resource) => registry::key(&resource, "", ip),
                None => continue,
            },
            Claim::Port(name) => format!("{PORTS_PREFIX}/{name}"),
        };
        let op = Op::Delete { key: key.as_str().into(), expect: Expect::Anything };
        match api.store.write(op).await {
            Ok(_) | Err(store::Error::Conflict(_)) => {}
            // The repair on the next start finds it.
            Err(e) => tracing::warn!(%key, error = %e, "a Service's claim could not be released"),
        }
    }
}
