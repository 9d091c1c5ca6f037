//! Authorizers and authenticators behind webhooks, and escalation, asked of a running server.

use std::path::Path;

use auth::User;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::authn::tests::Cluster;
use crate::mirror::Sink as _;
use crate::testing::{HttpsServer, json_response};

fn kubeconfig(dir: &Path, name: &str, server: &HttpsServer) -> std::path::PathBuf {
    let path = dir.join(name);
    let config = json!({"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": server.url("/ask"), "certificate-authority-data": server.ca_bundle()}}],
        "users": [{"name": "u", "user": {}}]});
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// Allows the user `hooked`, denies `banned`, has no opinion of others.
async fn reviewer() -> HttpsServer {
    HttpsServer::start(&["127.0.0.1"], |asked| async move {
        let user = asked.body["spec"]["user"].as_str().unwrap_or("").to_owned();
        let status = json!({"allowed": user == "hooked", "denied": user == "banned", "reason": format!("says the hook of {user}")});
        json_response(200, &json!({"apiVersion": asked.body["apiVersion"], "kind": "SubjectAccessReview", "status": status}))
    })
    .await
}

async fn ask(cluster: &Cluster, user: &User, method: &str, path: &str, body: Value) -> (u16, String) {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder().method(method).uri(path).header("content-type", kind).body(Full::from(body.to_string()));
    let answer = cluster.api.service_as(user.clone()).oneshot(request.unwrap()).await.unwrap();
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    (code, answer["message"].as_str().unwrap_or("").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_stand_in_the_chain_as_configured() {
    let (server, silent) = (reviewer().await, HttpsServer::start(&["127.0.0.1"], |_| async { json_response(500, &json!({})) }).await);
    let cluster = Cluster::start(|config, dir| {
        let hook = |name: &str, file: &Path, policy: &str, condition: &str| {
            json!({"type": "Webhook", "name": name, "webhook": {"timeout": "3s", "subjectAccessReviewVersion": "v1",
                "matchConditionSubjectAccessReviewVersion": "v1", "failurePolicy": policy, "authorizedTTL": "60s", "unauthorizedTTL": "0s",
                "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": file.file_name().unwrap().to_str().unwrap()},
                "matchConditions": [{"expression": condition}]}})
        };
        let (good, bad) = (kubeconfig(dir, "good", &server), kubeconfig(dir, "bad", &silent));
        let tree = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": [
            hook("first", &good, "NoOpinion", "has(request.resourceAttributes) && request.resourceAttributes.resource != 'leases'"),
            hook("broken", &bad, "Deny", "has(request.resourceAttributes) && request.resourceAttributes.resource == 'secrets'"),
            {"type": "Node", "name": "node"}, {"type": "RBAC", "name": "rbac"}]});
        let path = dir.join("authorization.yaml");
        std::fs::write(&path, tree.to_string()).unwrap();
        config.authorization.config = Some(path);
    })
    .await;
    server.take_calls();
    let get = async |user: &User, path: &str| ask(&cluster, user, "GET", path, Value::Null).await;
    let hooked = User::new("hooked", &["dev"]);
    assert_eq!(get(&hooked, "/api/v1/nodes?labelSelector=a%3Db").await.0, 200);
    let asked = server.take_calls();
    let about = &asked[0].body["spec"];
    assert_eq!((&about["user"], &about["groups"]), (&json!("hooked"), &json!(["dev", "system:authenticated"])));
    assert_eq!(about["resourceAttributes"]["labelSelector"]["requirements"][0]["key"], "a");
    assert_eq!(get(&hooked, "/api/v1/nodes?labelSelector=a%3Db").await.0, 200);
    assert_eq!(server.take_calls().len(), 0, "a yes is remembered");
    for _ in 0..2 {
        let (code, said) = get(&User::new("banned", &[]), "/api/v1/nodes").await;
        assert!(code == 403 && said.ends_with("at the cluster scope: says the hook of banned"), "{said}");
    }
    assert_eq!(server.take_calls().len(), 2, "a no is not, here");
    // What is not its business, it is not asked; what no hook knows, RBAC may.
    assert_eq!(get(&hooked, "/apis/coordination.k8s.io/v1/leases").await.0, 403);
    assert_eq!(get(&User::new("system:kube-scheduler", &[]), "/api/v1/nodes").await.0, 200);
    // One that must answer and does not.
    let (code, _) = get(&User::service_account("kube-system", "generic-garbage-collector"), "/api/v1/secrets").await;
    assert_eq!(code, 403);
    assert!(!silent.take_calls().is_empty());
    assert_eq!(get(&User::new("root", &["system:masters"]), "/api/v1/secrets").await.0, 200, "the administrators need no hook");
    cluster.api.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_follows_its_file() {
    let server = reviewer().await;
    let tree = |authorizers: Value| {
        json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": authorizers}).to_string()
    };
    let rbac = json!({"type": "RBAC", "name": "rbac"});
    let hook = json!({"type": "Webhook", "name": "hook", "webhook": {"timeout": "3s", "subjectAccessReviewVersion": "v1", "failurePolicy": "Deny",
        "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": "hook.kubeconfig"}}});
    let mut file = std::path::PathBuf::new();
    let cluster = Cluster::start(|config, dir| {
        kubeconfig(dir, "hook.kubeconfig", &server);
        file = dir.join("authorization.yaml");
        std::fs::write(&file, tree(json!([rbac]))).unwrap();
        config.authorization.config = Some(file.clone());
        config.authorization.reload = Some(std::time::Duration::from_millis(20));
    })
    .await;
    let code = async |name: &str| ask(&cluster, &User::new(name, &[]), "GET", "/api/v1/nodes", Value::Null).await.0;
    assert_eq!(code("hooked").await, 403);
    std::fs::write(&file, tree(json!([hook, rbac]))).unwrap();
    let changed = async {
        while code("hooked").await != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), changed).await.unwrap();
    // What cannot be used changes nothing: a broken file, and an authorizer that was not there at the start.
    for bad in ["authorizers: [", &tree(json!([{"type": "Node", "name": "node"}]))] {
        std::fs::write(&file, bad).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(code("hooked").await, 200, "{bad}");
    }
    cluster.api.shutdown().await;
}

