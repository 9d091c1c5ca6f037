//! Random names and the present time: the only place of this crate that makes either for objects.

const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Generated names are cut so that the five random letters fit into 63.
const GENERATED_BASE_MAX: usize = 58;

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        // The operating system's generator does not fail after start; a process without one must not go on.
        tracing::error!("no randomness");
        std::process::abort();
    }
    bytes
}

/// A random (version 4) UUID.
pub fn uuid() -> String {
    let mut b = random::<16>();
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let h = hex::encode(b);
    format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
}

/// Five letters as upstream's `rand.String` makes them.
pub fn suffix() -> String {
    random::<5>().iter().map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()])).collect()
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
    time_text(jiff::Timestamp::now())
}

pub fn time_text(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A timestamp of an object, `"<unknown>"` where there is none: how upstream's default table prints it.
pub fn rfc3339_of(object: &serde_json::Value, path: &str) -> String {
    match machinery::object::str_at(object, path) {
        "" => "<unknown>".to_owned(),
        text => text.to_owned(),
    }
}
