//! Container logs in the CRI format: `TIME STREAM TAG LINE`, tag `F` for a full line, `P` for a part of one.
//!
//! [`LineSplitter`] is pure; [`LogFile`] writes and reopens. Called by the shim's loop.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Longer lines are split into parts: containerd's default.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// Cuts a byte stream into entries.
#[derive(Debug, Default)]
pub struct LineSplitter {
    rest: Vec<u8>,
}

impl LineSplitter {
    /// Calls `entry(line, full)` for each entry that `data` completes.
    pub fn push(&mut self, mut data: &[u8], mut entry: impl FnMut(&[u8], bool)) {
        while !data.is_empty() {
            let room = LINE_BYTES_MAX - self.rest.len();
            let window = &data[..data.len().min(room)];
            if let Some(end) = window.iter().position(|b| *b == b'\n') {
                self.rest.extend_from_slice(&data[..end]);
                entry(&self.rest, true);
                self.rest.clear();
                data = &data[end + 1..];
            } else {
                self.rest.extend_from_slice(window);
                data = &data[window.len()..];
                if self.rest.len() == LINE_BYTES_MAX && !data.is_empty() {
                    let next_ends_line = data[0] == b'\n';
                    entry(&self.rest, next_ends_line);
                    self.rest.clear();
                    if next_ends_line {
                        data = &data[1..];
                    }
                }
            }
        }
        if self.rest.len() == LINE_BYTES_MAX {
            entry(&self.rest, false);
            self.rest.clear();
        }
    }

    /// The end of the stream: what is left is a partial line.
    pub fn finish(&mut self, mut entry: impl FnMut(&[u8], bool)) {
        if !self.rest.is_empty() {
            entry(&self.rest, false);
            self.rest.clear();
        }
    }
}

/// Appends one entry to `out`.
pub fn format_entry(out: &mut Vec<u8>, time: &str, stream: Stream, line: &[u8], full: bool) {
    out.extend_from_slice(time.as_bytes());
    out.push(b' ');
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(if full { b" F " } else { b" P " });
    out.extend_from_slice(line);
    out.push(b'\n');
}

/// Now, as RFC3339Nano in UTC.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

/// A log file that can be rotated by renaming it and calling [`LogFile::reopen`].
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    /// Entries lost because the disk was full, say.
    pub lost: u64,
}

impl LogFile {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: Self::append(path)?, lost: 0 })
    }

    fn append(path: &Path) -> io::Result<File> {
        use std::os::unix::fs::OpenOptionsExt;
        File::options().append(true).create(true).mode(0o640).open(path)
    }

    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = Self::append(&self.path)?;
        Ok(())
    }

    /// Writes whole entries. A failure loses them: the container must not stop because its log cannot be written.
    pub fn write(&mut self, entries: &[u8]) {
        if self.file.write_all(entries).is_err() {
            self.lost += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<(usize, bool)> {
        let mut splitter = LineSplitter::default();
        let mut entries = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, |line, full| entries.push((line.len(), full)));
        }
        splitter.finish(|line, full| entries.push((line.len(), full)));
        entries
    }

    #[test]
    fn splits_lines() {
        let long = vec![b'x'; LINE_BYTES_MAX * 2 + 5];
        assert_eq!(split(&[b"one\ntw", b"o\n\nend"]), [(3, true), (3, true), (0, true), (3, false)]);
        assert_eq!(split(&[&long, b"\n"]), [(LINE_BYTES_MAX, false), (LINE_BYTES_MAX, false), (5, true)]);
        assert_eq!(split(&[&[&long[..LINE_BYTES_MAX], b"\n"].concat()]), [(LINE_BYTES_MAX, true)]);
        assert_eq!(split(&[]), []);
    }

    #[test]
    fn formats_as_the_cri_says() {
        let mut out = Vec::new();
        format_entry(&mut out, "2016-10-06T00:17:09.669794202Z", Stream::Stdout, b"log content 1", true);
        assert_eq!(out, b"2016-10-06T00:17:09.669794202Z stdout F log content 1\n");
        let now = now();
        assert!(now.len() == 30 && now.ends_with('Z'), "{now}");
    }
}
