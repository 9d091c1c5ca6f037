//! EndpointSlices of Endpoints that a user keeps: for Services without a selector. Upstream's `endpointslicemirroring`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::action::{Action, Outcome, merge_diff, to_value};
use crate::view::{Context, Key, View, Watch, index};
use crate::{Controller, meta};

pub const CONTROLLER: Controller = Controller {
    name: "endpointslice-mirroring-controller",
    identity: "endpointslicemirroring-controller",
    component: "endpoint-slice-mirroring-controller",
    watches: &[
        Watch::Endpoints(|_, endpoints| vec![meta::key(endpoints)]),
        Watch::Services(|_, service| vec![meta::key(service)]),
        Watch::EndpointSlices(|_, slice| {
            let service = meta::label(slice, index::SERVICE_NAME).filter(|_| is_ours(slice));
            service.map(|name| Key::new(meta::namespace(slice), name)).into_iter().collect()
        }),
    ],
    reconcile,
};

const MANAGED_BY: (&str, &str) = ("endpointslice.kubernetes.io/managed-by", "endpointslicemirroring-controller.k8s.io");
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Addresses of a subset that are mirrored.
const PER_SUBSET_MAX: usize = 1000;

fn is_ours(slice: &EndpointSlice) -> bool {
    meta::label(slice, MANAGED_BY.0) == Some(MANAGED_BY.1)
}

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let existing = view.endpoint_slices.by_index(index::SERVICE_NAME, &key.to_string());
    let mut ours: Vec<Arc<EndpointSlice>> = existing.into_iter().filter(|slice| is_ours(slice) && !meta::is_deleting(&**slice)).collect();
    let wanted = mirrored(view, key).map(|endpoints| slices(&endpoints)).unwrap_or_default();
    let mut actions = Vec::new();
    for mut slice in wanted {
        // The one that has the same ports and family is brought up to date.
        let same = |old: &Arc<EndpointSlice>| {
            let ports = |slice: &EndpointSlice| slice.ports.clone().unwrap_or_default();
            old.address_type == slice.address_type && ports(old) == ports(&slice)
        };
        let Some(at) = ours.iter().position(same) else {
            slice.metadata.name = Some(format!("{}-{}", key.name.get(..57).unwrap_or(&key.name), context.name_suffix()));
            actions.push(Action::create(&slice));
            continue;
        };
        let old = ours.swap_remove(at);
        let shown = |slice: &EndpointSlice| {
            let meta = &slice.metadata;
            json!({"metadata": {"labels": meta.labels, "annotations": meta.annotations.clone().unwrap_or_default()},
                "endpoints": to_value(&slice.endpoints)})
        };
        actions.extend(merge_diff(&shown(&old), &shown(&slice)).map(|patch| Action::update(&*old, patch)));
    }
    actions.extend(ours.iter().map(|slice| Action::delete(&**slice)));
    actions.into()
}

/// The Endpoints of a Service that finds no pods by itself.
fn mirrored(view: &View<'_>, key: &Key) -> Option<Arc<Endpoints>> {
    let service = view.services.get(&key.namespace, &key.name)?;
    let selects = service.spec.as_ref().is_some_and(|spec| spec.selector.as_ref().is_some_and(|selector| !selector.is_empty()));
    let endpoints = view.endpoints.get(&key.namespace, &key.name)?;
    let skipped = meta::label(&*endpoints, SKIP) == Some("true") || meta::annotation(&*endpoints, LEADER).is_some();
    (!selects && !skipped && !meta::is_deleting(&*endpoints)).then_some(endpoints)
}

/// Ports, and who has them by address.
type Group = (Option<Vec<EndpointPort>>, BTreeMap<String, Endpoint>);

