//! What `/openapi/v2` says of custom resources, as definitions come, change and go. Tests only.

use serde_json::{Value, json};

use super::{DEFINITIONS, define, merge};
use crate::testing::Cluster;

fn schema(description: &str) -> Value {
    json!({"type": "object", "description": description, "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}})
}

/// The definitions of the group, by name, once they are as expected.
async fn published(cluster: &Cluster, reversed: &str, want: &[&str]) -> Value {
    trial::found(&format!("{want:?} are published"), || async {
        let all = cluster.get("/openapi/v2").await.body["definitions"].clone();
        let of_group = all.as_object().unwrap().iter().filter(|(name, _)| name.starts_with(reversed) && !name.ends_with("List"));
        let found: serde_json::Map<String, Value> =
            of_group.map(|(name, value)| (name[reversed.len() + 1..].to_owned(), value.clone())).collect();
        (found.keys().map(String::as_str).collect::<Vec<_>>() == want).then_some(Value::Object(found))
    })
    .await
}

#[tokio::test]
async fn definitions_of_several_groups_versions_and_kinds_are_published() {
    let cluster = Cluster::start().await;
    // Different groups.
    define(&cluster, "one.example.com", "Thing", &[("v1", schema("of one"))]).await;
    define(&cluster, "two.example.com", "Thing", &[("v2", schema("of two"))]).await;
    let one = published(&cluster, "com.example.one", &["v1.Thing"]).await;
    let two = published(&cluster, "com.example.two", &["v2.Thing"]).await;
    assert_eq!((&one["v1.Thing"]["description"], &two["v2.Thing"]["description"]), (&json!("of one"), &json!("of two")));
    assert_eq!(one["v1.Thing"]["x-kubernetes-group-version-kind"], json!([{"group": "one.example.com", "version": "v1", "kind": "Thing"}]));
    // The same group and version, different kinds.
    define(&cluster, "kinds.example.com", "Foo", &[("v6", schema("a foo"))]).await;
    define(&cluster, "kinds.example.com", "Bar", &[("v6", schema("a bar"))]).await;
    published(&cluster, "com.example.kinds", &["v6.Bar", "v6.Foo"]).await;
    // The same group, different versions; in one definition, and in two.
    define(&cluster, "many.example.com", "Thing", &[("v2", schema("of v2")), ("v3", schema("of v3"))]).await;
    define(&cluster, "many.example.com", "Other", &[("v4", schema("of v4"))]).await;
    let many = published(&cluster, "com.example.many", &["v2.Thing", "v3.Thing", "v4.Other"]).await;
    assert_eq!(many["v3.Thing"]["description"], "of v3");
    cluster.end().await;
}

#[tokio::test]
async fn a_renamed_version_is_published_under_its_new_name() {
    let cluster = Cluster::start().await;
    let made = define(&cluster, "re.example.com", "Thing", &[("v2", schema("two")), ("v3", schema("three"))]).await;
    published(&cluster, "com.example.re", &["v2.Thing", "v3.Thing"]).await;
    let mut versions = made["spec"]["versions"].clone();
    versions[1]["name"] = json!("v4");
    merge(&cluster, &format!("{DEFINITIONS}/things.re.example.com"), &json!({"spec": {"versions": versions}})).await;
    let found = published(&cluster, "com.example.re", &["v2.Thing", "v4.Thing"]).await;
    assert_eq!((&found["v4.Thing"]["description"], &found["v2.Thing"]["description"]), (&json!("three"), &json!("two")));
    cluster.end().await;
}

#[tokio::test]
async fn a_version_that_is_no_longer_served_is_no_longer_published() {
    let cluster = Cluster::start().await;
    let made = define(&cluster, "un.example.com", "Thing", &[("v5", schema("five")), ("v6alpha1", schema("six"))]).await;
    published(&cluster, "com.example.un", &["v5.Thing", "v6alpha1.Thing"]).await;
    let mut versions = made["spec"]["versions"].clone();
    versions[1]["served"] = json!(false);
    merge(&cluster, &format!("{DEFINITIONS}/things.un.example.com"), &json!({"spec": {"versions": versions}})).await;
    let found = published(&cluster, "com.example.un", &["v5.Thing"]).await;
    assert_eq!(found["v5.Thing"]["description"], "five");
    cluster.end().await;
}
