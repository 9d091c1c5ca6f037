//! Which families, addresses and ports a Service gets.

use std::net::IpAddr;

use machinery::field::{Error, Path};
use machinery::object::{map_mut, str_at};
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::claims::{Claims, held, protocol};
use super::{claims, set_addresses};
use crate::config::Config;
use crate::identifiers;
use crate::net::Cidr;
use crate::verbs::Target;
use crate::verbs::write::Ctx;

/// The first addresses of a range are left to those who ask for them by name.
fn reserved(range: &Cidr) -> u64 {
    (range.size() / 16).clamp(16, 256).min(range.size() / 2)
}

fn ranges(config: &Config) -> Vec<Cidr> {
    config.service_cluster_ip_ranges.iter().filter_map(|r| Cidr::parse(r).ok()).collect()
}

fn family(range: &Cidr) -> &'static str {
    if range.is_ipv6() { "IPv6" } else { "IPv4" }
}

fn list(value: &Value, path: &str) -> Vec<String> {
    let items = machinery::object::at(value, path).and_then(Value::as_array);
    items.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn is_headless(value: &Value) -> bool {
    str_at(value, "spec.clusterIP") == "None"
}

/// `ipFamilies` and `ipFamilyPolicy`, where they were left out.
pub fn families(config: &Config, target: &Target, value: &mut Value) -> Result<(), StatusError> {
    if str_at(value, "spec.type") == "ExternalName" {
        let spec = map_mut(value, "spec");
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            spec.remove(key);
        }
        return Ok(());
    }
    let ranges = ranges(config);
    let asked_by_address: Vec<&str> = list(value, "spec.clusterIPs")
        .iter()
        .filter_map(|ip| ip.parse::<IpAddr>().ok())
        .map(|ip| if ip.is_ipv6() { "IPv6" } else { "IPv4" })
        .collect();
    let mut families = list(value, "spec.ipFamilies");
    let policy = str_at(value, "spec.ipFamilyPolicy").to_owned();
    let policy = match policy.as_str() {
        "" if families.len() > 1 || asked_by_address.len() > 1 => "RequireDualStack".to_owned(),
        "" => "SingleStack".to_owned(),
        _ => policy,
    };
    if families.is_empty() {
        families = asked_by_address.iter().map(|f| (*f).to_owned()).collect();
    }
    if families.is_empty() {
        families.extend(ranges.first().map(|r| family(r).to_owned()));
    }
    if policy != "SingleStack" && families.len() == 1 {
        families.extend(ranges.iter().map(family).find(|f| *f != families[0]).map(str::to_owned));
    }
    if policy == "RequireDualStack" && ranges.len() < 2 {
        let text = "this cluster is not configured for dual-stack services";
        let error = Error::invalid(&Path::new("spec.ipFamilyPolicy"), &json!(policy), text);
        return Err(StatusError::invalid(&target.resource.group_kind(), machinery::object::name(value), &[error]));
    }
    let spec = map_mut(value, "spec");
    spec.insert("ipFamilyPolicy".into(), json!(policy));
    spec.insert("ipFamilies".into(), json!(families));
    Ok(())
}

fn needs_addresses(value: &Value) -> bool {
    str_at(value, "spec.type") != "ExternalName" && !is_headless(value)
}

pub async fn addresses(ctx: &Ctx, target: &Target, value: &mut Value, old: Option<&Value>, claims: &mut Claims) -> Result<(), StatusError> {
    if is_headless(value) {
        set_addresses(value, &["None".to_owned()]);
        return Ok(());
    }
    if !needs_addresses(value) {
        return Ok(());
    }
    let before: Vec<String> = old.filter(|o| needs_addresses(o)).map(|o| list(o, "spec.clusterIPs")).unwrap_or_default();
    let asked = {
        let many = list(value, "spec.clusterIPs");
        let one = str_at(value, "spec.clusterIP").to_owned();
        if many.is_empty() && !one.is_empty() { vec![one] } else { many }
    };
    let mut got = Vec::new();
    for (index, family_wanted) in list(value, "spec.ipFamilies").iter().enumerate() {
        match asked.get(index).filter(|ip| !ip.is_empty()) {
            Some(ip) if before.contains(ip) => got.push(ip.clone()),
            Some(ip) => got.push(named(ctx, target, value, ip, claims).await?),
            None => got.push(any(ctx, target, value, family_wanted, claims).await?),
        }
    }
    set_addresses(value, &got);
    Ok(())
}

