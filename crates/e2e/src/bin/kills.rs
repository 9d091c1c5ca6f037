//! The long run: `cargo run --release -p e2e --bin kills -- 1000`.

use anyhow::Result;
use e2e::kills::{Options, run};

fn main() -> Result<()> {
    let times = std::env::args().nth(1).map_or(Ok(1000), |n| n.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(run(Options { times, ..Options::default() }))?;
    println!("{times} kills: {report:#?}");
    Ok(())
}
