//! SPDY/3.1 as far as Kubernetes' streams need it: a server that takes streams, their headers and their data. Both ends
//! ignore windows, as Go's `spdystream` does. Used by `forward`, over a plain upgrade or through a WebSocket.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::LazyLock;

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

const FRAME_BYTES_MAX: usize = 1 << 20;
const HEADERS_BYTES_MAX: usize = 64 * 1024;
const STREAMS_MAX: usize = 1000;
/// Frames a stream or the connection holds before its sender waits.
const QUEUE: usize = 16;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FIN: u8 = 1;
const REFUSED: u32 = 3;

/// The words both ends' compressors know from the start: each with its length, then a text.
pub static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let words = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow \
                 authorization cache-control connection content-base content-encoding content-language content-length content-location \
                 content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match \
                 if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range \
                 referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method \
                 get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin";
    let mut out = Vec::with_capacity(1423);
    for word in words.split_whitespace().map(|w| w.replace('_', " ")) {
        out.put_u32(u32::try_from(word.len()).unwrap_or(0));
        out.extend_from_slice(word.as_bytes());
    }
    out.extend_from_slice(
        b"100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative \
          Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server \
          Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, \
          Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
          text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.",
    );
    out
});

/// A stream that the client opened.
pub struct Opened {
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub input: mpsc::Receiver<Bytes>,
    pub output: Output,
}

/// Where a stream's data goes out.
#[derive(Clone)]
pub struct Output {
    id: u32,
    frames: mpsc::Sender<Frame>,
}

enum Frame {
    Reply(u32),
    Data(u32, Bytes, bool),
    Ping(u32),
    Reset(u32),
    /// The last there is.
    Leave(u32),
}

impl Output {
    /// Sends data, and whether it is the last. `false`: the connection is gone.
    pub async fn send(&self, data: Bytes, last: bool) -> bool {
        self.frames.send(Frame::Data(self.id, data, last)).await.is_ok()
    }

