//! Questions that are not about the cluster, passed on unread to the host's resolvers.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::packet::Transport;

/// How long one resolver may take. A stub resolver gives up after 5 s, so a second one can still be asked.
const RESOLVER_TIME_MAX: Duration = Duration::from_secs(2);
const RESOLVERS_MAX: usize = 3;

/// The nameservers of a resolv.conf. A file that is not there or says nothing gives none.
pub fn host_resolvers(resolv_conf: &Path) -> Vec<SocketAddr> {
    match std::fs::read_to_string(resolv_conf) {
        Ok(text) => parse_resolv_conf(&text),
        Err(e) => {
            tracing::warn!(path = %resolv_conf.display(), error = %e, "no resolvers: names outside the cluster will not resolve");
            Vec::new()
        }
    }
}

fn parse_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver")
            && let Some(ip) = words.next().and_then(|ip| ip.parse::<IpAddr>().ok())
            && found.len() < RESOLVERS_MAX
        {
            found.push(SocketAddr::new(ip, 53));
        }
    }
    found
}

#[derive(Debug)]
pub(super) struct Forwarder {
    resolvers: Vec<SocketAddr>,
    slots: Semaphore,
}

impl Forwarder {
    pub(super) fn new(resolvers: Vec<SocketAddr>, at_once_max: usize) -> Self {
        Forwarder { resolvers, slots: Semaphore::new(at_once_max) }
    }

    /// The first answer of a resolver, in order. None: nobody answered, or too many questions are open.
    pub(super) async fn ask(&self, request: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let _slot = self.slots.try_acquire().ok()?;
        for resolver in &self.resolvers {
            let asked = async {
                match transport {
                    Transport::Udp => ask_udp(*resolver, request).await,
                    Transport::Tcp => ask_tcp(*resolver, request).await,
                }
            };
            match timeout(RESOLVER_TIME_MAX, asked).await {
                Ok(Ok(reply)) => return Some(reply),
                Ok(Err(e)) => tracing::debug!(%resolver, error = %e, "a resolver failed"),
                Err(_) => tracing::debug!(%resolver, "a resolver did not answer in time"),
            }
        }
        None
    }
}

/// A new socket, so a new random port, per question; only a reply with its id counts.
async fn ask_udp(resolver: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = if resolver.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(request).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if is_reply(&buffer[..len], request) {
            buffer.truncate(len);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(resolver: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    let len = u16::try_from(request.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), request].concat()).await?;
    let mut reply = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut reply).await?;
    if is_reply(&reply, request) { Ok(reply) } else { Err(std::io::Error::other("a reply to another question")) }
}

/// Same id, and marked as a response.
fn is_reply(reply: &[u8], request: &[u8]) -> bool {
    reply.len() >= 12 && request.len() >= 12 && reply[..2] == request[..2] && reply[2] & 0x80 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf() {
        let text = "# a comment\nsearch example.com\nnameserver 192.0.2.53\nnameserver fd00::53 # here\nnameserver nonsense\n\
                    nameserver\nnameserver 192.0.2.54\nnameserver 192.0.2.55\n";
        let found: Vec<String> = parse_resolv_conf(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.53:53", "[fd00::53]:53", "192.0.2.54:53"]);
        assert!(host_resolvers(Path::new("/nonexistent/resolv.conf")).is_empty());
    }

    #[tokio::test]
    async fn without_resolvers_nobody_is_asked() {
        assert_eq!(Forwarder::new(Vec::new(), 1).ask(&[0; 12], Transport::Udp).await, None);
    }
}
