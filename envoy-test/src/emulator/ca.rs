//! A certificate authority for one test run. Its key leaves the process only for an emulator that is to have the
//! same authority when it is restarted.

use anyhow::{Context as _, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _,
};
use rustls::pki_types::pem::PemObject as _;
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
        let params = root();
        let key = KeyPair::generate().context("making the test CA's key")?;
        let certificate = params.self_signed(&key).context("signing the test CA")?;
        Ok(Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The root that was made before and kept: [`TestCa::pem`] and [`TestCa::key_pem`].
    ///
    /// # Errors
    /// When they are not PEM, or not of one root.
    pub fn load(pem: &str, key: &str) -> Result<Self> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .context("the kept authority's certificate")?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der)
            .context("the kept authority's certificate")?;
        let key = KeyPair::from_pem(key).context("the kept authority's key")?;
        ensure!(
            certificate.public_key().raw == key.subject_public_key_info(),
            "the kept authority's certificate is of another key"
        );
        Ok(Self {
            pem: pem.to_owned(),
            issuer: Issuer::new(root(), key),
        })
    }

    /// The root's key, for [`TestCa::load`].
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
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

/// What is the same of every root.
fn root() -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "azure-key-vault-filter test CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    #[test]
    fn a_chain_is_good_only_with_its_intermediate() {
        let ca = TestCa::new().unwrap();
        let (chain, _) = ca.issue_with_intermediate(&["localhost"]).unwrap();
        assert!(trusts(&ca, &chain[0], &chain[1..]));
        assert!(!trusts(&ca, &chain[0], &[]));
    }

    /// A gateway that read the root's file before the emulator was restarted trusts it still.
    #[test]
    fn a_root_that_was_kept_is_the_same_root() {
        let before = TestCa::new().unwrap();
        let after = TestCa::load(before.pem(), &before.key_pem()).unwrap();
        assert_eq!(after.pem(), before.pem());
        let (leaf, _) = after.issue(&["localhost"]).unwrap();
        assert!(trusts(&before, &leaf, &[]));
        let other = TestCa::new().unwrap();
        assert!(!trusts(&other, &leaf, &[]));
        assert!(TestCa::load(before.pem(), &other.key_pem()).is_err());
        assert!(TestCa::load("", &before.key_pem()).is_err());
    }

    fn trusts(ca: &TestCa, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> bool {
        let mut roots = rustls::RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        verifier
            .verify_server_cert(leaf, others, &name, &[], UnixTime::now())
            .is_ok()
    }
}
