//! Client assertions: a certificate's key says who the application is (RFC 7523; the format is Entra ID's,
//! <https://learn.microsoft.com/entra/identity-platform/certificate-credentials>). PS256 with the
//! certificate's SHA-256 thumbprint, as that page recommends. It sends nothing.
//!
//! Behind the feature `client_certificate`: RSA is large.

#[cfg(feature = "client_certificate")]
use alloc::rc::Rc;
use alloc::string::String;
use core::fmt;

use crate::secret::SecretValue;
use crate::time::Timestamp;

/// A certificate with its private key.
#[derive(Clone)]
pub struct ClientCertificate {
    /// SHA-256 of the certificate's DER, in base64url.
    thumbprint: String,
    #[cfg(feature = "client_certificate")]
    key: Rc<signing::Key>,
    /// A hash of the private key, for keys that are made of it.
    #[cfg(feature = "client_certificate")]
    secret: SecretValue,
}

/// The key is known by its certificate.
impl PartialEq for ClientCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.thumbprint == other.thumbprint
    }
}

impl Eq for ClientCertificate {}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientCertificate({})", self.thumbprint)
    }
}

/// What an assertion says.
#[derive(Clone, Copy, Debug)]
pub struct Claims<'a> {
    /// The token endpoint's URL.
    pub audience: &'a str,
    /// The application.
    pub client_id: &'a str,
    /// A UUID that is used once.
    pub id: &'a str,
    /// The time.
    pub now: Timestamp,
}

impl ClientCertificate {
    /// The thumbprint that Azure's portal shows in hexadecimal, in base64url.
    #[must_use]
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// What only the key's holders know.
    #[cfg(feature = "client_certificate")]
    #[must_use]
    pub fn secret(&self) -> Option<&[u8]> {
        Some(self.secret.expose())
    }

    /// What only the key's holders know.
    #[cfg(not(feature = "client_certificate"))]
    #[must_use]
    pub const fn secret(&self) -> Option<&[u8]> {
        None
    }

    /// Reads a PEM text with a private key (PKCS#8 or PKCS#1, RSA, not encrypted) and its certificate, in
    /// any order; further certificates are left out.
    ///
    /// # Errors
    /// What is missing, never anything of the text.
    #[cfg(not(feature = "client_certificate"))]
    pub fn parse(_: &str) -> Result<Self, &'static str> {
        Err("needs a filter that was built with --features client_certificate; this one was not")
    }

    /// The signed assertion.
    #[cfg(not(feature = "client_certificate"))]
    pub fn sign(&self, _: Claims<'_>, _: &dyn Fn() -> u64) -> Option<SecretValue> {
        None
    }
}

#[cfg(feature = "client_certificate")]
mod signing {
    use alloc::rc::Rc;
    use alloc::string::ToString;
    use alloc::vec::Vec;
    use core::convert::Infallible;

    use memchr::memmem;
    use rsa::PrivateKey;
    use rsa::pkcs1::DecodeRsaPrivateKey as _;
    use rsa::pkcs8::DecodePrivateKey as _;
    use rsa::pss::SigningKey;
    use rsa::rand_core::{TryCryptoRng, TryRng};
    use rsa::sha2::{Digest as _, Sha256};
    use rsa::signature::{RandomizedSigner as _, SignatureEncoding as _};
    use rsa::traits::PublicKeyParts as _;
    use zeroize::Zeroizing;

    use super::{Claims, ClientCertificate};
    use crate::base64;
    use crate::placement::Encoding;
    use crate::secret::SecretValue;

    pub(super) type Key = SigningKey<Sha256>;

    /// How long an assertion is good, in seconds.
    const LIFE: u64 = 600;