#[test]
fn a_bad_configuration_is_named_by_path() {
    let tree = |authorizers: Value| json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": authorizers});
    for (authorizers, want) in [
        (json!([]), "at least one authorization mode must be defined"),
        (json!([{"type": "RBAC"}]), "authorizers[0].name: Required value"),
        (json!([{"type": "RBAC", "name": "a"}, {"type": "Node", "name": "a"}]), "authorizers[1].name: Duplicate value"),
        (json!([{"type": "RBAC", "name": "a"}, {"type": "RBAC", "name": "b"}]), "authorizers[1].type: Duplicate value"),
        (json!([{"type": "RBAC", "name": "A b"}]), "authorizers[0].name: Invalid value"),
        (json!([{"type": "RBAC", "name": "a", "names": 1}]), "unknown field \"authorizers[0].names\""),
        (json!([{"type": "Guess", "name": "a"}]), "authorizers[0].type: Unsupported value: \"Guess\""),
        (json!([{"type": "Webhook", "name": "a"}]), "required when type=Webhook"),
        (json!([{"type": "Webhook", "name": "a", "webhook": {"timeout": "31s"}}]), "must be <= 30s"),
        (
            json!([{"type": "Webhook", "name": "a", "webhook": {"matchConditions": [{"expression": "1 +"}]}}]),
            "matchConditions[0].expression",
        ),
    ] {
        let errors = super::options::parse(&tree(authorizers), Path::new(".")).unwrap_err();
        assert!(errors.iter().any(|e| e.contains(want)), "{errors:?} instead of {want}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_can_be_a_webhooks_to_know() {
    let server = HttpsServer::start(&["127.0.0.1"], |asked| async move {
        let status = match asked.body["spec"]["token"].as_str() {
            Some("good") => {
                json!({"authenticated": true, "user": {"username": "hooked", "uid": "7", "groups": ["g"], "extra": {"k": ["v"]}}})
            }
            Some("late") => json!({"authenticated": false, "error": "it is too late"}),
            _ => json!({"authenticated": false}),
        };
        json_response(200, &json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}))
    })
    .await;
    let cluster = Cluster::start(|config, dir| {
        config.authentication.webhook_config_file = Some(kubeconfig(dir, "authn", &server));
    })
    .await;
    for _ in 0..3 {
        let user = cluster.bearer("good").await.unwrap();
        assert_eq!(
            (&user["username"], &user["uid"], &user["groups"]),
            (&json!("hooked"), &json!("7"), &json!(["g", "system:authenticated"]))
        );
        assert_eq!(user["extra"]["k"], json!(["v"]));
    }
    assert_eq!(server.take_calls().len(), 1, "and is remembered");
    assert_eq!(cluster.bearer("late").await, Err(401));
    assert_eq!(cluster.bearer("other").await, Err(401));
    cluster.api.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_hands_out_more_than_they_hold() {
    let cluster = Cluster::start(|_, _| {}).await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let roles = format!("{rbac}/namespaces/default/roles");
    let bindings = format!("{rbac}/namespaces/default/rolebindings");
    let bind = |role: &str, kind: &str| {
        json!({"metadata": {"name": format!("b-{role}")}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
            "subjects": [{"kind": "User", "name": "eve"}]})
    };
    let rules = |verbs: &[&str]| json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs}]);
    let edits = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"],
        "verbs": ["create", "get", "update", "patch", "delete"]}, {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]);
    cluster.make(&roles, json!({"metadata": {"name": "editor"}, "rules": edits})).await;
    let mut editor = bind("editor", "Role");
    editor["subjects"] = json!([{"kind": "User", "name": "bob"}]);
    cluster.make(&bindings, editor).await;
    cluster.make(&roles, json!({"metadata": {"name": "strong"}, "rules": rules(&["get", "delete"])})).await;
    let bob = User::new("bob", &[]);
    let weak = |verbs: &[&str]| json!({"metadata": {"name": "weak"}, "rules": rules(verbs)});
    assert_eq!(ask(&cluster, &bob, "POST", &roles, weak(&["get"])).await.0, 201);
    let more = json!({"rules": rules(&["get", "delete"])});
    let (one, apply) = (format!("{roles}/weak"), format!("{roles}/other?fieldManager=m"));
    let missing =
        "is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"configmaps\"], Verbs:[\"delete\"]}";
    for (method, path, body) in [
        ("POST", roles.as_str(), json!({"metadata": {"name": "weak"}, "rules": more["rules"]})),
        ("PUT", &one, weak(&["get", "delete"])),
        ("PATCH", &one, more.clone()),
        ("POST", &bindings, bind("strong", "Role")),
    ] {
        let (code, said) = ask(&cluster, &bob, method, path, body).await;
        assert!(code == 403 && said.ends_with(missing), "{method} {path}: {code} {said}");
    }
    let request = Request::builder().method("PATCH").uri(&apply).header("content-type", "application/apply-patch+yaml");
    let body = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "other"}, "rules": more["rules"]});
    let answer = cluster.api.service_as(bob.clone()).oneshot(request.body(Full::from(body.to_string())).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 403, "apply is a write too");
    assert_eq!(ask(&cluster, &bob, "POST", &bindings, bind("cluster-admin", "ClusterRole")).await.0, 403);
    assert_eq!(ask(&cluster, &bob, "POST", &bindings, bind("none-such", "ClusterRole")).await.0, 404);
    // What changes for the garbage collector alone is free, and `bind` and `escalate` lift the check.
    let strong = format!("{roles}/strong");
    assert_eq!(ask(&cluster, &bob, "PATCH", &strong, json!({"metadata": {"finalizers": ["a.b/c"]}})).await.0, 200);
    assert_eq!(ask(&cluster, &bob, "PATCH", &strong, json!({"metadata": {"labels": {"a": "b"}}})).await.0, 403);
    let special = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["bind"], "resourceNames": ["view"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["escalate"]}]);
    cluster.make(&roles, json!({"metadata": {"name": "special"}, "rules": special})).await;
    let mut binding = bind("special", "Role");
    binding["subjects"] = json!([{"kind": "User", "name": "bob"}]);
    cluster.make(&bindings, binding).await;
    assert_eq!(ask(&cluster, &bob, "POST", &bindings, bind("view", "ClusterRole")).await.0, 201);
    assert_eq!(ask(&cluster, &bob, "PATCH", &one, more).await.0, 200);
    cluster.api.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sum_of_roles_is_for_the_administrator_to_make() {
    let cluster = Cluster::start(|_, _| {}).await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let rules = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["*"]}]);
    cluster.make(roles, json!({"metadata": {"name": "roles"}, "rules": rules})).await;
    let binding = json!({"metadata": {"name": "roles"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "roles"},
        "subjects": [{"kind": "User", "name": "bob"}]});
    // `*` would hold `escalate`, so bob gets the plain verbs only.
    let plain = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["create", "get", "patch"]}]);
    let (code, _) = cluster.root("PATCH", &format!("{roles}/roles"), json!({})).await;
    assert_eq!(code, 415, "a patch says of what kind it is");
    let mut role = cluster.root("GET", &format!("{roles}/roles"), Value::Null).await.1;
    role["rules"] = plain;
    assert_eq!(cluster.root("PUT", &format!("{roles}/roles"), role).await.0, 200);
    cluster.make("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    let bob = User::new("bob", &[]);
    let sum = json!({"metadata": {"name": "sum"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    let (code, said) = ask(&cluster, &bob, "POST", roles, sum).await;
    assert!(code == 403 && said.ends_with("must have cluster-admin privileges to use an aggregationRule"), "{said}");
    assert_eq!(ask(&cluster, &bob, "PATCH", &format!("{roles}/edit"), json!({"metadata": {"labels": {"a": "b"}}})).await.0, 403);
    cluster.api.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_by_websocket_takes_the_right_to_create() {
    let cluster = Cluster::start(|_, _| {}).await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let rules = json!([{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get"]}]);
    cluster.make(rbac, json!({"metadata": {"name": "reader"}, "rules": rules})).await;
    let binding = json!({"metadata": {"name": "reader"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
        "subjects": [{"kind": "User", "name": "bob"}]});
    cluster.make("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    let bob = cluster.api.pki().issue_client("bob", &[]).unwrap();
    let path = "/api/v1/namespaces/default/pods/p/exec?command=sh";
    let upgrade = [("connection", "upgrade"), ("upgrade", "WebSocket")];
    let (code, refusal, _) = cluster.send(Some(&bob), &upgrade, "GET", path, Value::Null).await;
    let text = "pods \"p\" is forbidden: User \"bob\" cannot create resource \"pods/exec\" in API group \"\" in the namespace \"default\"";
    assert_eq!((code, refusal["message"].as_str().unwrap()), (403, text));
    assert_eq!(cluster.send(Some(&bob), &[], "GET", path, Value::Null).await.0, 404, "no such pod");
    cluster.api.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_may_at_once_what_its_new_pod_needs() {
    let cluster = Cluster::start(|config, _| config.disable_admission_plugins.push("ServiceAccount".to_owned())).await;
    let node = User::new("system:node:n", &[auth::user::NODES]);
    let admin = User::new("admin", &[auth::user::SYSTEM_MASTERS]);
    for number in 0..20 {
        let (secret, pod) = (format!("s{number}"), format!("p{number}"));
        let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}});
        assert_eq!(ask(&cluster, &admin, "POST", "/api/v1/namespaces/default/secrets", body).await.0, 201);
        let path = format!("/api/v1/namespaces/default/secrets/{secret}");
        let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod}, "spec": {"nodeName": "n", "automountServiceAccountToken": false,
            "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": secret}}]}]}});
        let begun = std::time::Instant::now();
        assert_eq!(ask(&cluster, &node, "GET", &path, Value::Null).await.0, 403, "not its own yet");
        assert!(begun.elapsed() >= super::GRAPH_LAG, "it is asked again for a moment");
        // As a node that hears of it before the authorizer does.
        let made = ask(&cluster, &admin, "POST", "/api/v1/namespaces/default/pods", body).await;
        let read = ask(&cluster, &node, "GET", &path, Value::Null).await;
        assert_eq!((made.0, read.0), (201, 200), "{} {}", made.1, read.1);
    }
}

