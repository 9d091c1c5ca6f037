//! The engine against a real etcd server: what the trait promises. Passes, saying so, where etcd is not installed.
#![expect(clippy::unwrap_used, reason = "tests")]

mod migrate;
mod server;

use std::time::Duration;

use bytes::Bytes;
use etcd::{Etcd, Options};
use futures::StreamExt as _;
use server::Server;
use store::{Error, Event, Expect, ListOptions, Op, Revision, Store, WatchItem, WatchStream};

async fn connect(server: &Server) -> Etcd {
    Etcd::connect(Options::new([server.url.as_str()])).await.unwrap()
}

fn put(key: &str, value: &'static str, expect: Expect) -> Op {
    Op::Put { key: key.into(), value: Bytes::from_static(value.as_bytes()), expect, ttl: None }
}

fn delete(key: &str, expect: Expect) -> Op {
    Op::Delete { key: key.into(), expect }
}

/// The next events, past any word of progress.
async fn events(stream: &mut WatchStream) -> Vec<Event> {
    loop {
        let item = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("an event in time");
        if let WatchItem::Events(events) = item.unwrap().unwrap() {
            return events;
        }
    }
}

#[tokio::test]
async fn writes_hold_their_conditions() {
    let Some(server) = Server::start("conditions") else { return };
    let store = connect(&server).await;
    let key = "/registry/pods/a/b";
    let (first, none) = store.write(put(key, "1", Expect::Absent)).await.unwrap();
    assert_eq!((first, none), (Revision(2), None));
    let Err(Error::Conflict(Some(there))) = store.write(put(key, "x", Expect::Absent)).await else { panic!("no conflict") };
    assert_eq!((&*there.value, there.mod_revision), (&b"1"[..], first));
    let (second, _) = store.write(put(key, "2", Expect::Revision(first))).await.unwrap();
    assert!(matches!(store.write(put(key, "x", Expect::Revision(first))).await, Err(Error::Conflict(Some(c))) if c.mod_revision == second));
    let (_, found) = store.get(key).await.unwrap();
    let found = found.unwrap();
    assert_eq!((found.create_revision, found.mod_revision, &*found.key), (first, second, key));
    assert!(matches!(store.write(delete(key, Expect::Revision(first))).await, Err(Error::Conflict(Some(_)))));
    let (third, gone) = store.write(delete(key, Expect::Revision(second))).await.unwrap();
    assert_eq!((third, &*gone.unwrap().value), (Revision(4), &b"2"[..]));
    assert!(matches!(store.write(delete(key, Expect::Revision(second))).await, Err(Error::Conflict(None))));
    assert_eq!(store.write(delete(key, Expect::Anything)).await.unwrap(), (third, None), "nothing there, nothing written");
    assert_eq!(store.get(key).await.unwrap(), (third, None));
    assert_eq!(store.revision().await.unwrap(), third);
}

#[tokio::test]
async fn lists_are_of_one_revision_and_in_parts() {
    let Some(server) = Server::start("lists") else { return };
    let store = connect(&server).await;
    let writes = (0..4500).map(|i| store.write(put(&format!("/registry/pods/a/{i:05}"), "v", Expect::Absent)));
    futures::stream::iter(writes).buffer_unordered(64).for_each(|w| async { drop(w.unwrap()) }).await;
    store.write(put("/registry/pods0", "after", Expect::Absent)).await.unwrap();
    let all = store.list("/registry/pods/", ListOptions::default()).await.unwrap();
    assert_eq!((all.items.len(), all.count, all.more, all.revision), (4500, 4500, false, Revision(4502)));
    assert!(all.items.is_sorted_by(|a, b| a.key < b.key));
    let old = Revision(1001);
    let page = |after: Option<&str>, limit| ListOptions { after: after.map(str::to_owned), limit, revision: Some(old) };
    let first = store.list("/registry/pods/", page(None, 600)).await.unwrap();
    assert_eq!((first.items.len(), first.count, first.more, first.revision), (600, 1000, true, old));
    let rest = store.list("/registry/pods/", page(Some(&first.items[599].key), 0)).await.unwrap();
    assert_eq!((rest.items.len(), rest.count, rest.more), (400, 400, false));
    let future = ListOptions { revision: Some(Revision(9999)), ..ListOptions::default() };
    assert!(matches!(store.list("/registry/pods/", future).await, Err(Error::Future(Revision(9999)))));
    store.compact(Revision(2000)).await.unwrap();
    assert!(matches!(store.list("/registry/pods/", page(None, 1)).await, Err(Error::Compacted { .. })));
    assert!(matches!(store.watch("/registry/pods/", old).await.err(), Some(Error::Compacted { .. })));
}