    impl ClientCertificate {
        /// Reads a PEM text with a private key (PKCS#8 or PKCS#1, RSA, not encrypted) and its certificate,
        /// in any order; further certificates are left out.
        ///
        /// # Errors
        /// What is missing, never anything of the text.
        pub fn parse(pem: &str) -> Result<Self, &'static str> {
            // Environments without line breaks have them as backslash and n.
            let pem = Zeroizing::new(pem.replace("\\n", "\n"));
            let pem = pem.as_bytes();
            let (key, private) = private_key(pem)?;
            let modulus = key.n().to_be_bytes_trimmed_vartime();
            let mut certificates = blocks(pem, "CERTIFICATE").peekable();
            if certificates.peek().is_none() {
                return Err(
                    "holds no CERTIFICATE block; Entra ID knows the key by its certificate",
                );
            }
            // Of a chain, the one that was made for this key: its DER holds the modulus.
            let certificate = certificates
                .find(|der| memmem::find(der, &modulus).is_some())
                .ok_or("holds a certificate and a private key that do not belong together")?;
            Ok(Self {
                thumbprint: base64::encode_url(&Sha256::digest(certificate.as_slice())),
                secret: SecretValue::new(Sha256::digest(&private).to_vec()),
                key: Rc::new(SigningKey::new(key)),
            })
        }

        /// The signed assertion; `None` when the key is too short to sign.
        #[must_use]
        pub fn sign(&self, claims: Claims<'_>, random: &dyn Fn() -> u64) -> Option<SecretValue> {
            let [header, payload] =
                [self.header(), payload(&claims)].map(|part| base64::encode_url(part.as_slice()));
            let mut jwt = Zeroizing::new(format!("{header}.{payload}"));
            let signature = self
                .key
                .try_sign_with_rng(&mut Salt(random), jwt.as_bytes())
                .ok()?;
            jwt.push('.');
            jwt.push_str(&base64::encode_url(&signature.to_vec()));
            Some(SecretValue::new(jwt.as_bytes()))
        }

        fn header(&self) -> Vec<u8> {
            let thumbprint = self.thumbprint.as_str();
            object(
                &[("alg", "PS256"), ("typ", "JWT"), ("x5t#S256", thumbprint)],
                &[],
            )
        }
    }

    fn payload(claims: &Claims<'_>) -> Vec<u8> {
        let seconds = claims.now.0 / 1000;
        object(
            &[
                ("aud", claims.audience),
                ("iss", claims.client_id),
                ("sub", claims.client_id),
                ("jti", claims.id),
            ],
            &[("nbf", seconds), ("exp", seconds.saturating_add(LIFE))],
        )
    }

    /// A JSON object of these texts and numbers.
    fn object(texts: &[(&str, &str)], numbers: &[(&str, u64)]) -> Vec<u8> {
        let mut out = b"{".to_vec();
        let name = |out: &mut Vec<u8>, name: &str| {
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(format!("\"{name}\":").as_bytes());
        };
        for (key, text) in texts {
            name(&mut out, key);
            out.push(b'"');
            // A text can always be written.
            let _ = Encoding::Json.write(&mut out, text.as_bytes());
            out.push(b'"');
        }
        for (key, number) in numbers {
            name(&mut out, key);
            out.extend_from_slice(number.to_string().as_bytes());
        }
        out.push(b'}');
        out
    }

    /// The key, and its DER.
    fn private_key(pem: &[u8]) -> Result<(PrivateKey, Zeroizing<Vec<u8>>), &'static str> {
        if memmem::find(pem, b"-----BEGIN ENCRYPTED PRIVATE KEY-----").is_some()
            || memmem::find(pem, b"Proc-Type: 4,ENCRYPTED").is_some()
        {
            return Err(
                "holds an encrypted private key; take the password off with `openssl pkey`",
            );
        }
        let bad = "holds a private key that is not RSA, or is damaged; Entra ID takes RSA only";
        let pkcs8 = blocks(pem, "PRIVATE KEY").next();
        let pkcs1 = || blocks(pem, "RSA PRIVATE KEY").next();
        let (key, der) = match (pkcs8, pkcs1()) {
            (Some(der), _) => (PrivateKey::from_pkcs8_der(&der).map_err(|_| bad)?, der),
            (None, Some(der)) => (PrivateKey::from_pkcs1_der(&der).map_err(|_| bad)?, der),
            (None, None) => {
                return Err(
                    "holds no PRIVATE KEY block; it has to be PEM with the key and its certificate",
                );
            }
        };
        if key.size() < 256 {
            return Err("holds an RSA key of less than 2048 bits, which Entra ID does not take");
        }
        Ok((key, der))
    }

    /// The DER of every PEM block with this label (RFC 7468).
    fn blocks<'a>(pem: &'a [u8], label: &str) -> impl Iterator<Item = Zeroizing<Vec<u8>>> + 'a {
        let begin = format!("-----BEGIN {label}-----");
        let mut rest = pem;
        core::iter::from_fn(move || {
            let start = memmem::find(rest, begin.as_bytes())?;
            rest = rest.get(start + begin.len()..)?;
            let end = memmem::find(rest, b"-----END ")?;
            let body = rest.get(..end)?;
            let body: Vec<u8> = body.iter().copied().filter(u8::is_ascii_graphic).collect();
            base64::decode(&Zeroizing::new(body)).map(Zeroizing::new)
        })
    }

    /// The salt of a PSS signature and its blinding: need not be secret (RFC 8017, section 9.1, note 4),
    /// which is as well, since WasmX's random numbers can be foretold.
    struct Salt<'a>(&'a dyn Fn() -> u64);

    impl TryRng for Salt<'_> {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            Ok((self.0)() as u32)
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            Ok((self.0)())
        }

        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
            for chunk in out.chunks_mut(8) {
                let bytes = (self.0)().to_le_bytes();
                for (to, from) in chunk.iter_mut().zip(bytes) {
                    *to = from;
                }
            }
            Ok(())
        }
    }

    impl TryCryptoRng for Salt<'_> {}
}

