//! Plugins that are off by default, and what the configuration file tells plugins, asked of a running server. Tests only.

use auth::User;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::testing::{Answer, Cluster, HttpsServer, json_response};

const PODS: &str = "/api/v1/namespaces/default/pods";
const DEFAULT: &str = "/api/v1/namespaces/default";
const MERGE: &str = "application/merge-patch+json";

async fn with(plugins: &[&str]) -> Cluster {
    Cluster::start_with(|config| config.enable_admission_plugins = plugins.iter().map(|p| (*p).to_owned()).collect()).await
}

/// A server whose admission configuration has these plugins.
async fn configured(dir: &std::path::Path, parts: &Value) -> Cluster {
    let names: Vec<String> = parts.as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap().to_owned()).collect();
    let tree = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": parts});
    let file = dir.join("admission.yaml");
    std::fs::write(&file, tree.to_string()).unwrap();
    Cluster::start_with(|config| {
        config.enable_admission_plugins = names;
        config.admission_control_config_file = Some(file);
    })
    .await
}

fn pod(name: &str, spec: &Value) -> Value {
    let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    json_patch::merge(&mut pod["spec"], spec);
    pod
}

async fn make(cluster: &Cluster, pod: &Value) -> Answer {
    cluster.ask("POST", PODS, pod).await
}

async fn annotate(cluster: &Cluster, notes: &Value) {
    let done = cluster.ask_as("PATCH", DEFAULT, MERGE, &json!({"metadata": {"annotations": notes}})).await;
    assert_eq!(done.code, 200, "{}", done.body);
}

#[tokio::test]
async fn pods_are_changed_and_refused_as_asked_for() {
    let cluster = with(&["AlwaysPullImages", "LimitPodHardAntiAffinityTopology", "ExtendedResourceToleration"]).await;
    let spec =
        json!({"containers": [{"name": "c", "image": "i:1", "imagePullPolicy": "Never", "resources": {"limits": {"x.example/gpu": 1}}}]});
    let made = make(&cluster, &pod("a", &spec)).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(made.body["spec"]["containers"][0]["imagePullPolicy"], "Always");
    let tolerated = json!({"key": "x.example/gpu", "operator": "Exists", "effect": "NoSchedule"});
    assert!(made.body["spec"]["tolerations"].as_array().unwrap().contains(&tolerated), "{}", made.body["spec"]["tolerations"]);
    let term = |key: &str| {
        let terms = json!([{"topologyKey": key, "labelSelector": {}}]);
        json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}})
    };
    let refused = make(&cluster, &pod("b", &term("topology.kubernetes.io/zone"))).await;
    let why = "pods \"b\" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey topology.kubernetes.io/zone but \
               only key kubernetes.io/hostname is allowed";
    assert_eq!((refused.code, refused.message()), (403, why));
    assert_eq!(make(&cluster, &pod("b", &term("kubernetes.io/hostname"))).await.code, 201);
    cluster.end().await;
}

#[tokio::test]
async fn namespaces_are_made_when_needed_or_demanded() {
    let map = |dry: &str| (format!("/api/v1/namespaces/fresh/configmaps{dry}"), json!({"metadata": {"name": "m"}}));
    let cluster = with(&["NamespaceAutoProvision"]).await;
    let (path, body) = map("?dryRun=All");
    assert_eq!(cluster.ask("POST", &path, &body).await.code, 404);
    let (path, body) = map("");
    assert_eq!(cluster.ask("POST", &path, &body).await.code, 201);
    assert_eq!(cluster.get("/api/v1/namespaces/fresh").await.body["status"]["phase"], "Active");
    cluster.end().await;
    let cluster = with(&["NamespaceExists"]).await;
    let refused = cluster.ask("POST", &path, &body).await;
    assert_eq!((refused.code, refused.message()), (404, "namespaces \"fresh\" not found"));
    cluster.end().await;
}

