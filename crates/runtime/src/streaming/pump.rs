//! A session joined to a client, whatever the client speaks: `websocket` and `command` bring the client's side as a stream of
//! inputs and a place for output.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::Deserialize;

use tokio_util::sync::CancellationToken;

use super::descriptor::Descriptor;
use super::session::Session;

/// How long a command's output may be silent after its end.
const SILENCE: std::time::Duration = std::time::Duration::from_millis(500);

/// What a client says.
pub enum Input {
    Stdin(Bytes),
    StdinEnds,
    /// A terminal's size, as JSON.
    Resize(Bytes),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    Stdout,
    Stderr,
}

/// Where output goes. `false`: nobody is there any more.
pub trait Output: Sync {
    fn send(&self, channel: Channel, data: &[u8]) -> impl Future<Output = bool> + Send;
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Size {
    width: u16,
    height: u16,
}

/// The terminal's new size, if the message says one.
pub fn size(message: &[u8]) -> Option<Size> {
    serde_json::from_slice(message).ok()
}

/// The Status that ends an exec, in upstream's form.
pub fn final_status(outcome: &Result<Option<i32>, String>) -> serde_json::Value {
    match outcome {
        Ok(None | Some(0)) => serde_json::json!({ "metadata": {}, "status": "Success" }),
        Ok(Some(code)) => serde_json::json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
        }),
        Err(text) => serde_json::json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "message": format!("Internal error occurred: {text}"),
            "details": { "causes": [{ "message": text }] }, "code": 500,
        }),
    }
}

/// What the error channel says at the end: a Status, or, to clients older than protocol 4, the text of a failure alone.
pub fn last_words(outcome: &Result<Option<i32>, String>, as_status: bool) -> Vec<u8> {
    let status = final_status(outcome);
    if as_status {
        return status.to_string().into_bytes();
    }
    let text = if status["status"] == "Success" { "" } else { status["message"].as_str().unwrap_or_default() };
    text.as_bytes().to_vec()
}

/// Copies until the stream ends. After the command's end a process left behind may hold the stream open: then the copy ends
/// when nothing came for a while, however long the client takes to read what did.
async fn copy_out(from: Option<Arc<Descriptor>>, channel: Channel, to: &impl Output, ended: &CancellationToken) {
    let Some(from) = from else { return };
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let silence = async {
            ended.cancelled().await;
            tokio::time::sleep(SILENCE).await;
        };
        let read = tokio::select! {
            biased;
            read = from.read(&mut chunk) => read,
            () = silence => return tracing::debug!("a process left behind holds the command's output"),
        };
        match read {
            Ok(count) if count > 0 && to.send(channel, &chunk[..count]).await => {}
            _ => return,
        }
    }
}

/// Feeds stdin and resizes until the client says no more.
async fn copy_in(inputs: impl Stream<Item = Input>, mut stdin: Option<Arc<Descriptor>>, terminal: Option<Arc<Descriptor>>) {
    let mut inputs = std::pin::pin!(inputs);
    while let Some(input) = inputs.next().await {
        match input {
            Input::Stdin(data) => {
                if let Some(to) = &stdin
                    && to.write_all(&data).await.is_err()
                {
                    stdin = None;
                }
            }
            Input::StdinEnds => stdin = None,
            Input::Resize(message) => {
                if let (Some(terminal), Some(size)) = (&terminal, size(&message))
                    && let Err(error) = terminal.resize(size.width, size.height)
                {
                    tracing::debug!(%error, "resize a terminal");
                }
            }
        }
    }
}

/// Copies both ways until the process ends (an exec), its output does (an attach), or the client leaves: its inputs end then.
pub async fn pump(mut session: Session, inputs: impl Stream<Item = Input>, to: &impl Output) -> Result<Option<i32>, String> {
    let (stdout, stderr) = (session.stdout.take(), session.stderr.take());
    let (stdin, terminal) = (session.stdin.take(), session.terminal.take());
    let is_exec = session.pid != 0;
    let ended = CancellationToken::new();
    let input = copy_in(inputs, stdin, terminal);
    let output = async { tokio::join!(copy_out(stdout, Channel::Stdout, to, &ended), copy_out(stderr, Channel::Stderr, to, &ended)) };
    tokio::pin!(input, output);
    let (mut code, mut output_open) = (None, is_exec);
    while output_open || code.is_none() {
        tokio::select! {
            biased;
            () = &mut input => return Err("the client left".into()),
            _ = &mut output, if output_open || !is_exec => {
                output_open = false;
                if !is_exec {
                    return Ok(None);
                }
            }
            end = session.wait(), if is_exec && code.is_none() => {
                code = Some(end);
                ended.cancel();
            }
        }
    }
    code.unwrap_or(Ok(None)).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream as StdUnixStream;

    use super::*;

    /// A client that takes its time over every piece.
    struct Slow(std::sync::Mutex<usize>);

    impl Output for Slow {
        async fn send(&self, _: Channel, data: &[u8]) -> bool {
            tokio::time::sleep(std::time::Duration::from_millis(400)).await;
            *self.0.lock().unwrap() += data.len();
            true
        }
    }

    #[tokio::test]
    async fn a_slow_client_gets_all_that_was_written_before_the_end() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let (end, mut theirs) = StdUnixStream::pair().unwrap();
        // A process left behind holds the other one.
        let _held = rustix::io::dup(&write).unwrap();
        std::fs::File::from(write).write_all(&[b'x'; 60_000]).unwrap();
        theirs.write_all(&crate::shim::frame::encode(&crate::shim::protocol::Response::Exited { code: 3 }).unwrap()).unwrap();
        let session = Session::of_parts(1, None, Some(Arc::new(Descriptor::new(read).unwrap())), end).unwrap();
        let client = Slow(std::sync::Mutex::default());
        let outcome = tokio::time::timeout(std::time::Duration::from_secs(20), pump(session, futures::stream::pending(), &client)).await;
        assert_eq!((outcome.unwrap(), *client.0.lock().unwrap()), (Ok(Some(3)), 60_000));
    }

    #[test]
    fn ends_are_told_as_upstream_tells_them() {
        assert_eq!(final_status(&Ok(Some(0)))["status"], "Success");
        let failed = final_status(&Ok(Some(7)));
        assert_eq!((&failed["reason"], &failed["details"]["causes"][0]["message"]), (&"NonZeroExitCode".into(), &"7".into()));
        let broken = final_status(&Err("error executing command in container: no".to_owned()));
        assert_eq!(broken["message"], "Internal error occurred: error executing command in container: no");
        assert_eq!(last_words(&Ok(Some(0)), false), b"");
        assert_eq!(last_words(&Ok(Some(7)), false), b"command terminated with non-zero exit code: exit status 7");
    }
}
