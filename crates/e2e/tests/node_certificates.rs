//! A node that joins with a bootstrap token: its certificate is asked for, approved, signed, and renewed while its pods run; its
//! serving certificate waits for an administrator. Everything is a process of its own: API server, controllers, kubelet.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::eventually_within;
use e2e::fleet::Fleet;
use serde_json::{Value, json};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const POD: &str = "/api/v1/namespaces/default/pods/p";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";
/// With the five minutes that certificates are dated back, a renewal is due 10 to 42 seconds after its beginning.
const LIFE: &str = "80s";
const PATIENCE: Duration = Duration::from_secs(120);

struct Place {
    fleet: Fleet,
    data: PathBuf,
}

impl Place {
    fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        self.fleet.request(0, &self.data, method, path, body)
    }

    fn run_controllers(&mut self) -> Result<()> {
        let pki = self.data.join("pki");
        let mut command = Command::new(e2e::skiff());
        command.arg("kube-controller-manager").arg("--kubeconfig").arg(self.data.join("controller-manager.kubeconfig"));
        command.arg("--root-ca-file").arg(pki.join("ca.crt"));
        command.arg("--cluster-signing-cert-file").arg(pki.join("ca.crt"));
        command.arg("--cluster-signing-key-file").arg(pki.join("ca.key"));
        command.args(["--cluster-signing-duration", LIFE, "--leader-elect=false"]);
        self.fleet.spawn(0, "controllers", &mut command)
    }

    fn run_kubelet(&mut self) -> Result<()> {
        let dir = self.fleet.kubelet_dir(1);
        // The service proxy may read what a node may not.
        let proxy = self.fleet.dir().join("proxy.kubeconfig");
        let admin = std::fs::read_to_string(self.data.join("admin.kubeconfig"))?;
        std::fs::write(&proxy, admin.replace("127.0.0.1", &Fleet::address(0)))?;
        let (bootstrap, ca) = (self.fleet.dir().join("bootstrap.kubeconfig"), self.data.join("pki/ca.crt"));
        self.fleet.run_kubelet(1, "n1", &dir.join("kubelet.kubeconfig"), |command| {
            command.arg("--bootstrap-kubeconfig").arg(bootstrap).arg("--cert-dir").arg(dir.join("pki"));
            command.arg("--proxy-kubeconfig").arg(proxy);
            command.args(["--rotate-certificates", "--rotate-server-certificates"]).arg("--client-ca-file").arg(ca);
        })
    }

    /// What kubeadm writes for a node that joins.
    fn write_bootstrap(&self) -> Result<()> {
        let cluster =
            json!({ "certificate-authority": self.data.join("pki/ca.crt"), "server": format!("https://{}:6443", Fleet::address(0)) });
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": cluster }], "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
            "users": [{ "name": "u", "user": { "token": "abcdef.0123456789abcdef" } }],
        });
        Ok(std::fs::write(self.fleet.dir().join("bootstrap.kubeconfig"), config.to_string())?)
    }

    fn bind(&self, role: &str, group: &str) -> Result<()> {
        let reference = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role });
        let subject = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group });
        let binding = json!({ "metadata": { "generateName": "e2e-" }, "roleRef": reference, "subjects": [subject] });
        self.request("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", Some(&binding)).map(drop)
    }

    /// Requests of one signer, by one user.
    fn asked(&self, signer: &str, user: &str) -> Result<Vec<Value>> {
        let list = self.request("GET", REQUESTS, None)?;
        let mut all = list["items"].as_array().context("a list")?.clone();
        all.retain(|r| r["spec"]["signerName"] == signer && r["spec"]["username"] == user);
        Ok(all)
    }

    /// Approves what waits, as `kubectl certificate approve` does.
    fn approve(&self, signer: &str, user: &str) -> Result<()> {
        for mut request in self.asked(signer, user)?.into_iter().filter(|r| r["status"]["conditions"].is_null()) {
            let path = format!("{REQUESTS}/{}/approval", request["metadata"]["name"].as_str().context("a name")?);
            request["status"]["conditions"] = json!([{ "type": "Approved", "status": "True", "reason": "KubectlApprove", "message": "m" }]);
            self.request("PUT", &path, Some(&request))?;
        }
        Ok(())
    }

    fn said(&self) -> String {
        format!("kubelet: {}\ncontrollers: {}", self.fleet.log(1, "kubelet"), self.fleet.log(0, "controllers"))
    }
}

fn approved(request: &Value) -> Option<&str> {
    let conditions = request["status"]["conditions"].as_array()?;
    conditions.iter().find(|c| c["type"] == "Approved")?["message"].as_str()
}

fn start() -> Result<Place> {
    let mut fleet = Fleet::bare()?;
    let data = fleet.dir().join("server");
    fleet.start_api(0, &Fleet::address(0), &data, |command| {
        command.arg("--enable-bootstrap-token-auth");
    })?;
    let mut place = Place { fleet, data };
    place.run_controllers()?;
    let token = json!({
        "metadata": { "name": "bootstrap-token-abcdef" }, "type": "bootstrap.kubernetes.io/token",
        "stringData": { "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true" },
    });
    place.request("POST", "/api/v1/namespaces/kube-system/secrets", Some(&token))?;
    place.write_bootstrap()?;
    Ok(place)
}

