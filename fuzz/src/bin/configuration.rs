//! The other files a server is started with: by the first byte an AdmissionConfiguration, an
//! EncryptionConfiguration or a kubeconfig.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    match first % 3 {
        0 => return apiserver::fuzzing::kubeconfig(bytes),
        2 => return apiserver::fuzzing::admission(bytes),
        _ => {}
    }
    if let Ok(config) = encryption::config::Config::parse(bytes) {
        assert!(!config.rules.is_empty());
        for (group, resource) in [("", "secrets"), ("apps", "deployments"), ("", "")] {
            std::hint::black_box(config.providers(group, resource));
        }
    }
});
