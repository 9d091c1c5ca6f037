//! Random names and the present time: the only place of this crate that makes either for objects.

use std::cell::RefCell;

use machinery::names::SUFFIX_ALPHABET;
use mix::Random;

/// Generated names are cut so that the five random letters fit into 63.
const GENERATED_BASE_MAX: usize = 58;
/// Randomness taken at once: each request has an audit id, and asking the generator for 16 bytes costs almost what asking for
/// many does.
const POOL_BYTES: usize = 1024;

thread_local! {
    /// What is left of the last bytes taken; at its front what was used is gone.
    static POOL: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static SIMULATED: RefCell<Option<Simulated>> = const { RefCell::new(None) };
}

/// What stands in for randomness and time on this thread while a simulation runs on it.
struct Simulated {
    random: Random,
    clock: Box<dyn Fn() -> jiff::Timestamp>,
}

/// Takes names and times of objects from a seed and a clock, on this thread, so that a run of a single-threaded simulation
/// can be repeated. Tokens and certificates stay real.
pub fn simulate(seed: u64, clock: impl Fn() -> jiff::Timestamp + 'static) {
    SIMULATED.with_borrow_mut(|simulated| *simulated = Some(Simulated { random: Random(seed), clock: Box::new(clock) }));
}

/// Whether a simulation runs on this thread.
pub(crate) fn is_simulated() -> bool {
    SIMULATED.with_borrow(Option::is_some)
}

fn simulated_bytes(bytes: &mut [u8]) -> bool {
    SIMULATED.with_borrow_mut(|simulated| {
        let Some(Simulated { random, .. }) = simulated else { return false };
        random.fill(bytes);
        true
    })
}

/// Bytes for what is not to be guessed or repeated.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    random()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if simulated_bytes(&mut bytes) {
        return bytes;
    }
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        // The operating system's generator does not fail after start; a process without one must not go on.
        tracing::error!("no randomness");
        std::process::abort();
    }
    bytes
}

/// As [`random`], for names, which are no secrets.
fn pooled<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if simulated_bytes(&mut bytes) {
        return bytes;
    }
    POOL.with_borrow_mut(|pool| {
        if pool.len() < N {
            *pool = random::<POOL_BYTES>().to_vec();
        }
        bytes.copy_from_slice(&pool.split_off(pool.len() - N));
    });
    bytes
}

/// A random (version 4) UUID.
pub fn uuid() -> String {
    let mut b = pooled::<16>();
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let mut out = String::with_capacity(36);
    for (at, byte) in b.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        for digit in [byte >> 4, byte & 0x0f] {
            out.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    out
}

/// Five letters as upstream's `rand.String` makes them.
pub fn suffix() -> String {
    random::<5>().iter().map(|b| char::from(SUFFIX_ALPHABET[usize::from(*b) % SUFFIX_ALPHABET.len()])).collect()
}

/// A random number below `bound`.
pub fn below(bound: u64) -> u64 {
    u64::from_le_bytes(random::<8>()) % bound.max(1)
}

/// A name from `generateName`.
pub fn generate_name(base: &str) -> String {
    let mut end = base.len().min(GENERATED_BASE_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], suffix())
}

/// RFC 3339 in seconds, as metav1.Time.
pub fn now() -> String {
    time_text(timestamp())
}

pub fn timestamp() -> jiff::Timestamp {
    let simulated = SIMULATED.with_borrow(|simulated| simulated.as_ref().map(|simulated| (simulated.clock)()));
    simulated.unwrap_or_else(jiff::Timestamp::now)
}

pub fn time_text(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