#[tokio::test]
async fn external_ips_stay_those_there_are() {
    const SERVICES: &str = "/api/v1/namespaces/default/services";
    let cluster = with(&["DenyServiceExternalIPs"]).await;
    let spec = |ips: Value| json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}], "externalIPs": ips}});
    let refused = cluster.ask("POST", SERVICES, &spec(json!(["203.0.113.1"]))).await;
    assert_eq!(
        (refused.code, refused.message()),
        (403, "services \"s\" is forbidden: Use of external IPs is denied by admission control.")
    );
    cluster.ok("POST", SERVICES, &spec(json!([]))).await;
    let change = json!({"spec": {"externalIPs": ["203.0.113.1"]}});
    assert_eq!(cluster.ask_as("PATCH", &format!("{SERVICES}/s"), MERGE, &change).await.code, 403);
    cluster.end().await;
}

#[tokio::test]
async fn who_denies_always_denies_all_but_reads() {
    let cluster = Cluster::start_with(|config| {
        config.enable_admission_plugins = vec!["AlwaysAdmit".to_owned(), "AlwaysDeny".to_owned()];
    });
    // Not even what every cluster has can be made.
    let failed =
        tokio::time::timeout(std::time::Duration::from_secs(60), futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(cluster)));
    assert!(failed.await.unwrap().is_err());
}

#[tokio::test]
async fn owners_are_set_by_who_may_delete() {
    let cluster = with(&["OwnerReferencesPermissionEnforcement"]).await;
    let owner = cluster.ok("POST", "/api/v1/namespaces/default/configmaps", &json!({"metadata": {"name": "owner"}})).await;
    cluster.ok("POST", "/api/v1/namespaces/default/configmaps", &json!({"metadata": {"name": "owned"}})).await;
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "update", "patch", "get"]}]);
    let role = json!({"metadata": {"name": "writer"}, "rules": rules});
    cluster.ok("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await;
    let subjects = json!([{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "bob"}]);
    let binding = json!({"metadata": {"name": "bob"}, "subjects": subjects,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "writer"}});
    cluster.ok("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await;
    let reference = |blocks: bool| {
        let uid = &owner["metadata"]["uid"];
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid, "blockOwnerDeletion": blocks}])
    };
    let ask = async |method: &str, path: &str, kind: &str, body: Value| {
        let request = Request::builder().method(method).uri(format!("/api/v1/namespaces/default/configmaps{path}"));
        let request = request.header("content-type", kind).body(Full::from(body.to_string())).unwrap();
        // The authorizer follows the store.
        trial::found("bob may do something", async || {
            let answer = cluster.api.service_as(User::new("bob", &[])).oneshot(request.clone()).await.unwrap();
            let code = answer.status().as_u16();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let text = serde_json::from_slice::<Value>(&body).unwrap()["message"].as_str().unwrap_or_default().to_owned();
            (!text.contains("User \"bob\" cannot")).then_some((code, text))
        })
        .await
    };
    let (code, text) = ask("PATCH", "/owned", MERGE, json!({"metadata": {"ownerReferences": reference(false)}})).await;
    assert!(code == 403 && text.contains("cannot set an ownerRef on a resource you can't delete: "), "{text}");
    // A new object needs no such permission, but to hold up its owner's deletion does.
    let (code, text) = ask("POST", "", "application/json", json!({"metadata": {"name": "a", "ownerReferences": reference(false)}})).await;
    assert_eq!(code, 201, "{text}");
    let (code, text) = ask("POST", "", "application/json", json!({"metadata": {"name": "b", "ownerReferences": reference(true)}})).await;
    assert!(code == 403 && text.contains("refers to a resource you can't set finalizers on: "), "{text}");
    // Changes of something else are nobody's concern.
    assert_eq!(ask("PATCH", "/owned", MERGE, json!({"data": {"a": "b"}})).await.0, 200);
    cluster.end().await;
}

