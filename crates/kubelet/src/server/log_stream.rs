//! /containerLogs: the file of one container instance, streamed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cri::v1;
use futures::StreamExt;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;

use super::Context;
use super::routes::{Body, plain};
use crate::kubelet::Node;
use crate::labels;
use crate::logs::{Options, Reader};

const CHUNK_BYTES: usize = 32 * 1024;
const FOLLOW_EVERY: Duration = Duration::from_millis(100);
/// How often, in rounds of following, it is asked whether the container still runs.
const ALIVE_ROUNDS: u32 = 5;

/// Instances of a container, newest first.
pub async fn instances(node: &Node, namespace: &str, pod: &str, container: &str) -> Result<Vec<v1::Container>, tonic::Status> {
    let selector = [(labels::POD_NAMESPACE, namespace), (labels::POD_NAME, pod), (labels::CONTAINER_NAME, container)];
    let label_selector = selector.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let filter = v1::ContainerFilter { label_selector, ..Default::default() };
    let mut list =
        node.cri.runtime.clone().list_containers(v1::ListContainersRequest { filter: Some(filter) }).await?.into_inner().containers;
    // A pod of the same name may have been here before.
    let uid = node.pods.get(namespace, pod).and_then(|p| p.metadata.uid.clone());
    list.retain(|c| uid.as_ref().is_none_or(|uid| c.labels.get(labels::POD_UID) == Some(uid)));
    list.sort_by_key(|c| std::cmp::Reverse((c.metadata.as_ref().map_or(0, |m| m.attempt), c.created_at)));
    Ok(list)
}

fn options(query: &[(String, String)]) -> Result<(Options, bool), String> {
    let get = |name: &str| query.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty());
    let flag = |name: &str| get(name).is_some_and(|v| v == "true" || v == "1");
    let number = |name: &str| get(name).map(|v| v.parse::<u64>().map_err(|_| format!("{name}: invalid value {v:?}"))).transpose();
    let since_seconds = number("sinceSeconds")?;
    let since = match (get("sinceTime"), since_seconds) {
        (Some(t), _) => Some(t.parse::<Timestamp>().map_err(|e| e.to_string())?),
        (None, Some(s)) => Timestamp::now().checked_sub(jiff::SignedDuration::from_secs(i64::try_from(s).unwrap_or(i64::MAX))).ok(),
        (None, None) => None,
    };
    let stream = get("stream").filter(|s| *s != "All").map(str::to_lowercase);
    let tail = number("tailLines")?.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let out = Options { follow: flag("follow"), timestamps: flag("timestamps"), tail, since, limit_bytes: number("limitBytes")?, stream };
    Ok((out, flag("previous")))
}

