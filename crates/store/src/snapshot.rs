//! Snapshots: the whole content in one file, so that the log before it can go. Holds the state at the compacted revision,
//! the changes since, and the leases; so history survives a restart. `writer` writes them, `recover` reads them; a backup is the same file
//! elsewhere (`backup`).

use std::io;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, SyncPoint};
use crate::frame::{self, HEADER_BYTES, u32_at, u64_at};
use crate::record::{self, Record};
use crate::state::State;
use crate::{Error, Result, Revision};

const MAGIC: &[u8; 8] = b"skifsnp1";
const FILE_HEADER_BYTES: usize = 20;
/// Frames are closed when they reach this size.
const FRAME_BYTES: usize = 1 << 20;

pub(crate) fn name(first: u64) -> String {
    format!("snapshot-{first:016x}")
}

/// Writes a snapshot that replaces all segments before the one starting with `first`. There whole or not at all. Answers its size.
pub(crate) fn write(disk: &dyn Disk, state: State, first: u64, now_ms: u64, salt: u64, progress: &dyn Fn(u64, u64)) -> io::Result<u64> {
    let temporary = format!("{}.tmp", name(first));
    let written = disk.create(&temporary).and_then(|file| write_file(file, state, now_ms, salt, progress));
    let bytes = written.inspect_err(|_| {
        // A disk that ran full needs the space; what stays is removed when the directory is opened again.
        if let Err(error) = disk.remove(&temporary) {
            tracing::debug!(%error, "cannot remove an unfinished snapshot");
        }
    })?;
    disk.rename(&temporary, &name(first))?;
    disk.sync_dir(SyncPoint::SnapshotName)?;
    Ok(bytes)
}

/// Writes the content of a snapshot and syncs it. `progress` is told how many of how many records are written.
pub(crate) fn write_file(
    file: Box<dyn DiskFile>,
    mut state: State,
    now_ms: u64,
    salt: u64,
    progress: &dyn Fn(u64, u64),
) -> io::Result<u64> {
    let base_revision = Revision(state.compacted.0.max(1));
    let base = state.view(base_revision).map_err(io::Error::other)?;
    let total = (base.len() + state.changes_after(base_revision).count()) as u64;
    let mut writer = Writer::new(file, salt, now_ms)?;
    writer.record(&Record::Begin { compacted: state.compacted, revision: state.revision })?;
    for item in base.values() {
        writer.record(&Record::Base { item: item.clone() })?;
        progress(writer.records, total);
    }
    for change in state.changes_after(base_revision) {
        writer.record(&match &change.value {
            Some(item) => Record::Put { item: item.clone(), deadline_ms: 0 },
            None => Record::Delete { key: change.key.clone(), revision: change.revision },
        })?;
        progress(writer.records, total);
    }
    for (key, deadline_ms) in state.leases() {
        writer.record(&Record::Lease { key: key.clone(), deadline_ms })?;
    }
    writer.finish()
}

struct Writer {
    file: Box<dyn DiskFile>,
    salt: u64,
    now_ms: u64,
    sequence: u64,
    payload: Vec<u8>,
    buffer: Vec<u8>,
    records: u64,
    bytes: u64,
}

impl Writer {
    fn new(mut file: Box<dyn DiskFile>, salt: u64, now_ms: u64) -> io::Result<Self> {
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&salt.to_le_bytes());
        head.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
        file.append(&head)?;
        let bytes = head.len() as u64;
        Ok(Writer { file, salt, now_ms, sequence: 0, payload: Vec::new(), buffer: Vec::new(), records: 0, bytes })
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        if self.payload.is_empty() {
            record::begin(&mut self.payload, self.now_ms);
        }
        record.encode(&mut self.payload);
        self.records += 1;
        if self.payload.len() >= FRAME_BYTES { self.frame() } else { Ok(()) }
    }

    fn frame(&mut self) -> io::Result<()> {
        self.buffer.clear();
        frame::encode(&mut self.buffer, self.salt, self.sequence, &self.payload);
        self.payload.clear();
        self.sequence += 1;
        self.bytes += self.buffer.len() as u64;
        self.file.append(&self.buffer)
    }

    fn finish(mut self) -> io::Result<u64> {
        self.record(&Record::End { records: self.records })?;
        if !self.payload.is_empty() {
            self.frame()?;
        }
        self.file.sync(SyncPoint::Snapshot)?;
        Ok(self.bytes)
    }
}

