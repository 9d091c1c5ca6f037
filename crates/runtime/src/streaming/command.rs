//! exec and attach over SPDY, as clients before WebSocket do them: the client opens a stream for each of error, stdin, stdout,
//! stderr and resize, and the session runs when all that were asked for are there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::pump::{self, Channel, Input};
use super::spdy::{self, Opened};
use super::{Session, Ticket, websocket};
use crate::server::Server;

/// In the order this server would have them.
pub const PROTOCOLS: [&str; 5] = ["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// How long a client may take to open all streams, as upstream's.
const OPEN: Duration = Duration::from_secs(30);
/// How long it may take to read the last words.
const LEAVE: Duration = Duration::from_secs(10);

/// The first protocol of the client's that is known.
pub fn choose(offered: &str) -> Option<&'static str> {
    offered.split(',').map(str::trim).find_map(|name| PROTOCOLS.into_iter().find(|p| *p == name))
}

/// What a client of a protocol opens.
fn expected(ticket: &Ticket, protocol: &str) -> Vec<&'static str> {
    let (stdin, stdout, stderr, tty) = match ticket {
        Ticket::Exec { stdin, stdout, stderr, tty, .. } | Ticket::Attach { stdin, stdout, stderr, tty, .. } => {
            (*stdin, *stdout, *stderr, *tty)
        }
        Ticket::PortForward { .. } => return Vec::new(),
    };
    let resizes = tty && !matches!(protocol, "v2.channel.k8s.io" | "channel.k8s.io");
    let all = [("error", true), ("stdin", stdin), ("stdout", stdout), ("stderr", stderr && !tty), ("resize", resizes)];
    all.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name).collect()
}

/// Where a SPDY client takes output.
struct Streams(BTreeMap<String, spdy::Output>);

impl pump::Output for Streams {
    async fn send(&self, channel: Channel, data: &[u8]) -> bool {
        let name = if channel == Channel::Stdout { "stdout" } else { "stderr" };
        match self.0.get(name) {
            Some(output) => output.send(Bytes::copy_from_slice(data), false).await,
            // Not asked for.
            None => true,
        }
    }
}

/// Serves one client to its end.
pub async fn serve(server: &Arc<Server>, io: impl AsyncRead + AsyncWrite, ticket: Ticket, protocol: &str) {
    let wanted = expected(&ticket, protocol);
    let start = || websocket::session(server, &ticket);
    serve_session(io, &wanted, protocol, start).await;
}

async fn serve_session<F>(io: impl AsyncRead + AsyncWrite, wanted: &[&str], protocol: &str, start: impl FnOnce() -> F)
where
    F: Future<Output = Result<Session, String>>,
{
    // Kept to the end: a client that opens more streams waits.
    let (sender, mut opened) = mpsc::channel(16);
    let connection = spdy::serve(io, sender);
    tokio::pin!(connection);
    let work = async {
        let Ok(Some(streams)) = tokio::time::timeout(OPEN, collect(&mut opened, wanted)).await else {
            return tracing::debug!("a client did not open the streams it asked for");
        };
        let (error, outputs, inputs) = split(streams);
        let outcome = match start().await {
            Ok(session) => pump::pump(session, inputs, &Streams(outputs.clone())).await,
            Err(text) => Err(text),
        };
        let as_status = matches!(protocol, "v5.channel.k8s.io" | "v4.channel.k8s.io");
        for output in outputs.values() {
            output.send(Bytes::new(), true).await;
        }
        if let Some(error) = error {
            error.send(pump::last_words(&outcome, as_status).into(), true).await;
            error.leave().await;
        }
        // The connection ends when all that was written before.
        tokio::time::sleep(LEAVE).await;
    };
    tokio::select! {
        biased;
        ended = &mut connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a command's connection");
            }
        }
        () = work => {}
    }
}

/// All streams that were asked for, each once.
async fn collect(opened: &mut mpsc::Receiver<Opened>, wanted: &[&str]) -> Option<BTreeMap<String, Opened>> {
    let mut streams = BTreeMap::new();
    while streams.len() < wanted.len() {
        let stream = opened.recv().await?;
        let kind = stream.headers.get("streamtype").cloned().unwrap_or_default();
        if wanted.contains(&kind.as_str()) && !streams.contains_key(&kind) {
            streams.insert(kind, stream);
        } else {
            tracing::debug!(kind, "a stream nobody asked for");
            stream.output.send(Bytes::new(), true).await;
        }
    }
    Some(streams)
}

