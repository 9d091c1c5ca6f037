//! Makes clients: over a service in this process, or from a kubeconfig.
//!
//! Both give the same `kube::Client`, so that no component knows where the API server runs.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::{BoxError, Service};

use crate::metrics::Layer;
use crate::{Error, Registry, Result};

/// A tower service that answers as an API server does.
pub trait Api:
    Service<Request<Body>, Response = Response<Self::Answer>, Error: Into<BoxError>, Future: Send + 'static> + Send + 'static
{
    type Answer: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

impl<S, B> Api for S
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Answer = B;
}

/// A client over a tower service of this process, such as the API server's own. Must be called within a tokio runtime.
pub fn in_process<S: Api>(service: S) -> Client {
    Client::new(service, "default")
}

/// As [`in_process`], for the component of that name: it goes with every request as user agent, which names the manager of
/// the fields it writes.
pub fn in_process_named<S: Api>(service: S, component: &'static str) -> Client {
    let agent = http::HeaderValue::from_static(component);
    let service = tower::util::MapRequest::new(service, move |mut request: Request<Body>| {
        request.headers_mut().insert(http::header::USER_AGENT, agent.clone());
        request
    });
    in_process(service)
}

/// As [`in_process`], with an identity that travels as an extension of every request: no request from a network can
/// carry one, so the service may trust it.
pub fn in_process_as<S: Api, I: Clone + Send + Sync + 'static>(service: S, identity: I) -> Client {
    let service = tower::util::MapRequest::new(service, move |mut request: Request<Body>| {
        request.extensions_mut().insert(identity.clone());
        request
    });
    in_process(service)
}

/// A client as a kubeconfig's current context describes it.
pub async fn from_kubeconfig(path: &Path) -> Result<Client> {
    from_kubeconfig_named(path, "skiff").await
}

/// As [`from_kubeconfig`], with the component's name as user agent.
pub async fn from_kubeconfig_named(path: &Path, component: &'static str) -> Result<Client> {
    let config = read(path, component).await?;
    Client::try_from(config).map_err(|source| failed(path, source))
}

/// As [`from_kubeconfig_named`]; its requests are counted.
pub async fn from_kubeconfig_metered(path: &Path, component: &'static str, registry: Arc<Registry>) -> Result<Client> {
    let config = read(path, component).await?;
    let host = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
    let builder = ClientBuilder::try_from(config).map_err(|source| failed(path, source))?;
    Ok(builder.with_layer(&Layer(registry, host)).build())
}

fn failed(path: &Path, source: kube::Error) -> Error {
    Error::Client { path: path.display().to_string(), source: Box::new(source) }
}

async fn read(path: &Path, component: &'static str) -> Result<Config> {
    let failed = |source| Error::Kubeconfig { path: path.display().to_string(), source };
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)?;
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(component)));
    Ok(config)
}
