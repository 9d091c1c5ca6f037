//! An unmodified kubectl against a whole cluster: what a user types, and what they read.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader};

use anyhow::{Context, ensure};
use e2e::{Cluster, eventually, has_kubectl, is_root};

const MANIFEST: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: demo}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: demo}
data: {GREETING: hi}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: demo}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: skiff/hello
        envFrom: [{configMapRef: {name: settings}}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: demo}
spec: {selector: {app: web}, ports: [{port: 80}]}
";

fn kubectl(cluster: &Cluster, arguments: &[&str]) -> String {
    cluster.kubectl(arguments).unwrap().ok().unwrap_or_else(|e| panic!("kubectl {}: {e:#}\n{}", arguments.join(" "), cluster.log()))
}

/// The name of a ready pod with a label.
fn pod(cluster: &Cluster, namespace: &str, label: &str) -> String {
    kubectl(cluster, &["-n", namespace, "wait", "--for=condition=Ready", "pod", "-l", label, "--timeout=30s"]);
    let names = kubectl(cluster, &["-n", namespace, "get", "pods", "-l", label, "-o", "name"]);
    names.lines().next().unwrap().trim_start_matches("pod/").to_owned()
}

#[test]
fn the_readmes_commands_work() {
    if !is_root() || !has_kubectl() {
        return;
    }
    let cluster = Cluster::up(1).unwrap();
    let nodes = kubectl(&cluster, &["get", "nodes"]);
    assert!(nodes.contains("NAME") && nodes.contains("Ready") && nodes.contains("v1.36"), "{nodes}");
    kubectl(&cluster, &["create", "deployment", "hello", "--image=skiff/hello"]);
    kubectl(&cluster, &["expose", "deployment", "hello", "--type=LoadBalancer", "--port=80"]);
    kubectl(&cluster, &["rollout", "status", "deployment", "hello", "--timeout=30s"]);
    let address = eventually("an external address", || {
        let ip = cluster.kubectl(&["get", "svc", "hello", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}"])?.ok()?;
        ensure!(!ip.is_empty(), "none yet");
        Ok(ip)
    })
    .unwrap();
    assert!(kubectl(&cluster, &["get", "svc"]).contains(&address));
    assert!(eventually("the service answers", || cluster.fetch(&address, 80)).unwrap().starts_with("Hello from hello-"));
    kubectl(&cluster, &["scale", "deployment", "hello", "--replicas=5"]);
    kubectl(&cluster, &["rollout", "status", "deployment", "hello", "--timeout=30s"]);
    let pods = kubectl(&cluster, &["get", "pods", "-o", "wide"]);
    assert_eq!(pods.lines().filter(|l| l.contains("1/1") && l.contains("Running")).count(), 5, "{pods}");

    let name = pod(&cluster, "default", "app=hello");
    assert!(kubectl(&cluster, &["logs", &name]).contains("listens on port 80"));
    let inside = kubectl(&cluster, &["exec", &name, "--", "sh", "-c", "hostname; nslookup hello; wget -qO- http://hello/"]);
    assert!(inside.starts_with(&name) && inside.contains("hello.default.svc.cluster.local") && inside.contains("Hello from"), "{inside}");
    let failed = cluster.kubectl(&["exec", &name, "--", "sh", "-c", "exit 7"]).unwrap();
    assert!(!failed.success && failed.stderr.contains("exit code 7"), "{failed:?}");
    let described = kubectl(&cluster, &["describe", "pod", &name]);
    assert!(described.contains("Successfully assigned default/") && described.contains("Started"), "{described}");
    kubectl(&cluster, &["delete", "pod", &name]);
    kubectl(&cluster, &["rollout", "status", "deployment", "hello", "--timeout=30s"]);
    let token = "TOKEN=$(cat /var/run/secrets/kubernetes.io/serviceaccount/token); [ -n \"$TOKEN\" ] && echo has a token; ls /var/run/secrets/kubernetes.io/serviceaccount";
    let name = pod(&cluster, "default", "app=hello");
    let inside = kubectl(&cluster, &["exec", &name, "--", "sh", "-c", token]);
    assert!(inside.contains("has a token") && inside.contains("ca.crt"), "{inside}");
}

#[test]
fn manifests_are_applied_and_deleted() {
    if !is_root() || !has_kubectl() {
        return;
    }
    let cluster = Cluster::up(1).unwrap();
    let said = cluster.kubectl_with(&["apply", "-f", "-"], MANIFEST).unwrap().ok().unwrap();
    assert_eq!(said.lines().filter(|l| l.ends_with("created")).count(), 4, "{said}");
    let again = cluster.kubectl_with(&["apply", "-f", "-"], MANIFEST).unwrap().ok().unwrap();
    assert_eq!(again.lines().filter(|l| l.ends_with("unchanged")).count(), 4, "{again}");
    let name = pod(&cluster, "demo", "app=web");
    assert!(kubectl(&cluster, &["-n", "demo", "exec", &name, "--", "env"]).contains("GREETING=hi"));
    let changed = MANIFEST.replace("replicas: 2", "replicas: 3");
    let said = cluster.kubectl_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &changed).unwrap().ok().unwrap();
    assert!(said.contains("serverside-applied"), "{said}");
    kubectl(&cluster, &["-n", "demo", "rollout", "status", "deployment", "web", "--timeout=30s"]);
    assert_eq!(kubectl(&cluster, &["-n", "demo", "get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}"]), "3");
    let wrong = cluster.kubectl_with(&["apply", "-f", "-"], &MANIFEST.replace("replicas:", "replicaz:")).unwrap();
    assert!(!wrong.success && wrong.stderr.contains("unknown field \"spec.replicaz\""), "{wrong:?}");
    cluster.kubectl_with(&["delete", "-f", "-"], MANIFEST).unwrap().ok().unwrap();
    let gone = cluster.kubectl(&["get", "namespace", "demo"]).unwrap();
    assert!(!gone.success && gone.stderr.contains("not found"), "{gone:?}");
}

