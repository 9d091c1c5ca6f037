//! Pipes, terminals and sockets from a shim, for async code.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use tokio::io::unix::AsyncFd;

/// A non-blocking descriptor.
pub struct Descriptor(AsyncFd<OwnedFd>);

impl Descriptor {
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        #[expect(deprecated, reason = "sound here: an OwnedFd always refers to the same open descriptor; the new form is unsafe")]
        AsyncFd::new(fd).map(Self)
    }

    /// Zero is the end; so is EIO, which a terminal gives when no one holds its other side.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.async_io(tokio::io::Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut *buffer)?)).await;
        match read {
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
            other => other,
        }
    }

    pub async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let written = self.0.async_io(tokio::io::Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, data)?)).await?;
            data = &data[written..];
        }
        Ok(())
    }

    /// Sets a terminal's size.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = rustix::termios::Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(self.0.get_ref(), size)?)
    }
}