    /// Ends the connection when all that was sent before is written.
    pub async fn leave(&self) {
        if self.frames.send(Frame::Leave(self.id)).await.is_err() {
            tracing::debug!("a connection was gone before its end");
        }
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

/// Serves a connection until it ends. Each stream is answered at once and handed to `opened`.
pub async fn serve<I: AsyncRead + AsyncWrite>(io: I, opened: mpsc::Sender<Opened>) -> io::Result<()> {
    let (from, to) = tokio::io::split(io);
    let (frames, queue) = mpsc::channel(QUEUE);
    tokio::select! {
        biased;
        read = Reader { from, frames, opened, inputs: HashMap::new(), inflate: Inflate::new() }.run() => read,
        written = write(to, queue) => written,
    }
}

async fn write(mut to: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Frame>) -> io::Result<()> {
    let mut deflate = Compress::new(Compression::fast(), true);
    deflate.set_dictionary(&DICTIONARY).map_err(io::Error::other)?;
    while let Some(frame) = queue.recv().await {
        let last = matches!(frame, Frame::Leave(_));
        to.write_all(&encode(&mut deflate, frame)?).await?;
        to.flush().await?;
        if last {
            return to.shutdown().await;
        }
    }
    Ok(())
}

fn control(kind: u16, payload: &[u8]) -> io::Result<BytesMut> {
    let mut out = BytesMut::with_capacity(8 + payload.len());
    out.put_u16(0x8003);
    out.put_u16(kind);
    out.put_u32(u32::try_from(payload.len()).map_err(io::Error::other)?);
    out.extend_from_slice(payload);
    Ok(out)
}

fn encode(deflate: &mut Compress, frame: Frame) -> io::Result<BytesMut> {
    match frame {
        Frame::Reply(id) => {
            let mut payload = Vec::with_capacity(64);
            payload.put_u32(id);
            // No headers.
            deflate.compress_vec(&0u32.to_be_bytes(), &mut payload, FlushCompress::Sync).map_err(io::Error::other)?;
            control(SYN_REPLY, &payload)
        }
        Frame::Data(id, data, last) => {
            let mut out = BytesMut::with_capacity(8 + data.len());
            out.put_u32(id);
            let length = u32::try_from(data.len()).ok().filter(|l| *l < 1 << 24).ok_or_else(|| broken("too much data for a frame"))?;
            out.put_u32(u32::from(if last { FIN } else { 0 }) << 24 | length);
            out.extend_from_slice(&data);
            Ok(out)
        }
        Frame::Leave(id) => control(GOAWAY, &[id.to_be_bytes(), 0u32.to_be_bytes()].concat()),
        Frame::Ping(id) => control(PING, &id.to_be_bytes()),
        Frame::Reset(id) => control(RST_STREAM, &[id.to_be_bytes(), REFUSED.to_be_bytes()].concat()),
    }
}

struct Reader<R> {
    from: R,
    frames: mpsc::Sender<Frame>,
    opened: mpsc::Sender<Opened>,
    inputs: HashMap<u32, mpsc::Sender<Bytes>>,
    inflate: Inflate,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    async fn run(mut self) -> io::Result<()> {
        loop {
            let first = match self.from.read_u32().await {
                Ok(first) => first,
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(e) => return Err(e),
            };
            let second = self.from.read_u32().await?;
            let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
            if length > FRAME_BYTES_MAX {
                return Err(broken("a frame is too large"));
            }
            let mut payload = vec![0; length];
            self.from.read_exact(&mut payload).await?;
            if first & 0x8000_0000 == 0 {
                self.data(first, payload.into(), flags & FIN != 0).await;
            } else if !self.control((first & 0xffff) as u16, flags, &payload).await? {
                return Ok(());
            }
        }
    }

    async fn data(&mut self, id: u32, data: Bytes, last: bool) {
        if let Some(input) = self.inputs.get(&id)
            && !data.is_empty()
            && input.send(data).await.is_err()
        {
            self.inputs.remove(&id);
        }
        if last {
            self.inputs.remove(&id);
        }
    }

    /// Whether the connection goes on.
    async fn control(&mut self, kind: u16, flags: u8, payload: &[u8]) -> io::Result<bool> {
        let word = |at: usize| payload.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
        let first = word(0).unwrap_or(0);
        match kind {
            SYN_STREAM => {
                let block = payload.get(10..).ok_or_else(|| broken("a SYN_STREAM is cut short"))?;
                // Even those that are refused: the compressor's state goes on.
                let headers = self.inflate.headers(block)?;
                return self.open(first & 0x7fff_ffff, headers, flags & FIN != 0).await;
            }
            RST_STREAM => drop(self.inputs.remove(&(first & 0x7fff_ffff))),
            PING => return Ok(self.frames.send(Frame::Ping(first)).await.is_ok()),
            GOAWAY => return Ok(false),
            _ => {}
        }
        Ok(true)
    }

    async fn open(&mut self, id: u32, headers: BTreeMap<String, String>, last: bool) -> io::Result<bool> {
        self.inputs.retain(|_, input| !input.is_closed());
        if id == 0 || self.inputs.contains_key(&id) || self.inputs.len() >= STREAMS_MAX {
            return Ok(self.frames.send(Frame::Reset(id)).await.is_ok());
        }
        let (sender, input) = mpsc::channel(QUEUE);
        if !last {
            self.inputs.insert(id, sender);
        }
        let output = Output { id, frames: self.frames.clone() };
        let replied = self.frames.send(Frame::Reply(id)).await.is_ok();
        Ok(replied && self.opened.send(Opened { headers, input, output }).await.is_ok())
    }
}

struct Inflate(Decompress);

impl Inflate {
    fn new() -> Self {
        Self(Decompress::new(true))
    }

    fn headers(&mut self, mut block: &[u8]) -> io::Result<BTreeMap<String, String>> {
        let mut out = Vec::with_capacity(HEADERS_BYTES_MAX);
        while !block.is_empty() {
            let (before, had) = (self.0.total_in(), out.len());
            let done = self.0.decompress_vec(block, &mut out, FlushDecompress::Sync);
            let taken = usize::try_from(self.0.total_in() - before).map_err(io::Error::other)?;
            block = block.get(taken..).unwrap_or_default();
            match done {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(io::Error::other)?;
                }
                Err(error) => return Err(io::Error::other(error)),
                Ok(_) if taken == 0 && out.len() == had => return Err(broken("the headers are too large")),
                Ok(_) => {}
            }
        }
        parse(&out)
    }
}

fn parse(mut block: &[u8]) -> io::Result<BTreeMap<String, String>> {
    fn word<'a>(block: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (length, rest) = block.split_first_chunk::<4>()?;
        let (word, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        *block = rest;
        Some(word)
    }
    let cut = || broken("the headers are cut short");
    let (count, rest) = block.split_first_chunk::<4>().ok_or_else(cut)?;
    block = rest;
    let mut out = BTreeMap::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let (name, value) = (word(&mut block).ok_or_else(cut)?, word(&mut block).ok_or_else(cut)?);
        out.insert(String::from_utf8_lossy(name).to_ascii_lowercase(), String::from_utf8_lossy(value).into_owned());
    }
    Ok(out)
}

/// The other side, for tests.
#[cfg(test)]
pub mod client {
    use super::*;

    pub struct Client<I> {
        pub io: I,
        deflate: Compress,
    }

    #[derive(Debug)]
    pub enum Event {
        Data(u32, Bytes, bool),
        Control,
    }

