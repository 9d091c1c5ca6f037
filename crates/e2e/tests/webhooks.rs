//! Admission webhooks that run in pods behind a Service: the steps of upstream's conformance tests, on one cluster.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use anyhow::{Result, ensure};
use e2e::extension::Extension;
use e2e::{Cluster, Space, eventually, has_kubectl, is_root, refused, shared};
use serde_json::{Value, json};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MUTATING: &str = "MutatingWebhookConfiguration";
const VALIDATING: &str = "ValidatingWebhookConfiguration";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A namespace, and the server whose webhooks are about nothing but it.
struct Lab {
    space: Space,
    extension: Extension,
}

/// One server for all tests of a cluster.
fn extension(cluster: &Arc<Cluster>) -> Extension {
    static DEPLOYED: Mutex<(Weak<Cluster>, String)> = Mutex::new((Weak::new(), String::new()));
    let mut deployed = DEPLOYED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if deployed.0.ptr_eq(&Arc::downgrade(cluster)) {
        return Extension { ca_pem: deployed.1.clone() };
    }
    let made = Extension::deploy(cluster, Path::new(env!("CARGO_BIN_EXE_extension")), 1).unwrap();
    *deployed = (Arc::downgrade(cluster), made.ca_pem.clone());
    made
}

fn rule(group: &str, resource: &str, operations: &[&str]) -> Value {
    json!({"operations": operations, "apiGroups": [group], "apiVersions": ["*"], "resources": [resource]})
}

fn configurations(kind: &str) -> String {
    format!("{GROUP}/{}s", kind.to_lowercase())
}

impl Lab {
    fn new(name: &str) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let cluster = shared().unwrap();
        let extension = extension(&cluster);
        Some(Self { space: Space::new(cluster, name).unwrap(), extension })
    }

    fn hook(&self, path: &str, rules: &[Value]) -> Value {
        json!({"name": format!("{}.example.com", path.trim_matches('/').replace('/', "-")), "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "clientConfig": self.extension.client_config(path), "rules": rules, "timeoutSeconds": 10,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.space.name}}})
    }

    fn configuration(&self, kind: &str, name: &str, hooks: &[Value]) -> Value {
        let name = format!("{}-{name}", self.space.name);
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name, "labels": {"lab": self.space.name}},
            "webhooks": hooks})
    }

    fn configure(&self, kind: &str, name: &str, hooks: &[Value]) -> String {
        let body = self.configuration(kind, name, hooks);
        self.space.request("POST", &configurations(kind), Some(&body)).unwrap();
        format!("{}/{}", configurations(kind), body["metadata"]["name"].as_str().unwrap())
    }

    fn try_map(&self, name: &str, data: &Value, dry: bool) -> Result<Value> {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
        let path = self.space.path(if dry { "configmaps?dryRun=All" } else { "configmaps" });
        self.space.request("POST", &path, Some(&body))
    }

    fn map(&self, name: &str, data: &Value) -> Result<Value> {
        self.try_map(name, data, false)
    }

    /// Asks without writing until the answer is as it should be: configurations take a moment to be in force.
    fn until(&self, what: &str, data: &Value, wanted: impl Fn(&Result<Value>) -> bool) {
        eventually(what, || {
            let answer = self.try_map("probe", data, true);
            ensure!(wanted(&answer), "{answer:?}");
            Ok(())
        })
        .unwrap();
    }

    /// A definition of `stages.NAMESPACE.example.com` with versions v1 and v2, the first stored.
    fn define(&self, schema: &Value) -> String {
        let group = format!("{}.example.com", self.space.name);
        let version =
            |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}});
        let body = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("stages.{group}")},
            "spec": {"group": group, "scope": "Namespaced", "names": {"plural": "stages", "kind": "Stage"},
                "versions": [version("v1", true), version("v2", false)]}});
        self.space.request("POST", DEFINITIONS, Some(&body)).unwrap();
        let path = format!("/apis/{group}/v1/namespaces/{}/stages", self.space.name);
        eventually("the resource is served", || self.space.get(&path)).unwrap();
        path
    }

    fn stage(&self, name: &str, data: &Value) -> Value {
        json!({"apiVersion": format!("{}.example.com/v1", self.space.name), "kind": "Stage", "metadata": {"name": name}, "data": data})
    }

    fn group(&self) -> String {
        format!("{}.example.com", self.space.name)
    }
}

