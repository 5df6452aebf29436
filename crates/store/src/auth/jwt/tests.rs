//! Signed tokens: every method, every way to be refused.

use std::path::Path;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use tempfile::TempDir;

use super::*;

fn write(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    Path::to_str(&path).unwrap().to_owned()
}

#[test]
fn a_token_of_each_method_is_taken_only_while_it_is_fresh_and_unchanged() {
    let folder = TempDir::new().unwrap();
    let secret = write(&folder, "secret", "any bytes will do");
    let mut cases = vec![("HS256", secret.clone(), None), ("HS512", secret, None)];
    for (method, algorithm) in
        [("ES256", &PKCS_ECDSA_P256_SHA256), ("ES384", &PKCS_ECDSA_P384_SHA384), ("EdDSA", &PKCS_ED25519)]
    {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let private = write(&folder, &format!("{method}.key"), &key.serialize_pem());
        cases.push((method, private, Some(write(&folder, &format!("{method}.pub"), &key.public_key_pem()))));
    }
    for (method, private, public) in cases {
        let jwt = Jwt::from_options(&format!("priv-key={private},sign-method={method},ttl=10s")).unwrap();
        let token = jwt.issue_at("ana", 7, 1000).unwrap();
        let claims = Claims { name: "ana".to_owned(), auth_revision: 7 };
        assert_eq!(jwt.verify_at(&token, 1010), Some(claims), "{method}");
        assert_eq!(jwt.verify_at(&token, 1011), None, "{method}: too old");
        let (start, _) = token.rsplit_once('.').unwrap();
        let (header, _) = start.split_once('.').unwrap();
        let other = jwt.issue_at("root", 7, 1000).unwrap();
        let (_, signature) = other.rsplit_once('.').unwrap();
        assert_eq!(jwt.verify_at(&format!("{start}.{signature}"), 1000), None, "{method}: another signature");
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        assert_eq!(jwt.verify_at(&token.replace(header, &none), 1000), None, "{method}: another method");
        for junk in ["", ".", "..", "a.b.c", &"x".repeat(5000), &token[1..], &token[..token.len() - 9]] {
            assert_eq!(jwt.verify_at(junk, 1000), None, "{method}: {junk}");
        }
        let Some(public) = public else { continue };
        let verifier = Jwt::from_options(&format!("pub-key={public},sign-method={method}")).unwrap();
        assert_eq!(verifier.verify_at(&token, 1000).unwrap().auth_revision, 7, "{method}");
        let error = verifier.issue("ana", 7).unwrap_err().to_string();
        assert_eq!(error, "auth: token signing attempted with verify-only key");
    }
}

#[test]
fn wrong_options_are_refused_with_etcds_texts() {
    let folder = TempDir::new().unwrap();
    let key = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let private = write(&folder, &format!("{name}.key"), &key.serialize_pem());
        (private, write(&folder, &format!("{name}.pub"), &key.public_key_pem()))
    };
    let ((private, public), (_, other)) = (key("one"), key("two"));
    for (options, text) in [
        ("sign-method".to_owned(), "auth: invalid auth options"),
        (format!("priv-key={private}"), "auth: invalid auth signature method"),
        (format!("priv-key={private},sign-method=XX"), "auth: invalid auth signature method"),
        (format!("priv-key={private},sign-method=ES256,ttl=x"), "auth: invalid auth options"),
        ("sign-method=ES256".to_owned(), "auth: missing key data"),
        ("sign-method=HS256".to_owned(), "auth: missing key data"),
        (
            format!("pub-key={other},priv-key={private},sign-method=ES256"),
            "auth: public and private keys don't match",
        ),
        (format!("priv-key={private},sign-method=RS256"), "key is not a valid RSA private key"),
        (format!("pub-key={public},sign-method=ES384"), "key is not a valid ECDSA public key"),
    ] {
        assert_eq!(Jwt::from_options(&options).unwrap_err().to_string(), text, "{options}");
    }
    let missing = Jwt::from_options("priv-key=/nonexistent/key,sign-method=ES256").unwrap_err();
    assert!(missing.to_string().starts_with("open /nonexistent/key: "), "{missing}");
    let both = format!("pub-key={public},priv-key={private},sign-method=ES256");
    assert!(Jwt::from_options(&both).is_ok());
}
