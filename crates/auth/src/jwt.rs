//! Reading a JSON web token apart: header, claims, what was signed. Nothing here says that a token is genuine: whoever has the
//! keys checks [`Jwt::signature`] over [`Jwt::signed`] with exactly [`Jwt::algorithm`], and the claims after that.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// More than any header can carry that a server takes.
const BYTES_MAX: usize = 256 * 1024;

/// The signature algorithms upstream takes. There is no `none`, and no secret shared with the issuer: a public key must never
/// be good as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
}

impl Algorithm {
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            _ => return None,
        })
    }
}

/// A token that reads well. Not printed: it is a secret.
pub struct Jwt<'a> {
    pub algorithm: Algorithm,
    pub key_id: Option<String>,
    /// An object.
    pub claims: Value,
    /// Header and claims as they were signed.
    pub signed: &'a str,
    pub signature: Vec<u8>,
}

/// Why text is no token. Says nothing of its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    TooLong,
    /// Not three parts.
    Parts,
    Encoding,
    Header,
    /// None that is taken here.
    Algorithm,
    /// The header demands extensions.
    Critical,
    Claims,
}

/// Reads a compact token.
pub fn parse(token: &str) -> Result<Jwt<'_>, Malformed> {
    if token.len() > BYTES_MAX {
        return Err(Malformed::TooLong);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(Malformed::Parts)?;
    let (header, claims) = signed.split_once('.').ok_or(Malformed::Parts)?;
    if claims.contains('.') {
        return Err(Malformed::Parts);
    }
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| Malformed::Encoding);
    let header: Value = serde_json::from_slice(&bytes(header)?).map_err(|_| Malformed::Header)?;
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::parse).ok_or(Malformed::Algorithm)?;
    if header.get("crit").is_some() || header.get("b64").is_some() {
        return Err(Malformed::Critical);
    }
    let key_id = header.get("kid").and_then(Value::as_str).filter(|k| !k.is_empty()).map(str::to_owned);
    let claims: Value = serde_json::from_slice(&bytes(claims)?).map_err(|_| Malformed::Claims)?;
    if !claims.is_object() {
        return Err(Malformed::Claims);
    }
    Ok(Jwt { algorithm, key_id, claims, signed, signature: bytes(signature)? })
}

/// The issuer a token names, before anything about it is known to be true: which keys to try.
pub fn issuer(token: &str) -> Option<String> {
    let jwt = parse(token).ok()?;
    jwt.claims.get("iss")?.as_str().map(str::to_owned)
}

/// `aud`: one text or a list of texts.
pub fn audiences(claims: &Value) -> Vec<String> {
    match claims.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// A claim is there that is no date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoDate;

/// A NumericDate in seconds; the fraction is dropped.
pub fn date(claims: &Value, name: &str) -> Result<Option<i64>, NoDate> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(n)) => {
            // Far outside any time, where a float would lose its seconds.
            let float = || n.as_f64().filter(|f| f.abs() < 1e15).map(|f| f.floor());
            #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
            n.as_i64().or_else(|| float().map(|f| f as i64)).map(Some).ok_or(NoDate)
        }
        Some(_) => Err(NoDate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn token(header: &Value, claims: &str) -> String {
        format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims), URL_SAFE_NO_PAD.encode("sig"))
    }

    #[test]
    fn a_token_comes_apart() {
        let text = token(&json!({"alg": "ES256", "kid": "k"}), r#"{"iss":"i","aud":"a","exp":1.5}"#);
        let jwt = parse(&text).ok().unwrap();
        assert_eq!((jwt.algorithm, jwt.key_id.as_deref(), jwt.signature.as_slice()), (Algorithm::Es256, Some("k"), &b"sig"[..]));
        assert_eq!(issuer(&text).as_deref(), Some("i"));
        assert_eq!(audiences(&jwt.claims), ["a"]);
        assert_eq!((date(&jwt.claims, "exp"), date(&jwt.claims, "nbf")), (Ok(Some(1)), Ok(None)));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for (text, why) in [
            (String::new(), Malformed::Parts),
            ("a.b".to_owned(), Malformed::Parts),
            ("a.b.c.d".to_owned(), Malformed::Parts),
            ("!.e30.e30".to_owned(), Malformed::Encoding),
            (format!("{}.", "a".repeat(BYTES_MAX)), Malformed::TooLong),
            (token(&json!({"alg": "none"}), "{}"), Malformed::Algorithm),
            (token(&json!({"alg": "None"}), "{}"), Malformed::Algorithm),
            (token(&json!({"alg": "HS256"}), "{}"), Malformed::Algorithm),
            (token(&json!({"alg": "rs256"}), "{}"), Malformed::Algorithm),
            (token(&json!({"alg": ["RS256"]}), "{}"), Malformed::Algorithm),
            (token(&json!({}), "{}"), Malformed::Algorithm),
            (token(&json!([]), "{}"), Malformed::Algorithm),
            (token(&json!({"alg": "RS256", "crit": ["exp"]}), "{}"), Malformed::Critical),
            (token(&json!({"alg": "RS256"}), "[]"), Malformed::Claims),
            (token(&json!({"alg": "RS256"}), "{"), Malformed::Claims),
            (token(&json!({"alg": "RS256"}), &"[".repeat(100_000)), Malformed::Claims),
        ] {
            assert_eq!(parse(&text).err(), Some(why), "{}", &text[..text.len().min(60)]);
        }
    }

    #[test]
    fn odd_dates_are_no_dates() {
        for (claims, want) in [
            (json!({"exp": "1"}), Err(NoDate)),
            (json!({"exp": 1e300}), Err(NoDate)),
            (json!({"exp": -1}), Ok(Some(-1))),
            (json!({"exp": null}), Ok(None)),
            (json!({"exp": {}}), Err(NoDate)),
        ] {
            assert_eq!(date(&claims, "exp"), want, "{claims}");
        }
    }
}
