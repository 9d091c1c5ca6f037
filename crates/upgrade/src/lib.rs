//! Two ends of a connection that has switched protocols, joined: bytes are copied both ways, whatever they are. It asks for nothing
//! and decides nothing; the API server's connect verbs and the kubelet's streams do, and call it once both ends have switched.

use std::time::Duration;

use futures::future;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

/// How long what comes back may take to arrive when nothing goes on any more.
const LAST: Duration = Duration::from_secs(10);

/// Copies until both ends have ended, or one is broken and the other has said its last. Cancel safe: dropped, both are closed.
pub async fn join(near: OnUpgrade, far: OnUpgrade) {
    match tokio::try_join!(near, far) {
        Ok((near, far)) => copy(TokioIo::new(near), TokioIo::new(far)).await,
        Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
    }
}

/// Copies both ways to both ends. Where one way breaks, what the other one still brings is not lost with it: a command that
/// ended takes no more input, and its last words may be on their way.
async fn copy(near: impl AsyncRead + AsyncWrite, far: impl AsyncRead + AsyncWrite) {
    let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (tokio::io::split(near), tokio::io::split(far));
    let onward = async {
        tokio::io::copy(&mut from_near, &mut to_far).await?;
        to_far.shutdown().await
    };
    let back = async {
        tokio::io::copy(&mut from_far, &mut to_near).await?;
        to_near.shutdown().await
    };
    tokio::pin!(onward, back);
    let (first, rest) = tokio::select! {
        biased;
        ended = &mut back => (ended, future::Either::Left(onward)),
        ended = &mut onward => (ended, future::Either::Right(back)),
    };
    let rest = match first {
        Ok(()) => rest.await,
        Err(_) => tokio::time::timeout(LAST, rest).await.unwrap_or(Ok(())),
    };
    if let Err(error) = first.and(rest) {
        tracing::debug!(%error, "an upgraded connection ended");
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// A backend that has said all it will, and takes nothing more.
    struct Deaf(std::io::Cursor<Vec<u8>>);

    impl AsyncRead for Deaf {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut tokio::io::ReadBuf<'_>) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Deaf {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<std::io::Result<usize>> {
            Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn last_words_arrive_although_input_is_not_taken() {
        // The client is slow, and does not stop to talk.
        let (mut client, near) = tokio::io::duplex(16);
        let copying = tokio::spawn(copy(near, Deaf(std::io::Cursor::new(vec![b'x'; 10_000]))));
        client.write_all(b"input").await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard.len(), 10_000);
        drop(client);
        copying.await.unwrap();
    }
}