#[cfg(all(test, feature = "client_certificate"))]
mod tests {
    use super::*;
    use rsa::PublicKey;
    use rsa::pkcs8::DecodePublicKey as _;
    use rsa::pss::{Signature, VerifyingKey};
    use rsa::sha2::Sha256;
    use rsa::signature::Verifier as _;

    const BUNDLE: &str = include_str!("../../../tests/data/keys/bundle.pem");

    #[test]
    fn an_assertion_that_the_public_key_verifies() {
        let certificate = ClientCertificate::parse(BUNDLE).unwrap();
        let claims = Claims {
            audience: "https://login.microsoftonline.com/t/oauth2/v2.0/token",
            client_id: "client",
            id: "one",
            now: Timestamp(1_000_500),
        };
        let jwt = certificate.sign(claims, &|| 7).unwrap();
        let jwt = String::from_utf8(jwt.expose().to_vec()).unwrap();
        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let public =
            PublicKey::from_public_key_pem(include_str!("../../../tests/data/keys/rsa.pub.pem"))
                .unwrap();
        let signature = crate::base64::decode(signature.as_bytes()).unwrap();
        let verifier = VerifyingKey::<Sha256>::new(public);
        verifier
            .verify(
                signed.as_bytes(),
                &Signature::try_from(signature.as_slice()).unwrap(),
            )
            .unwrap();
        let payload = signed.split('.').nth(1).unwrap();
        let payload: serde_json::Value =
            serde_json::from_slice(&crate::base64::decode(payload.as_bytes()).unwrap()).unwrap();
        assert_eq!(
            payload,
            serde_json::json!({"aud": claims.audience, "iss": "client", "sub": "client", "jti": "one",
                "nbf": 1000, "exp": 1600})
        );
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_said_without_showing_it() {
        let text = BUNDLE.to_owned();
        let at = text.find("-----BEGIN CERTIFICATE").unwrap();
        let (before, after) = text.split_at(at);
        let certificate_end = after.find("-----END CERTIFICATE-----").unwrap() + 26;
        let (certificate, rest) = after.split_at(certificate_end.min(after.len()));
        let key_only = format!("{before}{rest}");
        let encrypted = text.replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE");
        let ec = include_str!("../../../tests/data/keys/ec-P-256.pub.pem");
        for (pem, error) in [
            ("", "holds no PRIVATE KEY block"),
            (certificate, "holds no PRIVATE KEY block"),
            (key_only.as_str(), "holds no CERTIFICATE block"),
            (encrypted.as_str(), "holds an encrypted private key"),
            (
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
                "holds a private key that is not RSA",
            ),
            (ec, "holds no PRIVATE KEY block"),
        ] {
            let found = ClientCertificate::parse(pem).unwrap_err();
            assert!(found.starts_with(error), "{found}");
        }
    }
}
