//! Anything may lie in shared data: it is an entry of ours under just this key, or nothing.

#![no_main]

use azure_key_vault_filter::cache::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8])| {
    let (key, entry) = input;
    if let Some(record) = Record::unpack(key, entry) {
        let again = record.pack(key);
        assert_eq!(Record::unpack(key, &again), Some(record));
    }
});
