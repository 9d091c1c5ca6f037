//! `kill -9` of an API server over and over, under load over TLS: many clients write, read and delete a few ConfigMaps, watchers
//! resume where they were. Afterwards all of it must be one linearizable history in which no watcher missed or saw twice.

mod clients;
mod server;
mod start;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use mix::Random;
use store::history::{Answer, Call, Expecting, History, Watched};
use tokio::sync::watch;
use tokio::task::JoinSet;

use server::Server;
pub use start::Start;

/// A start that takes so long is told of at once.
const NOTABLE: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub struct Options {
    pub times: u64,
    pub clients: u64,
    pub watchers: usize,
    pub keys: u64,
    /// The server lives so long under load, at least and at most.
    pub life: (Duration, Duration),
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        let life = (Duration::from_millis(50), Duration::from_millis(600));
        Options { times: 3, clients: 16, watchers: 4, keys: 8, life, seed: 1 }
    }
}

#[derive(Debug)]
pub struct Report {
    pub calls: usize,
    pub unanswered: usize,
    pub events: usize,
    /// Watches that went on after a kill.
    pub resumed: u64,
    /// Watches that had to list again.
    pub relisted: u64,
    /// Answers that should not be, such as 500.
    pub odd_answers: u64,
    pub revision: u64,
    /// From the start of the process to the first answer.
    pub start_median: Duration,
    /// The slowest one, with what it did.
    pub slowest: Start,
    /// How many starts took longer than a second.
    pub starts_over_1s: usize,
    pub elapsed: Duration,
    pub disk_bytes: u64,
}

/// What all clients share.
struct Shared {
    history: &'static History,
    options: Options,
    url: String,
    /// The newest revision that anyone was told.
    newest: AtomicU64,
    resumed: AtomicU64,
    relisted: AtomicU64,
    odd_answers: AtomicU64,
}

/// How the server fares: how often it was killed, and whether it is there.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Life {
    kills: u64,
    up: bool,
    over: bool,
}

/// Runs it all. An error: a promise was broken (or the machine gave up).
pub async fn run(options: Options) -> Result<Report> {
    let began = Instant::now();
    let mut server = Server::new()?;
    // Tickets of calls borrow it; it is needed until the program ends.
    let history: &'static History = Box::leak(Box::default());
    let shared = Arc::new(Shared {
        history,
        url: server.url(),
        options: options.clone(),
        newest: AtomicU64::default(),
        resumed: AtomicU64::default(),
        relisted: AtomicU64::default(),
        odd_answers: AtomicU64::default(),
    });
    let mut starts: Vec<Start> = vec![server.start().await?];
    let first = server.client().await?;
    let (after, _) = clients::list(&first, &shared).await.context("the first list")?;
    let (tell, life) = watch::channel(Life { kills: 0, up: true, over: false });
    let mut tasks = JoinSet::new();
    for c in 0..options.clients {
        tasks.spawn(clients::write(shared.clone(), c, server.config().await?, life.clone()));
    }
    let mut watchers = JoinSet::new();
    for _ in 0..options.watchers {
        watchers.spawn(clients::follow(shared.clone(), after, server.config().await?, life.clone()));
    }
    let mut random = Random(options.seed);
    for kills in 1..=options.times {
        let (least, most) = options.life;
        let more = random.below(u64::try_from((most - least).as_micros())?);
        tokio::time::sleep(least + Duration::from_micros(more)).await;
        let newest = shared.newest.load(Ordering::SeqCst);
        server.kill().await?;
        tell.send_replace(Life { kills, up: false, over: false });
        let start = server.start().await?;
        if start.took > NOTABLE {
            eprintln!("start {kills}: {start:?}");
        }
        starts.push(start);
        let (revision, _) = clients::list(&server.client().await?, &shared).await.context("a list after a start")?;
        ensure!(revision >= newest, "after kill {kills} the server is at revision {revision}, {newest} was acknowledged before");
        tell.send_replace(Life { kills, up: true, over: false });
        if kills % 100 == 0 {
            eprintln!("{kills} kills, revision {revision}, {:.0?}", began.elapsed());
        }
    }
    tokio::time::sleep(options.life.1).await;
    tell.send_replace(Life { kills: options.times, up: true, over: true });
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let revision = last_word(&shared, &server).await?;
    let mut watches: Vec<Watched> = Vec::new();
    while let Some(watched) =
        tokio::time::timeout(Duration::from_secs(60), watchers.join_next()).await.context("watchers that never end")?
    {
        watches.extend(watched??);
    }
    report(&shared, starts, &watches, Facts { revision, elapsed: began.elapsed(), disk_bytes: server.disk_bytes()? })
}

struct Facts {
    revision: u64,
    elapsed: Duration,
    disk_bytes: u64,
}

/// Checks what was noted.
fn report(shared: &Shared, mut starts: Vec<Start>, watches: &[Watched], facts: Facts) -> Result<Report> {
    let history = shared.history;
    let unanswered = history.operations().iter().filter(|o| o.answer.is_none()).count();
    starts.sort_unstable_by_key(|start| start.took);
    Ok(Report {
        calls: history.check().map_err(|e| anyhow!(e))?,
        unanswered,
        events: history.check_watches(watches).map_err(|e| anyhow!(e))?,
        resumed: shared.resumed.load(Ordering::SeqCst),
        relisted: shared.relisted.load(Ordering::SeqCst),
        odd_answers: shared.odd_answers.load(Ordering::SeqCst),
        revision: facts.revision,
        start_median: starts[starts.len() / 2].took,
        starts_over_1s: starts.iter().filter(|start| start.took > Duration::from_secs(1)).count(),
        slowest: starts.pop().context("no start")?,
        elapsed: facts.elapsed,
        disk_bytes: facts.disk_bytes,
    })
}

/// Reads every key, and writes the last one, by which watchers know that all is over.
async fn last_word(shared: &Shared, server: &Server) -> Result<u64> {
    let client = server.client().await?;
    for n in 0..shared.options.keys {
        let key = clients::key(n);
        let ticket = shared.history.call(u64::MAX, &key, Call::Get);
        let seen = clients::get(&client, &key).await?.map(|(number, _)| number);
        ticket.answer(Answer::Read(seen));
    }
    let number = shared.history.number();
    let ticket = shared.history.call(u64::MAX, clients::LAST, Call::Put(number, Expecting::Absent));
    let revision = clients::create(&client, clients::LAST, number).await?.context("the last write was refused")?;
    ticket.answer(Answer::Written(Some(revision)));
    Ok(revision)
}
