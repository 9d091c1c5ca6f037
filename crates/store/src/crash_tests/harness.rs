//! Runs an engine on a simulated disk beside a model of what it promised, and compares.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use mix::Random;
use tokio::sync::oneshot;

use crate::core::{Outcome, Submitted, Writable};
use crate::disk::sim::{Faults, SimDisk};
use crate::embedded::{Options, Shared, prepare};
use crate::state::State;
use crate::writer::Writer;
use crate::{Error, Expect, Key, Op, Revision};

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Writes that wait for one flush.
    Batch(Vec<Write>),
    /// Compacts at so many revisions before the newest.
    Compact(u64),
    Snapshot,
    Tick,
    /// Closes without a crash, and opens again.
    Restart,
}

#[derive(Clone, Debug)]
pub(super) struct Write {
    key: u64,
    /// `None`: a deletion.
    bytes: Option<usize>,
    expect: WriteExpect,
}

#[derive(Clone, Copy, Debug)]
enum WriteExpect {
    Anything,
    Absent,
    Current,
    Wrong,
}

pub(super) fn put(key: u64, bytes: usize) -> Write {
    Write { key, bytes: Some(bytes), expect: WriteExpect::Anything }
}

pub(super) fn steps(seed: u64, n: usize) -> Vec<Step> {
    let mut random = Random(seed);
    let write = |random: &mut Random| Write {
        key: random.below(6),
        bytes: (!random.chance(4)).then(|| if random.chance(4) { 1500 } else { random.below(80) as usize }),
        expect: match random.below(8) {
            0 => WriteExpect::Absent,
            1 | 2 => WriteExpect::Current,
            3 => WriteExpect::Wrong,
            _ => WriteExpect::Anything,
        },
    };
    let step = |_| match random.below(12) {
        0 => Step::Compact(random.below(6)),
        1 => Step::Snapshot,
        2 | 3 => Step::Tick,
        4 => Step::Restart,
        _ => Step::Batch((0..=random.below(4)).map(|_| write(&mut random)).collect()),
    };
    (0..n).map(step).collect()
}

pub(super) fn options(seed: u64) -> Options {
    Options { seed: seed + 1, snapshot_bytes_min: u64::MAX / 2, free_bytes_min: 0, ..Options::default() }
}

type Versions = Vec<(Key, Option<Bytes>)>;

/// What was promised.
#[derive(Clone, Default)]
struct Model {
    /// Of revision 2 and on.
    changes: Versions,
    compacted: u64,
    /// What an unanswered flush may have added: all of it or nothing.
    maybe: Versions,
    maybe_compacted: Option<u64>,
}

impl Model {
    fn revision(&self) -> u64 {
        1 + self.changes.len() as u64
    }

    /// Keys with their value and the revision that made it.
    fn at(changes: &[(Key, Option<Bytes>)]) -> BTreeMap<Key, (Bytes, u64)> {
        let mut map = BTreeMap::new();
        for (i, (key, value)) in changes.iter().enumerate() {
            match value {
                Some(value) => map.insert(key.clone(), (value.clone(), i as u64 + 2)),
                None => map.remove(key),
            };
        }
        map
    }
}

pub(super) struct Harness {
    disk: SimDisk,
    seed: u64,
    shared: Arc<Shared>,
    writer: Writer,
    model: Model,
    counter: u64,
}

impl Harness {
    /// `None`: the disk died meanwhile.
    pub(super) fn open(disk: SimDisk, seed: u64) -> Result<Option<Self>, String> {
        match prepare(Arc::new(disk.clone()), options(seed)) {
            Ok((shared, writer)) => Ok(Some(Harness { disk, seed, shared, writer, model: Model::default(), counter: seed << 32 })),
            Err(_) if disk.is_dead() => Ok(None),
            // A failing sync, too, may keep it from opening.
            Err(Error::Open(_)) => Ok(None),
            Err(e) => Err(e.to_string()),
        }
    }

    pub(super) fn faults(&mut self, faults: &Faults) {
        self.disk.set_faults(faults.clone());
    }

    pub(super) fn writable(&self) -> bool {
        *self.shared.lock().writable() == Writable::Yes
    }

