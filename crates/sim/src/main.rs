//! `sim`: runs simulated clusters from seeds and prints what went wrong, with the seed that repeats it.

use clap::Parser;

/// Simulates whole control planes, one per seed.
#[derive(Parser, Debug)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first seed; with `--seeds 1` this repeats a run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Nodes of each cluster.
    #[arg(long, default_value_t = 5)]
    nodes: usize,
    /// Simulated minutes of trouble before everything must settle.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Print every event.
    #[arg(long)]
    trace: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_writer(std::io::stderr).init();
    }
    let mut failed = 0_u64;
    for seed in args.seed..args.seed.saturating_add(args.seeds) {
        let started = std::time::Instant::now();
        let run = sim::run(sim::Options { seed, nodes: args.nodes, minutes: args.minutes });
        let took_ms = started.elapsed().as_millis();
        match run {
            Ok(report) => {
                println!(
                    "seed {seed}: ok, {} events, {} faults, trace {:016x}, {took_ms} ms",
                    report.trace.len(),
                    report.faults,
                    report.hash()
                );
                if args.trace {
                    report.trace.iter().for_each(|line| println!("  {line}"));
                }
            }
            Err(error) => {
                failed += 1;
                println!("seed {seed}: FAILED after {took_ms} ms: {error}");
            }
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {} seeds failed; repeat one with --seeds 1 --seed N", args.seeds);
    Ok(())
}