#[test]
fn logs_and_watches_follow() {
    if !is_root() || !has_kubectl() {
        return;
    }
    let cluster = Cluster::up(1).unwrap();
    kubectl(
        &cluster,
        &[
            "run",
            "talker",
            "--image=skiff/hello",
            "--command",
            "--",
            "sh",
            "-c",
            "i=x; while true; do echo line $i; i=x$i; sleep 0.2; done",
        ],
    );
    kubectl(&cluster, &["wait", "--for=condition=Ready", "pod", "talker", "--timeout=30s"]);
    let mut following = cluster.spawn("kubectl", &["logs", "-f", "talker"]).unwrap();
    let lines = BufReader::new(following.stdout.take().unwrap()).lines().take(8).collect::<Result<Vec<_>, _>>().unwrap();
    following.kill().unwrap();
    following.wait().unwrap();
    assert_eq!(lines[0], "line x");
    assert_eq!(lines[7], "line xxxxxxxx");
    // What a container says before kubectl attaches is seen, too, and so is what it says just before its end.
    for (name, script) in [("slow", "echo early; sleep 0.5; echo late"), ("quick", "echo early; echo late")] {
        let run = ["run", name, "-i", "--rm", "--restart=Never", "--image=skiff/hello", "--command", "--", "sh", "-c", script];
        let said = kubectl(&cluster, &run);
        assert!(said.contains("early\nlate\n"), "{name}: {said}");
    }
    let mut watching = cluster.spawn("kubectl", &["get", "pods", "-w", "-o", "name"]).unwrap();
    kubectl(&cluster, &["run", "later", "--image=skiff/hello"]);
    let seen = BufReader::new(watching.stdout.take().unwrap()).lines().map_while(Result::ok).find(|l| l == "pod/later");
    watching.kill().unwrap();
    watching.wait().unwrap();
    seen.context("the watch shows a new pod").unwrap();
    assert!(kubectl(&cluster, &["explain", "deployment.spec.strategy"]).contains("rollingUpdate"));
    assert!(kubectl(&cluster, &["api-resources"]).contains("deployments"));
}
