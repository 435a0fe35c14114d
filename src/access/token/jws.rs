//! Signed tokens (RFC 7515, RFC 7519) and the public keys that prove them (RFC 7517).
//!
//! The signatures themselves are checked by `ring`. The library for tokens would bring a second
//! base64, a provider of cryptography for the whole process that panics where none was installed,
//! and algorithms that must not be there: this is the small part of it that a gateway needs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::Algorithm;

/// Longer ones are not looked at.
const LONGEST: usize = 16 * 1024;
/// Longer ones name nothing that an issuer would.
const LONGEST_KID: usize = 256;
/// More are not looked at.
const MOST_KEYS: usize = 100;

/// What a token says, none of which is proven.
#[derive(Debug)]
pub(super) struct Claimed<'a> {
    pub(super) header: Header,
    pub(super) claims: Map<String, Value>,
    /// What is signed: the text of header and claims.
    signed: &'a str,
    signature: Vec<u8>,
}

/// A field that is written twice is an error, so that no two readers can differ about it.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    alg: String,
    pub(super) kid: Option<String>,
    typ: Option<String>,
    /// Extensions that whoever reads it has to know. None is known here.
    crit: Option<Value>,
}

/// One public key of an issuer.
#[derive(Debug)]
pub(super) struct Key {
    kid: Option<String>,
    /// The only algorithm it is for, if it says so.
    alg: Option<Algorithm>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// A key as it is published.
#[derive(Debug, Deserialize)]
struct Published {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Whether it is built like a token: what is not costs nothing more.
pub(super) fn is_like(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.len() <= LONGEST
        && text.starts_with("eyJ")
        && text.bytes().filter(|byte| *byte == b'.').count() == 2
        && text.bytes().all(plain)
}

// === impl Claimed ===

impl<'a> Claimed<'a> {
    /// Takes a token apart; `None` if it is none.
    pub(super) fn read(token: &'a str) -> Option<Self> {
        if !is_like(token) {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
        let kid = header.kid.as_deref();
        if header.crit.is_some() || kid.is_some_and(|kid| kid.len() > LONGEST_KID) {
            return None;
        }
        let claims = serde_json::from_slice(&decode(claims)?).ok()?;
        Some(Self { header, claims, signed, signature: decode(signature)? })
    }

    /// The issuer it names.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }

    /// Whether this key has signed it.
    pub(super) fn is_proven_by(&self, key: &Key, algorithm: Algorithm) -> bool {
        let (signed, proof) = (self.signed.as_bytes(), self.signature.as_slice());
        let raw = |how: &'static dyn VerificationAlgorithm, point: &[u8]| {
            UnparsedPublicKey::new(how, point).verify(signed, proof).is_ok()
        };
        match (&key.material, algorithm) {
            (Material::Rsa { n, e }, algorithm) => rsa(algorithm).is_some_and(|how| {
                RsaPublicKeyComponents { n, e }.verify(how, signed, proof).is_ok()
            }),
            (Material::P256(point), Algorithm::Es256) => {
                raw(&signature::ECDSA_P256_SHA256_FIXED, point)
            }
            (Material::P384(point), Algorithm::Es384) => {
                raw(&signature::ECDSA_P384_SHA384_FIXED, point)
            }
            (Material::Ed25519(point), Algorithm::EdDsa) => raw(&signature::ED25519, point),
            (Material::P256(_) | Material::P384(_) | Material::Ed25519(_), _) => false,
        }
    }
}

/// At least 2048 bits.
fn rsa(algorithm: Algorithm) -> Option<&'static signature::RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => None,
    }
}

// === impl Header ===

impl Header {
    /// How it is signed, if that is one of these ways.
    pub(super) fn algorithm(&self, allowed: &[Algorithm]) -> Option<Algorithm> {
        Algorithm::named(&self.alg).filter(|algorithm| allowed.contains(algorithm))
    }

    /// Whether it is a token that speaks for somebody: issuers sign others too, such as notices of
    /// a logout, with the same keys.
    pub(super) fn is_credential(&self) -> bool {
        let Some(kind) = self.typ.as_deref() else { return true };
        let kind = kind.to_ascii_lowercase();
        matches!(kind.strip_prefix("application/").unwrap_or(&kind), "jwt" | "at+jwt")
    }
}

// === impl Key ===

impl Key {
    /// The keys of a set, without those that are not for signatures or of an unknown sort; `None`
    /// if it is no set.
    pub(super) fn read_all(set: &[u8]) -> Option<Vec<Self>> {
        let set: Value = serde_json::from_slice(set).ok()?;
        let keys = set.get("keys")?.as_array()?;
        Some(keys.iter().take(MOST_KEYS).filter_map(Self::read).collect())
    }

    fn read(value: &Value) -> Option<Self> {
        let Published { kty, kid, alg, purpose, crv, n, e, x, y } =
            Published::deserialize(value).ok()?;
        if purpose.is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        // A key for something that is not known here is for nothing else.
        let alg = alg.map(|alg| Algorithm::named(&alg).ok_or(())).transpose().ok()?;
        let material = match (&*kty, crv.as_deref()) {
            ("RSA", _) => Material::Rsa { n: number(&n?)?, e: number(&e?)? },
            ("EC", Some("P-256")) => Material::P256(point(&x?, &y?, 32)?),
            ("EC", Some("P-384")) => Material::P384(point(&x?, &y?, 48)?),
            ("OKP", Some("Ed25519")) => {
                Material::Ed25519(decode(&x?).filter(|point| point.len() == 32)?)
            }
            _ => return None,
        };
        Some(Self { kid, alg, material })
    }

    /// Whether it may have signed what bears this header in this way.
    pub(super) fn fits(&self, header: &Header, algorithm: Algorithm) -> bool {
        let sort = match self.material {
            Material::Rsa { .. } => rsa(algorithm).is_some(),
            Material::P256(_) => algorithm == Algorithm::Es256,
            Material::P384(_) => algorithm == Algorithm::Es384,
            Material::Ed25519(_) => algorithm == Algorithm::EdDsa,
        };
        let named = header.kid.is_none() || header.kid == self.kid;
        sort && named && self.alg.is_none_or(|only| only == algorithm)
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Some issuers put a zero in front of what could be read as negative.
fn number(text: &str) -> Option<Vec<u8>> {
    let bytes = decode(text)?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes[first..].to_vec())
}

fn point(x: &str, y: &str, width: usize) -> Option<Vec<u8>> {
    let mut point = vec![4];
    for coordinate in [decode(x)?, decode(y)?] {
        if coordinate.len() != width {
            return None;
        }
        point.extend(coordinate);
    }
    Some(point)
}
