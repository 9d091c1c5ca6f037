//! One file per component that can run alone, with upstream's main flags.

pub mod authentication;
pub mod control_plane;
mod credentials;
mod election;
pub mod etcd;
pub mod kube_apiserver;
pub mod kube_controller_manager;
pub mod kube_proxy;
pub mod kube_scheduler;
pub mod kubelet;
mod node_certificates;
mod secure;
mod serving;

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::component::Serving;

/// A start is over by then, informers included; and then that of those who connect to what was started.
const SETTLED_AFTER: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(20)];
const SETTLE_EVERY: Duration = Duration::from_secs(120);

/// A flag's duration as Go reads it: `1h30m`, `500ms`.
pub fn duration(flag: &str, text: &str) -> Result<Duration> {
    let nanos = machinery::duration::parse(text).map_err(anyhow::Error::msg).with_context(|| format!("--{flag}"))?;
    Ok(Duration::from_nanos(u64::try_from(nanos).with_context(|| format!("--{flag} {text}: must not be negative"))?))
}

/// Runs one component until TERM or INT. A second signal ends the process at once.
pub fn run<F, T>(component: F) -> Result<()>
where
    F: FnOnce(CancellationToken) -> T,
    T: Future<Output = Result<()>>,
{
    crate::log::init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_stack_size(8 << 20)
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    let ended = runtime.block_on(async {
        let cancel = CancellationToken::new();
        let stop = tokio::spawn(stop_on_signal(cancel.clone()));
        let settled = tokio::spawn(settle());
        let ended = component(cancel).await;
        stop.abort();
        settled.abort();
        ended
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// Runs a component beside what it tells of itself.
async fn observed<T>(serving: Option<Serving>, cancel: &CancellationToken, component: impl Future<Output = T>) -> T {
    let Some(serving) = serving else { return component.await };
    let ended = cancel.child_token();
    let (outcome, ()) = tokio::join!(
        async {
            let outcome = component.await;
            ended.cancel();
            outcome
        },
        serving.run(ended.clone())
    );
    outcome
}

/// Once the start is over, and now and then: gives back the program's file, of which a start needs three times of what is needed
/// later. What is needed is mapped again in a millisecond or two of all threads together.
pub async fn settle() {
    for after in SETTLED_AFTER.into_iter().chain(std::iter::repeat(SETTLE_EVERY)) {
        tokio::time::sleep(after).await;
        match sys::memory::release_file() {
            Ok(bytes) => tracing::debug!(bytes, "code that is not in use was given back"),
            Err(error) => tracing::debug!(%error, "code that is not in use stays in memory"),
        }
    }
}

/// Cancels at the first TERM or INT; exits at the second.
pub async fn stop_on_signal(cancel: CancellationToken) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::error!("signals cannot be handled");
        return;
    };
    for round in 0..2 {
        tokio::select! { biased;
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        if round == 1 {
            std::process::exit(130);
        }
        cancel.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos_and_errors_name_the_flag() {
        assert_eq!(duration("event-ttl", "1h30m").unwrap(), Duration::from_secs(5400));
        for wrong in ["90", "", "1d", "-1s"] {
            assert!(format!("{:#}", duration("event-ttl", wrong).unwrap_err()).starts_with("--event-ttl"), "{wrong}");
        }
    }
}
