//! Custom resources over HTTP: a definition is posted, its objects are written and read at once.

use serde_json::{Value, json};

use crate::testing::Cluster;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const THINGS: &str = "/apis/g.io/v1/namespaces/default/things";

fn definition(versions: &Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.g.io"},
        "spec": {"group": "g.io", "scope": "Namespaced", "versions": versions,
            "names": {"plural": "things", "kind": "Thing", "shortNames": ["tg"], "categories": ["all"]}}})
}

fn version(name: &str, storage: bool, schema: &Value) -> Value {
    json!({"name": name, "served": true, "storage": storage, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": schema}})
}

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "a": {"type": "string"}, "n": {"type": "integer", "minimum": 1, "default": 3}}},
        "status": {"type": "object", "properties": {"r": {"type": "integer"}}},
    }})
}

fn thing(version: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": format!("g.io/{version}"), "kind": "Thing", "metadata": {"name": name}, "spec": spec})
}

async fn established(cluster: &Cluster) {
    trial::until("the definition is established", async || {
        let found = cluster.ask("GET", &format!("{DEFINITIONS}/things.g.io"), &Value::Null).await;
        kinds::custom::conditions::is_true(&found.body, "Established")
    })
    .await;
}

#[tokio::test]
async fn a_definition_is_served_at_once_and_its_objects_keep_to_it() {
    let cluster = Cluster::start().await;
    let made = cluster.ask("POST", DEFINITIONS, &definition(&json!([version("v1", true, &schema())]))).await;
    assert_eq!(made.code, 201, "{}", made.body);
    // No wait: the first request waits itself.
    let made = cluster.ask("POST", THINGS, &thing("v1", "t", &json!({"a": "x", "odd": 1}))).await;
    assert_eq!((made.code, &made.body["spec"]), (201, &json!({"a": "x", "n": 3})), "{}", made.body);
    assert_eq!(made.body["metadata"]["generation"], 1);
    assert!(made.warnings()[0].starts_with("unknown field"), "{:?}", made.warnings());
    let refused = cluster.ask("POST", &format!("{THINGS}?fieldValidation=Strict"), &thing("v1", "u", &json!({"odd": 1}))).await;
    assert_eq!(refused.code, 400, "{}", refused.body);
    let refused = cluster.ask("POST", THINGS, &thing("v1", "u", &json!({"n": 0}))).await;
    assert_eq!((refused.code, refused.body["details"]["causes"][0]["field"].as_str()), (422, Some("spec.n")), "{}", refused.body);
    let list = cluster.ask("GET", THINGS, &Value::Null).await;
    assert_eq!((&list.body["kind"], &list.body["items"][0]["kind"]), (&json!("ThingList"), &json!("Thing")), "{}", list.body);
    let patched = cluster
        .ask_as("PATCH", &format!("{THINGS}/t/status"), "application/merge-patch+json", &json!({"status": {"r": 1}, "spec": {"a": "no"}}))
        .await;
    assert_eq!(
        (&patched.body["spec"]["a"], &patched.body["status"]["r"], &patched.body["metadata"]["generation"]),
        (&json!("x"), &json!(1), &json!(1)),
        "{}",
        patched.body
    );
    let applied = cluster
        .ask_as(
            "PATCH",
            &format!("{THINGS}/t?fieldManager=m&force=true"),
            "application/apply-patch+yaml",
            &thing("v1", "t", &json!({"a": "y"})),
        )
        .await;
    assert_eq!(
        (applied.code, &applied.body["spec"]["a"], &applied.body["metadata"]["generation"]),
        (200, &json!("y"), &json!(2)),
        "{}",
        applied.body
    );
    let groups = cluster.ask("GET", "/apis/g.io/v1", &Value::Null).await;
    assert_eq!(groups.body["resources"][0]["shortNames"], json!(["tg"]), "{}", groups.body);
}

