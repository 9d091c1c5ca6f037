//! What the engine asks of a disk: one directory of append-only files. Synchronous, so that a simulated disk can stand in.
//! [`real`] is the file system; [`sim`] loses, tears, reorders and spoils what was not synced.

pub(crate) mod frozen;
pub mod real;
pub mod sim;

use std::io;

/// One directory. Nothing survives a crash for certain but what was synced: a file's bytes by [`DiskFile::sync`], its name
/// by [`Disk::sync_dir`].
pub trait Disk: Send + Sync + 'static {
    /// Names of all files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// At most `max` bytes from an offset; fewer only at the end of the file.
    fn read(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>>;

    /// Makes an empty file, also over an existing one.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    fn remove(&self, name: &str) -> io::Result<()>;

    fn sync_dir(&self, point: SyncPoint) -> io::Result<()>;

    fn free_bytes(&self) -> io::Result<u64>;

    /// How to name a file (or, for "", the directory) in an error message.
    fn describe(&self, name: &str) -> String;
}

pub trait DiskFile: Send {
    /// All of it, or an error and perhaps a part.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    fn sync(&mut self, point: SyncPoint) -> io::Result<()>;
}

/// Every place where the engine syncs, so that tests can leave out each and see what is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyncPoint {
    /// What was appended to the log, before it is acknowledged.
    Batch,
    /// The empty frame at the end of an idle log.
    Seal,
    /// A new segment's header, before it gets its name.
    Segment,
    SegmentName,
    /// A snapshot, before it gets its name.
    Snapshot,
    /// Before the log that it replaces is removed.
    SnapshotName,
    /// The names found when opening, before anything they replace is removed.
    FoundNames,
}

impl SyncPoint {
    pub const ALL: [SyncPoint; 7] = [
        SyncPoint::Batch,
        SyncPoint::Seal,
        SyncPoint::Segment,
        SyncPoint::SegmentName,
        SyncPoint::Snapshot,
        SyncPoint::SnapshotName,
        SyncPoint::FoundNames,
    ];
}
