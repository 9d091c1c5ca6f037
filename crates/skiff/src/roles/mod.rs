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
mod serving;

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A start is over by then, informers included.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

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

/// Once the start is over: gives back the memory of the code that only it needed, a third of what is resident.
pub async fn settle() {
    tokio::time::sleep(SETTLED_AFTER).await;
    match sys::memory::release_code() {
        Ok(bytes) => tracing::debug!(bytes, "the start's code was given back"),
        Err(error) => tracing::debug!(%error, "the start's code stays in memory"),
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