#[tokio::test]
async fn versions_are_converted_and_a_changed_schema_holds_for_what_is_stored() {
    let cluster = Cluster::start().await;
    let two = json!([
        version("v1", true, &schema()),
        version(
            "v2",
            false,
            &json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"a": {"type": "string"}}}}})
        )
    ]);
    cluster.ask("POST", DEFINITIONS, &definition(&two)).await;
    cluster.ask("POST", THINGS, &thing("v1", "t", &json!({"a": "x"}))).await;
    let two_path = "/apis/g.io/v2/namespaces/default/things";
    let seen = cluster.ask("GET", &format!("{two_path}/t"), &Value::Null).await;
    assert_eq!((&seen.body["apiVersion"], &seen.body["spec"]), (&json!("g.io/v2"), &json!({"a": "x"})), "{}", seen.body);
    let seen = cluster.ask("GET", two_path, &Value::Null).await;
    assert_eq!(seen.body["items"][0]["spec"], json!({"a": "x"}), "{}", seen.body);
    // A new default is seen in what was stored before; a field that is no longer known is not.
    let mut newer = schema();
    newer["properties"]["spec"]["properties"] = json!({"b": {"type": "string", "default": "B"}, "n": {"type": "integer"}});
    let patch = json!({"spec": {"versions": [version("v1", true, &newer)]}});
    let done = cluster.ask_as("PATCH", &format!("{DEFINITIONS}/things.g.io"), "application/merge-patch+json", &patch).await;
    assert_eq!(done.code, 200, "{}", done.body);
    for path in [format!("{THINGS}/t"), THINGS.to_owned()] {
        let seen = cluster.ask("GET", &path, &Value::Null).await;
        let spec = seen.body.pointer("/items/0/spec").unwrap_or(&seen.body["spec"]).clone();
        assert_eq!(spec, json!({"b": "B", "n": 3}), "{path}: {}", seen.body);
    }
    let gone = cluster.ask("GET", two_path, &Value::Null).await;
    assert_eq!(gone.code, 404, "{}", gone.body);
}

