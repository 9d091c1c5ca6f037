//! What policies become. `network` tries the same with packets.

use serde_json::{Value as Json, json};

use super::*;
use crate::nft::{apply, create, diff};

fn policy(name: &str, spec: Json) -> NetworkPolicy {
    serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})).unwrap()
}

fn pod(namespace: &str, app: &str, ip: &str, local: bool) -> PolicyPod {
    let labels = BTreeMap::from([("app".into(), app.into())]);
    let named_ports = vec![("http".into(), Protocol::Tcp, 8080)];
    PolicyPod { namespace: namespace.into(), labels, ips: vec![ip.parse().unwrap()], local, named_ports }
}

fn world(policies: &[NetworkPolicy]) -> World<'_> {
    World {
        policies: policies.iter().collect(),
        pods: vec![
            pod("ns", "web", "10.244.0.2", true),
            pod("ns", "db", "10.244.0.3", true),
            pod("ns", "web", "10.244.1.2", false),
            pod("other", "web", "10.244.0.4", true),
        ],
        namespaces: [("ns", "a"), ("other", "b")].map(|(n, team)| (n.into(), [("team".into(), team.into())].into())).into(),
        always: BTreeSet::new(),
    }
}

fn addresses(table: &Table, set: &str) -> Vec<String> {
    let first = |k: &Vec<Field>| if let Some(Field::Addr(a)) = k.first() { a.to_string() } else { String::new() };
    table.sets[set].elements.keys().map(first).collect()
}

fn sets(table: &Table, prefix: &str) -> Vec<Vec<String>> {
    table.sets.keys().filter(|n| n.starts_with(prefix)).map(|n| addresses(table, n)).collect()
}

#[test]
fn only_selected_local_pods_are_isolated() {
    for (spec, ingress, egress) in [
        (json!({"podSelector": {}}), vec!["10.244.0.2", "10.244.0.3"], vec![]),
        (
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress", "Egress"]}),
            vec!["10.244.0.3"],
            vec!["10.244.0.3"],
        ),
        (json!({"podSelector": {}, "policyTypes": ["Egress"]}), vec![], vec!["10.244.0.2", "10.244.0.3"]),
        (json!({"podSelector": {"matchLabels": {"app": "db"}}, "egress": [{}]}), vec!["10.244.0.3"], vec!["10.244.0.3"]),
        (json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db"]}]}}), vec!["10.244.0.2"], vec![]),
    ] {
        let policies = [policy("p", spec.clone())];
        let table = plan(Family::V4, "t", &world(&policies));
        assert_eq!(table.dangling(), None);
        assert_eq!((addresses(&table, "ingress"), addresses(&table, "egress")), (own(ingress), own(egress)), "{spec}");
    }
}

fn own(list: Vec<&str>) -> Vec<String> {
    list.into_iter().map(Into::into).collect()
}

#[test]
fn peers_and_ports() {
    for (from, expected) in [
        (json!({"podSelector": {"matchLabels": {"app": "web"}}}), vec!["10.244.0.2", "10.244.1.2"]),
        (json!({"namespaceSelector": {"matchLabels": {"team": "b"}}}), vec!["10.244.0.4"]),
        (json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}), vec!["10.244.0.2", "10.244.0.4", "10.244.1.2"]),
    ] {
        let policies = [policy("p", json!({"podSelector": {}, "ingress": [{"from": [from.clone()], "ports": [{"port": "http"}]}]}))];
        let table = plan(Family::V4, "t", &world(&policies));
        assert_eq!(sets(&table, "peers-"), vec![own(expected)], "{from}");
        assert_eq!(sets(&table, "ports-")[0].len(), 4);
    }
    // Two peers and two ports make four ways in; then all else is dropped.
    let spec = json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}, {"ipBlock": {"cidr": "fd00::/8"}},
        {"podSelector": {}}], "ports": [{"port": 80}, {"port": 1000, "endPort": 2000, "protocol": "UDP"}]}]});
    let policies = [policy("p", spec)];
    let table = plan(Family::V4, "t", &world(&policies));
    let chain = table.chains.iter().find(|(n, _)| n.starts_with("ingress-")).unwrap().1;
    assert_eq!(chain.rules.len(), 5);
    assert_eq!(chain.rules[4], [Expr::Verdict(Verdict::Drop)]);
}

#[test]
fn a_change_is_a_valid_transaction() {
    let open = [policy("p", json!({"podSelector": {}, "ingress": [{}]}))];
    let closed =
        [policy("p", json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]})), policy("q", json!({"podSelector": {}}))];
    let (old, new) = (plan(Family::V4, "t", &world(&open)), plan(Family::V4, "t", &world(&closed)));
    let mut kernel = Table::new(Family::V4, "t");
    for (batch, wanted) in [(create(&old), &old), (diff(&old, &new), &new), (diff(&new, &old), &old)] {
        assert_eq!(apply(&mut kernel, &batch), Ok(()));
        assert_eq!(&kernel, wanted);
    }
}
