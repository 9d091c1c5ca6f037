//! Endpoints, the older form of EndpointSlices, of Services that select pods. Upstream's `endpoint` controller.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::action::{Action, Event, Outcome, merge_diff, to_value};
use crate::endpoint_slice::{address_of, hostname, inherited_labels, is_endpoint, last_trigger, services_of_pod, target, target_port};
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta, pods, selector};

pub const CONTROLLER: Controller = Controller {
    name: "endpoints-controller",
    identity: "endpoint-controller",
    component: "endpoint-controller",
    watches: &[
        Watch::Services(|_, service| vec![meta::key(service)]),
        Watch::Pods(services_of_pod),
        Watch::Endpoints(|_, endpoints| vec![meta::key(endpoints)]),
    ],
    reconcile,
};

const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");
/// Addresses of an object at most.
const CAPACITY: usize = 1000;

pub fn reconcile(view: &View<'_>, key: &Key, _context: &Context<'_>) -> Outcome {
    let existing = view.endpoints.get(&key.namespace, &key.name);
    let Some(service) = view.services.get(&key.namespace, &key.name) else { return Outcome::nothing() };
    let Some(wanted) = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else { return Outcome::nothing() };
    let external = service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
    if external || meta::is_deleting(&*service) {
        return Outcome::nothing();
    }
    let all = view.pods.list_namespace(&key.namespace);
    let selected: Vec<&Pod> = all.iter().map(|pod| &**pod).filter(|pod| selector::has_all(wanted, pod.metadata.labels.as_ref())).collect();
    let (subsets, truncated) = subsets(&service, &selected);
    let mut labels = inherited_labels(&service);
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    let trigger = last_trigger(&service, &selected).to_string();
    let Some(existing) = existing else {
        let mut annotations = BTreeMap::from([(TRIGGER.to_owned(), trigger)]);
        if truncated {
            annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
        }
        let metadata = ObjectMeta {
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        };
        let new = Endpoints { metadata, subsets: (!subsets.is_empty()).then_some(subsets) };
        let failed = format!("Failed to create endpoint for service {key}: {{}}");
        return vec![Action::create(&new).tell_failed(Event::warning(&*service, "FailedToCreateEndpoint", failed))].into();
    };
    update(&existing, &subsets, &labels, truncated, &trigger).into_iter().collect::<Vec<_>>().into()
}

fn update(
    existing: &Endpoints,
    subsets: &[EndpointSubset],
    labels: &BTreeMap<String, String>,
    truncated: bool,
    trigger: &str,
) -> Option<Action> {
    let mut patch = json!({});
    if existing.subsets.as_deref().unwrap_or_default() != subsets {
        patch["subsets"] = if subsets.is_empty() { json!(null) } else { to_value(&subsets) };
    }
    let old_labels = existing.metadata.labels.clone().unwrap_or_default();
    if let Some(diff) = merge_diff(&to_value(&old_labels), &to_value(labels)) {
        patch["metadata"]["labels"] = diff;
    }
    if meta::annotation(existing, OVER_CAPACITY).is_some() != truncated {
        patch["metadata"]["annotations"][OVER_CAPACITY] = if truncated { json!("truncated") } else { json!(null) };
    }
    if patch.as_object().is_none_or(serde_json::Map::is_empty) {
        return None;
    }
    patch["metadata"]["annotations"][TRIGGER] = json!(trigger);
    let failed = format!("Failed to update endpoint {}: {{}}", meta::key(existing));
    Some(Action::update(existing, patch).tell_failed(Event::warning(existing, "FailedToUpdateEndpoint", failed)))
}

/// Addresses with the same ports share a subset; whether some were left out.
fn subsets(service: &Service, selected: &[&Pod]) -> (Vec<EndpointSubset>, bool) {
    let Some(spec) = service.spec.as_ref() else { return (Vec::new(), false) };
    let unready_too = spec.publish_not_ready_addresses == Some(true);
    let family = spec.ip_families.as_ref().and_then(|families| families.first()).map_or("IPv4", String::as_str);
    let mut by_ports: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    let mut usable: Vec<&Pod> = selected.iter().copied().filter(|pod| is_endpoint(pod, unready_too)).collect();
    let truncated = usable.len() > CAPACITY;
    // Ready ones are the last to be left out.
    usable.sort_by_key(|pod| !pods::is_ready(pod));
    usable.truncate(CAPACITY);
    for pod in usable {
        let Some(ip) = address_of(pod, family) else { continue };
        let address = EndpointAddress {
            ip,
            hostname: hostname(service, pod),
            node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            target_ref: Some(target(pod)),
        };
        let declared = spec.ports.as_deref().unwrap_or_default();
        let ports: Vec<EndpointPort> = declared
            .iter()
            .filter_map(|port| {
                let number = target_port(pod, port)?;
                let protocol = Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()));
                Some(EndpointPort { name: port.name.clone(), port: number, protocol, app_protocol: port.app_protocol.clone() })
            })
            .collect();
        if ports.is_empty() && !declared.is_empty() {
            continue;
        }
        let subset = by_ports.entry(to_value(&ports).to_string()).or_default();
        subset.ports = (!ports.is_empty()).then_some(ports);
        let list = if unready_too || pods::is_ready(pod) { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    let mut subsets: Vec<EndpointSubset> = by_ports.into_values().collect();
    for list in subsets.iter_mut().flat_map(|subset| [&mut subset.addresses, &mut subset.not_ready_addresses]).flatten() {
        list.sort_by(|a, b| a.ip.cmp(&b.ip));
    }
    (subsets, truncated)
}
