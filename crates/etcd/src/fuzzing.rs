//! What the fuzz target `etcd` attacks in this crate and is no part of its interface. Only there when built for fuzzing; nothing
//! else calls it.

use bytes::Bytes;
use prost::Message;

use crate::etcdserverpb::{LeaseGrantResponse, RangeResponse, StatusResponse, TxnResponse, WatchResponse};
use crate::keys::Keys;
use crate::kv;

/// What is read says the same when it is written and read again.
fn again<M: Message + Default + PartialEq>(message: &M) {
    assert!(M::decode(Bytes::from(message.encode_to_vec())).is_ok_and(|read| read == *message));
}

/// An answer of a member, and what is made of it; the first byte says to which request.
pub fn answer(kind: u8, bytes: &[u8]) {
    let (keys, bytes) = (Keys::new("/registry"), Bytes::copy_from_slice(bytes));
    match kind % 5 {
        0 => {
            let Ok(answer) = TxnResponse::decode(bytes) else { return };
            again(&answer);
            if let Ok((revision, Some(found))) = kv::written(&keys, answer) {
                assert!(revision.0 <= i64::MAX as u64 && found.mod_revision.0 <= i64::MAX as u64);
            }
        }
        1 => {
            let Ok(answer) = RangeResponse::decode(bytes) else { return };
            again(&answer);
            assert!(kv::signed(kv::revision_of(answer.header.as_ref())) >= 0);
            for found in answer.kvs {
                let outer = found.key.clone();
                if let Ok(item) = kv::item(&keys, found) {
                    assert_eq!(keys.outer(&item.key), outer);
                }
            }
        }
        2 => {
            let Ok(answer) = WatchResponse::decode(bytes) else { return };
            again(&answer);
            for event in answer.events {
                if let Ok(Some(event)) = kv::event(&keys, event) {
                    assert!(event.value.is_none_or(|value| value.key == event.key && value.mod_revision == event.revision));
                }
            }
        }
        3 => drop(LeaseGrantResponse::decode(bytes).inspect(again)),
        _ => drop(StatusResponse::decode(bytes).inspect(again)),
    }
}
