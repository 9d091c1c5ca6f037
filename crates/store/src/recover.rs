//! Opening a directory: newest snapshot, then the segments after it, in order. Decides what is a torn tail (cut silently:
//! it was never acknowledged) and what is damage (refused). `embedded` calls it once; `backup` reads with it, too.

use std::cell::RefCell;
use std::sync::Arc;

use crate::disk::{Disk, SyncPoint};
use crate::frame::{self, HEADER_BYTES};
use crate::log::{Position, SEGMENT_HEADER_BYTES, SegmentHeader, parse_name, reclaim, segment_name};
use crate::state::State;
use crate::{Error, Result, record, snapshot};

pub(crate) struct Recovered {
    pub state: State,
    pub now_ms: u64,
    pub position: Position,
    pub snapshot_bytes: u64,
}

/// Reads a directory to go on writing in it: what an unfinished snapshot or segment left behind goes.
pub(crate) fn recover(disk: &Arc<dyn Disk>, history_bytes_max: usize) -> Result<Recovered> {
    let io = |what: &str, e: std::io::Error| Error::Open(format!("{what} {}: {e}", disk.describe("")));
    let names = disk.list().map_err(|e| io("listing", e))?;
    for name in names.iter().filter(|n| n.ends_with(".tmp")) {
        disk.remove(name).map_err(|e| io("removing an unfinished file from", e))?;
    }
    let (recovered, first) = read(&**disk, &names, history_bytes_max)?;
    // The snapshot's name must be there for good before what it replaces goes.
    disk.sync_dir(SyncPoint::FoundNames).map_err(|e| io("syncing", e))?;
    reclaim(&**disk, first).map_err(|e| io("removing old files from", e))?;
    Ok(recovered)
}

/// Reads everything and changes nothing. Answers also the sequence number at which the newest snapshot ends.
pub(crate) fn read(disk: &dyn Disk, names: &[String], history_bytes_max: usize) -> Result<(Recovered, u64)> {
    let (first, mut state, now_ms, snapshot_bytes) = match snapshot::newest(names) {
        None => (1, State::default(), 0, 0),
        Some((first, name)) => {
            let (state, now_ms, bytes) = snapshot::load(disk, name, &advice(disk))?;
            (first, state, now_ms, bytes)
        }
    };
    state.bound_history(history_bytes_max);
    let mut segments: Vec<u64> = names.iter().filter_map(|n| parse_name(n, "log-")).filter(|n| *n >= first).collect();
    segments.sort_unstable();
    let mut replay = Replay { disk, state, now_ms, next: first, bytes: 0, last_frame: None, history_bytes_max, window: RefCell::default() };
    let mut last = replay.segments(&segments, snapshot_bytes > 0)?;
    let mut carry = None;
    if let (Some((_, end)), Some((at, payload))) = (&mut last, replay.last_frame.take()) {
        *end = at;
        replay.next -= 1;
        carry = Some(payload).filter(|p| !record::is_empty(p));
    }
    let position = Position {
        next: replay.next,
        carry,
        last,
        bytes_since_snapshot: replay.bytes,
        segments_since_snapshot: u32::try_from(segments.len()).unwrap_or(u32::MAX),
    };
    Ok((Recovered { position, state: replay.state, now_ms: replay.now_ms, snapshot_bytes }, first))
}

const WINDOW_BYTES: usize = 4 << 20;

/// A part of a segment.
struct Window {
    first: u64,
    at: u64,
    /// What was asked for; less was read only at the end of the file.
    max: usize,
    bytes: Vec<u8>,
}

struct Replay<'a> {
    disk: &'a dyn Disk,
    state: State,
    now_ms: u64,
    next: u64,
    bytes: u64,
    /// Where the last frame of the segment begins, and its payload.
    last_frame: Option<(u64, Vec<u8>)>,
    history_bytes_max: usize,
    window: RefCell<Option<Window>>,
}