/// The node asks, again after a restart with the same request, and gets its certificate once its group may have one.
fn join(place: &mut Place) -> Result<()> {
    place.bind("system:node-bootstrapper", "system:bootstrappers")?;
    place.run_kubelet()?;
    let first = |place: &Place| -> Result<String> {
        let all = place.asked(CLIENT, "system:bootstrap:abcdef")?;
        let [one] = &all[..] else { bail!("{} requests", all.len()) };
        ensure!(approved(one).is_none(), "nobody may have such a certificate yet: {one}");
        let groups = one["spec"]["groups"].as_array().context("groups")?;
        ensure!(groups.iter().any(|g| g == "system:bootstrappers"), "{groups:?}");
        Ok(one["metadata"]["name"].as_str().context("a name")?.to_owned())
    };
    let name = eventually_within(PATIENCE, "the node asks", || first(place))?;
    ensure!(name.starts_with("node-csr-"), "{name}");
    place.fleet.kill(1, "kubelet")?;
    place.run_kubelet()?;
    eventually_within(PATIENCE, "it asks again", || {
        ensure!(place.fleet.said(1, "kubelet").matches("asked for a certificate").count() == 2, "not yet");
        Ok(())
    })?;
    ensure!(first(place)? == name, "another request after a restart");
    // The right comes late: the approver looks again.
    place.bind("system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", "system:nodes")?;
    place.bind("system:certificates.k8s.io:certificatesigningrequests:nodeclient", "system:bootstrappers")?;
    eventually_within(PATIENCE, "the node is ready", || {
        let node = place.request("GET", "/api/v1/nodes/n1", None)?;
        let conditions = node["status"]["conditions"].as_array().context("conditions")?;
        ensure!(conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"), "{conditions:?}");
        Ok(())
    })?;
    let request = place.request("GET", &format!("{REQUESTS}/{name}"), None)?;
    let said = approved(&request).context("approved")?;
    ensure!(said == "Auto approving kubelet client certificate after SubjectAccessReview.", "{said}");
    Ok(())
}

fn container(place: &Place) -> Result<Value> {
    let pod = place.request("GET", POD, None)?;
    let container = &pod["status"]["containerStatuses"][0];
    ensure!(pod["status"]["phase"] == "Running" && container["ready"] == true, "{}", pod["status"]);
    Ok(json!([container["containerID"], container["restartCount"]]))
}

/// The certificate is renewed, by the node's own right, and the pods run on.
fn renew(place: &Place) -> Result<()> {
    let containers = json!([{ "name": "c", "image": "skiff/hello" }]);
    let pod = json!({
        "metadata": { "name": "p" },
        "spec": { "nodeName": "n1", "containers": containers, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1 },
    });
    eventually_within(PATIENCE, "a pod is made", || place.request("POST", "/api/v1/namespaces/default/pods", Some(&pod)))?;
    let before = eventually_within(PATIENCE, "the pod runs", || container(place))?;
    let file = place.fleet.kubelet_dir(1).join("pki/kubelet-client-current.pem");
    let (mut seen, own) =
        (BTreeSet::from([std::fs::read(&file)?]), "Auto approving self kubelet client certificate after SubjectAccessReview.");
    eventually_within(PATIENCE, "the certificate is renewed twice", || {
        seen.insert(std::fs::read(&file)?);
        ensure!(seen.len() > 2, "{} certificates", seen.len());
        Ok(())
    })?;
    let asked = place.asked(CLIENT, "system:node:n1")?;
    ensure!(asked.iter().filter(|r| approved(r) == Some(own)).count() >= 2, "{asked:?}");
    // With the newest one the kubelet goes on.
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";
    let renewed = place.request("GET", lease, None)?["spec"]["renewTime"].clone();
    eventually_within(PATIENCE, "the kubelet renews its lease", || {
        ensure!(place.request("GET", lease, None)?["spec"]["renewTime"] != renewed, "not yet");
        Ok(())
    })?;
    ensure!(container(place)? == before, "the pod did not run on: {before} before");
    Ok(())
}

/// Nobody approves serving certificates but a person; with one the kubelet's logs can be read.
fn serve(place: &Place) -> Result<()> {
    let asked = eventually_within(PATIENCE, "a serving certificate is asked for", || {
        let asked = place.asked(SERVING, "system:node:n1")?;
        if asked.is_empty() { bail!("none") } else { Ok(asked) }
    })?;
    ensure!(asked.iter().all(|r| approved(r).is_none()), "approved by nobody: {asked:?}");
    let log = || place.fleet.text(0, &place.data, "GET", &format!("{POD}/log"), None);
    ensure!(log().is_err(), "a kubelet without a certificate gave logs");
    eventually_within(PATIENCE, "logs can be read", || {
        place.approve(SERVING, "system:node:n1")?;
        log()
    })?;
    place.request("DELETE", POD, None)?;
    eventually_within(PATIENCE, "the pod is gone", || match place.request("GET", POD, None) {
        Err(_) => Ok(()),
        Ok(pod) => bail!("{}", pod["status"]),
    })
}

#[test]
fn a_node_joins_with_a_token_and_keeps_its_certificates_new() {
    if !e2e::is_root() {
        return;
    }
    let mut place = start().unwrap();
    let all = join(&mut place).and_then(|()| renew(&place)).and_then(|()| serve(&place));
    if let Err(error) = all {
        panic!("{error:#}\n{}", place.said());
    }
}
