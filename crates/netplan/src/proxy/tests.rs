//! What each kind of Service becomes, and what holds for any set of Services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::nft::{Expr, Family, Field, Key, Table, Value, Verdict, apply, create, diff};

fn config() -> ProxyConfig {
    ProxyConfig {
        table: "t".into(),
        node_name: "here".into(),
        zone: Some("z1".into()),
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        ..ProxyConfig::default()
    }
}

fn service(name: &str, spec: Json) -> Service {
    let status = json!({"loadBalancer": {"ingress": spec["lb"].clone()}});
    serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec, "status": status})).unwrap()
}

fn slice(endpoints: Json) -> EndpointSlice {
    serde_json::from_value(json!({"metadata": {"name": "s"}, "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints}))
        .unwrap()
}

fn planned(objects: &[(Service, EndpointSlice)]) -> ProxyPlan {
    plan(&config(), objects.iter().map(|(service, slice)| (service, vec![slice])))
}

fn shown(key: &[Field]) -> String {
    let part = |f: &Field| match f {
        Field::Addr(a) => a.to_string(),
        Field::Proto(p) => format!("{p:?}").to_lowercase(),
        Field::Port(p) => p.to_string(),
        Field::Slot(n) => format!("#{n}"),
    };
    key.iter().map(part).collect::<Vec<_>>().join(".")
}

/// A map as lines "key -> value".
fn lines(table: &Table, set: &str) -> Vec<String> {
    let line = |(key, value): (&Key, &Value)| {
        let value = match value {
            Value::None => return shown(key),
            Value::Fields(f) => shown(f),
            Value::Verdict(Verdict::Goto(chain)) => chain.to_string(),
            Value::Verdict(v) => format!("{v:?}").to_lowercase(),
        };
        format!("{} -> {value}", shown(key))
    };
    table.sets[set].elements.iter().map(line).collect()
}

fn check(spec: Json, endpoints: Json, expected: &[(&str, &[&str])]) {
    let plan = planned(&[(service("svc", spec), slice(endpoints))]);
    assert_eq!(plan.v4.dangling(), None);
    for (set, expected) in expected {
        assert_eq!(lines(&plan.v4, set), *expected, "{set}");
    }
}

fn two() -> Json {
    json!([{"addresses": ["10.244.0.5"], "nodeName": "here"}, {"addresses": ["10.244.1.5"], "nodeName": "there"}])
}

#[test]
fn cluster_ip() {
    check(
        json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}),
        two(),
        &[
            ("services", &["10.96.0.1.tcp.80 -> services-masq-outside-2"]),
            ("services-endpoints", &["10.96.0.1.tcp.80.#0 -> 10.244.0.5.8080", "10.96.0.1.tcp.80.#1 -> 10.244.1.5.8080"]),
            ("no-endpoints", &[]),
            ("cluster-ips", &["10.96.0.1"]),
            ("hairpin", &["10.244.0.5.10.244.0.5"]),
        ],
    );
}

#[test]
fn internal_policy_local_and_affinity() {
    check(
        json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}], "internalTrafficPolicy": "Local", "sessionAffinity": "ClientIP"}),
        two(),
        &[
            ("services", &["10.96.0.1.tcp.80 -> services-masq-outside-sticky-10800-1"]),
            ("services-endpoints", &["10.96.0.1.tcp.80.#0 -> 10.244.0.5.8080"]),
        ],
    );
    let elsewhere = json!([{"addresses": ["10.244.1.5"], "nodeName": "there"}]);
    let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}], "internalTrafficPolicy": "Local"});
    check(spec, elsewhere, &[("services", &[]), ("no-endpoints", &["10.96.0.1.tcp.80 -> drop"])]);
}

#[test]
fn nobody_answers() {
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.1", "ports": [{"port": 80, "nodePort": 30080, "protocol": "UDP"}]});
    check(
        spec,
        json!([]),
        &[("services", &[]), ("no-endpoints", &["10.96.0.1.udp.80 -> reject"]), ("no-endpoint-node-ports", &["udp.30080 -> reject"])],
    );
}

#[test]
fn load_balancer_with_policy_local() {
    let spec = json!({"type": "LoadBalancer", "clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
        "externalIPs": ["192.0.2.8"], "lb": [{"ip": "192.0.2.9"}, {"ip": "192.0.2.10", "ipMode": "Proxy"}],
        "loadBalancerSourceRanges": ["198.51.100.0/24"], "ports": [{"port": 80, "nodePort": 30080}]});
    check(
        spec.clone(),
        two(),
        &[
            (
                "services",
                &["10.96.0.1.tcp.80 -> services-masq-outside-2", "192.0.2.8.tcp.80 -> services-1", "192.0.2.9.tcp.80 -> services-1"],
            ),
            (
                "inside-services",
                &["192.0.2.8.tcp.80 -> inside-services-masq-outside-2", "192.0.2.9.tcp.80 -> inside-services-masq-outside-2"],
            ),
            ("node-ports", &["tcp.30080 -> node-ports-1"]),
            ("inside-node-ports", &["tcp.30080 -> inside-node-ports-masq-outside-2"]),
            ("firewall", &["192.0.2.9.tcp.80 -> firewall-ns-svc-6-80-0"]),
        ],
    );
    let plan = planned(&[(service("svc", spec), slice(two()))]);
    let expected = HealthCheck { namespace: "ns".into(), name: "svc".into(), local_endpoints: 1 };
    assert_eq!(plan.health_checks, BTreeMap::from([(31000, expected)]));
}

