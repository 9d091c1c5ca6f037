//! Answers of the cluster's DNS, by the Kubernetes DNS specification 1.1 and, where that is silent, as CoreDNS with
//! kubeadm's configuration. `network::dns` reads packets, asks [`answer`], and forwards what is not ours.

mod reverse;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// CoreDNS' `ttl 30`.
pub const TTL_SECONDS: u32 = 30;

/// What the answers are made of: the shared informers, or a test's objects.
pub trait View {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>>;
    fn service_with_ip(&self, ip: IpAddr) -> Option<Arc<Service>>;
    fn slices_with_ip(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>>;
    fn has_namespace(&self, namespace: &str) -> bool;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordType {
    A,
    Aaaa,
    Srv,
    Ptr,
    Cname,
    Ns,
    Soa,
    Txt,
    /// Any type we have no records of.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Srv { priority: u16, weight: u16, port: u16, target: String },
    Ptr(String),
    Cname(String),
    Ns(String),
    Soa,
    Txt(String),
}

impl Data {
    fn of_addr(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Data::A(ip),
            IpAddr::V6(ip) => Data::Aaaa(ip),
        }
    }
}

/// A record. Names are without the final dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub name: String,
    pub data: Data,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Records {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    /// The name is an alias; the target's records of the asked type are to follow it.
    Alias {
        record: Record,
        target: String,
    },
    /// The name exists, without records of this type.
    NoData,
    NoName,
    /// Not ours: ask the upstream resolvers.
    Forward,
}

/// The zone's own facts.
#[derive(Clone, Debug)]
pub struct Zone {
    /// "cluster.local"
    pub domain: String,
    /// The DNS Service's ClusterIPs.
    pub servers: Vec<IpAddr>,
}

/// Answer a question. `name` is without the final dot, in any case.
pub fn answer(view: &impl View, zone: &Zone, name: &str, kind: RecordType) -> Answer {
    let lower = name.to_ascii_lowercase();
    if let Some(ip) = reverse::address(&lower) {
        return reverse::answer(view, zone, name, ip, kind);
    }
    let Some(inside) = within(&lower, &zone.domain) else { return Answer::Forward };
    let labels: Vec<&str> = if inside.is_empty() { Vec::new() } else { inside.rsplit('.').collect() };
    let found = match labels.as_slice() {
        [] => apex(zone),
        ["dns-version"] => Found::Records(vec![(None, Data::Txt("1.1.0".into()))]),
        ["dns"] => Found::Exists,
        ["dns", "ns"] => Found::Records(zone.servers.iter().map(|ip| (None, Data::of_addr(*ip))).collect()),
        ["svc"] | ["pod"] => Found::Exists,
        ["svc", namespace] | ["pod", namespace] if view.has_namespace(namespace) => Found::Exists,
        ["pod", namespace, ip] => pod(view, namespace, ip),
        ["svc", namespace, service, rest @ ..] => service_records(view, zone, namespace, service, rest),
        _ => Found::Nothing,
    };
    found.select(name, kind)
}

/// The part of a name before the domain.
fn within<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    let rest = name.strip_suffix(domain)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_suffix('.') }
}

/// What there is under a name, of any type. A record may have a companion: the name an SRV leads to, with its address.
enum Found {
    Nothing,
    Exists,
    Alias(String),
    Records(Vec<(Option<Record>, Data)>),
}

impl Found {
    fn select(self, name: &str, kind: RecordType) -> Answer {
        match self {
            Found::Nothing => Answer::NoName,
            Found::Exists => Answer::NoData,
            Found::Alias(target) => {
                let record = Record { name: name.into(), data: Data::Cname(target.clone()) };
                match kind {
                    RecordType::Cname => Answer::Records { answers: vec![record], additionals: Vec::new() },
                    _ => Answer::Alias { record, target },
                }
            }
            Found::Records(all) => {
                let mut answers = Vec::new();
                let mut additionals = Vec::new();
                for (companion, data) in all.into_iter().filter(|(_, data)| is_kind(data, kind)) {
                    let record = Record { name: name.into(), data };
                    if !answers.contains(&record) {
                        answers.push(record);
                    }
                    additionals.extend(companion.filter(|c| !additionals.contains(c)));
                }
                weigh(&mut answers);
                if answers.is_empty() { Answer::NoData } else { Answer::Records { answers, additionals } }
            }
        }
    }
}

fn is_kind(data: &Data, kind: RecordType) -> bool {
    matches!(
        (data, kind),
        (Data::A(_), RecordType::A)
            | (Data::Aaaa(_), RecordType::Aaaa)
            | (Data::Srv { .. }, RecordType::Srv)
            | (Data::Ptr(_), RecordType::Ptr)
            | (Data::Cname(_), RecordType::Cname)
            | (Data::Ns(_), RecordType::Ns)
            | (Data::Soa, RecordType::Soa)
            | (Data::Txt(_), RecordType::Txt)
    )
}

/// CoreDNS shares a weight of 100 among the SRV records of an answer.
fn weigh(answers: &mut [Record]) {
    let share = (100 / answers.len().max(1)).max(1) as u16;
    for record in answers {
        if let Data::Srv { weight, .. } = &mut record.data {
            *weight = share;
        }
    }
}