/// Why there is no log yet, as upstream says it.
fn waiting(node: &Node, namespace: &str, pod: &str, container: &str) -> Response<Body> {
    let Some(object) = node.pods.get(namespace, pod) else {
        return plain(StatusCode::NOT_FOUND, format!("pod {pod:?} not found\n"));
    };
    let spec = object.spec.as_ref();
    if !spec.is_some_and(|s| s.containers.iter().chain(s.init_containers.iter().flatten()).any(|c| c.name == container)) {
        return plain(StatusCode::NOT_FOUND, format!("container {container:?} not found in pod {pod:?}\n"));
    }
    let status = object.status.as_ref();
    let all = status.into_iter().flat_map(|s| s.container_statuses.iter().flatten().chain(s.init_container_statuses.iter().flatten()));
    let reason = all.into_iter().find(|s| s.name == container).and_then(|s| s.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let text = match reason.as_deref() {
        Some("ImagePullBackOff" | "ErrImagePull") => {
            format!("container {container:?} in pod {pod:?} is waiting to start: trying and failing to pull image")
        }
        Some(reason) => format!("container {container:?} in pod {pod:?} is waiting to start: {reason}"),
        None => format!("container {container:?} in pod {pod:?} is not available"),
    };
    plain(StatusCode::BAD_REQUEST, text)
}

pub async fn answer(context: &Arc<Context>, namespace: &str, pod: &str, container: &str, query: &[(String, String)]) -> Response<Body> {
    let node = &context.node;
    let (options, previous) = match options(query) {
        Ok(o) => o,
        Err(text) => return plain(StatusCode::UNPROCESSABLE_ENTITY, text),
    };
    let list = match instances(node, namespace, pod, container).await {
        Ok(list) => list,
        Err(status) => return plain(StatusCode::INTERNAL_SERVER_ERROR, status.message().to_owned()),
    };
    let created = v1::ContainerState::ContainerCreated as i32;
    let mut started = list.iter().filter(|c| c.state != created);
    let chosen = if previous {
        let exited = |c: &&v1::Container| c.state == v1::ContainerState::ContainerExited as i32;
        let first = started.next();
        // While it waits for its restart the newest instance is the previous one's successor only once it runs.
        match first {
            Some(_) => started.find(exited),
            None => None,
        }
    } else {
        started.next()
    };
    let Some(chosen) = chosen else {
        if previous && !list.is_empty() {
            return plain(StatusCode::BAD_REQUEST, format!("previous terminated container {container:?} in pod {pod:?} not found"));
        }
        return waiting(node, namespace, pod, container);
    };
    let status = v1::ContainerStatusRequest { container_id: chosen.id.clone(), verbose: false };
    let path = match node.cri.runtime.clone().container_status(status).await {
        Ok(answer) => PathBuf::from(answer.into_inner().status.map(|s| s.log_path).unwrap_or_default()),
        Err(status) => return plain(StatusCode::INTERNAL_SERVER_ERROR, status.message().to_owned()),
    };
    let follow = options.follow;
    let opened = tokio::task::spawn_blocking(move || Reader::open(&path, options)).await;
    let reader = match opened.map_err(std::io::Error::other).and_then(|r| r) {
        Ok(reader) => reader,
        Err(error) => return plain(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to try resolving symlinks in path: {error}")),
    };
    let state = Following { reader: Some(reader), node: node.clone(), id: chosen.id.clone(), follow, ending: false, rounds: 0 };
    let cancel = context.cancel.clone();
    let stream = futures::stream::unfold(state, |mut state| async move { state.next().await.map(|chunk| (chunk, state)) })
        .take_until(cancel.cancelled_owned())
        .map(|chunk| chunk.map(Frame::data));
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(stream)));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain"));
    response
}

struct Following {
    reader: Option<Reader>,
    node: Arc<Node>,
    id: String,
    follow: bool,
    ending: bool,
    rounds: u32,
}

impl Following {
    async fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        loop {
            let mut reader = self.reader.take()?;
            let read = tokio::task::spawn_blocking(move || {
                let part = reader.read(CHUNK_BYTES);
                (reader, part)
            });
            let (reader, part) = read.await.ok()?;
            let exhausted = reader.exhausted();
            self.reader = Some(reader);
            match part {
                Err(error) => {
                    self.reader = None;
                    return Some(Err(error));
                }
                Ok(part) if !part.is_empty() => return Some(Ok(Bytes::from(part))),
                Ok(_) if exhausted || !self.follow || self.ending => return None,
                Ok(_) => {}
            }
            // What was written before the end was seen is still read: one more round.
            if self.rounds.is_multiple_of(ALIVE_ROUNDS) {
                self.ending = !self.runs().await;
            }
            self.rounds = self.rounds.wrapping_add(1);
            if !self.ending {
                tokio::time::sleep(FOLLOW_EVERY).await;
            }
        }
    }

    async fn runs(&self) -> bool {
        let request = v1::ContainerStatusRequest { container_id: self.id.clone(), verbose: false };
        let answer = self.node.cri.runtime.clone().container_status(request).await;
        answer.is_ok_and(|a| a.into_inner().status.is_some_and(|s| s.state == v1::ContainerState::ContainerRunning as i32))
    }
}
