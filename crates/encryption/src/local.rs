//! Ciphers with keys of the configuration: aescbc, aesgcm, secretbox, and the key derivation of KMS v2. The formats are
//! upstream's `encrypt/aes` and `encrypt/secretbox`.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::cipher::{self, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::hkdf;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand;
use crypto_secretbox::aead::Aead as _;
use crypto_secretbox::{KeyInit as _, XSalsa20Poly1305};

use crate::{Error, Result};

const BLOCK: usize = 16;
const BOX_NONCE: usize = 24;
/// What makes each data key of a KMS seed another one.
const INFO: usize = 32;

/// A cipher and its key. Its debug form keeps the key to itself.
#[derive(Clone, PartialEq, Eq)]
pub enum Cipher {
    AesCbc(Vec<u8>),
    AesGcm(Vec<u8>),
    SecretBox(Vec<u8>),
    /// AES-GCM, each value with a key of its own derived from this seed.
    Derived(Vec<u8>),
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AesCbc(_) => "AesCbc",
            Self::AesGcm(_) => "AesGcm",
            Self::SecretBox(_) => "SecretBox",
            Self::Derived(_) => "Derived",
        })
    }
}

fn failed(what: &str) -> Error {
    Error::Transform(what.to_owned())
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| failed("no randomness"))?;
    Ok(bytes)
}

/// 32 random bytes.
pub fn seed() -> Result<Vec<u8>> {
    random::<32>().map(|s| s.to_vec())
}

impl Cipher {
    /// The stored form of a value, without any prefix. `context`: what is authenticated with it, where the cipher can.
    pub fn seal(&self, plain: &[u8], context: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::AesCbc(key) => {
                let key = PaddedBlockEncryptingKey::cbc_pkcs7(cbc_key(key)?).map_err(|_| failed("invalid key"))?;
                let mut data = plain.to_vec();
                let context = key.encrypt(&mut data).map_err(|_| failed("encryption failed"))?;
                let iv: &[u8] = (&context).try_into().map_err(|_| failed("encryption failed"))?;
                Ok([iv, &data].concat())
            }
            Self::AesGcm(key) => gcm_seal(key, plain, context),
            Self::SecretBox(key) => {
                let cipher = XSalsa20Poly1305::new_from_slice(key).map_err(|_| failed("invalid key"))?;
                let nonce: [u8; BOX_NONCE] = random()?;
                let sealed = cipher.encrypt(&nonce.into(), plain).map_err(|_| failed("encryption failed"))?;
                Ok([&nonce[..], &sealed].concat())
            }
            Self::Derived(seed) => {
                let info: [u8; INFO] = random()?;
                let sealed = gcm_seal(&derive(seed, &info)?, plain, context)?;
                Ok([&info[..], &sealed].concat())
            }
        }
    }

    /// The value of a stored form.
    pub fn open(&self, stored: &[u8], context: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::AesCbc(key) => {
                let short = || failed("the stored data was shorter than the required size");
                let (iv, data) = stored.split_at_checked(BLOCK).ok_or_else(short)?;
                if data.is_empty() || data.len() % BLOCK != 0 {
                    return Err(failed("the stored data is not a multiple of the block size"));
                }
                let iv: [u8; BLOCK] = iv.try_into().map_err(|_| failed("decryption failed"))?;
                let key = PaddedBlockDecryptingKey::cbc_pkcs7(cbc_key(key)?).map_err(|_| failed("invalid key"))?;
                let mut data = data.to_vec();
                let context = DecryptionContext::Iv128(FixedLength::from(iv));
                let plain = key.decrypt(&mut data, context).map_err(|_| failed("invalid padding on input"))?;
                Ok(plain.to_vec())
            }
            Self::AesGcm(key) => gcm_open(key, stored, context),
            Self::SecretBox(key) => {
                let short = || failed("the stored data was shorter than the required size");
                let (nonce, sealed) = stored.split_at_checked(BOX_NONCE).ok_or_else(short)?;
                let nonce: [u8; BOX_NONCE] = nonce.try_into().map_err(|_| failed("decryption failed"))?;
                let cipher = XSalsa20Poly1305::new_from_slice(key).map_err(|_| failed("invalid key"))?;
                cipher.decrypt(&nonce.into(), sealed).map_err(|_| failed("output array was not large enough for encryption"))
            }
            Self::Derived(seed) => {
                let short = || failed("the stored data was shorter than the required size");
                let (info, sealed) = stored.split_at_checked(INFO).ok_or_else(short)?;
                gcm_open(&derive(seed, info)?, sealed, context)
            }
        }
    }
}

fn cbc_key(key: &[u8]) -> Result<UnboundCipherKey> {
    let algorithm = match key.len() {
        16 => &cipher::AES_128,
        24 => &cipher::AES_192,
        _ => &cipher::AES_256,
    };
    UnboundCipherKey::new(algorithm, key).map_err(|_| failed("invalid key"))
}

fn gcm_key(key: &[u8]) -> Result<LessSafeKey> {
    let algorithm = match key.len() {
        16 => &aead::AES_128_GCM,
        24 => &aead::AES_192_GCM,
        _ => &aead::AES_256_GCM,
    };
    UnboundKey::new(algorithm, key).map(LessSafeKey::new).map_err(|_| failed("invalid key"))
}

fn gcm_seal(key: &[u8], plain: &[u8], context: &[u8]) -> Result<Vec<u8>> {
    let key = gcm_key(key)?;
    let nonce: [u8; NONCE_LEN] = random()?;
    let mut sealed = plain.to_vec();
    let sealing = key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut sealed);
    sealing.map_err(|_| failed("encryption failed"))?;
    Ok([&nonce[..], &sealed].concat())
}

fn gcm_open(key: &[u8], stored: &[u8], context: &[u8]) -> Result<Vec<u8>> {
    let short = || failed("the stored data was shorter than the required size");
    let (nonce, sealed) = stored.split_at_checked(NONCE_LEN).ok_or_else(short)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed("decryption failed"))?;
    let mut data = sealed.to_vec();
    let opened = gcm_key(key)?.open_in_place(nonce, Aad::from(context), &mut data);
    Ok(opened.map_err(|_| failed("cipher: message authentication failed"))?.to_vec())
}

struct KeyLength;

impl hkdf::KeyType for KeyLength {
    fn len(&self) -> usize {
        32
    }
}

/// HKDF-Expand with SHA-256: the seed is random, so there is nothing to extract.
fn derive(seed: &[u8], info: &[u8]) -> Result<[u8; 32]> {
    let key = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, seed);
    let mut out = [0; 32];
    let info = [info];
    let expanded = key.expand(&info, KeyLength).map_err(|_| failed("the key cannot be derived"))?;
    expanded.fill(&mut out).map_err(|_| failed("the key cannot be derived"))?;
    Ok(out)
}
