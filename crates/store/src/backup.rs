//! Whole copies of an embedded datastore: taken from its files (also under a running server), verified, put back, checked,
//! compacted. A backup is a snapshot file of the engine under any name. `skiff datastore` and its schedule call this; it blocks.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::disk::Disk;
use crate::disk::frozen::{FrozenDisk, is_ours};
use crate::disk::real::{self, RealDisk};
use crate::embedded::{Embedded, Options, prepare, random};
use crate::log::{Log, Position};
use crate::record::Record;
use crate::recover::{self, Recovered};
use crate::state::State;
use crate::{Error, Listing, Result, Revision, snapshot};

/// What takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Counted in bytes.
    Read,
    /// Counted in records.
    Write,
    /// Counted in bytes.
    Verify,
}

/// Is told how much of how much is done.
pub type Progress = Arc<dyn Fn(Phase, u64, u64) + Send + Sync>;

/// What is in a datastore or a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub revision: Revision,
    /// Reads before this fail.
    pub compacted: Revision,
    pub keys: u64,
    /// Changes since the compaction.
    pub changes: u64,
    pub leases: u64,
    /// Of the files.
    pub bytes: u64,
}

/// A server writes while its files are read. What is met halfway is well on the next look.
const LOOKS_MAX: usize = 10;

fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let place = format!("{what} {}", path.display());
    move |e| Error::Open(format!("{place}: {}", real::advice(&e)))
}

/// Reads every byte of a datastore's files and checks it. Changes nothing; a server may be using them.
pub fn check(dir: &Path, progress: &Progress) -> Result<Summary> {
    read_directory(dir, progress).map(|(recovered, bytes)| summary(&recovered.state, bytes))
}

/// Writes all of a datastore into one new file, reads that back, and only then gives it its name.
pub fn snapshot(dir: &Path, to: &Path, progress: &Progress) -> Result<Summary> {
    refuse_existing(to)?;
    let (Recovered { state, now_ms, .. }, _) = read_directory(dir, progress)?;
    write_new(to, state, now_ms, progress)
}

/// Writes what any store holds at one revision into a new file, from a whole list of it: as after a compaction, without
/// history. `lives`: for how long from a restoration on a key lives.
pub fn write(to: &Path, listing: Listing, lives: &dyn Fn(&str) -> Option<Duration>, progress: &Progress) -> Result<Summary> {
    let mut state = State::default();
    let revision = listing.revision.max(Revision(1));
    let mut records = vec![Record::Begin { compacted: revision, revision }];
    for item in listing.items {
        let deadline_ms = lives(&item.key).map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1));
        let key = item.key.clone();
        records.push(Record::Base { item: Arc::new(item) });
        records.extend(deadline_ms.map(|deadline_ms| Record::Lease { key, deadline_ms }));
    }
    for record in &records {
        if state.apply(record).is_none() {
            return Err(Error::Damaged("the list contradicts itself".into()));
        }
    }
    drop(records);
    // Its time begins with the restoration.
    write_new(to, state, 0, progress)
}

impl Embedded {
    /// [`snapshot`] of an open store, as it is now; nothing has to wait for it.
    pub fn backup(&self, to: &Path, progress: &Progress) -> Result<Summary> {
        let (state, now_ms) = self.content();
        write_new(to, state, now_ms, progress)
    }
}

/// Reads a backup whole and checks it.
pub fn verify(file: &Path, progress: &Progress) -> Result<Summary> {
    load(file, Phase::Verify, progress).map(|(state, _, bytes)| summary(&state, bytes))
}

/// Makes a datastore of a backup, in a directory where none is. The revision goes on `bump` after the backup's, and history
/// before that counts as compacted: so who has seen revisions that are lost starts again instead of waiting for them, or
/// of taking new ones for old. With 0 the datastore is what the backup says, history too.
pub fn restore(file: &Path, dir: &Path, bump: u64, progress: &Progress) -> Result<Summary> {
    refuse_occupied(dir)?;
    let (mut state, now_ms, _) = load(file, Phase::Read, progress)?;
    if bump > 0 {
        state.jump(bump);
    }
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let building = with_suffix(dir, ".restoring");
    if building.exists() {
        fs::remove_dir_all(&building).map_err(failed("removing what an interrupted restore left in", &building))?;
    }
    let summary = build(&building, state, now_ms, progress)?;
    // Only a lock file of a store that was removed can be there.
    let lock = dir.join(real::LOCK);
    if lock.exists() {
        fs::remove_file(&lock).map_err(failed("removing", &lock))?;
    }
    fs::rename(&building, dir).map_err(failed("putting the datastore in place as", dir))?;
    File::open(parent).and_then(|p| p.sync_all()).map_err(failed("syncing", parent))?;
    Ok(summary)
}

fn build(dir: &Path, state: State, now_ms: u64, progress: &Progress) -> Result<Summary> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir)?);
    let salt = random();
    let wrote = failed("writing the datastore in", dir);
    let tell = |done, total| progress(Phase::Write, done, total);
    snapshot::write(&*disk, state, 1, now_ms, salt, &tell)
        .and_then(|_| {
            let position = Position { next: 1, carry: None, last: None, bytes_since_snapshot: 0, segments_since_snapshot: 0 };
            Log::start(disk, position, salt ^ 1)
        })
        .map_err(wrote)?;
    let (recovered, bytes) = read_directory_as(dir, Phase::Verify, progress)?;
    Ok(summary(&recovered.state, bytes))
}

