//! The guestbook: a frontend that passes entries to a primary and reads them from replicas, which ask the primary. They find each
//! other by the names of their Services.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::fetch::fetch;

const PRIMARY: &str = "http://agnhost-primary:6379";
const REPLICA: &str = "http://agnhost-replica:6379";

#[derive(Clone, Copy)]
enum Role {
    Frontend,
    Primary,
    Replica,
}

/// Serves as `frontend`, `primary` or `replica` until it is killed.
pub async fn serve(role: &str) -> Result<()> {
    let (role, port) = match role {
        "frontend" => (Role::Frontend, 80),
        "primary" => (Role::Primary, 6379),
        "replica" => (Role::Replica, 6379),
        other => anyhow::bail!("no such role: {other}"),
    };
    let entry: Arc<Mutex<String>> = Arc::default();
    let listener = TcpListener::bind(("0.0.0.0", port)).await.context("listening")?;
    loop {
        let (stream, _) = listener.accept().await?;
        let entry = entry.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let entry = entry.clone();
                async move { Ok::<_, Infallible>(answer(role, &entry, &request).await) }
            });
            if let Err(error) = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
                eprintln!("a connection ended: {error}");
            }
        });
    }
}

async fn answer(role: Role, entry: &Mutex<String>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default();
    let of = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
    let said = match (role, of("cmd")) {
        (Role::Frontend, "set") => fetch(&format!("{PRIMARY}/?cmd=set&value={}", of("value")), &[], "").await,
        (Role::Frontend, _) => fetch(&format!("{REPLICA}/?cmd=get"), &[], "").await,
        (Role::Replica, _) => fetch(&format!("{PRIMARY}/?cmd=get"), &[], "").await,
        (Role::Primary, command) => {
            let mut held = entry.lock().unwrap_or_else(PoisonError::into_inner);
            if command == "set" {
                of("value").clone_into(&mut held);
            }
            Ok(Bytes::from(held.clone()))
        }
    };
    match said {
        Ok(bytes) => Response::new(Full::new(bytes)),
        Err(why) => {
            let mut response = Response::new(Full::from(format!("{why:#}")));
            *response.status_mut() = http::StatusCode::BAD_GATEWAY;
            response
        }
    }
}
