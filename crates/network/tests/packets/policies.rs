//! NetworkPolicies, followed from the API to who gets an answer.

use network::{PodNetworker, PolicyEnforcer, PolicyOptions};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::world::*;

fn put_pod(api: &Api, name: &str, namespace: &str, pod: &Pod) {
    api.put(
        "Pod",
        json!({"metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
            "spec": {"nodeName": "node-1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": pod.ip}]}}),
    );
}

fn put_policy(api: &Api, spec: Value) {
    api.put("NetworkPolicy", json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec}));
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_decide_who_gets_an_answer() {
    if !trial::is_root() {
        return;
    }
    let host = Host::new("192.0.2.1/24").await;
    let api = Api::default();
    let config = host.config("one", "10.244.0.0/16", "10.96.0.0/16");
    let network = PodNetworker::open(config.clone()).await.unwrap();
    network.set_pod_cidrs(vec!["10.244.0.0/24".parse().unwrap()]).await.unwrap();
    let (server, friend, stranger) = (pod(&network).await, pod(&network).await, pod(&network).await);
    for (name, namespace, pod) in [("server", "default", &server), ("friend", "default", &friend), ("stranger", "other", &stranger)] {
        put_pod(&api, name, namespace, pod);
    }
    for name in ["default", "other"] {
        api.put("Namespace", json!({"metadata": {"name": name, "labels": {"name": name}}}));
    }
    for port in [8080, 9090] {
        serve_tcp(&server.netns, port, "server");
        serve_tcp(&friend.netns, port, "friend");
    }
    let options = PolicyOptions {
        instance: config.instance.clone(),
        node_name: config.node_name.clone(),
        netns: config.netns.clone(),
        always: [].into(),
    };
    let cancel = CancellationToken::new();
    let enforcer = tokio::spawn(PolicyEnforcer::new(&api.informers(), options).unwrap().run(cancel.clone()));

    let open = |from: &Pod, to: &Pod, port: u16| ask_tcp_within(&from.netns, at(to.ip, port), 300).is_ok();
    let select = json!({"matchLabels": {"app": "server"}});
    let server_ip = format!("{}/32", server.ip);
    // Who reaches the server's 8080 (friend, stranger), its 9090 (friend), itself, and whom the server reaches.
    for (spec, expected) in [
        (json!({"podSelector": select}), [false, false, false, true, true]),
        (json!({"podSelector": select, "ingress": [{"from": [{"podSelector": {}}]}]}), [true, false, true, true, true]),
        (json!({"podSelector": select, "ingress": [{"ports": [{"port": "http"}]}]}), [true, true, false, true, true]),
        (json!({"podSelector": select, "ingress": [{"ports": [{"port": 9000, "endPort": 9100}]}]}), [false, false, true, true, true]),
        (
            json!({"podSelector": select, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"name": "other"}}}]}]}),
            [false, true, false, true, true],
        ),
        (
            json!({"podSelector": select, "ingress": [{"from": [{"ipBlock": {"cidr": "10.244.0.0/16", "except": [format!("{}/32", stranger.ip)]}}]}]}),
            [true, false, true, true, true],
        ),
        (json!({"podSelector": select, "policyTypes": ["Egress"]}), [true, true, true, true, false]),
        (
            json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": server_ip}}]}]}),
            [true, true, true, true, false],
        ),
    ] {
        put_policy(&api, spec.clone());
        let found = || {
            [
                open(&friend, &server, 8080),
                open(&stranger, &server, 8080),
                open(&friend, &server, 9090),
                open(&server, &server, 8080),
                open(&server, &friend, 8080),
            ]
        };
        // The enforcer hears of the policy a moment later; how much later is up to the machine.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(15);
        let mut last = found();
        while last != expected && std::time::Instant::now() < until {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            last = found();
        }
        assert_eq!(last, expected, "{spec}");
    }
    // The node is never shut out: it probes.
    assert!(ask_tcp(&host.netns, at(server.ip, 8080)).is_ok());
    cancel.cancel();
    enforcer.await.unwrap();
}
