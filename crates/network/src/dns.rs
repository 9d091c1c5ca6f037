//! The cluster's DNS server of one node: listens on the DNS Service's ClusterIP, which the node itself has, so that
//! pods of every node ask their own node. Answers come from the shared informers; what is not ours goes to the
//! resolvers of the host.

mod forward;
mod packet;
mod view;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use client::Informers;
use ipnet::IpNet;
use netplan::dns::{Answer, Zone, answer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{Error, Instance, Links, NetNs, Result};
use forward::Forwarder;
pub use forward::host_resolvers;
use packet::{Question, Transport};
use view::Objects;

const PORT: u16 = 53;
/// Questions being forwarded at once; more are answered with SERVFAIL.
const FORWARDS_MAX: usize = 1000;
const CONNECTIONS_MAX: usize = 200;
const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct DnsOptions {
    pub instance: Instance,
    /// Where the node lives.
    pub netns: NetNs,
    /// "cluster.local"
    pub domain: String,
    /// The DNS Service's ClusterIPs. Give them to the proxy as `local_vips`.
    pub addresses: Vec<IpAddr>,
    /// Resolvers for everything else, asked from the process's own namespace: [`host_resolvers`]. May be empty.
    pub upstream: Vec<SocketAddr>,
}

/// The server, listening.
#[derive(Debug)]
pub struct DnsServer {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    zone: Zone,
    objects: Objects,
    forwarder: Forwarder,
    /// Turns the order of addresses, so that clients spread.
    turn: AtomicUsize,
}

impl DnsServer {
    /// Give the node the addresses and listen on them.
    pub async fn open(informers: &Informers, options: DnsOptions) -> Result<Self> {
        let links = Links::open(&options.netns).await?;
        let link = links.add_dummy(&options.instance.service_link()).await?;
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        for address in &options.addresses {
            links.add_address(link, IpNet::from(*address)).await?;
            let at = SocketAddr::new(*address, PORT);
            let doing = |e| Error::netlink(format!("listen on {at}"), e);
            let bound = options.netns.run(|| {
                let (udp, tcp) = (std::net::UdpSocket::bind(at)?, std::net::TcpListener::bind(at)?);
                udp.set_nonblocking(true)?;
                tcp.set_nonblocking(true)?;
                Ok((udp, tcp))
            })?;
            let (u, t) = bound.map_err(doing)?;
            udp.push(UdpSocket::from_std(u).map_err(doing)?);
            tcp.push(TcpListener::from_std(t).map_err(doing)?);
        }
        let upstream = options.upstream.into_iter().filter(|a| !options.addresses.contains(&a.ip())).collect();
        let shared = Shared {
            zone: Zone { domain: options.domain.trim_matches('.').to_ascii_lowercase(), servers: options.addresses },
            objects: Objects::new(informers),
            forwarder: Forwarder::new(upstream, FORWARDS_MAX),
            turn: AtomicUsize::new(0),
        };
        Ok(DnsServer { udp, tcp, shared: Arc::new(shared) })
    }

    /// Answer until cancelled. Until the informers have their first list, questions about the cluster get SERVFAIL, so
    /// that nobody remembers that a name does not exist.
    pub async fn run(self, cancel: CancellationToken) {
        let mut tasks = JoinSet::new();
        for socket in self.udp {
            tasks.spawn(serve_udp(socket, self.shared.clone()));
        }
        for listener in self.tcp {
            tasks.spawn(serve_tcp(listener, self.shared.clone()));
        }
        cancel.cancelled().await;
        tasks.shutdown().await;
    }
}

/// What to do with a packet.
enum Next {
    Send(Vec<u8>),
    /// Ask the resolvers; `before` are records that precede their answer (an alias).
    Ask {
        question: Box<Question>,
        before: Option<Box<packet::Alias>>,
    },
    Ignore,
}

impl Shared {
    fn handle(&self, bytes: &[u8], transport: Transport) -> Next {
        let question = match Question::parse(bytes, transport) {
            Ok(question) => question,
            Err(reply) => return reply.map_or(Next::Ignore, Next::Send),
        };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut answered = answer(&self.objects, &self.zone, question.name(), question.kind());
        if answered != Answer::Forward && !self.objects.have_synced() {
            return Next::Send(question.failure());
        }
        if let Answer::Records { answers, .. } = &mut answered {
            let len = answers.len().max(1);
            answers.rotate_left(turn % len);
        }
        match answered {
            Answer::Forward => Next::Ask { question: Box::new(question), before: None },
            Answer::Alias { record, target } => match question.alias(&record, &target, &self.zone) {
                Some(alias) => self.follow(question, alias),
                None => Next::Send(question.failure()),
            },
            other => Next::Send(question.answer(&other, &self.zone)),
        }
    }

    /// An alias to a name of ours is answered at once, any other by the resolvers.
    fn follow(&self, question: Question, alias: packet::Alias) -> Next {
        match answer(&self.objects, &self.zone, alias.target(), question.kind()) {
            Answer::Forward => Next::Ask { question: Box::new(question), before: Some(Box::new(alias)) },
            local => Next::Send(question.aliased_answer(&alias, &local, &self.zone)),
        }
    }

    async fn ask(&self, question: Box<Question>, before: Option<Box<packet::Alias>>) -> Vec<u8> {
        let request = match &before {
            Some(alias) => alias.request().to_vec(),
            None => question.request().to_vec(),
        };
        match (self.forwarder.ask(&request, question.transport()).await, before) {
            (Some(reply), None) => reply,
            (Some(reply), Some(alias)) => question.aliased_reply(&alias, &reply),
            (None, _) => question.failure(),
        }
    }
}

async fn serve_udp(socket: UdpSocket, shared: Arc<Shared>) {
    let socket = Arc::new(socket);
    let mut asking = JoinSet::new();
    let mut buffer = vec![0; 4096];
    loop {
        while asking.try_join_next().is_some() {}
        let (len, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(e) => {
                // An ICMP error about an earlier reply, or the like.
                tracing::debug!(error = %e, "cannot receive a question");
                continue;
            }
        };
        match shared.handle(&buffer[..len], Transport::Udp) {
            Next::Send(reply) => send(&socket, &reply, from).await,
            Next::Ask { question, .. } if asking.len() >= FORWARDS_MAX => send(&socket, &question.failure(), from).await,
            Next::Ask { question, before } => {
                let (socket, shared) = (socket.clone(), shared.clone());
                asking.spawn(async move {
                    let reply = shared.ask(question, before).await;
                    send(&socket, &reply, from).await;
                });
            }
            Next::Ignore => {}
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
    if let Err(e) = socket.send_to(reply, to).await {
        tracing::debug!(%to, error = %e, "cannot send an answer");
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                let shared = shared.clone();
                connections.spawn(async move {
                    if let Err(e) = converse(stream, &shared).await {
                        tracing::debug!(error = %e, "a DNS connection ended");
                    }
                });
            }
            Ok(_) => {}
            Err(e) => {
                tracing::warn!(error = %e, "cannot accept a DNS connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    loop {
        let read = async {
            let len = stream.read_u16().await?;
            let mut bytes = vec![0; usize::from(len)];
            stream.read_exact(&mut bytes).await?;
            Ok::<_, std::io::Error>(bytes)
        };
        let bytes = match tokio::time::timeout(CONNECTION_IDLE_MAX, read).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(e)) => return Err(e),
            Err(_) => return Ok(()),
        };
        let reply = match shared.handle(&bytes, Transport::Tcp) {
            Next::Send(reply) => reply,
            Next::Ask { question, before } => shared.ask(question, before).await,
            Next::Ignore => return Ok(()),
        };
        let Ok(len) = u16::try_from(reply.len()) else { return Ok(()) };
        stream.write_all(&[&len.to_be_bytes(), reply.as_slice()].concat()).await?;
    }
}