/// Reads a snapshot. Every byte of it was synced, so anything wrong is damage; `advice` says what to do then.
pub(crate) fn load(disk: &dyn Disk, name: &str, advice: &str) -> Result<(State, u64, u64)> {
    let mut state = State::default();
    let mut revision = Revision(0);
    let (now_ms, bytes) = scan(disk, name, advice, |record| {
        match record {
            Record::Begin { revision: r, .. } => revision = *r,
            Record::End { .. } => return (state.revision == revision).then_some(()),
            _ => {}
        }
        state.apply(record).map(|_| ())
    })?;
    Ok((state, now_ms, bytes))
}

/// Reads a snapshot record by record, `End` too. `visit` answers `None` where a record does not fit. Answers the engine's time and
/// the size of the file.
pub(crate) fn scan(disk: &dyn Disk, name: &str, advice: &str, mut visit: impl FnMut(&Record) -> Option<()>) -> Result<(u64, u64)> {
    let unreadable = |e: io::Error| Error::Open(format!("reading {}: {e}", disk.describe(name)));
    let damaged =
        |at: u64| Error::Damaged(format!("the snapshot {} is not what was written (at byte {at}); {advice}", disk.describe(name)));
    let head = disk.read(name, 0, FILE_HEADER_BYTES).map_err(unreadable)?;
    let intact = head.len() == FILE_HEADER_BYTES && head.starts_with(MAGIC);
    let salt = u64_at(&head, 8).filter(|_| intact && u32_at(&head, 16) == Some(crc32fast::hash(&head[..16]))).ok_or_else(|| damaged(0))?;

    let (mut at, mut records) = (FILE_HEADER_BYTES as u64, 0);
    for sequence in 0.. {
        let head = disk.read(name, at, HEADER_BYTES).map_err(unreadable)?;
        let head = frame::header(&head, salt).filter(|h| h.sequence == sequence).ok_or_else(|| damaged(at))?;
        let payload = disk.read(name, at + HEADER_BYTES as u64, head.payload_bytes).map_err(unreadable)?;
        let decoded = head.matches(&payload).then(|| record::decode(&payload)).flatten();
        let (now_ms, frame_records) = decoded.ok_or_else(|| damaged(at))?;
        for record in &frame_records {
            visit(record).ok_or_else(|| damaged(at))?;
            match record {
                Record::End { records: n } if *n == records => return Ok((now_ms, at + (HEADER_BYTES + payload.len()) as u64)),
                Record::End { .. } => return Err(damaged(at)),
                _ => records += 1,
            }
        }
        at += (HEADER_BYTES + payload.len()) as u64;
    }
    Err(damaged(at))
}

/// The newest snapshot of the directory and the sequence number at which the log continues it.
pub(crate) fn newest(names: &[String]) -> Option<(u64, &str)> {
    names.iter().filter_map(|n| Some((crate::log::parse_name(n, "snapshot-")?, n.as_str()))).max()
}

/// Shares one disk between the log's writer and the snapshot's.
pub(crate) struct Job {
    pub disk: Arc<dyn Disk>,
    pub state: State,
    pub first: u64,
    pub now_ms: u64,
    pub salt: u64,
}

impl Job {
    pub(crate) fn run(self) -> io::Result<u64> {
        write(&*self.disk, self.state, self.first, self.now_ms, self.salt, &|_, _| ())
    }
}
