//! AuthenticationConfiguration files, and what their issuers make of some claims.
#![no_main]
use serde_json::json;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(read) = machinery::yaml::parse(bytes) else { return };
    match auth::oidc::Configuration::parse(&read.value, &["https://own.example".to_owned()]) {
        Ok(configuration) => {
            let claims = json!({"iss": "https://i.example", "sub": "s", "aud": ["a"], "exp": 2_000_000_000, "groups": ["g"], "email": "e@x",
                "email_verified": true, "nested": {"a": [1, null]}});
            for issuer in &configuration.issuers {
                assert_ne!(issuer.url, "https://own.example");
                if let Err(why) = issuer.user(&claims, 1_000_000_000) {
                    assert!(!why.is_empty());
                }
            }
        }
        Err(reasons) => assert!(!reasons.is_empty()),
    }
});
