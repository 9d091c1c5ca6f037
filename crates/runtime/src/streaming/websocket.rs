//! The channel protocols over WebSocket: the first byte of a message is its channel.
//!
//! `v4.channel.k8s.io` and `v5.channel.k8s.io` carry 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 resizes; v5 adds 255,
//! which closes the channel its second byte names. Port-forward uses `v4.channel.k8s.io` with two channels per port.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::descriptor::Descriptor;
use super::{Session, Ticket};
use crate::server::Server;
use crate::shim::protocol::Request;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
const MESSAGE_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    V4,
    V5,
    /// SPDY frames as messages, for port-forward.
    Tunnel,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::V4 => "v4.channel.k8s.io",
            Protocol::V5 => "v5.channel.k8s.io",
            Protocol::Tunnel => "SPDY/3.1+portforward.k8s.io",
        }
    }
}

/// The first protocol of the client's that fits.
pub fn choose(offered: &str, ticket: &Ticket) -> Option<Protocol> {
    let forward = matches!(ticket, Ticket::PortForward { .. });
    offered.split(',').map(str::trim).find_map(|name| match name {
        "v5.channel.k8s.io" if !forward => Some(Protocol::V5),
        "v4.channel.k8s.io" => Some(Protocol::V4),
        "SPDY/3.1+portforward.k8s.io" if forward => Some(Protocol::Tunnel),
        _ => None,
    })
}

pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = Vec::with_capacity(data.len() + 1);
    bytes.push(channel);
    bytes.extend_from_slice(data);
    Message::Binary(Bytes::from(bytes))
}

/// Clients take any other code for a failure.
pub fn normal_end() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }))
}

/// The Status that ends an exec, in upstream's form.
fn final_status(outcome: &Result<Option<i32>, String>) -> serde_json::Value {
    match outcome {
        Ok(None | Some(0)) => serde_json::json!({ "metadata": {}, "status": "Success" }),
        Ok(Some(code)) => serde_json::json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
        }),
        Err(text) => serde_json::json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "message": format!("Internal error occurred: {text}"),
            "details": { "causes": [{ "message": text }] }, "code": 500,
        }),
    }
}

/// Does what the ticket says over the upgraded connection.
pub async fn run(server: &Arc<Server>, upgraded: Upgraded, ticket: Ticket, protocol: Protocol) {
    let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    if let (Ticket::PortForward { sandbox, .. }, Protocol::Tunnel) = (&ticket, protocol) {
        return super::forward::tunnel(server, sandbox, socket).await;
    }
    let (sink, source) = socket.split();
    let (send, receive) = mpsc::channel(16);
    let session = match ticket {
        Ticket::PortForward { sandbox, ports } => {
            let writer = write(sink, receive);
            tokio::join!(writer, forward(server, sandbox, ports, source, send));
            return;
        }
        Ticket::Exec { container, command, tty, stdin } => {
            let session = server.exec(&container, command, tty, stdin).await;
            session.map_err(|s| format!("error executing command in container: {}", s.message()))
        }
        Ticket::Attach { container, stdin } => {
            attach(server, &container, stdin).await.map_err(|e| format!("error attaching to container: {e}"))
        }
    };
    let work = async {
        let outcome = match session {
            Ok(session) => pump(session, source, &send, protocol).await,
            Err(text) => Err(text),
        };
        let status = final_status(&outcome).to_string();
        for last in [message(ERROR, status.as_bytes()), normal_end()] {
            if send.send(last).await.is_err() {
                return; // the client left
            }
        }
        drop(send);
    };
    tokio::join!(write(sink, receive), work);
}

async fn attach(server: &Server, container: &str, stdin: bool) -> Result<Session, String> {
    let container = server.running(container).map_err(|s| s.message().to_owned())?;
    let answer = server.ask(&container.sandbox, Request::Attach { container: container.id.clone() }).await.map_err(|e| e.to_string())?;
    Session::attach(answer, stdin).map_err(|e| e.to_string())
}

async fn write(mut sink: SplitSink<Socket, Message>, mut messages: mpsc::Receiver<Message>) {
    while let Some(message) = messages.recv().await {
        if let Err(error) = sink.send(message).await {
            return tracing::debug!(%error, "the client of a stream left");
        }
    }
}

