//! Image references: `image('registry.k8s.io/pause:3.10').tag()`.

use std::sync::Arc;

use crate::decls::Row;
use crate::error::EvalError;
use crate::library::str_arg;
use crate::opaque::{ImageReference, Opaque};
use crate::regexes::Regexes;
use crate::value::Value;

type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(crate) const ROWS: &[Row] = &[
    ("image", make, &[("string_to_image", "(string) -> Image")]),
    ("isImage", |_, a| Ok(Value::Bool(parse(str_arg(&a[0])?).is_ok())), &[("is_image_string", "(string) -> bool")]),
    ("containsDigest", |_, a| Ok(Value::Bool(!image(&a[0])?.digest.is_empty())), &[("image_contains_digest", "Image.() -> bool")]),
    ("registry", |_, a| Ok(Value::string(&*image(&a[0])?.registry)), &[("image_registry", "Image.() -> string")]),
    ("repository", |_, a| Ok(Value::string(&*image(&a[0])?.repository)), &[("image_repository", "Image.() -> string")]),
    ("tag", |_, a| Ok(Value::string(&*image(&a[0])?.tag)), &[("image_tag", "Image.() -> string")]),
    ("digest", |_, a| Ok(Value::string(&*image(&a[0])?.digest)), &[("image_digest", "Image.() -> string")]),
    ("identifier", identifier, &[("image_identifier", "Image.() -> string")]),
];

fn image<'v>(value: &'v Value<'_>) -> Result<&'v ImageReference, EvalError> {
    match value {
        Value::Opaque(Opaque::Image(image)) => Ok(image),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn make<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Opaque(Opaque::Image(Arc::new(parse(str_arg(&args[0])?).map_err(EvalError::new)?))))
}

fn identifier<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let image = image(&args[0])?;
    Ok(Value::string(if image.digest.is_empty() { &*image.tag } else { &*image.digest }))
}

/// A tag and a digest together leave only the digest, as the registry library has it.
fn parse(text: &str) -> Result<ImageReference, String> {
    let fail = || format!("could not parse reference: {text}");
    let (base, digest) = text.split_once('@').map_or((text, ""), |(b, d)| (b, d));
    if text.contains('@') {
        let hex = digest.strip_prefix("sha256:").ok_or_else(fail)?;
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(fail());
        }
    }
    let (name, tag) = match base.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (base, ""),
    };
    let tag_fits = |t: &str| t.len() <= 128 && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    if !tag_fits(tag) || (tag.is_empty() && name != base) {
        return Err(fail());
    }
    let (registry, repository) = match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest.to_owned()),
        _ => ("index.docker.io", name.to_owned()),
    };
    let repository = if registry == "index.docker.io" && !repository.contains('/') && !repository.is_empty() {
        format!("library/{repository}")
    } else {
        repository
    };
    let fits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.".contains(&b));
    if repository.len() < 2 || repository.len() > 255 || !repository.split('/').all(fits) {
        return Err(fail());
    }
    let tag = if digest.is_empty() && tag.is_empty() { "latest" } else { tag };
    let tag = if digest.is_empty() { tag } else { "" };
    Ok(ImageReference { whole: text.to_owned(), registry: registry.to_owned(), repository, tag: tag.to_owned(), digest: digest.to_owned() })
}
