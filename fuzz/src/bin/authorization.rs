//! AuthorizationConfiguration files with their match conditions.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| apiserver::fuzzing::authorization(bytes));
