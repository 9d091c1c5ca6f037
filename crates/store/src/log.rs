//! The log: segments of frames on a [`Disk`]. Appends and syncs batches, starts segments, removes old ones. It knows no
//! state; `recover` reads it back. Driven by one caller at a time.
//!
//! A batch is one frame, and a frame is synced before the next one is appended: so only the very last frame can be torn by
//! a crash, and a bad frame with a good one after it is damage. Each segment's header says where the previous segment ends;
//! what stands there beyond never counted. An empty frame after the last one ("seal") proves that it was synced.

use std::io;
use std::sync::Arc;

use crate::core::Batch;
use crate::disk::{Disk, DiskFile, SyncPoint};
use crate::frame::{self, u32_at, u64_at};
use crate::record;

pub(crate) const SEGMENT_HEADER_BYTES: usize = 52;
const MAGIC: &[u8; 8] = b"skiflog1";

pub(crate) fn segment_name(first: u64) -> String {
    format!("log-{first:016x}")
}

/// The first sequence number of the segment (or snapshot, with its prefix) of that name.
pub(crate) fn parse_name(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix).filter(|d| d.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// What stands at the start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The sequence number of the first frame.
    pub first: u64,
    /// The segment before, and where it ends; 0: there is none.
    pub previous_first: u64,
    pub previous_end: u64,
    pub salt: u64,
}

impl SegmentHeader {
    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for n in [self.first, self.previous_first, self.previous_end, self.salt, 0] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..SEGMENT_HEADER_BYTES)?;
        if !head.starts_with(MAGIC) || u32_at(head, 48)? != crc32fast::hash(&head[..48]) {
            return None;
        }
        Some(SegmentHeader {
            first: u64_at(head, 8)?,
            previous_first: u64_at(head, 16)?,
            previous_end: u64_at(head, 24)?,
            salt: u64_at(head, 32)?,
        })
    }
}

pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    file: Box<dyn DiskFile>,
    header: SegmentHeader,
    /// Where the last durable frame of the segment ends.
    end: u64,
    /// Of the next frame.
    next: u64,
    /// The last append failed: its rest must be left behind in the old segment.
    broken: bool,
    sealed: bool,
    bytes_since_snapshot: u64,
    segments_since_snapshot: u32,
    buffer: Vec<u8>,
    payload: Vec<u8>,
}

#[derive(Debug)]
pub(crate) enum CommitError {
    /// Nothing was made durable; a later commit may work.
    Full(io::Error),
    /// Nobody knows what of it is durable, and nothing may be written any more. Says what failed, on which file.
    Fatal(String),
}

/// Where a log continues.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    pub next: u64,
    /// The payload of a last frame that may never have been synced (its fsync failed, and the engine was restarted): the next
    /// segment begins with a copy of it, and the old one ends before it.
    pub carry: Option<Vec<u8>>,
    /// The last segment, if there is one, and where its last good frame ends.
    pub last: Option<(SegmentHeader, u64)>,
    pub bytes_since_snapshot: u64,
    pub segments_since_snapshot: u32,
}

impl Log {
    /// Starts a new segment after what was recovered.
    pub(crate) fn start(disk: Arc<dyn Disk>, position: Position, salt: u64) -> io::Result<Self> {
        let header = match position.last {
            None => SegmentHeader { first: position.next, previous_first: 0, previous_end: 0, salt },
            // A segment without frames is replaced.
            Some((last, _)) if last.first == position.next => SegmentHeader { salt, ..last },
            Some((last, end)) => SegmentHeader { first: position.next, previous_first: last.first, previous_end: end, salt },
        };
        let mut bytes = header.encode();
        if let Some(payload) = &position.carry {
            frame::encode(&mut bytes, salt, position.next, payload);
        }
        let file = create_segment(&*disk, header.first, &bytes)?;
        Ok(Log {
            disk,
            file,
            header,
            end: bytes.len() as u64,
            next: position.next + u64::from(position.carry.is_some()),
            broken: false,
            sealed: position.carry.is_none(),
            bytes_since_snapshot: position.bytes_since_snapshot,
            segments_since_snapshot: position.segments_since_snapshot + 1,
            buffer: Vec::new(),
            payload: Vec::new(),
        })
    }

