//! Client certificates and certificate requests, in DER and PEM.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| apiserver::fuzzing::certificate(bytes));