#[tokio::test]
async fn discovery_and_openapi_follow_the_definitions() {
    let cluster = Cluster::start().await;
    let mut one = schema();
    one["properties"]["spec"]["description"] = json!("What is wanted.");
    one["properties"]["spec"]["properties"]["p"] = json!({"x-kubernetes-int-or-string": true});
    one["properties"]["spec"]["properties"]["z"] = json!({"type": "string", "nullable": true});
    cluster.ask("POST", DEFINITIONS, &definition(&json!([version("v1", true, &one)]))).await;
    established(&cluster).await;
    let v3 = cluster.ask("GET", "/openapi/v3/apis/g.io/v1", &Value::Null).await;
    let thing = &v3.body["components"]["schemas"]["io.g.v1.Thing"];
    assert_eq!(thing["properties"]["spec"]["description"], "What is wanted.", "{thing}");
    assert_eq!(thing["properties"]["spec"]["properties"]["p"]["anyOf"], json!([{"type": "integer"}, {"type": "string"}]));
    assert_eq!(thing["x-kubernetes-group-version-kind"], json!([{"group": "g.io", "version": "v1", "kind": "Thing"}]));
    assert!(v3.body["paths"]["/apis/g.io/v1/namespaces/{namespace}/things/{name}"]["patch"].is_object());
    let url = |index: &Value| index["paths"]["apis/g.io/v1"]["serverRelativeURL"].as_str().unwrap_or_default().to_owned();
    let before = url(&cluster.ask("GET", "/openapi/v3", &Value::Null).await.body);
    assert!(before.contains("hash="), "{before}");
    let v2 = cluster.ask("GET", "/openapi/v2", &Value::Null).await;
    let thing = &v2.body["definitions"]["io.g.v1.Thing"];
    assert_eq!(thing["properties"]["spec"]["properties"]["z"].get("type"), None, "{thing}");
    assert_eq!(thing["properties"]["metadata"]["$ref"], "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let groups = cluster.ask("GET", "/apis", &Value::Null).await;
    assert!(groups.body["groups"].as_array().is_some_and(|g| g.iter().any(|g| g["name"] == "g.io")));
    // A changed schema is another document.
    let patch = json!([{"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/z"}]);
    let done = cluster.ask_as("PATCH", &format!("{DEFINITIONS}/things.g.io"), "application/json-patch+json", &patch).await;
    assert_eq!(done.code, 200, "{}", done.body);
    assert_ne!(url(&cluster.ask("GET", "/openapi/v3", &Value::Null).await.body), before);
    cluster.ask("DELETE", &format!("{DEFINITIONS}/things.g.io"), &Value::Null).await;
    for attempt in 0.. {
        if cluster.ask("GET", "/apis/g.io", &Value::Null).await.code == 404 {
            break;
        }
        assert!(attempt < 100, "the group stays");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(url(&cluster.ask("GET", "/openapi/v3", &Value::Null).await.body), "");
}

#[tokio::test]
async fn a_watch_follows_its_version_and_ends_with_a_changed_definition() {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;
    let cluster = Cluster::start().await;
    let mut selectable = version("v1", true, &schema());
    selectable["selectableFields"] = json!([{"jsonPath": ".spec.a"}]);
    cluster.ask("POST", DEFINITIONS, &definition(&json!([selectable]))).await;
    established(&cluster).await;
    let url = format!("{THINGS}?watch=1&fieldSelector=spec.a%3Dx");
    let request = http::Request::builder().uri(&url).body(http_body_util::Full::<bytes::Bytes>::default()).unwrap();
    let answer = cluster.api.service().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    cluster.ask("POST", THINGS, &thing("v1", "other", &json!({"a": "y"}))).await;
    cluster.ask("POST", THINGS, &thing("v1", "t", &json!({"a": "x"}))).await;
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let event: Value = serde_json::from_slice(&frame).unwrap();
    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("t")), "{event}");
    let patch = json!({"spec": {"versions": [version("v1", true, &schema())]}});
    cluster.ask_as("PATCH", &format!("{DEFINITIONS}/things.g.io"), "application/merge-patch+json", &patch).await;
    let end = tokio::time::timeout(std::time::Duration::from_secs(5), body.frame()).await.unwrap();
    assert!(end.is_none(), "the watch goes on: {end:?}");
    let refused = cluster.ask("GET", &format!("{THINGS}?fieldSelector=spec.a%3Dx"), &Value::Null).await;
    assert_eq!((refused.code, refused.message()), (400, "field label not supported: spec.a"));
}

/// Renames `spec.a` of v1 to `spec.b` of v2, and back. A name tells it to misbehave.
async fn convert(asked: crate::testing::Asked) -> http::Response<http_body_util::Full<bytes::Bytes>> {
    let request = &asked.body["request"];
    let wanted = request["desiredAPIVersion"].clone();
    let mut objects = request["objects"].as_array().cloned().unwrap_or_default();
    let mut result = json!({"status": "Success"});
    for object in &mut objects {
        let (from, to) = if wanted == "g.io/v2" { ("a", "b") } else { ("b", "a") };
        let moved = object["spec"].as_object_mut().and_then(|spec| spec.remove(from));
        object["apiVersion"] = wanted.clone();
        object["spec"][to] = moved.unwrap_or_default();
        object["metadata"]["labels"] = json!({"converted": "yes"});
        object["metadata"]["finalizers"] = json!(["not.io/allowed"]);
        if object["metadata"]["name"] == "bad" {
            result = json!({"status": "Failure", "message": "cannot do that"});
        }
        if object["metadata"]["name"] == "liar" {
            object["metadata"]["uid"] = json!("another");
        }
    }
    crate::testing::json_response(
        200,
        &json!({"apiVersion": asked.body["apiVersion"], "kind": "ConversionReview",
        "response": {"uid": request["uid"], "result": result, "convertedObjects": objects}}),
    )
}

