//! Request lines, queries, Accept and impersonation headers.
#![no_main]
libfuzzer_sys::fuzz_target!(|text: &str| apiserver::fuzzing::request(text));
