//! Connecting to a CRI server on a unix socket. Called by the kubelet and by `skiff` subcommands.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{ImageServiceClient, RuntimeServiceClient};

/// The largest message either side accepts: upstream's kubelet uses 16 MiB.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Both halves of a CRI connection; cheap to clone, requests are multiplexed over one socket.
#[derive(Clone, Debug)]
pub struct Clients {
    pub runtime: RuntimeServiceClient<Channel>,
    pub images: ImageServiceClient<Channel>,
}

/// Why a CRI endpoint could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("connect to the container runtime at {path}: {source}", path = path.display())]
pub struct ConnectError {
    path: PathBuf,
    source: tonic::transport::Error,
}

/// Connects to the CRI server listening on the unix socket at `path` (an optional `unix://` prefix is dropped).
/// The connection is remade when it breaks; a call made meanwhile fails with `Unavailable`.
pub async fn connect(path: impl AsRef<Path>) -> Result<Clients, ConnectError> {
    let path = path.as_ref();
    let path = path.to_str().and_then(|p| p.strip_prefix("unix://")).map_or_else(|| path.to_owned(), PathBuf::from);
    let socket = path.clone();
    let dial = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost")
        .connect_timeout(Duration::from_secs(5))
        .connect_with_connector(dial)
        .await
        .map_err(|source| ConnectError { path, source })?;
    Ok(Clients {
        runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
        images: ImageServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX),
    })
}