#[tokio::test]
async fn a_namespace_selects_the_nodes_of_its_pods() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"podNodeSelectorPluginConfig": {"clusterDefaultNodeSelector": "env=test", "default": "env=test,disk=ssd,zone=a"}});
    let cluster = configured(dir.path(), &json!([{"name": "PodNodeSelector", "configuration": config}])).await;
    assert_eq!(make(&cluster, &pod("a", &json!({}))).await.body["spec"]["nodeSelector"], json!({"env": "test"}));
    for (selector, why) in [
        (json!({"env": "prod"}), "pod node label selector conflicts with its namespace node label selector"),
        (json!({"other": "x"}), "pod node label selector labels conflict with its namespace whitelist"),
    ] {
        let refused = make(&cluster, &pod("b", &json!({"nodeSelector": selector}))).await;
        assert_eq!((refused.code, refused.message()), (403, format!("pods \"b\" is forbidden: {why}").as_str()));
    }
    annotate(&cluster, &json!({"scheduler.alpha.kubernetes.io/node-selector": "zone=a"})).await;
    let made = make(&cluster, &pod("c", &json!({"nodeSelector": {"disk": "ssd"}}))).await;
    assert_eq!(made.body["spec"]["nodeSelector"], json!({"disk": "ssd", "zone": "a"}), "{}", made.body);
    cluster.end().await;
}

#[tokio::test]
async fn tolerations_come_from_the_namespace_and_stay_in_its_list() {
    let dir = tempfile::tempdir().unwrap();
    let gpu = json!({"key": "gpu", "operator": "Exists", "effect": "NoSchedule"});
    let config = json!({"apiVersion": "podtolerationrestriction.admission.k8s.io/v1alpha1", "kind": "Configuration", "default": [gpu]});
    let cluster = configured(dir.path(), &json!([{"name": "PodTolerationRestriction", "configuration": config}])).await;
    let made = make(&cluster, &pod("a", &json!({}))).await;
    assert!(made.body["spec"]["tolerations"].as_array().unwrap().contains(&gpu), "{}", made.body);
    let node = json!([{"key": "node.kubernetes.io/", "operator": "Exists"}, {"key": "mine", "operator": "Exists"}]);
    let notes = json!({"scheduler.alpha.kubernetes.io/defaultTolerations": "[]", "scheduler.alpha.kubernetes.io/tolerationsWhitelist":
        json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}, {"key": "node.kubernetes.io/unreachable", "operator": "Exists"},
            {"key": "mine", "operator": "Exists"}]).to_string()});
    annotate(&cluster, &notes).await;
    let made = make(&cluster, &pod("b", &json!({"tolerations": [node[1]]}))).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert!(!made.body["spec"]["tolerations"].as_array().unwrap().contains(&gpu), "{}", made.body);
    let refused = make(&cluster, &pod("c", &json!({"tolerations": [gpu]}))).await;
    let why = "Internal error occurred: pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace \
               whitelist";
    assert_eq!((refused.code, refused.message()), (500, why));
    cluster.end().await;
}

#[tokio::test]
async fn events_beyond_the_limit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration",
        "limits": [{"type": "Namespace", "qps": 1, "burst": 2}]});
    std::fs::write(dir.path().join("events.yaml"), config.to_string()).unwrap();
    let cluster = configured(dir.path(), &json!([{"name": "EventRateLimit", "path": "events.yaml"}])).await;
    let mut codes = Vec::new();
    for i in 0..4 {
        let event =
            json!({"metadata": {"name": format!("e{i}")}, "involvedObject": {"namespace": "default"}, "reason": "R", "message": "m"});
        let answer = cluster.ask("POST", "/api/v1/namespaces/default/events", &event).await;
        if answer.code == 429 {
            assert_eq!(answer.message(), "limit reached on type Namespace for key default");
        }
        codes.push(answer.code);
    }
    assert_eq!(codes[..2], [201, 201]);
    assert_eq!(codes[3], 429, "{codes:?}");
    cluster.end().await;
}

