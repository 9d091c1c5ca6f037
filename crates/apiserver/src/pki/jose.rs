//! Public keys that tokens are checked with, from JSON web keys and from PEM. A key is bound to its kind: an RSA key checks RS
//! and PS signatures alone, a curve its own ES algorithm. Used for ServiceAccount tokens and for those of OIDC issuers.

use auth::jwt::{Algorithm, Jwt};
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "P-256" => Self::P256,
            "P-384" => Self::P384,
            "P-521" => Self::P521,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    pub fn algorithm(self) -> &'static str {
        match self {
            Self::P256 => "ES256",
            Self::P384 => "ES384",
            Self::P521 => "ES512",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    pub fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
            Self::P521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    /// Modulus and exponent, big endian without leading zeros.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// An uncompressed point.
    Ec { curve: Curve, point: Vec<u8> },
}

/// One public key, with the id by which tokens name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub id: String,
    /// The only algorithm it is meant for, if its issuer said.
    algorithm: Option<String>,
    material: Material,
}

impl Key {
    /// A JSON web key; `None` for one that is not for signatures or not understood.
    pub fn from_jwk(jwk: &Value) -> Option<Self> {
        let text = |key: &str| jwk.get(key).and_then(Value::as_str);
        if text("use").is_some_and(|u| u != "sig") {
            return None;
        }
        let bytes = |key: &str| URL_SAFE_NO_PAD.decode(text(key)?.trim_end_matches('=')).ok();
        let material = match text("kty")? {
            "RSA" => rsa(&bytes("n")?, &bytes("e")?)?,
            "EC" => {
                let curve = Curve::named(text("crv")?)?;
                let mut point = vec![4];
                for coordinate in ["x", "y"] {
                    let value = bytes(coordinate)?;
                    point.resize(point.len() + curve.bytes().checked_sub(value.len())?, 0);
                    point.extend(value);
                }
                Material::Ec { curve, point }
            }
            _ => return None,
        };
        Some(Self { id: text("kid").unwrap_or("").to_owned(), algorithm: text("alg").map(str::to_owned), material })
    }

    /// From a `SubjectPublicKeyInfo` in DER. Its id is the hash of it, as upstream's.
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        let (_, info) = SubjectPublicKeyInfo::from_der(der).ok()?;
        let material = match info.parsed().ok()? {
            Parsed::RSA(key) => rsa(key.modulus, key.exponent)?,
            Parsed::EC(point) => {
                let point = point.data().to_vec();
                let curve = [Curve::P256, Curve::P384, Curve::P521].into_iter().find(|c| point.len() == 2 * c.bytes() + 1)?;
                Material::Ec { curve, point }
            }
            _ => return None,
        };
        Some(Self { id: URL_SAFE_NO_PAD.encode(Sha256::digest(der)), algorithm: None, material })
    }

    /// Every key of a PEM file: public ones, certificates', and the public halves of private ones.
    pub fn all_from_pem(pem: &str) -> Vec<Self> {
        let sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok);
        sections.filter_map(|(kind, der)| Self::from_spki(&public_of(kind, der)?)).collect()
    }

    /// Whether a token's signature is this key's.
    pub fn verifies(&self, jwt: &Jwt<'_>) -> bool {
        let message = jwt.signed.as_bytes();
        match &self.material {
            Material::Rsa { n, e } => rsa_parameters(jwt.algorithm)
                .filter(|_| self.fits(jwt.algorithm))
                .is_some_and(|p| RsaPublicKeyComponents { n, e }.verify(p, message, &jwt.signature).is_ok()),
            Material::Ec { curve, point } => {
                let algorithm = match (curve, jwt.algorithm) {
                    (Curve::P256, Algorithm::Es256) => &ECDSA_P256_SHA256_FIXED,
                    (Curve::P384, Algorithm::Es384) => &ECDSA_P384_SHA384_FIXED,
                    (Curve::P521, Algorithm::Es512) => &ECDSA_P521_SHA512_FIXED,
                    _ => return false,
                };
                UnparsedPublicKey::new(algorithm, point).verify(message, &jwt.signature).is_ok()
            }
        }
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithm.as_deref().is_none_or(|name| Algorithm::parse(name) == Some(algorithm))
    }

    /// As the issuer's key set shows it.
    pub fn to_jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &self.material {
            Material::Rsa { n, e } => json!({"use": "sig", "kty": "RSA", "kid": self.id, "alg": "RS256", "n": text(n), "e": text(e)}),
            Material::Ec { curve, point } => {
                let (x, y) = point[1..].split_at(curve.bytes());
                json!({"use": "sig", "kty": "EC", "kid": self.id, "crv": curve.name(), "alg": curve.algorithm(), "x": text(x), "y": text(y)})
            }
        }
    }

    /// The algorithm this server signs with, where the key is its own.
    pub fn signing_algorithm(&self) -> &'static str {
        match &self.material {
            Material::Rsa { .. } => "RS256",
            Material::Ec { curve, .. } => curve.algorithm(),
        }
    }
}

fn rsa(n: &[u8], e: &[u8]) -> Option<Material> {
    let strip = |bytes: &[u8]| bytes.iter().copied().skip_while(|b| *b == 0).collect::<Vec<u8>>();
    let (n, e) = (strip(n), strip(e));
    (n.len() <= 1024 && !n.is_empty() && !e.is_empty() && e.len() <= 8).then_some(Material::Rsa { n, e })
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// The public key's DER in a PEM section.
fn public_of(kind: SectionKind, der: Vec<u8>) -> Option<Vec<u8>> {
    use aws_lc_rs::encoding::AsDer as _;
    match kind {
        SectionKind::PublicKey => Some(der),
        SectionKind::Certificate => {
            let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
            Some(certificate.public_key().raw.to_vec())
        }
        SectionKind::RsaPrivateKey => Some(RsaKeyPair::from_der(&der).ok()?.public_key().as_der().ok()?.as_ref().to_vec()),
        SectionKind::PrivateKey | SectionKind::EcPrivateKey => {
            if let Ok(key) = RsaKeyPair::from_pkcs8(&der) {
                return Some(key.public_key().as_der().ok()?.as_ref().to_vec());
            }
            let (_, key) = ec_key(&der)?;
            Some(key.public_key().as_der().ok()?.as_ref().to_vec())
        }
        _ => None,
    }
}

/// A private key on one of the curves, in either encoding.
pub fn ec_key(der: &[u8]) -> Option<(Curve, EcdsaKeyPair)> {
    [Curve::P256, Curve::P384, Curve::P521].into_iter().find_map(|curve| {
        let algorithm = curve.signing();
        let key = EcdsaKeyPair::from_pkcs8(algorithm, der).or_else(|_| EcdsaKeyPair::from_private_key_der(algorithm, der));
        key.ok().map(|key| (curve, key))
    })
}

/// The keys of a set that a token may be checked with: the one it names, or all where it names none.
pub fn candidates<'a>(keys: &'a [Key], jwt: &'a Jwt<'_>) -> impl Iterator<Item = &'a Key> {
    keys.iter().filter(move |key| jwt.key_id.as_deref().is_none_or(|id| key.id == id))
}