fn open() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn started() -> Value {
    json!({"mutation-start": "yes"})
}

#[test]
fn configurations_are_listed_and_deleted_by_label() {
    let Some(lab) = Lab::new("hooks-listed") else { return };
    let maps = [rule("", "configmaps", &["CREATE"])];
    for (kind, path) in [(MUTATING, "/mutating-data"), (VALIDATING, "/configmaps")] {
        let mut bodies = Vec::new();
        for number in 0..10 {
            bodies.push(lab.configure(kind, &format!("w{number}"), &[lab.hook(path, &maps)]));
        }
        let ours = format!("{}?labelSelector=lab%3Dhooks-listed", configurations(kind));
        assert_eq!(lab.space.get(&ours).unwrap()["items"].as_array().unwrap().len(), bodies.len());
        let bad = json!({"mutation-start": "yes", "webhook-e2e-test": "webhook-disallow"});
        let works = |answer: &Result<Value>| match answer {
            Ok(made) => made["data"]["mutation-stage-1"] == "yes",
            Err(why) => format!("{why:#}").contains("the configmap contains unwanted key and value"),
        };
        lab.until("they work", &bad, works);
        lab.space.request("DELETE", &ours, None).unwrap();
        assert_eq!(lab.space.get(&ours).unwrap()["items"], json!([]));
        lab.until("they are gone", &bad, |answer| answer.as_ref().is_ok_and(|made| made["data"] == bad));
    }
}

#[test]
fn configurations_are_updated_and_patched() {
    let Some(lab) = Lab::new("hooks-changed") else { return };
    let (create, update) = ([rule("", "configmaps", &["CREATE"])], [rule("", "configmaps", &["UPDATE"])]);
    for (kind, path) in [(MUTATING, "/mutating-data"), (VALIDATING, "/configmaps")] {
        let one = lab.configure(kind, "w", &[lab.hook(path, &create)]);
        let bad = json!({"mutation-start": "yes", "webhook-e2e-test": "webhook-disallow"});
        let works = |answer: &Result<Value>| answer.as_ref().map_or(true, |made| made["data"]["mutation-stage-1"] == "yes");
        lab.until("it works", &bad, works);
        let mut read = lab.space.get(&one).unwrap();
        read["webhooks"][0]["rules"] = json!(update);
        lab.space.request("PUT", &one, Some(&read)).unwrap();
        lab.until("it is not about this any more", &bad, |answer| answer.as_ref().is_ok_and(|made| made["data"] == bad));
        lab.space.request("PATCH", &one, Some(&json!({"webhooks": [lab.hook(path, &create)]}))).unwrap();
        lab.until("it works again", &bad, works);
        lab.space.request("DELETE", &one, None).unwrap();
    }
}