/// Forgets all history and writes a fresh snapshot, so that the files hold what there is and no more. For a datastore that
/// no server uses: one in use compacts itself. Answers what the files held before and hold now.
pub fn compact(dir: &Path, progress: &Progress) -> Result<(Summary, Summary)> {
    let before = check(dir, progress)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir)?);
    let (shared, mut writer) = prepare(disk, Options::default())?;
    let revision = shared.lock().state.revision;
    if shared.lock().state.compacted < revision {
        let _answered_below = shared.lock().compact(revision);
        writer.step(&shared);
    }
    if shared.lock().state.compacted < revision {
        shared.lock().known()?;
        return Err(Error::Open(format!("compacting {} failed; see the log lines above", dir.display())));
    }
    writer.snapshot_now(&shared).map_err(failed("writing a snapshot in", dir))?;
    drop(writer);
    Ok((before, check(dir, progress)?))
}

fn read_directory(dir: &Path, progress: &Progress) -> Result<(Recovered, u64)> {
    read_directory_as(dir, Phase::Read, progress)
}

fn read_directory_as(dir: &Path, phase: Phase, progress: &Progress) -> Result<(Recovered, u64)> {
    let mut look = 1;
    loop {
        match read_once(dir, phase, progress) {
            Err(_) if look < LOOKS_MAX && dir.is_dir() => look += 1,
            result => return result,
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn read_once(dir: &Path, phase: Phase, progress: &Progress) -> Result<(Recovered, u64)> {
    let none = || Error::Open(format!("no datastore is in {}; is --data-dir right?", dir.display()));
    if !dir.exists() {
        return Err(none());
    }
    let disk = FrozenDisk::directory(dir, phase, progress).map_err(failed("reading the datastore in", dir))?;
    let files = disk.files();
    if files.is_empty() {
        return Err(none());
    }
    let names: Vec<String> = files.keys().cloned().collect();
    let (recovered, first) = recover::read(&disk, &names, Options::default().history_bytes_max)?;
    let current = |name: &String| crate::log::parse_name(name, "log-").is_none_or(|n| n >= first);
    Ok((recovered, files.iter().filter(|(name, _)| current(name)).map(|(_, bytes)| bytes).sum()))
}

fn load(file: &Path, phase: Phase, progress: &Progress) -> Result<(State, u64, u64)> {
    let (disk, name) = FrozenDisk::file(file, phase, progress).map_err(failed("opening the backup", file))?;
    snapshot::load(&disk, &name, "use another backup")
}

fn summary(state: &State, bytes: u64) -> Summary {
    Summary {
        revision: state.revision,
        compacted: state.compacted,
        keys: state.map.len() as u64,
        changes: state.changes_after(state.compacted).count() as u64,
        leases: state.leases().count() as u64,
        bytes,
    }
}

fn refuse_existing(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(Error::Open(format!("{} is there already and is left as it is; choose another name", path.display()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed("looking at", path)(e)),
    }
}

/// A lock file alone does not make a datastore; but one that is locked does.
fn refuse_occupied(dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed("looking into", dir)(e)),
    };
    for entry in entries {
        let name = entry.map_err(failed("looking into", dir))?.file_name();
        let name = name.to_string_lossy();
        if is_ours(&name) {
            let why = format!("a datastore is in {} already and is left as it is; stop the server and move it away first", dir.display());
            return Err(Error::Open(why));
        }
        if name != real::LOCK {
            return Err(Error::Open(format!("{} is not empty: {name} is in the way", dir.display())));
        }
    }
    // Takes the lock for a moment.
    RealDisk::open(dir).map(drop)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Writes a new file and reads it back before it gets its name.
fn write_new(to: &Path, state: State, now_ms: u64, progress: &Progress) -> Result<Summary> {
    refuse_existing(to)?;
    let parent = to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = with_suffix(to, &format!(".{}.tmp", std::process::id()));
    let result = write_verified(&temporary, state, now_ms, progress).and_then(|summary| {
        // Unlike a rename, a link never replaces anything.
        fs::hard_link(&temporary, to).map_err(failed("naming the snapshot", to))?;
        Ok(summary)
    });
    fs::remove_file(&temporary).or_else(|e| if result.is_err() { Ok(()) } else { Err(e) }).map_err(failed("removing", &temporary))?;
    let written = result?;
    File::open(parent).and_then(|p| p.sync_all()).map_err(failed("syncing", parent))?;
    Ok(written)
}

fn write_verified(to: &Path, state: State, now_ms: u64, progress: &Progress) -> Result<Summary> {
    let file = real::create(to).map_err(failed("making", to))?;
    let wanted = summary(&state, 0);
    let tell = |done, total| progress(Phase::Write, done, total);
    snapshot::write_file(file, state, now_ms, random(), &tell).map_err(failed("writing", to))?;
    // Read back without making a second state of it, which would take as much memory as the store.
    let (disk, name) = FrozenDisk::file(to, Phase::Verify, progress).map_err(failed("reading back", to))?;
    let (mut records, mut begin) = (0, None);
    let (_, bytes) = snapshot::scan(&disk, &name, "check the disk", |record| {
        match record {
            Record::Begin { compacted, revision } => begin = Some((*compacted, *revision)),
            Record::End { .. } => {}
            _ => records += 1,
        }
        Some(())
    })?;
    if begin != Some((wanted.compacted, wanted.revision)) || records < wanted.changes + wanted.leases {
        return Err(Error::Damaged(format!("{} does not read back as it was written; check the disk", to.display())));
    }
    Ok(Summary { bytes, ..wanted })
}
