//! Who uses the server that is killed: writers, which note each call and its answer, and watchers, which note what they see.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{AsyncBufReadExt, TryStreamExt};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use store::history::{Answer, Call, Expecting, Seen, Ticket, Watched};
use tokio::sync::watch;

use super::{Life, Random, Shared};

const PATH: &str = "/api/v1/namespaces/default/configmaps";
/// The key that is written when all is over.
pub(super) const LAST: &str = "k-last";
const ANSWER_MAX: Duration = Duration::from_secs(10);

pub(super) fn key(n: u64) -> String {
    format!("k{n}")
}

fn object(key: &str, number: u64, revision: Option<u64>, pad: u64) -> Value {
    let mut metadata = json!({"name": key});
    if let Some(revision) = revision {
        metadata["resourceVersion"] = revision.to_string().into();
    }
    let pad = "x".repeat(usize::try_from(pad).unwrap_or(0));
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"number": number.to_string(), "pad": pad}})
}

/// The number of an object's value and its revision.
fn read(object: &Value) -> Option<(u64, u64)> {
    Some((object["data"]["number"].as_str()?.parse().ok()?, object["metadata"]["resourceVersion"].as_str()?.parse().ok()?))
}

async fn send(client: &kube::Client, method: Method, path: &str, body: &Value) -> Result<(StatusCode, Value)> {
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
    let request = Request::builder().method(method).uri(path).header("Content-Type", "application/json").body(Body::from(body))?;
    let answer = async {
        let answer = client.send(request).await?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await?.to_bytes();
        anyhow::Ok((status, serde_json::from_slice(&bytes)?))
    };
    tokio::time::timeout(ANSWER_MAX, answer).await.context("no answer")?
}

/// The newest state: its revision, and each key's value with its revision.
pub(super) async fn list(client: &kube::Client, shared: &Shared) -> Result<(u64, HashMap<String, (u64, u64)>)> {
    let (status, answer) = send(client, Method::GET, PATH, &Value::Null).await?;
    if !status.is_success() {
        bail!("{}: listing answered {answer}", shared.url);
    }
    let revision = answer["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok()).context("a list without a revision")?;
    let items = answer["items"].as_array().into_iter().flatten();
    Ok((revision, items.filter_map(|i| Some((i["metadata"]["name"].as_str()?.to_owned(), read(i)?))).collect()))
}

pub(super) async fn get(client: &kube::Client, key: &str) -> Result<Option<(u64, u64)>> {
    let (status, answer) = send(client, Method::GET, &format!("{PATH}/{key}"), &Value::Null).await?;
    match status {
        StatusCode::OK => Ok(Some(read(&answer).context("not what was written")?)),
        StatusCode::NOT_FOUND => Ok(None),
        _ => bail!("{key}: {answer}"),
    }
}

/// `None`: it is there already.
pub(super) async fn create(client: &kube::Client, key: &str, number: u64) -> Result<Option<u64>> {
    match send(client, Method::POST, PATH, &object(key, number, None, 0)).await? {
        (StatusCode::CREATED, answer) => Ok(Some(read(&answer).context("not what was written")?.1)),
        (StatusCode::CONFLICT, _) => Ok(None),
        (_, answer) => bail!("{key}: {answer}"),
    }
}

/// One writer; until it is over.
pub(super) async fn write(shared: Arc<Shared>, c: u64, config: kube::Config, mut life: watch::Receiver<Life>) -> Result<()> {
    let mut random = Random(shared.options.seed ^ (c << 32));
    let mut known: HashMap<String, (u64, u64)> = HashMap::new();
    let mut client = kube::Client::try_from(config.clone())?;
    loop {
        let now = *life.wait_for(|l| l.up).await?;
        if now.over {
            return Ok(());
        }
        let key = key(random.below(shared.options.keys));
        let work = choose(&shared, &mut random, &key, known.get(&key).copied());
        let ticket = shared.history.call(c, &key, work.call);
        let began = Instant::now();
        match work.run(&client, &shared, &key).await {
            Ok(Some((answer, state))) => {
                ticket.answer(answer);
                if let Answer::Written(Some(revision)) = answer {
                    shared.newest.fetch_max(revision, Ordering::SeqCst);
                }
                match state {
                    Some(state) => drop(known.insert(key, state)),
                    None => drop(known.remove(&key)),
                }
            }
            Ok(None) => drop::<Ticket<'_>>(ticket),
            // It may have happened until the server was gone: that of the beginning, whose end broke the connection, or where
            // nobody answered in time whichever lives now.
            Err(_) => {
                let server = if began.elapsed() < ANSWER_MAX { now.kills } else { life.borrow().kills };
                let next = *life.wait_for(|l| l.kills > server || l.over).await?;
                if next.kills > server {
                    ticket.stopped();
                }
                client = kube::Client::try_from(config.clone())?;
            }
        }
    }
}

struct Work {
    call: Call,
    method: Method,
    body: Value,
}

fn choose(shared: &Shared, random: &mut Random, key: &str, known: Option<(u64, u64)>) -> Work {
    let pad = random.below(900);
    match (random.below(8), known) {
        (0..=2, _) => Work { call: Call::Get, method: Method::GET, body: Value::Null },
        (3, _) => Work { call: Call::Delete(Expecting::Anything), method: Method::DELETE, body: Value::Null },
        (4, Some((number, revision))) => {
            let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"resourceVersion": revision.to_string()}});
            Work { call: Call::Delete(Expecting::Value(number)), method: Method::DELETE, body }
        }
        (5.., Some((old, revision))) => {
            let number = shared.history.number();
            let body = object(key, number, Some(revision), pad);
            Work { call: Call::Put(number, Expecting::Value(old)), method: Method::PUT, body }
        }
        (_, None) => {
            let number = shared.history.number();
            Work { call: Call::Put(number, Expecting::Absent), method: Method::POST, body: object(key, number, None, pad) }
        }
    }
}

