//! Named formats of Kubernetes: `format.dns1123Label().validate(name)` gives the problems, if any.

use std::borrow::Cow;
use std::sync::Arc;

use machinery::go_url::Url;
use machinery::{names, structural};

use crate::decls::Row;
use crate::error::EvalError;
use crate::library::str_arg;
use crate::opaque::Opaque;
use crate::regexes::Regexes;
use crate::value::Value;

type Outcome<'a> = Result<Value<'a>, EvalError>;

/// Name and the size its regular expression counts with.
const FORMATS: [(&str, u64); 13] = [
    ("dns1123Label", 30),
    ("dns1123Subdomain", 60),
    ("dns1035Label", 30),
    ("qualifiedName", 60),
    ("dns1123LabelPrefix", 30),
    ("dns1123SubdomainPrefix", 60),
    ("dns1035LabelPrefix", 30),
    ("labelValue", 40),
    ("uri", 3054),
    ("uuid", 79),
    ("byte", 84),
    ("date", 103),
    ("datetime", 103),
];

pub(crate) const ROWS: &[Row] = &[
    ("format.named", named, &[("format-named", "(string) -> optional(Format)")]),
    ("validate", validate, &[("format-validate", "Format.(string) -> optional(list(string))")]),
    ("format.dns1123Label", |_, _| format("dns1123Label"), &[("format.dns1123Label", "() -> Format")]),
    ("format.dns1123Subdomain", |_, _| format("dns1123Subdomain"), &[("format.dns1123Subdomain", "() -> Format")]),
    ("format.dns1035Label", |_, _| format("dns1035Label"), &[("format.dns1035Label", "() -> Format")]),
    ("format.qualifiedName", |_, _| format("qualifiedName"), &[("format.qualifiedName", "() -> Format")]),
    ("format.dns1123LabelPrefix", |_, _| format("dns1123LabelPrefix"), &[("format.dns1123LabelPrefix", "() -> Format")]),
    ("format.dns1123SubdomainPrefix", |_, _| format("dns1123SubdomainPrefix"), &[("format.dns1123SubdomainPrefix", "() -> Format")]),
    ("format.dns1035LabelPrefix", |_, _| format("dns1035LabelPrefix"), &[("format.dns1035LabelPrefix", "() -> Format")]),
    ("format.labelValue", |_, _| format("labelValue"), &[("format.labelValue", "() -> Format")]),
    ("format.uri", |_, _| format("uri"), &[("format.uri", "() -> Format")]),
    ("format.uuid", |_, _| format("uuid"), &[("format.uuid", "() -> Format")]),
    ("format.byte", |_, _| format("byte"), &[("format.byte", "() -> Format")]),
    ("format.date", |_, _| format("date"), &[("format.date", "() -> Format")]),
    ("format.datetime", |_, _| format("datetime"), &[("format.datetime", "() -> Format")]),
];

fn format<'a>(name: &str) -> Outcome<'a> {
    let found = FORMATS.iter().find(|(n, _)| *n == name).ok_or_else(EvalError::no_such_overload)?;
    Ok(Value::Opaque(Opaque::Format(found.0)))
}

/// What a format's regular expression counts with in costs.
pub(crate) fn regex_size(name: &str) -> u64 {
    FORMATS.iter().find(|(n, _)| *n == name).map_or(0, |(_, size)| *size)
}

fn named<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Optional(format(str_arg(&args[0])?).ok().map(Arc::new)))
}

fn validate<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let Value::Opaque(Opaque::Format(name)) = &args[0] else { return Err(EvalError::no_such_overload()) };
    let problems = problems(name, str_arg(&args[1])?);
    let list = Value::list(problems.into_iter().map(|p| Value::string(p.into_owned())).collect::<Vec<_>>());
    Ok(Value::Optional((list.size() != Some(0)).then(|| Arc::new(list))))
}

fn problems(format: &str, text: &str) -> Vec<Cow<'static, str>> {
    let unless = |fits: bool, why: &'static str| if fits { Vec::new() } else { vec![Cow::Borrowed(why)] };
    match format {
        "dns1123Label" => names::dns1123_label(text),
        "dns1123Subdomain" => names::dns1123_subdomain(text),
        "dns1035Label" => names::dns1035_label(text),
        "qualifiedName" => names::qualified_name(text),
        "dns1123LabelPrefix" => names::dns1123_label(&names::mask_trailing_dash(text)),
        "dns1123SubdomainPrefix" => names::dns1123_subdomain(&names::mask_trailing_dash(text)),
        "dns1035LabelPrefix" => names::dns1035_label(&names::mask_trailing_dash(text)),
        "labelValue" => names::label_value(text),
        "uri" => Url::parse_request_uri(text).err().map(Cow::Owned).into_iter().collect(),
        "uuid" => unless(fits(format, text), "does not match the UUID format"),
        "byte" => unless(fits(format, text), "invalid base64"),
        "date" => unless(fits(format, text), "invalid date"),
        _ => unless(fits(format, text), "invalid datetime"),
    }
}

/// These are the formats of schemas.
fn fits(format: &str, text: &str) -> bool {
    structural::format_fits(format, text) == Some(true)
}
