//! A few seeds of the simulation, that a seed repeats its run, and a story with crashes between its actions.

use sim::crash_points::{TABLE, try_all};
use sim::{Error, Options, run};

fn options(seed: u64, minutes: u64) -> Options {
    Options { minutes, nodes: 3, ..Options::of_seed(seed) }
}

#[test]
fn everything_comes_right_after_much_has_failed() {
    let seeds = [1, 3, 5];
    let runs: Vec<_> = seeds.map(|seed| std::thread::spawn(move || run(options(seed, 8)))).into();
    let mut faults = std::collections::BTreeMap::<_, u64>::new();
    for run in runs {
        let report = run.join().unwrap().unwrap_or_else(|error| panic!("{error}"));
        assert!(report.steps > 500, "only {} steps", report.steps);
        for (what, times) in report.faults {
            *faults.entry(what).or_default() += times;
        }
    }
    // A seed has few kinds of faults, and others have others.
    assert!(faults.values().sum::<u64>() > 60 && faults.len() > 5, "only {faults:?}: nothing was tried");
}

#[test]
fn a_seed_repeats_its_run_to_the_same_step() {
    let part = |seed, until| Options { until: Some(until), ..options(seed, 3) };
    let (first, second) = (run(part(7, 600)).unwrap(), run(part(7, 600)).unwrap());
    assert_eq!((first.hash, &first.trace), (second.hash, &second.trace));
    assert_eq!((first.steps, first.faults), (second.steps, second.faults));
    assert_ne!(run(part(8, 600)).unwrap().hash, first.hash);
}

#[test]
fn a_crash_between_two_actions_does_no_harm() {
    let story = TABLE.iter().find(|one| one.name == "job").unwrap();
    let tried = try_all(story, "manager", 4).unwrap_or_else(|error: Error| panic!("{error}"));
    assert!(tried.crashes > 2, "only {} crashes", tried.crashes);
    assert!(tried.failures.is_empty(), "{:?}", tried.failures);
}
