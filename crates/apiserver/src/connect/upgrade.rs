//! Switching protocols through this server: the backend decides, then bytes are copied both ways, whatever they are.

use futures::future;
use http::header::{CONNECTION, HeaderValue};
use http::{HeaderMap, Request, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use machinery::status::StatusError;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::backend::Backend;
use super::forward;
use crate::chain::Call;
use crate::http::body::boxed;
use crate::http::respond::Answer;
use crate::http::{Body, RequestBody};

/// How long what comes back may take to arrive when nothing goes on any more.
const LAST: std::time::Duration = std::time::Duration::from_secs(10);

/// Whether a request wants to switch protocols.
pub fn asked(headers: &HeaderMap) -> bool {
    headers.get_all(CONNECTION).iter().any(|v| v.to_str().is_ok_and(|v| v.to_ascii_lowercase().contains("upgrade")))
}

/// Sends the request on to `path` at the backend, and joins both ends once it has switched.
pub async fn pass(call: &Call, mut request: Request<RequestBody>, backend: &Backend, path: &str) -> Result<Answer, StatusError> {
    // Requests of this process and of HTTP/2 connections have nothing to switch.
    if request.extensions().get::<OnUpgrade>().is_none() {
        return Err(StatusError::bad_request("Upgrade request required"));
    }
    let near = hyper::upgrade::on(&mut request);
    let headers = forward::onward_upgrade(&call.headers, call.client);
    let onward = forward::request(call, headers, call.method.clone(), path, boxed(http_body_util::Empty::new()))?;
    let answer = call.api.connections.send(backend, onward).await;
    let mut answer = answer.map_err(|e| StatusError::new(500, "", format!("error dialing backend: {e}")))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        call.api.connections.spawn(join(near, hyper::upgrade::on(&mut answer)));
        let (parts, _) = answer.into_parts();
        return Ok(Answer::from_parts(parts, Body::empty()));
    }
    // What the backend said instead is the answer, and the last one on this connection.
    let (mut parts, body) = answer.into_parts();
    forward::back(&mut parts.headers);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(Answer::from_parts(parts, Body::Proxied(body)))
}

async fn join(near: OnUpgrade, far: OnUpgrade) {
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
