//! What the runtime shows of a pod, translated from CRI into `podsync::Observed`; termination messages are read here.

use std::collections::BTreeMap;
use std::path::Path;

use cri::Clients;
use cri::v1;
use jiff::Timestamp;
use podsync::{Observed, ObservedContainer, ObservedSandbox, RunState};

use crate::{Error, labels, logs};

/// The most of a termination message that is kept, as upstream has it.
const MESSAGE_BYTES_MAX: u64 = 4096;
const LOG_MESSAGE_BYTES_MAX: usize = 2048;
const LOG_MESSAGE_LINES_MAX: usize = 80;

/// Observes one pod. Keeps what cannot change any more: exited containers.
#[derive(Default)]
pub struct Observer {
    ended: BTreeMap<String, ObservedContainer>,
}

fn time(ns: i64) -> Option<Timestamp> {
    (ns > 0).then(|| Timestamp::from_nanosecond(i128::from(ns)).ok()).flatten()
}

fn by_uid(uid: &str) -> std::collections::HashMap<String, String> {
    [(labels::POD_UID.to_owned(), uid.to_owned())].into_iter().collect()
}

impl Observer {
    pub async fn observe(&mut self, cri: &Clients, uid: &str) -> Result<Observed, Error> {
        let mut runtime = cri.runtime.clone();
        let filter = v1::PodSandboxFilter { label_selector: by_uid(uid), ..Default::default() };
        let mut other = cri.runtime.clone();
        let container_filter = v1::ContainerFilter { label_selector: by_uid(uid), ..Default::default() };
        let (sandboxes, containers) = tokio::join!(
            runtime.list_pod_sandbox(v1::ListPodSandboxRequest { filter: Some(filter) }),
            other.list_containers(v1::ListContainersRequest { filter: Some(container_filter) })
        );
        let mut out = Observed::default();
        for s in sandboxes?.into_inner().items {
            out.sandboxes.push(self.sandbox(cri, s).await?);
        }
        let mut known = BTreeMap::new();
        for c in containers?.into_inner().containers {
            let seen = match self.ended.remove(&c.id) {
                Some(old) => Some(old),
                None => self.container(cri, &c).await?,
            };
            let Some(seen) = seen else { continue };
            if seen.state == RunState::Exited {
                known.insert(seen.id.clone(), seen.clone());
            }
            out.containers.push(seen);
        }
        self.ended = known;
        Ok(out)
    }

    async fn sandbox(&self, cri: &Clients, s: v1::PodSandbox) -> Result<ObservedSandbox, Error> {
        let ready = s.state == v1::PodSandboxState::SandboxReady as i32;
        let mut ips = Vec::new();
        if ready {
            let request = v1::PodSandboxStatusRequest { pod_sandbox_id: s.id.clone(), verbose: false };
            let status = cri.runtime.clone().pod_sandbox_status(request).await?.into_inner().status;
            if let Some(network) = status.and_then(|s| s.network) {
                ips.extend(Some(network.ip).filter(|ip| !ip.is_empty()));
                ips.extend(network.additional_ips.into_iter().map(|ip| ip.ip));
            }
        }
        Ok(ObservedSandbox {
            attempt: s.metadata.map_or(0, |m| m.attempt),
            id: s.id,
            ready,
            created_at: time(s.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
            ips,
        })
    }

    /// None when it vanished meanwhile.
    async fn container(&self, cri: &Clients, c: &v1::Container) -> Result<Option<ObservedContainer>, Error> {
        let request = v1::ContainerStatusRequest { container_id: c.id.clone(), verbose: false };
        let status = match cri.runtime.clone().container_status(request).await {
            Ok(answer) => answer.into_inner().status,
            Err(status) if status.code() == tonic::Code::NotFound => return Ok(None),
            Err(status) => return Err(status.into()),
        };
        let Some(s) = status else { return Ok(None) };
        let state = match s.state {
            0 => RunState::Created,
            1 => RunState::Running,
            2 => RunState::Exited,
            _ => RunState::Unknown,
        };
        let label = |k: &str| s.labels.get(k).or_else(|| s.annotations.get(k)).cloned().unwrap_or_default();
        let attempt = label(labels::RESTART_COUNT).parse().ok().or(s.metadata.as_ref().map(|m| m.attempt)).unwrap_or(0);
        let mut message = s.message.clone();
        if state == RunState::Exited {
            let own = termination_message(&s, &label).await;
            if !own.is_empty() {
                message = if message.is_empty() { own } else { format!("{message}: {own}") };
            }
        }
        let user = s.user.as_ref().and_then(|u| u.linux.as_ref()).map(|l| (l.uid, l.gid, l.supplemental_groups.clone()));
        Ok(Some(ObservedContainer {
            id: s.id.clone(),
            sandbox_id: c.pod_sandbox_id.clone(),
            name: label(labels::CONTAINER_NAME),
            attempt,
            state,
            created_at: time(s.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
            started_at: time(s.started_at),
            finished_at: time(s.finished_at),
            exit_code: s.exit_code,
            reason: s.reason.clone(),
            message,
            image: s
                .image
                .as_ref()
                .map(|i| if i.user_specified_image.is_empty() { i.image.clone() } else { i.user_specified_image.clone() })
                .unwrap_or_default(),
            image_id: s.image_ref.clone(),
            hash: label(labels::HASH),
            user,
            stop_signal: None,
        }))
    }
}

/// What the container left at its terminationMessagePath, or the tail of its log when it failed and policy says so.
async fn termination_message(s: &v1::ContainerStatus, label: &impl Fn(&str) -> String) -> String {
    let host = label(labels::MESSAGE_HOST_PATH);
    let policy = label(labels::MESSAGE_POLICY);
    let log = s.log_path.clone();
    let failed = s.exit_code != 0;
    let read = tokio::task::spawn_blocking(move || {
        let text = if host.is_empty() { String::new() } else { head(Path::new(&host)) };
        if text.is_empty() && failed && policy == "FallbackToLogsOnError" {
            return logs::tail_text(Path::new(&log), LOG_MESSAGE_LINES_MAX, LOG_MESSAGE_BYTES_MAX);
        }
        text
    });
    read.await.unwrap_or_default()
}

fn head(path: &Path) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    match std::fs::File::open(path).and_then(|f| f.take(MESSAGE_BYTES_MAX).read_to_end(&mut bytes)) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}
