//! A small TCP load balancer: connections go in turn to the servers that accept some, and end when theirs stops doing so.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const CHECK_EVERY: Duration = Duration::from_millis(300);
const CONNECT_WITHIN: Duration = Duration::from_millis(300);

struct Backend {
    address: SocketAddr,
    /// Ends its connections; `None`: it does not accept any.
    up: Mutex<Option<CancellationToken>>,
}

impl Backend {
    fn up(&self) -> Option<CancellationToken> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn check(&self) {
        loop {
            let accepts = matches!(timeout(CONNECT_WITHIN, TcpStream::connect(self.address)).await, Ok(Ok(_)));
            {
                let mut up = self.up.lock().unwrap_or_else(PoisonError::into_inner);
                match (accepts, up.as_ref()) {
                    (true, None) => *up = Some(CancellationToken::new()),
                    (false, Some(ends)) => {
                        ends.cancel();
                        *up = None;
                    }
                    _ => {}
                }
            }
            tokio::time::sleep(CHECK_EVERY).await;
        }
    }
}

/// Balances until dropped.
pub struct Balancer {
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Balancer {
    pub async fn start(servers: impl IntoIterator<Item = SocketAddr>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let backends: Arc<[Backend]> = servers.into_iter().map(|address| Backend { address, up: Mutex::default() }).collect();
        let mut tasks = JoinSet::new();
        for at in 0..backends.len() {
            let backends = backends.clone();
            tasks.spawn(async move { backends[at].check().await });
        }
        tasks.spawn(accept(listener, backends));
        Ok(Self { address, _tasks: tasks })
    }
}

async fn accept(listener: TcpListener, backends: Arc<[Backend]>) {
    let turn = AtomicUsize::new(0);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! { biased;
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let first = turn.fetch_add(1, Ordering::Relaxed);
                connections.spawn(serve(client, backends.clone(), first));
            }
        }
    }
}

/// A client nobody takes is hung up on.
async fn serve(mut client: TcpStream, backends: Arc<[Backend]>, first: usize) {
    for at in 0..backends.len() {
        let backend = &backends[(first + at) % backends.len()];
        let Some(ends) = backend.up() else { continue };
        let Ok(Ok(mut server)) = timeout(CONNECT_WITHIN, TcpStream::connect(backend.address)).await else { continue };
        tokio::select! { biased;
            () = ends.cancelled() => {}
            // Either side may hang up at any time.
            _ = copy_bidirectional(&mut client, &mut server) => {}
        }
        return;
    }
}
