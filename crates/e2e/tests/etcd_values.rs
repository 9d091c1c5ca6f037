//! What kube-apiserver wrote to etcd is read through the API, and goes on to the embedded datastore. Without a quorum the API
//! answers with etcd's words. The values are encoded here as upstream's generated code does it, not by our encoder.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use e2e::eventually_within;
use e2e::fleet::{Fleet, with_etcd};
use serde_json::{Value, json};
use store::{Expect, Op, Store};

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return out;
        }
        out.push(byte | 0x80);
    }
}

/// A field of bytes: text, a message, a map's entry.
fn field(number: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [varint(number << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn int(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

fn entry(number: u64, key: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    field(number, [field(1, key), field(2, value)].concat())
}

/// An object in its envelope, with the empty texts that Go writes.
fn sealed(version: &str, kind: &str, fields: &[Vec<u8>]) -> Vec<u8> {
    let head = field(1, [field(1, version), field(2, kind)].concat());
    [b"k8s\0".to_vec(), head, field(2, fields.concat()), field(3, ""), field(4, "")].concat()
}

fn metadata(name: &str, namespace: &str) -> Vec<u8> {
    let time = [int(1, 1_700_000_000), int(2, 0)].concat();
    let texts = [field(1, name), field(2, ""), field(3, namespace), field(4, ""), field(5, "0-1-2-3"), field(6, "")].concat();
    field(1, [texts, int(7, 0), field(8, time), entry(11, "made-by", "upstream")].concat())
}

fn values() -> Vec<(&'static str, Vec<u8>)> {
    let quantity = |text: &str| field(1, text);
    let node_spec = field(2, [field(1, "10.244.0.0/24"), field(2, ""), field(3, "")].concat());
    let node_status = field(3, [entry(1, "cpu", quantity("4")), entry(2, "memory", quantity("8Gi")), field(3, "")].concat());
    let target = field(4, [int(1, 0), int(2, 8080), field(3, "")].concat());
    let port = field(1, [field(1, "http"), field(2, "TCP"), int(3, 80), target, int(5, 30_080)].concat());
    let selector = entry(2, "app", "web");
    let service = [port, selector, field(3, "10.96.7.7"), field(4, "NodePort"), field(18, "10.96.7.7"), field(19, "IPv4")].concat();
    let address = field(1, field(1, "10.1.1.1"));
    let subset = field(2, [address, field(3, [field(1, "http"), int(2, 8080), field(3, "TCP")].concat())].concat());
    let definition = r#"{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1beta1","metadata":{"name":"boats.example.com","uid":"9-9","creationTimestamp":"2024-01-01T00:00:00Z"},"spec":{"group":"example.com","version":"v1","names":{"plural":"boats","singular":"boat","kind":"Boat","listKind":"BoatList"},"scope":"Namespaced","validation":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","properties":{"sails":{"type":"integer"}}}}}},"versions":[{"name":"v1","served":true,"storage":true}],"conversion":{"strategy":"None"},"preserveUnknownFields":false},"status":{"conditions":[{"type":"NamesAccepted","status":"True","lastTransitionTime":"2024-01-01T00:00:00Z","reason":"NoConflicts","message":"no conflicts found"},{"type":"Established","status":"True","lastTransitionTime":"2024-01-01T00:00:00Z","reason":"InitialNamesAccepted","message":"the initial names have been accepted"}],"acceptedNames":{"plural":"boats","singular":"boat","kind":"Boat","listKind":"BoatList"},"storedVersions":["v1"]}}"#;
    let boat = r#"{"apiVersion":"example.com/v1","kind":"Boat","metadata":{"creationTimestamp":"2024-01-01T00:00:00Z","generation":1,"name":"skiff","namespace":"default","uid":"8-8"},"spec":{"sails":1}}"#;
    let line = |text: &str| format!("{text}\n").into_bytes();
    vec![
        ("/registry/minions/n1", sealed("v1", "Node", &[metadata("n1", ""), node_spec, node_status])),
        (
            "/registry/services/specs/default/web",
            sealed("v1", "Service", &[metadata("web", "default"), field(2, service), field(3, field(1, ""))]),
        ),
        ("/registry/services/endpoints/default/web", sealed("v1", "Endpoints", &[metadata("web", "default"), subset])),
        ("/registry/configmaps/default/c", sealed("v1", "ConfigMap", &[metadata("c", "default"), entry(2, "k", "v")])),
        ("/registry/apiextensions.k8s.io/customresourcedefinitions/boats.example.com", line(definition)),
        ("/registry/example.com/boats/default/skiff", line(boat)),
    ]
}

struct Place {
    fleet: Fleet,
}

impl Place {
    fn api(&mut self, etcd: bool) -> Result<()> {
        let data = self.fleet.dir().join("api");
        self.fleet.start_api(0, &Fleet::address(0), &data, |command| {
            if etcd {
                command.args(["--etcd-servers", &Fleet::etcd_urls().join(",")]);
            }
        })
    }

    fn migrate(&mut self, to: &str, more: &[&str]) -> Result<()> {
        let mut command = Command::new(e2e::skiff());
        command.env("SKIFF_DATA_DIR", self.fleet.dir().join("api")).args(["datastore", "migrate", "--to", to]);
        command.args(["--etcd-servers", &Fleet::etcd_urls().join(",")]).args(more);
        self.fleet.spawn(0, "migrate", &mut command)?;
        eventually_within(
            Duration::from_secs(30),
            "it migrates",
            || if self.fleet.runs(0, "migrate") { bail!("it runs") } else { Ok(()) },
        )?;
        println!("{}", self.fleet.log(0, "migrate"));
        Ok(())
    }

    fn request(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let config = self.fleet.dir().join("api/admin.kubeconfig");
        let bytes = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
        self.fleet.with_clients(|| async {
            let config = e2e::config_of(&config, &format!("{}:6443", Fleet::address(0))).await?;
            let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            let request = http::Request::builder().method(method).uri(path).header("content-type", kind).body(bytes)?;
            Ok(kube::Client::try_from(config)?.request::<Value>(request).await?)
        })
    }

    fn get(&self, path: &str) -> Result<Value> {
        self.request("GET", path, None)
    }

    /// What upstream wrote, as the API shows it.
    fn look(&self) -> Result<()> {
        let nodes = self.get("/api/v1/nodes")?;
        let node = nodes["items"].as_array().unwrap().iter().find(|n| n["metadata"]["name"] == "n1").context("no node")?;
        assert_eq!(node["spec"]["podCIDR"], "10.244.0.0/24");
        assert_eq!((&node["status"]["capacity"]["cpu"], &node["status"]["allocatable"]["memory"]), (&json!("4"), &json!("8Gi")));
        assert_eq!(node["metadata"]["creationTimestamp"], "2023-11-14T22:13:20Z");
        assert_eq!(node["metadata"]["labels"], json!({"made-by": "upstream"}));
        let service = self.get("/api/v1/namespaces/default/services/web")?;
        assert_eq!((&service["spec"]["clusterIP"], &service["spec"]["type"]), (&json!("10.96.7.7"), &json!("NodePort")));
        let port = json!({"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080, "nodePort": 30080});
        assert_eq!(service["spec"]["ports"], json!([port]));
        let endpoints = self.get("/api/v1/namespaces/default/endpoints/web")?;
        assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "10.1.1.1");
        let maps = self.get("/api/v1/namespaces/default/configmaps?labelSelector=made-by%3Dupstream")?;
        assert_eq!((&maps["items"][0]["data"]["k"], maps["items"].as_array().unwrap().len()), (&json!("v"), 1));
        let definition = self.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/boats.example.com")?;
        assert_eq!(
            definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["sails"]["type"],
            "integer"
        );
        eventually_within(Duration::from_secs(10), "boats are served", || {
            let boats = self.get("/apis/example.com/v1/boats")?;
            assert_eq!((&boats["items"][0]["metadata"]["name"], &boats["items"][0]["spec"]["sails"]), (&json!("skiff"), &json!(1)));
            Ok(())
        })
    }

    /// No quorum: etcd's words, or that time ran out; and back again.
    fn without_quorum(&mut self) -> Result<()> {
        for at in [1, 2] {
            self.fleet.kill(at, "etcd")?;
        }
        let bad = |error: anyhow::Error| -> Result<(u16, String)> {
            match error.downcast::<kube::Error>()? {
                kube::Error::Api(status) => Ok((status.code, status.message.clone())),
                other => bail!("{other}"),
            }
        };
        for (method, path, body) in [
            ("GET", "/api/v1/namespaces/default/configmaps/c", None),
            ("GET", "/api/v1/namespaces/default/configmaps", None),
            ("POST", "/api/v1/namespaces/default/configmaps", Some(json!({"metadata": {"name": "never"}}))),
        ] {
            let (code, message) = bad(self.request(method, path, body).expect_err(path))?;
            println!("{method} {path} without a quorum: {code} {message}");
            assert!(matches!((code, message.as_str()), (500, m) if m.starts_with("etcdserver: ")) || code == 504, "{code} {message}");
        }
        let (code, message) = bad(self.get("/readyz").expect_err("not ready"))?;
        assert!(code == 500 && message.contains("[-]etcd failed"), "{code} {message}");
        for at in [1, 2] {
            self.fleet.run_etcd(at)?;
        }
        eventually_within(Duration::from_secs(20), "it goes on", || self.get("/api/v1/namespaces/default/configmaps/c").map(drop))
    }
}

#[test]
fn what_upstream_wrote_is_read_and_migrates() {
    with_etcd(all);
}

fn all() -> Result<()> {
    let mut place = Place { fleet: Fleet::start()? };
    place.fleet.with_clients(|| async {
        let store = etcd::Etcd::connect(etcd::Options::new(Fleet::etcd_urls())).await?;
        for (key, value) in values() {
            store.write(Op::Put { key: key.into(), value: value.into(), expect: Expect::Absent, ttl: None }).await?;
        }
        Ok(())
    })?;
    place.api(true)?;
    place.look()?;
    // What is written anew is ours, and the rest stays.
    let changed = place.request("PATCH", "/api/v1/namespaces/default/configmaps/c", Some(json!({"data": {"more": "w"}})))?;
    assert_eq!(changed["data"], json!({"k": "v", "more": "w"}));
    // The node port that upstream gave away is not given twice.
    let same = json!({"metadata": {"name": "other"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}});
    let refused = place.request("POST", "/api/v1/namespaces/default/services", Some(same)).expect_err("taken").to_string();
    assert!(refused.contains("provided port is already allocated"), "{refused}");
    place.without_quorum()?;

    place.fleet.kill(0, "api")?;
    place.migrate("embedded", &[])?;
    place.api(false)?;
    place.look()?;
    place.fleet.kill(0, "api")?;
    place.migrate("etcd", &["--etcd-prefix", "/other"])?;
    place.fleet.with_clients(|| async {
        let there = etcd::Options { prefix: "/other".into(), ..etcd::Options::new(Fleet::etcd_urls()) };
        let (_, found) = etcd::Etcd::connect(there).await?.get("/registry/minions/n1").await?;
        assert!(found.context("no node")?.value.starts_with(b"{\"kind\":\"Node\""));
        Ok(())
    })
}
