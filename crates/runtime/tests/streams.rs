//! Exec, attach and port-forward as kubectl does them: WebSocket channels behind the URLs the CRI gives.
#![expect(clippy::unwrap_used, reason = "tests")]

#[macro_use]
mod support;

use std::time::Duration;

use cri::v1::*;
use futures::{SinkExt, StreamExt};
use support::Rig;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

type Socket = WebSocketStream<TcpStream>;

async fn open(url: &str, protocol: &str) -> Result<Socket, tokio_tungstenite::tungstenite::Error> {
    let mut request = url.replacen("http://", "ws://", 1).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
    let stream = TcpStream::connect(address).await.unwrap();
    tokio_tungstenite::client_async(request, stream).await.map(|(socket, response)| {
        assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
        socket
    })
}

async fn send(socket: &mut Socket, channel: u8, data: &[u8]) {
    socket.send(Message::Binary([&[channel], data].concat().into())).await.unwrap();
}

/// Collects channels until `done`, or the end.
async fn read(socket: &mut Socket, done: impl Fn(&[Vec<u8>; 5]) -> bool) -> [Vec<u8>; 5] {
    let mut channels: [Vec<u8>; 5] = Default::default();
    let reading = async {
        while !done(&channels) {
            match socket.next().await {
                Some(Ok(Message::Binary(bytes))) => channels[usize::from(bytes[0])].extend_from_slice(&bytes[1..]),
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await.unwrap();
    channels
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

async fn exec_url(rig: &Rig, id: &str, cmd: &[&str], tty: bool, stdin: bool) -> String {
    let cmd = cmd.iter().map(|c| (*c).to_owned()).collect();
    let request = ExecRequest { container_id: id.into(), cmd, tty, stdin, stdout: true, stderr: !tty };
    rig.cri.runtime.clone().exec(request).await.unwrap().into_inner().url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_with_stdin_and_exit_code() {
    let rig = rig!();
    let pod = rig.sandbox("wsexec").await;
    let id = rig.run(&pod, &["sleep"]).await;
    let url = exec_url(&rig, &id, &["guest", "lines"], false, true).await;
    let mut socket = open(&url, "v5.channel.k8s.io").await.unwrap();
    send(&mut socket, 0, b"one\nquit\n").await;
    let channels = read(&mut socket, |_| false).await;
    assert_eq!(text(&channels[1]), "got one\ngot quit\n");
    let status: serde_json::Value = serde_json::from_slice(&channels[3]).unwrap();
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(status["details"]["causes"][0]["message"], "7");
    assert!(open(&url, "v5.channel.k8s.io").await.is_err(), "a URL is good once");
    // v5 can close stdin alone.
    let url = exec_url(&rig, &id, &["guest", "lines"], false, true).await;
    let mut socket = open(&url, "v5.channel.k8s.io").await.unwrap();
    send(&mut socket, 0, b"last\n").await;
    send(&mut socket, 255, &[0]).await;
    let channels = read(&mut socket, |_| false).await;
    assert_eq!(text(&channels[1]), "got last\nend\n");
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&channels[3]).unwrap()["status"], "Success");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_echoes() {
    let rig = rig!();
    let pod = rig.sandbox("tty").await;
    let id = rig.run(&pod, &["sleep"]).await;
    let url = exec_url(&rig, &id, &["guest", "lines"], true, true).await;
    let mut socket = open(&url, "v4.channel.k8s.io").await.unwrap();
    send(&mut socket, 4, br#"{"Width":132,"Height":40}"#).await;
    send(&mut socket, 0, b"hello\r").await;
    let channels = read(&mut socket, |c| text(&c[1]).contains("got hello")).await;
    assert!(text(&channels[1]).starts_with("hello\r\n"), "{:?}", text(&channels[1]));
    send(&mut socket, 0, b"quit\r").await;
    let channels = read(&mut socket, |_| false).await;
    assert!(text(&channels[3]).contains("NonZeroExitCode"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attach_sees_output_and_feeds_stdin() {
    let rig = rig!();
    let pod = rig.sandbox("attach").await;
    for tty in [false, true] {
        let mut config = Rig::container_config(&["lines"]);
        (config.stdin, config.tty) = (true, tty);
        let id = rig.run_with(&pod, config).await;
        let request = AttachRequest { container_id: id.clone(), stdin: true, tty, stdout: true, stderr: !tty };
        let url = rig.cri.runtime.clone().attach(request).await.unwrap().into_inner().url;
        let mut socket = open(&url, "v4.channel.k8s.io").await.unwrap();
        send(&mut socket, 0, b"hi\n").await;
        read(&mut socket, |c| text(&c[1]).contains("got hi")).await;
        send(&mut socket, 0, b"quit\n").await;
        read(&mut socket, |_| false).await;
        assert_eq!(rig.exited(&id).await.exit_code, 7);
        rig.log_until("lines", |lines| lines.iter().any(|l| l.contains("got hi"))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_are_forwarded() {
    let rig = rig!();
    let pod = rig.sandbox("forward").await;
    rig.run(&pod, &["serve"]).await;
    let forward = async || {
        let request = PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![8080] };
        let url = rig.cri.runtime.clone().port_forward(request).await.unwrap().into_inner().url;
        let mut socket = open(&url, "v4.channel.k8s.io").await.unwrap();
        send(&mut socket, 0, b"ping").await;
        read(&mut socket, |c| c[0].ends_with(b"echo ping") || c[1].len() > 2).await
    };
    let mut channels = forward().await;
    for _ in 0..50 {
        if channels[1].len() <= 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await; // the server is still starting
        channels = forward().await;
    }
    assert_eq!(channels[0], [&8080u16.to_le_bytes()[..], b"echo ping"].concat());
    assert_eq!(channels[1], 8080u16.to_le_bytes());
}
