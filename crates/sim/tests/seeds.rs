//! A few seeds of the simulation, and that a seed repeats its run.

use sim::{Options, run};

#[test]
fn deployments_roll_out_while_nodes_and_requests_fail() {
    let runs: Vec<_> = (1..=3).map(|seed| std::thread::spawn(move || run(Options { seed, nodes: 4, minutes: 10 }))).collect();
    for run in runs {
        let report = run.join().unwrap().unwrap_or_else(|error| panic!("{error}"));
        assert!(report.faults > 100, "only {} faults: nothing was tried", report.faults);
        assert!(report.trace.len() > 50);
    }
}

#[test]
fn a_seed_repeats_its_run() {
    let options = Options { seed: 7, nodes: 3, minutes: 5 };
    let (first, second) = (run(options).unwrap(), run(options).unwrap());
    assert_eq!(first.trace, second.trace);
    assert_eq!(first.faults, second.faults);
    let other = run(Options { seed: 8, ..options }).unwrap();
    assert_ne!(first.trace, other.trace);
}
