//! Port-forward as kubectl does it (`portforward.k8s.io`): for each connection an error stream and a data stream, over
//! SPDY, which itself comes as it is or through a WebSocket.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::spdy::{self, Opened};
use super::websocket::{self, Socket, normal_end};
use crate::server::Server;

/// Connections that wait for their second stream.
const HALF_OPEN_MAX: usize = 100;

/// Serves one client until it leaves.
pub async fn serve(server: &Arc<Server>, sandbox: &str, io: impl AsyncRead + AsyncWrite) {
    let (sender, mut opened) = mpsc::channel(16);
    let connection = spdy::serve(io, sender);
    tokio::pin!(connection);
    let mut halves: HashMap<String, Opened> = HashMap::new();
    let mut work = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a port-forward's connection");
                }
                return;
            }
            Some(stream) = opened.recv() => {
                if let Some((error, data)) = pair(&mut halves, stream) {
                    work.spawn(forward(Arc::clone(server), sandbox.to_owned(), error, data));
                }
            }
            Some(done) = work.join_next(), if !work.is_empty() => {
                if let Err(error) = done {
                    tracing::warn!(%error, "a forwarded connection");
                }
            }
        }
    }
}

fn kind(stream: &Opened) -> &str {
    stream.headers.get("streamtype").map_or("", String::as_str)
}

/// Error and data stream of one connection, when both are here.
fn pair(halves: &mut HashMap<String, Opened>, stream: Opened) -> Option<(Opened, Opened)> {
    let key = |name: &str| stream.headers.get(name).cloned().unwrap_or_default();
    let key = format!("{}/{}", key("port"), key("requestid"));
    match halves.remove(&key) {
        Some(first) if kind(&first) == "error" && kind(&stream) == "data" => Some((first, stream)),
        Some(first) if kind(&first) == "data" && kind(&stream) == "error" => Some((stream, first)),
        _ => {
            if halves.len() < HALF_OPEN_MAX {
                halves.insert(key, stream);
            }
            None
        }
    }
}

async fn forward(server: Arc<Server>, sandbox: String, error: Opened, data: Opened) {
    let port = data.headers.get("port").map_or("", String::as_str).to_owned();
    let failed = match port.parse::<u16>() {
        Err(_) => Some(format!("unable to parse port {port:?}")),
        Ok(number) => match websocket::connect(&server, &sandbox, number).await {
            Ok(pod) => {
                copy(pod, data).await;
                None
            }
            Err(why) => {
                data.output.send(Bytes::new(), true).await;
                Some(format!("failed to connect to localhost:{port} inside the pod: {why}"))
            }
        },
    };
    error.output.send(failed.unwrap_or_default().into(), true).await;
}

/// Copies until the pod has said all; a client that has said all still listens.
async fn copy(pod: tokio::net::TcpStream, mut data: Opened) {
    let (mut from, mut to) = pod.into_split();
    let input = async {
        while let Some(bytes) = data.input.recv().await {
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        if let Err(error) = to.shutdown().await {
            tracing::debug!(%error, "the pod closed a forwarded connection");
        }
        std::future::pending::<()>().await;
    };
    let output = async {
        let mut chunk = vec![0; 16 * 1024];
        while let Ok(count) = from.read(&mut chunk).await {
            if count == 0 || !data.output.send(Bytes::copy_from_slice(&chunk[..count]), false).await {
                break;
            }
        }
    };
    tokio::select! {
        biased;
        () = output => {}
        () = input => {}
    }
    data.output.send(Bytes::new(), true).await;
}

/// SPDY through a WebSocket: messages are pieces of the byte stream.
pub async fn tunnel(server: &Arc<Server>, sandbox: &str, socket: Socket) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (mut from, mut to) = tokio::io::split(far);
    let (mut sink, mut source) = socket.split();
    let inbound = async {
        while let Some(Ok(message)) = source.next().await {
            let Message::Binary(bytes) = message else { continue };
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        if let Err(error) = to.shutdown().await {
            tracing::debug!(%error, "a tunnel's end");
        }
    };
    let outbound = async {
        let mut chunk = vec![0; 16 * 1024];
        while let Ok(count) = from.read(&mut chunk).await {
            let message = if count == 0 { normal_end() } else { Message::Binary(Bytes::copy_from_slice(&chunk[..count])) };
            if sink.send(message).await.is_err() || count == 0 {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = async { tokio::join!(inbound, serve(server, sandbox, near)); } => {}
        () = outbound => {}
    }
}
