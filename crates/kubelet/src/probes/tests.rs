//! Outcomes of network probes against listeners of this process.

use std::time::Duration;

use podsync::probe::ProbeOutcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::http::Target;
use super::{http_outcome, tcp};

const LIMIT: Duration = Duration::from_millis(500);

/// Answers each connection with the next of `answers`; an empty one is never answered.
async fn server(answers: Vec<String>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0u8; 4096];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
            if answer.is_empty() {
                held.push(stream);
            }
        }
        std::future::pending::<()>().await;
    });
    port
}

fn target(port: u16) -> Target {
    Target { tls: false, host: "127.0.0.1".into(), port, path: "/h".into(), headers: Vec::new() }
}

async fn outcome(answers: &[&str]) -> (ProbeOutcome, u16) {
    let port = server(answers.iter().map(|a| (*a).to_owned()).collect()).await;
    (http_outcome(&target(port), LIMIT).await, port)
}

#[tokio::test]
async fn http_in_upstreams_words() {
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    assert_eq!(outcome(&[ok]).await.0, ProbeOutcome::Success);
    let bad = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(outcome(&[bad]).await.0, ProbeOutcome::Failure("HTTP probe failed with statuscode: 503".into()));
    let there = "HTTP/1.1 302 Found\r\nlocation: /there\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    assert_eq!(outcome(&[there, ok]).await.0, ProbeOutcome::Success, "followed on the same host");
    let elsewhere = "HTTP/1.1 302 Found\r\nlocation: http://elsewhere.example/\r\ncontent-length: 4\r\n\r\nbody";
    assert_eq!(outcome(&[elsewhere]).await.0, ProbeOutcome::Warning("Probe terminated redirects, Response body: body".into()));
    let (late, port) = outcome(&[""]).await;
    let text = format!("Get \"http://127.0.0.1:{port}/h\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)");
    assert_eq!(late, ProbeOutcome::Failure(text));
    let (garbage, _) = outcome(&["nonsense\r\n\r\n"]).await;
    assert!(matches!(garbage, ProbeOutcome::Failure(_)), "{garbage:?}");
}

#[tokio::test]
async fn tcp_in_upstreams_words() {
    let port = server(Vec::new()).await;
    assert_eq!(tcp("127.0.0.1", port, LIMIT).await, ProbeOutcome::Success);
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(tcp("127.0.0.1", port, LIMIT).await, ProbeOutcome::Failure(refused.clone()));
    let text = format!("Get \"http://127.0.0.1:{port}/h\": {refused}");
    assert_eq!(http_outcome(&target(port), LIMIT).await, ProbeOutcome::Failure(text));
}
