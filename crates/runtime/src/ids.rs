//! Random ids of sandboxes, containers and tokens.

use std::io::Read;

/// 32 random hexadecimal digits.
pub fn random() -> String {
    let mut bytes = [0u8; 16];
    // The device is always there on Linux; without it a fixed id would collide, so fall back to time and process.
    if std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)).is_err() {
        let now = jiff::Timestamp::now().as_nanosecond().to_le_bytes();
        bytes.copy_from_slice(&now);
        bytes[12..].copy_from_slice(&std::process::id().to_le_bytes());
    }
    hex::encode(bytes)
}