#[test]
fn pods_and_maps_are_refused() {
    let Some(lab) = Lab::new("hooks-refuse") else { return };
    let mut slow = lab.hook("/pods", &[rule("", "pods", &["CREATE", "UPDATE"])]);
    slow["timeoutSeconds"] = json!(3);
    let mut maps = lab.hook("/configmaps", &[rule("", "configmaps", &["CREATE", "UPDATE", "DELETE"])]);
    maps["namespaceSelector"] = json!({"matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["hooks-refuse", "hooks-refuse-exempt"]},
        {"key": "exempt", "operator": "NotIn", "values": ["yes"]}]});
    lab.configure(VALIDATING, "w", &[slow, maps]);
    let bad = json!({"webhook-e2e-test": "webhook-disallow"});
    lab.until("it works", &bad, Result::is_err);
    let text = refused(lab.map("bad", &bad));
    assert!(
        text.contains("admission webhook \"configmaps.example.com\" denied the request: the configmap contains unwanted key and value"),
        "{text}"
    );
    let pod = |name: &str, container: &str, label: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"webhook-e2e-test": label}},
            "spec": {"nodeSelector": {"none": "such"}, "containers": [{"name": container, "image": "skiff/hello"}]}})
    };
    let text = refused(lab.space.create("pods", &pod("bad", "webhook-disallow", "webhook-disallow")));
    assert!(text.contains("the pod contains unwanted container name; the pod contains unwanted label"), "{text}");
    let text = refused(lab.space.create("pods", &pod("hanging", "c", "wait-forever")));
    assert!(
        text.contains("failed calling webhook \"pods.example.com\"") && (text.contains("deadline") || text.contains("timeout")),
        "{text}"
    );
    assert!(lab.space.read("pods/hanging").is_err());
    lab.space.create("pods", &pod("good", "c", "fine")).unwrap();
    let text = refused(lab.space.patch("pods/good", &json!({"metadata": {"labels": bad}})));
    assert!(text.contains("the pod contains unwanted label"), "{text}");
    // A good map must not become a bad one, by either way.
    let mut made = lab.map("good", &json!({"a": "b"})).unwrap();
    made["data"] = bad.clone();
    for answer in [
        lab.space.request("PUT", &lab.space.path("configmaps/good"), Some(&made)),
        lab.space.patch("configmaps/good", &json!({"data": bad})),
    ] {
        let text = refused(answer);
        assert!(text.contains("the configmap contains unwanted key and value"), "{text}");
    }
    // Some namespaces are exempt.
    let exempt = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "hooks-refuse-exempt", "labels": {"exempt": "yes"}}});
    lab.space.request("POST", "/api/v1/namespaces", Some(&exempt)).unwrap();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": bad});
    lab.space.request("POST", "/api/v1/namespaces/hooks-refuse-exempt/configmaps", Some(&map)).unwrap();
}