async fn copy_out(from: Option<Arc<Descriptor>>, channel: u8, send: &mpsc::Sender<Message>) {
    let Some(from) = from else { return };
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(count) = from.read(&mut chunk).await {
        if count == 0 || send.send(message(channel, &chunk[..count])).await.is_err() {
            return;
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// Copies both ways until the process ends (an exec), its output does (an attach), or the client leaves.
async fn pump(
    mut session: Session,
    source: SplitStream<Socket>,
    send: &mpsc::Sender<Message>,
    protocol: Protocol,
) -> Result<Option<i32>, String> {
    let (stdout, stderr) = (session.stdout.take(), session.stderr.take());
    let (stdin, terminal) = (session.stdin.take(), session.terminal.take());
    let is_exec = session.pid != 0;
    let input = copy_in(source, stdin, terminal, protocol);
    let output = async { tokio::join!(copy_out(stdout, STDOUT, send), copy_out(stderr, STDERR, send)) };
    tokio::pin!(input, output);
    let (mut input_open, mut output_open) = (true, true);
    loop {
        tokio::select! {
            biased;
            left = &mut input, if input_open => {
                input_open = false;
                if left {
                    return Err("the client left".into());
                }
            }
            _ = &mut output, if output_open => {
                output_open = false;
                if !is_exec {
                    return Ok(None);
                }
            }
            code = session.wait(), if is_exec => {
                if output_open && tokio::time::timeout(std::time::Duration::from_millis(500), &mut output).await.is_err() {
                    tracing::debug!("a process left behind holds the command's output");
                }
                return code.map_err(|e| e.to_string());
            }
        }
    }
}

/// Feeds stdin and resizes. Returns whether the client left (true) or only closed stdin.
async fn copy_in(
    mut source: SplitStream<Socket>,
    mut stdin: Option<Arc<Descriptor>>,
    terminal: Option<Arc<Descriptor>>,
    protocol: Protocol,
) -> bool {
    while let Some(Ok(received)) = source.next().await {
        let Message::Binary(bytes) = received else { continue };
        let Some((channel, data)) = bytes.split_first() else { continue };
        match *channel {
            STDIN => {
                if let Some(to) = &stdin
                    && to.write_all(data).await.is_err()
                {
                    stdin = None;
                }
            }
            RESIZE => {
                if let (Some(terminal), Ok(size)) = (&terminal, serde_json::from_slice::<Size>(data))
                    && let Err(error) = terminal.resize(size.width, size.height)
                {
                    tracing::debug!(%error, "resize a terminal");
                }
            }
            CLOSE if protocol == Protocol::V5 && data.first() == Some(&STDIN) => stdin = None,
            _ => {}
        }
    }
    true
}

/// Two channels per port, data and error; each begins with the port's number, little endian.
async fn forward(server: &Server, sandbox: String, ports: Vec<u16>, mut source: SplitStream<Socket>, send: mpsc::Sender<Message>) {
    let mut inputs = Vec::new();
    let mut work = tokio::task::JoinSet::new();
    for (port, number) in ports.iter().zip((0u8..).step_by(2)) {
        for channel in [number, number + 1] {
            if send.send(message(channel, &port.to_le_bytes())).await.is_err() {
                return;
            }
        }
        match connect(server, &sandbox, *port).await {
            Ok(stream) => {
                let (mut from, mut to) = stream.into_split();
                let (input, mut data) = mpsc::channel::<Bytes>(16);
                inputs.push(Some(input));
                let send = send.clone();
                work.spawn(async move {
                    use tokio::io::AsyncWriteExt;
                    while let Some(bytes) = data.recv().await {
                        if to.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                });
                work.spawn(async move {
                    use tokio::io::AsyncReadExt;
                    let mut chunk = vec![0; 16 * 1024];
                    while let Ok(count) = from.read(&mut chunk).await {
                        if count == 0 || send.send(message(number, &chunk[..count])).await.is_err() {
                            return;
                        }
                    }
                });
            }
            Err(error) => {
                inputs.push(None);
                let text = format!("failed to connect to localhost:{port} inside the pod: {error}");
                if send.send(message(number + 1, text.as_bytes())).await.is_err() {
                    return;
                }
            }
        }
    }
    while let Some(Ok(received)) = source.next().await {
        let Message::Binary(bytes) = received else { continue };
        let Some(channel) = bytes.first().copied() else { continue };
        if let Some(Some(input)) = inputs.get(usize::from(channel / 2)).filter(|_| channel % 2 == 0)
            && input.send(bytes.slice(1..)).await.is_err()
        {
            tracing::debug!(channel, "the pod closed a forwarded connection");
        }
    }
}

/// Connects to `localhost:port` inside the pod: IPv4 first, then IPv6.
pub async fn connect(server: &Server, sandbox: &str, port: u16) -> std::io::Result<tokio::net::TcpStream> {
    let mut failed = None;
    for (ipv6, host) in [(false, "127.0.0.1"), (true, "[::1]")] {
        let answer = server.ask(sandbox, Request::Socket { ipv6 }).await.map_err(std::io::Error::other)?;
        let Some(fd) = answer.descriptors.into_iter().next() else { return Err(std::io::Error::other("the shim sent no socket")) };
        let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(fd));
        let address = format!("{host}:{port}").parse().map_err(std::io::Error::other)?;
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or_else(|| std::io::ErrorKind::ConnectionRefused.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_as_upstream_tells_them() {
        assert_eq!(final_status(&Ok(Some(0)))["status"], "Success");
        let failed = final_status(&Ok(Some(7)));
        assert_eq!((&failed["reason"], &failed["details"]["causes"][0]["message"]), (&"NonZeroExitCode".into(), &"7".into()));
        let broken = final_status(&Err("error executing command in container: no".to_owned()));
        assert_eq!(broken["message"], "Internal error occurred: error executing command in container: no");
    }

    #[test]
    fn chooses_what_the_client_prefers() {
        let exec = Ticket::Exec { container: String::new(), command: Vec::new(), tty: false, stdin: false };
        let forward = Ticket::PortForward { sandbox: String::new(), ports: Vec::new() };
        assert_eq!(choose("v5.channel.k8s.io, v4.channel.k8s.io", &exec), Some(Protocol::V5));
        assert_eq!(choose("v3.channel.k8s.io,v4.channel.k8s.io", &exec), Some(Protocol::V4));
        assert_eq!(choose("v5.channel.k8s.io", &forward), None);
        assert_eq!(choose("SPDY/3.1+portforward.k8s.io", &forward), Some(Protocol::Tunnel));
        assert_eq!(choose("", &exec), None);
    }
}
