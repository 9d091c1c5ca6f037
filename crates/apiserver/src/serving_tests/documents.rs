//! OpenAPI v3 documents in both forms.

use http::Request;
use http_body_util::{BodyExt as _, Full};
use tower::ServiceExt as _;

use super::{Cluster, said};

const ASKED: &str = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";

/// Numbers and contents of a message's fields, all of which must be of bytes.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(from: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (byte, rest) = from.split_first().unwrap();
            *from = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return value;
            }
            shift += 7;
        }
    }
    let mut all = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        assert_eq!(tag & 7, 2, "a field of bytes");
        let length = usize::try_from(varint(&mut message)).unwrap();
        let (content, rest) = message.split_at(length);
        all.push((tag >> 3, content));
        message = rest;
    }
    all
}

fn within(message: &[u8], number: u64) -> Vec<&[u8]> {
    fields(message).into_iter().filter(|(n, _)| *n == number).map(|(_, content)| content).collect()
}

#[tokio::test]
async fn version_3_documents_come_as_json_and_as_protobuf() {
    let cluster = Cluster::start(|_| {}).await;
    let ask = async |path: &str, accept: &str| {
        let request = Request::builder().uri(path).header("accept", accept).body(Full::<bytes::Bytes>::default()).unwrap();
        cluster.api.service().oneshot(request).await.unwrap()
    };
    let index = said(ask("/openapi/v3", "*/*").await).await.json();
    for name in ["api/v1", "apis/apps/v1", "apis/autoscaling/v2", "version"] {
        let path = index["paths"][name]["serverRelativeURL"].as_str().unwrap();
        let json = said(ask(path, "application/json").await).await;
        assert_eq!((json.header("content-type"), json.header("cache-control")), ("application/json", "public, immutable"));
        assert!(json.header("expires").ends_with(" UTC"), "{}", json.header("expires"));
        let answer = ask(path, ASKED).await;
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "application/com.github.proto-openapi.spec.v3.v1.0+protobuf");
        assert_eq!(header("etag"), json.header("etag"), "one tag; Vary tells the forms apart");
        assert_eq!(header("vary"), "Accept-Encoding, Accept");
        let written = answer.into_body().collect().await.unwrap().to_bytes();
        let json = json.json();
        let paths = within(&written, 4).concat();
        let names: Vec<&[u8]> = fields(&paths).into_iter().filter(|(n, _)| *n == 1).map(|(_, path)| within(path, 1)[0]).collect();
        let want: Vec<&[u8]> = json["paths"].as_object().unwrap().keys().map(String::as_bytes).collect();
        assert_eq!(names, want);
        let schemas = within(&within(&written, 5).concat(), 1).concat();
        assert_eq!(fields(&schemas).len(), json["components"]["schemas"].as_object().map_or(0, serde_json::Map::len));
    }
    let moved = said(ask("/openapi/v3/apis/apps/v1?hash=OLD", "application/json").await).await;
    assert_eq!((moved.code, moved.header("location")), (301, index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap()));
    assert_eq!(ask("/openapi/v3/apis/apps/v1", "text/html").await.status(), 406);
    cluster.end().await;
}
