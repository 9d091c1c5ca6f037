//! The steps of upstream's conformance tests of kubectl, on one cluster, a namespace for each.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::ensure;
use e2e::script::{run, script_with};
use e2e::{Space, eventually, extension, has_kubectl, is_root, shared};

fn space(name: &str) -> Option<Space> {
    (is_root() && has_kubectl()).then(|| Space::new(shared().unwrap(), name).unwrap())
}

fn script(space: &Space, lines: &str) {
    script_with(space, &format!("--namespace={}", space.name), lines);
}

fn apply(space: &Space, manifest: &str) {
    let arguments = ["--namespace", &space.name, "create", "-f", "-"];
    space.kubectl_with(&arguments, manifest).unwrap().ok().unwrap();
}

fn said(space: &Space, line: &str) -> String {
    let (said, success) = run(space, &format!("--namespace={} {line}", space.name));
    assert!(success, "{line}: {said}");
    said
}

/// A ReplicationController of web servers that listen on 6379, and its Service.
const PRIMARY: &str = "apiVersion: v1
kind: ReplicationController
metadata: {name: primary, labels: {app: store, role: primary}}
spec:
  replicas: 1
  selector: {app: store, role: primary}
  template:
    metadata: {labels: {app: store, role: primary}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: primary
        image: skiff/hello
        args: [hello, '6379']
        ports: [{name: server, containerPort: 6379}]
---
apiVersion: v1
kind: Service
metadata: {name: primary, labels: {app: store, role: primary}}
spec:
  ports: [{port: 6379, targetPort: server}]
  selector: {app: store, role: primary}
";

fn primary(space: &Space) -> String {
    apply(space, PRIMARY);
    script(space, "wait --for=jsonpath={.status.readyReplicas}=1 rc/primary --timeout=60s => condition met");
    said(space, "get pods -l app=store -o jsonpath={.items[0].metadata.name}")
}

#[test]
fn an_rc_its_pods_and_all_around_are_described() {
    let Some(space) = space("cli-describe") else { return };
    let pod = primary(&space);
    let lines = "describe pod POD => Name: | POD | Namespace: | Node: | Labels: | app=store | role=primary | Status: | Running | IP: | Controlled By: | ReplicationController/primary | Image: | skiff/hello | State:
        describe rc primary => Name: | primary | Namespace: | cli-describe | Selector: | app=store,role=primary | Labels: | app=store | Annotations: | Replicas: | 1 current / 1 desired | Pods Status: | 1 Running / 0 Waiting / 0 Succeeded / 0 Failed | Pod Template: | Image: | skiff/hello | Events:
        describe service primary => Name: | Namespace: | Labels: | app=store | Annotations: | Selector: | Type: | ClusterIP | IP: | Port: | 6379/TCP | Endpoints: | Session Affinity:
        describe namespace cli-describe => Name: | cli-describe | Labels: | Annotations: | Status: | Active";
    script(&space, &lines.replace("POD", &pod));
    let node = said(&space, "get nodes -o jsonpath={.items[0].metadata.name}");
    script(
        &space,
        &format!(
            "describe node {node} => Name: | Labels: | Annotations: | CreationTimestamp: | Conditions: | MemoryPressure | DiskPressure | PIDPressure | Ready | Addresses: | Capacity: | Version: | Kernel Version: | Container Runtime Version: | Kubelet Version: | Pods"
        ),
    );
    assert_eq!(said(&space, &format!("describe pod {pod}")).matches("Pulled").count(), 1, "one event about the image");
}

#[test]
fn an_rc_and_a_service_are_exposed() {
    let Some(space) = space("cli-expose") else { return };
    primary(&space);
    script(
        &space,
        "expose rc primary --name=rm2 --port=1234 --target-port=6379 => service/rm2 exposed
        expose service rm2 --name=rm3 --port=2345 --target-port=6379 => service/rm3 exposed",
    );
    for (name, port) in [("rm2", 1234), ("rm3", 2345)] {
        let service = space.read(&format!("services/{name}")).unwrap();
        let of = &service["spec"]["ports"][0];
        assert_eq!((of["port"].as_i64(), of["targetPort"].as_i64()), (Some(port), Some(6379)), "{service}");
        let address = service["spec"]["clusterIP"].as_str().unwrap().to_owned();
        let port = u16::try_from(port).unwrap();
        eventually("it answers", || {
            let page = space.fetch(&address, port)?;
            ensure!(page.contains("Hello from primary-"), "{page}");
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn the_pods_of_an_rc_are_annotated_by_patches() {
    let Some(space) = space("cli-patch") else { return };
    let pod = primary(&space);
    script(&space, &format!("patch pod {pod} -p {{\"metadata\":{{\"annotations\":{{\"x\":\"y\"}}}}}} => patched"));
    let pods = space.list("pods").unwrap();
    assert!(pods.len() == 1 && pods[0]["metadata"]["annotations"]["x"] == "y", "{pods:?}");
}

#[test]
fn a_pod_is_run_labelled_dry_run_and_replaced() {
    let Some(space) = space("cli-pod") else { return };
    script(
        &space,
        "run pause --image=skiff/hello --labels=name=pause => pod/pause created
        wait --for=condition=Ready pod/pause --timeout=60s => condition met
        label pods pause testing-label=testing-label-value => labeled
        get pod pause -L testing-label => testing-label-value
        label pods pause testing-label- => unlabeled
        get pods -l testing-label=testing-label-value => No resources found
        run once --image=skiff/hello --restart=Never => pod/once created
        patch pod pause -p {\"spec\":{\"containers\":[{\"name\":\"pause\",\"image\":\"skiff/hello:other\"}]}} --dry-run=server => patched
        get pod pause -o jsonpath={.spec.containers[0].image} => skiff/hello",
    );
    let once = space.read("pods/once").unwrap();
    assert_eq!((&once["spec"]["restartPolicy"], &once["spec"]["containers"][0]["image"]), (&"Never".into(), &"skiff/hello".into()));
    assert_eq!(once["spec"]["containers"].as_array().unwrap().len(), 1);
    let pause = space.read("pods/pause").unwrap();
    assert_eq!(pause["spec"]["containers"][0]["image"], "skiff/hello");
    let replaced = said(&space, "get pod pause -o json").replace("\"image\": \"skiff/hello\"", "\"image\": \"skiff/hello:latest\"");
    let out = space.kubectl_with(&["--namespace", &space.name, "replace", "-f", "-"], &replaced).unwrap().ok().unwrap();
    assert!(out.contains("pod/pause replaced"), "{out}");
    assert_eq!(space.read("pods/pause").unwrap()["spec"]["containers"][0]["image"], "skiff/hello:latest");
}

#[test]
fn a_deployments_difference_is_found() {
    let Some(space) = space("cli-diff") else { return };
    let live = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 1\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      containers: [{name: web, image: 'skiff/hello'}]\n";
    apply(&space, live);
    let wanted = live.replace("skiff/hello", "registry.example/busybox:1");
    let out = space.kubectl_with(&["--namespace", &space.name, "diff", "-f", "-"], &wanted).unwrap();
    assert!(!out.success && out.stdout.contains("skiff/hello") && out.stdout.contains("registry.example/busybox:1"), "{out:?}");
}

#[test]
fn versions_and_places_are_told() {
    let Some(space) = space("cli-version") else { return };
    assert!(said(&space, "api-versions").lines().any(|l| l == "v1"));
    let info = said(&space, "cluster-info");
    assert!(info.contains("Kubernetes control plane") && info.contains("is running at") && info.contains("https://"), "{info}");
    // It also warns, elsewhere, of versions that are far from each other.
    let version = space.kubectl(&["version", "-o", "json"]).unwrap().ok().unwrap();
    let version: serde_json::Value = serde_json::from_str(&version).unwrap();
    for side in ["clientVersion", "serverVersion"] {
        for part in ["major", "minor", "gitVersion", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"] {
            assert!(version[side][part].as_str().is_some_and(|t| !t.is_empty()), "{side} {part}: {version}");
        }
    }
    script(
        &space,
        "get componentstatuses => scheduler | controller-manager | etcd-0 | Healthy | v1 ComponentStatus is deprecated in v1.19+",
    );
}

#[test]
fn the_proxy_listens_on_any_port_and_on_a_socket() {
    let Some(space) = space("cli-proxy") else { return };
    let mut child = space.spawn("kubectl", &["proxy", "--port=0", "--disable-filter"]).unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let port = line.trim().rsplit(':').next().and_then(|p| p.parse().ok());
    let answer = port.map(|port| space.fetch_path("127.0.0.1", port, "/api/"));
    child.kill().unwrap();
    child.wait().unwrap();
    let versions: serde_json::Value = serde_json::from_str(&answer.expect(&line).unwrap()).unwrap();
    assert_eq!(versions["versions"][0], "v1");

    let socket = space.dir().join("proxy.sock");
    let mut child = space.spawn("kubectl", &["proxy", &format!("--unix-socket={}", socket.display())]).unwrap();
    let answer = eventually("the socket answers", || {
        let mut stream = UnixStream::connect(&socket)?;
        stream.write_all(b"GET /api/ HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(answer.unwrap().contains("\"v1\""));
}

const DEMO: &str = "apiVersion: v1
kind: ReplicationController
metadata: {name: update-demo-nautilus}
spec:
  replicas: 2
  selector: {name: update-demo, version: nautilus}
  template:
    metadata: {labels: {name: update-demo, version: nautilus}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: update-demo, image: skiff/hello, ports: [{containerPort: 80}]}]
";

#[test]
fn a_replication_controller_is_made_scaled_and_stopped() {
    let Some(space) = space("cli-demo") else { return };
    apply(&space, DEMO);
    let running = |count: usize| {
        eventually(&format!("{count} pods run"), || {
            let words = ["get", "pods", "--namespace", &space.name, "-l", "name=update-demo", "-o",
                "go-template={{range .items}}{{if not .metadata.deletionTimestamp}}{{range .status.containerStatuses}}{{if .state.running}}{{.name}} {{end}}{{end}}{{end}}{{end}}"];
            let out = space.kubectl(&words)?.ok()?;
            ensure!(out.split_whitespace().count() == count, "{out}");
            Ok(())
        })
        .unwrap();
    };
    running(2);
    script(&space, "scale rc update-demo-nautilus --replicas=1 --timeout=1m => scaled");
    running(1);
    script(&space, "scale rc update-demo-nautilus --replicas=2 --timeout=1m => scaled");
    running(2);
    // Each serves.
    for pod in space.list("pods").unwrap() {
        let (name, ip) = (pod["metadata"]["name"].as_str().unwrap(), pod["status"]["podIP"].as_str().unwrap());
        if pod["metadata"]["deletionTimestamp"].is_null() {
            assert!(space.fetch(ip, 80).unwrap().contains(name));
        }
    }
    script(&space, "delete rc update-demo-nautilus --grace-period=0 --force => deleted");
    space.wait_count("pods", 0).unwrap();
    script(&space, "get rc,services -l name=update-demo => No resources found");
}

#[test]
fn logs_are_read_and_filtered() {
    let Some(space) = space("cli-logs") else { return };
    script(&space, "run logs-generator --image=skiff/hello --restart=Never --command -- sh -c 'for i in 1 2 3 4 5 6 7 8; do echo line $i; done; sleep 600'
        wait --for=condition=Ready pod/logs-generator --timeout=60s => condition met");
    eventually("all is said", || {
        let all = said(&space, "logs logs-generator logs-generator");
        ensure!(all.lines().count() == 8, "{all}");
        Ok(())
    })
    .unwrap();
    assert_eq!(said(&space, "logs logs-generator --tail=1"), "line 8\n");
    assert_eq!(said(&space, "logs logs-generator --limit-bytes=1"), "l");
    let stamped = said(&space, "logs logs-generator --tail=1 --timestamps");
    let (time, line) = stamped.trim_end().split_once(' ').unwrap();
    assert!(line == "line 8" && time.parse::<k8s_openapi::jiff::Timestamp>().is_ok(), "{stamped}");
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_eq!(said(&space, "logs logs-generator --since=1s").lines().count(), 0);
    assert_eq!(said(&space, "logs logs-generator --since=24h").lines().count(), 8);
}

/// Name, replicas, role, port.
const GUESTBOOK: [(&str, u32, &str, u16); 3] =
    [("frontend", 3, "frontend", 80), ("agnhost-primary", 1, "primary", 6379), ("agnhost-replica", 2, "replica", 6379)];

#[test]
fn a_guestbook_is_made_written_read_and_stopped() {
    let Some(space) = space("cli-guestbook") else { return };
    extension::load(&space, Path::new(env!("CARGO_BIN_EXE_extension"))).unwrap();
    let manifest: Vec<String> = GUESTBOOK
        .iter()
        .map(|(name, replicas, role, port)| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, labels: {{app: guestbook}}}}\nspec:\n  ports: [{{port: {port}}}]\n  selector: {{app: guestbook, role: {role}}}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, labels: {{app: guestbook}}}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: guestbook, role: {role}}}}}\n  template:\n    metadata: {{labels: {{app: guestbook, role: {role}}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: {role}\n        image: {}\n        imagePullPolicy: Never\n        args: [{role}]\n        resources: {{requests: {{cpu: 10m, memory: 10Mi}}}}\n        ports: [{{containerPort: {port}}}]\n",
                extension::IMAGE
            )
        })
        .collect();
    let manifest = manifest.join("---\n");
    apply(&space, &manifest);
    script(
        &space,
        "rollout status deployment/frontend --timeout=90s
        rollout status deployment/agnhost-primary --timeout=90s
        rollout status deployment/agnhost-replica --timeout=90s",
    );
    let service = space.read("services/frontend").unwrap();
    let address = service["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let ask = |query: &str, want: &str| {
        eventually(query, || {
            let page = space.fetch_path(&address, 80, &format!("/guestbook?{query}"))?;
            ensure!(page == want, "{page}");
            Ok(())
        })
        .unwrap();
    };
    ask("cmd=get&key=messages", "");
    ask("cmd=set&key=messages&value=TestEntry", "TestEntry");
    ask("cmd=get&key=messages", "TestEntry");
    let out = space.kubectl_with(&["--namespace", &space.name, "delete", "--grace-period=0", "--force", "-f", "-"], &manifest).unwrap();
    assert!(out.success, "{out:?}");
    space.wait_count("pods", 0).unwrap();
    script(&space, "get deployments,services -l app=guestbook => No resources found");
}

/// Names are the group's own: `schema.example.com` has `schemathings` of kind `SchemaThing`.
fn thing(group: &str) -> String {
    format!("{}thing", group.split('.').next().unwrap_or_default())
}

/// A definition of a group's things.
fn define(space: &Space, group: &str, schema: &str) {
    let thing = thing(group);
    apply(
        space,
        &format!(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: {thing}s.{group}}}\nspec:\n  group: {group}\n  scope: Namespaced\n  names: {{plural: {thing}s, singular: {thing}, kind: {thing}}}\n  versions:\n  - name: v1\n    served: true\n    storage: true\n    schema:\n      openAPIV3Schema: {schema}\n"
        ),
    );
    script(space, &format!("wait --for=condition=Established crd/{thing}s.{group} --timeout=30s => condition met"));
    eventually("it is explained", || space.kubectl(&["explain", &format!("{thing}s")])?.ok()).unwrap();
}

