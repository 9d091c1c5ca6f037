//! Questions and answers as tables.

use serde_json::{Value, json};

use super::*;

#[derive(Default)]
struct Objects {
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
}

impl View for Objects {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        let named = |s: &&Arc<Service>| s.metadata.name.as_deref() == Some(name) && s.metadata.namespace.as_deref() == Some(namespace);
        self.services.iter().find(named).cloned()
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let of = |s: &&Arc<EndpointSlice>| {
            s.metadata.namespace.as_deref() == Some(namespace)
                && s.metadata.labels.as_ref().unwrap()["kubernetes.io/service-name"] == service
        };
        self.slices.iter().filter(of).cloned().collect()
    }

    fn service_with_ip(&self, ip: IpAddr) -> Option<Arc<Service>> {
        self.services.iter().find(|s| cluster_ips(s).any(|i| i == ip)).cloned()
    }

    fn slices_with_ip(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>> {
        let has = |s: &&Arc<EndpointSlice>| s.endpoints.iter().flatten().any(|e| e.addresses.contains(&ip.to_string()));
        self.slices.iter().filter(has).cloned().collect()
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        ["default", "kube-system"].contains(&namespace)
    }
}

fn objects() -> Objects {
    let service = |name: &str, spec: Value| {
        let object = json!({"metadata": {"namespace": "default", "name": name}, "spec": spec});
        Arc::new(serde_json::from_value(object).unwrap())
    };
    let slice = |service: &str, kind: &str, endpoints: Value| {
        let labels = json!({"kubernetes.io/service-name": service});
        let object = json!({"metadata": {"namespace": "default", "name": service, "labels": labels}, "addressType": kind,
            "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints});
        Arc::new(serde_json::from_value(object).unwrap())
    };
    let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    Objects {
        services: vec![
            service("web", json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"], "ports": ports})),
            service("db", json!({"clusterIP": "None", "ports": [{"name": "http", "port": 8080}]})),
            service("empty", json!({"clusterIP": "None", "ports": [{"port": 1}]})),
            service("out", json!({"type": "ExternalName", "externalName": "example.com."})),
        ],
        slices: vec![
            slice("web", "IPv4", json!([{"addresses": ["10.244.0.9"]}])),
            slice(
                "db",
                "IPv4",
                json!([{"addresses": ["10.244.0.5"], "hostname": "db-0"}, {"addresses": ["10.244.0.6"], "conditions": {"ready": true}},
                       {"addresses": ["10.244.0.7"], "hostname": "db-2", "conditions": {"ready": false}}]),
            ),
        ],
    }
}

fn shown(record: &Record) -> String {
    match &record.data {
        Data::A(ip) => format!("A {ip}"),
        Data::Aaaa(ip) => format!("AAAA {ip}"),
        Data::Srv { priority, weight, port, target } => format!("SRV {priority} {weight} {port} {target}"),
        Data::Ptr(t) => format!("PTR {t}"),
        Data::Cname(t) => format!("CNAME {t}"),
        Data::Ns(t) => format!("NS {t}"),
        Data::Soa => "SOA".into(),
        Data::Txt(t) => format!("TXT {t}"),
    }
}

fn ask(name: &str, kind: RecordType) -> String {
    let zone = Zone { domain: "cluster.local".into(), servers: vec!["10.96.0.10".parse().unwrap()] };
    match answer(&objects(), &zone, name, kind) {
        Answer::Records { answers, additionals } => {
            assert!(answers.iter().all(|r| r.name == name));
            let list = |records: &[Record]| records.iter().map(shown).collect::<Vec<_>>().join(", ");
            let extra: Vec<String> = additionals.iter().map(|r| format!(" +{} {}", r.name, shown(r))).collect();
            list(&answers) + &extra.concat()
        }
        Answer::Alias { target, .. } => format!("-> {target}"),
        Answer::NoData => "no data".into(),
        Answer::NoName => "no name".into(),
        Answer::Forward => "forward".into(),
    }
}

#[test]
fn questions_and_answers() {
    use RecordType::{A, Aaaa, Cname, Ns, Other, Ptr, Soa, Srv, Txt};
    for (name, kind, expected) in [
        ("web.default.svc.cluster.local", A, "A 10.96.0.7"),
        ("WEB.Default.svc.Cluster.Local", A, "A 10.96.0.7"),
        ("web.default.svc.cluster.local", Aaaa, "AAAA fd00::7"),
        ("web.default.svc.cluster.local", Other, "no data"),
        ("web.default.svc.cluster.local", Cname, "no data"),
        ("web.kube-system.svc.cluster.local", A, "no name"),
        ("db.default.svc.cluster.local", A, "A 10.244.0.5, A 10.244.0.6"),
        ("db.default.svc.cluster.local", Aaaa, "no data"),
        ("db-0.db.default.svc.cluster.local", A, "A 10.244.0.5"),
        ("db-2.db.default.svc.cluster.local", A, "no name"),
        ("10-244-0-6.db.default.svc.cluster.local", A, "A 10.244.0.6"),
        ("10-244-0-9.web.default.svc.cluster.local", A, "A 10.244.0.9"),
        ("empty.default.svc.cluster.local", A, "no name"),
        ("out.default.svc.cluster.local", A, "-> example.com"),
        ("out.default.svc.cluster.local", Cname, "CNAME example.com"),
        (
            "_http._tcp.web.default.svc.cluster.local",
            Srv,
            "SRV 0 100 80 web.default.svc.cluster.local +web.default.svc.cluster.local A 10.96.0.7 +web.default.svc.cluster.local AAAA fd00::7",
        ),
        ("_http._udp.web.default.svc.cluster.local", Srv, "no name"),
        ("_http.web.default.svc.cluster.local", Srv, "no name"),
        ("a._http._tcp.web.default.svc.cluster.local", Srv, "no name"),
        (
            "_http._tcp.db.default.svc.cluster.local",
            Srv,
            "SRV 0 50 8080 db-0.db.default.svc.cluster.local, SRV 0 50 8080 10-244-0-6.db.default.svc.cluster.local \
             +db-0.db.default.svc.cluster.local A 10.244.0.5 +10-244-0-6.db.default.svc.cluster.local A 10.244.0.6",
        ),
        ("10-244-0-99.default.pod.cluster.local", A, "A 10.244.0.99"),
        ("10-244-0-99.nowhere.pod.cluster.local", A, "no name"),
        ("fd00--5.default.pod.cluster.local", Aaaa, "AAAA fd00::5"),
        ("nonsense.default.pod.cluster.local", A, "no name"),
        ("default.svc.cluster.local", A, "no data"),
        ("nowhere.svc.cluster.local", A, "no name"),
        ("svc.cluster.local", A, "no data"),
        ("other.cluster.local", A, "no name"),
        ("cluster.local", Soa, "SOA"),
        ("cluster.local", Ns, "NS ns.dns.cluster.local +ns.dns.cluster.local A 10.96.0.10"),
        ("ns.dns.cluster.local", A, "A 10.96.0.10"),
        ("dns-version.cluster.local", Txt, "TXT 1.1.0"),
        ("7.0.96.10.in-addr.arpa", Ptr, "PTR web.default.svc.cluster.local"),
        ("5.0.244.10.in-addr.arpa", Ptr, "PTR db-0.db.default.svc.cluster.local"),
        ("7.0.244.10.in-addr.arpa", Ptr, "forward"),
        ("7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", Ptr, "PTR web.default.svc.cluster.local"),
        ("0.96.10.in-addr.arpa", Ptr, "forward"),
        ("example.com", A, "forward"),
        ("notcluster.local", A, "forward"),
        ("", A, "forward"),
    ] {
        assert_eq!(ask(name, kind), expected, "{name} {kind:?}");
    }
}
