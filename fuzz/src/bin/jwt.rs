//! Bearer tokens before their signature is known to be right.
#![no_main]
libfuzzer_sys::fuzz_target!(|text: &str| {
    std::hint::black_box(auth::jwt::parse(text).map(drop).is_ok());
    if let Some(issuer) = auth::jwt::issuer(text) {
        assert!(issuer.len() <= text.len());
    }
});