/// One per address family and set of ports.
fn slices(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let mut groups: BTreeMap<(String, String), Group> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let of_subset = subset.ports.iter().flatten().map(|port| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port.port),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        });
        let ports: Vec<EndpointPort> = of_subset.collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, ready) in ready.chain(not_ready).take(PER_SUBSET_MAX) {
            let family = if address.ip.contains(':') { "IPv6" } else { "IPv4" };
            let group = groups.entry((family.to_owned(), to_value(&ports).to_string()));
            let (_, members) = group.or_insert_with(|| (Some(ports.clone()), BTreeMap::new()));
            members.entry(address.ip.clone()).or_insert_with(|| endpoint(address, ready));
        }
    }
    let build = |((family, _), (ports, members)): ((String, String), Group)| EndpointSlice {
        metadata: metadata(endpoints),
        address_type: family,
        endpoints: Some(members.into_values().collect()),
        ports,
    };
    groups.into_iter().map(build).collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn metadata(endpoints: &Endpoints) -> ObjectMeta {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(index::SERVICE_NAME.to_owned(), meta::name(endpoints).to_owned());
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    let dropped = BTreeSet::from([TRIGGER, LAST_APPLIED]);
    annotations.retain(|name, _| !dropped.contains(name.as_str()));
    ObjectMeta {
        generate_name: Some(format!("{}-", meta::name(endpoints))),
        namespace: Some(meta::namespace(endpoints).to_owned()),
        labels: Some(labels),
        annotations: (!annotations.is_empty()).then_some(annotations),
        owner_references: Some(vec![meta::controller_ref(endpoints)]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use k8s_openapi::api::core::v1::Service;

    #[test]
    fn what_a_user_keeps_is_mirrored() {
        let subsets = json!([{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 80}]}]);
        let mut model = Model::new(&[
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "d", "name": "s"}, "spec": {"ports": [{"port": 80}]}}),
            json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"namespace": "d", "name": "s", "labels": {"a": "b"}, "annotations": {TRIGGER: "x"}}, "subsets": subsets}),
        ]);
        let key = Key::new("d", "s");
        model.settle(&CONTROLLER, &key);
        let of = |model: &Model, family: &str| {
            let all = model.of_kind::<EndpointSlice>();
            all.into_iter().find(|slice| slice["addressType"] == family).cloned().unwrap()
        };
        let slice = of(&model, "IPv4");
        let shown: Vec<_> = slice["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (one["addresses"][0].clone(), one["conditions"]["ready"].clone()))
            .collect();
        assert_eq!(shown, [(json!("10.0.0.1"), json!(true)), (json!("10.0.0.2"), json!(false))]);
        assert_eq!((&slice["metadata"]["labels"]["a"], &slice["metadata"]["annotations"]), (&json!("b"), &json!(null)));
        assert_eq!(slice["metadata"]["ownerReferences"][0]["kind"], "Endpoints");
        assert_eq!(of(&model, "IPv6")["endpoints"][0]["addresses"], json!(["fd00::1"]));
        // A change goes into the slice that is there.
        let name = slice["metadata"]["name"].clone();
        model.merge::<Endpoints>("d", "s", &json!({"subsets": [{"addresses": [{"ip": "10.0.0.3"}], "ports": [{"port": 80}]}]}));
        model.settle(&CONTROLLER, &key);
        assert_eq!((model.of_kind::<EndpointSlice>().len(), &of(&model, "IPv4")["metadata"]["name"]), (1, &name));
        // A Service that selects has slices of its own.
        model.merge::<Service>("d", "s", &json!({"spec": {"selector": {"a": "b"}}}));
        model.settle(&CONTROLLER, &key);
        assert_eq!(model.of_kind::<EndpointSlice>().len(), 0);
    }

    #[test]
    fn what_says_so_is_not_mirrored() {
        let mut model = Model::new(&[
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "d", "name": "s"}, "spec": {}}),
            json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"namespace": "d", "name": "s", "labels": {SKIP: "true"}}, "subsets": [{"addresses": [{"ip": "10.0.0.1"}]}]}),
        ]);
        model.settle(&CONTROLLER, &Key::new("d", "s"));
        assert_eq!(model.of_kind::<EndpointSlice>().len(), 0);
    }
}
