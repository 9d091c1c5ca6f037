//! kubectl's commands, one after another against a whole cluster, with what a user reads of each.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader};

use anyhow::ensure;
use base64::Engine as _;
use e2e::script::{run, script};
use e2e::{Cluster, eventually, has_kubectl, is_root};

/// A cluster to talk to; `None` where there cannot be one, which is said.
fn cluster() -> Option<Cluster> {
    (is_root() && has_kubectl()).then(|| Cluster::up(1).unwrap())
}

#[test]
fn every_generator_creates() {
    let Some(cluster) = cluster() else { return };
    let pair = rcgen::generate_simple_self_signed(["example.com".to_owned()]).unwrap();
    std::fs::write(cluster.dir().join("tls.crt"), pair.cert.pem()).unwrap();
    std::fs::write(cluster.dir().join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
    let lines = "create namespace dev => namespace/dev created
        ! create namespace dev => AlreadyExists
        create configmap cm --from-literal=a=b -n dev => configmap/cm created
        get configmap cm -n dev -o jsonpath={.data.a} => b
        create secret generic s --from-literal=p=w => secret/s created
        get secret s -o jsonpath={.data.p} => dw==
        create secret docker-registry reg --docker-server=x --docker-username=u --docker-password=p => secret/reg created
        get secret reg -o jsonpath={.type} => kubernetes.io/dockerconfigjson
        create secret tls pair --cert=DIR/tls.crt --key=DIR/tls.key => secret/pair created
        get secret pair -o jsonpath={.type} => kubernetes.io/tls
        create serviceaccount sa => serviceaccount/sa created
        create token sa --duration=1h => eyJ
        create role r --verb=get,list --resource=pods => role.rbac.authorization.k8s.io/r created
        create rolebinding rb --role=r --serviceaccount=default:sa => rolebinding.rbac.authorization.k8s.io/rb created
        create clusterrole cr --verb=get --resource=nodes => created
        create clusterrolebinding crb --clusterrole=cr --serviceaccount=default:sa => created
        describe rolebinding rb => ServiceAccount | sa | default
        create quota q --hard=pods=50,configmaps=3 => resourcequota/q created
        create priorityclass pc --value=10 => priorityclass.scheduling.k8s.io/pc created
        create poddisruptionbudget pdb --selector=app=web --min-available=1 => poddisruptionbudget.policy/pdb created
        create ingress ing '--rule=foo.com/bar=svc:80' => ingress.networking.k8s.io/ing created
        describe ingress ing => foo.com | /bar | svc:80
        create job j --image=skiff/hello -- sh -c 'echo done' => job.batch/j created
        wait --for=condition=complete job/j --timeout=30s => condition met
        logs job/j => done
        create cronjob cj --image=skiff/hello '--schedule=*/1 * * * *' -- sh -c 'echo tick' => cronjob.batch/cj created
        create job manual --from=cronjob/cj => job.batch/manual created
        wait --for=condition=complete job/manual --timeout=30s
        create service clusterip a --tcp=80:80 => service/a created
        create service nodeport b --tcp=80:80 => service/b created
        create service externalname c --external-name=foo.bar => service/c created
        create service loadbalancer d --tcp=80:80 => service/d created
        get services => NodePort | ExternalName | foo.bar | LoadBalancer
        create deployment web --image=skiff/hello --replicas=1 --dry-run=server => created (server dry run)
        ! get deployment web => NotFound
        create deployment web --image=skiff/hello --dry-run=client -o yaml => kind: Deployment
        run once --image=skiff/hello --restart=Never --command -- true => pod/once created
        get all => job.batch/j | cronjob.batch/cj | service/kubernetes | pod/once";
    script(&cluster, &lines.replace("DIR", &cluster.dir().display().to_string()));
}

#[test]
fn a_deployment_is_changed_in_every_way() {
    let Some(cluster) = cluster() else { return };
    script(
        &cluster,
        "create deployment web --image=skiff/hello --replicas=2 => created
        rollout status deployment web --timeout=60s => successfully rolled out
        expose deployment web --port=80 => service/web exposed
        autoscale deployment web --min=1 --max=3 --cpu-percent=80 => autoscaled
        get hpa web => Deployment/web | 3
        set image deployment/web hello=skiff/hello:latest => image updated
        set env deployment/web A=B => env updated
        set env deployment/web --list => A=B
        set resources deployment/web --requests=cpu=10m => resource requirements updated
        create serviceaccount sa
        set serviceaccount deployment web sa => serviceaccount updated
        set selector service web app=web => selector updated
        rollout status deployment web --timeout=60s => successfully rolled out
        rollout history deployment web => REVISION | 5
        rollout history deployment web --revision=2 => skiff/hello:latest
        rollout pause deployment web => paused
        ! rollout pause deployment web => already paused
        rollout resume deployment web => resumed
        rollout restart deployment web => restarted
        rollout status deployment web --timeout=60s => successfully rolled out
        rollout undo deployment web --to-revision=2 => rolled back
        rollout status deployment web --timeout=60s => successfully rolled out
        label deployment web tier=front => labeled
        ! label deployment web tier=back => already has a value
        label deployment web tier=back --overwrite => labeled
        get deployments -l tier=back -L tier => TIER | back
        label deployment web tier- => unlabeled
        annotate deployment web note=x => annotated
        patch deployment web -p '{\"spec\":{\"replicas\":3}}' => patched
        patch deployment web -p '{\"spec\":{\"replicas\":3}}' => patched (no change)
        patch deployment web --type=merge -p '{\"metadata\":{\"annotations\":{\"note\":null}}}' => patched
        patch deployment web --type=json -p '[{\"op\":\"replace\",\"path\":\"/spec/replicas\",\"value\":2}]' => patched
        ! patch deployment web --type=json -p '[{\"op\":\"test\",\"path\":\"/spec/replicas\",\"value\":7}]' => request is invalid
        patch deployment web --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":1}}' => patched
        wait --for=jsonpath={.status.readyReplicas}=1 deployment/web --timeout=30s => condition met
        ! scale deployment web --replicas=2 --current-replicas=5 => Expected replicas to be 5
        scale deployment web --replicas=2 --current-replicas=1 => scaled
        wait --for=condition=Available deployment/web --timeout=30s => condition met
        describe deployment web => StrategyType | RollingUpdate | ScalingReplicaSet
        get deployment web -o wide => CONTAINERS | skiff/hello:latest
        get deployment web -o custom-columns=N:.metadata.name,R:.spec.replicas => web | 2
        get deployment web -o go-template={{.spec.replicas}} => 2
        get events --field-selector involvedObject.name=web => ScalingReplicaSet
        events --for deployment/web => ScalingReplicaSet
        delete deployment web --cascade=orphan => deleted
        get replicasets => web-
        delete replicasets --all --cascade=foreground => deleted
        wait --for=delete pod -l app=web --timeout=30s
        delete hpa,svc web => deleted
        ! delete deployment nope => NotFound
        delete deployment nope --ignore-not-found",
    );
}

#[test]
fn nodes_and_rights() {
    let Some(cluster) = cluster() else { return };
    let node = run(&cluster, "get nodes -o jsonpath={.items[0].metadata.name}").0;
    let lines = "create deployment web --image=skiff/hello --replicas=2
        rollout status deployment web --timeout=60s
        taint nodes NODE k=v:NoSchedule => tainted
        describe node NODE => k=v:NoSchedule | Allocated resources | Non-terminated Pods
        taint nodes NODE k- => untainted
        cordon NODE => cordoned
        get nodes => SchedulingDisabled
        drain NODE --ignore-daemonsets --force --delete-emptydir-data --timeout=60s => evicting pod | drained
        uncordon NODE => uncordoned
        rollout status deployment web --timeout=60s => successfully rolled out
        label node NODE disk=ssd => labeled
        get nodes -o wide => INTERNAL-IP | Debian
        auth can-i create pods => yes
        create serviceaccount sa
        ! auth can-i create pods --as=system:serviceaccount:default:sa => no
        create role r --verb=get,list --resource=pods
        create rolebinding rb --role=r --serviceaccount=default:sa
        auth can-i list pods --as=system:serviceaccount:default:sa => yes
        auth can-i --list --as=system:serviceaccount:default:sa => selfsubjectreviews | [get list]
        get pods --as=system:serviceaccount:default:sa => web-
        ! get secrets --as=system:serviceaccount:default:sa => Forbidden | cannot list resource \"secrets\"
        set subject rolebinding rb --user=jane => subjects updated
        auth can-i list pods --as=jane => yes
        auth whoami => kubernetes-admin | system:masters
        auth whoami --as=jane --as-group=g => jane | g
        api-resources => deployments | deploy | apps/v1 | Deployment
        api-resources --verbs=list --namespaced=false -o name => nodes | persistentvolumes
        api-versions => apps/v1 | batch/v1 | networking.k8s.io/v1
        explain pod.spec.containers.image => FIELD: image | Container image name
        explain deployment --recursive => replicas
        cluster-info => Kubernetes control plane
        version => Server Version: v1.36
        get --raw /readyz => ok
        get --raw /livez?verbose => [+]ping ok";
    script(&cluster, &lines.replace("NODE", &node));
}

const MAP: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: red}
";

