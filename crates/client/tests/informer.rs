//! Informers against a scripted server in this process: paging, resuming, 410, refreshing, sharing.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use client::{Client, Entropy, Informers, Scope, in_process};
use futures::StreamExt;
use futures::channel::mpsc;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use serde_json::{Value, json};

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// Objects, a log of requests, and the open watch.
#[derive(Default)]
struct Server {
    objects: Vec<Value>,
    revision: u64,
    requests: Vec<String>,
    watch: Option<mpsc::UnboundedSender<Result<http_body::Frame<Bytes>, Infallible>>>,
    gone: bool,
}

impl Server {
    fn send(&self, event: &Value) {
        let line = format!("{event}\n");
        self.watch.as_ref().unwrap().unbounded_send(Ok(http_body::Frame::data(Bytes::from(line)))).unwrap();
    }

    fn answer(&mut self, request: &Request<Body>) -> Answer {
        let query = request.uri().query().unwrap_or_default().to_owned();
        self.requests.push(query.clone());
        if query.contains("watch=true") {
            if std::mem::take(&mut self.gone) {
                let status = json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"});
                return respond(StatusCode::GONE, Full::new(Bytes::from(status.to_string())).boxed());
            }
            let (sender, receiver) = mpsc::unbounded();
            self.watch = Some(sender);
            return respond(StatusCode::OK, BodyExt::boxed(StreamBody::new(receiver.map(|frame| frame))));
        }
        let (items, token) = match (query.contains("continue="), self.objects.len()) {
            (false, 2..) => (&self.objects[..1], "rest"),
            (true, _) => (&self.objects[1..], ""),
            (false, _) => (&self.objects[..], ""),
        };
        let list = json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": self.revision.to_string(), "continue": token}, "items": items});
        respond(StatusCode::OK, Full::new(Bytes::from(list.to_string())).boxed())
    }
}

fn respond(status: StatusCode, body: BoxBody<Bytes, Infallible>) -> Answer {
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

fn config_map(name: &str, revision: u64) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"namespace": "n", "name": name, "resourceVersion": revision.to_string()}})
}

fn serve(server: &Arc<Mutex<Server>>) -> Client {
    let server = server.clone();
    in_process(tower::service_fn(move |request: Request<Body>| {
        let answer = server.lock().unwrap().answer(&request);
        async move { Ok::<_, Infallible>(answer) }
    }))
}

#[tokio::test(start_paused = true)]
async fn lists_watches_resumes_and_lists_again() {
    let server = Arc::new(Mutex::new(Server { objects: vec![config_map("a", 1), config_map("b", 2)], revision: 2, ..Server::default() }));
    let informers = Informers::with_entropy(serve(&server), Entropy::from_seed(1));
    let informer = informers.of::<ConfigMap>(Scope::all());
    assert_eq!(informer.revision(), 0);
    informer.synced().await.unwrap();
    assert_eq!((informer.len(), informer.revision()), (2, 2));

    let same = informers.of::<ConfigMap>(Scope::all());
    let mut changes = same.subscribe();
    assert_eq!([changes.next().await.key.to_string(), changes.next().await.key.to_string()], ["n/a", "n/b"]);
    while server.lock().unwrap().watch.is_none() {
        tokio::task::yield_now().await;
    }
    server.lock().unwrap().send(&json!({"type": "MODIFIED", "object": config_map("a", 3)}));
    same.wait_for_revision(3).await.unwrap();
    let a = changes.next().await;
    assert!(Arc::ptr_eq(&a.new.unwrap(), &informer.get("n", "a").unwrap()));

    // A bookmark moves the revision; a broken connection resumes from it.
    server
        .lock()
        .unwrap()
        .send(&json!({"type": "BOOKMARK", "object": {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}}}));
    informer.wait_for_revision(9).await.unwrap();
    server.lock().unwrap().watch = None;
    while server.lock().unwrap().watch.is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(server.lock().unwrap().requests.last().unwrap().contains("resourceVersion=9"));

    // 410: a new list shows what went meanwhile.
    {
        let mut server = server.lock().unwrap();
        server.gone = true;
        server.objects.remove(0);
        server.revision = 20;
        server.watch = None;
    }
    informer.wait_for_revision(20).await.unwrap();
    assert!(informer.get("n", "a").is_none());
    let gone = changes.next().await;
    assert_eq!((gone.key.to_string(), gone.new.is_none()), ("n/a".to_owned(), true));

    // A forced list.
    server.lock().unwrap().objects.push(config_map("c", 21));
    informer.refresh().await.unwrap();
    assert!(informer.get("n", "c").is_some());
}
