//! News from the runtime: its event stream where it has one, a relist as the fallback and the backup. Tells which pods
//! to look at and which sandboxes exist; looking is the workers' part.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cri::{Clients, v1};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::labels;

/// How often to relist without and with an event stream.
const RELIST: Duration = Duration::from_secs(1);
const RELIST_BACKUP: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub enum Seen {
    /// Something of this pod changed.
    Changed(String),
    /// A sandbox exists; its pod may not.
    Sandbox { uid: String, namespace: String, name: String },
}

type Standing = BTreeMap<String, BTreeSet<(String, i32)>>;

/// Runs until cancelled.
pub async fn watch(cri: Clients, out: mpsc::Sender<Seen>, cancel: CancellationToken) {
    let mut known = Standing::new();
    loop {
        let stream = match cri.runtime.clone().get_container_events(v1::GetEventsRequest {}).await {
            Ok(answer) => Some(answer.into_inner()),
            Err(status) => {
                tracing::debug!(error = status.message(), "no stream of container events; relisting");
                None
            }
        };
        let streaming = stream.is_some();
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            ended = follow(&cri, stream, &out, &mut known) => if let Err(error) = ended {
                tracing::warn!(%error, "news from the runtime were interrupted");
            },
        }
        if !streaming {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(RELIST) => {}
            }
        }
    }
}

/// With a stream: until it breaks. Without: one relist a second for half a minute, then the stream is tried again.
async fn follow(
    cri: &Clients,
    mut stream: Option<tonic::Streaming<v1::ContainerEventResponse>>,
    out: &mpsc::Sender<Seen>,
    known: &mut Standing,
) -> Result<(), Error> {
    let mut tick = tokio::time::interval(if stream.is_some() { RELIST_BACKUP } else { RELIST });
    for round in 0u32.. {
        let event = async {
            match &mut stream {
                Some(stream) => stream.message().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            event = event => match event? {
                Some(event) => {
                    if let Some(uid) = uid(&event) {
                        send(out, Seen::Changed(uid)).await;
                    }
                }
                None => return Ok(()),
            },
            _ = tick.tick() => {
                relist(cri, out, known).await?;
                if stream.is_none() && round > 30 {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

async fn send(out: &mpsc::Sender<Seen>, seen: Seen) {
    if out.send(seen).await.is_err() {
        tracing::debug!("nobody listens to the runtime's news any more");
    }
}

fn uid(event: &v1::ContainerEventResponse) -> Option<String> {
    let sandbox = event.pod_sandbox_status.as_ref();
    let direct = sandbox.and_then(|s| s.metadata.as_ref()).map(|m| m.uid.clone()).filter(|u| !u.is_empty());
    direct.or_else(|| event.containers_statuses.iter().find_map(|c| c.labels.get(labels::POD_UID).cloned()))
}

async fn relist(cri: &Clients, out: &mpsc::Sender<Seen>, known: &mut Standing) -> Result<(), Error> {
    let sandboxes = cri.runtime.clone().list_pod_sandbox(v1::ListPodSandboxRequest::default()).await?.into_inner().items;
    let containers = cri.runtime.clone().list_containers(v1::ListContainersRequest::default()).await?.into_inner().containers;
    let mut now = Standing::new();
    for c in containers {
        if let Some(uid) = c.labels.get(labels::POD_UID) {
            now.entry(uid.clone()).or_default().insert((c.id, c.state));
        }
    }
    for s in &sandboxes {
        if let Some(uid) = s.labels.get(labels::POD_UID) {
            now.entry(uid.clone()).or_default().insert((s.id.clone(), s.state));
        }
    }
    let uids: BTreeSet<&String> = now.keys().chain(known.keys()).collect();
    for uid in uids {
        if now.get(uid) != known.get(uid) {
            send(out, Seen::Changed(uid.clone())).await;
        }
    }
    for s in sandboxes {
        let label = |k: &str| s.labels.get(k).cloned().unwrap_or_default();
        let uid = label(labels::POD_UID);
        // Sandboxes without our labels are somebody else's.
        if !uid.is_empty() {
            send(out, Seen::Sandbox { uid, namespace: label(labels::POD_NAMESPACE), name: label(labels::POD_NAME) }).await;
        }
    }
    *known = now;
    Ok(())
}
