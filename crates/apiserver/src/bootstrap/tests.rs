//! What every cluster has is there, is put right, and is left alone while it is right.

use serde_json::{Value, json};

use super::{Good, ensure};
use crate::testing::Cluster;

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";

#[tokio::test]
async fn what_nobody_wrote_is_not_looked_at_and_what_somebody_did_is_put_right() {
    let cluster = Cluster::start().await;
    let api = cluster.api.api();
    let mut good = Good::default();
    assert!(!good.are_untouched(api).await.unwrap(), "nothing is known yet");
    ensure(api, &mut good).await.unwrap();
    assert!(good.0.len() > 80 && good.are_untouched(api).await.unwrap());
    let before = api.store.revision().await.unwrap();
    ensure(api, &mut good).await.unwrap();
    assert_eq!(api.store.revision().await.unwrap(), before, "all is good");

    // Gone, emptied, a sum emptied, a sum gone: each is there again after one round, and good after it.
    let whole = cluster.get(&format!("{ROLES}/system:node-proxier")).await.body;
    cluster.ok("DELETE", &format!("{ROLES}/system:kube-scheduler"), &Value::Null).await;
    for name in ["system:node-proxier", "view"] {
        let mut role = cluster.get(&format!("{ROLES}/{name}")).await.body;
        role["rules"] = json!([]);
        cluster.ok("PUT", &format!("{ROLES}/{name}"), &role).await;
    }
    cluster.ok("DELETE", &format!("{ROLES}/edit"), &Value::Null).await;
    assert!(!good.are_untouched(api).await.unwrap());
    ensure(api, &mut good).await.unwrap();
    assert_eq!(cluster.get(&format!("{ROLES}/system:node-proxier")).await.body["rules"], whole["rules"]);
    for name in ["system:kube-scheduler", "view", "edit"] {
        let role = cluster.get(&format!("{ROLES}/{name}")).await.body;
        assert!(role["rules"].as_array().is_some_and(|rules| !rules.is_empty()), "{name}");
    }
    assert!(good.are_untouched(api).await.unwrap(), "what was written is known to be good");
    cluster.end().await;
}
