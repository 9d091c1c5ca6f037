//! A few kills of an API server under load; `cargo run --release -p e2e --bin kills -- 1000` is the long run.

use e2e::kills::{Options, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_no_watch_lies_when_the_api_server_is_killed() {
    let report = run(Options { times: 3, ..Options::default() }).await.expect("a promise was broken");
    assert!(report.calls > 100 && report.events > 20 && report.resumed > 0, "too little happened: {report:?}");
    let slowest = format!("{:?}", report.slowest);
    assert!(slowest.contains("the datastore is open") && slowest.contains("ready url="), "a start without its log: {slowest}");
    // The store keeps its history over a restart, so no watcher needs to list again.
    assert_eq!((report.odd_answers, report.relisted), (0, 0), "{report:?}");
}