#[tokio::test]
async fn a_watch_shows_every_change_once_and_survives_a_restart_of_etcd() {
    let Some(mut server) = Server::start("watch") else { return };
    let store = connect(&server).await;
    let (first, _) = store.write(put("/registry/pods/a", "1", Expect::Absent)).await.unwrap();
    let mut stream = store.watch("/registry/pods/", Revision(first.0 - 1)).await.unwrap();
    assert_eq!(events(&mut stream).await[0].value.as_ref().unwrap().value, "1");
    store.write(put("/registry/other/a", "1", Expect::Absent)).await.unwrap();
    let (second, _) = store.write(put("/registry/pods/a", "2", Expect::Anything)).await.unwrap();
    let changed = events(&mut stream).await.remove(0);
    assert_eq!((changed.revision, &*changed.key, &*changed.previous.unwrap().value), (second, "/registry/pods/a", &b"1"[..]));
    server.kill();
    server.run();
    let (third, _) = loop {
        // A write that fails for want of a server may be tried again: its condition says whether it was done.
        match store.write(delete("/registry/pods/a", Expect::Revision(second))).await {
            Ok(done) => break done,
            Err(Error::Unavailable(_) | Error::Cluster(_) | Error::Timeout(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(other) => panic!("{other}"),
        }
    };
    let gone = events(&mut stream).await.remove(0);
    assert_eq!((gone.revision, gone.value, &*gone.previous.unwrap().value), (third, None, &b"2"[..]));
}

/// The mechanism works in the old version that is installed here too; only its order is not to be relied on under load.
#[tokio::test]
async fn a_quiet_watch_says_how_far_it_is_when_somebody_wants_to_know() {
    let Some(server) = Server::start("progress") else { return };
    let old = connect(&server).await;
    let store = Etcd::connect(Options { ask_progress: Some(true), ..Options::new([server.url.as_str()]) }).await.unwrap();
    assert!(store.tells_progress());
    println!("this version can be relied on: {}", old.tells_progress());
    let mut stream = store.watch("/registry/pods/", Revision(1)).await.unwrap();
    for _ in 0..3 {
        store.write(put("/registry/other/a", "1", Expect::Anything)).await.unwrap();
        let needed = store.freshness("/registry/pods/").await.unwrap().needed;
        let reached = async {
            loop {
                if let WatchItem::Progress(revision) = stream.next().await.unwrap().unwrap()
                    && revision >= needed
                {
                    return revision;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), reached).await.expect("told in time");
    }
}

/// Values of 1.4 MiB and as much that they replace are more than etcd puts into one message. Only other clients write so.
#[tokio::test]
async fn a_revision_that_comes_in_fragments_is_handed_out_whole() {
    let Some(server) = Server::start("fragments") else { return };
    let store = connect(&server).await;
    let before = store.revision().await.unwrap();
    let mut stream = store.watch("/registry/pods/", before).await.unwrap();
    for round in 1..=2 {
        let value = round.to_string().repeat(100 << 10);
        let ops: Vec<(String, &str)> = (0..14).map(|i| (format!("/registry/pods/{i:02}"), value.as_str())).collect();
        if !server.transaction(&ops) {
            return;
        }
        let got = events(&mut stream).await;
        assert_eq!(got.len(), 14, "all of the revision at once");
        assert!(got.iter().all(|e| e.revision == Revision(before.0 + round) && e.value.as_ref().unwrap().value == value));
        assert!(round == 1 || got.iter().all(|e| e.previous.as_ref().unwrap().value.len() == value.len()));
    }
}

#[tokio::test]
async fn keys_with_a_time_to_live_share_a_lease_and_go() {
    let Some(server) = Server::start("leases") else { return };
    let store = connect(&server).await;
    let ttl = Some(Duration::from_secs(1));
    let event = |key: &str, ttl| Op::Put { key: key.into(), value: Bytes::from_static(b"e"), expect: Expect::Anything, ttl };
    let (revision, _) = store.write(event("/registry/events/a", ttl)).await.unwrap();
    store.write(event("/registry/events/b", ttl)).await.unwrap();
    // A put without one keeps the key.
    store.write(event("/registry/events/b", None)).await.unwrap();
    let mut stream = store.watch("/registry/events/", Revision(revision.0 + 2)).await.unwrap();
    let gone = events(&mut stream).await.remove(0);
    assert_eq!((&*gone.key, gone.value), ("/registry/events/a", None));
    assert_eq!(store.list("/registry/events/", ListOptions::default()).await.unwrap().items.len(), 1);
    let long = Some(Duration::from_secs(3600));
    for i in 0..20 {
        store.write(event(&format!("/registry/events/{i}"), long)).await.unwrap();
    }
    if let Some(leases) = server.leases() {
        assert_eq!(leases, 1, "one lease for all of the last minutes");
    }
}

#[tokio::test]
async fn one_of_several_servers_compacts() {
    let Some(server) = Server::start("compaction") else { return };
    let (a, b) = (connect(&server).await, connect(&server).await);
    for _ in 0..3 {
        a.write(put("/registry/pods/a", "v", Expect::Anything)).await.unwrap();
    }
    // b has not heard of a's round: it learns of it, and compacts nothing this time.
    a.compact(Revision(3)).await.unwrap();
    b.compact(Revision(4)).await.unwrap();
    let at = |revision| ListOptions { revision: Some(Revision(revision)), ..ListOptions::default() };
    assert!(matches!(b.list("/registry/", at(2)).await, Err(Error::Compacted { .. })));
    assert!(b.list("/registry/", at(3)).await.is_ok());
    b.compact(Revision(4)).await.unwrap();
    assert!(matches!(a.list("/registry/", at(3)).await, Err(Error::Compacted { .. })));
}

#[tokio::test]
async fn another_prefix_is_another_cluster() {
    let Some(server) = Server::start("prefix") else { return };
    let one = connect(&server).await;
    let other = Etcd::connect(Options { prefix: "/clusters/two".into(), ..Options::new([server.url.as_str()]) }).await.unwrap();
    one.write(put("/registry/pods/a", "one", Expect::Absent)).await.unwrap();
    other.write(put("/registry/pods/a", "two", Expect::Absent)).await.unwrap();
    let listed = other.list("/registry/pods/", ListOptions::default()).await.unwrap();
    assert_eq!((listed.items.len(), &*listed.items[0].key, &*listed.items[0].value), (1, "/registry/pods/a", &b"two"[..]));
    let mut stream = other.watch("/registry/pods/", Revision(1)).await.unwrap();
    let seen = events(&mut stream).await;
    assert_eq!((seen.len(), &*seen[0].key), (1, "/registry/pods/a"));
}

#[tokio::test]
async fn tls_wants_the_right_authority_and_a_client_certificate() {
    let Some(server) = Server::start_tls("tls") else { return };
    let path = |name: &str| Some(server.dir.path().join(name));
    let quick = Options { deadline: Duration::from_secs(1), ..Options::new([server.url.as_str()]) };
    let good = Options { ca_file: path("ca.pem"), cert_file: path("client.pem"), key_file: path("client.key"), ..quick.clone() };
    let store = Etcd::connect(Options { deadline: Duration::from_secs(10), ..good.clone() }).await.unwrap();
    store.write(put("/registry/pods/a", "1", Expect::Absent)).await.unwrap();
    let bare = Etcd::connect(Options { cert_file: None, key_file: None, ..good.clone() }).await.err().unwrap();
    assert!(matches!(&bare, Error::Unavailable(_)), "{bare}");
    let stranger = Etcd::connect(Options { ca_file: path("client.pem"), ..good.clone() }).await.err().unwrap();
    assert!(stranger.to_string().contains("certificate"), "{stranger}");
    let half = Etcd::connect(Options { key_file: None, ..good.clone() }).await.err().unwrap();
    assert!(half.to_string().contains("go together"), "{half}");
    let missing = Etcd::connect(Options { ca_file: path("nowhere.pem"), ..good }).await.err().unwrap();
    assert!(missing.to_string().contains("--etcd-cafile"), "{missing}");
}

#[tokio::test]
async fn without_a_server_errors_come_in_time_and_say_why() {
    let nobody = Etcd::connect(Options { deadline: Duration::from_secs(1), ..Options::new(["http://127.0.0.1:1"]) }).await.err().unwrap();
    assert!(nobody.to_string().contains("127.0.0.1:1: Connection refused"), "{nobody}");
    let Some(mut server) = Server::start("gone") else { return };
    let options = Options { deadline: Duration::from_secs(2), ..Options::new([server.url.as_str()]) };
    let store = Etcd::connect(options).await.unwrap();
    server.kill();
    let began = std::time::Instant::now();
    let error = store.get("/registry/pods/a").await.unwrap_err();
    assert!(matches!(&error, Error::Timeout(_)), "{error}");
    assert!(began.elapsed() < Duration::from_secs(4));
}
