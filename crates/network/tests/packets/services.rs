//! Services: what a client gets through the rules that `netplan` plans.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use netplan::proxy::{ProxyConfig, plan};
use network::proxy::Rules;
use network::{NetNs, NodeConfig, PodNetworker};
use serde_json::{Value, json};

use crate::world::*;

/// A host with the proxy's rules and its pods.
struct Cluster {
    host: Host,
    config: NodeConfig,
    network: PodNetworker,
    rules: Rules,
    proxy: ProxyConfig,
}

impl Cluster {
    async fn new() -> Self {
        let host = Host::new("192.0.2.1/24").await;
        let config = host.config("one", "10.244.0.0/16", "10.96.0.0/16");
        let network = PodNetworker::open(config.clone()).await.unwrap();
        network.set_pod_cidrs(vec!["10.244.0.0/24".parse().unwrap()]).await.unwrap();
        let rules = Rules::open(&config.netns, &config.instance).unwrap();
        let proxy = proxy_config(&config);
        Cluster { host, config, network, rules, proxy }
    }

    fn apply(&mut self, objects: &[(Service, EndpointSlice)]) {
        let inputs = objects.iter().map(|(service, slice)| (service, vec![slice]));
        self.rules.apply(plan(&self.proxy, inputs)).unwrap();
    }

    async fn servers(&self, count: usize, port: u16) -> Vec<Pod> {
        let mut pods = Vec::new();
        for i in 0..count {
            let pod = pod(&self.network).await;
            serve_tcp(&pod.netns, port, &format!("server-{i}"));
            pods.push(pod);
        }
        pods
    }
}

fn service(spec: Value, protocol: &str, target: u16, pods: &[&Pod]) -> (Service, EndpointSlice) {
    let endpoints: Vec<Value> = pods.iter().map(|p| json!({"addresses": [p.ip], "nodeName": "node-1"})).collect();
    slice_of(spec, protocol, target, endpoints)
}

fn slice_of(spec: Value, protocol: &str, target: u16, endpoints: Vec<Value>) -> (Service, EndpointSlice) {
    let name = spec["clusterIP"].as_str().unwrap().replace('.', "-");
    let service = json!({"metadata": {"namespace": "default", "name": name}, "spec": spec,
        "status": {"loadBalancer": {"ingress": spec["loadBalancerIP"].as_str().map(|ip| json!({"ip": ip})).into_iter().collect::<Vec<_>>()}}});
    let slice = json!({"metadata": {"namespace": "default", "name": "s"}, "addressType": "IPv4",
        "ports": [{"port": target, "protocol": protocol}], "endpoints": endpoints});
    (serde_json::from_value(service).unwrap(), serde_json::from_value(slice).unwrap())
}

fn cluster_ip(ip: &str, pods: &[&Pod]) -> (Service, EndpointSlice) {
    service(json!({"type": "ClusterIP", "clusterIP": ip, "ports": [{"port": 80}]}), "TCP", 8080, pods)
}