#[tokio::test]
async fn a_webhook_judges_images_and_is_asked_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = HttpsServer::start(&["127.0.0.1"], |asked| async move {
        let good = asked.body["spec"]["containers"][0]["image"] == "good:1";
        let status = json!({"allowed": good, "reason": "unsigned", "auditAnnotations": {"seen": "yes"}});
        json_response(200, &json!({"apiVersion": "imagepolicy.k8s.io/v1alpha1", "kind": "ImageReview", "status": status}))
    })
    .await;
    let kubeconfig = json!({"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": server.url("/review"), "certificate-authority-data": server.ca_bundle()}}]});
    std::fs::write(dir.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
    let config = json!({"imagePolicy": {"kubeConfigFile": "kubeconfig", "allowTTL": 60, "denyTTL": 60, "retryBackoff": 1}});
    let cluster = configured(dir.path(), &json!([{"name": "ImagePolicyWebhook", "configuration": config}])).await;
    let of = |name: &str, image: &str| pod(name, &json!({"containers": [{"name": "c", "image": image}]}));
    for name in ["a", "b"] {
        assert_eq!(make(&cluster, &of(name, "good:1")).await.code, 201);
        let refused = make(&cluster, &of(name, "bad:1")).await;
        let why = format!("pods {name:?} is forbidden: image policy webhook backend denied one or more images: unsigned");
        assert_eq!((refused.code, refused.message()), (403, why.as_str()));
    }
    let asked = server.take_calls();
    assert_eq!((asked.len(), &asked[0].body["spec"]["namespace"]), (2, &json!("default")), "the second pods were known");
    drop(server);
    // Nobody answers: by default that is a no.
    assert_eq!(make(&cluster, &of("c", "other:1")).await.code, 403);
    cluster.end().await;
}

#[tokio::test]
async fn pod_security_has_defaults_and_exemptions() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
        "defaults": {"enforce": "baseline", "enforce-version": "latest"},
        "exemptions": {"usernames": ["trusted"], "namespaces": ["kube-system"], "runtimeClasses": ["sandboxed"]}});
    let cluster = configured(dir.path(), &json!([{"name": "PodSecurity", "configuration": config}])).await;
    cluster.ok("POST", "/apis/node.k8s.io/v1/runtimeclasses", &json!({"metadata": {"name": "sandboxed"}, "handler": "h"})).await;
    let host = json!({"hostNetwork": true});
    let refused = make(&cluster, &pod("a", &host)).await;
    assert_eq!(refused.code, 403, "{}", refused.body);
    assert!(
        refused.message().contains("violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"),
        "{}",
        refused.message()
    );
    let exempt = json!({"hostNetwork": true, "runtimeClassName": "sandboxed"});
    assert_eq!(make(&cluster, &pod("b", &exempt)).await.code, 201);
    assert_eq!(cluster.ask("POST", "/api/v1/namespaces/kube-system/pods", &pod("c", &host)).await.code, 201);
    let request = Request::builder().method("POST").uri(PODS).header("content-type", "application/json");
    let request = request.body(Full::from(pod("d", &host).to_string())).unwrap();
    let answer = cluster.api.service_as(User::new("trusted", &["system:masters"])).oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 201);
    // A label says more than the default.
    let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}});
    assert_eq!(cluster.ask_as("PATCH", DEFAULT, MERGE, &label).await.code, 200);
    assert_eq!(make(&cluster, &pod("e", &host)).await.code, 201);
    cluster.end().await;
}

