//! Audit policy files, and what they say of requests.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| apiserver::fuzzing::audit_policy(bytes));
