//! Nodes and their components together: pods of two nodes on one machine and of two machines, the proxy following the
//! API, DNS asked by pods.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use network::{
    DnsOptions, DnsServer, Instance, Links, NetNs, NodeConfig, NodeNamespace, PodNetworker, Proxy, ProxyOptions, Router, RouterOptions,
    teardown,
};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::world::*;

/// A node with its components running.
struct Node {
    network: Arc<PodNetworker>,
    _tasks: JoinSet<()>,
}

const DNS: &str = "10.96.0.10";

async fn node(api: &Api, config: NodeConfig, uplink_routes_pods: bool, upstream: Vec<SocketAddr>) -> Node {
    let cancel = CancellationToken::new();
    let informers = api.informers();
    let network = Arc::new(PodNetworker::open(config.clone()).await.unwrap());
    let (instance, node_name, netns) = (config.instance.clone(), config.node_name.clone(), config.netns.clone());
    let mut tasks = JoinSet::new();
    let options = RouterOptions { instance: instance.clone(), node_name: node_name.clone(), netns: netns.clone(), uplink_routes_pods };
    let router = Router::new(&informers, options, network.clone()).await.unwrap();
    tasks.spawn(router.run(cancel.clone()));
    let proxy = Proxy::new(
        &informers,
        ProxyOptions {
            instance: instance.clone(),
            node_name,
            netns: netns.clone(),
            cluster_cidrs: config.cluster_cidrs.clone(),
            masquerade_all: false,
            local_vips: [DNS.parse().unwrap()].into(),
            healthz: Some("0.0.0.0:10256".parse().unwrap()),
        },
    );
    let stop = cancel.clone();
    tasks.spawn(async move { proxy.run(stop).await.unwrap() });
    let options = DnsOptions { instance, netns, domain: "cluster.local".into(), addresses: vec![DNS.parse().unwrap()], upstream };
    let dns = DnsServer::open(&informers, options).await.unwrap();
    tasks.spawn(dns.run(cancel));
    let node = Node { network, _tasks: tasks };
    trial::until("the node has a pod CIDR", || async { node.network.is_ready().await }).await;
    node
}

fn put_node(api: &Api, name: &str, ip: IpAddr, cidr: &str) {
    api.put(
        "Node",
        json!({"metadata": {"name": name}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
            "status": {"addresses": [{"type": "InternalIP", "address": ip}]}}),
    );
}

