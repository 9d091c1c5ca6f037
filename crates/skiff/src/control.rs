//! What a command asks of a node's agent that CRI has no words for: to load an image file. One line of JSON each way on a
//! Unix socket in the run directory, which only root can enter.

use std::path::Path;

use anyhow::{Context, Result, bail};
use runtime::images::Images;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::instance::Dirs;

/// Bytes of a line at the most.
const LINE_MAX: u64 = 64 * 1024;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Ask {
    LoadImage(std::path::PathBuf),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Loaded(Vec<String>),
    Failed(String),
}

fn socket(dirs: &Dirs, node: &str) -> std::path::PathBuf {
    dirs.node_run(node).join("control.sock")
}

/// Loads an image file on a node; returns the names of what was in it.
pub async fn load(dirs: &Dirs, node: &str, file: &Path) -> Result<Vec<String>> {
    let path = socket(dirs, node);
    let mut stream = UnixStream::connect(&path).await.with_context(|| format!("reaching the agent of {node} at {}", path.display()))?;
    let mut line = serde_json::to_vec(&Ask::LoadImage(file.to_owned()))?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = String::new();
    BufReader::new(stream).take(LINE_MAX).read_line(&mut answer).await?;
    match serde_json::from_str(&answer).context("the agent ended before it answered")? {
        Answer::Loaded(names) => Ok(names),
        Answer::Failed(why) => bail!("{why}"),
    }
}

/// Serves a node's socket until cancelled.
pub async fn serve(dirs: &Dirs, node: &str, images: Images, cancel: CancellationToken) -> Result<()> {
    let path = socket(dirs, node);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).with_context(|| format!("removing {}", path.display()))?,
        _ => {}
    }
    let listener = UnixListener::bind(&path).with_context(|| format!("listening on {}", path.display()))?;
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! { biased;
            () = cancel.cancelled() => return Ok(()),
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let images = images.clone();
                    tasks.spawn(async move {
                        if let Err(error) = answer(stream, images).await {
                            tracing::warn!(%error, "a control request failed");
                        }
                    });
                }
                Err(error) => tracing::warn!(%error, "accepting a control request"),
            },
        }
    }
}

async fn answer(stream: UnixStream, images: Images) -> Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader).take(LINE_MAX).read_line(&mut line).await?;
    let Ask::LoadImage(file) = serde_json::from_str(&line).context("a request that is not understood")?;
    // Unpacking reads and writes files for seconds.
    let loaded = tokio::task::spawn_blocking(move || images.load(&file)).await.context("loading panicked")?;
    let answer = match loaded {
        Ok(images) => Answer::Loaded(images.into_iter().flat_map(|i| if i.tags.is_empty() { vec![i.id] } else { i.tags }).collect()),
        Err(error) => Answer::Failed(error.to_string()),
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    Ok(())
}