#[test]
fn what_the_graph_looks_at_is_told_from_what_it_does_not() {
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"annotations": {"a": "b"}, "managedFields": [], "name": "p"},
        "spec": {"nodeName": "n"}, "status": {"phase": "Pending", "resourceClaimStatuses": [{"name": "a"}]}});
    let bytes = |change: &dyn Fn(&mut Value)| {
        let mut pod = pod.clone();
        change(&mut pod);
        crate::codec::encode(&pod)
    };
    let same = |change: &dyn Fn(&mut Value)| super::GraphSink::default().is_same(&bytes(&|_| {}), &bytes(change));
    assert!(same(&|_| {}));
    assert!(same(&|pod| pod["status"]["phase"] = json!("Running")));
    assert!(same(&|pod| pod["metadata"]["managedFields"] = json!([{"manager": "m"}])));
    assert!(!same(&|pod| pod["spec"]["nodeName"] = json!("m")));
    assert!(!same(&|pod| pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("")));
    assert!(!same(&|pod| drop(pod["metadata"].as_object_mut().and_then(|m| m.remove("annotations")))));
    assert!(!same(&|pod| pod["status"]["resourceClaimStatuses"][0]["resourceClaimName"] = json!("c")));
    assert!(!same(&|pod| pod["status"]["extendedResourceClaimStatus"] = json!({"resourceClaimName": "c"})));
    assert!(!same(&|pod| drop(pod.as_object_mut().and_then(|p| p.remove("status")))));
}
