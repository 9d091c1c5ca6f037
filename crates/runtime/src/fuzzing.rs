//! What the fuzz targets (`fuzz/src/bin`) attack in this crate and is no part of its interface. Only there when built for
//! fuzzing; nothing else calls it.

use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, FlushCompress};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::config::ImageLimits;
use crate::streaming::{spdy, websocket};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    thread_local!(static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime"));
    RUNTIME.with(|runtime| runtime.block_on(work))
}

/// A client that says `said`, then leaves; what it is told goes nowhere.
fn client(said: &[u8]) -> impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin {
    tokio::io::join(std::io::Cursor::new(said.to_vec()), tokio::io::sink())
}

/// A SPDY connection. With `pack`, the header blocks of its SYN_STREAM frames come unpacked and are packed here: chance does not
/// find the way through a checksum.
pub fn spdy(said: &[u8], pack: bool) {
    let said = if pack { packed(said) } else { said.to_vec() };
    let (sender, mut opened) = mpsc::channel::<spdy::Opened>(4);
    let reading = async {
        let mut streams = tokio::task::JoinSet::new();
        while let Some(mut stream) = opened.recv().await {
            assert!(stream.headers.keys().all(|name| !name.bytes().any(|b| b.is_ascii_uppercase())));
            streams.spawn(async move {
                while stream.input.recv().await.is_some() {}
                stream.output.send(Bytes::from_static(b"bye"), true).await
            });
        }
    };
    let serving = spdy::serve(client(&said), sender);
    if let (Err(error), ()) = block_on(async { tokio::join!(serving, reading) }) {
        assert!(!error.to_string().is_empty());
    }
}

fn packed(mut frames: &[u8]) -> Vec<u8> {
    let mut deflate = Compress::new(Compression::fast(), true);
    let Ok(_) = deflate.set_dictionary(&spdy::DICTIONARY) else { return Vec::new() };
    let mut out = BytesMut::new();
    while let Some((head, rest)) = frames.split_first_chunk::<8>() {
        let length = usize::from(head[7]).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        frames = rest;
        if head[0] & 0x80 == 0 || head[3] != 1 || payload.len() < 10 {
            out.extend_from_slice(&head[..5]);
            out.put_uint(length as u64, 3);
            out.extend_from_slice(payload);
            continue;
        }
        let mut block = payload[..10].to_vec();
        block.reserve(1024);
        if deflate.compress_vec(&payload[10..], &mut block, FlushCompress::Sync).is_err() {
            break;
        }
        out.extend_from_slice(&head[..5]);
        out.put_uint(block.len() as u64, 3);
        out.extend_from_slice(&block);
    }
    out.to_vec()
}

/// The messages of an exec over WebSocket, in one of its protocols.
pub fn websocket(said: &[u8], protocol: u8) {
    use websocket::Protocol::{Base64V1, Base64V4, V1, V4, V5};
    let protocol = [V1, Base64V1, Base64V4, V4, V5][usize::from(protocol) % 5];
    let config = WebSocketConfig::default().max_message_size(Some(1 << 16)).max_frame_size(Some(1 << 16));
    block_on(async {
        let mut socket = WebSocketStream::from_raw_socket(client(said), Role::Server, Some(config)).await;
        while let Some(Ok(message)) = socket.next().await {
            let length = message.len();
            match websocket::input(message, protocol) {
                Some(crate::streaming::pump::Input::Stdin(data)) => assert!(data.len() < length),
                Some(crate::streaming::pump::Input::Resize(data)) => drop(std::hint::black_box(crate::streaming::pump::size(&data))),
                _ => {}
            }
        }
    });
}

/// Unpacks a layer below `work`, on a layer that has links out of it. Nothing beside the layer's directory may change: the
/// caller sees to that.
pub fn unpack(tar: &[u8], top: &Path, lower: &Path) -> bool {
    let limits = ImageLimits { layer_bytes_max: 1 << 20, layer_entries_max: 100, ..ImageLimits::default() };
    let mut packed = crate::images::stream::Hashing::new(tar);
    let Ok(mut plain) = crate::images::stream::decompress(&mut packed, &limits) else { return false };
    crate::images::unpack::unpack(&mut plain, top, &[lower.to_owned()], &limits).is_ok()
}
