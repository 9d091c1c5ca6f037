//! GET of one object: the stored bytes with the revision put in, or another view of them.

use machinery::status::StatusError;

use super::{Target, view};
use crate::chain::Call;
use crate::codec;
use crate::http::respond::{self, Answer};
use crate::http::{Encoding, View, negotiate};
use crate::state::store_error;

pub async fn get(call: Call, target: Target) -> Result<Answer, StatusError> {
    let negotiated = negotiate::negotiate(&call.headers, &call.query, true, view::has_protobuf(&target.resource))?;
    let (_, found) = call.api.store.get(&target.key()).await.map_err(store_error)?;
    let Some(found) = found else { return Err(target.not_found()) };
    let plain = negotiated.view == View::Object && negotiated.encoding == Encoding::Json && !negotiated.pretty;
    if plain && view::stored_as_served(&target.resource) {
        return Ok(respond::bytes(200, Encoding::Json.content_type(), codec::splice(&found.value, found.mod_revision)));
    }
    let object = view::served(&target.resource, codec::decode(&found.value, found.mod_revision));
    view::object(&call, &negotiated, &target.resource, 200, &object)
}
