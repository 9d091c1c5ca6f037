//! One page of a collection, read from a snapshot of the watch cache: at which revision, from where, how much, and the token
//! that continues it. Lists and deletecollection read these.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use machinery::status::{Details, StatusError};
use serde_json::{Value, json};
use store::Revision;

use super::Target;
use super::list::parse_version;
use super::options::ListOptions;
use super::selection::Selection;
use crate::cache::{self, Cache, Entry, Filter as _, Interest, Snapshot};
use crate::chain::Call;
use crate::registry;
use crate::state::cache_error;

/// A page of a collection.
pub struct Page {
    pub revision: Revision,
    pub items: Vec<Arc<Entry>>,
    pub continue_token: String,
    pub remaining: Option<u64>,
}

/// How new the state must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Newest,
    Any,
    NotOlderThan(Revision),
    Exact(Revision),
}

/// Where a page starts.
struct Start {
    age: Age,
    /// After this key.
    after: Option<String>,
    limit: usize,
}

impl Start {
    fn of(options: &ListOptions, prefix: &str) -> Result<Self, StatusError> {
        let version = options.resource_version.as_str();
        let limit = options.limit;
        if !options.continue_token.is_empty() {
            let token = Token::decode(&options.continue_token)?;
            if !version.is_empty() && version != "0" {
                return Err(StatusError::bad_request("specifying resource version is not allowed when using continue"));
            }
            // A token without a revision goes on in whatever there is now.
            let age = u64::try_from(token.revision).map_or(Age::Newest, |r| Age::Exact(Revision(r)));
            // As for a first page, "0" is served whatever the limit.
            let limit = if version == "0" { 0 } else { limit };
            return Ok(Start { age, after: Some(format!("{prefix}{}", token.after)), limit });
        }
        let age = match (version, options.resource_version_match.as_str()) {
            ("", _) => Age::Newest,
            // As upstream serves it: all there is, whatever the limit.
            ("0", _) => return Ok(Start { age: Age::Any, after: None, limit: 0 }),
            (version, matching) => {
                let bad = |why| StatusError::bad_request(format!("invalid resource version: {why}"));
                let wanted = Revision(parse_version(version).map_err(bad)?);
                let exact = matching == "Exact" || (matching.is_empty() && limit > 0);
                if exact { Age::Exact(wanted) } else { Age::NotOlderThan(wanted) }
            }
        };
        Ok(Start { age, after: None, limit })
    }
}

async fn snapshot(cache: &Cache, age: Age) -> cache::Result<Snapshot> {
    match age {
        // Where any age is good, the newest is asked for as well: it costs nothing, and a client sees its own writes.
        Age::Newest | Age::Any => cache.newest().await,
        Age::NotOlderThan(revision) => cache.not_older_than(revision).await,
        Age::Exact(revision) => cache.exactly(revision).await,
    }
}

/// Reads one page.
pub async fn read(call: &Call, target: &Target, options: &ListOptions, selection: &Selection) -> Result<Page, StatusError> {
    let prefix = registry::prefix(&target.resource, &target.namespace);
    let start = Start::of(options, &prefix)?;
    let cache = call.api.cache(&target.resource);
    let list = match snapshot(&cache, start.age).await {
        Ok(list) => list,
        Err(e @ (cache::Error::Unavailable(_) | cache::Error::TooLarge { .. })) => {
            return Err(crate::custom::convert::problem(&call.api, &target.resource, e).await);
        }
        Err(e) => return Err(too_old(e, options)),
    };
    let page = select(&list, &prefix, &start, &selection.scope(target), selection);
    if !page.continue_token.is_empty() {
        cache.keep(&list);
    }
    Ok(page)
}

fn select(list: &Snapshot, prefix: &str, start: &Start, scope: &super::selection::Scope, selection: &Selection) -> Page {
    let mut page = Page { revision: list.revision, items: Vec::new(), continue_token: String::new(), remaining: None };
    let after = start.after.as_deref();
    let mut entries: Box<dyn Iterator<Item = &Arc<Entry>>> = match &scope.interest {
        Interest::Value(value) => Box::new(list.with_value(value, after).filter(|e| e.key.starts_with(&scope.prefix))),
        _ => Box::new(list.range(&scope.prefix, after)),
    };
    let everything = selection.is_everything();
    while let Some(entry) = entries.next() {
        if !everything && !selection.matches(entry) {
            continue;
        }
        page.items.push(entry.clone());
        if page.items.len() != start.limit {
            continue;
        }
        let beyond = if everything { list.count_after(&scope.prefix, entry) as u64 } else { u64::from(entries.next().is_some()) };
        if beyond > 0 {
            let revision = i64::try_from(page.revision.0).unwrap_or(-1);
            page.continue_token = Token { revision, after: entry.key.strip_prefix(prefix).unwrap_or(&entry.key).to_owned() }.encode();
            page.remaining = everything.then_some(beyond);
        }
        return page;
    }
    page
}

fn too_old(error: cache::Error, options: &ListOptions) -> StatusError {
    match error {
        cache::Error::TooOld { .. } if !options.continue_token.is_empty() => with_inconsistent_token(
            StatusError::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
            ),
            options,
        ),
        cache::Error::TooOld { .. } => {
            StatusError::expired(format!("The resourceVersion for the provided list is too old. ({})", options.resource_version))
        }
        other => cache_error(other),
    }
}

/// The answer carries a token that goes on, in whatever there is then.
fn with_inconsistent_token(error: StatusError, options: &ListOptions) -> StatusError {
    let Ok(token) = Token::decode(&options.continue_token) else { return error };
    let mut status = error.to_status();
    status["metadata"]["continue"] = json!(Token { revision: -1, ..token }.encode());
    let details = Details { verbatim: Some(status), ..Details::default() };
    StatusError { details: Some(Box::new(details)), ..error }
}

struct Token {
    revision: i64,
    /// The last key of the page before, without the prefix.
    after: String,
}

impl Token {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": self.revision, "start": format!("{}\u{0}", self.after)}).to_string())
    }

    fn decode(text: &str) -> Result<Self, StatusError> {
        let bad = |why: &str| StatusError::bad_request(format!("invalid continue token: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|e| {
            let at = match e {
                base64::DecodeError::InvalidByte(at, _) => at,
                // Go names the start of the group that is cut short.
                _ => text.len() / 4 * 4,
            };
            bad(&format!("continue key is not valid: illegal base64 data at input byte {at}"))
        })?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| bad(&format!("continue key is not valid: {e}")))?;
        let revision = value.get("rv").and_then(Value::as_i64).unwrap_or(0);
        if machinery::object::str_at(&value, "v") != "meta.k8s.io/v1" {
            return Err(bad("continue key is not valid: server does not recognize this encoded version"));
        }
        let start = machinery::object::str_at(&value, "start");
        if start.is_empty() || revision == 0 || start.split('/').any(|p| p == "..") {
            return Err(bad("continue key is not valid: encoded start key empty (version meta.k8s.io/v1)"));
        }
        Ok(Self { revision, after: start.trim_end_matches('\u{0}').to_owned() })
    }
}
