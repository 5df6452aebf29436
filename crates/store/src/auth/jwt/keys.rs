//! Keys of signed tokens, in the PEM forms that Go's JWT library takes, and what is done with them.
//!
//! Public: SPKI, PKCS#1 or a certificate. Private: PKCS#8, PKCS#1 or SEC1. A secret of HMAC is the file as it is.

use ring::{
    hmac,
    rand::SystemRandom,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair, UnparsedPublicKey},
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use x509_parser::{prelude::FromDer as _, x509::SubjectPublicKeyInfo};

use super::{JwtError, Method};

pub(super) enum Keys {
    Secret(hmac::Key),
    Pair { signer: Option<Signer>, public: UnparsedPublicKey<Vec<u8>> },
}

pub(super) enum Signer {
    Rsa(RsaKeyPair, &'static dyn signature::RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// What a method needs from ring.
enum Family {
    Hmac(hmac::Algorithm),
    Rsa(&'static dyn signature::RsaEncoding, &'static signature::RsaParameters),
    Ecdsa(&'static signature::EcdsaSigningAlgorithm, &'static signature::EcdsaVerificationAlgorithm),
    Ed25519,
}

fn family(method: Method) -> Family {
    match method {
        Method::Hs256 => Family::Hmac(hmac::HMAC_SHA256),
        Method::Hs384 => Family::Hmac(hmac::HMAC_SHA384),
        Method::Hs512 => Family::Hmac(hmac::HMAC_SHA512),
        Method::Rs256 => Family::Rsa(&signature::RSA_PKCS1_SHA256, &signature::RSA_PKCS1_2048_8192_SHA256),
        Method::Rs384 => Family::Rsa(&signature::RSA_PKCS1_SHA384, &signature::RSA_PKCS1_2048_8192_SHA384),
        Method::Rs512 => Family::Rsa(&signature::RSA_PKCS1_SHA512, &signature::RSA_PKCS1_2048_8192_SHA512),
        Method::Ps256 => Family::Rsa(&signature::RSA_PSS_SHA256, &signature::RSA_PSS_2048_8192_SHA256),
        Method::Ps384 => Family::Rsa(&signature::RSA_PSS_SHA384, &signature::RSA_PSS_2048_8192_SHA384),
        Method::Ps512 => Family::Rsa(&signature::RSA_PSS_SHA512, &signature::RSA_PSS_2048_8192_SHA512),
        Method::Es256 => {
            Family::Ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &signature::ECDSA_P256_SHA256_FIXED)
        }
        Method::Es384 => {
            Family::Ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, &signature::ECDSA_P384_SHA384_FIXED)
        }
        Method::EdDsa => Family::Ed25519,
    }
}

