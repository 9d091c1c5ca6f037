//! One watch of a prefix: a stream of its own to one member, begun again elsewhere, after the last revision handed out,
//! whenever the member, its leader or the connection is lost. Nobody misses or sees twice what happened meanwhile. It ends
//! only where etcd has compacted what is missing.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use store::{Error, Event, Result, Revision, WatchItem, WatchStream};
use tokio::sync::{mpsc, watch as signal};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::endpoints::{Connection, with_leader};
use crate::engine::{Shared, range};
use crate::errors::Failure;
use crate::etcdserverpb::watch_client::WatchClient;
use crate::etcdserverpb::watch_request::RequestUnion;
use crate::etcdserverpb::{RangeRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse};
use crate::keys::prefix_end;
use crate::kv;
use crate::watching::Wanted;

/// How often etcd is asked how far the watch is, as long as somebody wants to know: as upstream does.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Without a word of a new watch for so long, its member is taken for dead.
const CREATE_WITHIN: Duration = Duration::from_secs(3);
const RETRY_AFTER: Duration = Duration::from_millis(100);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(2);

struct Watch {
    shared: Arc<Shared>,
    prefix: String,
    /// All before and at this revision was handed out.
    seen: Revision,
    /// Kept alive for `wanted`.
    _joined: Arc<Wanted>,
    wanted: signal::Receiver<Revision>,
    open: Option<Open>,
    /// Events of a revision of which more is to come.
    fragments: Vec<Event>,
}

/// A stream to a member.
struct Open {
    connection: Connection,
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    asked: Option<Instant>,
}

/// Why a stream ended.
enum Ended {
    /// Go on elsewhere.
    Broken(String),
    Final(Error),
}

/// Starts a watch; an error at once where history does not reach back so far.
pub async fn start(shared: Arc<Shared>, prefix: &str, after: Revision) -> Result<WatchStream> {
    let joined = shared.watching.join(prefix);
    let wanted = joined.follow();
    let mut watch = Watch { shared, prefix: prefix.to_owned(), seen: after, _joined: joined, wanted, open: None, fragments: Vec::new() };
    watch.reopen(Some(Instant::now() + CREATE_WITHIN * 3)).await?;
    let items = futures::stream::unfold(Some(watch), |watch| async move {
        let mut watch = watch?;
        let item = watch.next().await;
        let next = item.is_ok().then_some(watch);
        Some((item, next))
    });
    Ok(items.boxed())
}

impl Watch {
    async fn next(&mut self) -> Result<WatchItem> {
        loop {
            let Some(open) = &mut self.open else {
                self.reopen(None).await?;
                continue;
            };
            match open.step(&mut self.wanted, self.seen).await.and_then(|answer| self.take(answer)) {
                Ok(Some(item)) => return Ok(item),
                Ok(None) => {}
                Err(Ended::Final(error)) => return Err(error),
                Err(Ended::Broken(why)) => {
                    tracing::info!(prefix = self.prefix, why, "a watch of etcd goes on elsewhere");
                    self.open = None;
                    // What came of a revision so far comes again.
                    self.fragments.clear();
                }
            }
        }
    }

    /// Opens a stream after what was seen; tries without end, or until a moment.
    async fn reopen(&mut self, until: Option<Instant>) -> Result<()> {
        let mut pause = RETRY_AFTER;
        loop {
            let why = match self.open().await {
                Ok(open) => {
                    self.open = Some(open);
                    return Ok(());
                }
                Err(Ended::Final(error)) => return Err(error),
                Err(Ended::Broken(why)) => why,
            };
            if until.is_some_and(|until| Instant::now() > until) {
                return Err(Error::Unavailable(why));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_AFTER_MAX);
        }
    }

