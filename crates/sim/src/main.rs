//! `sim`: runs simulated clusters from seeds, prints a summary and what went wrong, with the seed that repeats it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;

/// Simulates whole control planes, one per seed.
#[derive(Parser, Debug)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Repeat this seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// End at this step.
    #[arg(long)]
    until: Option<u64>,
    /// Print everything that happened.
    #[arg(long)]
    trace: bool,
    /// Print whole what is written to keys with this in them.
    #[arg(long)]
    show: Option<String>,
    /// Instead of seeds: kill a component after each change that it makes in fixed stories.
    #[arg(long)]
    crash_points: bool,
    /// Only stories with this in their name.
    #[arg(long, default_value = "")]
    story: String,
    /// Nodes of each cluster.
    #[arg(long, default_value_t = 4)]
    nodes: usize,
    /// Simulated minutes of trouble before everything must settle.
    #[arg(long, default_value_t = 20)]
    minutes: u64,
    /// Seeds that run at once; 0: as many as there are processors.
    #[arg(long, default_value_t = 0)]
    jobs: usize,
}

impl Args {
    fn options(&self, seed: u64) -> sim::Options {
        sim::Options { seed, nodes: self.nodes, minutes: self.minutes, until: self.until, trace: self.trace, show: self.show.clone() }
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_writer(std::io::stderr).init();
    }
    let _keys = sim::keys()?;
    if args.crash_points {
        return crash_points(&args);
    }
    match args.seed {
        Some(seed) => one(&args, seed),
        None => many(&args),
    }
}

fn one(args: &Args, seed: u64) -> anyhow::Result<()> {
    match sim::run(args.options(seed)) {
        Ok(report) => {
            report.trace.iter().for_each(|line| println!("{line}"));
            println!("seed {seed}: {} steps, {} s, trace {:016x}", report.steps, report.virtual_seconds, report.hash);
            Ok(())
        }
        Err(sim::Error::Violation { what, report }) => {
            report.trace.iter().for_each(|line| println!("{line}"));
            println!("seed {seed}: {} steps, {} s, trace {:016x}", report.steps, report.virtual_seconds, report.hash);
            anyhow::bail!("seed {seed}: step {}: {what}", report.steps)
        }
        Err(error) => Err(error.into()),
    }
}

fn jobs(args: &Args) -> usize {
    if args.jobs == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { args.jobs }
}

fn crash_points(args: &Args) -> anyhow::Result<()> {
    use sim::crash_points::{PARTS, TABLE, try_all};
    let all: Vec<_> = TABLE.iter().filter(|one| one.name.contains(&args.story)).flat_map(|one| PARTS.map(|part| (one, part))).collect();
    let (next, started) = (AtomicU64::new(0), Instant::now());
    let (crashes, failures) = (AtomicU64::new(0), AtomicU64::new(0));
    println!("{:<26} {:<10} {:>8} {:>8}", "story", "killed", "crashes", "failed");
    std::thread::scope(|scope| {
        for _ in 0..jobs(args) {
            scope.spawn(|| {
                while let Some((scenario, part)) = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).ok().and_then(|at| all.get(at)) {
                    match try_all(scenario, part, 1) {
                        Ok(tried) => {
                            let failed = tried.failures.iter().map(|failure| format!("\n    {failure}")).collect::<String>();
                            println!("{:<26} {part:<10} {:>8} {:>8}{failed}", scenario.name, tried.crashes, tried.failures.len());
                            crashes.fetch_add(tried.crashes, Ordering::Relaxed);
                            failures.fetch_add(tried.failures.len() as u64, Ordering::Relaxed);
                        }
                        Err(error) => {
                            println!("{:<26} {part:<10} fails undisturbed: {error}", scenario.name);
                            failures.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner();
    println!("\n{} crashes, {failures} failures, {} s", crashes.into_inner(), started.elapsed().as_secs());
    anyhow::ensure!(failures == 0, "{failures} crashes did harm");
    Ok(())
}

#[derive(Default)]
struct Sum {
    steps: u64,
    virtual_seconds: u64,
    faults: BTreeMap<&'static str, u64>,
    failures: Vec<(u64, u64, String)>,
}

fn many(args: &Args) -> anyhow::Result<()> {
    let started = Instant::now();
    let (next, end) = (AtomicU64::new(args.first), args.first.saturating_add(args.seeds));
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs(args) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    take(&sum, seed, sim::run(args.options(seed)));
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    table(args, &sum, started.elapsed());
    anyhow::ensure!(sum.failures.is_empty(), "{} of {} seeds failed; repeat one with --seed N", sum.failures.len(), args.seeds);
    Ok(())
}

fn take(sum: &Mutex<Sum>, seed: u64, run: Result<sim::Report, sim::Error>) {
    let mut sum = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let report = match run {
        Ok(report) => report,
        Err(sim::Error::Violation { what, report }) => {
            println!("seed {seed}: FAILED at step {}: {what}", report.steps);
            sum.failures.push((seed, report.steps, what));
            *report
        }
        Err(error) => {
            println!("seed {seed}: FAILED: {error}");
            sum.failures.push((seed, 0, error.to_string()));
            return;
        }
    };
    sum.steps += report.steps;
    sum.virtual_seconds += report.virtual_seconds;
    for (kind, count) in report.faults {
        *sum.faults.entry(kind).or_default() += count;
    }
}

fn table(args: &Args, sum: &Sum, took: Duration) {
    println!("\n{:<28} {:>12}", "seeds", args.seeds);
    println!("{:<28} {:>12}", "failed", sum.failures.len());
    println!("{:<28} {:>12}", "steps", sum.steps);
    println!("{:<28} {:>12}", "virtual time, hours", sum.virtual_seconds / 3600);
    println!("{:<28} {:>12}", "real time, seconds", took.as_secs());
    println!("{:<28} {:>12}", "faults", sum.faults.values().sum::<u64>());
    for (kind, count) in &sum.faults {
        println!("  {kind:<26} {count:>12}");
    }
}
