//! Container logs in CRI's format (`<time> <stream> <P|F> <text>`): options as kubectl gives them, tails, following.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// A longer line is cut into pieces by the runtime; one that is not is cut here.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Which part of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub follow: bool,
    pub timestamps: bool,
    pub tail: Option<usize>,
    pub since: Option<Timestamp>,
    pub limit_bytes: Option<u64>,
    /// `stdout` or `stderr` only.
    pub stream: Option<String>,
}

struct Line<'a> {
    time: &'a str,
    stream: &'a str,
    partial: bool,
    text: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tags = parts.next()?;
    Some(Line { time, stream, partial: tags.split(|b| *b == b':').next() == Some(b"P"), text: parts.next().unwrap_or_default() })
}

/// Reads a log from a place on, giving whole lines only.
pub struct Reader {
    path: PathBuf,
    file: Option<BufReader<File>>,
    inode: u64,
    options: Options,
    pending: Vec<u8>,
    in_line: bool,
    left: Option<u64>,
}

impl Reader {
    pub fn open(path: &Path, options: Options) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        if let Some(lines) = options.tail {
            let at = tail_offset(&mut file, lines)?;
            file.seek(SeekFrom::Start(at))?;
        }
        let inode = inode(&file)?;
        let left = options.limit_bytes;
        Ok(Reader { path: path.to_owned(), file: Some(BufReader::new(file)), inode, options, pending: Vec::new(), in_line: false, left })
    }

    /// Whether the byte limit is used up.
    pub fn exhausted(&self) -> bool {
        self.left == Some(0)
    }

    /// What has been written since the last call, at most about `max` bytes. Empty at the end.
    pub fn read(&mut self, max: usize) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        while out.len() < max && !self.exhausted() {
            let Some(file) = &mut self.file else { break };
            let got = file.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut self.pending)?;
            if self.pending.last() != Some(&b'\n') && self.pending.len() < LINE_BYTES_MAX {
                if got == 0 && !self.reopened()? {
                    break;
                }
                continue;
            }
            let mut line = std::mem::take(&mut self.pending);
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            self.put(&line, &mut out);
        }
        Ok(out)
    }

    fn put(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(l) = parse(line) else { return };
        if self.options.stream.as_deref().is_some_and(|s| s != l.stream) {
            return;
        }
        if self.options.since.is_some_and(|since| l.time.parse::<Timestamp>().is_ok_and(|t| t < since)) {
            return;
        }
        let start = out.len();
        if self.options.timestamps && !self.in_line {
            out.extend_from_slice(l.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(l.text);
        if !l.partial {
            out.push(b'\n');
        }
        self.in_line = l.partial;
        if let Some(left) = &mut self.left {
            let added = out.len() - start;
            let allowed = usize::try_from(*left).unwrap_or(usize::MAX).min(added);
            out.truncate(start + allowed);
            *left -= allowed as u64;
        }
    }

    /// After rotation the path is another file: go on with it.
    fn reopened(&mut self) -> std::io::Result<bool> {
        if !self.options.follow {
            return Ok(false);
        }
        let Ok(file) = File::open(&self.path) else { return Ok(false) };
        let now = inode(&file)?;
        if now == self.inode {
            return Ok(false);
        }
        self.inode = now;
        self.file = Some(BufReader::new(file));
        Ok(true)
    }
}

fn inode(file: &File) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.ino())
}

/// Where the last `lines` lines begin.
fn tail_offset(file: &mut File, lines: usize) -> std::io::Result<u64> {
    let size = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(size);
    }
    let mut at = size;
    let mut found = 0usize;
    let mut block = vec![0u8; 64 * 1024];
    while at > 0 {
        let step = at.min(block.len() as u64);
        at -= step;
        file.seek(SeekFrom::Start(at))?;
        let part = &mut block[..usize::try_from(step).unwrap_or(0)];
        file.read_exact(part)?;
        for (i, b) in part.iter().enumerate().rev() {
            // The newline that ends the last line does not begin another.
            if *b == b'\n' && at + i as u64 + 1 < size {
                found += 1;
                if found == lines {
                    return Ok(at + i as u64 + 1);
                }
            }
        }
    }
    Ok(0)
}

/// The text of the last lines, as a termination message.
pub fn tail_text(path: &Path, lines: usize, bytes: usize) -> String {
    let options = Options { tail: Some(lines), ..Options::default() };
    let text = Reader::open(path, options).and_then(|mut r| {
        let mut kept: VecDeque<u8> = VecDeque::new();
        loop {
            let part = r.read(64 * 1024)?;
            if part.is_empty() {
                return Ok(kept);
            }
            kept.extend(part);
            while kept.len() > bytes {
                kept.pop_front();
            }
        }
    });
    text.map(|t| String::from_utf8_lossy(&Vec::from(t)).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LOG: &str = "2026-01-01T00:00:00.1Z stdout F one\n2026-01-01T00:00:01.1Z stderr F two\n2026-01-01T00:00:02.1Z stdout P thr\n2026-01-01T00:00:02.2Z stdout F ee\n";

    fn read(options: Options) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        String::from_utf8(Reader::open(&path, options).unwrap().read(1 << 20).unwrap()).unwrap()
    }

    #[test]
    fn options() {
        let o = Options::default;
        assert_eq!(read(o()), "one\ntwo\nthree\n");
        assert_eq!(read(Options { tail: Some(3), ..o() }), "two\nthree\n");
        assert_eq!(read(Options { tail: Some(0), ..o() }), "");
        assert_eq!(read(Options { stream: Some("stderr".into()), ..o() }), "two\n");
        assert_eq!(read(Options { limit_bytes: Some(5), ..o() }), "one\nt");
        assert_eq!(read(Options { since: Some("2026-01-01T00:00:01Z".parse().unwrap()), ..o() }), "two\nthree\n");
        assert_eq!(read(Options { timestamps: true, tail: Some(2), ..o() }), "2026-01-01T00:00:02.1Z three\n");
    }

    #[test]
    fn follows_through_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let mut r = Reader::open(&path, Options { follow: true, tail: Some(0), ..Options::default() }).unwrap();
        assert!(r.read(100).unwrap().is_empty());
        let mut f = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        f.write_all(b"2026-01-01T00:00:03Z stdout F ha").unwrap();
        assert!(r.read(100).unwrap().is_empty(), "whole lines only");
        f.write_all(b"lf\n").unwrap();
        assert_eq!(r.read(100).unwrap(), b"half\n");
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        std::fs::write(&path, "2026-01-01T00:00:04Z stdout F next\n").unwrap();
        assert_eq!(r.read(100).unwrap(), b"next\n");
    }
}