    /// The power fails; opens what is there then. May also fail while opening, once.
    pub(super) fn crash(&self) -> Result<Harness, String> {
        let mut disk = self.disk.crash();
        self.counter.checked_rem(3).filter(|n| *n > 0).inspect(|n| {
            disk.set_faults(Faults { die_at: Some(*n), ..Faults::default() });
        });
        let mut opened = Harness::open(disk.clone(), self.seed)?;
        if opened.is_none() || disk.is_dead() {
            disk = disk.crash();
            opened = Harness::open(disk.clone(), self.seed)?;
        }
        disk.set_faults(Faults::default());
        let mut opened = opened.ok_or("does not open")?;
        (opened.model, opened.counter) = (self.model.clone(), self.counter + 1);
        opened.adopt()?;
        Ok(opened)
    }

    /// Settles what was left open by what is there.
    fn adopt(&mut self) -> Result<(), String> {
        let (revision, compacted) = {
            let core = self.shared.lock();
            (core.state.revision.0, core.state.compacted.0)
        };
        let maybe = std::mem::take(&mut self.model.maybe);
        if revision == self.model.revision() + maybe.len() as u64 {
            self.model.changes.extend(maybe);
        }
        if self.model.maybe_compacted.take() == Some(compacted) {
            self.model.compacted = compacted;
        }
        Ok(())
    }

    /// Runs steps until the engine or the disk stops.
    pub(super) fn run(&mut self, steps: &[Step]) -> Result<(), String> {
        for step in steps {
            if self.disk.is_dead() || !self.model.maybe.is_empty() || self.model.maybe_compacted.is_some() {
                return Ok(());
            }
            match step {
                Step::Batch(writes) => self.batch(writes)?,
                Step::Compact(back) => self.compact(*back)?,
                // A failed snapshot loses nothing; whether the engine goes on is its business.
                Step::Snapshot => drop(self.writer.snapshot_now(&self.shared)),
                Step::Tick => self.writer.tick(&self.shared),
                Step::Restart => {
                    let (shared, writer) = match prepare(Arc::new(self.disk.clone()), options(self.seed)) {
                        Ok(opened) => opened,
                        Err(Error::Damaged(e)) if !self.disk.is_dead() => return Err(e),
                        // Not without a disk; the test goes on with the crash.
                        Err(_) => return Ok(()),
                    };
                    (self.shared, self.writer) = (shared, writer);
                }
            }
            self.check()?;
        }
        Ok(())
    }

    fn batch(&mut self, writes: &[Write]) -> Result<(), String> {
        let mut pending = self.model.changes.clone();
        let mut waiting = Vec::new();
        for write in writes {
            let (op, applies) = self.op(write, &pending);
            let submitted = self.shared.lock().submit(op.clone());
            if applies {
                let (Op::Put { key, .. } | Op::Delete { key, .. }) = &op;
                let value = if let Op::Put { value, .. } = &op { Some(value.clone()) } else { None };
                pending.push((key.clone(), value));
            }
            match submitted {
                Submitted::Done(Err(Error::Failed(_) | Error::NoSpace(_))) => {
                    pending.truncate(self.model.changes.len());
                    break;
                }
                Submitted::Done(outcome) => self.expect(&op, applies, &outcome, &pending)?,
                Submitted::Wait(answer) => waiting.push((op, applies, answer, pending.clone())),
            }
        }
        // Readers must not see what is not durable.
        self.check()?;
        self.writer.step(&self.shared);
        self.answers(waiting, pending)
    }

    fn answers(&mut self, waiting: Vec<(Op, bool, oneshot::Receiver<Outcome>, Versions)>, pending: Versions) -> Result<(), String> {
        let mut failed = false;
        for (op, applies, mut answer, then) in waiting {
            match answer.try_recv().map_err(|_| "no answer after a flush")? {
                Err(Error::Unavailable(_) | Error::NoSpace(_)) => failed = true,
                outcome => self.expect(&op, applies, &outcome, &then)?,
            }
        }
        match failed {
            true => self.model.maybe = pending[self.model.changes.len()..].to_vec(),
            false => self.model.changes = pending,
        }
        if failed && *self.shared.lock().writable() != Writable::Yes && !self.disk.is_dead() {
            // A full disk: whatever part of it is in the file was disowned or never whole.
            if matches!(self.shared.lock().writable(), Writable::Full(_)) {
                self.model.maybe.clear();
            }
        }
        Ok(())
    }

