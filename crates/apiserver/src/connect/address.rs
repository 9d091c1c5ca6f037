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
