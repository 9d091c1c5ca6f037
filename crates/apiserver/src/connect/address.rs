//! Which addresses a proxy may reach (upstream's `proxyutil.IsProxyableIP`): none of this host, its links, or this server.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use machinery::status::StatusError;

use crate::state::Api;

/// Go's `IP.IsGlobalUnicast`, which counts private addresses in.
fn global_unicast(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let none = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_link_local();
            !none && ip != Ipv4Addr::BROADCAST
        }
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_unicast_link_local()),
    }
}

/// The address, or the 400.
pub fn proxyable(api: &Arc<Api>, ip: IpAddr, port: u16) -> Result<(), StatusError> {
    let own = port == api.port && ip.to_canonical() == api.config.advertised();
    if own || !global_unicast(ip) {
        return Err(StatusError::bad_request("address not allowed"));
    }
    Ok(())
}

/// Where this server may call what an administrator configured: also this host, but no link, and not itself, which would ask
/// itself the same again.
pub fn callable(api: &Arc<Api>, ip: IpAddr, port: u16) -> bool {
    let ip = ip.to_canonical();
    let own = port == api.port && (ip.is_loopback() || ip == api.config.advertised());
    !own && (ip.is_loopback() || global_unicast(ip))
}

/// One address of a host. The error is as Go's client says it.
pub async fn called(api: &Arc<Api>, host: &str, port: u16) -> Result<IpAddr, String> {
    let found: Vec<IpAddr> = match host.parse() {
        Ok(ip) => vec![ip],
        Err(_) => {
            let found = tokio::net::lookup_host((host, port)).await.map_err(|_| format!("dial tcp: lookup {host}: no such host"))?;
            found.map(|a| a.ip()).collect()
        }
    };
    if found.iter().any(|ip| !callable(api, *ip, port)) {
        return Err("address not allowed".to_owned());
    }
    // As Go: the older family first.
    let first = found.iter().find(|ip| ip.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| format!("dial tcp: lookup {host}: no such host"))
}

/// One address of a host whose every address is allowed.
pub async fn resolve(api: &Arc<Api>, host: &str, port: u16) -> Result<IpAddr, StatusError> {
    if let Ok(ip) = host.parse() {
        proxyable(api, ip, port)?;
        return Ok(ip);
    }
    let found = tokio::net::lookup_host((host, port)).await.map_err(|e| StatusError::bad_request(format!("lookup {host}: {e}")))?;
    let mut chosen = None;
    for address in found {
        proxyable(api, address.ip(), port)?;
        chosen = chosen.or(Some(address.ip()));
    }
    chosen.ok_or_else(|| StatusError::bad_request("no addresses for hostname"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_the_host_itself_are_out_of_reach() {
        for text in ["127.0.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "::ffff:127.0.0.1"]
        {
            assert!(text.parse().is_ok_and(|ip| !global_unicast(ip)), "{text}");
        }
        for text in ["10.0.0.1", "192.168.1.1", "8.8.8.8", "fd00::1", "2001:db8::1"] {
            assert!(text.parse().is_ok_and(global_unicast), "{text}");
        }
    }
}
