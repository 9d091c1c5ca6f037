//! What an attacker can send: the server keeps bounded memory, ends it in bounded time, and serves others meanwhile.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

use super::{As, Client, Cluster, Slow};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// A GET as HPACK without any compression.
fn get(path: &str) -> Vec<u8> {
    let mut out = vec![0x82, 0x87, 0x04, u8::try_from(path.len()).unwrap()];
    out.extend(path.as_bytes());
    out.extend([0x01, 1, b'x']);
    out
}

/// One test at a time: they look at the memory of the whole process.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Resident memory of this process, in bytes: client and server together.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Somebody else is served, and soon.
async fn others_are_served(other: &Client) {
    let begun = Instant::now();
    assert_eq!(other.get("/api/v1/namespaces/default").await.code, 200);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

/// Writes until the server has enough of it; answers how much it took.
async fn flood(io: &mut TlsStream<TcpStream>, piece: &[u8], bytes_max: usize) -> usize {
    let mut sent = 0;
    while sent < bytes_max {
        let written = tokio::time::timeout(Duration::from_secs(5), io.write_all(piece)).await;
        if !matches!(written, Ok(Ok(()))) {
            break;
        }
        sent += piece.len();
        tokio::task::yield_now().await;
    }
    sent
}

/// The frames the server sends until the connection ends: their kinds, and the code of a GOAWAY.
async fn frames(io: &mut TlsStream<TcpStream>) -> (Vec<u8>, Option<u32>) {
    let (mut kinds, mut code) = (Vec::new(), None);
    let reading = async {
        loop {
            let mut head = [0; 9];
            if io.read_exact(&mut head).await.is_err() {
                return;
            }
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            if io.read_exact(&mut payload).await.is_err() {
                return;
            }
            kinds.push(head[3]);
            if head[3] == GOAWAY {
                code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await.unwrap_or_default();
    (kinds, code)
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let _turn = TURN.lock().await;
    let cluster = Cluster::start(|_| {}).await;
    let other = cluster.client(As::Admin).await;
    let mut io = cluster.tls(As::Nobody, "h2").await;
    io.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    let before = resident();
    // Many at once, so that none is looked at before it is reset.
    let pairs = |from: u32| {
        let pair =
            |n: u32| [frame(HEADERS, END_STREAM | END_HEADERS, n, &get("/version")), frame(RST_STREAM, 0, n, &[0, 0, 0, 8])].concat();
        (from..from + 200).map(|i| pair(2 * i + 1)).collect::<Vec<_>>().concat()
    };
    for round in 0..50 {
        if tokio::time::timeout(Duration::from_secs(5), io.write_all(&pairs(round * 200))).await.is_ok_and(|w| w.is_err()) {
            break;
        }
        others_are_served(&other).await;
    }
    let (_, code) = frames(&mut io).await;
    assert_eq!(code, Some(11), "ENHANCE_YOUR_CALM");
    assert!(resident().saturating_sub(before) < 256 << 20);
    others_are_served(&other).await;
    cluster.end().await;
}

#[tokio::test]
async fn endless_headers_are_not_kept() {
    let _turn = TURN.lock().await;
    let cluster = Cluster::start(|_| {}).await;
    let other = cluster.client(As::Admin).await;
    let mut io = cluster.tls(As::Nobody, "h2").await;
    io.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, END_STREAM, 1, &get("/version"))].concat()).await.unwrap();
    let before = resident();
    // A header of 120 bytes, again and again, each frame full of them.
    let header = [&[0x00, 1, b'a', 115][..], &[b'v'; 115]].concat();
    let piece = frame(CONTINUATION, 0, 1, &header.repeat(130));
    let took = flood(&mut io, &piece, 256 << 20).await;
    assert!(took < 256 << 20, "it took all");
    assert!(resident().saturating_sub(before) < 256 << 20);
    others_are_served(&other).await;
    cluster.end().await;
}

#[tokio::test]
async fn large_headers_are_refused() {
    let _turn = TURN.lock().await;
    let cluster = Cluster::start(|_| {}).await;
    let admin = cluster.client(As::Admin).await;
    let mut io = cluster.tls(As::Nobody, "http/1.1").await;
    io.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let line = format!("x-a: {}\r\n", "v".repeat(8000));
    let took = flood(&mut io, line.as_bytes(), 64 << 20).await;
    assert!(took < 8 << 20, "{took}");
    let mut answer = Vec::new();
    io.read_to_end(&mut answer).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 431 "), "{text}");
    let many: String = (0..100_000).map(|i| format!("x-{i}: v\r\n")).collect();
    let mut io = cluster.tls(As::Nobody, "http/1.1").await;
    io.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    assert!(flood(&mut io, many.as_bytes(), 32 << 20).await < 32 << 20);
    others_are_served(&admin).await;
    cluster.end().await;
}

#[tokio::test]
async fn slow_clients_are_dropped() {
    let _turn = TURN.lock().await;
    let cluster = Cluster::start(|config| {
        config.connections.headers = Duration::from_millis(500);
        config.connections.idle = Duration::from_millis(600);
        config.request_timeout = Duration::from_millis(700);
    })
    .await;
    // Headers, a byte at a time.
    let mut io = cluster.tls(As::Nobody, "http/1.1").await;
    let begun = Instant::now();
    for byte in b"GET /version HTTP/1.1\r\nhost: x\r\nx-slow: 1\r\nx-slow: 2\r\nx-slow: 3\r\nx-slow: 4".iter().cycle() {
        if io.write_all(&[*byte]).await.is_err() || begun.elapsed() > Duration::from_secs(5) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "the headers were waited for");
    // A body that does not come.
    let mut io = cluster.tls(As::Admin, "http/1.1").await;
    let head = format!("POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{{");
    io.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    tokio::time::timeout(Duration::from_secs(5), io.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 504");
    // A connection nobody asks anything on.
    let mut io = cluster.tls(As::Nobody, "h2").await;
    io.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    let (kinds, _) = frames(&mut io).await;
    assert!(kinds.contains(&GOAWAY), "{kinds:?}");
    // A watch is not idle.
    let watch = cluster.client(As::Admin).await.begin(&format!("{MAPS}?watch=true&timeoutSeconds=2")).await;
    assert!(watch.into_body().collect().await.is_ok());
    cluster.end().await;
}

#[tokio::test]
async fn connections_are_bounded_by_address() {
    let _turn = TURN.lock().await;
    let cluster = Cluster::start(|config| {
        config.connections.connections = 30;
        config.connections.per_address = 20;
    })
    .await;
    let admin = cluster.client(As::Admin).await;
    let mut held = Vec::new();
    let from = |last: u8| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, last], 0).into()).unwrap();
        socket.connect(cluster.api.local_addr)
    };
    for _ in 0..40 {
        held.push(from(2).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut closed = 0;
    for stream in &mut held {
        let mut byte = [0];
        // Those that were taken are waited for; the others have ended.
        let ended = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut byte)).await;
        closed += usize::from(ended.is_ok_and(|read| read.map_or(true, |count| count == 0)));
    }
    assert_eq!(closed, 20, "one address has twenty");
    let mut other = from(3).await.unwrap();
    let mut byte = [0];
    assert!(tokio::time::timeout(Duration::from_millis(100), other.read(&mut byte)).await.is_err(), "another is taken");
    others_are_served(&admin).await;
    drop(held);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut again = from(2).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(100), again.read(&mut byte)).await.is_err(), "there is room again");
    cluster.end().await;
}

