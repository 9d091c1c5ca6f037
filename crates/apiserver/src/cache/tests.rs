//! The watch cache against a real (in-memory) store: list plus watch equals state, whatever the selectors and however slow the
//! reader; and the edges: too old, too large, bookmarks, restarts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use proptest::prelude::*;
use serde_json::{Value, json};
use store::{Embedded, Expect, Op, Options, Revision, Store};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;

fn extract() -> Extract {
    let read = |bytes: &[u8]| {
        let object: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let color = object["metadata"]["labels"]["color"].as_str().unwrap_or_default();
        Attributes { labels: vec![("color".into(), color.into())], fields: vec![color.into()] }
    };
    Extract { read: Arc::new(read), index: Some(0), serve: None }
}

fn bytes(name: &str, color: u8, n: usize) -> Bytes {
    json!({"metadata": {"name": name, "labels": {"color": color.to_string()}}, "n": n}).to_string().into()
}

fn put(key: &str, value: Bytes) -> Op {
    Op::Put { key: Arc::from(key), value, expect: Expect::Anything, ttl: None }
}

fn delete(key: &str) -> Op {
    Op::Delete { key: Arc::from(key), expect: Expect::Anything }
}

fn caches(store: &Arc<Embedded>, limits: Limits) -> Caches {
    Caches::new(store.clone(), limits, CancellationToken::new())
}

struct Everything;

impl Filter for Everything {
    fn matches(&self, _: &Entry) -> bool {
        true
    }

    fn is_everything(&self) -> bool {
        true
    }
}

fn everything() -> Arc<dyn Filter> {
    Arc::new(Everything)
}

/// The next changes, or at the given time what a bookmark would say.
async fn next(cursor: &mut Cursor, idle_until: Option<Instant>) -> Result<Batch> {
    let changes = std::future::poll_fn(|context| cursor.poll_next(context));
    let Some(at) = idle_until else { return changes.await };
    match tokio::time::timeout_at(at, changes).await {
        Ok(batch) => batch,
        Err(_) => cursor.bookmark().await,
    }
}

fn red() -> Arc<dyn Filter> {
    Arc::new(|e: &Entry| e.attributes.label("color") == Some("1"))
}

/// What a client keeps from a list and the events of a watch.
struct Client {
    cursor: Cursor,
    state: BTreeMap<String, Bytes>,
    last: Revision,
    wants: (String, Interest, Arc<dyn Filter>),
}

impl Client {
    fn start(cache: &Arc<Cache>, prefix: &str, interest: Interest, filter: Arc<dyn Filter>) -> Self {
        let list = cache.snapshot();
        let matching = list.range(prefix, None).filter(|e| filter.matches(e));
        let state = matching.map(|e| (e.key.to_string(), e.json())).collect();
        let wants = (prefix.to_owned(), interest.clone(), filter.clone());
        Client { cursor: cache.watch(prefix, interest, list.revision, filter).unwrap(), state, last: list.revision, wants }
    }

    /// Goes on where it was, at another server.
    async fn resume(&mut self, cache: &Arc<Cache>) {
        let (prefix, interest, filter) = self.wants.clone();
        self.cursor = cache.resume(&prefix, interest, self.last, filter).await.unwrap();
    }

