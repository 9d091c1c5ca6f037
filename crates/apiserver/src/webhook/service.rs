//! The address of a Service: one of its ready endpoints, or its cluster IP where it has none (upstream's `ServiceResolver`).
//! Endpoints may be written by anybody, so those on this host, on a link or of this server are passed over.

use std::net::IpAddr;
use std::sync::Arc;

use machinery::object::str_at;
use machinery::status::StatusError;
use serde_json::Value;

use crate::connect::proxyable;
use crate::state::Api;

/// Where to connect to: an address, or for `ExternalName` a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

pub async fn resolve(api: &Arc<Api>, namespace: &str, name: &str, port: u16, turn: usize) -> Result<Address, StatusError> {
    let not_found = || StatusError::not_found(&machinery::gvk::GroupResource::new("", "services"), name);
    let service = api.read_kind("", "Service", namespace, name).await?;
    let service = service.ok_or_else(|| StatusError { message: format!("service {name:?} not found"), ..not_found() })?;
    let service_type = str_at(&service, "spec.type");
    if service_type == "ExternalName" {
        return Ok(Address { host: str_at(&service, "spec.externalName").to_owned(), port });
    }
    let spec_port = find_port(&service, port)
        .ok_or_else(|| StatusError::new(503, "ServiceUnavailable", format!("no service port {port} found for service {name:?}")))?;
    let slices = api.read_all("discovery.k8s.io", "EndpointSlice", namespace).await?;
    let own = slices.iter().filter(|s| s.pointer("/metadata/labels/kubernetes.io~1service-name").is_some_and(|n| n == name));
    let ready = own.flat_map(|slice| endpoints(slice, str_at(spec_port, "name")));
    let ready: Vec<Address> = ready.map(|(host, port, _)| Address { host: host.to_owned(), port }).collect();
    let allowed = |a: &&Address| a.host.parse::<IpAddr>().is_ok_and(|ip| proxyable(api, ip, a.port).is_ok());
    let usable: Vec<&Address> = ready.iter().filter(allowed).collect();
    if !usable.is_empty() {
        return Ok(usable[turn % usable.len()].clone());
    }
    match str_at(&service, "spec.clusterIP") {
        ip @ ("" | "None") => {
            let why = if ready.is_empty() && ip == "None" {
                format!("no endpoints available for service {name:?}")
            } else {
                format!("cannot route to service with ClusterIP {ip:?}")
            };
            Err(StatusError::new(503, "ServiceUnavailable", why))
        }
        ip => Ok(Address { host: ip.to_owned(), port }),
    }
}

fn find_port(service: &Value, port: u16) -> Option<&Value> {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array)?;
    ports.iter().find(|p| p["port"].as_u64() == Some(u64::from(port)))
}

/// The ready endpoints of a slice that have the port, each with its address and the port's number.
pub fn endpoints<'a>(slice: &'a Value, port_name: &str) -> impl Iterator<Item = (&'a str, u16, &'a Value)> {
    let list = |key: &str| slice[key].as_array().map_or(&[][..], Vec::as_slice);
    let port = list("ports").iter().find(|p| str_at(p, "name") == port_name);
    let port = port.and_then(|p| u16::try_from(p["port"].as_u64()?).ok()).filter(|_| str_at(slice, "addressType") != "FQDN");
    let ready = list("endpoints").iter().filter(|e| e.pointer("/conditions/ready") != Some(&Value::Bool(false)));
    ready.filter_map(move |e| Some((e.pointer("/addresses/0")?.as_str()?, port?, e)))
}
