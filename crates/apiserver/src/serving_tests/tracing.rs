//! Spans, as a collector gets them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use serde_json::Value;
use telemetry::proto::trace_service_server::{TraceService, TraceServiceServer};
use telemetry::proto::{ExportTraceServiceRequest, ExportTraceServiceResponse, Span};
use tokio::net::TcpListener;

use super::{As, Cluster, said};

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let spans = request.into_inner().resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
        self.0.lock().unwrap().extend(spans);
        Ok(tonic::Response::new(ExportTraceServiceResponse {}))
    }
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[tokio::test]
async fn sampled_requests_are_told_to_the_collector() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let collector = Collector::default();
    let service = TraceServiceServer::new(collector.clone());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tracing.yaml");
    // None but those whose sender samples.
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\nendpoint: 127.0.0.1:{port}\nsamplingRatePerMillion: 0\n"
    );
    std::fs::write(&file, text).unwrap();
    let cluster = Cluster::start(|config| config.tracing_config_file = Some(file)).await;
    let ask = async |who: As<'_>, path: &str| {
        let client = cluster.client(who).await;
        let request = Request::builder()
            .uri(format!("https://127.0.0.1{path}"))
            .header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"))
            .body(http_body_util::Full::default())
            .unwrap();
        said(client.0.clone().send_request(request).await.unwrap()).await
    };
    let told = ask(As::Admin, "/api/v1/namespaces/default/configmaps/none").await;
    let id = told.header("audit-id").to_owned();
    ask(As::User("jane", &[]), "/api/v1/pods").await;
    cluster.ok("GET", "/api/v1/namespaces/default", Value::Null).await;
    // The last spans are sent when the server ends.
    cluster.end().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.abort();
    let spans = collector.0.lock().unwrap();
    assert_eq!(spans.len(), 1, "{spans:?}");
    let span = &spans[0];
    assert_eq!(span.name, "GET /api/v1/namespaces/{:namespace}/configmaps/{:name}");
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!((hex(&span.trace_id).as_str(), hex(&span.parent_span_id).as_str()), (TRACE, "b7ad6b7169203331"));
    let attributes = format!("{:?}", span.attributes);
    assert!(attributes.contains(&id) && attributes.contains("IntValue(404)"), "{attributes}");
    assert!(span.end_time_unix_nano > span.start_time_unix_nano);
}