/// Creates and applies an object; says whether both worked, and what was said.
fn written(space: &Space, group: &str, fields: &str) -> (bool, String) {
    let thing = thing(group);
    let object = format!("{{\"apiVersion\": \"{group}/v1\", \"kind\": \"{thing}\", \"metadata\": {{\"name\": \"t\"}}{fields}}}");
    let mut out = (true, String::new());
    for verb in ["create", "apply"] {
        let said = space.kubectl_with(&["--namespace", &space.name, verb, "-f", "-"], &object).unwrap();
        out = (out.0 && said.success, out.1 + &said.stdout + &said.stderr);
        if verb == "apply" && said.success {
            script(space, &format!("delete {thing} t => deleted"));
        }
    }
    out
}

#[test]
fn custom_resources_are_validated_and_explained() {
    let Some(space) = space("cli-openapi") else { return };
    // With a schema.
    define(
        &space,
        "schema.example.com",
        "{type: object, description: Foo CRD for Testing, properties: {spec: {type: object, description: Specification of Foo, properties: {bars: {type: array, description: List of Bars and their specs., items: {type: object, required: [name], properties: {name: {type: string, description: Name of Bar.}, age: {type: string, description: Age of Bar.}, bazs: {type: array, description: List of Bazs., items: {type: string}}}}}}}, status: {type: object, properties: {bars: {type: array, items: {type: object}}}}}}",
    );
    let (works, said) = written(&space, "schema.example.com", r#", "spec": {"bars": [{"name": "test-bar", "age": "10"}]}"#);
    assert!(works, "{said}");
    let (works, said) = written(&space, "schema.example.com", r#", "spec": {"foo": true}"#);
    assert!(!works && said.matches("unknown field \"spec.foo\"").count() == 2, "{said}");
    let (works, said) = written(&space, "schema.example.com", r#", "spec": {"bars": [{"age": "10"}]}"#);
    assert!(!works && said.matches("spec.bars[0].name: Required value").count() == 2, "{said}");
    script(
        &space,
        "explain schemathings => GROUP: | schema.example.com | KIND: | schemathing | DESCRIPTION: | Foo CRD for Testing | apiVersion | metadata | spec | Specification of Foo
        explain schemathings.metadata => DESCRIPTION: | creationTimestamp
        explain schemathings.spec => Specification of Foo | bars | List of Bars and their specs.
        explain schemathings.spec.bars => List of Bars and their specs. | age | Age of Bar. | name | -required- | Name of Bar. | bazs
        explain schemathings --recursive => bars | bazs
        ! explain schemathings.spec.bars2 => does not exist",
    );
    // Without one, at the root and within.
    for (group, schema, fields) in [
        ("none.example.com", "{type: object, x-kubernetes-preserve-unknown-fields: true}", r#", "a": {"b": [{"c": "d"}]}"#),
        (
            "root.example.com",
            "{type: object, x-kubernetes-preserve-unknown-fields: true, properties: {spec: {type: object, properties: {a: {type: string}}}}}",
            r#", "x": 1, "spec": {"a": "b"}"#,
        ),
        (
            "inner.example.com",
            "{type: object, properties: {spec: {type: object, x-kubernetes-preserve-unknown-fields: true, description: Specification of Waldo}, status: {type: object, x-kubernetes-preserve-unknown-fields: true}}}",
            r#", "spec": {"b": [{"c": "d"}]}"#,
        ),
    ] {
        define(&space, group, schema);
        let (works, said) = written(&space, group, fields);
        assert!(works, "{group}: {said}");
        script(&space, &format!("explain {}s => KIND: | DESCRIPTION:", thing(group)));
    }
    script(&space, "explain innerthings.spec => Specification of Waldo");
}
