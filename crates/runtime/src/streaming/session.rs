//! The daemon's end of an exec or attach: streams that the shim handed over, and how it ends.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::descriptor::Descriptor;
use crate::shim::client::Answer;
use crate::shim::frame;
use crate::shim::protocol::Response;

pub struct Session {
    /// Of the command, for an exec; 0 for an attach.
    pub pid: i32,
    pub stdin: Option<Arc<Descriptor>>,
    pub stdout: Option<Arc<Descriptor>>,
    pub stderr: Option<Arc<Descriptor>>,
    /// Resizes go here.
    pub terminal: Option<Arc<Descriptor>>,
    end: Option<UnixStream>,
}

fn descriptor(fd: Option<std::os::fd::OwnedFd>) -> io::Result<Option<Arc<Descriptor>>> {
    fd.map(|fd| Descriptor::new(fd).map(Arc::new)).transpose()
}

fn to_async(socket: StdUnixStream) -> io::Result<UnixStream> {
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

impl Session {
    /// Of a shim's answer to an exec.
    pub fn exec(answer: Answer, tty: bool, stdin: bool) -> io::Result<Self> {
        let Response::Spawned { pid } = answer.response else { return Err(io::Error::other("the shim answered something else")) };
        let end = Some(to_async(answer.socket)?);
        let mut fds = answer.descriptors.into_iter();
        if tty {
            let terminal = descriptor(fds.next())?;
            let input = terminal.clone().filter(|_| stdin);
            return Ok(Self { pid, stdin: input, stdout: terminal.clone(), stderr: None, terminal, end });
        }
        let input = if stdin { descriptor(fds.next())? } else { None };
        Ok(Self { pid, stdin: input, stdout: descriptor(fds.next())?, stderr: descriptor(fds.next())?, terminal: None, end })
    }

    /// Of a shim's answer to an attach.
    pub fn attach(answer: Answer, stdin: bool) -> io::Result<Self> {
        let Response::Attached { tty, stdin: has_input } = answer.response else {
            return Err(io::Error::other("the shim answered something else"));
        };
        let mut fds = answer.descriptors.into_iter();
        let stdout = descriptor(fds.next())?;
        let stderr = if tty { None } else { descriptor(fds.next())? };
        let input = if has_input { descriptor(fds.next())? } else { None };
        let terminal = input.clone().filter(|_| tty);
        Ok(Self { pid: 0, stdin: input.filter(|_| stdin), stdout, stderr, terminal, end: None })
    }

    #[cfg(test)]
    pub fn of_parts(pid: i32, stdin: Option<Arc<Descriptor>>, stdout: Option<Arc<Descriptor>>, end: StdUnixStream) -> io::Result<Self> {
        Ok(Self { pid, stdin, stdout, stderr: None, terminal: None, end: Some(to_async(end)?) })
    }

    /// The exit code of an exec. An attach has none.
    pub async fn wait(&mut self) -> io::Result<Option<i32>> {
        let Some(end) = &mut self.end else { return Ok(None) };
        let mut buffer = Vec::new();
        loop {
            if let Some((Response::Exited { code }, _)) = frame::decode::<Response>(&buffer)? {
                return Ok(Some(code));
            }
            if end.read_buf(&mut buffer).await? == 0 {
                return Err(io::Error::other("the pod's shim is gone"));
            }
        }
    }

    /// Runs an exec to its end: stdout, stderr (each cut at `bytes_max`) and exit code. Output that a background process
    /// of the command still holds open is not waited for.
    pub async fn collect(&mut self, bytes_max: usize) -> io::Result<(Vec<u8>, Vec<u8>, i32)> {
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code;
        {
            let reading =
                async { tokio::join!(drain(stdout.as_deref(), &mut out, bytes_max), drain(stderr.as_deref(), &mut err, bytes_max)) };
            tokio::pin!(reading);
            let mut finished = None;
            code = loop {
                tokio::select! {
                    biased;
                    results = &mut reading, if finished.is_none() => finished = Some(results),
                    code = self.wait() => break code?.unwrap_or(0),
                }
            };
            if finished.is_none() {
                finished = tokio::time::timeout(std::time::Duration::from_millis(200), reading).await.ok();
            }
            if let Some((a, b)) = finished {
                a.and(b)?;
            }
        }
        Ok((out, err, code))
    }
}

async fn drain(from: Option<&Descriptor>, into: &mut Vec<u8>, bytes_max: usize) -> io::Result<()> {
    let Some(from) = from else { return Ok(()) };
    let mut chunk = [0; 16 * 1024];
    loop {
        let count = from.read(&mut chunk).await?;
        if count == 0 {
            return Ok(());
        }
        into.extend_from_slice(&chunk[..count.min(bytes_max.saturating_sub(into.len()))]);
    }
}
