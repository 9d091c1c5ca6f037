//! Health checks, metrics and the pages for people.

use serde_json::Value;

use super::{As, Cluster};
use crate::features::Gates;

#[tokio::test]
async fn checks_have_paths_and_can_be_left_out() {
    let cluster = Cluster::start(|_| {}).await;
    let nobody = cluster.client(As::Nobody).await;
    for path in ["/healthz", "/livez", "/readyz"] {
        let said = nobody.get(path).await;
        assert_eq!((said.code, said.text.as_str()), (200, "ok"), "{path}");
        assert_eq!((said.header("content-type"), said.header("x-content-type-options")), ("text/plain; charset=utf-8", "nosniff"));
    }
    let admin = cluster.client(As::Admin).await;
    let verbose = admin.get("/readyz?verbose").await.text;
    assert!(verbose.starts_with("[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]etcd-readiness ok\n[+]informer-sync ok\n"), "{verbose}");
    assert!(verbose.ends_with("[+]shutdown ok\nreadyz check passed\n"), "{verbose}");
    let excluded = admin.get("/livez?verbose&exclude=etcd&exclude=none&exclude=no").await.text;
    assert!(excluded.contains("[+]etcd excluded: ok\n"), "{excluded}");
    let warning = "warn: some health checks cannot be excluded: no matches for \"none\",\"no\"\nlivez check passed\n";
    assert!(excluded.ends_with(warning), "{excluded}");
    assert_eq!(admin.get("/livez/poststarthook/rbac/bootstrap-roles").await.text, "ok");
    for (path, code) in
        [("/livez/shutdown", 404), ("/readyz/shutdown", 200), ("/readyz/loopback-serving-certificate", 404), ("/healthz/no", 404)]
    {
        assert_eq!(admin.get(path).await.code, code, "{path}");
    }
    let slis = admin.get("/metrics/slis").await.text;
    assert!(slis.contains("kubernetes_healthcheck{name=\"etcd\",type=\"readyz\"} 1"), "{slis}");
    assert!(slis.contains("kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"healthz\"} 1"), "{slis}");
    let roots = cluster.ok("GET", "/", Value::Null).await;
    assert!(roots["paths"].as_array().unwrap().iter().any(|p| p == "/readyz/poststarthook/priority-and-fairness-filter"));
    cluster.end().await;
}

#[tokio::test]
async fn requests_are_counted_by_upstreams_labels() {
    let cluster = Cluster::start(|config| config.features = Gates::parse("APIServingWithRoutine=true").unwrap()).await;
    let admin = cluster.client(As::Admin).await;
    for path in ["/api/v1/namespaces/default", "/api/v1/namespaces/default/pods", "/api/v1/pods", "/api/v1/nothings", "/healthz"] {
        admin.get(path).await;
    }
    let text = admin.get("/metrics").await.text;
    let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    let of = |resource: &str, scope: &str, verb: &str, code: &str| {
        format!(
            "apiserver_request_total{{component=\"apiserver\",group=\"\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"\",\
             verb=\"{verb}\",version=\"v1\",code=\"{code}\",dry_run=\"\"}} 1"
        )
    };
    has(&of("namespaces", "resource", "GET", "200"));
    has(&of("pods", "namespace", "LIST", "200"));
    has(&of("pods", "cluster", "LIST", "200"));
    assert!(!text.contains("nothings"), "what is not served is not counted");
    has("kubernetes_feature_enabled{name=\"APIServingWithRoutine\",stage=\"ALPHA\"} 1");
    has("apiserver_storage_objects{resource=\"namespaces\"} 4");
    has("# TYPE apiserver_request_duration_seconds histogram");
    assert!(text.contains("kubernetes_build_info{") && text.contains("git_version=\"v1.36"));
    // Every line is a comment, or a name, labels and a number.
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    cluster.end().await;
}

#[tokio::test]
async fn pages_for_people() {
    let cluster = Cluster::start(|config| config.flags = vec![("secure-port".to_owned(), "6443".to_owned())]).await;
    let admin = cluster.client(As::Admin).await;
    let flags = admin.get("/flagz").await.text;
    assert!(flags.starts_with("\nkube-apiserver flagz\nWarning: ") && flags.ends_with("\nsecure-port=6443\n"), "{flags}");
    assert!(admin.get("/statusz").await.text.contains("\nBinary version: 1.36"));
    assert_eq!(admin.get("/configz").await.text, "{}\n");
    let jane = cluster.client(As::User("jane", &[])).await;
    assert_eq!(jane.get("/flagz").await.code, 403);
    cluster.end().await;
}
