//! A pod that checks a token of its own against what the issuer publishes, as anyone who trusts the cluster's issuer would.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::fetch::fetch;

const OWN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The token to check, for an audience of its own.
const TOKEN: &str = "/var/run/secrets/tokens/sa-token";
const AUDIENCE: &str = "oidc-discovery-test";

fn decoded(part: &str) -> Result<Vec<u8>> {
    Ok(URL_SAFE_NO_PAD.decode(part)?)
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("no {key} in {value}"))
}

pub async fn run() -> Result<()> {
    let (roots, own) = (fs::read(format!("{OWN}/ca.crt"))?, fs::read_to_string(format!("{OWN}/token"))?);
    let token = fs::read_to_string(TOKEN)?;
    let parts: Vec<&str> = token.trim().split('.').collect();
    let [head, claims, signature] = parts[..] else { bail!("no JWT") };
    let (header, claims): (Value, Value) = (serde_json::from_slice(&decoded(head)?)?, serde_json::from_slice(&decoded(claims)?)?);
    let issuer = text(&claims, "iss")?;
    let document: Value = serde_json::from_slice(&fetch(&format!("{issuer}/.well-known/openid-configuration"), &roots, own.trim()).await?)?;
    ensure!(document["issuer"] == issuer, "another issuer: {document}");
    let keys: Value = serde_json::from_slice(&fetch(text(&document, "jwks_uri")?, &roots, own.trim()).await?)?;
    let key = keys["keys"].as_array().into_iter().flatten().find(|k| k["kid"] == header["kid"]).context("no such key")?;
    let signed = token.trim().rsplit_once('.').context("no signature")?.0;
    verify(key, text(&header, "alg")?, signed.as_bytes(), &decoded(signature)?)?;
    let audiences = claims["aud"].as_array().context("no audience")?;
    ensure!(audiences.len() == 1 && audiences[0] == AUDIENCE, "another audience: {claims}");
    println!("OK: validated token of {}", text(&claims, "sub")?);
    Ok(())
}

fn verify(key: &Value, algorithm: &str, signed: &[u8], signature: &[u8]) -> Result<()> {
    let part = |name: &str| decoded(text(key, name)?);
    let valid = match algorithm {
        "RS256" => PublicKeyComponents { n: part("n")?, e: part("e")? }.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature).is_ok(),
        "ES256" => {
            let point = [vec![4], part("x")?, part("y")?].concat();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature).is_ok()
        }
        other => bail!("algorithm {other}"),
    };
    ensure!(valid, "the signature is wrong");
    Ok(())
}
