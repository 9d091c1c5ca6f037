//! EndpointSlices of Services that select pods. Upstream's `endpointslice` controller and `staging/src/k8s.io/endpointslice`.

mod plan;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::core::v1::{Node, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::action::Outcome;
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta, pods, selector};

pub const CONTROLLER: Controller = Controller {
    name: "endpointslice-controller",
    identity: "endpointslice-controller",
    component: "endpoint-slice-controller",
    watches: &[
        Watch::Services(|_, service| vec![meta::key(service)]),
        Watch::Pods(services_of_pod),
        Watch::EndpointSlices(|_, slice| {
            let service = meta::label(slice, plan::SERVICE_LABEL);
            let ours = meta::label(slice, plan::MANAGED_BY_LABEL) == Some(plan::MANAGED_BY);
            service.filter(|_| ours).map(|name| Key::new(meta::namespace(slice), name)).into_iter().collect()
        }),
    ],
    reconcile,
};

/// Services whose selector matches a pod.
pub(crate) fn services_of_pod(view: &View<'_>, pod: &Pod) -> Vec<Key> {
    let services = view.services.list_namespace(meta::namespace(pod));
    let selecting = services.iter().filter(|service| {
        let wanted = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        wanted.is_some_and(|wanted| selector::has_all(wanted, pod.metadata.labels.as_ref()))
    });
    selecting.map(|service| meta::key(&**service)).collect()
}

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let service = view.services.get(&key.namespace, &key.name).filter(|service| !meta::is_deleting(&**service));
    let Some(service) = service else { return Outcome::nothing() };
    let Some(spec) = service.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName")) else { return Outcome::nothing() };
    let Some(wanted) = &spec.selector else { return Outcome::nothing() };
    let selected: Vec<_> = view.pods.list_namespace(&key.namespace);
    let selected: Vec<&Pod> =
        selected.iter().map(|pod| &**pod).filter(|pod| selector::has_all(wanted, pod.metadata.labels.as_ref())).collect();
    let mut desired = plan::Desired::default();
    for family in families(&service) {
        desired.ensure(&family);
        for pod in selected.iter().filter(|pod| is_endpoint(pod, true)) {
            if let Some(endpoint) = endpoint(view, &service, pod, &family) {
                desired.add(&family, ports(&service, pod), endpoint);
            }
        }
    }
    desired.trigger = last_trigger(&service, &selected);
    plan::actions(view, &service, desired, context).into()
}

/// Address types: the Service's families; a headless one without any has IPv4.
fn families(service: &Service) -> Vec<String> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    if families.is_empty() { vec!["IPv4".to_owned()] } else { families }
}

/// Upstream's `ShouldPodBeInEndpoints`.
pub(crate) fn is_endpoint(pod: &Pod, with_terminating: bool) -> bool {
    let has_ip = pod.status.as_ref().is_some_and(|status| status.pod_ip.as_ref().is_some_and(|ip| !ip.is_empty()));
    !pods::is_finished(pod) && has_ip && (with_terminating || !meta::is_deleting(pod))
}

fn endpoint(view: &View<'_>, service: &Service, pod: &Pod, family: &str) -> Option<Endpoint> {
    let address = address_of(pod, family)?;
    let spec = service.spec.as_ref()?;
    let node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let node = node_name.as_ref().and_then(|name| view.nodes.get("", name));
    let (serving, terminating) = (pods::is_ready(pod), meta::is_deleting(pod));
    let ready = spec.publish_not_ready_addresses == Some(true) || (serving && !terminating);
    let zone = node.as_ref().and_then(|node| meta::label(&**node, "topology.kubernetes.io/zone")).map(str::to_owned);
    Some(Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions { ready: Some(ready), serving: Some(serving), terminating: Some(terminating) }),
        hints: hints(spec.traffic_distribution.as_deref(), ready, node.as_deref(), zone.as_deref()),
        hostname: hostname(service, pod),
        target_ref: Some(target(pod)),
        node_name,
        zone,
        deprecated_topology: None,
    })
}

pub(crate) fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// A pod's name in DNS, when it has one under this Service.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.as_ref().filter(|hostname| !hostname.is_empty())?;
    (spec.subdomain.as_deref() == Some(meta::name(service))).then(|| hostname.clone())
}

pub(crate) fn address_of(pod: &Pod, family: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let mut all = status.pod_ips.iter().flatten().map(|ip| &ip.ip).chain(&status.pod_ip);
    all.find(|ip| ip.contains(':') == (family == "IPv6")).cloned()
}

fn hints(distribution: Option<&str>, ready: bool, node: Option<&Node>, zone: Option<&str>) -> Option<EndpointHints> {
    let near = matches!(distribution, Some("PreferClose" | "PreferSameZone" | "PreferSameNode"));
    if !near || !ready {
        return None;
    }
    let for_zones = zone.map(|zone| vec![ForZone { name: zone.to_owned() }]);
    let same_node = distribution == Some("PreferSameNode");
    let for_nodes = node.filter(|_| same_node).map(|node| vec![ForNode { name: meta::name(node).to_owned() }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

/// The Service's ports as this pod serves them; a named target that it lacks is left out.
fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let all = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let one = |port: &ServicePort| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(target_port(pod, port)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
    };
    all.filter_map(one).collect()
}

/// Upstream's `podutil.FindPort`.
pub(crate) fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let all = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let mut matching = all.filter(|one| one.name.as_ref() == Some(name) && one.protocol.as_deref().unwrap_or("TCP") == protocol);
    matching.next().map(|one| one.container_port)
}

/// When the newest change was that these endpoints show: of the Service, or of a pod's readiness.
pub(crate) fn last_trigger(service: &Service, selected: &[&Pod]) -> jiff::Timestamp {
    let ready = |pod: &&Pod| pods::condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref()).map(|time| time.0);
    selected.iter().filter_map(ready).chain([meta::created(service)]).max().unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// Labels of a Service as its slices and Endpoints carry them.
pub(crate) fn inherited_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| key != plan::SERVICE_LABEL && key != plan::MANAGED_BY_LABEL && key != plan::HEADLESS_LABEL);
    let headless = service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"));
    if headless {
        labels.insert(plan::HEADLESS_LABEL.to_owned(), String::new());
    }
    labels
}

#[cfg(test)]
mod tests;
