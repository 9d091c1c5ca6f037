//! Keeps the configuration: asks each KMS how it is from time to time, and reads a changed file again. A file that makes no
//! sense, or names a KMS that does not answer, changes nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::kms::{STATUS_EVERY, STATUS_EVERY_WHEN_BAD};
use crate::{Encrypted, Error, Result};

/// Reads a configuration file.
pub async fn read(path: &Path) -> Result<(Config, Vec<u8>)> {
    let bytes = tokio::fs::read(path).await.map_err(|e| Error::Config(format!("{}: {e}", path.display())))?;
    let config = Config::parse(&bytes).map_err(|e| Error::Config(format!("{}: {e}", path.display())))?;
    Ok((config, bytes))
}

/// Runs until cancelled. `reload_every`: `None` where the file is not to be read again. `reloaded` is told of each reload,
/// good or bad.
pub async fn watch(
    store: Encrypted,
    path: PathBuf,
    reload_every: Option<Duration>,
    reloaded: impl Fn(bool) + Send,
    cancel: CancellationToken,
) {
    let mut seen = tokio::fs::read(&path).await.unwrap_or_default();
    let mut ask_at = Instant::now();
    let mut read_at = reload_every.map(|every| Instant::now() + every);
    loop {
        let next = read_at.map_or(ask_at, |read| read.min(ask_at));
        tokio::select! { biased;
            () = cancel.cancelled() => return,
            () = tokio::time::sleep_until(next) => {}
        }
        if Instant::now() >= ask_at {
            let mut bad = false;
            for kms in store.rules().kms.values() {
                if let Err(error) = kms.ask().await {
                    tracing::warn!(kms = kms.name(), %error, "the KMS is not well");
                }
                bad |= kms.is_bad();
            }
            ask_at = Instant::now() + if bad { STATUS_EVERY_WHEN_BAD } else { STATUS_EVERY };
        }
        let Some((due, every)) = read_at.zip(reload_every) else { continue };
        if Instant::now() >= due {
            read_at = Some(Instant::now() + every);
            if tokio::fs::read(&path).await.is_ok_and(|now| now == seen) {
                continue;
            }
            match reload(&store, &path).await {
                Ok(bytes) => {
                    seen = bytes;
                    reloaded(true);
                    tracing::info!(path = %path.display(), "the encryption configuration was read again");
                }
                Err(error) => {
                    reloaded(false);
                    tracing::error!(%error, "the encryption configuration cannot be used; the last one stays");
                }
            }
        }
    }
}

async fn reload(store: &Encrypted, path: &Path) -> Result<Vec<u8>> {
    let (config, bytes) = read(path).await?;
    store.replace(config).await?;
    Ok(bytes)
}
