//! Entries of shared data that other filters of the gateway cannot read or forge: AES-256-GCM-SIV (RFC
//! 8452), which stays safe when a nonce repeats, since WasmX's random numbers are predictable. The key is
//! derived from the identity's credential, which every worker has and no other filter. It does not know what
//! an entry means.

use alloc::boxed::Box;
use alloc::vec::Vec;

use aes_gcm_siv::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm_siv::{Aes256GcmSiv, Nonce, Tag};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::azure::identity::Identity;

/// First bytes of a sealed entry; changes with its layout.
const MAGIC: &[u8; 4] = b"aks1";
const NONCE: usize = 12;
const TAG: usize = 16;

/// Seals and opens the entries of one identity.
pub struct Sealer(Box<Aes256GcmSiv>);

impl Sealer {
    /// `None` for an identity that has no secret of its own: a machine's managed identity, and federated
    /// tokens, which change each time.
    #[must_use]
    pub fn of(identity: &Identity) -> Option<Self> {
        let secret = identity.secret()?;
        let mut key = Zeroizing::new([0; 32]);
        let derivation = Hkdf::<Sha256>::new(Some(b"azure-key-vault-filter shared data"), secret);
        // An identity's name binds the key to it; 32 bytes are never too many for HKDF.
        derivation
            .expand(identity.name().as_bytes(), key.as_mut())
            .ok()?;
        let cipher = Aes256GcmSiv::new_from_slice(key.as_ref()).ok()?;
        Some(Self(Box::new(cipher)))
    }

    /// An entry for this key: it opens under no other one, even where the host compares only hashes of keys.
    #[must_use]
    pub fn seal(&self, key: &str, entry: &[u8], random: &dyn Fn() -> u64) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE];
        let random = [random().to_le_bytes(), random().to_le_bytes()].concat();
        for (to, from) in nonce.iter_mut().zip(random) {
            *to = from;
        }
        let mut sealed = Vec::with_capacity(MAGIC.len() + NONCE + entry.len() + TAG);
        sealed.extend_from_slice(MAGIC);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(entry);
        let place = sealed.get_mut(MAGIC.len() + NONCE..)?;
        let tag = self
            .0
            .encrypt_inout_detached(&Nonce::from(nonce), key.as_bytes(), place.into())
            .ok()?;
        sealed.extend_from_slice(&tag);
        Some(sealed)
    }

    /// What was sealed under this key by this identity; `None` for anything else.
    #[must_use]
    pub fn open(&self, key: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, rest) = sealed.strip_prefix(MAGIC)?.split_first_chunk::<NONCE>()?;
        let (body, tag) = rest.split_last_chunk::<TAG>()?;
        let mut entry = Zeroizing::new(body.to_vec());
        self.0
            .decrypt_inout_detached(
                &Nonce::from(*nonce),
                key.as_bytes(),
                entry.as_mut_slice().into(),
                &Tag::from(*tag),
            )
            .ok()?;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use proptest::prelude::*;

    fn sealer(client: &str, secret: &str) -> Option<Sealer> {
        let secret = if secret.is_empty() {
            String::new()
        } else {
            format!(r#","client_secret":"{secret}","tenant_id":"t""#)
        };
        let json = format!(
            r#"{{"vaults":[{{"name":"azure","prefix":"az","config":{{"vault_uri":"https://v.vault.azure.net","client_id":"{client}"{secret}}}}}]}}"#
        );
        let config = Config::parse(json.as_bytes(), &|_| None).unwrap();
        Sealer::of(&config.vaults[0].identity)
    }

    #[test]
    fn one_identity_never_reads_anothers() {
        let ours = sealer("a", "secret").unwrap();
        let sealed = ours.seal("key", b"pl4nted", &|| 7).unwrap();
        assert!(memchr::memmem::find(&sealed, b"pl4nted").is_none());
        assert_eq!(ours.open("key", &sealed).unwrap().as_slice(), b"pl4nted");
        assert!(
            sealer("a", "secret")
                .unwrap()
                .open("key", &sealed)
                .is_some(),
            "another worker"
        );
        assert!(
            ours.open("other key", &sealed).is_none(),
            "the same CRC32, perhaps"
        );
        assert!(
            sealer("b", "secret")
                .unwrap()
                .open("key", &sealed)
                .is_none()
        );
        assert!(
            sealer("a", "Secret")
                .unwrap()
                .open("key", &sealed)
                .is_none()
        );
        assert!(
            sealer("a", "").is_none(),
            "a managed identity has no secret"
        );
    }

    #[test]
    fn a_nonce_that_comes_twice_shows_no_more_than_that_entries_are_equal() {
        let sealer = sealer("a", "secret").unwrap();
        let seal = |entry: &[u8]| sealer.seal("key", entry, &|| 7).unwrap();
        let (one, other) = (seal(b"aaaaaaaaaaaaaaaa1"), seal(b"aaaaaaaaaaaaaaaa2"));
        let same = one
            .iter()
            .zip(&other)
            .skip(16)
            .filter(|(a, b)| a == b)
            .count();
        assert!(same < 6, "a stream cipher would repeat 16 bytes; {same}");
    }

    proptest! {
        #[test]
        fn what_was_touched_does_not_open(entry: Vec<u8>, at: usize, bit in 0u8..8) {
            let sealer = sealer("a", "secret").unwrap();
            let mut sealed = sealer.seal("key", &entry, &|| 1).unwrap();
            let opened = sealer.open("key", &sealed).unwrap();
            prop_assert_eq!(opened.as_slice(), entry.as_slice());
            let at = at % sealed.len();
            sealed[at] ^= 1 << bit;
            prop_assert!(sealer.open("key", &sealed).is_none());
            prop_assert!(sealer.open("key", &sealed[..at]).is_none());
        }
    }
}
