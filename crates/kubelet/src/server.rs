//! The kubelet's HTTPS server: who calls is told by client certificate or token, what they may by the authorizer.

pub mod identity;
mod log_stream;
mod reports;
mod routes;
mod upgrade;

use std::sync::Arc;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::config::ServerConfig;
use crate::kubelet::Node;

/// Connections served at once.
const CONNECTIONS_MAX: usize = 1024;
const HANDSHAKE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// What every request of the server sees.
pub(crate) struct Context {
    pub node: Arc<Node>,
    pub server: ServerConfig,
    /// Streams that outlive their request; ended with the server.
    pub streams: TaskTracker,
    pub cancel: CancellationToken,
}

/// A server with its port taken.
pub struct Serving {
    node: Arc<Node>,
    server: ServerConfig,
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

/// Takes the port and reads the certificates, so that a mistake is told at once.
pub async fn bind(node: Arc<Node>) -> Result<Serving, Error> {
    let Some(server) = node.config.server.clone() else { return Err(Error::Server("no address is configured".to_owned())) };
    let acceptor = TlsAcceptor::from(Arc::new(identity::tls(&server.certificate_pem, &server.key_pem, &server.client_ca_pem)?));
    let listener = TcpListener::bind(server.address).await.map_err(Error::io(format!("listen on {}", server.address)))?;
    Ok(Serving { node, server, listener, acceptor })
}

impl Serving {
    pub async fn run(self, cancel: CancellationToken) -> Result<(), Error> {
        let tracker = TaskTracker::new();
        let context = Arc::new(Context { node: self.node, server: self.server, streams: tracker.clone(), cancel: cancel.clone() });
        let slots = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
            let (acceptor, context) = (self.acceptor.clone(), context.clone());
            tracker.spawn(async move {
                serve(context, acceptor, stream).await;
                drop(slot);
            });
        }
        tracker.close();
        tracker.wait().await;
        Ok(())
    }
}

async fn serve(context: Arc<Context>, acceptor: TlsAcceptor, stream: tokio::net::TcpStream) {
    let tls = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake"),
        Err(_) => return,
    };
    let certificate = tls.get_ref().1.peer_certificates().and_then(|c| c.first()).map(|c| c.to_vec());
    let caller = certificate.and_then(|der| identity::of_certificate(&der));
    let cancel = context.cancel.clone();
    let service = service_fn(move |request| {
        let (context, caller) = (context.clone(), caller.clone());
        async move { Ok::<_, std::convert::Infallible>(routes::answer(context, caller, request).await) }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(tls), service).with_upgrades();
    tokio::select! {
        biased;
        () = cancel.cancelled() => {}
        result = connection => if let Err(error) = result {
            tracing::debug!(%error, "connection");
        },
    }
}
