//! Files made by OpenSSL, and files made worse.

use proptest::prelude::*;

use super::*;

macro_rules! file {
    ($name:literal) => {
        crate::base64::decode(
            include_str!(concat!("../../../tests/data/keys/", $name))
                .trim()
                .as_bytes(),
        )
        .unwrap()
    };
}

#[test]
fn the_rounds_of_the_part_with_the_key_are_read() {
    for (file, rounds) in [
        (file!("legacy.p12.b64"), 2_048),
        (file!("modern.p12.b64"), 2_048),
        (file!("million-rounds.p12.b64"), 1_000_000),
    ] {
        assert_eq!(find_key(&file).unwrap().unwrap().rounds, rounds);
    }
}

#[test]
fn a_key_that_takes_too_many_rounds_is_not_opened() {
    let file = file!("million-rounds.p12.b64");
    let start = std::time::Instant::now();
    for _ in 0..1_000 {
        assert_eq!(private_key(&file, 999_999), Err(Reason::BadAnswer));
    }
    // One opening alone would take longer.
    assert!(start.elapsed() < std::time::Duration::from_secs(1));
    let file = file!("modern.p12.b64");
    assert_eq!(private_key(&file, 2_047), Err(Reason::BadAnswer));
    assert!(private_key(&file, 2_048).is_ok());
}

/// A file whose content is all encrypted: what is in it is not decrypted, so no rounds in it count.
#[test]
fn encrypted_content_is_not_opened() {
    let encrypted = [
        der(
            OBJECT,
            &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x06],
        ),
        der(FIRST, b"any"),
    ];
    let info = der(SEQUENCE, &encrypted.concat());
    let data = |content: &[u8]| {
        let content = der(FIRST, &der(OCTETS, content));
        der(SEQUENCE, &[der(OBJECT, DATA), content].concat())
    };
    let of = |infos: &[u8]| {
        der(
            SEQUENCE,
            &[der(INTEGER, &[3]), data(&der(SEQUENCE, infos))].concat(),
        )
    };
    assert_eq!(private_key(&of(&info), 3), Err(Reason::NoSuchKey));
    // Bags that are no keys, with what they might hold, are not opened either: a `SecretBag` here.
    let secret = [&SHROUDED_KEY_BAG[..10], &[0x05]].concat();
    let bag = der(
        SEQUENCE,
        &[der(OBJECT, &secret), der(FIRST, b"any")].concat(),
    );
    let bags = data(&der(SEQUENCE, &bag));
    assert_eq!(
        private_key(&of(&[info, bags].concat()), 3),
        Err(Reason::NoSuchKey)
    );
}

#[test]
fn scrypt_and_negative_rounds_are_refused() {
    let rounds = |derivation: &[u8], rounds: &[u8]| {
        let inner = [der(OCTETS, b"salt"), der(INTEGER, rounds)].concat();
        let inner = [der(OBJECT, derivation), der(SEQUENCE, &inner)].concat();
        let algorithm = [der(OBJECT, PBES2), der(SEQUENCE, &der(SEQUENCE, &inner))].concat();
        rounds_of(&der(SEQUENCE, &der(SEQUENCE, &algorithm)))
    };
    assert_eq!(rounds(PBKDF2, &[0x01, 0x00]), Some(256));
    assert_eq!(rounds(PBKDF2, &[0x00, 0xff]), Some(255));
    assert_eq!(rounds(PBKDF2, &[0xff]), None);
    assert_eq!(rounds(PBKDF2, &[0x01; 9]), None);
    let scrypt = [0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x04, 0x0b];
    assert_eq!(rounds(&scrypt, &[0x01]), None);
}

proptest! {
    #[test]
    fn broken_files_are_read_without_a_panic(at in 0..2_400_usize, byte: u8, cut in 0..2_400_usize) {
        for mut file in [file!("legacy.p12.b64"), file!("modern.p12.b64")] {
            if let Some(old) = file.get_mut(at) {
                *old = byte;
            }
            file.truncate(cut.max(at));
            let _ = find_key(&file);
        }
    }
}