fn apex(zone: &Zone) -> Found {
    let server = format!("ns.dns.{}", zone.domain);
    let address = |ip: &IpAddr| Record { name: server.clone(), data: Data::of_addr(*ip) };
    let mut records = vec![(None, Data::Soa)];
    records.extend(zone.servers.iter().map(|ip| (Some(address(ip)), Data::Ns(server.clone()))));
    if zone.servers.is_empty() {
        records.push((None, Data::Ns(server)));
    }
    Found::Records(records)
}

/// `10-244-0-5.default.pod`: CoreDNS' `pods insecure` believes any address.
fn pod(view: &impl View, namespace: &str, ip: &str) -> Found {
    if !view.has_namespace(namespace) {
        return Found::Nothing;
    }
    let v4 = ip.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    match v4.or_else(|_| ip.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)) {
        Ok(ip) => Found::Records(vec![(None, Data::of_addr(ip))]),
        Err(_) => Found::Nothing,
    }
}

/// Which port a name asks for: `_http._tcp`.
struct Wanted<'a> {
    port: Option<(&'a str, &'a str)>,
    endpoint: Option<&'a str>,
}

impl Wanted<'_> {
    fn port(&self, name: Option<&str>, protocol: Option<&str>) -> bool {
        self.port.is_none_or(|(port, proto)| name.unwrap_or_default() == port && protocol.unwrap_or("TCP").eq_ignore_ascii_case(proto))
    }
}

/// `rest` are the labels before the service, nearest first.
fn service_records(view: &impl View, zone: &Zone, namespace: &str, name: &str, rest: &[&str]) -> Found {
    let wanted = match rest {
        [] => Wanted { port: None, endpoint: None },
        [endpoint] if !endpoint.starts_with('_') => Wanted { port: None, endpoint: Some(endpoint) },
        [protocol, port] => match (protocol.strip_prefix('_'), port.strip_prefix('_')) {
            (Some(protocol), Some(port)) => Wanted { port: Some((port, protocol)), endpoint: None },
            _ => return Found::Nothing,
        },
        _ => return Found::Nothing,
    };
    let Some(service) = view.service(namespace, name) else { return Found::Nothing };
    let Some(spec) = &service.spec else { return Found::Nothing };
    if spec.type_.as_deref() == Some("ExternalName") {
        let target = spec.external_name.as_deref().filter(|_| wanted.endpoint.is_none() && wanted.port.is_none());
        return target.map_or(Found::Nothing, |t| Found::Alias(t.trim_end_matches('.').into()));
    }
    let base = format!("{name}.{namespace}.svc.{}", zone.domain);
    let records = if is_headless(&service) || wanted.endpoint.is_some() {
        endpoint_records(view, namespace, name, &base, &wanted)
    } else {
        let mut records = Vec::new();
        let ips: Vec<IpAddr> = cluster_ips(&service).collect();
        for port in spec.ports.iter().flatten().filter(|p| wanted.port(p.name.as_deref(), p.protocol.as_deref())) {
            for ip in &ips {
                records.push((None, Data::of_addr(*ip)));
                let companion = Record { name: base.clone(), data: Data::of_addr(*ip) };
                records.push((Some(companion), srv(port.port, base.clone())));
            }
        }
        records
    };
    // As CoreDNS: a headless Service without endpoints does not exist.
    if records.is_empty() { Found::Nothing } else { Found::Records(records) }
}

fn endpoint_records(view: &impl View, namespace: &str, name: &str, base: &str, wanted: &Wanted<'_>) -> Vec<(Option<Record>, Data)> {
    let mut records = Vec::new();
    for slice in view.slices(namespace, name) {
        let ports: Vec<_> = slice.ports.iter().flatten().filter(|p| wanted.port(p.name.as_deref(), p.protocol.as_deref())).collect();
        for endpoint in slice.endpoints.iter().flatten().filter(|e| is_ready(e)) {
            for ip in endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok()) {
                let host = host_name(endpoint, ip);
                if wanted.endpoint.is_some_and(|w| w != host) || (wanted.port.is_some() && ports.is_empty()) {
                    continue;
                }
                records.push((None, Data::of_addr(ip)));
                for number in ports.iter().filter_map(|p| p.port) {
                    let target = format!("{host}.{base}");
                    let companion = Record { name: target.clone(), data: Data::of_addr(ip) };
                    records.push((Some(companion), srv(number, target)));
                }
            }
        }
    }
    records
}

fn srv(port: i32, target: String) -> Data {
    Data::Srv { priority: 0, weight: 100, port: u16::try_from(port).unwrap_or_default(), target }
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

/// An endpoint's label under its Service: its hostname, else its address with dashes.
fn host_name(endpoint: &Endpoint, ip: IpAddr) -> String {
    match &endpoint.hostname {
        Some(name) if !name.is_empty() => name.to_ascii_lowercase(),
        _ => ip.to_string().replace(['.', ':'], "-"),
    }
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| s.cluster_ip.as_deref() == Some("None"))
}

/// Those of a Service, in order of preference.
pub fn cluster_ips(service: &Service) -> impl Iterator<Item = IpAddr> {
    let spec = service.spec.as_ref();
    let all = spec.and_then(|s| s.cluster_ips.as_deref()).filter(|l| !l.is_empty());
    let one = spec.map(|s| s.cluster_ip.as_slice()).unwrap_or_default();
    all.unwrap_or(one).iter().filter_map(|ip| ip.parse().ok())
}
