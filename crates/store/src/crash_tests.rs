//! The engine against a reference model while the disk dies at every call, loses and tears what was not synced, fails fsync,
//! runs full and flips bits. Also that no sync can be left out unnoticed.

mod harness;

use std::sync::Arc;

use harness::{Harness, Step, options, steps};

use crate::Error;
use crate::disk::sim::{Faults, SimDisk};
use crate::disk::{Disk, SyncPoint};
use crate::embedded::prepare;

const SEEDS: std::ops::Range<u64> = 0..12;

/// Runs the steps with a fault, lets the power fail, and checks what comes back; twice. `Err`: what was promised is not there.
fn survive(seed: u64, steps: &[Step], faults: &Faults) -> Result<(), String> {
    let disk = SimDisk::new(seed);
    disk.set_faults(faults.clone());
    let Some(mut harness) = Harness::open(disk, seed)? else { return Ok(()) };
    harness.run(steps).map_err(|e| format!("at first, {steps:?}: {e}"))?;
    for round in 0..3 {
        let mut again = harness.crash()?;
        again.faults(&Faults { skip_sync: faults.skip_sync, ..Faults::default() });
        again.check().map_err(|e| format!("round {round}, after the crash: {e}"))?;
        // It must also be possible to go on, and to fail again.
        let more = self::steps(seed + 1000 * (round + 1), 4);
        again.run(&more).map_err(|e| format!("round {round}, going on with {more:?}: {e}"))?;
        again.crash()?.check().map_err(|e| format!("round {round}, after the second crash: {e}"))?;
    }
    Ok(())
}

/// Has a fault at each call in turn, until one comes too late. `Err` with the first promise broken.
fn everywhere(seed: u64, fault: impl Fn(u64) -> Faults) -> Result<u64, String> {
    let steps = steps(seed, 14);
    let calls = calls(seed, &steps)?;
    for n in 0..calls {
        survive(seed, &steps, &fault(n)).map_err(|e| format!("seed {seed}, at call {n}: {e}"))?;
    }
    Ok(calls)
}

/// One call fails, the process is started again, and a few calls later the power fails.
fn twice(seed: u64, skip_sync: Option<SyncPoint>) -> Result<(), String> {
    let write = [Step::Batch(vec![harness::put(1, 10)]), Step::Batch(vec![harness::put(2, 10)])];
    let steps = [&write[..], &[Step::Snapshot, Step::Restart], &write[..], &[Step::Snapshot, Step::Restart]].concat();
    for n in 0..calls(seed, &steps)? {
        for m in 0..6 {
            let faults = Faults { fail_at: Some(n), die_at: Some(n + m), skip_sync, ..Faults::default() };
            survive(seed, &steps, &faults).map_err(|e| format!("seed {seed}, at calls {n} and {m} later: {e}"))?;
        }
    }
    Ok(())
}

/// How many calls the steps make when nothing fails.
fn calls(seed: u64, steps: &[Step]) -> Result<u64, String> {
    let disk = SimDisk::new(seed);
    Harness::open(disk.clone(), seed)?.ok_or("does not open")?.run(steps)?;
    Ok(disk.calls().len() as u64)
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_fails() {
    let mut points = 0;
    for seed in SEEDS {
        points += everywhere(seed, |n| Faults { die_at: Some(n), ..Faults::default() }).expect("a promise was broken");
    }
    assert!(points > 300, "only {points} calls: the test has become too small");
}

#[test]
fn no_sync_can_be_left_out_unnoticed() {
    for point in SyncPoint::ALL {
        let skip_sync = Some(point);
        let noticed = (0..200).any(|seed| {
            everywhere(seed, |n| Faults { die_at: Some(n), skip_sync, ..Faults::default() }).is_err() || twice(seed, skip_sync).is_err()
        });
        assert!(noticed, "nobody noticed that {point:?} was not synced");
    }
}

/// Whoever adds a sync has to name it, and name it once: else the test above would not leave it out alone.
#[test]
fn every_sync_has_a_point_of_its_own() {
    let sources = [include_str!("log.rs"), include_str!("snapshot.rs"), include_str!("recover.rs"), include_str!("writer.rs")];
    let all = sources.concat();
    for point in SyncPoint::ALL {
        let (file, dir) = (format!(".sync(SyncPoint::{point:?})"), format!(".sync_dir(SyncPoint::{point:?})"));
        assert_eq!(all.matches(&file).count() + all.matches(&dir).count(), 1, "{point:?}");
    }
    assert_eq!(all.matches(".sync(").count() + all.matches(".sync_dir(").count(), SyncPoint::ALL.len());
}

#[test]
fn a_call_that_fails_acknowledges_nothing_and_loses_nothing() {
    for seed in SEEDS {
        everywhere(seed, |n| Faults { fail_at: Some(n), ..Faults::default() }).expect("a promise was broken");
        twice(seed, None).expect("a promise was broken");
    }
}

#[test]
fn a_disk_that_becomes_read_only_loses_nothing() {
    for seed in SEEDS {
        let disk = SimDisk::new(seed);
        let Some(mut harness) = Harness::open(disk, seed).expect("opens") else { panic!("no disk") };
        let result = harness.run(&steps(seed, 10)).and_then(|()| {
            harness.faults(&Faults { read_only: true, ..Faults::default() });
            harness.run(&[Step::Batch(vec![harness::put(1, 10)]), Step::Tick, Step::Snapshot])?;
            if harness.writable() {
                return Err("takes writes".into());
            }
            // Nothing can be made, so nothing opens; but what is there stays.
            harness.run(&[Step::Restart])?;
            harness.crash()?.check()
        });
        result.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
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