/// The refusal of the IPAddress that would name its Service.
pub fn refuse_nameless(config: &Config, target: &Target, value: &Value) -> Result<(), StatusError> {
    if !needs_addresses(value) {
        return Ok(());
    }
    let asked = list(value, "spec.clusterIPs").into_iter().next().unwrap_or_else(|| str_at(value, "spec.clusterIP").to_owned());
    let (shown, ip) = if asked.is_empty() {
        let any = ranges(config).first().and_then(|range| range.nth(reserved(range)));
        (String::new(), any.map(|ip| ip.to_string()).unwrap_or_default())
    } else {
        (format!(" {asked}"), asked.clone())
    };
    let why = format!("failed to allocate IP{shown}: IPAddress.networking.k8s.io {ip:?} is invalid: spec.parentRef.name: Required value");
    let error = Error::invalid(&Path::new("spec.clusterIPs"), &json!([asked]), why);
    Err(StatusError::invalid(&target.resource.group_kind(), "", &[error]))
}

fn refuse(target: &Target, value: &Value, ips: &[&str], why: &str) -> StatusError {
    let error = Error::invalid(&Path::new("spec.clusterIPs"), &json!(ips), format!("failed to allocate IP {}: {why}", ips.join(",")));
    StatusError::invalid(&target.resource.group_kind(), machinery::object::name(value), &[error])
}

async fn named(ctx: &Ctx, target: &Target, value: &Value, ip: &str, claims: &mut Claims) -> Result<String, StatusError> {
    let parsed: IpAddr = ip.parse().map_err(|_| refuse(target, value, &[ip], "not a valid IP"))?;
    let ranges = ranges(&ctx.api.config);
    if !ranges.iter().any(|r| r.contains(parsed)) {
        let valid: Vec<&str> = ctx.api.config.service_cluster_ip_ranges.iter().map(String::as_str).collect();
        let why = format!("the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}", valid.join(","));
        return Err(refuse(target, value, &[ip], &why));
    }
    // As upstream's allocators, a dry run does not look who has it.
    if ctx.options.dry_run || claims.address(ctx, target, value, ip).await? {
        return Ok(ip.to_owned());
    }
    Err(refuse(target, value, &[ip], "provided IP is already allocated"))
}

/// Tries random addresses, then all in order from a random place.
async fn any(ctx: &Ctx, target: &Target, value: &Value, family_wanted: &str, claims: &mut Claims) -> Result<String, StatusError> {
    let ranges = ranges(&ctx.api.config);
    let Some(range) = ranges.iter().find(|r| family(r) == family_wanted) else {
        let error = Error::invalid(&Path::new("spec.ipFamilies[0]"), &json!(family_wanted), "not configured on this cluster");
        return Err(StatusError::invalid(&target.resource.group_kind(), machinery::object::name(value), &[error]));
    };
    if ctx.options.dry_run
        && let Some(ip) = range.nth(0)
    {
        return Ok(ip.to_string());
    }
    // Neither the network's own address nor, in IPv4, broadcast.
    let last = range.size().saturating_sub(if range.is_ipv6() { 1 } else { 2 }).min(1 << 20);
    let first = reserved(range).min(last);
    let upper = last.saturating_sub(first) + 1;
    let start = identifiers::below(upper);
    for step in 0..last {
        let offset = if step < upper { first + (start + step) % upper } else { step - upper + 1 };
        let Some(ip) = range.nth(offset) else { continue };
        if claims.address(ctx, target, value, &ip.to_string()).await? {
            return Ok(ip.to_string());
        }
    }
    Err(StatusError::internal("failed to allocate a serviceIP: range is full"))
}

