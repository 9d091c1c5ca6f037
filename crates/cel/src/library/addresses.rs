//! IP addresses and CIDR blocks.

use std::net::IpAddr;

use crate::decls::Row;
use crate::error::EvalError;
use crate::library::str_arg;
use crate::opaque::Opaque;
use crate::regexes::Regexes;
use crate::value::Value;

type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(crate) const ROWS: &[Row] = &[
    ("ip", |_, a| Ok(ip_value(parse_ip(str_arg(&a[0])?)?)), &[("string_to_ip", "(string) -> IP")]),
    ("ip", |_, a| Ok(ip_value(cidr(&a[0])?.0)), &[("cidr_ip", "CIDR.() -> IP")]),
    ("isIP", |_, a| Ok(Value::Bool(parse_ip(str_arg(&a[0])?).is_ok())), &[("is_ip", "(string) -> bool")]),
    ("ip.isCanonical", is_canonical, &[("ip_is_canonical", "(string) -> bool")]),
    ("family", |_, a| Ok(Value::Int(if ip(&a[0])?.is_ipv4() { 4 } else { 6 })), &[("ip_family", "IP.() -> int")]),
    ("isUnspecified", |_, a| Ok(Value::Bool(ip(&a[0])?.is_unspecified())), &[("ip_is_unspecified", "IP.() -> bool")]),
    ("isLoopback", |_, a| Ok(Value::Bool(ip(&a[0])?.is_loopback())), &[("ip_is_loopback", "IP.() -> bool")]),
    ("isLinkLocalMulticast", |_, a| Ok(Value::Bool(link_local_multicast(ip(&a[0])?))), &[("ip_is_link_local_multicast", "IP.() -> bool")]),
    ("isLinkLocalUnicast", |_, a| Ok(Value::Bool(link_local_unicast(ip(&a[0])?))), &[("ip_is_link_local_unicast", "IP.() -> bool")]),
    ("isGlobalUnicast", |_, a| Ok(Value::Bool(global_unicast(ip(&a[0])?))), &[("ip_is_global_unicast", "IP.() -> bool")]),
    ("cidr", |_, a| parse_cidr(str_arg(&a[0])?).map(|(ip, prefix)| cidr_value(ip, prefix)), &[("string_to_cidr", "(string) -> CIDR")]),
    ("isCIDR", |_, a| Ok(Value::Bool(parse_cidr(str_arg(&a[0])?).is_ok())), &[("is_cidr", "(string) -> bool")]),
    ("containsIP", contains_ip, &[("cidr_contains_ip_string", "CIDR.(string) -> bool"), ("cidr_contains_ip_ip", "CIDR.(IP) -> bool")]),
    (
        "containsCIDR",
        contains_cidr,
        &[("cidr_contains_cidr_string", "CIDR.(string) -> bool"), ("cidr_contains_cidr", "CIDR.(CIDR) -> bool")],
    ),
    ("masked", masked, &[("cidr_masked", "CIDR.() -> CIDR")]),
    ("prefixLength", |_, a| Ok(Value::Int(i64::from(cidr(&a[0])?.1))), &[("cidr_prefix_length", "CIDR.() -> int")]),
];

fn ip_value<'a>(ip: IpAddr) -> Value<'a> {
    Value::Opaque(Opaque::Ip(ip))
}

fn cidr_value<'a>(ip: IpAddr, prefix: u8) -> Value<'a> {
    Value::Opaque(Opaque::Cidr { ip, prefix })
}

fn ip(value: &Value<'_>) -> Result<IpAddr, EvalError> {
    match value {
        Value::Opaque(Opaque::Ip(ip)) => Ok(*ip),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn cidr(value: &Value<'_>) -> Result<(IpAddr, u8), EvalError> {
    match value {
        Value::Opaque(Opaque::Cidr { ip, prefix }) => Ok((*ip, *prefix)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn parse_ip(text: &str) -> Result<IpAddr, EvalError> {
    let fail = |why: String| EvalError::new(format!("IP Address {text:?} parse error during conversion from string: {why}"));
    if text.contains('%') {
        return Err(EvalError::new(format!("IP address {text:?} with zone value is not allowed")));
    }
    let ip: IpAddr = text.parse().map_err(|_| fail(format!("ParseAddr({text:?}): unable to parse IP")))?;
    if matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return Err(EvalError::new(format!("IPv4-mapped IPv6 address {text:?} is not allowed")));
    }
    Ok(ip)
}

fn parse_cidr(text: &str) -> Result<(IpAddr, u8), EvalError> {
    let fail = || {
        let why = format!("netip.ParsePrefix({text:?}): no '/'");
        EvalError::new(format!("network address parse error during conversion from string: {why}"))
    };
    let (ip, length) = text.rsplit_once('/').ok_or_else(fail)?;
    if ip.contains('%') {
        return Err(fail());
    }
    let ip: IpAddr = ip.parse().map_err(|_| fail())?;
    let plain = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
    let prefix: u8 = length.parse().ok().filter(|_| plain).ok_or_else(fail)?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    if prefix > most {
        return Err(fail());
    }
    if matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return Err(EvalError::new(format!("IPv4-mapped IPv6 address {text:?} is not allowed")));
    }
    Ok((ip, prefix))
}

fn is_canonical<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let text = str_arg(&args[0])?;
    Ok(Value::Bool(parse_ip(text)?.to_string() == text))
}

fn link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

fn global_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !(broadcast || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local_unicast(ip))
}

fn within(ip: IpAddr, block: (IpAddr, u8)) -> bool {
    match (ip, block.0) {
        (IpAddr::V4(a), IpAddr::V4(b)) => block.1 == 0 || (a.to_bits() ^ b.to_bits()) >> (32 - u32::from(block.1)) == 0,
        (IpAddr::V6(a), IpAddr::V6(b)) => block.1 == 0 || (a.to_bits() ^ b.to_bits()) >> (128 - u32::from(block.1)) == 0,
        _ => false,
    }
}

fn contains_ip<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let other = match &args[1] {
        Value::String(text) => parse_ip(text)?,
        other => ip(other)?,
    };
    Ok(Value::Bool(within(other, cidr(&args[0])?)))
}

fn contains_cidr<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let other = match &args[1] {
        Value::String(text) => parse_cidr(text)?,
        other => cidr(other)?,
    };
    let block = cidr(&args[0])?;
    Ok(Value::Bool(block.1 <= other.1 && within(other.0, block)))
}

fn masked<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (ip, prefix) = cidr(&args[0])?;
    let ip = match ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    };
    Ok(cidr_value(ip, prefix))
}