    async fn drain_to(&mut self, revision: Revision) {
        while self.last < revision {
            self.drain().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Takes what is there; checks that each event is possible for this client.
    async fn drain(&mut self) {
        loop {
            let batch = next(&mut self.cursor, Some(Instant::now())).await.unwrap();
            let mut any = false;
            for event in batch.events() {
                any = true;
                assert!(event.revision > self.last, "goes back or repeats");
                self.last = event.revision;
                let key = event.entry.key.to_string();
                let mut line = BytesMut::new();
                event.append_json(&mut line);
                let frame: Value = serde_json::from_slice(&line).unwrap();
                assert_eq!(frame["object"]["metadata"]["resourceVersion"], event.revision.0.to_string());
                match event.kind {
                    WatchKind::Added => assert!(self.state.insert(key, event.entry.json()).is_none(), "added twice"),
                    WatchKind::Modified => assert!(self.state.insert(key, event.entry.json()).is_some(), "modified from nothing"),
                    WatchKind::Deleted => assert!(self.state.remove(&key).is_some(), "deleted from nothing"),
                }
            }
            assert!(batch.revision >= self.last);
            self.last = batch.revision;
            if !any {
                return;
            }
        }
    }

    fn assert_shows(&self, list: &Snapshot, prefix: &str, filter: &dyn Filter) {
        let want: BTreeMap<String, Bytes> =
            list.range(prefix, None).filter(|e| filter.matches(e)).map(|e| (e.key.to_string(), e.json())).collect();
        assert_eq!(self.state, want);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    /// Starts another client.
    Start,
    /// One client reads.
    Read(usize),
    Elsewhere,
    Yield,
    /// The server starts again: its cache is new, the store remembers. Some clients come back only later.
    Restart(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..8_u8, 0..3_u8).prop_map(|(k, c)| Step::Put(k, c)),
        2 => (0..8_u8).prop_map(Step::Delete),
        1 => Just(Step::Start),
        2 => any::<usize>().prop_map(Step::Read),
        1 => Just(Step::Elsewhere),
        2 => Just(Step::Yield),
        1 => any::<u8>().prop_map(Step::Restart),
    ]
}

fn run<F: Future>(f: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(f)
}

async fn list_and_watch_equal_state(steps: Vec<Step>) {
    let store = Arc::new(Embedded::in_memory());
    // As a server does before it is ready: nobody has seen the store empty.
    store.write(put("/other", bytes("o", 0, 0))).await.unwrap();
    let mut cache = caches(&store, Limits::default()).get("/r/x/", extract);
    let prefixes = ["/r/x/", "/r/x/0/"];
    let mut clients: Vec<(Client, &str, Arc<dyn Filter>)> = Vec::new();
    for (n, step) in steps.into_iter().enumerate() {
        let key = |k: u8| format!("/r/x/{}/{k}", k % 2);
        match step {
            Step::Put(k, color) => drop(store.write(put(&key(k), bytes(&k.to_string(), color, n))).await.unwrap()),
            Step::Delete(k) => drop(store.write(delete(&key(k))).await.unwrap()),
            Step::Elsewhere => drop(store.write(put("/r/y/1", Bytes::from_static(b"{}"))).await.unwrap()),
            Step::Yield => tokio::task::yield_now().await,
            Step::Start => {
                cache.wait_until_fresh(Revision(0)).await.unwrap();
                let (prefix, filter) = (prefixes[n % 2], if n % 3 == 0 { everything() } else { red() });
                let interest = match (n % 2, n % 3) {
                    (1, 0) => Interest::Namespace(prefix.into()),
                    (_, 2) => Interest::Value("1".into()),
                    _ => Interest::All,
                };
                clients.push((Client::start(&cache, prefix, interest, filter.clone()), prefix, filter));
            }
            Step::Read(i) if !clients.is_empty() => {
                let i = i % clients.len();
                clients[i].0.drain().await;
            }
            Step::Read(_) => {}
            Step::Restart(away) => {
                cache = caches(&store, Limits::default()).get("/r/x/", extract);
                for (n, (client, ..)) in clients.iter_mut().enumerate().filter(|(n, _)| away >> (n % 8) & 1 == 0) {
                    client.resume(&cache).await;
                    if n % 2 == 0 {
                        client.drain().await;
                    }
                }
            }
        }
    }
    let revision = cache.consistent().await.unwrap();
    assert_eq!(revision, store.revision().await.unwrap());
    let list = cache.snapshot();
    let stored = store.list("/r/x/", store::ListOptions::default()).await.unwrap();
    let seen: Vec<_> = list.range("/r/x/", None).map(|e| (e.key.clone(), e.bytes.clone(), e.revision)).collect();
    assert_eq!(seen, stored.items.into_iter().map(|i| (i.key, i.value, i.mod_revision)).collect::<Vec<_>>());
    let red_ones = |e: &&Arc<Entry>| e.attributes.label("color") == Some("1");
    assert!(list.with_value("1", None).map(|e| &e.key).eq(list.range("/r/x/", None).filter(red_ones).map(|e| &e.key)));
    for (client, prefix, filter) in &mut clients {
        client.resume(&cache).await;
        client.drain_to(revision).await;
        client.assert_shows(&list, prefix, &**filter);
    }
}

async fn past_views_are_those_of_the_store(steps: Vec<Step>) {
    let store = Arc::new(Embedded::in_memory());
    // A small ring, so that some views must come from the store.
    let cache = caches(&store, Limits { events_max: 10, bytes_max: 1 << 20 }).get("/r/x/", extract);
    cache.consistent().await.unwrap();
    for (n, step) in steps.into_iter().enumerate() {
        match step {
            Step::Put(k, color) => drop(store.write(put(&format!("/r/x/{k}"), bytes("a", color, n))).await.unwrap()),
            Step::Delete(k) => drop(store.write(delete(&format!("/r/x/{k}"))).await.unwrap()),
            _ => drop(cache.consistent().await.unwrap()),
        }
    }
    let newest = cache.consistent().await.unwrap();
    for revision in (1..=newest.0).rev().map(Revision) {
        let view = cache.snapshot_at(revision).await.unwrap();
        let options = store::ListOptions { revision: Some(revision), ..Default::default() };
        let want: Vec<_> = store.list("/r/x/", options).await.unwrap().items.into_iter().map(|i| (i.key, i.mod_revision)).collect();
        assert_eq!(view.range("/r/x/", None).map(|e| (e.key.clone(), e.revision)).collect::<Vec<_>>(), want);
        assert_eq!(view.revision, revision);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn list_and_watch_show_the_state(steps in prop::collection::vec(step(), 0..120)) {
        run(list_and_watch_equal_state(steps));
    }

    #[test]
    fn past_views_are_right(steps in prop::collection::vec(step(), 0..60)) {
        run(past_views_are_those_of_the_store(steps));
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_from_before_the_caches_beginning() {
    let store = Arc::new(Embedded::in_memory());
    for n in 0..3000 {
        // Red from the tenth on, for three revisions of each four.
        store.write(put("/r/x/a", bytes("a", u8::from(n >= 10 && n % 4 != 0), n))).await.unwrap();
    }
    let cache = caches(&store, Limits::default()).get("/r/x/", extract);
    cache.wait_until_fresh(Revision(3001)).await.unwrap();
    assert!(matches!(cache.watch("/r/x/", Interest::All, Revision(2), red()), Err(Error::TooOld { .. })));
    let nothing_written = cache.resume("/r/x/", Interest::All, Revision(1), red()).await;
    assert!(matches!(nothing_written, Err(Error::TooOld { wanted: Revision(1), .. })), "all of history, which nobody has seen begin");
    let mut cursor = cache.resume("/r/x/", Interest::All, Revision(2), red()).await.unwrap();
    let (mut kinds, mut last) = ([0; 3], Revision(0));
    store.write(delete("/r/x/a")).await.unwrap();
    while last < Revision(3002) {
        let batch = next(&mut cursor, None).await.unwrap();
        for event in batch.events() {
            let gone = (event.revision.0 - 2).is_multiple_of(4) || event.revision == Revision(3002);
            let want = if gone {
                WatchKind::Deleted
            } else if kinds[0] == kinds[2] {
                WatchKind::Added
            } else {
                WatchKind::Modified
            };
            assert!(event.revision > last && event.kind == want, "{:?} at {:?}", event.kind, event.revision);
            kinds[event.kind as usize] += 1;
            last = event.revision;
        }
    }
    assert_eq!(kinds[0], kinds[2], "as often gone as come: {kinds:?}");
    assert!(kinds[0] > 740 && kinds[1] > 1400, "{kinds:?}");
    store.compact(Revision(1000)).await.unwrap();
    let too_old = cache.resume("/r/x/", Interest::All, Revision(999), everything()).await;
    assert!(matches!(too_old, Err(Error::TooOld { wanted: Revision(999), oldest: Revision(1000) })));
    assert!(cache.resume("/r/x/", Interest::All, Revision(1000), everything()).await.is_ok());
}

/// As an etcd that does not say how far watches are.
struct Silent(Arc<Embedded>);

#[async_trait::async_trait]
impl Store for Silent {
    async fn get(&self, key: &str) -> store::Result<(Revision, Option<store::KeyValue>)> {
        self.0.get(key).await
    }

    async fn list(&self, prefix: &str, options: store::ListOptions) -> store::Result<store::Listing> {
        self.0.list(prefix, options).await
    }

    async fn write(&self, op: Op) -> store::Result<(Revision, Option<store::KeyValue>)> {
        self.0.write(op).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> store::Result<store::WatchStream> {
        let events = |item: &store::Result<store::WatchItem>| std::future::ready(!matches!(item, Ok(store::WatchItem::Progress(_))));
        Ok(self.0.watch(prefix, after).await?.filter(events).boxed())
    }

    async fn revision(&self) -> store::Result<Revision> {
        self.0.revision().await
    }

    async fn freshness(&self, _: &str) -> store::Result<store::Freshness> {
        let revision = self.0.revision().await?;
        Ok(store::Freshness { revision, needed: revision })
    }

    fn tells_progress(&self) -> bool {
        false
    }

    async fn compact(&self, revision: Revision) -> store::Result<()> {
        self.0.compact(revision).await
    }
}

#[tokio::test(start_paused = true)]
async fn where_nobody_tells_progress_pages_and_revisions_come_from_the_store_and_watches_go_on() {
    let store = Arc::new(Embedded::in_memory());
    for n in 0..5 {
        store.write(put(&format!("/r/x/{n}"), bytes("a", 0, n))).await.unwrap();
    }
    let all = Caches::new(Arc::new(Silent(store.clone())), Limits::default(), CancellationToken::new());
    let cache = all.get("/r/x/", extract);
    cache.wait_until_fresh(Revision(6)).await.unwrap();
    // Others' writes, of which the cache hears nothing.
    store.write(put("/r/y/1", Bytes::from_static(b"{}"))).await.unwrap();
    let began = Instant::now();
    let first = cache.newest().await.unwrap();
    assert_eq!((first.revision, cache.extent().1), (Revision(7), Revision(6)));
    assert_eq!(cache.exactly(Revision(7)).await.unwrap().range("/r/x/", None).count(), 5, "the next page");
    assert_eq!(cache.not_older_than(Revision(7)).await.unwrap().revision, Revision(7));
    assert_eq!(began.elapsed(), Duration::ZERO, "nobody waited");
    assert!(matches!(cache.exactly(Revision(9)).await, Err(Error::TooLarge { .. })));
    assert!(matches!(cache.not_older_than(Revision(9)).await, Err(Error::TooLarge { .. })));
    // A watch from before the ring, of which nobody says when it has caught up.
    let mut cursor = cache.resume("/r/x/", Interest::All, Revision(3), everything()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        if seen.len() == 3 {
            store.write(delete("/r/x/0")).await.unwrap();
        }
        seen.extend(next(&mut cursor, None).await.unwrap().events().map(|e| (e.kind, e.revision.0)));
    }
    use WatchKind::{Added, Deleted};
    assert_eq!(seen, [(Added, 4), (Added, 5), (Added, 6), (Deleted, 8)]);
    cache.wait_until_fresh(Revision(8)).await.unwrap();
    store.write(put("/r/x/0", bytes("a", 0, 9))).await.unwrap();
    assert_eq!(next(&mut cursor, None).await.unwrap().events().map(|e| e.revision.0).collect::<Vec<_>>(), [9], "now from the ring");
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_and_an_old_start_are_refused() {
    let store = Arc::new(Embedded::in_memory());
    let cache = caches(&store, Limits { events_max: 4, bytes_max: 1 << 20 }).get("/r/x/", extract);
    cache.consistent().await.unwrap();
    let mut slow = cache.watch("/r/x/", Interest::All, Revision(1), everything()).unwrap();
    for n in 0..20 {
        store.write(put("/r/x/a", bytes("a", 0, n))).await.unwrap();
        cache.consistent().await.unwrap();
    }
    assert!(matches!(next(&mut slow, None).await, Err(Error::TooOld { .. })));
    assert!(matches!(cache.watch("/r/x/", Interest::All, Revision(2), everything()), Err(Error::TooOld { wanted: Revision(2), .. })));
    assert!(matches!(cache.wait_until_fresh(Revision(99)).await, Err(Error::TooLarge { current: Revision(21), .. })));
    store.compact(Revision(20)).await.unwrap();
    assert!(matches!(cache.snapshot_at(Revision(3)).await, Err(Error::TooOld { .. })));
}

#[tokio::test(start_paused = true)]
async fn only_those_concerned_are_woken_and_nobody_idle_becomes_too_old() {
    let store = Arc::new(Embedded::in_memory());
    let cache = caches(&store, Limits { events_max: 4, bytes_max: 1 << 20 }).get("/r/x/", extract);
    cache.consistent().await.unwrap();
    let mut one = cache.watch("/r/x/b/1", Interest::Key("/r/x/b/1".into()), Revision(1), everything()).unwrap();
    let mut namespace = cache.watch("/r/x/b/", Interest::Namespace("/r/x/b/".into()), Revision(1), everything()).unwrap();
    let mut value = cache.watch("/r/x/", Interest::Value("2".into()), Revision(1), everything()).unwrap();
    let now = Some(Instant::now());
    for cursor in [&mut one, &mut namespace, &mut value] {
        assert_eq!(next(cursor, now).await.unwrap().events().count(), 0);
    }
    for n in 0..20 {
        store.write(put("/r/x/a/1", bytes("1", 0, n))).await.unwrap();
        cache.consistent().await.unwrap();
    }
    for cursor in [&mut one, &mut namespace, &mut value] {
        let woken = tokio::time::timeout(Duration::from_secs(9), next(cursor, None)).await;
        assert!(woken.is_err(), "woken by what is elsewhere");
    }
    store.write(put("/r/x/b/1", bytes("1", 2, 0))).await.unwrap();
    for cursor in [&mut one, &mut namespace, &mut value] {
        assert_eq!(next(cursor, None).await.unwrap().events().count(), 1);
    }
    store.write(put("/r/x/b/1", bytes("1", 3, 0))).await.unwrap();
    assert_eq!(next(&mut value, None).await.unwrap().events().count(), 1, "the value before counts as well");
}

#[tokio::test(start_paused = true)]
async fn a_watch_waits_and_bookmarks_say_how_far_it_is() {
    let store = Arc::new(Embedded::in_memory());
    let cache = caches(&store, Limits::default()).get("/r/x/", extract);
    cache.consistent().await.unwrap();
    let mut cursor = cache.watch("/r/x/", Interest::All, Revision(1), everything()).unwrap();
    store.write(put("/r/y/1", Bytes::from_static(b"{}"))).await.unwrap();
    let before = Instant::now();
    let idle = next(&mut cursor, Some(before + Duration::from_secs(60))).await.unwrap();
    assert_eq!((idle.events().count(), idle.revision, before.elapsed()), (0, Revision(2), Duration::from_secs(60)));
    let write = store.write(put("/r/x/1", bytes("1", 0, 0)));
    let (batch, written) = tokio::join!(next(&mut cursor, None), write);
    let batch = batch.unwrap();
    assert_eq!((batch.events().count(), batch.revision), (1, written.unwrap().0));
}

#[tokio::test(start_paused = true)]
async fn the_first_change_is_handed_out_at_once_and_a_burst_together() {
    let store = Arc::new(Embedded::in_memory());
    let cache = caches(&store, Limits::default()).get("/r/x/", extract);
    cache.consistent().await.unwrap();
    let mut cursor = cache.watch("/r/x/", Interest::All, Revision(1), everything()).unwrap();
    let begin = Instant::now();
    store.write(put("/r/x/1", bytes("1", 0, 0))).await.unwrap();
    assert_eq!((next(&mut cursor, None).await.unwrap().events().count(), begin.elapsed()), (1, Duration::ZERO));
    // In a task of its own: the cursor must not be polled but when it is woken.
    let burst = tokio::spawn(async move {
        for n in 0..5 {
            store.write(put("/r/x/1", bytes("1", 0, n))).await.unwrap();
            // The cursor has time to see each one alone.
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
        }
    });
    assert_eq!(next(&mut cursor, None).await.unwrap().events().count(), 5);
    burst.await.unwrap();
    assert!(begin.elapsed() <= Duration::from_millis(2));
}

#[tokio::test(start_paused = true)]
async fn what_one_watcher_wrote_out_others_send_as_it_is() {
    let store = Arc::new(Embedded::in_memory());
    let cache = caches(&store, Limits::default()).get("/r/x/", extract);
    cache.consistent().await.unwrap();
    let watch = |prefix, interest, form| {
        let mut cursor = cache.watch(prefix, interest, Revision(1), everything()).unwrap();
        cursor.share(form);
        cursor
    };
    let mut first = watch("/r/x/", Interest::All, Form::Json);
    let mut second = watch("/r/x/", Interest::All, Form::Json);
    let mut other_form = watch("/r/x/", Interest::All, Form::Metadata);
    let mut elsewhere = watch("/r/x/b/", Interest::Namespace("/r/x/b/".into()), Form::Json);
    let mut picky = cache.watch("/r/x/", Interest::All, Revision(1), red()).unwrap();
    picky.share(Form::Json);
    for n in 1..4 {
        store.write(put("/r/x/a/1", bytes("1", 1, n))).await.unwrap();
        store.write(put("/r/x/b/1", bytes("1", 0, n))).await.unwrap();
        cache.consistent().await.unwrap();
        let batch = next(&mut first, None).await.unwrap();
        assert!(batch.encoded().is_none(), "nobody was here before");
        let mut out = BytesMut::new();
        batch.events().for_each(|e| e.append_json(&mut out));
        first.offer(&batch, &Encoded { bytes: out.freeze(), events: 2 });
        let again = next(&mut second, None).await.unwrap();
        let shared = again.encoded().unwrap();
        assert_eq!((shared.events, again.events().count(), again.revision), (2, 0, batch.revision));
        let text = String::from_utf8(shared.bytes.to_vec()).unwrap();
        assert_eq!((text.lines().count(), text.matches(&format!("\"n\":{n}")).count()), (2, 2), "{text}");
        for (cursor, seen) in [(&mut other_form, 2), (&mut elsewhere, 1), (&mut picky, 1)] {
            let batch = next(cursor, None).await.unwrap();
            assert_eq!((batch.encoded().is_none(), batch.events().count()), (true, seen));
        }
    }
    assert!(matches!(second.poll_next(&mut std::task::Context::from_waker(std::task::Waker::noop())), std::task::Poll::Pending));
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_lost_its_place_reads_anew_and_ends_its_watches() {
    let store = Arc::new(Embedded::in_memory_with(Options { history_bytes_max: 2000, ..Options::default() }));
    let all = caches(&store, Limits::default());
    let cache = all.get("/r/x/", extract);
    cache.consistent().await.unwrap();
    let mut cursor = cache.watch("/r/x/", Interest::All, Revision(1), everything()).unwrap();
    // Without a yield in between, the store forgets what the cache has not read yet.
    for n in 0..50 {
        store.write(put("/r/x/a", bytes("a", 0, n))).await.unwrap();
    }
    assert!(matches!(next(&mut cursor, None).await, Err(Error::TooOld { .. })));
    cache.wait_until_fresh(Revision(51)).await.unwrap();
    assert_eq!(cache.get("/r/x/a").unwrap().revision, Revision(51));

    let mut cursor = cache.watch("/r/x/", Interest::All, Revision(51), everything()).unwrap();
    all.remove("/r/x/");
    assert!(matches!(next(&mut cursor, None).await, Err(Error::Closed)), "a removed cache ends its watches");
}

#[test]
fn other_encodings_are_made_once_and_bounded() {
    let item =
        store::KeyValue { key: Arc::from("/r/x/a"), value: bytes("a", 0, 0), mod_revision: Revision(5), create_revision: Revision(5) };
    let entry = Entry::new(&item, &extract());
    let small = || entry.encoding(Encoding(1), |e| Bytes::copy_from_slice(&e.bytes[..4]));
    assert_eq!(small().as_ptr(), small().as_ptr());
    let large = || entry.encoding(Encoding(2), |_| vec![0; 1 << 20].into());
    let (one, two) = (large(), large());
    assert_ne!(one.as_ptr(), two.as_ptr());
}
