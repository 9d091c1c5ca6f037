//! A request for what another server serves, passed on to it whole: also watches and upgrades (upstream's `proxyHandler`).

use http::Request;
use machinery::status::StatusError;

use super::backend;
use super::routes::Route;
use crate::chain::Call;
use crate::connect::{forward, upgrade};
use crate::http::respond::{self, Answer};
use crate::http::{Body, RequestBody};

/// Go's `http.Error`.
fn plain(code: u16, why: &str) -> Answer {
    respond::text(code, format!("{why}\n"))
}

pub async fn serve(call: Call, request: Request<RequestBody>, route: &Route) -> Result<Answer, StatusError> {
    if !route.available {
        return Ok(plain(503, "service unavailable"));
    }
    if let Err(why) = &route.tls {
        return Ok(plain(500, why));
    }
    let backend = match backend::find(&call.api, route).await {
        Ok(backend) => backend,
        Err(error) => {
            tracing::warn!(apiservice = route.name, error = error.message, "the server behind an APIService cannot be found");
            return Ok(plain(503, "service unavailable"));
        }
    };
    let uri = request.uri();
    let path = uri.query().map_or_else(|| uri.path().to_owned(), |q| format!("{}?{q}", uri.path()));
    let mut call = call;
    backend::speak_for(&mut call.headers, &call.user);
    call.host = format!("{}:{}", route.service.host(), route.service.port);
    call.headers.remove(http::header::HOST);
    if upgrade::asked(request.headers()) {
        return upgrade::pass(&call, request, &backend, &path).await;
    }
    let headers = forward::onward(&call.headers, call.client);
    let onward = forward::request(&call, headers, call.method.clone(), &path, request.into_body())?;
    match call.api.connections.send(&backend, onward).await {
        Ok(answer) => {
            let (mut parts, body) = answer.into_parts();
            forward::back(&mut parts.headers);
            Ok(Answer::from_parts(parts, Body::Proxied(body)))
        }
        Err(error) => {
            tracing::warn!(apiservice = route.name, %error, "a request could not be passed on");
            Ok(plain(503, &format!("error trying to reach service: {error}")))
        }
    }
}
