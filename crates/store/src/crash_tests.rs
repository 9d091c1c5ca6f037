//! The engine against a reference model while the disk dies at every call, loses and tears what was not synced, fails fsync,
//! runs full and flips bits. Also that no sync can be left out unnoticed.

mod harness;

use std::sync::Arc;

use harness::{Harness, Step, options, steps};

use crate::Error;
use crate::disk::Disk;
use crate::disk::sim::{Call, Faults, SimDisk};
use crate::embedded::prepare;

const SEEDS: std::ops::Range<u64> = 0..12;

/// Chooses syncs to leave out.
type Skip = fn(Call, &str, usize) -> bool;

/// Runs the steps with a fault, lets the power fail, and checks what comes back; twice. `Err`: what was promised is not there.
fn survive(seed: u64, steps: &[Step], faults: &Faults) -> Result<bool, String> {
    let disk = SimDisk::new(seed);
    disk.set_faults(faults.clone());
    let Some(mut harness) = Harness::open(disk.clone(), seed)? else { return Ok(true) };
    harness.run(steps).map_err(|e| format!("at first, {steps:?}: {e}"))?;
    let died = disk.is_dead();
    for round in 0..3 {
        let mut again = harness.crash()?;
        again.faults(&Faults { skip_sync: faults.skip_sync, ..Faults::default() });
        again.check().map_err(|e| format!("round {round}, after the crash: {e}"))?;
        // It must also be possible to go on, and to fail again.
        let more = self::steps(seed + 1000 * (round + 1), 4);
        again.run(&more).map_err(|e| format!("round {round}, going on with {more:?}: {e}"))?;
        again.crash()?.check().map_err(|e| format!("round {round}, after the second crash: {e}"))?;
    }
    Ok(died)
}

/// Dies at each call in turn. `Err` with the first promise broken.
fn die_everywhere(seed: u64, skip_sync: Option<Skip>) -> Result<u64, String> {
    let steps = steps(seed, 14);
    for n in 0.. {
        let faults = Faults { die_at: Some(n), skip_sync, ..Faults::default() };
        let died = survive(seed, &steps, &faults).map_err(|e| format!("seed {seed}, dying at call {n}: {e}"))?;
        if !died {
            return Ok(n);
        }
    }
    Ok(0)
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_fails() {
    let mut points = 0;
    for seed in SEEDS {
        points += die_everywhere(seed, None).expect("a promise was broken");
    }
    assert!(points > 300, "only {points} calls: the test has become too small");
}

#[test]
fn no_sync_can_be_left_out_unnoticed() {
    const SEAL_BYTES: usize = crate::frame::HEADER_BYTES + 8;
    let syncs: [(&str, Skip); 6] = [
        ("a batch", |call, name, bytes| call == Call::Sync && !name.ends_with(".tmp") && bytes != SEAL_BYTES),
        ("the seal", |call, name, bytes| call == Call::Sync && !name.ends_with(".tmp") && bytes == SEAL_BYTES),
        ("a segment's header", |call, name, _| call == Call::Sync && name.starts_with("log-") && name.ends_with(".tmp")),
        ("a segment's name", |call, name, _| call == Call::SyncDir && name.starts_with("log-")),
        ("a snapshot", |call, name, _| call == Call::Sync && name.starts_with("snapshot-")),
        ("a snapshot's name", |call, name, _| call == Call::SyncDir && name.starts_with("snapshot-")),
    ];
    for (what, skip) in syncs {
        let noticed = (0..200).any(|seed| die_everywhere(seed, Some(skip)).is_err());
        assert!(noticed, "nobody noticed that {what} was not synced");
    }
}

#[test]
fn a_failed_fsync_acknowledges_nothing_and_loses_nothing() {
    for seed in SEEDS {
        let steps = steps(seed, 14);
        for n in 0..40 {
            let faults = Faults { fail_sync: Some(n), ..Faults::default() };
            survive(seed, &steps, &faults).unwrap_or_else(|e| panic!("seed {seed}, sync {n} fails: {e}"));
        }
    }
}

#[test]
fn a_full_disk_acknowledges_nothing_and_loses_nothing() {
    for seed in SEEDS {
        for n in 0..60 {
            let disk = SimDisk::new(seed);
            let Some(mut harness) = Harness::open(disk, seed).expect("opens") else { panic!("no disk") };
            harness.faults(&Faults { free_bytes: Some(n * 97), ..Faults::default() });
            let result = harness.run(&steps(seed, 10)).and_then(|()| {
                harness.faults(&Faults::default());
                harness.run(&[Step::Tick])?;
                if !harness.writable() {
                    return Err("does not take writes again".into());
                }
                harness.run(&steps(seed + 1, 5))?;
                harness.crash()?.check()
            });
            result.unwrap_or_else(|e| panic!("seed {seed}, {} bytes free: {e}", n * 97));
        }
    }
}

#[test]
fn a_flipped_bit_is_noticed_and_named() {
    let mut noticed = 0;
    for seed in SEEDS {
        let disk = SimDisk::new(seed);
        let Some(mut harness) = Harness::open(disk.clone(), seed).expect("opens") else { panic!("no disk") };
        harness.run(&steps(seed, 12)).expect("runs");
        harness.run(&[Step::Tick, Step::Tick]).expect("seals");
        for (name, bytes) in disk.files() {
            for bit in (0..bytes * 8).step_by(61) {
                disk.flip(&name, bit);
                let copy = disk.copy();
                match prepare(Arc::new(copy.clone()), options(seed)) {
                    Err(Error::Damaged(why)) => {
                        noticed += 1;
                        let last = copy.describe(&name);
                        assert!(why.contains("sim/") && why.contains("skiff datastore restore") && why.contains("byte"), "{why} ({last})");
                    }
                    Err(e) => panic!("seed {seed}, bit {bit} of {name}: {e}"),
                    // The flip hit what no longer counts, or the seal.
                    Ok((shared, _)) => {
                        let result = harness.compare(&shared.lock().state);
                        result.unwrap_or_else(|e| panic!("seed {seed}, bit {bit} of {name} was not noticed: {e}"));
                    }
                }
                disk.flip(&name, bit);
            }
        }
    }
    assert!(noticed > 1000, "only {noticed} flips mattered");
}

#[test]
fn a_missing_segment_is_noticed() {
    let disk = SimDisk::new(1);
    let Some(mut harness) = Harness::open(disk.clone(), 1).expect("opens") else { panic!("no disk") };
    let batch = Step::Batch(vec![harness::put(1, 10)]);
    let write = [batch.clone(), batch];
    harness.run(&[&write[..], &[Step::Restart], &write[..], &[Step::Restart], &write[..]].concat()).expect("runs");
    let segments: Vec<String> = disk.files().into_keys().collect();
    assert_eq!(segments.len(), 3);
    for name in &segments[..2] {
        let copy = disk.copy();
        copy.remove(name).expect("removes");
        let Err(Error::Damaged(why)) = prepare(Arc::new(copy), options(1)) else { panic!("{name} was not missed") };
        assert!(why.contains("is missing"), "{why}");
    }
}
