//! The gRPC health check, `grpc.health.v1.Health/Check`.

use std::time::Duration;

use podsync::probe::ProbeOutcome;
use tokio::time::timeout;
use tonic::transport::Endpoint;

use super::http::join;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;
const NAMES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

pub async fn check(host: &str, port: u16, service: &str, limit: Duration) -> ProbeOutcome {
    let address = join(host, port);
    let late = || {
        ProbeOutcome::Failure(format!(
            "timeout: failed to connect service {address:?} within {}: context deadline exceeded",
            machinery::duration::text(limit)
        ))
    };
    match timeout(limit, ask(&address, service)).await {
        Err(_) => late(),
        Ok(Err(text)) => ProbeOutcome::Failure(text),
        Ok(Ok(SERVING)) => ProbeOutcome::Success,
        Ok(Ok(status)) => {
            let name = usize::try_from(status).ok().and_then(|s| NAMES.get(s)).copied().unwrap_or("UNKNOWN");
            ProbeOutcome::Failure(format!("service unhealthy (responded with {name:?})"))
        }
    }
}

async fn ask(address: &str, service: &str) -> Result<i32, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| e.to_string())?;
    let channel = endpoint.connect().await.map_err(|e| format!("error: failed to connect to {address:?}: {e}"))?;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|e| e.to_string())?;
    let codec: tonic_prost::ProstCodec<HealthCheckRequest, HealthCheckResponse> = tonic_prost::ProstCodec::default();
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    match grpc.unary(request, path, codec).await {
        Ok(answer) => Ok(answer.into_inner().status),
        Err(status) if status.code() == tonic::Code::Unimplemented => {
            Err(format!("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}", status.message()))
        }
        Err(status) => Err(format!("error: health rpc probe failed: {status}")),
    }
}