#[test]
fn manifests_are_compared_edited_and_replaced() {
    let Some(cluster) = cluster() else { return };
    let file = cluster.dir().join("map.yaml");
    let with = |line: &str| run(&cluster, &line.replace("FILE", &file.display().to_string()));
    std::fs::write(&file, MAP).unwrap();
    let (said, changed) = with("diff -f FILE");
    assert!(!changed && said.contains("+  color: red"), "{said}");
    assert!(with("apply -f FILE").0.contains("created"));
    assert_eq!(with("diff -f FILE"), (String::new(), true));
    std::fs::write(&file, MAP.replace("red", "blue")).unwrap();
    let (said, _) = with("diff -f FILE");
    assert!(said.contains("-  color: red") && said.contains("+  color: blue"), "{said}");
    assert!(with("diff --server-side --force-conflicts -f FILE").0.contains("+  color: blue"));
    assert!(with("apply -f FILE").0.contains("configured"));
    assert!(with("apply view-last-applied -f FILE").0.contains("color: blue"));
    // Another owner of the same field: a conflict, then by force.
    std::fs::write(&file, MAP.replace("red", "green")).unwrap();
    let (said, success) = with("apply --server-side --field-manager=other -f FILE");
    assert!(!success && said.contains("conflict") && said.contains(".data.color"), "{said}");
    assert!(with("apply --server-side --field-manager=other --force-conflicts -f FILE").0.contains("serverside-applied"));
    assert!(with("get -f FILE -o yaml --show-managed-fields").0.contains("manager: other"));
    std::fs::write(&file, MAP.replace("red", "white")).unwrap();
    assert!(with("replace -f FILE").0.contains("replaced"));
    assert!(with("replace --force -f FILE").0.contains("replaced"));
    assert_eq!(with("get configmap settings -o jsonpath={.data.color}").0, "white");

    let out = cluster.program("kubectl", &["edit", "configmap", "settings"], &[("KUBE_EDITOR", "sed -i s/white/black/")]).unwrap();
    assert!(out.success && out.stdout.contains("configmap/settings edited"), "{out:?}");
    assert_eq!(with("get configmap settings -o jsonpath={.data.color}").0, "black");

    let base = cluster.dir().join("kustomize");
    std::fs::create_dir_all(&base).unwrap();
    std::fs::write(base.join("map.yaml"), MAP).unwrap();
    std::fs::write(base.join("kustomization.yaml"), "resources: [map.yaml]\nnamePrefix: my-\ncommonLabels: {team: x}\n").unwrap();
    let (said, success) = run(&cluster, &format!("apply -k {}", base.display()));
    assert!(success && said.contains("configmap/my-settings created"), "{said}");
    assert!(run(&cluster, &format!("kustomize {}", base.display())).0.contains("name: my-settings"));
    std::fs::write(base.join("map.yaml"), MAP.replace("settings", "others")).unwrap();
    let (said, success) = run(&cluster, &format!("apply --prune -l team=x --prune-allowlist=core/v1/ConfigMap -k {}", base.display()));
    assert!(success && said.contains("configmap/my-others created") && said.contains("configmap/my-settings pruned"), "{said}");
    assert!(with("delete -f FILE").0.contains("deleted"));
}

