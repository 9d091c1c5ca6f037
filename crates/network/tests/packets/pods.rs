//! Pods to pods, to the host, to the outside; leases; teardown; two instances on one host.

use std::collections::BTreeSet;

use netplan::nft::{Family, Protocol};
use network::nft::Nft;
use network::{HostPort, Instance, Links, PodIdentity, PodNetworker, teardown};

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_one_node_reach_each_other_and_the_host() {
    if !trial::is_root() {
        return;
    }
    let host = Host::new("192.0.2.1/24").await;
    let network = PodNetworker::open(host.config("one", "10.244.0.0/16", "10.96.0.0/16")).await.unwrap();
    network.set_pod_cidrs(vec!["10.244.0.0/24".parse().unwrap()]).await.unwrap();
    let (a, b) = (pod(&network).await, pod(&network).await);
    serve_tcp(&b.netns, 80, "b");
    serve_tcp(&host.netns, 6443, "host");

    assert_eq!(ask_tcp(&a.netns, at(b.ip, 80)).unwrap(), Answer { name: "b".into(), saw: a.ip });
    assert_eq!(ask_tcp(&a.netns, at(host.address, 6443)).unwrap(), Answer { name: "host".into(), saw: a.ip });
    assert_eq!(ask_tcp(&host.netns, at(b.ip, 80)).unwrap().name, "b");

    network.detach(&b.sandbox).await.unwrap();
    network.detach(&b.sandbox).await.unwrap();
    assert!(ask_tcp(&a.netns, at(b.ip, 80)).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_survive_a_restart_and_dead_sandboxes_do_not() {
    if !trial::is_root() {
        return;
    }
    let host = Host::new("192.0.2.1/24").await;
    let config = host.config("one", "10.244.0.0/16", "10.96.0.0/16");
    let network = PodNetworker::open(config.clone()).await.unwrap();
    let identity = PodIdentity { sandbox_id: "early".into(), ..PodIdentity::default() };
    let early = network.attach(&host.netns.path(), &identity, &[]).await;
    assert!(matches!(early, Err(network::Error::NotReady(_))), "{early:?}");
    network.set_pod_cidrs(vec!["10.244.0.0/24".parse().unwrap()]).await.unwrap();
    let (a, b) = (pod(&network).await, pod(&network).await);
    drop(network);

    let network = PodNetworker::open(config).await.unwrap();
    assert_eq!(network.addresses(&a.sandbox).await, [a.ip]);
    let identity = PodIdentity { sandbox_id: a.sandbox.clone(), ..PodIdentity::default() };
    assert_eq!(network.attach(&a.netns.path(), &identity, &[]).await.unwrap(), [a.ip]);
    serve_tcp(&a.netns, 80, "a");
    assert_eq!(ask_tcp(&b.netns, at(a.ip, 80)).unwrap().name, "a");
    assert_eq!(network.retain(&BTreeSet::from([a.sandbox.clone()])).await.unwrap(), std::slice::from_ref(&b.sandbox));
    assert!(ask_tcp(&b.netns, at(a.ip, 80)).is_err());
    assert!(network.addresses(&b.sandbox).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_pods_at_once_get_fifty_addresses() {
    if !trial::is_root() {
        return;
    }
    let host = Host::new("192.0.2.1/24").await;
    let config = host.config("one", "10.244.0.0/16", "10.96.0.0/16");
    let network = PodNetworker::open(config.clone()).await.unwrap();
    network.set_pod_cidrs(vec!["10.244.0.0/24".parse().unwrap()]).await.unwrap();
    let started = std::time::Instant::now();
    let pods = futures::future::join_all((0..50).map(|_| pod(&network))).await;
    println!("50 pods attached in {:?}", started.elapsed());
    assert_eq!(pods.iter().map(|p| p.ip).collect::<BTreeSet<_>>().len(), 50);
    serve_tcp(&pods[49].netns, 80, "last");
    assert_eq!(ask_tcp(&pods[0].netns, at(pods[49].ip, 80)).unwrap().name, "last");

    // The records are lost and a link is gone: a check brings back both, with the addresses the sandboxes have.
    drop(network);
    std::fs::remove_dir_all(&config.state_dir).unwrap();
    Links::open(&host.netns).await.unwrap().delete(&config.instance.pod_link(&pods[49].sandbox)).await.unwrap();
    let network = PodNetworker::open(config).await.unwrap();
    network.set_pod_cidrs(vec!["10.244.0.0/24".parse().unwrap()]).await.unwrap();
    for pod in &pods {
        let identity = PodIdentity { sandbox_id: pod.sandbox.clone(), ..PodIdentity::default() };
        network.check(&pod.netns.path(), &identity, &[], &[pod.ip]).await.unwrap();
    }
    assert_eq!(ask_tcp(&pods[0].netns, at(pods[49].ip, 80)).unwrap().name, "last");
    let new = pod(&network).await;
    assert!(!pods.iter().any(|p| p.ip == new.ip));
}

#[tokio::test(flavor = "multi_thread")]
async fn host_ports_lead_to_their_pod_even_from_itself() {
    if !trial::is_root() {
        return;
    }
    let host = Host::new("192.0.2.1/24").await;
    let network = PodNetworker::open(host.config("one", "10.244.0.0/16", "10.96.0.0/16")).await.unwrap();
    network.set_pod_cidrs(vec!["10.244.0.0/24".parse().unwrap()]).await.unwrap();
    let port = HostPort { host_ip: None, host_port: 8080, container_port: 80, protocol: Protocol::Tcp };
    let server = pod_with_ports(&network, &[port]).await;
    let client = pod(&network).await;
    serve_tcp(&server.netns, 80, "server");
    for from in [&client.netns, &host.netns, &server.netns] {
        assert_eq!(ask_tcp(from, at(host.address, 8080)).unwrap().name, "server");
    }
    network.detach(&server.sandbox).await.unwrap();
    assert!(ask_tcp(&client.netns, at(host.address, 8080)).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_live_side_by_side_and_leave_nothing() {
    if !trial::is_root() {
        return;
    }
    let host = Host::new("192.0.2.1/24").await;
    let links = Links::open(&host.netns).await.unwrap();
    let before = (links.named("").await.unwrap(), links.routes().await.unwrap());
    let one = PodNetworker::open(host.config("one", "10.244.0.0/16", "10.96.0.0/16")).await.unwrap();
    one.set_pod_cidrs(vec!["10.244.0.0/24".parse().unwrap()]).await.unwrap();
    // A second cluster's own choice avoids the first one's networks.
    let picked = network::pick_cidrs(&host.netns).await.unwrap();
    assert_eq!((picked.pods.to_string(), picked.services.to_string()), ("10.245.0.0/16".into(), "10.97.0.0/16".into()));
    let two = PodNetworker::open(host.config("two", "10.245.0.0/16", "10.97.0.0/16")).await.unwrap();
    two.set_pod_cidrs(vec!["10.245.0.0/24".parse().unwrap()]).await.unwrap();
    let (a, b) = (pod(&one).await, pod(&one).await);
    let other = pod(&two).await;
    serve_tcp(&a.netns, 80, "a");
    serve_tcp(&host.netns, 80, "host");

    teardown(&Instance::new("two"), &host.netns).await.unwrap();
    assert!(ask_tcp(&other.netns, at(host.address, 80)).is_err());
    assert_eq!(ask_tcp(&b.netns, at(a.ip, 80)).unwrap().name, "a");

    teardown(&Instance::new("one"), &host.netns).await.unwrap();
    teardown(&Instance::new("one"), &host.netns).await.unwrap();
    assert_eq!((links.named("").await.unwrap(), links.routes().await.unwrap()), before);
    let nft = Nft::open(&host.netns).unwrap();
    for family in Family::BOTH {
        assert!(nft.tables(family).unwrap().is_empty());
    }
}
