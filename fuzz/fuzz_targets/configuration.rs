//! Any configuration and environment is read or refused, every problem with a path.

#![no_main]

use azure_key_vault_filter::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], Option<String>)| {
    let (json, value) = input;
    match Config::parse(json, &|_| value.clone()) {
        Ok(config) => assert!(!config.vaults.is_empty()),
        Err(problems) => {
            assert!(!problems.is_empty());
            assert!(problems.iter().all(|p| !p.path.is_empty() && !p.message.is_empty()));
        }
    }
});