fn who_answers(from: &NetNs, vip: &str, port: u16, tries: usize) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    for _ in 0..tries {
        *seen.entry(ask_tcp(from, at(vip, port)).unwrap().name).or_default() += 1;
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_of_1_5_and_50_is_reached() {
    if !trial::is_root() {
        return;
    }
    let mut cluster = Cluster::new().await;
    let servers = cluster.servers(50, 8080).await;
    let all: Vec<&Pod> = servers.iter().collect();
    let client = pod(&cluster.network).await;
    cluster.apply(&[
        cluster_ip("10.96.0.11", &all[..1]),
        cluster_ip("10.96.0.12", &all[..5]),
        cluster_ip("10.96.0.13", &all),
        cluster_ip("10.96.0.14", &all[40..45]),
    ]);
    for (vip, count, tries) in [("10.96.0.11", 1, 3), ("10.96.0.12", 5, 80), ("10.96.0.13", 50, 700), ("10.96.0.14", 5, 80)] {
        let seen = who_answers(&client.netns, vip, 80, tries);
        assert_eq!(seen.len(), count, "{vip}: {seen:?}");
    }
    // The source is the pod's own address; from the node it works too.
    assert_eq!(ask_tcp(&client.netns, at("10.96.0.11", 80)).unwrap().saw, client.ip);
    assert_eq!(ask_tcp(&cluster.host.netns, at("10.96.0.11", 80)).unwrap().name, "server-0");

    // One endpoint less, one Service less, one moved: only the difference is applied, and traffic follows.
    cluster.apply(&[cluster_ip("10.96.0.12", &all[1..5]), cluster_ip("10.96.0.13", &all[..2]), cluster_ip("10.96.0.14", &[])]);
    let seen = who_answers(&client.netns, "10.96.0.12", 80, 60);
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["server-1", "server-2", "server-3", "server-4"]);
    assert_eq!(who_answers(&client.netns, "10.96.0.13", 80, 30).len(), 2);
    for gone in ["10.96.0.11", "10.96.0.14"] {
        assert!(ask_tcp(&client.netns, at(gone, 80)).is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_reaches_itself_through_its_own_service() {
    if !trial::is_root() {
        return;
    }
    let mut cluster = Cluster::new().await;
    let servers = cluster.servers(1, 8080).await;
    cluster.apply(&[cluster_ip("10.96.0.11", &[&servers[0]])]);
    let answer = ask_tcp(&servers[0].netns, at("10.96.0.11", 80)).unwrap();
    assert_eq!((answer.name.as_str(), answer.saw), ("server-0", cluster.host.address));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_endpoints_connections_are_refused_at_once() {
    if !trial::is_root() {
        return;
    }
    let mut cluster = Cluster::new().await;
    let servers = cluster.servers(1, 8080).await;
    let client = pod(&cluster.network).await;
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.11", "ports": [{"port": 80, "nodePort": 30080}]});
    cluster.apply(&[service(spec, "TCP", 8080, &[]), cluster_ip("10.96.0.12", &[&servers[0]])]);
    for (from, to) in [
        (&client.netns, at("10.96.0.11", 80)),
        (&cluster.host.netns, at("10.96.0.11", 80)),
        (&client.netns, at(cluster.host.address, 30080)),
        // A port that the Service does not have.
        (&client.netns, at("10.96.0.12", 81)),
    ] {
        let error = ask_tcp(from, to).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{to}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_ports_and_load_balancers() {
    if !trial::is_root() {
        return;
    }
    let mut cluster = Cluster::new().await;
    let servers = cluster.servers(2, 8080).await;
    let client = pod(&cluster.network).await;
    // A machine outside the cluster: it is reached by a link, but is no pod.
    let outside = outside(&cluster.host, "198.51.100.7").await;
    let spec = |policy: &str, ip: &str, node_port: u16| {
        json!({"type": "LoadBalancer", "clusterIP": ip, "loadBalancerIP": format!("203.0.113.{}", node_port % 100),
            "externalIPs": [format!("203.0.113.1{}", node_port % 100)],
            "externalTrafficPolicy": policy, "ports": [{"port": 80, "nodePort": node_port}]})
    };
    let all: Vec<&Pod> = servers.iter().collect();
    let elsewhere =
        vec![json!({"addresses": [servers[0].ip], "nodeName": "node-1"}), json!({"addresses": [servers[1].ip], "nodeName": "node-2"})];
    cluster.apply(&[
        service(spec("Cluster", "10.96.0.11", 30011), "TCP", 8080, &all),
        slice_of(spec("Local", "10.96.0.12", 30012), "TCP", 8080, elsewhere),
        slice_of(spec("Local", "10.96.0.13", 30013), "TCP", 8080, vec![json!({"addresses": [servers[1].ip], "nodeName": "node-2"})]),
    ]);
    let node = cluster.host.address.to_string();
    for (vip, port) in [(node.as_str(), 30011), ("203.0.113.11", 80), ("203.0.113.111", 80)] {
        assert_eq!(who_answers(&outside, vip, port, 30).len(), 2, "{vip}");
        assert_eq!(who_answers(&client.netns, vip, port, 30).len(), 2, "{vip}");
        assert_eq!(who_answers(&cluster.host.netns, vip, port, 30).len(), 2, "{vip}");
        // Policy Cluster hides the client behind the node.
        assert_ne!(ask_tcp(&outside, at(vip, port)).unwrap().saw.to_string(), "198.51.100.7");
    }
    for (vip, port) in [(node.as_str(), 30012), ("203.0.113.12", 80), ("203.0.113.112", 80)] {
        assert_eq!(who_answers(&outside, vip, port, 20).into_keys().collect::<Vec<_>>(), ["server-0"], "{vip}");
        assert_eq!(ask_tcp(&outside, at(vip, port)).unwrap().saw.to_string(), "198.51.100.7", "{vip}");
        // From inside, all endpoints serve.
        assert_eq!(who_answers(&client.netns, vip, port, 30).len(), 2, "{vip}");
        assert_eq!(who_answers(&cluster.host.netns, vip, port, 30).len(), 2, "{vip}");
    }
    // No endpoint here: from outside dropped (a time-out, not a refusal), from inside served.
    let error = ask_tcp(&outside, at(&node, 30013)).unwrap_err();
    assert_ne!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(ask_tcp(&client.netns, at(&node, 30013)).unwrap().name, "server-1");
    assert_eq!(cluster.config.node_name, "node-1");
}

async fn outside(host: &Host, address: &str) -> NetNs {
    let instance = network::Instance::new("outside");
    let made = network::NodeNamespace::create(&instance, &host.netns, &host.dir(), "outside", &[address.parse().unwrap()]).await.unwrap();
    // The namespace lives on in `netns`; its name is not needed.
    NetNs::remove(&made.path).unwrap();
    made.netns
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_sticks_to_its_endpoint_until_that_is_gone() {
    if !trial::is_root() {
        return;
    }
    let mut cluster = Cluster::new().await;
    let servers = cluster.servers(5, 8080).await;
    let all: Vec<&Pod> = servers.iter().collect();
    let clients = [pod(&cluster.network).await, pod(&cluster.network).await, pod(&cluster.network).await];
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.11", "sessionAffinity": "ClientIP",
        "ports": [{"port": 80, "nodePort": 30080}]});
    cluster.apply(&[service(spec.clone(), "TCP", 8080, &all)]);
    let mut homes = BTreeSet::new();
    for client in &clients {
        for (vip, port) in [("10.96.0.11", 80), ("192.0.2.1", 30080)] {
            let seen = who_answers(&client.netns, vip, port, 12);
            assert_eq!(seen.len(), 1, "{seen:?}");
            homes.extend(seen.into_keys());
        }
    }
    let home = who_answers(&clients[0].netns, "10.96.0.11", 80, 1).into_keys().next().unwrap();
    let rest: Vec<&Pod> = servers.iter().enumerate().filter(|(i, _)| format!("server-{i}") != home).map(|(_, p)| p).collect();
    cluster.apply(&[service(spec, "TCP", 8080, &rest)]);
    let seen = who_answers(&clients[0].netns, "10.96.0.11", 80, 12);
    assert!(seen.len() == 1 && !seen.contains_key(&home), "{home} is gone: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn udp_clients_move_on_when_their_endpoint_is_gone() {
    if !trial::is_root() {
        return;
    }
    let mut cluster = Cluster::new().await;
    let (a, b, client) = (pod(&cluster.network).await, pod(&cluster.network).await, pod(&cluster.network).await);
    serve_udp(&a.netns, at(a.ip, 5353), "a");
    serve_udp(&b.netns, at(b.ip, 5353), "b");
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.11", "ports": [{"port": 53, "nodePort": 30053, "protocol": "UDP"}]});
    cluster.apply(&[service(spec.clone(), "UDP", 5353, &[])]);
    let (early, by_port) = (udp_client(&client.netns, at("10.96.0.11", 53)), udp_client(&client.netns, at("192.0.2.1", 30053)));
    assert!(ask_udp(&early).is_err());
    cluster.apply(&[service(spec.clone(), "UDP", 5353, &[&a])]);
    assert_eq!(ask_udp(&early).unwrap(), Answer { name: "a".into(), saw: client.ip });
    assert_eq!(ask_udp(&by_port).unwrap().name, "a");
    // The same sockets, so the same flows: only forgetting them lets the packets go elsewhere.
    cluster.apply(&[service(spec, "UDP", 5353, &[&b])]);
    assert_eq!(ask_udp(&early).unwrap().name, "b");
    assert_eq!(ask_udp(&by_port).unwrap().name, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_services_are_one_transaction_and_a_change_is_a_small_one() {
    if !trial::is_root() {
        return;
    }
    let mut cluster = Cluster::new().await;
    let servers = cluster.servers(3, 8080).await;
    let all: Vec<&Pod> = servers.iter().collect();
    let mut objects: Vec<_> = (0..10_000u32).map(|i| cluster_ip(&format!("10.96.{}.{}", 1 + i / 250, 1 + i % 250), &all)).collect();
    let inputs = |objects: &[(Service, EndpointSlice)], proxy: &ProxyConfig| {
        let started = std::time::Instant::now();
        let planned = plan(proxy, objects.iter().map(|(service, slice)| (service, vec![slice])));
        println!("planned in {:?}", started.elapsed());
        planned
    };
    for change in ["all", "one less endpoint", "nothing"] {
        if change == "one less endpoint" {
            objects[9_999] = cluster_ip("10.96.40.250", &all[..2]);
        }
        let planned = inputs(&objects, &cluster.proxy);
        let started = std::time::Instant::now();
        cluster.rules.apply(planned).unwrap();
        println!("{change}: applied in {:?}", started.elapsed());
    }
    assert_eq!(who_answers(&servers[0].netns, "10.96.1.1", 80, 60).len(), 3);
    assert_eq!(who_answers(&servers[0].netns, "10.96.40.250", 80, 60).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_pods_and_services() {
    if !trial::is_root() {
        return;
    }
    let host = Host::new("192.0.2.1/24").await;
    let mut config = host.config("six", "10.244.0.0/16", "10.96.0.0/16");
    config.cluster_cidrs.push("fd00:10:244::/56".parse().unwrap());
    config.service_cidrs.push("fd00:10:96::/112".parse().unwrap());
    let network = PodNetworker::open(config.clone()).await.unwrap();
    network.set_pod_cidrs(vec!["fd00:10:244::/64".parse().unwrap(), "10.244.0.0/24".parse().unwrap()]).await.unwrap();
    let (server, client) = (pod(&network).await, pod(&network).await);
    assert!(server.ip.is_ipv6());
    serve_tcp(&server.netns, 8080, "server");
    assert_eq!(ask_tcp(&client.netns, at(server.ip, 8080)).unwrap(), Answer { name: "server".into(), saw: client.ip });
    let service = json!({"metadata": {"namespace": "default", "name": "six"}, "spec": {"clusterIP": "fd00:10:96::7",
        "clusterIPs": ["fd00:10:96::7"], "ports": [{"port": 80}, {"port": 81, "name": "nobody"}]}});
    let slice = json!({"metadata": {"namespace": "default", "name": "six"}, "addressType": "IPv6", "ports": [{"port": 8080}],
        "endpoints": [{"addresses": [server.ip]}]});
    let (service, slice): (Service, EndpointSlice) = (serde_json::from_value(service).unwrap(), serde_json::from_value(slice).unwrap());
    let mut rules = Rules::open(&config.netns, &config.instance).unwrap();
    rules.apply(plan(&proxy_config(&config), std::iter::once((&service, vec![&slice])))).unwrap();
    assert_eq!(ask_tcp(&client.netns, at("fd00:10:96::7", 80)).unwrap(), Answer { name: "server".into(), saw: client.ip });
    let error = ask_tcp(&client.netns, at("fd00:10:96::7", 81)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}