    /// A write and whether it should apply to the pending state.
    fn op(&mut self, write: &Write, pending: &Versions) -> (Op, bool) {
        self.counter += 1;
        let key: Key = Arc::from(format!("/k/{}", write.key));
        let current = Model::at(pending).get(&key).map(|(_, revision)| *revision);
        let (expect, holds) = match write.expect {
            WriteExpect::Anything => (Expect::Anything, true),
            WriteExpect::Absent => (Expect::Absent, current.is_none()),
            WriteExpect::Current => (Expect::Revision(Revision(current.unwrap_or(1))), current.is_some()),
            WriteExpect::Wrong => (Expect::Revision(Revision(1)), false),
        };
        match write.bytes {
            Some(n) => {
                let mut value = self.counter.to_string().into_bytes();
                value.resize(value.len() + n, b'x');
                (Op::Put { key, value: value.into(), expect, ttl: None }, holds)
            }
            None => (Op::Delete { key, expect }, holds && current.is_some()),
        }
    }

    fn expect(&self, op: &Op, applies: bool, outcome: &Outcome, pending: &Versions) -> Result<(), String> {
        let fine = match outcome {
            Ok((revision, _)) if applies => revision.0 == 1 + pending.len() as u64,
            Ok((_, item)) => matches!(op, Op::Delete { .. }) && item.is_none(),
            Err(Error::Conflict(_)) => !applies,
            Err(_) => false,
        };
        if fine { Ok(()) } else { Err(format!("{op:?} answered {outcome:?}")) }
    }

    fn compact(&mut self, back: u64) -> Result<(), String> {
        let at = self.model.revision().saturating_sub(back);
        let submitted = self.shared.lock().compact(Revision(at));
        match submitted {
            Submitted::Done(Err(Error::Compacted { .. })) if at <= self.model.compacted => return Ok(()),
            Submitted::Done(Err(Error::Failed(_))) => return Ok(()),
            Submitted::Done(other) => return Err(format!("compaction answered {other:?}")),
            Submitted::Wait(mut answer) => {
                self.writer.step(&self.shared);
                match answer.try_recv().map_err(|_| "no answer to a compaction")? {
                    Ok(_) => self.model.compacted = at,
                    Err(_) => self.model.maybe_compacted = Some(at),
                }
            }
        }
        if matches!(self.shared.lock().writable(), Writable::Full(_)) {
            self.model.maybe_compacted = None;
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<(), String> {
        self.compare(&self.shared.lock().state)
    }

    /// Whether a state is what was promised: at every revision, and as a history of events.
    pub(super) fn compare(&self, state: &State) -> Result<(), String> {
        let mut state = state.clone();
        let model = &self.model;
        if (state.revision.0, state.compacted.0) != (model.revision(), model.compacted) {
            let is = (state.revision.0, state.compacted.0);
            return Err(format!("(revision, compacted) is {is:?}, not {:?}", (model.revision(), model.compacted)));
        }
        for revision in model.compacted.max(1)..=model.revision() {
            let want = Model::at(&model.changes[..revision as usize - 1]);
            let view = state.view(Revision(revision)).map_err(|e| e.to_string())?;
            let is: BTreeMap<Key, (Bytes, u64)> =
                view.iter().map(|(key, item)| (key.clone(), (item.value.clone(), item.mod_revision.0))).collect();
            if is != want {
                return Err(format!("the state at revision {revision} is not what was written"));
            }
        }
        let first = model.compacted.max(1);
        let changes: Vec<_> = state.changes_after(Revision(first)).cloned().collect();
        let want = &model.changes[first as usize - 1..];
        let same = changes.len() == want.len()
            && changes.iter().zip(want).enumerate().all(|(i, (change, (key, value)))| {
                let before = Model::at(&model.changes[..first as usize - 1 + i]).get(key).map(|(v, _)| v.clone());
                change.revision.0 == first + 1 + i as u64
                    && change.key == *key
                    && change.value.as_ref().map(|v| &v.value) == value.as_ref()
                    && change.previous.as_ref().map(|v| v.value.clone()) == before
            });
        if same { Ok(()) } else { Err("the history is not what was written".into()) }
    }
}
