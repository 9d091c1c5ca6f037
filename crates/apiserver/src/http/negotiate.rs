//! Which encoding and which view of an object a client takes: the Accept header (upstream's `negotiation` package).

use http::HeaderMap;
use http::header::{ACCEPT, USER_AGENT};
use machinery::status::StatusError;

use super::Query;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    #[default]
    Json,
    Yaml,
    Protobuf,
}

/// How an object is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    #[default]
    Object,
    Table,
    PartialObjectMetadata,
    PartialObjectMetadataList,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Negotiated {
    pub encoding: Encoding,
    pub view: View,
    /// The view is wanted as `meta.k8s.io/v1beta1` has it, which differs in name alone.
    pub beta: bool,
    pub pretty: bool,
}

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

impl Encoding {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Yaml => YAML,
            Self::Protobuf => PROTOBUF,
        }
    }
}

/// One clause of an Accept header.
struct Clause<'a> {
    kind: &'a str,
    params: Vec<(&'a str, &'a str)>,
    quality: f32,
}

fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut out: Vec<Clause<'_>> = Vec::new();
    for part in header.split(',').take(64) {
        let mut pieces = part.split(';').map(str::trim);
        let kind = pieces.next().unwrap_or_default();
        if kind.is_empty() {
            continue;
        }
        let params: Vec<_> = pieces.filter_map(|p| p.split_once('=')).map(|(k, v)| (k.trim(), v.trim().trim_matches('"'))).collect();
        let quality = params.iter().find(|(k, _)| *k == "q").and_then(|(_, v)| v.parse().ok()).unwrap_or(1.0);
        out.push(Clause { kind, params, quality });
    }
    out.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    out
}

/// The media types of an Accept header, best first.
pub fn kinds(accept: &str) -> Vec<&str> {
    clauses(accept).into_iter().map(|clause| clause.kind).collect()
}

/// The answer's form, or 406. `views`: Tables and metadata-only forms are on offer. `protobuf`: so is protobuf; without it, of
/// custom resources, only for their metadata.
pub fn negotiate(headers: &HeaderMap, query: &Query, views: bool, protobuf: bool) -> Result<Negotiated, StatusError> {
    let pretty = pretty(headers, query);
    let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    let accept = accept.join(",");
    let clauses = clauses(&accept);
    if clauses.is_empty() {
        return Ok(Negotiated { pretty, ..Negotiated::default() });
    }
    let offered = [JSON, YAML, PROTOBUF];
    if !clauses.iter().any(|c| c.kind == "*/*" || offered.contains(&c.kind)) {
        // Upstream's router refuses these before anybody negotiates.
        let why = format!("406: Not Acceptable\n\nAvailable representations: {}", offered.join(", "));
        return Err(StatusError { details: Some(Box::default()), ..StatusError::not_acceptable(why) });
    }
    for clause in &clauses {
        let encoding = match clause.kind {
            "*/*" | "application/*" | JSON => Encoding::Json,
            YAML => Encoding::Yaml,
            PROTOBUF => Encoding::Protobuf,
            _ => continue,
        };
        let param = |name: &str| clause.params.iter().find(|(k, _)| *k == name).map_or("", |(_, v)| *v);
        let view = match (param("as"), views) {
            // Objects without a Go type have no protobuf form.
            ("", _) if encoding == Encoding::Protobuf && !protobuf => continue,
            ("", _) => View::Object,
            (_, false) => continue,
            (name, true) => match view(name, param("g"), param("v")) {
                // Tables have no protobuf form.
                Some(View::Table) if encoding == Encoding::Protobuf => continue,
                Some(view) => view,
                None => continue,
            },
        };
        let pretty = pretty || param("pretty") == "1";
        let beta = view != View::Object && param("v") == "v1beta1";
        return Ok(Negotiated { encoding, view, beta, pretty });
    }
    Err(StatusError::not_acceptable(format!("only the following media types are accepted: {}", offered.join(", "))))
}

fn view(name: &str, group: &str, version: &str) -> Option<View> {
    if group != "meta.k8s.io" || !matches!(version, "v1" | "v1beta1") {
        return None;
    }
    match name {
        "Table" => Some(View::Table),
        "PartialObjectMetadata" => Some(View::PartialObjectMetadata),
        "PartialObjectMetadataList" => Some(View::PartialObjectMetadataList),
        _ => None,
    }
}

fn pretty(headers: &HeaderMap, query: &Query) -> bool {
    if query.has("pretty") {
        return query.flag("pretty");
    }
    let agent = headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("");
    agent.starts_with("curl") || agent.starts_with("Wget") || agent.starts_with("Mozilla/5.0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(accept: &str) -> Result<Negotiated, StatusError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        negotiate(&headers, &Query::default(), true, true)
    }

    #[test]
    fn the_first_form_on_offer_wins() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(ask(kubectl).unwrap().view, View::Table);
        assert_eq!(ask("application/json;as=Other;v=v1;g=x,application/yaml").unwrap().encoding, Encoding::Yaml);
        assert_eq!(ask("text/html;q=0.9, application/vnd.kubernetes.protobuf").unwrap().encoding, Encoding::Protobuf);
        assert_eq!(ask("text/html").unwrap_err().code, 406);
        assert_eq!(ask("text/html, */*;q=0.1").unwrap().encoding, Encoding::Json);
    }
}
