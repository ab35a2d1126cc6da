//! Forms made here against the same made by OpenSSL. The keys are for these tests only.

use serde_json::Value;

use super::*;

macro_rules! data {
    ($name:literal) => {
        include_str!(concat!("../../../tests/data/keys/", $name))
    };
}

fn keys(path: &str) -> Vec<String> {
    path.split('/')
        .filter(|k| !k.is_empty())
        .map(ToOwned::to_owned)
        .collect()
}

fn text(form: Form, object: &str) -> Result<String, Reason> {
    make(form, object.as_bytes(), 2_048).map(|made| String::from_utf8(made.to_vec()).unwrap())
}

#[test]
fn certificates_and_private_keys_are_openssls() {
    assert_eq!(
        text(Form::CertificatePem, data!("cert.cer.b64")).unwrap(),
        data!("cert.pem")
    );
    assert_eq!(
        text(Form::PrivateKeyPem, data!("bundle.pem")).unwrap(),
        data!("rsa.key")
    );
    assert_eq!(
        text(Form::PrivateKeyPem, data!("cert.pem")),
        Err(Reason::NoSuchKey)
    );
    assert_eq!(
        text(Form::Pkcs12, data!("legacy.p12.b64")).unwrap(),
        data!("legacy.p12.b64")
    );
    assert_eq!(
        text(Form::Pkcs12, data!("bundle.pem")),
        Err(Reason::NoSuchKey)
    );
    assert_eq!(
        text(Form::PrivateKeyPem, "not base64!"),
        Err(Reason::NotBase64)
    );
}

#[cfg(feature = "pkcs12")]
#[test]
fn private_keys_come_out_of_pkcs12_old_and_new() {
    for archive in [data!("legacy.p12.b64"), data!("modern.p12.b64")] {
        assert_eq!(
            text(Form::PrivateKeyPem, archive).unwrap(),
            data!("rsa.key")
        );
    }
    assert_eq!(text(Form::PrivateKeyPem, "AAAA"), Err(Reason::BadAnswer));
}

#[cfg(not(feature = "pkcs12"))]
#[test]
fn without_pkcs12_the_reason_is_said() {
    assert_eq!(
        text(Form::PrivateKeyPem, data!("modern.p12.b64")),
        Err(Reason::NeedsPkcs12)
    );
}

#[test]
fn public_keys_are_openssls() {
    let jwks: Value = serde_json::from_str(data!("jwks.json")).unwrap();
    for (name, pem) in [
        ("rsa", data!("rsa.pub.pem")),
        ("ec-P-256", data!("ec-P-256.pub.pem")),
        ("ec-P-384", data!("ec-P-384.pub.pem")),
        ("ec-P-521", data!("ec-P-521.pub.pem")),
        ("ec-P-256K", data!("ec-P-256K.pub.pem")),
    ] {
        let mut jwk = jwks[name].clone();
        assert_eq!(
            text(Form::PublicKeyPem, &jwk.to_string()).unwrap(),
            pem,
            "{name}"
        );
        jwk["kty"] = format!("{}-HSM", jwk["kty"].as_str().unwrap()).into();
        assert_eq!(
            text(Form::PublicKeyPem, &jwk.to_string()).unwrap(),
            pem,
            "{name}"
        );
    }
    for bad in [
        "",
        "{}",
        r#"{"kty":"oct"}"#,
        r#"{"kty":"RSA","n":"!"}"#,
        r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#,
    ] {
        assert_eq!(
            text(Form::PublicKeyPem, bad),
            Err(Reason::NoSuchKey),
            "{bad}"
        );
    }
}

#[test]
fn each_kind_has_its_parts() {
    use Collection::{Certificates, Keys, Secrets};
    for (kind, path, expected) in [
        (Kind::Secrets, "", Some((Secrets, Form::Text))),
        (Kind::Secrets, "a/b", Some((Secrets, Form::Text))),
        (
            Kind::Certificates,
            "",
            Some((Certificates, Form::CertificatePem)),
        ),
        (
            Kind::Certificates,
            "certificate",
            Some((Certificates, Form::CertificatePem)),
        ),
        (Kind::Certificates, "der", Some((Certificates, Form::Text))),
        (
            Kind::Certificates,
            "private_key",
            Some((Secrets, Form::PrivateKeyPem)),
        ),
        (Kind::Certificates, "pkcs12", Some((Secrets, Form::Pkcs12))),
        (Kind::Certificates, "key", None),
        (Kind::Certificates, "private_key/x", None),
        (Kind::Keys, "", Some((Keys, Form::Text))),
        (Kind::Keys, "jwk", Some((Keys, Form::Text))),
        (Kind::Keys, "pem", Some((Keys, Form::PublicKeyPem))),
        (Kind::Keys, "kid", Some((Keys, Form::Text))),
    ] {
        assert_eq!(kind.locate(&keys(path)), expected, "{kind:?} {path}");
    }
    assert_eq!(Kind::Keys.keys_in_text(&keys("kid")), keys("kid"));
    for (kind, path) in [
        (Kind::Keys, "jwk"),
        (Kind::Keys, ""),
        (Kind::Certificates, "der"),
    ] {
        assert!(kind.keys_in_text(&keys(path)).is_empty());
    }
}
