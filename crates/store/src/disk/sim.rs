//! A disk in memory that behaves as badly as real ones may: unsynced writes vanish, tear and land out of order at a crash,
//! unsynced names come and go, the disk runs full, bits flip, fsync fails. Driven by a seed; for tests and the simulator.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mix::Random;

use super::{Disk, DiskFile, SyncPoint};

const SECTOR_BYTES: usize = 512;

/// What a call does to the disk; faults are aimed at these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    Create,
    Append,
    Sync,
    Rename,
    Remove,
    SyncDir,
}

/// What goes wrong, and when.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The disk dies at the n-th call from now (0: the next one), before, or in the middle of, its effect.
    pub die_at: Option<u64>,
    /// The n-th sync (of either kind) from now fails; what it should have synced may be lost at the next crash.
    pub fail_sync: Option<u64>,
    /// The n-th call of any kind from now fails; the disk goes on.
    pub fail_at: Option<u64>,
    /// Every call fails as on a file system that is mounted read-only.
    pub read_only: bool,
    /// Syncs that report success without doing anything, for tests that prove that each is needed.
    pub skip_sync: Option<SyncPoint>,
    /// Free space; `None`: endless.
    pub free_bytes: Option<u64>,
}

#[derive(Clone, Default)]
struct Inode {
    synced: Vec<u8>,
    /// What a reader sees: synced bytes and everything appended since.
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Inner {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// As they are after a crash for certain.
    synced_names: BTreeMap<String, u64>,
    names: BTreeMap<String, u64>,
    random: Random,
    faults: Faults,
    dead: bool,
    /// All calls that change something, in order.
    calls: Vec<(Call, String)>,
}

/// A simulated disk. Clones share it.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Inner>>);

impl SimDisk {
    pub fn new(seed: u64) -> Self {
        SimDisk(Arc::new(Mutex::new(Inner { random: Random(seed), ..Inner::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// The calls so far that changed something.
    pub fn calls(&self) -> Vec<(Call, String)> {
        self.lock().calls.clone()
    }

    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Loses power and comes back: what was not synced is there, in parts, or not, by another chance at each call. Ends all faults. Files opened before are dead.
    pub fn crash(&self) -> SimDisk {
        let mut inner = self.lock();
        inner.dead = true;
        let mut random = Random(inner.random.next_u64());
        let names = crashed_names(&inner, &mut random);
        let mut inodes = BTreeMap::new();
        for number in names.values() {
            let inode = inner.inodes.get(number).cloned().unwrap_or_default();
            let bytes = crashed_bytes(&inode, &mut random);
            inodes.insert(*number, Inode { synced: bytes.clone(), bytes });
        }
        SimDisk(Arc::new(Mutex::new(Inner {
            inodes,
            next_inode: inner.next_inode,
            synced_names: names.clone(),
            names,
            random,
            ..Inner::default()
        })))
    }

    /// Another disk with the same content, all of it synced.
    pub fn copy(&self) -> SimDisk {
        let inner = self.lock();
        let synced = |i: &Inode| Inode { synced: i.bytes.clone(), bytes: i.bytes.clone() };
        SimDisk(Arc::new(Mutex::new(Inner {
            inodes: inner.inodes.iter().map(|(n, inode)| (*n, synced(inode))).collect(),
            next_inode: inner.next_inode,
            synced_names: inner.names.clone(),
            names: inner.names.clone(),
            random: inner.random.clone(),
            ..Inner::default()
        })))
    }

    /// Flips one bit of a file.
    pub fn flip(&self, name: &str, bit: u64) {
        let mut inner = self.lock();
        let Some(number) = inner.names.get(name).copied() else { return };
        let Some(inode) = inner.inodes.get_mut(&number) else { return };
        let Ok(at) = usize::try_from(bit / 8) else { return };
        for bytes in [&mut inode.bytes, &mut inode.synced] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// Sizes of all files.
    pub fn files(&self) -> BTreeMap<String, u64> {
        let inner = self.lock();
        let size = |number| inner.inodes.get(number).map_or(0, |i| i.bytes.len() as u64);
        inner.names.iter().map(|(name, number)| (name.clone(), size(number))).collect()
    }
}

/// Each name that differs from what was synced is, by chance, as it was or as it is.
fn crashed_names(inner: &Inner, random: &mut Random) -> BTreeMap<String, u64> {
    let mut names = inner.synced_names.clone();
    let all: std::collections::BTreeSet<&String> = inner.names.keys().chain(inner.synced_names.keys()).collect();
    for name in all {
        if inner.names.get(name) != inner.synced_names.get(name) && random.chance(2) {
            match inner.names.get(name) {
                Some(number) => names.insert(name.clone(), *number),
                None => names.remove(name),
            };
        }
    }
    names
}

/// Of the unsynced bytes each sector is, by chance, there, missing (zeros) or half there; the file ends anywhere.
fn crashed_bytes(inode: &Inode, random: &mut Random) -> Vec<u8> {
    let unsynced = inode.bytes.len().saturating_sub(inode.synced.len());
    if unsynced == 0 || random.chance(3) {
        return inode.synced.clone();
    }
    if random.chance(4) {
        return inode.bytes.clone();
    }
    let keep = inode.synced.len() + random.below(unsynced as u64 + 1) as usize;
    let mut bytes = inode.bytes[..keep].to_vec();
    let mut at = inode.synced.len();
    while at < keep {
        let end = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(keep);
        match random.below(4) {
            0 => bytes[at..end].fill(0),
            1 => {
                let cut = at + random.below((end - at) as u64 + 1) as usize;
                bytes[cut..end].fill(0);
            }
            _ => {}
        }
        at = end;
    }
    bytes
}

impl Inner {
    /// Counts a call; fails when the disk is dead or dies now.
    fn call(&mut self, call: Call, name: &str) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("the simulated disk is dead"));
        }
        self.calls.push((call, name.to_owned()));
        match self.faults.die_at {
            Some(0) => {
                self.dead = true;
                return Err(io::Error::other("the simulated disk died"));
            }
            Some(n) => self.faults.die_at = Some(n - 1),
            None => {}
        }
        if self.faults.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        match self.faults.fail_at {
            Some(0) => {
                self.faults.fail_at = None;
                return Err(io::Error::other("simulated failure"));
            }
            Some(n) => self.faults.fail_at = Some(n - 1),
            None => {}
        }
        if matches!(call, Call::Sync | Call::SyncDir) {
            match self.faults.fail_sync {
                Some(0) => {
                    self.faults.fail_sync = None;
                    return Err(io::Error::other("simulated failure of fsync"));
                }
                Some(n) => self.faults.fail_sync = Some(n - 1),
                None => {}
            }
        }
        Ok(())
    }

    fn skips(&self, point: SyncPoint) -> bool {
        self.faults.skip_sync == Some(point)
    }
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{name}: no such file"))
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn read(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let inner = self.lock();
        let number = inner.names.get(name).ok_or_else(|| not_found(name))?;
        let bytes = inner.inodes.get(number).map_or(&[][..], |i| &i.bytes);
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes[from..from.saturating_add(max).min(bytes.len())].to_vec())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.lock();
        inner.call(Call::Create, name)?;
        let number = inner.next_inode;
        inner.next_inode += 1;
        inner.inodes.insert(number, Inode::default());
        inner.names.insert(name.to_owned(), number);
        Ok(Box::new(SimFile { disk: self.clone(), number, name: name.to_owned() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.call(Call::Rename, to)?;
        let number = inner.names.remove(from).ok_or_else(|| not_found(from))?;
        inner.names.insert(to.to_owned(), number);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.call(Call::Remove, name)?;
        inner.names.remove(name).map(|_| ()).ok_or_else(|| not_found(name))
    }

    fn sync_dir(&self, point: SyncPoint) -> io::Result<()> {
        let mut inner = self.lock();
        inner.call(Call::SyncDir, "")?;
        if !inner.skips(point) {
            inner.synced_names = inner.names.clone();
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.lock().faults.free_bytes.unwrap_or(u64::MAX))
    }

    fn describe(&self, name: &str) -> String {
        format!("sim/{name}")
    }
}

struct SimFile {
    disk: SimDisk,
    number: u64,
    name: String,
}

impl DiskFile for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let died = inner.call(Call::Append, &self.name);
        let free_bytes = inner.faults.free_bytes.unwrap_or(u64::MAX);
        let mut keep = bytes.len().min(usize::try_from(free_bytes).unwrap_or(usize::MAX));
        if died.is_err() {
            keep = inner.random.below(keep as u64 + 1) as usize;
        }
        if let Some(free) = &mut inner.faults.free_bytes {
            *free -= keep as u64;
        }
        if let Some(inode) = inner.inodes.get_mut(&self.number) {
            inode.bytes.extend_from_slice(&bytes[..keep]);
        }
        died?;
        if keep < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&mut self, point: SyncPoint) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.call(Call::Sync, &self.name)?;
        if inner.skips(point) {
            return Ok(());
        }
        if let Some(inode) = inner.inodes.get_mut(&self.number) {
            let from = inode.synced.len();
            inode.synced.extend_from_slice(&inode.bytes[from..]);
        }
        Ok(())
    }
}
