//! The channel protocols over WebSocket: the first byte of a message is its channel.
//!
//! `v4.channel.k8s.io` and `v5.channel.k8s.io` carry 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 resizes; v5 adds 255,
//! which closes the channel its second byte names. Port-forward uses `v4.channel.k8s.io` with two channels per port.

use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, Stream, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::pump::{self, Channel, Input};
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
/// How long a client may take to read the last words.
const LEAVE: std::time::Duration = std::time::Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `channel.k8s.io`, or no name at all: without a Status at the end.
    V1,
    Base64V1,
    Base64V4,
    V4,
    V5,
    /// SPDY frames as messages, for port-forward.
    Tunnel,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::V1 => "channel.k8s.io",
            Protocol::Base64V1 => "base64.channel.k8s.io",
            Protocol::Base64V4 => "v4.base64.channel.k8s.io",
            Protocol::V4 => "v4.channel.k8s.io",
            Protocol::V5 => "v5.channel.k8s.io",
            Protocol::Tunnel => "SPDY/3.1+portforward.k8s.io",
        }
    }

    fn is_base64(self) -> bool {
        matches!(self, Protocol::Base64V1 | Protocol::Base64V4)
    }

    fn tells_status(self) -> bool {
        !matches!(self, Protocol::V1 | Protocol::Base64V1)
    }
}

