//! What somebody says to the server's port before anything is encrypted.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| apiserver::fuzzing::tls(bytes));
