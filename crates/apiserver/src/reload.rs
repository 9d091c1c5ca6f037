//! Configuration files that are read again when they change (authentication, authorization). What cannot be used is warned of and
//! counted, and the last good one stays. Encryption has its own, because its store outlives the API server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::metrics::Desc;
use crate::state::Api;

/// How often files are looked at.
const EVERY: Duration = Duration::from_secs(10);

/// A file that is followed.
pub struct File {
    /// For people: "authentication".
    pub what: &'static str,
    pub path: PathBuf,
    /// How often it is looked at; `None`: as usual.
    pub every: Option<Duration>,
    /// `..._automatic_reloads_total` and `..._automatic_reload_last_timestamp_seconds`.
    pub metrics: [&'static Desc; 2],
}

/// Hands each new content to `apply`, until cancelled.
pub async fn follow(
    api: Arc<Api>,
    file: File,
    cancel: CancellationToken,
    mut apply: impl FnMut(&Arc<Api>, &[u8]) -> Result<(), String> + Send,
) {
    let mut last = tokio::fs::read(&file.path).await.unwrap_or_default();
    loop {
        tokio::select! { biased;
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(file.every.unwrap_or(EVERY)) => {}
        }
        // A file that is being replaced is there again the next time.
        let Ok(now) = tokio::fs::read(&file.path).await else { continue };
        if now == last {
            continue;
        }
        let (path, what) = (file.path.display(), file.what);
        let status = match apply(&api, &now) {
            Ok(()) => {
                tracing::info!(%path, "the {what} configuration was read again");
                "success"
            }
            Err(why) => {
                tracing::warn!(%path, why, "the {what} configuration stays as it was");
                "failure"
            }
        };
        last = now;
        let [count, when] = file.metrics;
        api.metrics.count(count, &["", status]);
        let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        api.metrics.set(when, &["", status], seconds);
    }
}