#[test]
fn services_that_are_not_ours() {
    for spec in [
        json!({"clusterIP": "None", "ports": [{"port": 80}]}),
        json!({"clusterIP": "", "ports": [{"port": 80}]}),
        json!({"type": "ExternalName", "externalName": "example.com", "ports": [{"port": 80}]}),
        json!({"clusterIP": "10.96.0.1", "ports": [{"port": 99999}]}),
    ] {
        check(spec, two(), &[("services", &[]), ("cluster-ips", &[]), ("no-endpoints", &[])]);
    }
    let local = ProxyConfig { local_vips: ["10.96.0.10".parse().unwrap()].into(), ..config() };
    let dns = service("dns", json!({"clusterIP": "10.96.0.10", "ports": [{"port": 53}]}));
    let plan = plan(&local, std::iter::once((&dns, Vec::new())));
    assert!(plan.v4.sets["no-endpoints"].elements.is_empty() && plan.v4.sets["cluster-ips"].elements.is_empty());
}

#[test]
fn which_endpoints_serve() {
    let pod = |n: u8, more: Json| {
        let mut endpoint = json!({"addresses": [format!("10.244.0.{n}")], "nodeName": if n < 5 { "here" } else { "there" }});
        endpoint.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        endpoint
    };
    let gone = json!({"conditions": {"ready": false, "serving": true, "terminating": true}});
    let dead = json!({"conditions": {"ready": false, "serving": false, "terminating": true}});
    let zone = |z: &str| json!({"hints": {"forZones": [{"name": z}]}});
    let node = |n: &str| json!({"hints": {"forNodes": [{"name": n}]}});
    let none = json!({});
    for (what, endpoints, cluster, local) in [
        ("all ready", vec![pod(1, none.clone()), pod(6, none.clone())], vec![1, 6], vec![1]),
        ("a draining one beside a ready one", vec![pod(1, gone.clone()), pod(6, none.clone())], vec![6], vec![1]),
        ("only draining ones", vec![pod(1, gone.clone()), pod(6, gone.clone())], vec![1, 6], vec![1]),
        ("dead ones never", vec![pod(1, dead.clone()), pod(6, dead)], vec![], vec![]),
        ("hints for our zone", vec![pod(1, zone("z1")), pod(6, zone("z2"))], vec![1], vec![1]),
        ("hints, none for our zone", vec![pod(1, zone("z3")), pod(6, zone("z2"))], vec![1, 6], vec![1]),
        ("one without a hint", vec![pod(1, zone("z1")), pod(6, none.clone())], vec![1, 6], vec![1]),
        ("hints for our node", vec![pod(6, node("here")), pod(7, node("there"))], vec![6], vec![]),
        ("an unready one's missing hint does not count", vec![pod(1, zone("z1")), pod(6, zone("z2")), pod(7, gone)], vec![1], vec![1]),
    ] {
        let spec = json!({"type": "NodePort", "externalTrafficPolicy": "Local", "clusterIP": "10.96.0.1", "ports": [{"port": 80, "nodePort": 30000}]});
        let found = service_ports(&config(), &service("svc", spec), &[&slice(Json::from(endpoints))]);
        let reachable = categorize(&config(), &found[0].0, &found[0].1);
        let numbers =
            |list: &[Endpoint]| -> Vec<u8> { list.iter().map(|e| if let IpAddr::V4(a) = e.addr { a.octets()[3] } else { 0 }).collect() };
        assert_eq!((numbers(&reachable.cluster), numbers(&reachable.local)), (cluster, local), "{what}");
    }
}