#[test]
fn attaching_is_refused() {
    let Some(lab) = Lab::new("hooks-attach").filter(|_| has_kubectl()) else { return };
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "to-be-attached-pod"}, "spec": {"containers": [{"name": "c", "image": "skiff/hello"}]}});
    lab.space.create("pods", &pod).unwrap();
    lab.configure(VALIDATING, "w", &[lab.hook("/pods/attach", &[rule("", "pods/attach", &["CONNECT"])])]);
    lab.space.wait_phase("to-be-attached-pod", "Running").unwrap();
    eventually("attaching is refused", || {
        let out = lab.space.kubectl(&["--namespace", "hooks-attach", "attach", "to-be-attached-pod", "--pod-running-timeout=5s"])?;
        ensure!(!out.success && out.stderr.contains("attaching to pod 'to-be-attached-pod' is not allowed"), "{out:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn custom_resources_and_definitions_are_refused() {
    let Some(lab) = Lab::new("hooks-custom") else { return };
    let path = lab.define(&open());
    let all = ["CREATE", "UPDATE", "DELETE"];
    let own = lab.configure(VALIDATING, "custom", &[lab.hook("/custom-resource", &[rule(&lab.group(), "stages", &all)])]);
    let bad = json!({"webhook-e2e-test": "webhook-disallow"});
    let why = "the custom resource contains unwanted data";
    eventually("creation is refused", || {
        let answer = lab.space.request("POST", &format!("{path}?dryRun=All"), Some(&lab.stage("s", &bad)));
        ensure!(answer.as_ref().is_err_and(|e| format!("{e:#}").contains(why)), "{answer:?}");
        Ok(())
    })
    .unwrap();
    lab.space.request("POST", &path, Some(&lab.stage("s", &json!({"a": "b"})))).unwrap();
    let one = format!("{path}/s");
    assert!(refused(lab.space.request("PATCH", &one, Some(&json!({"data": bad})))).contains(why));
    // What is bad already must not go either.
    let mut read = lab.space.get(&own).unwrap();
    let rules = read["webhooks"][0]["rules"].take();
    read["webhooks"][0]["rules"] = json!([rule(&lab.group(), "stages", &["DELETE"])]);
    lab.space.request("PUT", &own, Some(&read)).unwrap();
    eventually("updates are not asked about", || lab.space.request("PATCH", &one, Some(&json!({"data": bad})))).unwrap();
    assert!(refused(lab.space.request("DELETE", &one, None)).contains(why));
    let mut read = lab.space.get(&own).unwrap();
    read["webhooks"][0]["rules"] = rules;
    lab.space.request("PUT", &own, Some(&read)).unwrap();
    eventually("the data are mended", || lab.space.request("PATCH", &one, Some(&json!({"data": {"webhook-e2e-test": "fine"}})))).unwrap();
    lab.space.request("DELETE", &one, None).unwrap();

    let mut hook = lab.hook("/crd", &[rule("apiextensions.k8s.io", "customresourcedefinitions", &["CREATE"])]);
    hook["objectSelector"] = json!({"matchLabels": {"webhook-e2e-test": "webhook-disallow"}});
    hook.as_object_mut().unwrap().remove("namespaceSelector");
    lab.configure(VALIDATING, "crd", &[hook]);
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "nos.hooks-custom.example.com", "labels": {"webhook-e2e-test": "webhook-disallow"}},
        "spec": {"group": "hooks-custom.example.com", "scope": "Cluster", "names": {"plural": "nos", "kind": "No"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": open()}}]}});
    eventually("the definition is refused", || {
        let answer = lab.space.request("POST", &format!("{DEFINITIONS}?dryRun=All"), Some(&definition));
        ensure!(answer.as_ref().is_err_and(|e| format!("{e:#}").contains("the crd contains unwanted label")), "{answer:?}");
        Ok(())
    })
    .unwrap();
    assert!(lab.space.get(&format!("{DEFINITIONS}/nos.hooks-custom.example.com")).is_err());
}

#[test]
fn time_limits_are_kept() {
    let Some(lab) = Lab::new("hooks-slow") else { return };
    for (limit, policy, works) in [(1, "Fail", false), (1, "Ignore", true), (10, "Fail", true)] {
        let mut hook = lab.hook("/always-allow-delay-5s", &[rule("", "configmaps", &["CREATE"])]);
        (hook["timeoutSeconds"], hook["failurePolicy"]) = (json!(limit), json!(policy));
        let one = lab.configure(VALIDATING, "w", &[hook]);
        // In force when a request takes as long as it should.
        eventually("it is asked", || {
            let start = Instant::now();
            let answer = lab.try_map("slow", &json!({}), true);
            ensure!(start.elapsed().as_secs() >= limit.min(5), "{answer:?} at once");
            assert_eq!(answer.is_ok(), works, "{limit} {policy}: {answer:?}");
            if let Err(why) = answer {
                let text = format!("{why:#}");
                assert!(
                    text.contains("/always-allow-delay-5s?timeout=1s\": ")
                        && (text.contains("deadline exceeded") || text.contains("Client.Timeout")),
                    "{text}"
                );
            }
            Ok(())
        })
        .unwrap();
        lab.space.request("DELETE", &one, None).unwrap();
    }
}

#[test]
fn maps_and_pods_are_changed() {
    let Some(lab) = Lab::new("hooks-mutate") else { return };
    let maps = [rule("", "configmaps", &["CREATE"])];
    let (mut first, mut second) = (lab.hook("/mutating-data", &maps), lab.hook("/mutating-data", &maps));
    (first["name"], second["name"]) = (json!("first.example.com"), json!("second.example.com"));
    let two = lab.configure(MUTATING, "maps", &[first.clone(), second]);
    let all = json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"});
    lab.until("both stages are added", &started(), |answer| answer.as_ref().is_ok_and(|made| made["data"] == all));
    assert_eq!(lab.map("changed", &started()).unwrap()["data"], all);
    lab.space.request("DELETE", &two, None).unwrap();

    // All but what a condition leaves out.
    first["matchConditions"] = json!([{"name": "skip", "expression": "object.metadata.name != 'skip-me'"}]);
    lab.configure(MUTATING, "skipping", &[first]);
    lab.until("one stage is added", &started(), |answer| {
        answer.as_ref().is_ok_and(|made| made["data"]["mutation-stage-1"] == "yes" && made["data"].get("mutation-stage-2").is_none())
    });
    assert_eq!(lab.map("skip-me", &started()).unwrap()["data"], started());
    assert_eq!(lab.map("another", &started()).unwrap()["data"]["mutation-stage-1"], "yes");

    lab.configure(MUTATING, "pods", &[lab.hook("/mutating-pods", &[rule("", "pods", &["CREATE"])])]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeSelector": {"none": "such"}, "containers": [{"name": "c", "image": "skiff/hello"}]}});
    let made = eventually("an init container is added", || {
        let made = lab.space.request("POST", &lab.space.path("pods?dryRun=All"), Some(&pod))?;
        ensure!(made["spec"]["initContainers"].is_array(), "{made}");
        Ok(made)
    })
    .unwrap();
    let added = &made["spec"]["initContainers"][0];
    assert_eq!((&added["name"], &added["terminationMessagePolicy"]), (&json!("webhook-added-init-container"), &json!("File")), "{added}");
}

#[test]
fn custom_resources_are_changed_pruned_and_stored_in_another_version() {
    let Some(lab) = Lab::new("hooks-stages") else { return };
    let text = json!({"type": "string"});
    let schema = json!({"type": "object", "properties": {"data": {"type": "object", "properties": {
        "mutation-start": text, "mutation-stage-1": text, "key": text}}}});
    let path = lab.define(&schema);
    let rules = [rule(&lab.group(), "stages", &["CREATE", "UPDATE"])];
    let (mut first, mut second) = (lab.hook("/mutating-data", &rules), lab.hook("/mutating-data", &rules));
    (first["name"], second["name"]) = (json!("first.example.com"), json!("second.example.com"));
    lab.configure(MUTATING, "w", &[first, second]);
    // The second stage is not in the schema.
    let pruned = json!({"mutation-start": "yes", "mutation-stage-1": "yes"});
    eventually("it is changed", || {
        let made = lab.space.request("POST", &format!("{path}?dryRun=All"), Some(&lab.stage("s", &started())))?;
        ensure!(made["data"] == pruned, "{made}");
        Ok(())
    })
    .unwrap();
    assert_eq!(lab.space.request("POST", &path, Some(&lab.stage("s", &started()))).unwrap()["data"], pruned);
    // Another version is stored from now on.
    let definition = format!("{DEFINITIONS}/stages.{}", lab.group());
    let mut versions = lab.space.get(&definition).unwrap()["spec"]["versions"].clone();
    (versions[0]["storage"], versions[1]["storage"]) = (json!(false), json!(true));
    lab.space.request("PATCH", &definition, Some(&json!({"spec": {"versions": versions}}))).unwrap();
    let patched =
        eventually("a patch goes through", || lab.space.request("PATCH", &format!("{path}/s"), Some(&json!({"data": {"key": "value"}}))))
            .unwrap();
    assert_eq!(patched["data"], json!({"mutation-start": "yes", "mutation-stage-1": "yes", "key": "value"}));
    let read = lab.space.get(&path.replace("/v1/", "/v2/")).unwrap();
    assert_eq!(read["items"][0]["data"]["key"], "value", "{read}");
}

#[test]
fn configurations_themselves_are_out_of_reach() {
    let Some(lab) = Lab::new("hooks-hooks") else { return };
    let both = json!([{"operations": ["*"], "apiGroups": ["admissionregistration.k8s.io"], "apiVersions": ["*"],
        "resources": ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"]}]);
    for (kind, path) in [(VALIDATING, "/always-deny"), (MUTATING, "/add-label")] {
        let mut hook = lab.hook(path, &[]);
        hook["rules"] = both.clone();
        hook["objectSelector"] = json!({"matchLabels": {"lab": "hooks-hooks"}});
        hook.as_object_mut().unwrap().remove("namespaceSelector");
        lab.configure(kind, "w", &[hook]);
    }
    std::thread::sleep(std::time::Duration::from_secs(1));
    for kind in [VALIDATING, MUTATING] {
        let one = lab.configure(kind, "dummy", &[lab.hook("/configmaps", &[rule("", "none", &["CREATE"])])]);
        assert_eq!(lab.space.get(&one).unwrap()["metadata"]["labels"], json!({"lab": "hooks-hooks"}), "{kind}");
        lab.space.request("DELETE", &one, None).unwrap();
        assert!(lab.space.get(&one).is_err());
    }
}

#[test]
fn what_cannot_be_called_fails_closed() {
    let Some(lab) = Lab::new("hooks-closed") else { return };
    let mut hook = lab.hook("/configmaps", &[rule("", "configmaps", &["CREATE"])]);
    hook["failurePolicy"] = json!("Fail");
    // Whom to trust is not said.
    hook["clientConfig"].as_object_mut().unwrap().remove("caBundle");
    lab.configure(VALIDATING, "w", &[hook]);
    lab.until("it is refused", &json!({}), Result::is_err);
    let text = refused(lab.map("m", &json!({})));
    assert!(
        text.contains("failed calling webhook \"configmaps.example.com\": failed to call webhook: ") && text.contains("x509: "),
        "{text}"
    );
}

/// `hostPort` in v1 is `host` and `port` in v2, by the conversion webhook; each can be selected by.
fn ports(lab: &Lab) -> (String, String) {
    let group = lab.group();
    let text = json!({"type": "string"});
    let version = |name: &str, storage: bool, fields: &[&str]| {
        let properties: serde_json::Map<String, Value> = fields.iter().map(|f| ((*f).to_owned(), text.clone())).collect();
        let selectable: Vec<Value> = fields.iter().map(|f| json!({"jsonPath": format!(".{f}")})).collect();
        json!({"name": name, "served": true, "storage": storage, "selectableFields": selectable,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}})
    };
    let body = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("ports.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": "ports", "kind": "Port"},
            "versions": [version("v1", true, &["hostPort"]), version("v2", false, &["host", "port"])],
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": lab.extension.client_config("/convert")}}}});
    lab.space.request("POST", DEFINITIONS, Some(&body)).unwrap();
    let path = |version: &str| format!("/apis/{group}/{version}/namespaces/{}/ports", lab.space.name);
    eventually("the resource is served", || lab.space.get(&path("v2"))).unwrap();
    (path("v1"), path("v2"))
}

fn port_v1(lab: &Lab, name: &str, value: &str) -> Value {
    json!({"apiVersion": format!("{}/v1", lab.group()), "kind": "Port", "metadata": {"name": name}, "hostPort": value})
}

fn port_v2(lab: &Lab, name: &str, host: &str, port: &str) -> Value {
    json!({"apiVersion": format!("{}/v2", lab.group()), "kind": "Port", "metadata": {"name": name}, "host": host, "port": port})
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().into_iter().flatten().filter_map(|i| i["metadata"]["name"].as_str()).collect()
}

#[test]
fn a_webhook_converts_objects_stored_in_two_versions() {
    let Some(lab) = Lab::new("hooks-convert") else { return };
    let (v1, v2) = ports(&lab);
    lab.space.request("POST", &v1, Some(&port_v1(&lab, "one", "localhost:8080"))).unwrap();
    let read = lab.space.get(&format!("{v2}/one")).unwrap();
    assert_eq!((&read["host"], &read["port"], read.get("hostPort")), (&json!("localhost"), &json!("8080"), None), "{read}");
    let definition = format!("{DEFINITIONS}/ports.{}", lab.group());
    let mut versions = lab.space.get(&definition).unwrap()["spec"]["versions"].clone();
    (versions[0]["storage"], versions[1]["storage"]) = (json!(false), json!(true));
    lab.space.request("PATCH", &definition, Some(&json!({"spec": {"versions": versions}}))).unwrap();
    lab.space.request("POST", &v2, Some(&port_v2(&lab, "two", "example", "9090"))).unwrap();
    let list = lab.space.get(&v2).unwrap();
    let found: Vec<(&Value, &Value, &Value)> =
        list["items"].as_array().unwrap().iter().map(|i| (&i["apiVersion"], &i["host"], &i["port"])).collect();
    let version = json!(format!("{}/v2", lab.group()));
    assert_eq!(found, [(&version, &json!("localhost"), &json!("8080")), (&version, &json!("example"), &json!("9090"))]);
    let list = lab.space.get(&v1).unwrap();
    assert_eq!(
        (&list["items"][0]["hostPort"], &list["items"][1]["hostPort"]),
        (&json!("localhost:8080"), &json!("example:9090")),
        "{list}"
    );
}

/// The types and names of a watch's first events.
fn events(lab: &Lab, path: &str, count: usize) -> Vec<(String, String)> {
    let path = path.to_owned();
    lab.space
        .with_client(|client| async move {
            use futures::{AsyncBufReadExt as _, TryStreamExt as _};
            let mut lines = client.request_stream(http::Request::get(path).body(Vec::new())?).await?.lines();
            let mut seen = Vec::new();
            while seen.len() < count {
                let line = tokio::time::timeout(std::time::Duration::from_secs(20), lines.try_next()).await??;
                let Some(line) = line else { break };
                let event: Value = serde_json::from_str(&line)?;
                let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
                seen.push((text(&event["type"]), text(&event["object"]["metadata"]["name"])));
            }
            Ok(seen)
        })
        .unwrap()
}

#[test]
fn custom_resources_are_selected_by_their_fields() {
    let Some(lab) = Lab::new("hooks-fields") else { return };
    let (v1, v2) = ports(&lab);
    let first = lab.space.get(&v1).unwrap()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    for (name, host) in [("a", "host1:80"), ("b", "host2:80"), ("c", "host1:90")] {
        lab.space.request("POST", &v1, Some(&port_v1(&lab, name, host))).unwrap();
    }
    lab.space.request("POST", &v2, Some(&port_v2(&lab, "d", "host1", "80"))).unwrap();
    for (path, selector, want) in [
        (&v1, "hostPort%3Dhost1:80", vec!["a", "d"]),
        (&v1, "hostPort!%3Dhost1:80", vec!["b", "c"]),
        (&v2, "host%3Dhost1", vec!["a", "c", "d"]),
        (&v2, "host%3Dhost1,port%3D80", vec!["a", "d"]),
    ] {
        assert_eq!(names(&lab.space.get(&format!("{path}?fieldSelector={selector}")).unwrap()), want, "{selector}");
    }
    let text = refused(lab.space.get(&format!("{v1}?fieldSelector=host%3Dhost1")));
    assert!(text.contains("field label not supported"), "{text}");
    // One leaves what is selected, and one comes to it; one goes.
    lab.space.request("PATCH", &format!("{v1}/a"), Some(&json!({"hostPort": "host3:80"}))).unwrap();
    lab.space.request("PATCH", &format!("{v2}/b"), Some(&json!({"host": "host1"}))).unwrap();
    lab.space.request("DELETE", &format!("{v1}/c"), None).unwrap();
    let own = |all: &[(&str, &str)]| all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
    let seen = events(&lab, &format!("{v2}?watch=1&resourceVersion={first}&fieldSelector=host%3Dhost1"), 6);
    assert_eq!(seen, own(&[("ADDED", "a"), ("ADDED", "c"), ("ADDED", "d"), ("DELETED", "a"), ("ADDED", "b"), ("DELETED", "c")]));
    let seen = events(&lab, &format!("{v1}?watch=1&resourceVersion={first}&fieldSelector=hostPort%3Dhost1:80"), 4);
    assert_eq!(seen, own(&[("ADDED", "a"), ("ADDED", "d"), ("DELETED", "a"), ("ADDED", "b")]));
    // Deletion by selection takes nothing else.
    lab.space.request("DELETE", &format!("{v1}?fieldSelector=hostPort%3Dhost1:80"), None).unwrap();
    assert_eq!(names(&lab.space.get(&v1).unwrap()), ["a"]);
}
