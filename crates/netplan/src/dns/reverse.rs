//! Addresses back to names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Answer, Data, Record, RecordType, View, Zone, host_name, is_ready};

/// The address a name under in-addr.arpa or ip6.arpa stands for.
pub(super) fn address(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let octets: Vec<u8> = labels.rsplit('.').map(str::parse).collect::<Result<_, _>>().ok()?;
        return <[u8; 4]>::try_from(octets).ok().map(|o| Ipv4Addr::from(o).into());
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let mut number: u128 = 0;
    let mut count = 0;
    for label in labels.rsplit('.') {
        let digit = u128::from_str_radix(label, 16).ok().filter(|_| label.len() == 1)?;
        number = number.checked_shl(4)? | digit;
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from(number).into())
}

/// Of a ClusterIP the Service, else of every ready endpoint with the address its name. Unknown addresses are not ours.
pub(super) fn answer(view: &impl View, zone: &Zone, name: &str, ip: IpAddr, kind: RecordType) -> Answer {
    let mut targets = Vec::new();
    if let Some(service) = view.service_with_ip(ip) {
        let (namespace, service) = (service.metadata.namespace.as_deref(), service.metadata.name.as_deref());
        targets.push(format!("{}.{}.svc.{}", service.unwrap_or_default(), namespace.unwrap_or_default(), zone.domain));
    } else {
        for slice in view.slices_with_ip(ip) {
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            let Some(service) = slice.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name")) else { continue };
            let same = |a: &String| a.parse() == Ok(ip);
            for endpoint in slice.endpoints.iter().flatten().filter(|e| is_ready(e) && e.addresses.iter().any(same)) {
                targets.push(format!("{}.{service}.{namespace}.svc.{}", host_name(endpoint, ip), zone.domain));
            }
        }
    }
    targets.sort();
    targets.dedup();
    if targets.is_empty() {
        return Answer::Forward;
    }
    if kind != RecordType::Ptr {
        return Answer::NoData;
    }
    let record = |target| Record { name: name.into(), data: Data::Ptr(target) };
    Answer::Records { answers: targets.into_iter().map(record).collect(), additionals: Vec::new() }
}
