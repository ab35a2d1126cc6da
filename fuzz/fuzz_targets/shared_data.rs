//! Anything may lie in shared data: it is an entry of ours under just this key, or nothing. The checksum,
//! which is against accidents only, is made right here: else nothing would get past it.

#![no_main]

use azure_key_vault_filter::cache::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8], &[u8])| {
    let (key, fields, any) = input;
    // Whatever it is: eight bytes of it would have to be right by chance.
    let _ = Record::unpack(key, any);
    let mut entry = b"akv1".to_vec();
    entry.extend((key.len() as u64).to_le_bytes());
    entry.extend(key.as_bytes());
    entry.extend(fields);
    let sum = entry.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    entry.extend(sum.to_le_bytes());
    if let Some(record) = Record::unpack(key, &entry) {
        let again = record.pack(key);
        assert_eq!(Record::unpack(key, &again), Some(record));
        assert_eq!(Record::unpack(&format!("{key}x"), &again), None);
    }
});