    impl<I: AsyncRead + AsyncWrite + Unpin> Client<I> {
        pub fn new(io: I) -> Self {
            let mut deflate = Compress::new(Compression::best(), true);
            deflate.set_dictionary(&DICTIONARY).unwrap();
            Self { io, deflate }
        }

        pub async fn open(&mut self, id: u32, headers: &[(&str, &str)]) -> io::Result<()> {
            let frame = tests::syn(&mut self.deflate, id, headers);
            self.io.write_all(&frame).await
        }

        pub async fn data(&mut self, id: u32, data: &[u8], last: bool) -> io::Result<()> {
            let frame = encode(&mut self.deflate, Frame::Data(id, Bytes::copy_from_slice(data), last))?;
            self.io.write_all(&frame).await
        }

        /// The next frame; `None` at the end.
        pub async fn next(&mut self) -> io::Result<Option<Event>> {
            let Ok(first) = self.io.read_u32().await else { return Ok(None) };
            let second = self.io.read_u32().await?;
            let mut payload = vec![0; (second & 0x00ff_ffff) as usize];
            self.io.read_exact(&mut payload).await?;
            let event =
                if first & 0x8000_0000 == 0 { Event::Data(first, payload.into(), (second >> 24) as u8 & FIN != 0) } else { Event::Control };
            Ok(Some(event))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's SYN_STREAM.
    pub fn syn(deflate: &mut Compress, id: u32, headers: &[(&str, &str)]) -> BytesMut {
        let mut plain = Vec::new();
        plain.put_u32(u32::try_from(headers.len()).unwrap());
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(u32::try_from(text.len()).unwrap());
            plain.extend_from_slice(text.as_bytes());
        }
        let mut payload = Vec::with_capacity(1024);
        payload.put_u32(id);
        payload.extend_from_slice(&[0; 6]);
        deflate.compress_vec(&plain, &mut payload, FlushCompress::Sync).unwrap();
        control(SYN_STREAM, &payload).unwrap()
    }

    #[test]
    fn the_dictionary_is_the_protocols() {
        let mut deflate = Compress::new(Compression::fast(), true);
        // The Adler-32 that every SPDY/3 connection begins with.
        assert_eq!((DICTIONARY.len(), deflate.set_dictionary(&DICTIONARY).unwrap()), (1423, 0xe3c6_a7c2));
    }

    #[tokio::test]
    async fn streams_are_answered_and_carry_data_both_ways() {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let (sender, mut opened) = mpsc::channel(4);
        let served = tokio::spawn(serve(server, sender));
        let mut deflate = Compress::new(Compression::best(), true);
        deflate.set_dictionary(&DICTIONARY).unwrap();
        for (id, kind) in [(1, "error"), (3, "data")] {
            client.write_all(&syn(&mut deflate, id, &[("port", "80"), ("streamType", kind)])).await.unwrap();
            let mut stream = opened.recv().await.unwrap();
            assert_eq!((stream.headers["port"].as_str(), stream.headers["streamtype"].as_str()), ("80", kind));
            let mut header = [0; 8];
            client.read_exact(&mut header).await.unwrap();
            assert_eq!(header[..4], [0x80, 3, 0, 2]);
            let mut reply = vec![0; usize::from(header[7])];
            client.read_exact(&mut reply).await.unwrap();
            assert_eq!(reply[..4], u32::to_be_bytes(id));
            client.write_all(&encode(&mut deflate, Frame::Data(id, "in".into(), true)).unwrap()).await.unwrap();
            assert_eq!((stream.input.recv().await, stream.input.recv().await), (Some("in".into()), None));
            assert!(stream.output.send("out".into(), true).await);
            let mut data = [0; 11];
            client.read_exact(&mut data).await.unwrap();
            assert_eq!(data, [0, 0, 0, u8::try_from(id).unwrap(), 1, 0, 0, 3, b'o', b'u', b't']);
        }
        client.write_all(&control(PING, &7u32.to_be_bytes()).unwrap()).await.unwrap();
        let mut pong = [0; 12];
        client.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong, [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 7]);
        drop(client);
        served.await.unwrap().unwrap();
    }

    #[test]
    fn hostile_headers_are_refused() {
        for block in [&b"junk"[..], &[0; 64], b""] {
            assert!(Inflate::new().headers(block).is_err(), "{block:?}");
        }
        let mut bomb = Vec::with_capacity(1 << 16);
        let mut deflate = Compress::new(Compression::best(), true);
        deflate.compress_vec(&vec![0; 10 << 20], &mut bomb, FlushCompress::Finish).unwrap();
        assert!(Inflate::new().headers(&bomb).is_err());
        assert!(parse(&[0xff; 12]).is_err());
    }
}