#[tokio::test]
async fn a_webhook_converts_between_versions_in_one_call() {
    let (cluster, server) = (Cluster::start().await, crate::testing::HttpsServer::start(&["127.0.0.1"], convert).await);
    let with =
        |field: &str| json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {field: {"type": "string"}}}}});
    let mut one = definition(&json!([version("v1", true, &with("a")), version("v2", false, &with("b"))]));
    one["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
        "clientConfig": {"url": server.url("/convert"), "caBundle": server.ca_bundle()}}});
    cluster.ok("POST", DEFINITIONS, &one).await;
    established(&cluster).await;
    let other = "/apis/g.io/v2/namespaces/default/things";
    for name in ["one", "two"] {
        cluster.ok("POST", THINGS, &thing("v1", name, &json!({"a": name}))).await;
    }
    let seen = cluster.ok("GET", &format!("{other}/one"), &Value::Null).await;
    assert_eq!((&seen["spec"], &seen["metadata"]["labels"]["converted"]), (&json!({"b": "one"}), &json!("yes")), "{seen}");
    assert_eq!(seen["metadata"].get("finalizers"), None, "only labels and annotations may change");
    let made = cluster.ok("POST", other, &thing("v2", "three", &json!({"b": "three"}))).await;
    assert_eq!((&made["apiVersion"], &made["spec"]), (&json!("g.io/v2"), &json!({"b": "three"})));
    assert_eq!(cluster.ok("GET", &format!("{THINGS}/three"), &Value::Null).await["spec"], json!({"a": "three"}));
    let patched = cluster.ask_as("PATCH", &format!("{other}/two"), "application/merge-patch+json", &json!({"spec": {"b": "2"}})).await;
    assert_eq!(patched.body["spec"], json!({"b": "2"}), "{}", patched.body);
    let list = cluster.ok("GET", other, &Value::Null).await;
    let specs: Vec<&Value> = list["items"].as_array().unwrap().iter().map(|i| &i["spec"]["b"]).collect();
    assert_eq!(specs, ["one", "three", "2"], "{list}");
    for (name, why) in [("bad", " failed: cannot do that"), ("liar", " returned invalid ")] {
        cluster.ok("POST", THINGS, &thing("v1", name, &json!({"a": "x"}))).await;
        let failed = cluster.get(&format!("{other}/{name}")).await;
        assert_eq!(failed.code, 500, "{}", failed.body);
        assert!(failed.message().starts_with(&format!("conversion webhook for g.io/v1, Kind=Thing{why}")), "{}", failed.body);
        // A list with one such object fails as a whole, and works again without it.
        let failed = cluster.get(other).await;
        assert!(failed.code == 500 && failed.message().contains(why), "{}", failed.body);
        cluster.ok("DELETE", &format!("{THINGS}/{name}"), &Value::Null).await;
        cluster.ok("GET", other, &Value::Null).await;
    }
}

