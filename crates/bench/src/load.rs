//! A closed loop: so many workers, each with a connection of its own and one request at a time, for so long. Several servers
//! are loaded in turns, in short slices, so that whatever else the machine does meets all of them alike.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use crate::connection::{Call, Connection};
use crate::report::{self, Latencies, Row};
use crate::server::Server;

/// Makes the n-th call of a worker.
pub type MakeCall = Arc<dyn Fn(usize, u64) -> Call + Send + Sync>;

/// How often it is each server's turn.
pub const TURNS: u32 = 4;

/// One server, what it is asked, and what came of it.
struct Side<'a> {
    server: &'a Server,
    make: MakeCall,
    workers: Vec<Worker>,
    row: Row,
}

struct Worker {
    number: usize,
    connection: Connection,
    calls: u64,
    latencies: Latencies,
    failures: u64,
}

/// The same load to each server in turns; prints a row for each.
pub async fn measure(servers: &[Server], operation: &str, workers: usize, time: Duration, make: MakeCall) -> Result<()> {
    let sides: Vec<_> = servers.iter().map(|s| (s, operation, make.clone())).collect();
    for row in compare(&sides, workers, time).await? {
        report::print(row);
    }
    Ok(())
}

/// Each server with what it is asked, in turns.
pub async fn compare(asked: &[(&Server, &str, MakeCall)], workers: usize, time: Duration) -> Result<Vec<Row>> {
    let mut sides = Vec::new();
    for (server, operation, make) in asked {
        server.forget_peak();
        let mut all = Vec::with_capacity(workers);
        for number in 0..workers {
            let connection = Connection::open(&server.access).await?;
            all.push(Worker { number, connection, calls: 0, latencies: Latencies::default(), failures: 0 });
        }
        sides.push(Side { server, make: make.clone(), workers: all, row: Row::new(&server.name, operation, workers) });
    }
    let turns = if sides.len() > 1 { TURNS } else { 1 };
    for _ in 0..turns {
        for side in &mut sides {
            side.turn(time / turns).await?;
        }
    }
    Ok(sides.into_iter().map(Side::end).collect())
}

impl Side<'_> {
    async fn turn(&mut self, time: Duration) -> Result<()> {
        let cpu = self.server.cpu();
        let begin = Instant::now();
        let mut tasks = JoinSet::new();
        for worker in self.workers.drain(..) {
            tasks.spawn(worker.work(begin + time, self.make.clone()));
        }
        while let Some(ended) = tasks.join_next().await {
            self.workers.push(ended??);
        }
        self.row.seconds += begin.elapsed().as_secs_f64();
        let used = cpu.zip(self.server.cpu()).map(|(before, after)| after.saturating_sub(before));
        self.row.server_cpu = used.map(|used| used + self.row.server_cpu.unwrap_or_default());
        Ok(())
    }

    fn end(mut self) -> Row {
        for worker in self.workers {
            self.row.latencies.merge(worker.latencies);
            self.row.failures += worker.failures;
        }
        self.row.server_peak_bytes = self.server.peak_bytes();
        self.row
    }
}

impl Worker {
    async fn work(mut self, until: Instant, make: MakeCall) -> Result<Self> {
        loop {
            let call = make(self.number, self.calls);
            let begin = Instant::now();
            if begin >= until {
                return Ok(self);
            }
            self.calls += 1;
            let (status, _) = self.connection.count(call).await?;
            if (200..300).contains(&status) {
                self.latencies.add(begin.elapsed());
            } else {
                self.failures += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Against a small TLS server of the test's own, through a kubeconfig as a user has it.
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::kubeconfig;

    async fn answer(request: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let authorized = request.headers().get("authorization").is_some_and(|v| v == "Bearer secret");
        let status = if authorized && request.uri().path() == "/good" { 200 } else { 403 };
        let mut response = Response::new(Full::new(Bytes::from_static(b"answer")));
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        Ok(response)
    }

    #[tokio::test]
    async fn a_server_is_loaded_and_failures_are_counted() {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    let tls = acceptor.accept(stream).await.unwrap();
                    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service_fn(answer));
                    served.await.unwrap();
                });
            }
        });
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        let ca = STANDARD.encode(made.cert.pem());
        let text = format!(
            "current-context: c\ncontexts:\n- name: c\n  context: {{cluster: k, user: u}}\nclusters:\n- name: k\n  cluster:\n    \
             server: https://{address}\n    certificate-authority-data: {ca}\nusers:\n- name: u\n  user: {{token: secret}}\n"
        );
        std::fs::write(&path, text).unwrap();
        let access = kubeconfig::read(&path, None).unwrap();
        let server = Server::running("test", access, Some(std::process::id()));
        let make: MakeCall = Arc::new(|worker, n| Call::get(if worker == 0 && n == 0 { "/bad" } else { "/good" }));
        let asked = [(&server, "one", make.clone()), (&server, "other", make)];
        let rows = compare(&asked, 4, Duration::from_millis(200)).await.unwrap();
        for row in rows {
            assert_eq!((row.failures, row.concurrency), (1, 4));
            assert!(row.server_cpu.is_some() && row.server_peak_bytes.is_some_and(|b| b > 1 << 20));
        }
        let mut connection = Connection::open(&server.access).await.unwrap();
        assert_eq!(connection.text(Call::get("/good"), &[]).await.unwrap(), "answer");
        assert!(connection.text(Call::get("/bad"), &[]).await.unwrap_err().to_string().contains("403"));
        assert!(connection.text(Call::get("/bad"), &[403]).await.is_ok());
    }
}
