//! Requests for keys and values, and what their answers say. Pure.

use bytes::Bytes;
use store::{Error, Event, Expect, KeyValue, Result, Revision};

use crate::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::etcdserverpb::request_op::Request;
use crate::etcdserverpb::response_op::Response;
use crate::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use crate::keys::Keys;
use crate::mvccpb::{self, event::EventType};

pub fn revision_of(header: Option<&ResponseHeader>) -> Revision {
    Revision(header.map_or(0, |h| number(h.revision)))
}

pub fn number(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

pub fn item(keys: &Keys, kv: mvccpb::KeyValue) -> Result<KeyValue> {
    Ok(KeyValue {
        key: keys.inner(&kv.key)?,
        value: kv.value,
        mod_revision: Revision(number(kv.mod_revision)),
        create_revision: Revision(number(kv.create_revision)),
    })
}

/// What a watch says of a key; nothing, where it names none.
pub fn event(keys: &Keys, event: mvccpb::Event) -> Result<Option<Event>> {
    let gone = event.r#type() == EventType::Delete;
    let Some(kv) = event.kv else { return Ok(None) };
    let value = item(keys, kv)?;
    let previous = event.prev_kv.map(|kv| item(keys, kv)).transpose()?;
    Ok(Some(Event { revision: value.mod_revision, key: value.key.clone(), value: (!gone).then_some(value), previous }))
}

/// A write under its condition; where that does not hold, the answer is what is there.
pub fn write(key: &Bytes, expect: Expect, change: Request) -> TxnRequest {
    let revision = match expect {
        Expect::Anything => None,
        // etcd's revision of a key that is not there.
        Expect::Absent => Some(0),
        Expect::Revision(revision) => Some(signed(revision)),
    };
    let compare = revision.map(|revision| Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(revision)),
    });
    let current = RangeRequest { key: key.clone(), ..RangeRequest::default() };
    TxnRequest {
        compare: compare.into_iter().collect(),
        success: vec![RequestOp { request: Some(change) }],
        failure: vec![RequestOp { request: Some(Request::Range(current)) }],
    }
}

pub fn put(key: &Bytes, value: Bytes, lease: i64) -> Request {
    Request::Put(PutRequest { key: key.clone(), value, lease })
}

pub fn delete(key: &Bytes) -> Request {
    Request::DeleteRange(DeleteRangeRequest { key: key.clone(), prev_kv: true, ..DeleteRangeRequest::default() })
}

/// The revision of the write and the deleted value.
pub fn written(keys: &Keys, answer: TxnResponse) -> Result<(Revision, Option<KeyValue>)> {
    let revision = revision_of(answer.header.as_ref());
    let found = match answer.responses.into_iter().next() {
        Some(ResponseOp { response: Some(Response::Range(range)) }) => range.kvs.into_iter().next(),
        Some(ResponseOp { response: Some(Response::DeleteRange(gone)) }) => gone.prev_kvs.into_iter().next(),
        Some(ResponseOp { response: Some(Response::Put(_)) }) => None,
        _ => return Err(Error::Cluster("etcd's answer to a transaction has no result".into())),
    };
    let found = found.map(|kv| item(keys, kv)).transpose()?;
    if answer.succeeded { Ok((revision, found)) } else { Err(Error::Conflict(found)) }
}