/// On a stack as large as the binary's threads have: without optimisation, a reader of YAML takes 20 KiB for each level.
#[test]
fn bodies_that_explode_are_refused_in_time() {
    let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(explode());
    std::thread::Builder::new().stack_size(8 << 20).spawn(run).unwrap().join().unwrap();
}

async fn explode() {
    let _turn = TURN.lock().await;
    let cluster = Cluster::start(|_| {}).await;
    let admin = cluster.client(As::Admin).await;
    let other = cluster.client(As::Admin).await;
    cluster.ok("POST", MAPS, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}})).await;
    let deep = format!("{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{}", "{\"a\":".repeat(500_000));
    let array = "[".repeat(3_000_000);
    let wide = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"w\"}},\"data\":{{{}\"z\":\"\"}}}}",
        "\"a\":\"\",".repeat(400_000)
    );
    let mut bomb = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\na: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, before) in ('b'..'k').zip('a'..) {
        bomb.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 10].join(", ")));
    }
    let deep_yaml = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {}", "{a: ".repeat(100_000));
    let json = "application/json";
    let yaml = "application/yaml";
    for (what, method, path, kind, body) in [
        ("deep", "POST", MAPS.to_owned(), json, deep),
        ("array", "POST", MAPS.to_owned(), json, array),
        ("wide", "POST", format!("{MAPS}?fieldValidation=Strict"), json, wide),
        ("aliases", "POST", MAPS.to_owned(), yaml, bomb),
        ("deep yaml", "POST", MAPS.to_owned(), yaml, deep_yaml),
        ("merge", "PATCH", format!("{MAPS}/a"), "application/merge-patch+json", format!("{{\"data\":{}", "{\"a\":".repeat(500_000))),
        ("apply", "PATCH", format!("{MAPS}/a?fieldManager=m"), "application/apply-patch+yaml", "- ".repeat(1_000_000)),
    ] {
        let (begun, before) = (Instant::now(), resident());
        let attack = admin.send(method, &path, kind, Bytes::from(body));
        let (said, ()) = tokio::join!(attack, others_are_served(&other));
        let said = said.unwrap();
        assert!((400..500).contains(&said.code), "{what}: {} {}", said.code, &said.text[..said.text.len().min(300)]);
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}: {:?}", begun.elapsed());
        assert!(resident().saturating_sub(before) < 512 << 20, "{what}");
        assert!(said.text.len() < 64 << 10, "{what}: the answer repeats it all");
    }
    cluster.end().await;
}