#[test]
fn flows_and_affinities_to_lost_endpoints_are_stale() {
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.1", "sessionAffinity": "ClientIP",
        "ports": [{"port": 53, "nodePort": 30053, "protocol": "UDP"}]});
    let slice: EndpointSlice = serde_json::from_value(
        json!({"metadata": {"name": "s"}, "addressType": "IPv4", "ports": [{"port": 5353, "protocol": "UDP"}], "endpoints": two()}),
    )
    .unwrap();
    let plan = planned(&[(service("svc", spec), slice)]);
    let at = |ip: &str, port| -> (IpAddr, u16) { (ip.parse().unwrap(), port) };
    for (destination, answered_by, stale) in [
        (at("10.96.0.1", 53), at("10.244.0.5", 5353), false),
        (at("10.96.0.1", 53), at("10.244.0.6", 5353), true),
        (at("10.96.0.1", 53), at("10.244.0.5", 53), true),
        // Sent before there was an endpoint.
        (at("10.96.0.1", 53), at("10.96.0.1", 53), true),
        (at("192.0.2.1", 30053), at("10.244.0.6", 5353), true),
        (at("192.0.2.1", 30053), at("10.244.1.5", 5353), false),
        // Not ours.
        (at("198.51.100.1", 30053), at("198.51.100.1", 30053), false),
        (at("10.96.0.2", 53), at("10.244.0.6", 5353), false),
    ] {
        let flow = UdpFlow { destination, answered_by };
        assert_eq!(stale_flows(&plan, &flow, |ip| ip == at("192.0.2.1", 0).0), stale, "{flow:?}");
    }
    let addr = |ip: &str| Field::Addr(ip.parse().unwrap());
    let udp = |port| [Field::Proto(crate::nft::Protocol::Udp), Field::Port(port)];
    let key: Key = [&[addr("10.244.0.99"), addr("10.96.0.1")], udp(53).as_slice()].concat();
    let (live, lost) = (vec![addr("10.244.0.5"), Field::Port(5353)], vec![addr("10.244.0.9"), Field::Port(5353)]);
    assert!(stale_affinity(&plan.v4, "services-affinity", [(&key, &live)].into_iter()).is_empty());
    assert_eq!(stale_affinity(&plan.v4, "services-affinity", [(&key, &lost)].into_iter()), std::slice::from_ref(&key));
}

/// Any Services with any endpoints, addresses chosen from so few that they collide.
fn objects() -> impl Strategy<Value = Vec<(Service, EndpointSlice)>> {
    let endpoint = (1u8..30, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(n, here, ready, terminating)| {
        json!({"addresses": [format!("10.244.0.{n}")], "nodeName": if here { "here" } else { "there" },
            "conditions": {"ready": ready && !terminating, "serving": ready, "terminating": terminating}})
    });
    let one =
        ((1u8..20, 0usize..3, any::<bool>(), any::<bool>()), (any::<bool>(), any::<bool>(), proptest::collection::vec(endpoint, 0..6)));
    let one = one.prop_map(|((ip, kind, internal, external), (sticky, udp, endpoints))| {
        let policy = |local| if local { "Local" } else { "Cluster" };
        let protocol = if udp { "UDP" } else { "TCP" };
        let name = ["ClusterIP", "NodePort", "LoadBalancer"][kind];
        let spec = json!({"type": name, "clusterIP": format!("10.96.0.{ip}"),
            "ports": [{"port": 80, "nodePort": if kind > 0 { json!(30000 + u16::from(ip)) } else { Json::Null }, "protocol": protocol}],
            "internalTrafficPolicy": policy(internal), "externalTrafficPolicy": policy(external), "externalIPs": ["192.0.2.8"],
            "sessionAffinity": if sticky { "ClientIP" } else { "None" }, "lb": [{"ip": format!("192.0.2.{}", ip % 4 + 100)}]});
        let mut slice = slice(Json::from(endpoints));
        slice.ports.as_mut().unwrap()[0].protocol = Some(protocol.into());
        (service(&format!("s{ip}"), spec), slice)
    });
    proptest::collection::vec(one, 0..12)
}

/// Every address leads to a chain that picks among exactly as many slots as there are, each with an endpoint.
fn every_slot_is_reached(table: &Table) -> Result<(), TestCaseError> {
    for map in ["services", "node-ports", "inside-services", "inside-node-ports"] {
        let mut slots: BTreeMap<&[Field], BTreeSet<u32>> = BTreeMap::new();
        for key in table.sets[&format!("{map}-endpoints")].elements.keys() {
            let (slot, address) = key.split_last().unwrap();
            let Field::Slot(slot) = slot else { panic!("{key:?} ends without a slot") };
            slots.entry(address).or_default().insert(*slot);
        }
        let addresses = &table.sets[map].elements;
        prop_assert_eq!(slots.len(), addresses.len());
        for (address, verdict) in addresses {
            let Value::Verdict(Verdict::Goto(chain)) = verdict else { panic!("{verdict:?}") };
            let last = table.chains[&**chain].rules.last().unwrap();
            let moduli: Vec<u32> =
                last.iter().filter_map(|e| if let Expr::Random { modulus, .. } = e { Some(*modulus) } else { None }).collect();
            prop_assert_eq!(moduli.len(), 1);
            prop_assert_eq!(&slots[address.as_slice()], &(0..moduli[0]).collect::<BTreeSet<u32>>());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_services_make_a_sound_table_and_any_change_a_valid_transaction(before in objects(), after in objects()) {
        let (before, after) = (planned(&before), planned(&after));
        for family in Family::BOTH {
            let (old, new) = (before.table(family), after.table(family));
            prop_assert_eq!(new.dangling(), None);
            every_slot_is_reached(new)?;
            let mut kernel = Table::new(family, "t");
            prop_assert_eq!(apply(&mut kernel, &create(old)), Ok(()));
            prop_assert_eq!(&kernel, old);
            prop_assert_eq!(apply(&mut kernel, &diff(old, new)), Ok(()));
            prop_assert_eq!(&kernel, new);
            prop_assert!(diff(new, new).is_empty());
        }
    }
}
