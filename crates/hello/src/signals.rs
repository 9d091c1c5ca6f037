//! The first process of a container ignores signals that it does not handle: this makes TERM and INT end it, so that a pod
//! stops at once and not after its grace period.
#![expect(unsafe_code, reason = "std has no way to handle a signal, and this program is std alone")]

const INT: i32 = 2;
const TERM: i32 = 15;

unsafe extern "C" {
    safe fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    safe fn _exit(code: i32) -> !;
}

extern "C" fn end(number: i32) {
    // Only async-signal-safe calls may stand here.
    _exit(128 + number);
}

/// Makes TERM and INT end the process with 128 plus their number.
pub fn install() {
    signal(INT, end);
    signal(TERM, end);
}
