//! Shows the steps of a longer command: a spinner on a terminal, plain lines otherwise.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Prints each step when it ends, with the time it took.
pub struct Steps {
    terminal: bool,
    started: Instant,
}

/// A step under way. Dropped without `done`, it counts as failed.
pub struct Step {
    what: String,
    since: Instant,
    bar: Option<ProgressBar>,
    ended: bool,
}

impl Steps {
    pub fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), started: Instant::now() }
    }

    pub fn begin(&self, what: impl Into<String>) -> Step {
        let what = what.into();
        let bar = self.terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg}") {
                bar.set_style(style);
            }
            bar.set_message(what.clone());
            bar.enable_steady_tick(Duration::from_millis(80));
            bar
        });
        Step { what, since: Instant::now(), bar, ended: false }
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Step {
    /// Says more about what is being waited for.
    pub fn note(&self, note: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{} ({note})", self.what));
        }
    }

    pub fn done(mut self) {
        self.end("✓");
    }

    fn end(&mut self, mark: &str) {
        self.ended = true;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        eprintln!("  {mark} {} ({})", self.what, shown(self.since.elapsed()));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.end("✗");
        }
    }
}

/// A duration in words short enough for a line: `0.12 s`, `3.4 s`, `75 s`.
pub fn shown(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 1.0 => format!("{s:.2} s"),
        s if s < 10.0 => format!("{s:.1} s"),
        s => format!("{s:.0} s"),
    }
}
