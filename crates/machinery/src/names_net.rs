//! IP addresses and CIDRs as API fields hold them (`k8s.io/apimachinery/pkg/util/validation/ip.go`): what is accepted,
//! with upstream's messages, and the parsed value. Not an address library: allocation lives elsewhere.

use std::net::{IpAddr, Ipv4Addr};

use crate::field::{self, Error, ErrorList};

const BAD_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const BAD_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
const BAD_INTERFACE: &str = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";

/// `ParseIPSloppy`: leading zeros in IPv4 octets are read as decimal. IPv4-mapped IPv6 reads as IPv4, as Go's `net.IP` does.
pub fn parse_ip_sloppy(s: &str) -> Option<IpAddr> {
    if let Ok(ip) = s.parse::<IpAddr>() {
        return Some(canonical(ip));
    }
    sloppy_v4(s).map(IpAddr::V4).or_else(|| {
        let (head, tail) = s.rsplit_once(':')?;
        let v4 = sloppy_v4(tail)?;
        format!("{head}:{v4}").parse().ok().map(canonical)
    })
}

fn sloppy_v4(s: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = s.split('.');
    for octet in &mut octets {
        let part = parts.next().filter(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))?;
        *octet = part.trim_start_matches('0').parse().or_else(|e| if part.bytes().all(|b| b == b'0') { Ok(0) } else { Err(e) }).ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

fn canonical(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// `ParseCIDRSloppy`: the address as written and the prefix length, in the family the text is written in.
pub fn parse_cidr_sloppy(s: &str) -> Option<(IpAddr, u8)> {
    let (ip, len) = s.split_once('/')?;
    let v6 = ip.contains(':');
    let ip = parse_ip_sloppy(ip)?;
    if len.is_empty() || len.len() > 3 || !len.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let len: u16 = len.parse().ok()?;
    if len > if v6 { 128 } else { 32 } {
        return None;
    }
    let len = u8::try_from(len).ok()?;
    if v6 && ip.is_ipv4() {
        // Written ::ffff:a.b.c.d/n
        return (len >= 96).then_some((ip, len - 96));
    }
    Some((ip, len))
}

/// The address with all bits after the prefix cleared.
pub fn masked(ip: IpAddr, len: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

/// Whether a value is an IPv4 address or CIDR by how it is written (`netutils.IsIPv6String` negated).
pub fn is_v6_text(s: &str) -> bool {
    parse_ip_sloppy(s.split('/').next().unwrap_or(s)).is_some_and(|ip| ip.is_ipv6())
}

fn strict_ip_problem(value: &str) -> Option<&'static str> {
    match value.parse::<IpAddr>() {
        Err(_) => Some("must not have leading 0s"),
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => Some("must not be an IPv4-mapped IPv6 address"),
        Ok(_) => None,
    }
}

/// An address in a field older than strict parsing; with `strict`, no leading zeros and no mapped IPv4.
pub fn ip_legacy(path: &field::Path<'_>, value: &str, strict: bool) -> ErrorList {
    if parse_ip_sloppy(value).is_none() {
        return vec![Error::invalid_str(path, value, BAD_IP)];
    }
    match strict_ip_problem(value) {
        Some(text) if strict => vec![Error::invalid_str(path, value, text)],
        _ => ErrorList::new(),
    }
}

/// An address in canonical form.
pub fn ip(path: &field::Path<'_>, value: &str) -> ErrorList {
    let errors = ip_legacy(path, value, true);
    match parse_ip_sloppy(value) {
        Some(parsed) if errors.is_empty() && parsed.to_string() != value => {
            vec![Error::invalid_str(path, value, format!("must be in canonical form (\"{parsed}\")"))]
        }
        _ => errors,
    }
}

pub fn cidr_legacy(path: &field::Path<'_>, value: &str, strict: bool) -> ErrorList {
    let Some((addr, len)) = parse_cidr_sloppy(value) else {
        return vec![Error::invalid_str(path, value, BAD_CIDR)];
    };
    if !strict {
        return ErrorList::new();
    }
    let (ip_text, len_text) = value.split_once('/').unwrap_or((value, ""));
    let leading_zero = len_text.len() > 1 && len_text.starts_with('0');
    let text = match ip_text.parse::<IpAddr>() {
        Err(_) => "must not have leading 0s in IP or prefix length",
        Ok(_) if leading_zero => "must not have leading 0s in IP or prefix length",
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => "must not have an IPv4-mapped IPv6 address",
        Ok(_) if masked(addr, len) != addr => "must not have bits set beyond the prefix length",
        Ok(_) => return ErrorList::new(),
    };
    vec![Error::invalid_str(path, value, text)]
}

/// A subnet in canonical form.
pub fn cidr(path: &field::Path<'_>, value: &str) -> ErrorList {
    let errors = cidr_legacy(path, value, true);
    match parse_cidr_sloppy(value) {
        Some((addr, len)) if errors.is_empty() => {
            let text = format!("{}/{len}", masked(addr, len));
            if text == value { errors } else { vec![Error::invalid_str(path, value, format!("must be in canonical form (\"{text}\")"))] }
        }
        _ => errors,
    }
}

/// An address with its prefix length, as `ip addr` shows it.
pub fn interface_address(path: &field::Path<'_>, value: &str) -> ErrorList {
    let Some((addr, len)) = parse_cidr_sloppy(value) else {
        return vec![Error::invalid_str(path, value, BAD_INTERFACE)];
    };
    let text = format!("{addr}/{len}");
    if text == value {
        return ErrorList::new();
    }
    vec![Error::invalid_str(path, value, format!("must be in canonical form (\"{text}\")"))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Path;

    #[test]
    fn addresses() {
        let p = Path::new("ip");
        for (value, strict, text) in [
            ("10.0.0.1", true, ""),
            ("fe80::1", true, ""),
            ("", true, "ip: Invalid value: \"\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
            ("10.0.0", false, "ip: Invalid value: \"10.0.0\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
            ("010.0.0.1", false, ""),
            ("010.0.0.1", true, "ip: Invalid value: \"010.0.0.1\": must not have leading 0s"),
            ("::ffff:1.2.3.4", true, "ip: Invalid value: \"::ffff:1.2.3.4\": must not be an IPv4-mapped IPv6 address"),
        ] {
            let got: Vec<String> = ip_legacy(&p, value, strict).iter().map(ToString::to_string).collect();
            assert_eq!(got.join(";"), text, "{value}");
        }
        assert_eq!(ip(&p, "FE80::1")[0].detail, "must be in canonical form (\"fe80::1\")");
    }

    #[test]
    fn subnets() {
        let p = Path::new("c");
        for (value, text) in [
            ("10.0.0.0/8", ""),
            ("10.0.0.1/8", "must not have bits set beyond the prefix length"),
            ("10.0.0.0/08", "must not have leading 0s in IP or prefix length"),
            ("10.0.0.0/33", BAD_CIDR),
            ("10.0.0.0", BAD_CIDR),
            ("fd00::/8", ""),
            ("FD00::/8", "must be in canonical form (\"fd00::/8\")"),
        ] {
            let got = cidr(&p, value);
            assert_eq!(got.first().map_or("", |e| &e.detail), text, "{value}");
        }
    }
}