impl Keys {
    pub(super) fn new(
        method: Method,
        public: Option<&[u8]>,
        private: Option<&[u8]>,
    ) -> Result<Keys, JwtError> {
        let (kind, verification, point_bytes): (_, &'static dyn signature::VerificationAlgorithm, _) =
            match family(method) {
                Family::Hmac(algorithm) => {
                    let secret = private.filter(|secret| !secret.is_empty()).ok_or(JwtError::MissingKey)?;
                    return Ok(Keys::Secret(hmac::Key::new(algorithm, secret)));
                }
                Family::Rsa(_, verification) => ("RSA", verification, None),
                // An uncompressed point: one byte and two coordinates.
                Family::Ecdsa(_, verification) if method == Method::Es256 => {
                    ("ECDSA", verification, Some(65))
                }
                Family::Ecdsa(_, verification) => ("ECDSA", verification, Some(97)),
                Family::Ed25519 => ("Ed25519", &signature::ED25519, Some(32)),
            };
        let signer = private
            .map(|pem| Signer::read(method, pem).ok_or(JwtError::WrongKey { kind, what: "private" }))
            .transpose()?;
        let given = public
            .map(|pem| {
                public_key(pem, kind)
                    .filter(|key| point_bytes.is_none_or(|size| key.len() == size))
                    .ok_or(JwtError::WrongKey { kind, what: "public" })
            })
            .transpose()?;
        let public = match (signer.as_ref().map(Signer::public), given) {
            (None, None) => return Err(JwtError::MissingKey),
            (Some(own), Some(given)) if own != given => return Err(JwtError::KeyMismatch),
            (Some(key), _) | (None, Some(key)) => key,
        };
        Ok(Keys::Pair { signer, public: UnparsedPublicKey::new(verification, public) })
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, JwtError> {
        match self {
            Keys::Secret(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Keys::Pair { signer: Some(signer), .. } => signer.sign(message).ok_or(JwtError::Sign),
            Keys::Pair { signer: None, .. } => Err(JwtError::VerifyOnly),
        }
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Keys::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Keys::Pair { public, .. } => public.verify(message, signature).is_ok(),
        }
    }
}

impl Signer {
    fn read(method: Method, pem: &[u8]) -> Option<Signer> {
        let key = PrivateKeyDer::from_pem_slice(pem).ok()?;
        match (family(method), &key) {
            (Family::Hmac(_), _) => None,
            (Family::Rsa(encoding, _), PrivateKeyDer::Pkcs1(key)) => {
                Some(Signer::Rsa(RsaKeyPair::from_der(key.secret_pkcs1_der()).ok()?, encoding))
            }
            (Family::Rsa(encoding, _), PrivateKeyDer::Pkcs8(key)) => {
                Some(Signer::Rsa(RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).ok()?, encoding))
            }
            (Family::Ecdsa(algorithm, _), PrivateKeyDer::Pkcs8(key)) => {
                let key = EcdsaKeyPair::from_pkcs8(algorithm, key.secret_pkcs8_der(), &SystemRandom::new());
                Some(Signer::Ecdsa(key.ok()?))
            }
            (Family::Ecdsa(algorithm, _), PrivateKeyDer::Sec1(key)) => {
                let (secret, public) = sec1(key.secret_sec1_der())?;
                let random = SystemRandom::new();
                let key = EcdsaKeyPair::from_private_key_and_public_key(algorithm, secret, public, &random);
                Some(Signer::Ecdsa(key.ok()?))
            }
            (Family::Ed25519, PrivateKeyDer::Pkcs8(key)) => Some(Signer::Ed25519(
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der()).ok()?,
            )),
            (Family::Rsa(..) | Family::Ecdsa(..) | Family::Ed25519, _) => None,
        }
    }

    /// PKCS#1 for RSA, the point otherwise.
    fn public(&self) -> Vec<u8> {
        match self {
            Signer::Rsa(key, _) => key.public_key().as_ref().to_vec(),
            Signer::Ecdsa(key) => key.public_key().as_ref().to_vec(),
            Signer::Ed25519(key) => key.public_key().as_ref().to_vec(),
        }
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Signer::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(*encoding, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Signer::Ecdsa(key) => Some(key.sign(&random, message).ok()?.as_ref().to_vec()),
            Signer::Ed25519(key) => Some(key.sign(message).as_ref().to_vec()),
        }
    }
}

/// The public key in a PEM text, in the form that ring takes: PKCS#1 for RSA, the point otherwise.
fn public_key(pem: &[u8], kind: &str) -> Option<Vec<u8>> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let info = match pem.label.as_str() {
        "RSA PUBLIC KEY" => return (kind == "RSA").then_some(pem.contents),
        "PUBLIC KEY" => SubjectPublicKeyInfo::from_der(&pem.contents).ok()?.1,
        "CERTIFICATE" => pem.parse_x509().ok()?.tbs_certificate.subject_pki,
        _ => return None,
    };
    // Source: RFC 8017, RFC 5480, RFC 8410.
    let expected = match kind {
        "RSA" => "1.2.840.113549.1.1.1",
        "ECDSA" => "1.2.840.10045.2.1",
        _ => "1.3.101.112",
    };
    (info.algorithm.algorithm.to_id_string() == expected).then(|| info.subject_public_key.data.to_vec())
}

/// Secret and public point of a SEC1 key. Source: RFC 5915.
fn sec1(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, key) = x509_parser::der_parser::parse_der(der).ok()?;
    let items = key.as_sequence().ok()?;
    let secret = items.get(1)?.as_slice().ok()?;
    let tagged = items.iter().skip(2).find(|item| item.header.tag().0 == 1)?;
    let (_, public) = x509_parser::der_parser::parse_der(tagged.as_slice().ok()?).ok()?;
    let public = public.as_bitstring().ok()?.data;
    // The point lies inside `der`: a slice of it lives as long.
    let start = der.windows(public.len()).position(|window| window == public)?;
    Some((secret, &der[start..start + public.len()]))
}
