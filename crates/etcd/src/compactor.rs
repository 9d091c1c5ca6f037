//! Which of several servers compacts. As upstream's: a key counts compactions in its version; who raises it from the number
//! it knows is elected for this round, the others learn the new number.

use bytes::Bytes;
use store::{Result, Revision};

use crate::endpoints::{Endpoints, Kind, with_leader};
use crate::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::etcdserverpb::kv_client::KvClient;
use crate::etcdserverpb::request_op::Request;
use crate::etcdserverpb::response_op::Response;
use crate::etcdserverpb::{CompactionRequest, Compare, RangeRequest, RequestOp, TxnRequest};
use crate::kv;

/// Upstream's, outside of any prefix.
const KEY: &[u8] = b"compact_rev_key";

/// The number of compactions this server knows of.
#[derive(Default)]
pub struct Compactor(tokio::sync::Mutex<i64>);

impl Compactor {
    /// Compacts if this server is elected. `false`: another one has since the last call, and will.
    pub async fn round(&self, endpoints: &Endpoints, revision: Revision) -> Result<bool> {
        let mut known = self.0.lock().await;
        let key = Bytes::from_static(KEY);
        let txn = TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Version.into(),
                key: key.clone(),
                target_union: Some(TargetUnion::Version(*known)),
            }],
            success: vec![RequestOp { request: Some(kv::put(&key, revision.0.to_string().into(), 0)) }],
            failure: vec![RequestOp { request: Some(Request::Range(RangeRequest { key, ..RangeRequest::default() })) }],
        };
        let answer = endpoints
            .call(Kind::Write, |channel| {
                let txn = with_leader(txn.clone());
                async move { KvClient::new(channel).txn(txn).await }
            })
            .await?;
        if !answer.succeeded {
            if let Some(Response::Range(range)) = answer.responses.into_iter().next().and_then(|r| r.response) {
                *known = range.kvs.first().map_or(0, |kv| kv.version);
            }
            return Ok(false);
        }
        *known += 1;
        compact(endpoints, revision).await.map(|()| true)
    }
}

/// Forgets history before a revision, whoever is elected.
async fn compact(endpoints: &Endpoints, revision: Revision) -> Result<()> {
    let request = CompactionRequest { revision: kv::signed(revision), physical: false };
    // A second time says that it was done.
    endpoints.call(Kind::Read, |channel| async move { KvClient::new(channel).compact(with_leader(request)).await }).await.map(drop)
}