pub async fn ports(ctx: &Ctx, target: &Target, value: &mut Value, old: Option<&Value>, claims: &mut Claims) -> Result<(), StatusError> {
    let kind = str_at(value, "spec.type").to_owned();
    let allocate = kind == "NodePort"
        || (kind == "LoadBalancer" && value.pointer("/spec/allocateLoadBalancerNodePorts").and_then(Value::as_bool).unwrap_or(true));
    let before = old.map(held).unwrap_or_default();
    let mut ports = value.pointer("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default();
    // One number serves a port's protocols together.
    let mut mine: Vec<claims::Claim> = Vec::new();
    for (index, port) in ports.iter_mut().enumerate() {
        let given = port.get("nodePort").and_then(Value::as_i64).unwrap_or(0);
        let protocol = protocol(port).to_owned();
        if given > 0 {
            let claim = claims::Claim::Port(format!("{protocol}/{given}"));
            if before.contains(&claim) || mine.contains(&claim) {
                continue;
            }
            named_port(ctx, target, value, index, &protocol, given, claims).await?;
            mine.push(claim);
        } else if allocate {
            let number = any_port(ctx, target, &protocol, claims).await?;
            mine.push(claims::Claim::Port(format!("{protocol}/{number}")));
            port["nodePort"] = json!(number);
        }
    }
    if !ports.is_empty() {
        map_mut(value, "spec").insert("ports".into(), json!(ports));
    }
    health_check(ctx, target, value, &before, claims).await
}

async fn health_check(
    ctx: &Ctx,
    target: &Target,
    value: &mut Value,
    before: &[claims::Claim],
    claims: &mut Claims,
) -> Result<(), StatusError> {
    if str_at(value, "spec.type") != "LoadBalancer" || str_at(value, "spec.externalTrafficPolicy") != "Local" {
        return Ok(());
    }
    let given = value.pointer("/spec/healthCheckNodePort").and_then(Value::as_i64).unwrap_or(0);
    if given == 0 {
        let number = any_port(ctx, target, "TCP", claims).await?;
        map_mut(value, "spec").insert("healthCheckNodePort".into(), json!(number));
    } else if !before.contains(&claims::Claim::Port(format!("TCP/{given}"))) && !claims.port(ctx, target, "TCP", given).await? {
        return Err(StatusError::internal(format!(
            "failed to allocate requested HealthCheck NodePort {given}: provided port is already allocated"
        )));
    }
    Ok(())
}

async fn named_port(
    ctx: &Ctx,
    target: &Target,
    value: &Value,
    index: usize,
    protocol: &str,
    port: i64,
    claims: &mut Claims,
) -> Result<(), StatusError> {
    let (low, high) = ctx.api.config.service_node_ports;
    let why = if ctx.options.dry_run {
        // Only what another has is refused: the range is looked at when a port is taken.
        if claims.port(ctx, target, protocol, port).await? {
            return Ok(());
        }
        "provided port is already allocated".to_owned()
    } else if port < i64::from(low) || port > i64::from(high) {
        format!("provided port is not in the valid range. The range of valid ports is {low}-{high}")
    } else if claims.port(ctx, target, protocol, port).await? {
        return Ok(());
    } else {
        "provided port is already allocated".to_owned()
    };
    let path = format!("spec.ports[{index}].nodePort");
    let error = Error::invalid(&Path::new(&path), &json!(port), why);
    Err(StatusError::invalid(&target.resource.group_kind(), machinery::object::name(value), &[error]))
}

async fn any_port(ctx: &Ctx, target: &Target, protocol: &str, claims: &mut Claims) -> Result<i64, StatusError> {
    let (low, high) = ctx.api.config.service_node_ports;
    let size = u64::from(high.saturating_sub(low)) + 1;
    // The lower part is for those who ask by number.
    let reserved = (size / 32).clamp(16, 128).min(size / 2);
    let upper = size - reserved;
    let start = identifiers::below(upper);
    for step in 0..size {
        let offset = if step < upper { reserved + (start + step) % upper } else { step - upper };
        let port = i64::from(low) + i64::try_from(offset).unwrap_or(0);
        if claims.port(ctx, target, protocol, port).await? {
            return Ok(port);
        }
    }
    Err(StatusError::internal("failed to allocate a nodePort: range is full"))
}