#[test]
fn streams_reach_into_pods() {
    let Some(cluster) = cluster() else { return };
    script(
        &cluster,
        "run box --image=skiff/hello => pod/box created
        run loop --image=skiff/hello --command -- sh -c 'while true; do echo tick; sleep 0.2; done'
        wait --for=condition=Ready pod/box pod/loop --timeout=30s => condition met
        exec box -- echo hi there => hi there
        ! exec box -- false => exit code 1
        ! exec box -c nope -- true => container nope
        logs loop --tail=1 => tick
        logs loop --since=1h --timestamps --limit-bytes=40 => Z tick
        ! logs loop --previous => previous terminated container",
    );
    let fed = cluster.kubectl_with(&["exec", "-i", "box", "--", "cat"], "through standard input\n").unwrap().ok().unwrap();
    assert_eq!(fed, "through standard input\n");

    let file = cluster.dir().join("sent.txt");
    std::fs::write(&file, "copied there and back\n").unwrap();
    let back = cluster.dir().join("back.txt");
    script(
        &cluster,
        &format!(
            "cp {} box:/tmp/sent.txt
            exec box -- cat /tmp/sent.txt => copied there and back
            cp box:/tmp/sent.txt {}",
            file.display(),
            back.display()
        ),
    );
    assert_eq!(std::fs::read_to_string(&back).unwrap(), "copied there and back\n");

    for arguments in
        [&["attach", "loop"][..], &["logs", "-f", "loop"], &["exec", "loop", "--", "sh", "-c", "while true; do echo tick; sleep 0.2; done"]]
    {
        let mut child = cluster.spawn("kubectl", arguments).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let tick = lines.by_ref().map_while(Result::ok).find(|l| l == "tick");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(tick.as_deref(), Some("tick"), "{arguments:?}");
    }

    for (arguments, port, path) in [
        (&["port-forward", "pod/box", "18080:80"][..], 18080, "/"),
        (&["proxy", "--port=18081"], 18081, "/api/v1/namespaces/default/pods/box/proxy/"),
    ] {
        let mut child = cluster.spawn("kubectl", arguments).unwrap();
        let said = eventually("the forwarded port answers", || {
            let page = cluster.fetch_path("127.0.0.1", port, path)?;
            ensure!(page.contains("Hello from box"), "{page}");
            Ok(page)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        said.unwrap();
    }
}

#[test]
fn a_certificate_is_asked_for_approved_and_used() {
    let Some(cluster) = cluster() else { return };
    let dir = cluster.dir().display().to_string();
    let key = std::process::Command::new("openssl")
        .args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/O=team/CN=jane"])
        .args(["-keyout", &format!("{dir}/jane.key"), "-out", &format!("{dir}/jane.csr")])
        .output();
    if !key.is_ok_and(|o| o.status.success()) {
        println!("skipped: openssl is not installed");
        return;
    }
    let request = base64::engine::general_purpose::STANDARD.encode(std::fs::read(cluster.dir().join("jane.csr")).unwrap());
    let manifest = format!(
        "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: jane}}\nspec:\n  request: {request}\n  signerName: kubernetes.io/kube-apiserver-client\n  usages: [client auth]\n"
    );
    cluster.kubectl_with(&["apply", "-f", "-"], &manifest).unwrap().ok().unwrap();
    script(
        &cluster,
        "get csr jane => Pending\n certificate approve jane => approved\n create clusterrole pods --verb=list --resource=pods\n create clusterrolebinding jane --clusterrole=pods --user=jane",
    );
    let certificate = eventually("a certificate", || {
        let text = cluster.kubectl(&["get", "csr", "jane", "-o", "go-template={{.status.certificate | base64decode}}"])?.ok()?;
        ensure!(text.starts_with("-----BEGIN CERTIFICATE"), "{text}");
        Ok(text)
    })
    .unwrap();
    std::fs::write(cluster.dir().join("jane.crt"), certificate).unwrap();
    script(
        &cluster,
        &format!(
            "config set-credentials jane --client-certificate={dir}/jane.crt --client-key={dir}/jane.key => User \"jane\" set
            --user=jane auth whoami => jane | team
            --user=jane get pods => No resources found
            ! --user=jane get secrets => Forbidden"
        ),
    );
    let denied = manifest.replace("{name: jane}", "{name: joe}");
    cluster.kubectl_with(&["apply", "-f", "-"], &denied).unwrap().ok().unwrap();
    script(&cluster, "certificate deny joe => denied\n get csr joe => Denied");
}