fn put_service(api: &Api, name: &str, vip: &str, pods: &[&Pod]) {
    api.put("Service", json!({"metadata": {"namespace": "default", "name": name}, "spec": {"clusterIP": vip, "ports": [{"port": 80}]}}));
    let endpoints: Vec<_> = pods.iter().map(|p| json!({"addresses": [p.ip]})).collect();
    api.put(
        "EndpointSlice",
        json!({"metadata": {"namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints}),
    );
}

async fn reaches(from: &NetNs, to: SocketAddr) {
    trial::until(&format!("an answer from {to}"), || async { ask_tcp(from, to).is_ok() }).await;
}

fn resolve(from: &NetNs, name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let bytes = message.to_vec().unwrap();
    let socket = udp_client(from, at(DNS, 53));
    socket.send(&bytes).unwrap();
    let mut buffer = [0; 4096];
    let len = socket.recv(&mut buffer).unwrap();
    Message::from_vec(&buffer[..len]).unwrap()
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|r| r.data.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_on_one_machine() {
    if !trial::is_root() {
        return;
    }
    let host = Host::new("192.0.2.1/24").await;
    let api = Api::default();
    let instance = Instance::new("pair");
    let second_ip: IpAddr = "100.64.255.2".parse().unwrap();
    let second = NodeNamespace::create(&instance, &host.netns, &host.dir(), "node-2", &[second_ip]).await.unwrap();
    let _unmount = Unmount(second.path.clone());
    api.put("Namespace", json!({"metadata": {"name": "default"}}));
    put_node(&api, "node-1", host.address, "10.244.0.0/24");
    put_node(&api, "node-2", second_ip, "10.244.1.0/24");
    let config = |name: &str, netns: &NetNs| NodeConfig {
        node_name: name.into(),
        netns: netns.clone(),
        state_dir: host.dir().join(name),
        node_cidr: Some("100.64.255.0/24".parse().unwrap()),
        ..host.config("pair", "10.244.0.0/16", "10.96.0.0/16")
    };
    let one = node(&api, config("node-1", &host.netns), false, Vec::new()).await;
    let two = node(&api, config("node-2", &second.netns), true, Vec::new()).await;
    let (a, b) = (pod(&one.network).await, pod(&two.network).await);
    serve_tcp(&a.netns, 8080, "a");
    serve_tcp(&b.netns, 8080, "b");
    serve_tcp(&host.netns, 6443, "api");

    reaches(&a.netns, at(b.ip, 8080)).await;
    assert_eq!(ask_tcp(&a.netns, at(b.ip, 8080)).unwrap(), Answer { name: "b".into(), saw: a.ip });
    assert_eq!(ask_tcp(&b.netns, at(a.ip, 8080)).unwrap(), Answer { name: "a".into(), saw: b.ip });
    // Beyond its node a pod is seen as its node.
    assert_eq!(ask_tcp(&b.netns, at(host.address, 6443)).unwrap(), Answer { name: "api".into(), saw: second_ip });

    // A Service appears, with an endpoint on each node, and every node and pod reaches both.
    put_service(&api, "web", "10.96.0.20", &[&a, &b]);
    for (who, from) in [("a", &a.netns), ("b", &b.netns), ("host", &host.netns), ("node-2", &second.netns)] {
        reaches(from, at("10.96.0.20", 80)).await;
        let seen: BTreeSet<Result<String, String>> =
            (0..40).map(|_| ask_tcp(from, at("10.96.0.20", 80)).map(|a| a.name).map_err(|e| e.to_string())).collect();
        assert_eq!(seen, [Ok("a".to_owned()), Ok("b".to_owned())].into(), "from {who}");
    }
    for from in [&a.netns, &b.netns, &host.netns, &second.netns] {
        let answer = resolve(from, "web.default.svc.cluster.local.", RecordType::A);
        assert_eq!((addresses(&answer), answer.metadata.authoritative), (vec!["10.96.0.20".to_owned()], true));
    }
    healthz(&host.netns);
    healthz(&second.netns);

    drop((one, two));
    // As `skiff down` does it: first the extra nodes' insides, then the host's, then the namespaces.
    for netns in [&host.netns, &second.netns] {
        teardown(&instance, netns).await.unwrap();
        let links = Links::open(netns).await.unwrap();
        assert!(links.named(&instance.link_prefix()).await.unwrap().is_empty());
        assert!(links.routes().await.unwrap().iter().all(|(_, r)| r.owner.is_none()));
    }
    NodeNamespace::remove_all(&host.dir()).unwrap();
    assert!(!second.path.exists());
    NodeNamespace::remove_all(&host.dir()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_any_address_gets_one() {
    if !trial::is_root() {
        return;
    }
    let netns = NetNs::anonymous().unwrap();
    Links::open(&netns).await.unwrap().set_up("lo").await.unwrap();
    let instance = Instance::new("bare");
    let fallback: IpAddr = "100.64.255.1".parse().unwrap();
    for _ in 0..2 {
        assert_eq!(network::ensure_node_address(&netns, &instance, fallback).await.unwrap(), [fallback]);
    }
    let dir = tempfile::tempdir().unwrap();
    let config = NodeConfig {
        instance: instance.clone(),
        node_name: "node-1".into(),
        netns: netns.clone(),
        state_dir: dir.path().into(),
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        node_cidr: None,
        mtu: None,
    };
    let network = PodNetworker::open(config.clone()).await.unwrap();
    network.set_pod_cidrs(vec!["10.244.0.0/24".parse().unwrap()]).await.unwrap();
    let server = pod(&network).await;
    serve_tcp(&server.netns, 8080, "server");
    serve_tcp(&netns, 6443, "api");
    assert_eq!(ask_tcp(&server.netns, at(fallback, 6443)).unwrap(), Answer { name: "api".into(), saw: server.ip });
    // Services with an endpoint on the host (kubernetes.default) and in a pod, from the host and from the pod.
    let objects = [("10.96.0.1", fallback, 6443), ("10.96.0.2", server.ip, 8080)].map(|(vip, ip, port)| {
        let service = json!({"metadata": {"namespace": "default", "name": vip}, "spec": {"clusterIP": vip, "ports": [{"port": 443}]}});
        let slice =
            json!({"metadata": {"name": "s"}, "addressType": "IPv4", "ports": [{"port": port}], "endpoints": [{"addresses": [ip]}]});
        (serde_json::from_value(service).unwrap(), serde_json::from_value(slice).unwrap())
    });
    let inputs = objects.iter().map(|(service, slice)| (service, vec![slice]));
    let mut rules = network::proxy::Rules::open(&netns, &instance).unwrap();
    rules.apply(netplan::proxy::plan(&proxy_config(&config), inputs)).unwrap();
    for from in [&netns, &server.netns] {
        assert_eq!(ask_tcp(from, at("10.96.0.1", 443)).unwrap().name, "api");
        assert_eq!(ask_tcp(from, at("10.96.0.2", 443)).unwrap().name, "server");
    }
}

fn healthz(netns: &NetNs) {
    use std::io::{Read, Write};
    let text = netns.run(|| {
        let mut stream = std::net::TcpStream::connect("127.0.0.1:10256").unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    assert!(text.unwrap().starts_with("HTTP/1.1 200 OK"));
}

/// The bind mount of a namespace goes also when the test fails.
struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        if let Err(e) = NetNs::remove(&self.0) {
            println!("{e}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_behind_a_router_use_vxlan() {
    if !trial::is_root() {
        return;
    }
    // The "router" knows the two machines and nothing of pods.
    let router = Host::new("192.0.2.1/24").await;
    let api = Api::default();
    let wires = Instance::new("wires");
    let mut nodes = Vec::new();
    for (name, ip, cidr) in [("m-1", "198.51.100.1", "10.244.0.0/24"), ("m-2", "203.0.113.1", "10.244.1.0/24")] {
        let ip: IpAddr = ip.parse().unwrap();
        put_node(&api, name, ip, cidr);
        let machine = NodeNamespace::create(&wires, &router.netns, &router.dir(), name, &[ip]).await.unwrap();
        NetNs::remove(&machine.path).unwrap();
        let base = router.config("far", "10.244.0.0/16", "10.96.0.0/16");
        let config = NodeConfig { node_name: name.into(), netns: machine.netns, state_dir: router.dir().join(name), ..base };
        nodes.push(node(&api, config, false, Vec::new()).await);
    }
    let (a, b) = (pod(&nodes[0].network).await, pod(&nodes[1].network).await);
    serve_tcp(&b.netns, 8080, "b");
    reaches(&a.netns, at(b.ip, 8080)).await;
    assert_eq!(ask_tcp(&a.netns, at(b.ip, 8080)).unwrap(), Answer { name: "b".into(), saw: a.ip });
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_forwards_and_fails_fast() {
    if !trial::is_root() {
        return;
    }
    let host = Host::new("192.0.2.1/24").await;
    let api = Api::default();
    api.put("Namespace", json!({"metadata": {"name": "default"}}));
    api.put(
        "Service",
        json!({"metadata": {"namespace": "default", "name": "out"}, "spec": {"type": "ExternalName", "externalName": "example.com"}}),
    );
    put_node(&api, "node-1", host.address, "10.244.0.0/24");
    let upstream = resolver();
    let one = node(&api, host.config("one", "10.244.0.0/16", "10.96.0.0/16"), false, vec![upstream]).await;
    let client = pod(&one.network).await;

    let answer = resolve(&client.netns, "example.com.", RecordType::A);
    assert_eq!(addresses(&answer), ["198.51.100.77"]);
    let answer = resolve(&client.netns, "out.default.svc.cluster.local.", RecordType::A);
    assert_eq!(addresses(&answer), ["example.com.", "198.51.100.77"]);
    let answer = resolve(&client.netns, "nothing.default.svc.cluster.local.", RecordType::A);
    assert_eq!((answer.metadata.response_code, answer.authorities.len()), (ResponseCode::NXDomain, 1));

    let lonely = Host::new("192.0.2.1/24").await;
    let two = node(&api, lonely.config("one", "10.244.0.0/16", "10.96.0.0/16"), false, Vec::new()).await;
    let client = pod(&two.network).await;
    let started = std::time::Instant::now();
    assert_eq!(resolve(&client.netns, "example.com.", RecordType::A).metadata.response_code, ResponseCode::ServFail);
    assert!(started.elapsed() < Duration::from_secs(1));
}

/// Answers everything with one address, on loopback.
fn resolver() -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let mut reply = Message::from_vec(&buffer[..len]).unwrap().into_response();
            let name = reply.queries[0].name().clone();
            let data = hickory_proto::rr::RData::A(hickory_proto::rr::rdata::A("198.51.100.77".parse().unwrap()));
            reply.add_answer(hickory_proto::rr::Record::from_rdata(name, 60, data));
            socket.send_to(&reply.to_vec().unwrap(), from).unwrap();
        }
    });
    address
}