#[tokio::test]
async fn a_resize_must_fit_the_node_and_what_it_can_do() {
    let cluster = Cluster::start().await;
    let amounts = |cpu: &str| json!({"requests": {"cpu": cpu, "memory": "1Gi"}, "limits": {"cpu": "4", "memory": "1Gi"}});
    let with = |name: &str, resources: Value| {
        pod(name, &json!({"nodeName": "n", "containers": [{"name": "c", "image": "i:1", "resources": resources}]}))
    };
    let guaranteed = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}});
    assert_eq!(make(&cluster, &with("burst", amounts("1"))).await.code, 201);
    assert_eq!(make(&cluster, &with("sure", guaranteed)).await.code, 201);
    let resize = async |name: &str, resources: Value| {
        let patch = json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
        cluster.ask_as("PATCH", &format!("{PODS}/{name}/resize"), "application/strategic-merge-patch+json", &patch).await
    };
    let refused = resize("burst", amounts("2")).await;
    assert_eq!((refused.code, refused.message()), (403, "pods \"burst\" is forbidden: node \"n\" not found"));
    let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "3", "memory": "2Gi"}}});
    cluster.ok("POST", "/api/v1/nodes", &node).await;
    let refused = resize("burst", amounts("2")).await;
    let why = "pods \"burst\" is forbidden: pod resize is only supported on linux nodes, node \"n\" is \"\"";
    assert_eq!((refused.message(), &refused.body["details"]["causes"][0]["reason"]), (why, &json!("UnsupportedPlatform")));
    let label = json!({"metadata": {"labels": {"kubernetes.io/os": "linux"}}});
    assert_eq!(cluster.ask_as("PATCH", "/api/v1/nodes/n", MERGE, &label).await.code, 200);
    let refused = resize("burst", amounts("3500m")).await;
    let why = "pods \"burst\" is forbidden: Node didn't have enough allocatable resources: cpu, requested: 3500, allocatable: 3000";
    assert_eq!((refused.message(), &refused.body["details"]["causes"][0]["reason"]), (why, &json!("NodeCapacity")));
    let done = resize("burst", amounts("2")).await;
    assert_eq!(done.code, 200, "{}", done.body);
    let more = json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}});
    let refused = resize("sure", more.clone()).await;
    let why = "pods \"sure\" is forbidden: pod update requires features GuaranteedQoSPodCPUResize which are not available on node \"n\"";
    assert_eq!((refused.code, refused.message()), (403, why));
    let declares = json!({"status": {"declaredFeatures": ["GuaranteedQoSPodCPUResize"]}});
    assert_eq!(cluster.ask_as("PATCH", "/api/v1/nodes/n/status", MERGE, &declares).await.code, 200);
    let done = resize("sure", more).await;
    assert_eq!(done.code, 200, "{}", done.body);
    cluster.end().await;
}

#[tokio::test]
async fn webhooks_are_told_who_calls_them() {
    let answer = async |asked: crate::testing::Asked| {
        let uid = asked.body["request"]["uid"].clone();
        json_response(
            200,
            &json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": uid, "allowed": true}}),
        )
    };
    let server = HttpsServer::start(&["127.0.0.1"], answer).await;
    let dir = tempfile::tempdir().unwrap();
    let host = server.url("").trim_start_matches("https://").trim_end_matches('/').to_owned();
    let users = json!({"kind": "Config", "users": [{"name": host, "user": {"token": "mine"}}, {"name": "*", "user": {"token": "other"}}]});
    let file = dir.path().join("kubeconfig");
    std::fs::write(&file, users.to_string()).unwrap();
    let config = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration", "kubeConfigFile": file});
    let cluster = configured(dir.path(), &json!([{"name": "ValidatingAdmissionWebhook", "configuration": config}])).await;
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]);
    let hook = |kind: &str| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "w"}, "webhooks": [{
            "name": "w.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": rules,
            "clientConfig": {"url": server.url("/x"), "caBundle": server.ca_bundle()}}]})
    };
    for kind in ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"] {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{}s", kind.to_lowercase());
        cluster.ok("POST", &path, &hook(kind)).await;
    }
    cluster.ok("POST", &format!("{DEFAULT}/configmaps"), &json!({"metadata": {"name": "m"}})).await;
    let calls = server.take_calls();
    let said: Vec<Option<&str>> = calls.iter().map(|c| c.headers.get("authorization").and_then(|v| v.to_str().ok())).collect();
    // The mutating plugin has a configuration of its own, and here none.
    assert_eq!(said, [None, Some("Bearer mine")]);
    cluster.end().await;
}