    async fn open(&self) -> Result<Open, Ended> {
        let key = self.shared.keys.outer(&self.prefix);
        // etcd starts a watch at the revision of a compaction, but has forgotten the deletions at it: a list must be possible.
        let probe = RangeRequest { key: key.clone(), revision: kv::signed(self.seen).max(1), count_only: true, ..RangeRequest::default() };
        match range(&self.shared.endpoints, probe).await {
            Ok(_) | Err(Error::Future(_)) => {}
            Err(Error::Compacted { .. }) => return Err(Ended::Final(Error::Compacted { oldest: Revision(self.seen.0 + 1) })),
            Err(error) => return Err(Ended::Broken(error.to_string())),
        }
        let connection = self.shared.endpoints.connection().await.map_err(Ended::Broken)?;
        let (requests, sent) = mpsc::channel(4);
        let create = WatchCreateRequest {
            range_end: prefix_end(&key),
            key,
            start_revision: kv::signed(self.seen).saturating_add(1),
            progress_notify: true,
            prev_kv: true,
            fragment: true,
            ..WatchCreateRequest::default()
        };
        let create = WatchRequest { request_union: Some(RequestUnion::Create(create)) };
        requests.try_send(create).map_err(|e| Ended::Broken(e.to_string()))?;
        let mut client = WatchClient::new(connection.channel.clone()).max_decoding_message_size(usize::MAX);
        let created = async {
            let mut answers = client.watch(with_leader(ReceiverStream::new(sent))).await?.into_inner();
            let first = answers.message().await?;
            Ok::<_, tonic::Status>((answers, first))
        };
        let created = tokio::select! { biased;
            created = tokio::time::timeout(CREATE_WITHIN, created) => created,
            () = connection.broken.cancelled() => return Err(Ended::Broken("the connection was lost".into())),
        };
        let open = match created {
            Ok(Ok((answers, Some(first)))) if first.created && !first.canceled => {
                return Ok(Open { connection, requests, answers, asked: None });
            }
            Ok(Ok((_, Some(first)))) => first.cancel_reason,
            Ok(Ok((_, None))) => "the stream ended".to_owned(),
            Ok(Err(status)) => lost(&self.shared, &connection, &status),
            Err(_) => {
                self.shared.endpoints.give_up(&connection);
                "context deadline exceeded".to_owned()
            }
        };
        self.shared.endpoints.avoid(&connection);
        Err(Ended::Broken(open))
    }

    /// What an answer yields; `None`: nothing yet.
    fn take(&mut self, answer: Option<Result<WatchResponse, tonic::Status>>) -> Result<Option<WatchItem>, Ended> {
        let answer = match answer {
            None => return Ok(None),
            Some(Ok(answer)) => answer,
            Some(Err(status)) => {
                let why = self.open.as_ref().map_or_else(String::new, |open| lost(&self.shared, &open.connection, &status));
                return Err(Ended::Broken(why));
            }
        };
        if answer.compact_revision > 0 {
            return Err(Ended::Final(Error::Compacted { oldest: Revision(kv::number(answer.compact_revision)) }));
        }
        if answer.canceled {
            if let Some(open) = &self.open {
                self.shared.endpoints.avoid(&open.connection);
            }
            return Err(Ended::Broken(answer.cancel_reason));
        }
        if answer.events.is_empty() && !answer.fragment {
            return Ok(self.progress(kv::revision_of(answer.header.as_ref())));
        }
        for event in answer.events {
            let event = kv::event(&self.shared.keys, event).map_err(Ended::Final)?;
            self.fragments.extend(event.filter(|e| e.revision > self.seen));
        }
        if answer.fragment || self.fragments.is_empty() {
            return Ok(None);
        }
        let events = std::mem::take(&mut self.fragments);
        self.seen = events.last().map_or(self.seen, |e| e.revision);
        Ok(Some(WatchItem::Events(events)))
    }

    /// Nothing is outstanding up to a revision. A new watch has said nothing of the kind.
    fn progress(&mut self, revision: Revision) -> Option<WatchItem> {
        if revision < self.seen || !self.fragments.is_empty() {
            return None;
        }
        self.seen = revision;
        Some(WatchItem::Progress(revision))
    }
}

/// The member lost its leader or its connection.
fn lost(shared: &Shared, connection: &Connection, status: &tonic::Status) -> String {
    match Failure::of(status) {
        Failure::Lost(why) => {
            shared.endpoints.give_up(connection);
            why
        }
        Failure::Refused(why) | Failure::Unsure(why) => {
            shared.endpoints.avoid(connection);
            why
        }
        Failure::Final(error) => {
            shared.endpoints.avoid(connection);
            error.to_string()
        }
    }
}

impl Open {
    /// Waits for an answer, and asks how far the watch is as long as somebody wants to know. `None`: it only asked.
    async fn step(
        &mut self,
        wanted: &mut signal::Receiver<Revision>,
        seen: Revision,
    ) -> Result<Option<Result<WatchResponse, tonic::Status>>, Ended> {
        let asking = self.connection.progress && *wanted.borrow_and_update() > seen;
        let next = self.asked.map_or_else(Instant::now, |at| at + ASK_EVERY);
        tokio::select! { biased;
            answer = self.answers.message() => match answer {
                Ok(Some(answer)) => Ok(Some(Ok(answer))),
                Ok(None) => Err(Ended::Broken("the stream ended".into())),
                Err(status) => Ok(Some(Err(status))),
            },
            () = self.connection.broken.cancelled() => Err(Ended::Broken("the connection was lost".into())),
            () = tokio::time::sleep_until(next), if asking => {
                self.asked = Some(Instant::now());
                let ask = WatchRequest { request_union: Some(RequestUnion::Progress(WatchProgressRequest {})) };
                // Where earlier requests are still waiting to be sent, one more is of no use.
                self.requests.try_send(ask).ok();
                Ok(None)
            }
            changed = wanted.changed() => match changed {
                Ok(()) => Ok(None),
                Err(e) => Err(Ended::Broken(e.to_string())),
            },
        }
    }
}
