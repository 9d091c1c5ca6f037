//! The daemon's side of a shim: a request, an answer, descriptors. Blocking; async callers use [`call`].

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::frame;
use super::protocol::{Request, Response};

/// A shim that takes longer than this to answer is taken for dead. Starting a container reads its image from disk.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Why a shim did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The shim does not answer: the sandbox is dead.
    #[error("the pod's shim at {path} is gone: {source}", path = path.display())]
    Gone { path: PathBuf, source: io::Error },
    #[error("container {0} is not known to its shim")]
    NotFound(String),
    #[error("{0}")]
    Failed(String),
}

/// An answer, with the connection for what follows (an exec's end).
#[derive(Debug)]
pub struct Answer {
    pub response: Response,
    pub descriptors: Vec<OwnedFd>,
    pub socket: UnixStream,
}

/// Sends `request` to the shim at `path` and reads its answer. Blocks.
pub fn call_blocking(path: &Path, request: &Request) -> Result<Answer, ShimError> {
    let gone = |source| ShimError::Gone { path: path.to_owned(), source };
    let socket = UnixStream::connect(path).map_err(gone)?;
    socket.set_read_timeout(Some(ANSWER_WITHIN)).map_err(gone)?;
    socket.set_write_timeout(Some(ANSWER_WITHIN)).map_err(gone)?;
    frame::send(&socket, request, &[]).map_err(gone)?;
    let (mut buffer, mut descriptors) = (Vec::new(), Vec::new());
    let response = frame::read(&socket, &mut buffer, &mut descriptors).map_err(gone)?;
    match response {
        Response::Failed(message) => Err(ShimError::Failed(message)),
        Response::NotFound(id) => Err(ShimError::NotFound(id)),
        response => Ok(Answer { response, descriptors, socket }),
    }
}

/// [`call_blocking`], off the async threads.
pub async fn call(path: PathBuf, request: Request) -> Result<Answer, ShimError> {
    let shown = path.clone();
    match tokio::task::spawn_blocking(move || call_blocking(&path, &request)).await {
        Ok(answer) => answer,
        Err(error) => Err(ShimError::Gone { path: shown, source: io::Error::other(error) }),
    }
}
