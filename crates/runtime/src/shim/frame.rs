//! Frames on a unix stream socket: four bytes of length (big endian), JSON, and descriptors beside the first byte.
//! Used by the zygote, the shim, and the daemon's side of both.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A frame longer than this is refused.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most descriptors beside one frame.
const DESCRIPTORS_MAX: usize = 4;

/// Encodes `message` with its length.
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other(format!("frame of {length} bytes is too long")));
    }
    bytes[..4].copy_from_slice(&u32::try_from(length).map_err(io::Error::other)?.to_be_bytes());
    Ok(bytes)
}

/// The first frame in `buffer` and how many bytes it took, or none when more bytes are needed.
pub fn decode<T: DeserializeOwned>(buffer: &[u8]) -> io::Result<Option<(T, usize)>> {
    let Some((head, rest)) = buffer.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other(format!("frame of {length} bytes is too long")));
    }
    match rest.get(..length) {
        None => Ok(None),
        Some(body) => Ok(Some((serde_json::from_slice(body)?, 4 + length))),
    }
}

/// Writes one frame to a blocking socket.
pub fn send<T: Serialize>(socket: impl AsFd, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = encode(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one frame"));
    }
    let mut sent = rustix::net::sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    while sent < bytes.len() {
        sent += rustix::net::send(&socket, &bytes[sent..], SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Reads what is there into `buffer`; zero is the end. Descriptors that came along are appended to `descriptors`.
pub fn receive(socket: impl AsFd, buffer: &mut Vec<u8>, descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut chunk = [0; 16 * 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(&mut chunk)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    buffer.extend_from_slice(&chunk[..received.bytes]);
    Ok(received.bytes)
}

/// Reads one frame from a blocking socket. The end of the stream is an error of kind `UnexpectedEof`.
pub fn read<T: DeserializeOwned>(socket: impl AsFd, buffer: &mut Vec<u8>, descriptors: &mut Vec<OwnedFd>) -> io::Result<T> {
    loop {
        if let Some((message, used)) = decode(buffer)? {
            buffer.drain(..used);
            return Ok(message);
        }
        if receive(&socket, buffer, descriptors)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn frames_and_descriptors_arrive() {
        let (a, b) = UnixStream::pair().unwrap();
        let big = "x".repeat(100_000);
        let writer = std::thread::spawn({
            let big = big.clone();
            move || {
                send(&a, &big, &[std::io::stdin().as_fd()]).unwrap();
                send(&a, &1, &[]).unwrap();
            }
        });
        let (mut buffer, mut fds) = (Vec::new(), Vec::new());
        assert_eq!(read::<String>(&b, &mut buffer, &mut fds).unwrap(), big);
        assert_eq!(read::<i32>(&b, &mut buffer, &mut fds).unwrap(), 1);
        assert_eq!(fds.len(), 1);
        writer.join().unwrap();
        assert_eq!(read::<i32>(&b, &mut buffer, &mut fds).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn refuses_an_endless_frame() {
        assert!(decode::<String>(&[0xff; 8]).is_err());
        assert!(decode::<String>(&[0, 0, 0, 1, b'x']).is_err());
        assert!(decode::<String>(&[0, 0]).unwrap().is_none());
    }
}