/// The first protocol of the client's that fits.
pub fn choose(offered: &str, ticket: &Ticket) -> Option<Protocol> {
    let forward = matches!(ticket, Ticket::PortForward { .. });
    offered.split(',').map(str::trim).find_map(|name| match name {
        "v5.channel.k8s.io" if !forward => Some(Protocol::V5),
        "v4.channel.k8s.io" => Some(Protocol::V4),
        "v4.base64.channel.k8s.io" if !forward => Some(Protocol::Base64V4),
        "" | "channel.k8s.io" if !forward => Some(Protocol::V1),
        "base64.channel.k8s.io" if !forward => Some(Protocol::Base64V1),
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

/// Does what the ticket says over the upgraded connection.
pub async fn run(server: &Arc<Server>, upgraded: Upgraded, ticket: Ticket, protocol: Protocol) {
    let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    if let (Ticket::PortForward { sandbox, .. }, Protocol::Tunnel) = (&ticket, protocol) {
        return super::forward::tunnel(server, sandbox, socket).await;
    }
    let (sink, mut source) = socket.split();
    let (send, receive) = mpsc::channel(16);
    if let Ticket::PortForward { sandbox, ports } = ticket {
        let writer = write(sink, receive, protocol);
        tokio::join!(writer, forward(server, sandbox, ports, source, send));
        return;
    }
    let work = async {
        let outcome = match session(server, &ticket).await {
            Ok(session) => pump::pump(session, inputs(&mut source, protocol), &Sender(&send)).await,
            Err(text) => Err(text),
        };
        let last = pump::last_words(&outcome, protocol.tells_status());
        for last in [message(ERROR, &last), normal_end()] {
            if send.send(last).await.is_err() {
                return; // the client left
            }
        }
        drop(send);
        // A socket that is closed with input unread takes back what was sent last: the client closes it.
        let said = async { while source.next().await.is_some_and(|said| said.is_ok()) {} };
        if tokio::time::timeout(LEAVE, said).await.is_err() {
            tracing::debug!("the client of a stream does not leave");
        }
    };
    tokio::join!(write(sink, receive, protocol), work);
}

/// Starts what an exec or attach is about.
pub async fn session(server: &Server, ticket: &Ticket) -> Result<Session, String> {
    match ticket {
        Ticket::Exec { container, command, tty, stdin, .. } => {
            let session = server.exec(container, command.clone(), *tty, *stdin).await;
            session.map_err(|s| format!("error executing command in container: {}", s.message()))
        }
        Ticket::Attach { container, stdin, .. } => {
            attach(server, container, *stdin).await.map_err(|e| format!("error attaching to container: {e}"))
        }
        Ticket::PortForward { .. } => Err("a port-forward is no command".to_owned()),
    }
}

/// Where a WebSocket client takes output.
struct Sender<'a>(&'a mpsc::Sender<Message>);

impl pump::Output for Sender<'_> {
    async fn send(&self, channel: Channel, data: &[u8]) -> bool {
        let number = if channel == Channel::Stdout { STDOUT } else { STDERR };
        self.0.send(message(number, data)).await.is_ok()
    }
}

/// What a client says, until it leaves.
fn inputs(source: &mut SplitStream<Socket>, protocol: Protocol) -> impl Stream<Item = Input> {
    let said = source.take_while(|received| std::future::ready(received.is_ok()));
    said.filter_map(move |received| std::future::ready(received.ok().and_then(|m| input(m, protocol))))
}

/// What a message means; nothing, where it makes no sense.
pub fn input(received: Message, protocol: Protocol) -> Option<Input> {
    let bytes = match received {
        Message::Text(text) if protocol.is_base64() => {
            let (digit, rest) = text.split_at_checked(1)?;
            let decoded = base64::engine::general_purpose::STANDARD.decode(rest).ok()?;
            Bytes::from([&[digit.parse::<u8>().ok()?][..], &decoded].concat())
        }
        // Some clients (the Python one) send what they write as text: the channel's byte counts, not the kind of the frame.
        Message::Text(text) => Bytes::from(text),
        Message::Binary(bytes) => bytes,
        _ => return None,
    };
    let data = bytes.slice(1.min(bytes.len())..);
    match *bytes.first()? {
        STDIN => Some(Input::Stdin(data)),
        RESIZE => Some(Input::Resize(data)),
        CLOSE if protocol == Protocol::V5 && data.first() == Some(&STDIN) => Some(Input::StdinEnds),
        _ => None,
    }
}

async fn attach(server: &Server, container: &str, stdin: bool) -> Result<Session, String> {
    let container = server.running(container).map_err(|s| s.message().to_owned())?;
    let answer = server.ask(&container.sandbox, Request::Attach { container: container.id.clone() }).await.map_err(|e| e.to_string())?;
    Session::attach(answer, stdin).map_err(|e| e.to_string())
}

async fn write(mut sink: SplitSink<Socket, Message>, mut messages: mpsc::Receiver<Message>, protocol: Protocol) {
    while let Some(message) = messages.recv().await {
        let message = match message {
            Message::Binary(bytes) if protocol.is_base64() => {
                let channel = char::from(b'0' + bytes.first().copied().unwrap_or(0));
                let text = base64::engine::general_purpose::STANDARD.encode(bytes.get(1..).unwrap_or_default());
                Message::Text(format!("{channel}{text}").into())
            }
            other => other,
        };
        if let Err(error) = sink.send(message).await {
            return tracing::debug!(%error, "the client of a stream left");
        }
    }
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
        let bytes = match received {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            _ => continue,
        };
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
    fn chooses_what_the_client_prefers() {
        let exec = Ticket::Exec { container: String::new(), command: Vec::new(), tty: false, stdin: false, stdout: true, stderr: true };
        let forward = Ticket::PortForward { sandbox: String::new(), ports: Vec::new() };
        assert_eq!(choose("v5.channel.k8s.io, v4.channel.k8s.io", &exec), Some(Protocol::V5));
        assert_eq!(choose("v3.channel.k8s.io,v4.channel.k8s.io", &exec), Some(Protocol::V4));
        assert_eq!(choose("v5.channel.k8s.io", &forward), None);
        assert_eq!(choose("SPDY/3.1+portforward.k8s.io", &forward), Some(Protocol::Tunnel));
        assert_eq!(choose("", &exec), Some(Protocol::V1));
        assert_eq!(choose("base64.channel.k8s.io", &exec), Some(Protocol::Base64V1));
        assert_eq!(choose("", &forward), None);
        assert_eq!(choose("other", &exec), None);
    }

    #[test]
    fn text_frames_carry_input_too() {
        for (received, protocol) in [
            (Message::Text("\u{0}hi".into()), Protocol::V4),
            (Message::Binary(Bytes::from_static(b"\0hi")), Protocol::V4),
            (Message::Text("0aGk=".into()), Protocol::Base64V1),
        ] {
            assert!(matches!(input(received, protocol), Some(Input::Stdin(data)) if &data[..] == b"hi"));
        }
        assert!(input(Message::Text(String::new().into()), Protocol::V4).is_none());
    }
}
