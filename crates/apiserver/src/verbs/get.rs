//! GET of one object: the stored bytes with the revision put in, or another view of them.

use machinery::status::StatusError;
use store::Revision;

use super::{Target, list, view};
use crate::chain::Call;
use crate::codec;
use crate::http::respond::{self, Answer};
use crate::http::{Encoding, View, negotiate};
use crate::state::{cache_error, store_error};

pub async fn get(call: Call, target: Target) -> Result<Answer, StatusError> {
    let negotiated = negotiate::negotiate(&call.headers, &call.query, true, view::has_protobuf(&target.resource))?;
    let version = call.query.text("resourceVersion");
    let found = if matches!(version, "" | "0") {
        let (_, found) = call.api.store.get(&target.key()).await.map_err(store_error)?;
        found.map(|kv| (kv.value, kv.mod_revision))
    } else {
        // What expires is not cached upstream, and its storage words this differently.
        let bad = |why: String| {
            if target.resource.expires { StatusError::bad_request(format!("invalid resource version: {why}")) } else { list::bare_500(why) }
        };
        let wanted = list::parse_version(version).map_err(bad)?;
        let cache = call.api.cache(&target.resource);
        let there = cache.not_older_than(Revision(wanted)).await.map_err(cache_error)?;
        there.get(&target.key()).map(|entry| (entry.bytes.clone(), entry.revision))
    };
    let Some((bytes, revision)) = found else { return Err(target.not_found()) };
    if let (Some(custom), true) = (&target.resource.custom, matches!(version, "" | "0")) {
        let stored = vec![codec::decode(&bytes, revision)];
        let shown = crate::custom::convert::served(&call.api, &target.resource, custom, stored).await?;
        let object = shown.first().ok_or_else(|| target.not_found())?;
        return view::object(&call, &negotiated, &target.resource, 200, object);
    }
    let plain = negotiated.view == View::Object && negotiated.encoding == Encoding::Json && !negotiated.pretty;
    if plain && view::stored_as_served(&target.resource) {
        return Ok(respond::bytes(200, Encoding::Json.content_type(), codec::splice(&bytes, revision)));
    }
    let object = view::served(&target.resource, codec::decode(&bytes, revision));
    view::object(&call, &negotiated, &target.resource, 200, &object)
}
