//! An API server of a few lines for the informers: lists what it was given, and streams what is changed afterwards.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use client::{Client, Informers, in_process};
use futures::channel::mpsc;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use kube::client::Body;
use serde_json::{Value, json};

type Answer = Response<BoxBody<Bytes, Infallible>>;
type Watch = mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>;

#[derive(Default)]
struct Server {
    /// By plural, then namespace/name.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    watches: Vec<(String, Watch)>,
    revision: u64,
}

#[derive(Clone, Default)]
pub struct Api(Arc<Mutex<Server>>);

fn plural(kind: &str) -> (&'static str, &'static str) {
    match kind {
        "Service" => ("services", "v1"),
        "Pod" => ("pods", "v1"),
        "NetworkPolicy" => ("networkpolicies", "networking.k8s.io/v1"),
        "Node" => ("nodes", "v1"),
        "Namespace" => ("namespaces", "v1"),
        "EndpointSlice" => ("endpointslices", "discovery.k8s.io/v1"),
        other => panic!("no plural of {other}"),
    }
}

impl Api {
    /// Create or replace an object.
    pub fn put(&self, kind: &str, mut object: Value) {
        let server = &mut *self.0.lock().unwrap();
        server.revision += 1;
        let (plural, version) = plural(kind);
        object["kind"] = kind.into();
        object["apiVersion"] = version.into();
        object["metadata"]["resourceVersion"] = server.revision.to_string().into();
        let key = format!("{}/{}", object["metadata"]["namespace"], object["metadata"]["name"]);
        let old = server.objects.entry(plural.into()).or_default().insert(key, object.clone());
        let event = json!({"type": if old.is_some() { "MODIFIED" } else { "ADDED" }, "object": object});
        for (_, watch) in server.watches.iter().filter(|(p, _)| p == plural) {
            watch.unbounded_send(Ok(Frame::data(Bytes::from(format!("{event}\n"))))).unwrap();
        }
    }

    pub fn informers(&self) -> Informers {
        Informers::new(self.client())
    }

    fn client(&self) -> Client {
        let server = self.0.clone();
        in_process(tower::service_fn(move |request: Request<Body>| {
            let answer = answer(&mut server.lock().unwrap(), &request);
            async move { Ok::<_, Infallible>(answer) }
        }))
    }
}

fn answer(server: &mut Server, request: &Request<Body>) -> Answer {
    let plural = request.uri().path().rsplit('/').next().unwrap().to_owned();
    let body = if request.uri().query().unwrap_or_default().contains("watch=true") {
        let (sender, receiver) = mpsc::unbounded();
        server.watches.push((plural, sender));
        BodyExt::boxed(StreamBody::new(receiver))
    } else {
        let items: Vec<&Value> = server.objects.get(&plural).into_iter().flat_map(|o| o.values()).collect();
        let list =
            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": server.revision.to_string()}, "items": items});
        Full::new(Bytes::from(list.to_string())).boxed()
    };
    Response::builder().header("content-type", "application/json").body(body).unwrap()
}