impl Replay<'_> {
    /// Replays all segments; answers the last one's header and where it ends.
    fn segments(&mut self, segments: &[u64], have_snapshot: bool) -> Result<Option<(SegmentHeader, u64)>> {
        let headers: Vec<SegmentHeader> = segments.iter().map(|first| self.header(*first)).collect::<Result<_>>()?;
        let Some(oldest) = headers.first() else {
            // A snapshot is made after the segment that continues it.
            return if have_snapshot { Err(self.missing(self.next)) } else { Ok(None) };
        };
        if oldest.first != self.next {
            return Err(self.missing(self.next));
        }
        let mut last = None;
        for (i, header) in headers.iter().enumerate() {
            let end = match headers.get(i + 1) {
                Some(next) if next.previous_first != header.first => return Err(self.missing(next.previous_first)),
                Some(next) => Some(next.previous_end),
                None => None,
            };
            let end = self.segment(header, end)?;
            if headers.get(i + 1).is_some_and(|next| next.first != self.next) {
                return Err(self.damaged(header.first, end, "frames are missing"));
            }
            last = Some((*header, end));
        }
        Ok(last)
    }

    fn header(&self, first: u64) -> Result<SegmentHeader> {
        let bytes = self.read(first, 0, SEGMENT_HEADER_BYTES)?;
        SegmentHeader::decode(&bytes)
            .filter(|h| h.first == first)
            .ok_or_else(|| self.damaged(first, 0, "its header is not what was written"))
    }

    /// Replays one segment up to its known end, or, in the last one, as far as it is good. Answers where it ends.
    fn segment(&mut self, header: &SegmentHeader, known_end: Option<u64>) -> Result<u64> {
        let mut at = SEGMENT_HEADER_BYTES as u64;
        self.last_frame = None;
        while known_end.is_none_or(|end| at < end) {
            let head = self.read(header.first, at, HEADER_BYTES)?;
            let parsed = frame::header(&head, header.salt).filter(|h| h.sequence == self.next);
            let payload = match &parsed {
                Some(h) => self.read(header.first, at + HEADER_BYTES as u64, h.payload_bytes)?,
                None => Vec::new(),
            };
            if parsed.is_none_or(|h| !h.matches(&payload)) {
                if known_end.is_some() || self.frames_follow(header, at)? {
                    return Err(self.damaged(header.first, at, "what was acknowledged cannot be read back"));
                }
                break;
            }
            let (now_ms, records) =
                record::decode(&payload).ok_or_else(|| self.damaged(header.first, at, "its records are not well-formed"))?;
            for record in &records {
                self.state.apply(record).ok_or_else(|| self.damaged(header.first, at, "its revisions are not in order"))?;
            }
            self.state.bound_history(self.history_bytes_max);
            self.now_ms = now_ms;
            self.next += 1;
            let bytes = (HEADER_BYTES + payload.len()) as u64;
            self.last_frame = Some((at, payload));
            at += bytes;
            self.bytes += bytes;
        }
        match known_end {
            Some(end) if end != at => Err(self.damaged(header.first, at, "it does not end where the next one begins")),
            _ => Ok(at),
        }
    }

    /// Whether frames come after a bad one. A crash tears only the last frame.
    fn frames_follow(&self, header: &SegmentHeader, mut at: u64) -> Result<bool> {
        loop {
            let bytes = self.read(header.first, at, WINDOW_BYTES)?;
            if frame::any_later(&bytes, header.salt, self.next) {
                return Ok(true);
            }
            if bytes.len() < WINDOW_BYTES {
                return Ok(false);
            }
            at += (WINDOW_BYTES - HEADER_BYTES) as u64;
        }
    }

    /// Reads through a window, for most frames are small.
    fn read(&self, first: u64, at: u64, max: usize) -> Result<Vec<u8>> {
        let mut window = self.window.borrow_mut();
        let inside = |w: &Window| {
            let skip = usize::try_from(at.checked_sub(w.at)?).ok()?;
            let whole = w.first == first && (w.bytes.len() < w.max || skip.checked_add(max)? <= w.bytes.len());
            whole.then(|| w.bytes[skip.min(w.bytes.len())..skip.saturating_add(max).min(w.bytes.len())].to_vec())
        };
        if let Some(bytes) = window.as_ref().and_then(inside) {
            return Ok(bytes);
        }
        let name = segment_name(first);
        let wanted = max.max(WINDOW_BYTES);
        let bytes = self.disk.read(&name, at, wanted).map_err(|e| Error::Open(format!("reading {}: {e}", self.disk.describe(&name))))?;
        let read = bytes[..max.min(bytes.len())].to_vec();
        *window = Some(Window { first, at, max: wanted, bytes });
        Ok(read)
    }

    fn damaged(&self, first: u64, at: u64, what: &str) -> Error {
        Error::Damaged(format!(
            "in the log segment {} at byte {at}: {what}; {}",
            self.disk.describe(&segment_name(first)),
            advice(self.disk)
        ))
    }

    fn missing(&self, first: u64) -> Error {
        Error::Damaged(format!(
            "the log segment {} is missing; put it back, or {}",
            self.disk.describe(&segment_name(first)),
            advice(self.disk)
        ))
    }
}

/// What to do about damage.
fn advice(disk: &dyn Disk) -> String {
    format!(
        "nothing was changed. Stop the server, move the directory {} away and restore a backup: skiff datastore restore FILE",
        disk.describe("").trim_end_matches('/')
    )
}