type Parts = (Option<spdy::Output>, BTreeMap<String, spdy::Output>, stream::BoxStream<'static, Input>);

/// The error stream, where output goes, and what comes in. The client has left when its error stream is gone.
fn split(mut streams: BTreeMap<String, Opened>) -> Parts {
    use futures::StreamExt as _;
    let outputs: BTreeMap<String, spdy::Output> = streams
        .iter()
        .filter(|(kind, _)| matches!(kind.as_str(), "stdout" | "stderr"))
        .map(|(kind, s)| (kind.clone(), s.output.clone()))
        .collect();
    let received =
        |input: mpsc::Receiver<Bytes>| stream::unfold(input, |mut input| async move { input.recv().await.map(|data| (data, input)) });
    let stdin = streams.remove("stdin").map(|s| {
        let end = stream::once(async { Input::StdinEnds });
        received(s.input).map(Input::Stdin).chain(end).boxed()
    });
    let resize = streams.remove("resize").map(|s| received(s.input).map(Input::Resize).boxed());
    // They may end; the session goes on.
    let silent = stream::pending().boxed();
    let inputs = stream::select_all(stdin.into_iter().chain(resize).chain([silent])).boxed();
    (streams.remove("error").map(|s| s.output), outputs, inputs)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream as StdUnixStream;

    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::streaming::descriptor::Descriptor;
    use crate::streaming::spdy::client::{Client, Event};

    /// A session whose process echoes a line and ends with a code.
    fn session(code: i32) -> Session {
        let pipe = || rustix::pipe::pipe().unwrap();
        let ((stdin_read, stdin_write), (stdout_read, stdout_write)) = (pipe(), pipe());
        let (end, theirs) = StdUnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut line = [0; 64];
            let count = rustix::io::read(&stdin_read, &mut line).unwrap();
            let mut out = std::fs::File::from(stdout_write);
            out.write_all(b"got ").unwrap();
            out.write_all(&line[..count]).unwrap();
            drop(out);
            let mut theirs = theirs;
            theirs.write_all(&crate::shim::frame::encode(&crate::shim::protocol::Response::Exited { code }).unwrap()).unwrap();
        });
        let descriptor = |fd| Some(Arc::new(Descriptor::new(fd).unwrap()));
        Session::of_parts(1, descriptor(stdin_write), descriptor(stdout_read), end).unwrap()
    }

    async fn talk(protocol: &'static str, code: i32) -> (String, String) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let wanted = ["error", "stdin", "stdout"];
        let served = tokio::spawn(async move { serve_session(far, &wanted, protocol, || async move { Ok(session(code)) }).await });
        let mut client = Client::new(near);
        for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
            client.open(id, &[("streamType", kind)]).await.unwrap();
        }
        client.data(3, b"hello\n", false).await.unwrap();
        let (mut stdout, mut error) = (String::new(), String::new());
        while let Some(event) = client.next().await.unwrap() {
            match event {
                Event::Data(5, data, _) => stdout.push_str(std::str::from_utf8(&data).unwrap()),
                Event::Data(1, data, last) => {
                    error.push_str(std::str::from_utf8(&data).unwrap());
                    assert!(last);
                }
                _ => {}
            }
        }
        client.io.shutdown().await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), served).await.unwrap().unwrap();
        (stdout, error)
    }

    #[tokio::test]
    async fn a_command_runs_over_spdy_and_tells_its_code() {
        let (stdout, error) = talk("v4.channel.k8s.io", 7).await;
        assert_eq!(stdout, "got hello\n");
        let status: serde_json::Value = serde_json::from_str(&error).unwrap();
        assert_eq!((&status["reason"], &status["details"]["causes"][0]["message"]), (&"NonZeroExitCode".into(), &"7".into()));
        let (stdout, error) = talk("v2.channel.k8s.io", 0).await;
        assert_eq!((stdout.as_str(), error.as_str()), ("got hello\n", ""));
    }

    #[test]
    fn streams_are_expected_as_the_protocol_has_them() {
        let exec = |tty| Ticket::Exec { container: String::new(), command: Vec::new(), tty, stdin: true, stdout: true, stderr: true };
        assert_eq!(expected(&exec(true), "v4.channel.k8s.io"), ["error", "stdin", "stdout", "resize"]);
        assert_eq!(expected(&exec(true), "v2.channel.k8s.io"), ["error", "stdin", "stdout"]);
        assert_eq!(expected(&exec(false), "v4.channel.k8s.io"), ["error", "stdin", "stdout", "stderr"]);
        assert_eq!(choose("v9.channel.k8s.io, v4.channel.k8s.io"), Some("v4.channel.k8s.io"));
        assert_eq!(choose("portforward.k8s.io"), None);
    }
}
