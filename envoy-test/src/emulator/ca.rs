//! A certificate authority for one test run. Its key never leaves the process.

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A root certificate and its key.
pub struct TestCa {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl TestCa {
    /// Makes a new root.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "azure-key-vault-filter test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().context("making the test CA's key")?;
        let certificate = params.self_signed(&key).context("signing the test CA")?;
        Ok(Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The root certificate, for clients that are to trust it.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// As [`TestCa::issue`], but signed by an intermediate authority, which comes second in the chain.
    ///
    /// # Errors
    /// When a name is not one.
    pub fn issue_with_intermediate(
        &self,
        names: &[&str],
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(
            DnType::CommonName,
            "azure-key-vault-filter test intermediate CA",
        );
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().context("making the intermediate CA's key")?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context("signing the intermediate CA")?;
        let intermediate = Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        };
        let (leaf, key) = intermediate.issue(names)?;
        Ok((vec![leaf, certificate.der().clone()], key))
    }

    /// A server certificate for these DNS names and addresses, with its key.
    ///
    /// # Errors
    /// When a name is not one.
    pub fn issue(
        &self,
        names: &[&str],
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let params = CertificateParams::new(names).context("the certificate's names")?;
        let key = KeyPair::generate().context("making the server's key")?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context("signing the server's certificate")?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        Ok((certificate.der().clone(), key))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    #[test]
    fn a_chain_is_good_only_with_its_intermediate() {
        let ca = TestCa::new().unwrap();
        let (chain, _) = ca.issue_with_intermediate(&["localhost"]).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let good = |others: &[CertificateDer<'_>]| {
            verifier
                .verify_server_cert(&chain[0], others, &name, &[], UnixTime::now())
                .is_ok()
        };
        assert!(good(&chain[1..]));
        assert!(!good(&[]));
    }
}
