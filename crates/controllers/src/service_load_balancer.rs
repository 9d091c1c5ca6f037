//! The embedded load balancer: a Service of type LoadBalancer answers on the addresses of the nodes. In the place of
//! upstream's `service-controller` and a cloud.

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Node, Service};
use serde_json::json;

use crate::action::{Action, Event, Outcome, to_value};
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta};

pub const CONTROLLER: Controller = Controller {
    name: "service-lb-controller",
    identity: "service-controller",
    component: "service-controller",
    watches: &[Watch::Services(|_, service| vec![meta::key(service)]), Watch::Nodes(balanced_services)],
    reconcile,
};

/// Nodes that must not be used, as upstream's service controller honours it.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

fn is_balanced(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none())
}

fn balanced_services(view: &View<'_>, _node: &Node) -> Vec<Key> {
    view.services.list().iter().filter(|service| is_balanced(service)).map(|service| meta::key(&**service)).collect()
}

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(service) = view.services.get(&key.namespace, &key.name) else { return Outcome::nothing() };
    if !context.config.embedded_load_balancer || meta::is_deleting(&*service) {
        return Outcome::nothing();
    }
    let has = service.status.as_ref().and_then(|status| status.load_balancer.clone()).unwrap_or_default();
    let was_balanced = has.ingress.as_ref().is_some_and(|ingress| !ingress.is_empty());
    if !is_balanced(&service) {
        let foreign = service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"));
        if foreign || !was_balanced {
            return Outcome::nothing();
        }
        let event = Event::normal(&*service, "DeletedLoadBalancer", "Deleted load balancer".to_owned());
        return vec![write(&service, &LoadBalancerStatus::default()).tell_done(event)].into();
    }
    let ingress = addresses(view, &service);
    let new = LoadBalancerStatus { ingress: (!ingress.is_empty()).then_some(ingress) };
    if new.ingress.is_none() && !was_balanced {
        return Outcome::nothing();
    }
    if new == has {
        return Outcome::nothing();
    }
    let (reason, text) = match (&new.ingress, was_balanced) {
        (None, _) => ("UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer"),
        (_, false) => ("EnsuredLoadBalancer", "Ensured load balancer"),
        (_, true) => ("UpdatedLoadBalancer", "Updated load balancer with new hosts"),
    };
    let mut event = Event::normal(&*service, reason, text.to_owned());
    event.warning = new.ingress.is_none();
    let mut actions = Vec::new();
    if !was_balanced {
        actions.push(Action::Record(Event::normal(&*service, "EnsuringLoadBalancer", "Ensuring load balancer".to_owned())));
    }
    actions.push(write(&service, &new).tell_done(event));
    actions.into()
}

fn write(service: &Service, status: &LoadBalancerStatus) -> Action {
    let mut value = to_value(status);
    if status.ingress.is_none() {
        value = json!({"ingress": null});
    }
    Action::patch(service, json!({"status": {"loadBalancer": value}})).on_subresource("status")
}

/// One address of each family that the Service has, of each usable node: the external one if it has one.
fn addresses(view: &View<'_>, service: &Service) -> Vec<LoadBalancerIngress> {
    let families: Vec<bool> = match service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref()) {
        Some(families) => families.iter().map(|family| family == "IPv6").collect(),
        None => vec![false],
    };
    let mut found = Vec::new();
    for node in view.nodes.list().iter().filter(|node| is_usable(node)) {
        let all: Vec<_> = node.status.iter().flat_map(|status| status.addresses.iter().flatten()).collect();
        for v6 in &families {
            let pick = |kind: &str| all.iter().find(|one| one.type_ == kind && one.address.contains(':') == *v6);
            if let Some(address) = pick("ExternalIP").or_else(|| pick("InternalIP")) {
                found.push(LoadBalancerIngress {
                    ip: Some(address.address.clone()),
                    ip_mode: Some("VIP".to_owned()),
                    ..LoadBalancerIngress::default()
                });
            }
        }
    }
    found
}

fn is_usable(node: &Node) -> bool {
    let ready =
        node.status.iter().flat_map(|status| status.conditions.iter().flatten()).any(|one| one.type_ == "Ready" && one.status == "True");
    ready && meta::label(node, EXCLUDED).is_none() && !meta::is_deleting(node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    fn node(name: &str, ip: &str, ready: &str) -> serde_json::Value {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {
            "addresses": [{"type": "InternalIP", "address": ip}], "conditions": [{"type": "Ready", "status": ready}]}})
    }

    #[test]
    fn a_balanced_service_has_the_addresses_of_ready_nodes() {
        let mut model = Model::new(&[
            node("a", "10.0.0.1", "True"),
            node("b", "10.0.0.2", "False"),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "d", "name": "s"}, "spec": {"type": "LoadBalancer"}}),
        ]);
        let key = Key::new("d", "s");
        let ips = |model: &Model| model.get::<Service>("d", "s")["status"]["loadBalancer"].to_string();
        model.settle(&CONTROLLER, &key);
        assert_eq!(ips(&model), r#"{"ingress":[{"ip":"10.0.0.1","ipMode":"VIP"}]}"#);
        model.merge::<Node>("", "b", &json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
        model.settle(&CONTROLLER, &key);
        assert_eq!(ips(&model), r#"{"ingress":[{"ip":"10.0.0.1","ipMode":"VIP"},{"ip":"10.0.0.2","ipMode":"VIP"}]}"#);
        model.merge::<Service>("d", "s", &json!({"spec": {"type": "ClusterIP"}}));
        model.settle(&CONTROLLER, &key);
        assert_eq!(ips(&model), "{}");
    }
}
