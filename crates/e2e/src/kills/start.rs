//! What is noted about one start of the server: its log, what those who asked were told, and, where it takes long, what its
//! threads and sockets do and what the machine waits for. So that a slow start explains itself.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

/// The first look at a start that takes long, and the next ones.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
const LOOKS_MAX: usize = 40;

pub struct Start {
    pub took: Duration,
    began: Instant,
    /// What each request for readiness was told, where that changed.
    told: Vec<(Duration, String)>,
    looks: Vec<(Duration, String)>,
    log: String,
}

impl Start {
    pub(super) fn new() -> Self {
        Start { took: Duration::ZERO, began: Instant::now(), told: Vec::new(), looks: Vec::new(), log: String::new() }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn told(&mut self, what: String) {
        if self.told.last().is_none_or(|(_, last)| *last != what) {
            self.told.push((self.began.elapsed(), what));
        }
    }

    /// Looks at the process, if the last look is long enough ago.
    pub(super) fn look_where_due(&mut self, pid: u32, port: u16) {
        let last = self.looks.last().map_or(Duration::ZERO, |(at, _)| *at);
        if self.began.elapsed() >= last + LOOK_EVERY && self.looks.len() < LOOKS_MAX {
            let text = format!("{}{}{}", threads(pid), sockets(port), pressure());
            self.looks.push((self.began.elapsed(), text));
        }
    }

    /// It is over; the log of this start begins at `from`.
    pub(super) fn ready(mut self, log: &Path, from: u64) -> Self {
        self.took = self.began.elapsed();
        let mut text = Vec::new();
        let read = fs::File::open(log).and_then(|mut file| {
            file.seek(SeekFrom::Start(from))?;
            file.read_to_end(&mut text)
        });
        self.log = match read {
            Ok(_) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("the log cannot be read: {error}"),
        };
        self
    }
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:.2?}; who asked was told", self.took)?;
        for (at, what) in &self.told {
            writeln!(f, "  {at:>8.2?} {what}")?;
        }
        for (at, look) in &self.looks {
            writeln!(f, "after {at:.2?}:")?;
            for line in look.lines() {
                writeln!(f, "  {line}")?;
            }
        }
        writeln!(f, "its log:")?;
        for line in self.log.lines() {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

fn text(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "?".to_owned(), |t| t.trim().to_owned())
}

/// Where each thread waits.
fn threads(pid: u32) -> String {
    let mut out = String::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let of = |name: &str| text(&task.path().join(name).to_string_lossy());
        let state = of("stat").rsplit(')').next().and_then(|rest| rest.split_whitespace().next().map(str::to_owned));
        let call = of("syscall");
        let stack: Vec<String> = of("stack").lines().take(4).map(|l| l.split_whitespace().last().unwrap_or_default().to_owned()).collect();
        let number = call.split_whitespace().next().unwrap_or_default();
        // Formatting into a text cannot fail.
        writeln!(out, "{} {} call {number} {}", of("comm"), state.unwrap_or_default(), stack.join(" ")).ok();
    }
    out
}

/// How many sockets of a port are in which state.
fn sockets(port: u16) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let port = format!(":{port:04X}");
    for line in text("/proc/net/tcp").lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let [_, local, remote, state, queues, ..] = fields[..]
            && (local.ends_with(&port) || remote.ends_with(&port))
        {
            let side = if local.ends_with(&port) { "here" } else { "there" };
            let waits = if queues == "00000000:00000000" { "" } else { " with bytes waiting" };
            *counts.entry(format!("state {state} {side}{waits}")).or_default() += 1;
        }
    }
    counts.into_iter().map(|(what, count)| format!("sockets: {count} of {what}\n")).collect()
}

/// What the machine waits for.
fn pressure() -> String {
    let of = |what: &str| format!("{what}: {}\n", text(&format!("/proc/pressure/{what}")).replace('\n', "; "));
    of("io") + &of("cpu") + &of("memory") + "load: " + &text("/proc/loadavg") + "\n"
}