    /// Makes a batch durable.
    pub(crate) fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        self.payload.clear();
        record::begin(&mut self.payload, batch.now_ms);
        let empty = self.payload.len();
        batch.records().for_each(|r| r.encode(&mut self.payload));
        if self.payload.len() == empty {
            return Ok(());
        }
        if self.broken {
            self.rotate().map_err(|error| self.by_kind("starting a segment after", error))?;
        }
        self.append()?;
        self.file.sync(SyncPoint::Batch).map_err(|error| self.fatal("syncing", &error))?;
        self.advance();
        self.sealed = false;
        Ok(())
    }

    fn append(&mut self) -> Result<(), CommitError> {
        self.buffer.clear();
        frame::encode(&mut self.buffer, self.header.salt, self.next, &self.payload);
        let result = self.file.append(&self.buffer).map_err(|error| self.by_kind("writing to", error));
        self.broken = result.is_err();
        result
    }

    /// A full disk says so before it takes the last byte, so that no frame is whole; after any other error one may be.
    fn by_kind(&self, doing: &str, error: io::Error) -> CommitError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CommitError::Full(error),
            _ => self.fatal(doing, &error),
        }
    }

    fn fatal(&self, doing: &str, error: &io::Error) -> CommitError {
        CommitError::Fatal(format!("{doing} {} failed: {error}", self.disk.describe(&segment_name(self.header.first))))
    }

    fn advance(&mut self) {
        self.end += self.buffer.len() as u64;
        self.bytes_since_snapshot += self.buffer.len() as u64;
        self.next += 1;
        const BUFFER_BYTES_KEPT: usize = 1 << 20;
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        self.payload.shrink_to(BUFFER_BYTES_KEPT);
    }

    /// Proves, when there is nothing else to write, that the last frame was synced. Needs no sync itself: whether it is
    /// there after a crash or not, what was acknowledged is. It also persists the engine's time.
    pub(crate) fn seal(&mut self, now_ms: u64) -> Result<(), CommitError> {
        if self.sealed || self.broken {
            return Ok(());
        }
        self.payload.clear();
        record::begin(&mut self.payload, now_ms);
        self.append()?;
        // The next frame must not be the second unsynced one.
        self.file.sync(SyncPoint::Seal).map_err(|error| self.fatal("syncing", &error))?;
        self.advance();
        self.sealed = true;
        Ok(())
    }

    /// Continues in a new segment. If that fails, the new segment may be there nevertheless and end the old one: nothing may be
    /// appended before this was tried again with success.
    pub(crate) fn rotate(&mut self) -> io::Result<()> {
        self.broken = true;
        let position = Position {
            next: self.next,
            carry: None,
            last: Some((self.header, self.end)),
            bytes_since_snapshot: self.bytes_since_snapshot,
            segments_since_snapshot: self.segments_since_snapshot,
        };
        let salt = self.header.salt.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let buffers = (std::mem::take(&mut self.buffer), std::mem::take(&mut self.payload));
        *self = Log::start(self.disk.clone(), position, salt)?;
        (self.buffer, self.payload) = buffers;
        Ok(())
    }

    /// The sequence number of the first frame of the current segment, which a snapshot made now must leave to the log.
    pub(crate) fn segment_first(&self) -> u64 {
        self.header.first
    }

    pub(crate) fn salt(&self) -> u64 {
        self.header.salt
    }

    pub(crate) fn bytes_since_snapshot(&self) -> u64 {
        self.bytes_since_snapshot
    }

    pub(crate) fn segments_since_snapshot(&self) -> u32 {
        self.segments_since_snapshot
    }

    /// A snapshot at the start of the current segment was begun: only what follows counts from here.
    pub(crate) fn snapshot_begun(&mut self) {
        self.bytes_since_snapshot = 0;
        self.segments_since_snapshot = 1;
    }
}

/// Makes a segment that is there whole or not at all.
fn create_segment(disk: &dyn Disk, first: u64, bytes: &[u8]) -> io::Result<Box<dyn DiskFile>> {
    let name = segment_name(first);
    let temporary = format!("{name}.tmp");
    let mut file = disk.create(&temporary)?;
    file.append(bytes)?;
    file.sync(SyncPoint::Segment)?;
    disk.rename(&temporary, &name)?;
    disk.sync_dir(SyncPoint::SegmentName)?;
    Ok(file)
}

/// Removes snapshots and segments that a snapshot at `first` replaces.
pub(crate) fn reclaim(disk: &dyn Disk, first: u64) -> io::Result<()> {
    for name in disk.list()? {
        let number = parse_name(&name, "log-").or_else(|| parse_name(&name, "snapshot-"));
        if number.is_some_and(|n| n < first) {
            disk.remove(&name)?;
        }
    }
    Ok(())
}