#[tokio::test]
async fn every_server_of_a_store_follows_its_definitions() {
    let store = std::sync::Arc::new(store::Embedded::in_memory());
    let (first, second) = (Cluster::over(store.clone()).await, Cluster::over(store).await);
    first.ok("POST", DEFINITIONS, &definition(&json!([version("v1", true, &schema())]))).await;
    // Long before a definition would be looked for again.
    established(&second).await;
    second.ok("POST", THINGS, &thing("v1", "t", &json!({"a": "x"}))).await;
    assert_eq!(first.ok("GET", &format!("{THINGS}/t"), &Value::Null).await["spec"], json!({"a": "x", "n": 3}));
    first.ok("DELETE", &format!("{DEFINITIONS}/things.g.io"), &Value::Null).await;
    for attempt in 0.. {
        if second.get("/apis/g.io/v1").await.code == 404 {
            break;
        }
        assert!(attempt < 200, "the other server goes on serving");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_new_storage_version_is_taken_by_the_next_write() {
    let cluster = Cluster::start().await;
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    cluster.ok("POST", DEFINITIONS, &definition(&json!([version("v1", true, &any), version("v2", false, &any)]))).await;
    let made = cluster.ok("POST", THINGS, &thing("v1", "t", &json!({"a": "x"}))).await;
    let patch = json!({"spec": {"versions": [version("v1", false, &any), version("v2", true, &any)]}});
    let changed = cluster.ask_as("PATCH", &format!("{DEFINITIONS}/things.g.io"), "application/merge-patch+json", &patch).await;
    assert_eq!(changed.body["status"]["storedVersions"], json!(["v1", "v2"]), "{}", changed.body);
    // Writing back what was read changes nothing but the version it is stored in, and that is a write.
    let same = cluster.ok("PUT", &format!("{THINGS}/t"), &made).await;
    assert_ne!(same["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    assert_eq!(same["metadata"]["generation"], 1);
    let again = cluster.ok("PUT", &format!("{THINGS}/t"), &same).await;
    assert_eq!(again["metadata"]["resourceVersion"], same["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn what_is_wrong_is_refused_in_upstreams_words() {
    let cluster = Cluster::start().await;
    cluster.ok("POST", DEFINITIONS, &definition(&json!([version("v1", true, &schema())]))).await;
    established(&cluster).await;
    let mut other = thing("v1", "t", &json!({}));
    other["kind"] = json!("Other");
    let refused = cluster.ask("POST", THINGS, &other).await;
    assert_eq!(
        (refused.code, &refused.body["details"]["causes"][0]["message"]),
        (422, &json!("Invalid value: \"Other\": must be Thing")),
        "{}",
        refused.body
    );
    let refused = cluster.ask("POST", THINGS, &thing("v2", "t", &json!({}))).await;
    assert_eq!(refused.message(), "the API version in the data (g.io/v2) does not match the expected API version (g.io/v1)");
    cluster.ok("POST", THINGS, &thing("v1", "t", &json!({}))).await;
    let refused = cluster.ask_as("PATCH", &format!("{THINGS}/t"), "application/strategic-merge-patch+json", &json!({})).await;
    assert_eq!(refused.code, 415, "{}", refused.body);
    let refused = cluster.ask_as("POST", THINGS, "application/vnd.kubernetes.protobuf", &json!({})).await;
    assert_eq!(refused.code, 415, "{}", refused.body);
    let mut taken = definition(&json!([version("v1", true, &schema())]));
    taken["metadata"]["name"] = json!("others.g.io");
    taken["spec"]["names"]["plural"] = json!("others");
    cluster.ok("POST", DEFINITIONS, &taken).await;
    let said = trial::found("the names are judged", async || {
        let found = cluster.get(&format!("{DEFINITIONS}/others.g.io")).await;
        kinds::custom::conditions::condition(&found.body, "NamesAccepted").cloned()
    })
    .await;
    assert_eq!(
        (&said["status"], &said["reason"], &said["message"]),
        (&json!("False"), &json!("ListKindConflict"), &json!("\"ThingList\" is already in use"))
    );
    assert_eq!(cluster.get("/apis/g.io/v1/namespaces/default/others").await.code, 404);
}

#[tokio::test]
async fn a_deleted_definition_takes_its_objects_along_and_can_be_made_again() {
    let cluster = Cluster::start().await;
    let one = definition(&json!([version("v1", true, &schema())]));
    cluster.ask("POST", DEFINITIONS, &one).await;
    cluster.ask("POST", THINGS, &thing("v1", "free", &json!({}))).await;
    let mut held = thing("v1", "held", &json!({}));
    held["metadata"]["finalizers"] = json!(["g.io/x"]);
    cluster.ask("POST", THINGS, &held).await;
    established(&cluster).await;
    let path = format!("{DEFINITIONS}/things.g.io");
    let deleted = cluster.ask("DELETE", &path, &Value::Null).await;
    assert_eq!(deleted.body["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]), "{}", deleted.body);
    let refused = cluster.ask("POST", THINGS, &thing("v1", "new", &json!({}))).await;
    assert_eq!(refused.code, 405, "{}", refused.body);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let waiting = cluster.ask("GET", &path, &Value::Null).await;
    let terminating = kinds::custom::conditions::condition(&waiting.body, "Terminating").unwrap();
    assert_eq!(terminating["reason"], "InstanceDeletionInProgress", "{}", waiting.body);
    assert_eq!(cluster.ask("GET", &format!("{THINGS}/free"), &Value::Null).await.code, 404);
    let freed = cluster
        .ask_as("PATCH", &format!("{THINGS}/held"), "application/merge-patch+json", &json!({"metadata": {"finalizers": null}}))
        .await;
    assert_eq!(freed.code, 200, "{}", freed.body);
    for attempt in 0.. {
        if cluster.ask("GET", &path, &Value::Null).await.code == 404 {
            break;
        }
        assert!(attempt < 200, "the definition stays");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(cluster.ask("GET", THINGS, &Value::Null).await.code, 404);
    assert_eq!(cluster.ask("POST", DEFINITIONS, &one).await.code, 201);
    let list = cluster.ask("GET", THINGS, &Value::Null).await;
    assert_eq!((list.code, &list.body["items"]), (200, &json!([])), "{}", list.body);
}

#[tokio::test]
async fn an_update_is_warned_of_what_it_leaves_broken() {
    let cluster = Cluster::start().await;
    let with = |rules: Value| {
        let spec =
            json!({"type": "object", "properties": {"a": {"type": "string", "x-kubernetes-validations": rules}, "b": {"type": "string"}}});
        version("v1", true, &json!({"type": "object", "properties": {"spec": spec}}))
    };
    cluster.ok("POST", DEFINITIONS, &definition(&json!([with(json!([]))]))).await;
    cluster.ok("POST", THINGS, &thing("v1", "t", &json!({"a": "long"}))).await;
    let patch = json!({"spec": {"versions": [with(json!([{"rule": "self.size() < 3", "message": "too long"}]))]}});
    cluster.ask_as("PATCH", &format!("{DEFINITIONS}/things.g.io"), "application/merge-patch+json", &patch).await;
    let path = format!("{THINGS}/t");
    let kept = cluster.ask_as("PATCH", &path, "application/merge-patch+json", &json!({"spec": {"b": "x"}})).await;
    assert_eq!((kept.code, kept.warnings()), (200, vec![r#"spec.a: Invalid value: \"long\": too long"#.to_owned()]), "{}", kept.body);
    let refused = cluster.ask_as("PATCH", &path, "application/merge-patch+json", &json!({"spec": {"a": "longer"}})).await;
    assert_eq!(
        (refused.code, &refused.body["details"]["causes"][0]["message"]),
        (422, &json!("Invalid value: \"longer\": too long")),
        "{}",
        refused.body
    );
}

#[tokio::test]
async fn nulls_of_an_applied_configuration_are_refused_where_the_schema_allows_none() {
    let cluster = Cluster::start().await;
    cluster.ask("POST", DEFINITIONS, &definition(&json!([version("v1", true, &schema())]))).await;
    let given = json!({"apiVersion": "g.io/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": null});
    let path = format!("{THINGS}/t?fieldManager=m");
    let refused = cluster.ask_as("PATCH", &path, "application/apply-patch+yaml", &given).await;
    assert_eq!((refused.code, &refused.body["details"]["causes"][0]["field"]), (422, &json!("spec")), "{}", refused.body);
    // What is posted loses them before anybody looks.
    let posted = cluster.ask("POST", THINGS, &given).await;
    assert_eq!((posted.code, posted.body.get("spec")), (201, None), "{}", posted.body);
}

#[tokio::test]
async fn who_writes_another_version_reads_back_what_is_stored() {
    let cluster = Cluster::start().await;
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let versions = json!([version("v1", true, &schema()), version("v2", false, &open)]);
    cluster.ask("POST", DEFINITIONS, &definition(&versions)).await;
    let path = THINGS.replace("/v1/", "/v2/");
    let made = cluster.ask("POST", &path, &thing("v2", "t", &json!({"a": "x", "odd": 1}))).await;
    assert_eq!((made.code, &made.body["apiVersion"], &made.body["spec"]), (201, &json!("g.io/v2"), &json!({"a": "x", "n": 3})));
    let patch = json!({"spec": {"odd": 2, "a": "y"}});
    let patched = cluster.ask_as("PATCH", &format!("{path}/t"), "application/merge-patch+json", &patch).await;
    assert_eq!((patched.code, &patched.body["spec"]), (200, &json!({"a": "y", "n": 3})), "{}", patched.body);
}

#[tokio::test]
async fn a_refusal_carries_warnings_and_a_kind_must_be_said() {
    let cluster = Cluster::start().await;
    cluster.ask("POST", DEFINITIONS, &definition(&json!([version("v1", true, &schema())]))).await;
    let refused = cluster.ask("POST", THINGS, &thing("v1", "t", &json!({"n": 0, "odd": 1}))).await;
    let warned = refused.warnings();
    assert!(refused.code == 422 && warned.len() == 1 && warned[0].contains("spec.odd"), "{warned:?} {}", refused.body);
    let other = json!({"apiVersion": "g.io/v1", "kind": "Other", "metadata": {"name": "t"}});
    let refused = cluster.ask("POST", THINGS, &other).await;
    assert_eq!(refused.body["message"], r#"Other.g.io "t" is invalid: kind: Invalid value: "Other": must be Thing"#);
    let silent = json!({"apiVersion": "g.io/v1", "metadata": {"name": "t"}});
    let refused = cluster.ask("POST", THINGS, &silent).await;
    let text = refused.body["message"].as_str().unwrap();
    assert!(refused.code == 400 && text.contains("(must be of type Thing): Object 'Kind' is missing in '{"), "{text}");
}

#[tokio::test]
async fn a_status_is_judged_alone() {
    let cluster = Cluster::start().await;
    cluster.ask("POST", DEFINITIONS, &definition(&json!([version("v1", true, &schema())]))).await;
    cluster.ask("POST", THINGS, &thing("v1", "t", &json!({"a": "x"}))).await;
    let mut narrow = schema();
    narrow["properties"]["spec"]["properties"]["a"]["maxLength"] = json!(0);
    let spec = json!({"spec": {"versions": [version("v1", true, &narrow)]}});
    let at = format!("{DEFINITIONS}/things.g.io");
    assert_eq!(cluster.ask_as("PATCH", &at, "application/merge-patch+json", &spec).await.code, 200);
    let status = json!({"status": {"r": 1}, "metadata": {"labels": {"l": "no"}}});
    let path = format!("{THINGS}/t/status");
    let changed = cluster.ask_as("PATCH", &path, "application/merge-patch+json", &status).await;
    assert_eq!((changed.code, &changed.body["status"]["r"]), (200, &json!(1)), "{}", changed.body);
    let owners = changed.body["metadata"]["managedFields"].to_string();
    assert!(!owners.contains("f:labels"), "nobody owns what was not changed: {owners}");
    let refused = cluster.ask_as("PATCH", &path, "application/merge-patch+json", &json!({"status": {"r": "x"}})).await;
    assert_eq!((refused.code, &refused.body["details"]["causes"][0]["field"]), (422, &json!("status.r")), "{}", refused.body);
}
