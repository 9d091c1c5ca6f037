//! ServiceAccounts, their tokens, and the review APIs. Mounted tokens are in the crate `e2e`. Tests only.

use serde_json::{Value, json};

use super::{Watch, merge, names, sure};
use crate::testing::Cluster;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

fn account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "labels": {"test": "yes"}}})
}

#[tokio::test]
async fn a_service_account_lives_and_is_watched() {
    let cluster = Cluster::start().await;
    let mut watch = Watch::typed(&cluster, &format!("{ACCOUNTS}?watch=1&labelSelector=test%3Dyes")).await;
    sure(&cluster, "POST", ACCOUNTS, &account("a")).await;
    assert_eq!(watch.next().await["type"], "ADDED");
    let patched = merge(&cluster, &format!("{ACCOUNTS}/a"), &json!({"automountServiceAccountToken": false})).await;
    assert_eq!(patched["automountServiceAccountToken"], false);
    let all = sure(&cluster, "GET", "/api/v1/serviceaccounts?labelSelector=test%3Dyes", &Value::Null).await;
    assert_eq!((names(&all), &all["items"][0]["automountServiceAccountToken"]), (vec!["a"], &json!(false)));
    sure(&cluster, "DELETE", &format!("{ACCOUNTS}?labelSelector=test%3Dyes"), &Value::Null).await;
    assert_eq!(watch.next().await["type"], "MODIFIED");
    assert_eq!(watch.next().await["type"], "DELETED");
    cluster.end().await;
}

#[tokio::test]
async fn a_service_account_is_updated() {
    let cluster = Cluster::start().await;
    let mut made = sure(&cluster, "POST", ACCOUNTS, &account("a")).await;
    made["automountServiceAccountToken"] = json!(false);
    sure(&cluster, "PUT", &format!("{ACCOUNTS}/a"), &made).await;
    assert_eq!(sure(&cluster, "GET", &format!("{ACCOUNTS}/a"), &Value::Null).await["automountServiceAccountToken"], false);
    cluster.end().await;
}

#[tokio::test]
async fn a_requested_token_is_found_good_in_a_review() {
    let cluster = Cluster::start().await;
    sure(&cluster, "POST", ACCOUNTS, &account("a")).await;
    let wanted = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}});
    let made = sure(&cluster, "POST", &format!("{ACCOUNTS}/a/token"), &wanted).await;
    let token = made["status"]["token"].as_str().unwrap();
    assert!(!token.is_empty() && made["status"]["expirationTimestamp"].is_string(), "{made}");
    let review = |token: &str| json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let reviewed = sure(&cluster, "POST", path, &review(token)).await;
    assert_eq!(
        (&reviewed["status"]["authenticated"], &reviewed["status"]["user"]["username"]),
        (&json!(true), &json!("system:serviceaccount:default:a"))
    );
    assert!(reviewed["status"]["error"].as_str().unwrap_or_default().is_empty(), "{reviewed}");
    let reviewed = sure(&cluster, "POST", path, &review("eyJ.no.token")).await;
    assert_ne!(reviewed["status"]["authenticated"], true);
    cluster.end().await;
}

#[tokio::test]
async fn access_reviews_say_what_the_impersonated_find() {
    let cluster = Cluster::start().await;
    sure(&cluster, "POST", ACCOUNTS, &account("a")).await;
    let user = "system:serviceaccount:default:a";
    let groups = ["system:authenticated", "system:serviceaccounts", "system:serviceaccounts:default"];
    let attributes = json!({"verb": "list", "resource": "configmaps", "namespace": "default", "version": "v1"});
    let review = |kind: &str| {
        let mut review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": {
            "resourceAttributes": attributes, "user": user, "groups": groups}});
        if kind.starts_with("Local") {
            review["metadata"] = json!({"namespace": "default"});
        }
        review
    };
    let base = "/apis/authorization.k8s.io/v1";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "default"}]});
    for allowed in [false, true] {
        if allowed {
            let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
            sure(&cluster, "POST", &format!("{rbac}/roles"), &role).await;
            sure(&cluster, "POST", &format!("{rbac}/rolebindings"), &binding).await;
            trial::found("the rights are known", || async {
                let found = sure(&cluster, "POST", &format!("{base}/subjectaccessreviews"), &review("SubjectAccessReview")).await;
                (found["status"]["allowed"] == true).then_some(())
            })
            .await;
        }
        let found = sure(&cluster, "POST", &format!("{base}/subjectaccessreviews"), &review("SubjectAccessReview")).await;
        assert_eq!(found["status"]["allowed"].as_bool().unwrap_or_default(), allowed, "{found}");
        let local = format!("{base}/namespaces/default/localsubjectaccessreviews");
        let found = sure(&cluster, "POST", &local, &review("LocalSubjectAccessReview")).await;
        assert_eq!(found["status"]["allowed"].as_bool().unwrap_or_default(), allowed, "{found}");
        let request = http::Request::builder().uri("/api/v1/namespaces/default/configmaps").header("impersonate-user", user);
        let code = cluster.send(request.body(http_body_util::Full::default()).unwrap()).await.code;
        assert_eq!(code, if allowed { 200 } else { 403 });
    }
    cluster.end().await;
}

#[tokio::test]
async fn the_issuer_can_be_discovered() {
    let cluster = Cluster::start().await;
    let found = cluster.get("/.well-known/openid-configuration").await.body;
    let keys = cluster.get("/openid/v1/jwks").await.body;
    sure(&cluster, "POST", ACCOUNTS, &account("a")).await;
    let wanted = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let made = sure(&cluster, "POST", &format!("{ACCOUNTS}/a/token"), &wanted).await;
    let part = |at: usize| -> Value {
        use base64::Engine as _;
        let text = made["status"]["token"].as_str().unwrap().split('.').nth(at).unwrap();
        serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    };
    assert_eq!(part(1)["iss"], found["issuer"]);
    assert!(found["jwks_uri"].as_str().unwrap().ends_with("/openid/v1/jwks"), "{found}");
    let key = keys["keys"].as_array().unwrap().iter().find(|k| k["kid"] == part(0)["kid"]);
    assert!(key.is_some_and(|k| k["alg"] == part(0)["alg"] && k["use"] == "sig"), "{keys}");
    cluster.end().await;
}