/// What was answered, and the key's value as far as the client now knows.
type Done = Option<(Answer, Option<(u64, u64)>)>;

impl Work {
    /// `None`: an answer that says nothing about what happened.
    async fn run(&self, client: &kube::Client, shared: &Shared, key: &str) -> Result<Done> {
        let path = if self.method == Method::POST { PATH.to_owned() } else { format!("{PATH}/{key}") };
        let (status, answer) = send(client, self.method.clone(), &path, &self.body).await?;
        let state = read(&answer);
        Ok(match (self.call, status) {
            (Call::Get, StatusCode::OK) => Some((Answer::Read(Some(state.context("not what was written")?.0)), state)),
            (Call::Get, StatusCode::NOT_FOUND) => Some((Answer::Read(None), None)),
            (Call::Put(..), StatusCode::OK | StatusCode::CREATED) => {
                Some((Answer::Written(Some(state.context("not what was written")?.1)), state))
            }
            (Call::Put(..), StatusCode::NOT_FOUND) => Some((Answer::Refused(Some(None)), None)),
            (Call::Delete(_), StatusCode::OK) => Some((Answer::Written(None), None)),
            (Call::Delete(Expecting::Anything), StatusCode::NOT_FOUND) => Some((Answer::Nothing, None)),
            (Call::Delete(_), StatusCode::NOT_FOUND) => Some((Answer::Refused(Some(None)), None)),
            (Call::Put(..) | Call::Delete(_), StatusCode::CONFLICT) => Some((Answer::Refused(None), None)),
            (call, _) => {
                eprintln!("{key}: {call:?} answered {answer}");
                shared.odd_answers.fetch_add(1, Ordering::SeqCst);
                None
            }
        })
    }
}

/// One watcher; until it has seen the last write. Answers what it saw, in a part for each time it had to list.
pub(super) async fn follow(shared: Arc<Shared>, after: u64, config: kube::Config, mut life: watch::Receiver<Life>) -> Result<Vec<Watched>> {
    let mut parts = vec![Watched { after, until: after, ..Watched::default() }];
    loop {
        life.wait_for(|l| l.up).await?;
        let client = kube::Client::try_from(config.clone())?;
        let Some(part) = parts.last_mut() else { bail!("no part") };
        match one_watch(&client, part).await {
            Ok(End::Last) => return Ok(parts),
            Ok(End::Expired) => {
                shared.relisted.fetch_add(1, Ordering::SeqCst);
                if let Ok((after, _)) = list(&client, &shared).await {
                    parts.push(Watched { after, until: after, ..Watched::default() });
                }
            }
            Ok(End::Cut) => drop(shared.resumed.fetch_add(1, Ordering::SeqCst)),
            // Also a server that is just not there.
            Err(error) if error.downcast_ref::<Broken>().is_some() => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

enum End {
    Last,
    Expired,
    Cut,
}

/// A watch said what it must not.
#[derive(Debug)]
struct Broken(String);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

async fn one_watch(client: &kube::Client, part: &mut Watched) -> Result<End> {
    let path = format!("{PATH}?watch=1&allowWatchBookmarks=true&resourceVersion={}", part.until);
    let answer = client.send(Request::get(path).body(Body::empty())?).await?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::GONE => return Ok(End::Expired),
        status => bail!("a watch answered {status}"),
    }
    let stream = answer.into_body().into_data_stream().map_err(std::io::Error::other);
    let mut lines = stream.into_async_read().lines();
    while let Ok(Some(line)) = lines.try_next().await {
        // The last line may be cut.
        let Ok(event) = serde_json::from_str::<Value>(&line) else { break };
        let object = &event["object"];
        if event["type"] == "ERROR" {
            return if object["code"] == 410 { Ok(End::Expired) } else { Err(Broken(format!("a watch said {line}")).into()) };
        }
        let revision = object["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok());
        let revision: u64 = revision.with_context(|| Broken(format!("an event without a revision: {line}")))?;
        let kind = event["type"].as_str().unwrap_or_default();
        if kind != "BOOKMARK" {
            let key: Arc<str> = Arc::from(object["metadata"]["name"].as_str().unwrap_or_default());
            // Others have ConfigMaps here, too.
            let Some((number, _)) = read(object) else { continue };
            let before = part.events.iter().rev().find(|e| e.key == key).map(|e| e.value.is_some());
            if before.is_some_and(|there| there == (kind == "ADDED")) {
                return Err(Broken(format!("{kind} at {revision} of {key}, which was there: {before:?}")).into());
            }
            part.events.push(Seen { revision, key: key.clone(), value: (kind != "DELETED").then_some(number) });
            if &*key == LAST {
                part.until = revision;
                return Ok(End::Last);
            }
        }
        part.until = part.until.max(revision);
    }
    Ok(End::Cut)
}