#[tokio::test]
async fn json_patches_cannot_multiply() {
    let _turn = TURN.lock().await;
    let cluster = Cluster::start(|_| {}).await;
    let admin = cluster.client(As::Admin).await;
    cluster
        .ok("POST", MAPS, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v".repeat(1000)}}))
        .await;
    let patch = async |operations: Value| {
        let body = Bytes::from(operations.to_string());
        admin.send("PATCH", &format!("{MAPS}/a"), "application/json-patch+json", body).await.unwrap()
    };
    let said = patch(Value::Array(vec![json!({"op": "test", "path": "/kind", "value": "ConfigMap"}); 10_001])).await;
    let many = "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001";
    assert_eq!((said.code, said.message().as_str()), (413, many));
    // Each operation doubles what there is.
    let doubling: Vec<Value> = (0..40).map(|i| json!({"op": "copy", "from": "/data", "path": format!("/data/x{i}")})).collect();
    let (begun, before) = (Instant::now(), resident());
    let said = patch(Value::Array(doubling)).await;
    assert!((400..500).contains(&said.code), "{} {}", said.code, said.text);
    assert!(begun.elapsed() < Duration::from_secs(5) && resident().saturating_sub(before) < 256 << 20);
    others_are_served(&admin).await;
    cluster.end().await;
}

#[tokio::test]
async fn many_watches_cost_little_and_all_hear() {
    let _turn = TURN.lock().await;
    let cluster = Cluster::start(|_| {}).await;
    let (connections, each) = (10, 200);
    let before = resident();
    let mut watches = Vec::new();
    for _ in 0..connections {
        let client = cluster.client(As::Admin).await;
        for _ in 0..each {
            watches.push(client.begin(&format!("{MAPS}?watch=true&resourceVersion=0")).await.into_body());
        }
    }
    let per_watch = resident().saturating_sub(before) / (connections * each);
    assert!(per_watch < 128 << 10, "{per_watch} bytes a watch");
    let admin = cluster.client(As::Admin).await;
    others_are_served(&admin).await;
    cluster.ok("POST", MAPS, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "news"}})).await;
    let heard = async {
        for watch in &mut watches {
            let mut seen = Vec::new();
            while !seen.windows(4).any(|w| w == b"news") {
                seen.extend_from_slice(&watch.frame().await.unwrap().unwrap().into_data().unwrap());
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), heard).await.unwrap();
    let counted = cluster.metrics().await;
    let line = counted.lines().find(|l| l.starts_with("apiserver_longrunning_requests{") && l.contains("configmaps")).unwrap_or_default();
    assert!(line.ends_with(" 2000"), "{line}");
    drop(watches);
    let counted = |l: &str| l.starts_with("apiserver_longrunning_requests{") && l.contains("configmaps");
    trial::until("watches nobody reads end", async || !cluster.metrics().await.lines().any(counted)).await;
    cluster.end().await;
}

#[tokio::test]
async fn clients_that_do_not_read_do_not_fill_memory() {
    let _turn = TURN.lock().await;
    let store = Slow::new();
    let cluster = Cluster::start_on(store, |_| {}).await;
    for i in 0..20 {
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{i}")}, "data": {"k": "v".repeat(500_000)}});
        cluster.ok("POST", MAPS, map).await;
    }
    let mut io = cluster.tls(As::Admin, "h2").await;
    // Windows of zero bytes: nothing may be sent.
    io.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat()).await.unwrap();
    let before = resident();
    for i in 0..200 {
        io.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 2 * i + 1, &get(MAPS))).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // 200 lists of ten megabytes would be two gigabytes.
    assert!(resident().saturating_sub(before) < 200 << 20, "{}", resident() - before);
    others_are_served(&cluster.client(As::Admin).await).await;
    drop(io);
    cluster.end().await;
}
