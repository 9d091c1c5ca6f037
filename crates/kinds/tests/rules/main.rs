//! Rules of kinds that need several fields together, and what updates may not do: a change of a minimal object, and the errors.
//! A row per rule. Rules of single fields are compared with recordings elsewhere.
#![expect(clippy::unwrap_used, reason = "tests")]

mod certificates;
mod devices;
mod flows;
mod volumes;

use kinds::{Context, Resource};
use machinery::gvk::{GroupVersion, GroupVersionKind};
use serde_json::{Value, json};

fn context(row: &Resource) -> Context {
    Context { version: row.version.clone(), now: "2026-01-02T03:04:05Z".into(), user: "u".into(), ..Context::default() }
}

fn minimal(kind: &str) -> (&'static Resource, Value) {
    let objects = include_str!("../minimal.jsonl").lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let object = objects.into_iter().find(|object| object["kind"] == json!(kind)).unwrap();
    let gv = GroupVersion::parse(object["apiVersion"].as_str().unwrap()).unwrap();
    (&**kinds::table::table().by_kind(&GroupVersionKind::new(gv.group, gv.version, kind)).unwrap(), object)
}

fn read(row: &Resource, object: &mut Value) {
    row.decode(object).unwrap();
    row.defaults.apply(object);
    row.strategy.default(&context(row), object);
}

fn merged(object: &Value, change: &Value) -> Value {
    machinery::patch::merge(object, change.to_string().as_bytes()).unwrap().0
}

/// As the server makes it, with the errors.
fn created(kind: &str, change: &Value) -> (&'static Resource, Value, Vec<String>) {
    let (row, object) = minimal(kind);
    let mut object = merged(&object, change);
    read(row, &mut object);
    let meta = machinery::object::metadata_mut(&mut object);
    meta.insert("uid".into(), json!("0e7a6a2c-1d3b-4a5e-8f90-123456789abc"));
    meta.insert("creationTimestamp".into(), json!("2026-01-02T03:04:05Z"));
    if row.namespaced {
        meta.insert("namespace".into(), json!("ns"));
    }
    row.strategy.prepare_for_create(&context(row), &mut object);
    let errors = kinds::validate::create(row, &context(row), &object).iter().map(ToString::to_string).collect();
    (row, object, errors)
}

fn check_create(rows: Vec<(&str, Value, &[&str])>) {
    for (kind, change, wanted) in rows {
        let (_, _, errors) = created(kind, &change);
        assert_eq!(errors, wanted, "{kind} {change}");
    }
}

/// Made with the first change, then the second; of the subresource of a name, where one is given.
fn check_update(rows: Vec<(&str, &str, Value, Value, &[&str])>) {
    for (kind, sub, first, second, wanted) in rows {
        let (row, mut old, _) = created(kind, &first);
        machinery::object::metadata_mut(&mut old).insert("resourceVersion".into(), json!("1"));
        if let Some(status) = first.get("status") {
            old["status"] = status.clone();
        }
        let mut new = merged(&old, &second);
        read(row, &mut new);
        let strategy = if sub.is_empty() { &*row.strategy } else { row.strategy.subresource(sub).unwrap() };
        strategy.prepare_for_update(&context(row), &mut new, &old);
        let errors = kinds::validate::update_with(row, strategy, &context(row), &new, &old);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), wanted, "{kind} {first} {second}");
    }
}

/// A pod's spec with one container of these fields, and other fields beside.
fn pod(container: Value, spec: Value) -> Value {
    let mut own = json!({"name": "c", "image": "i"});
    own.as_object_mut().unwrap().extend(container.as_object().cloned().unwrap());
    let mut all = json!({"serviceAccountName": "default", "containers": [own]});
    all.as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap());
    json!({ "spec": all })
}

#[test]
fn pods() {
    let none = || json!({});
    check_create(vec![
        (
            "Pod",
            pod(none(), json!({"hostUsers": false, "hostNetwork": true, "hostPID": true, "hostIPC": true})),
            &[
                "spec.hostNetwork: Forbidden: when `hostUsers` is false",
                "spec.HostPID: Forbidden: when `hostUsers` is false",
                "spec.HostIPC: Forbidden: when `hostUsers` is false",
            ],
        ),
        (
            "Pod",
            pod(none(), json!({"dnsPolicy": "None", "dnsConfig": {"options": [{}]}})),
            &["spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None"],
        ),
        (
            "Pod",
            pod(none(), json!({"dnsConfig": {"nameservers": ["010.0.0.1"]}})),
            &["spec.dnsConfig.nameservers[0]: Invalid value: \"010.0.0.1\": must not have leading 0s"],
        ),
        (
            "Pod",
            pod(none(), json!({"hostnameOverride": "A", "setHostnameAsFQDN": true, "hostNetwork": false})),
            &[
                "spec.hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true",
                "spec.hostnameOverride: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ],
        ),
        (
            "Pod",
            pod(none(), json!({"tolerations": [{"operator": "Exists", "value": "v"}, {"key": "k", "operator": "Gt", "value": "1"}]})),
            &[
                "spec.tolerations[0].operator: Invalid value: \"v\": value must be empty when `operator` is 'Exists'",
                "spec.tolerations[1].operator: Unsupported value: \"Gt\": supported values: \"Equal\", \"Exists\", \"Lt\", \"Gt\"",
            ],
        ),
        (
            "Pod",
            pod(
                none(),
                json!({"securityContext": {"sysctls": [{"name": "net.a", "value": ""}, {"name": "net/a", "value": ""}]},
            "hostNetwork": true}),
            ),
            &[
                "spec.securityContext.sysctls[0].name: Invalid value: \"net.a\": may not be specified when 'hostNetwork' is true",
                "spec.securityContext.sysctls[1].name: Invalid value: \"net/a\": may not be specified when 'hostNetwork' is true",
            ],
        ),
        (
            "Pod",
            pod(
                none(),
                json!({"initContainers": [{"name": "i", "image": "i",
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}]}),
            ),
            &[
                "spec.initContainers[0].resizePolicy[0].restartPolicy: Invalid value: \"RestartContainer\": must not be set to 'RestartContainer' for non-sidecar initContainers",
            ],
        ),
        (
            "Pod",
            pod(
                json!({"env": [{"name": "a", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "p", "key": "k"}}}]}),
                json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}),
            ),
            &[
                "spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Invalid value: \"v\": referenced volume must be of type emptyDir",
            ],
        ),
        (
            "Pod",
            pod(
                none(),
                json!({"topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"},
            {"maxSkew": 2, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]}),
            ),
            &["spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{z, DoNotSchedule}\""],
        ),
    ]);
}

#[test]
fn resources_of_pods() {
    let limits = |limits: Value, requests: Value| json!({"resources": {"limits": limits, "requests": requests}});
    check_create(vec![
        (
            "Pod",
            pod(limits(json!({"cpu": "1"}), json!({"cpu": "2"})), json!({})),
            &["spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"],
        ),
        (
            "Pod",
            pod(limits(json!({}), json!({"a.b/c": "1"})), json!({})),
            &["spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources"],
        ),
        (
            "Pod",
            pod(limits(json!({"a.b/c": "1"}), json!({"a.b/c": "2"})), json!({})),
            &["spec.containers[0].resources.requests: Invalid value: \"2\": must be equal to a.b/c limit of 1"],
        ),
        (
            "Pod",
            pod(limits(json!({"hugepages-2Mi": "3Mi", "cpu": "1"}), json!({})), json!({})),
            &[
                "spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
                "spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
            ],
        ),
        (
            "Pod",
            pod(
                json!({"resources": {"claims": [{"name": "x"}, {"name": "b"}, {"name": "b", "request": "r"}]}}),
                json!({"resourceClaims": [{"name": "b", "resourceClaimName": "c"}, {"name": "a", "resourceClaimName": "c"}]}),
            ),
            &[
                "spec.containers[0].resources.claims[0]: Not found: \"x\": must be one of the names in pod.spec.resourceClaims: a, b",
                "spec.containers[0].resources.claims[2]: Duplicate value: \"b\"",
            ],
        ),
        (
            "Pod",
            pod(limits(json!({"cpu": "3"}), json!({"cpu": "3"})), limits(json!({"cpu": "2"}), json!({"cpu": "1"}))),
            &[
                "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 3",
                "spec.resources.containers[0][cpu].limits: Invalid value: \"3\": must be less than or equal to pod limits of 2",
            ],
        ),
        (
            "Pod",
            pod(json!({}), json!({"os": {"name": "windows"}, "resources": {"claims": []}})),
            &["spec.resources: Forbidden: may not be set for a windows pod"],
        ),
    ]);
}

#[test]
fn pods_of_windows_and_linux() {
    let windows = |spec: Value| {
        let mut all = json!({"os": {"name": "windows"}});
        all.as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap());
        all
    };
    check_create(vec![
        (
            "Pod",
            pod(
                json!({"securityContext": {"privileged": false, "capabilities": {}}}),
                windows(json!({"hostIPC": true, "securityContext": {"fsGroup": 1, "sysctls": [], "runAsUser": 1}})),
            ),
            &[
                "spec.hostIPC: Forbidden: cannot be set for a windows pod",
                "spec.securityContext.fsGroup: Forbidden: cannot be set for a windows pod",
                "spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod",
                "spec.containers[0].securityContext.capabilities: Forbidden: cannot be set for a windows pod",
                "spec.containers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod",
            ],
        ),
        (
            "Pod",
            pod(
                json!({"securityContext": {"windowsOptions": {"hostProcess": false}}}),
                windows(json!({"hostNetwork": true, "securityContext": {"windowsOptions": {"hostProcess": true}}})),
            ),
            &[
                "spec.containers[0].securityContext.windowsOptions.hostProcess: Invalid value: false: pod hostProcess value must be identical if both are specified, was true",
            ],
        ),
        (
            "Pod",
            pod(json!({"securityContext": {"windowsOptions": {"runAsUserName": ".x\\u"}}}), json!({})),
            &[
                "spec.containers[0].securityContext.windowsOptions.runAsUserName: Invalid value: \".x\\\\u\": runAsUserName's Domain doesn't match the NetBios nor the DNS format",
            ],
        ),
        (
            "Pod",
            pod(json!({}), json!({"os": {"name": "linux"}, "securityContext": {"windowsOptions": {}}})),
            &["spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod"],
        ),
    ]);
}

#[test]
fn services() {
    let spec = |v: Value| {
        let mut all = json!({"ports": [{"port": 80}]});
        all.as_object_mut().unwrap().extend(v.as_object().cloned().unwrap());
        json!({ "spec": all })
    };
    check_create(vec![
        (
            "Service",
            spec(
                json!({"type": "ExternalName", "externalName": "x", "clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}),
            ),
            &[
                "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
                "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
                "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
            ],
        ),
        (
            "Service",
            spec(json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1/8", " 10.0.0.0/8"]})),
            &["spec.LoadBalancerSourceRanges[0]: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix length"],
        ),
        (
            "Service",
            json!({"metadata": {"annotations": {"service.beta.kubernetes.io/load-balancer-source-ranges": "x"}}, "spec": {"ports": [{"port": 80}]}}),
            &[
                "metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]: Forbidden: may only be used when `type` is 'LoadBalancer'",
                "metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ],
        ),
        (
            "Service",
            json!({"metadata": {"annotations": {"service.kubernetes.io/topology-mode": "Auto", "service.kubernetes.io/topology-aware-hints": "auto"}}}),
            &[
                "metadata.annotations[service.kubernetes.io/topology-mode]: Invalid value: \"Auto\": must match annotations[service.kubernetes.io/topology-aware-hints] when both are specified",
            ],
        ),
        (
            "Service",
            spec(json!({"externalIPs": ["010.0.0.1", "127.0.0.1"]})),
            &[
                "spec.externalIPs[0]: Invalid value: \"010.0.0.1\": must not have leading 0s",
                "spec.externalIPs[1]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ],
        ),
    ]);
    let balanced = || spec(json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000}));
    check_update(vec![
        (
            "Service",
            "",
            balanced(),
            json!({"spec": {"healthCheckNodePort": 31001}}),
            &["spec.healthCheckNodePort: Forbidden: field is immutable"],
        ),
        (
            "Service",
            "",
            spec(json!({"clusterIP": "10.96.0.9", "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"})),
            json!({"spec": {"ipFamilies": ["IPv4"]}}),
            &[
                "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the secondary ipFamily",
            ],
        ),
    ]);
}

#[test]
fn addresses_that_were_there_before() {
    let policy = |cidr: &str| json!({"spec": {"ingress": [{"from": [{"ipBlock": {"cidr": cidr}}]}]}});
    let strict = "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"010.0.0.0/8\": must not have leading 0s in IP or prefix length";
    check_create(vec![("NetworkPolicy", policy("010.0.0.0/8"), &[strict])]);
    check_update(vec![
        ("NetworkPolicy", "", policy("010.0.0.0/8"), policy("010.0.0.0/8"), &[]),
        ("NetworkPolicy", "", policy("10.0.0.0/8"), policy("010.0.0.0/8"), &[strict]),
        (
            "Node",
            "",
            json!({"spec": {"externalID": "a"}}),
            json!({"spec": {"externalID": "b"}}),
            &["spec.externalID: Forbidden: may not be updated"],
        ),
    ]);
}

#[test]
fn limits_and_quotas() {
    let limit = |v: Value| json!({"spec": {"limits": [v]}});
    check_create(vec![
        (
            "LimitRange",
            limit(json!({"type": "Pod", "max": {"pods": "1"}, "default": {"cpu": "1"}})),
            &[
                "spec.limits[0].max[pods]: Invalid value: \"pods\": must be a standard resource for containers",
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
            ],
        ),
        (
            "LimitRange",
            limit(json!({"type": "PersistentVolumeClaim", "max": {"cpu": "1"}})),
            &["spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided"],
        ),
        (
            "LimitRange",
            limit(
                json!({"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "500m"}, "default": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "3"}}),
            ),
            &[
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"2\": default request value 2 is greater than max value 1",
                "spec.limits[0].default[cpu]: Invalid value: \"1\": default value 2 is greater than max value 1",
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000",
            ],
        ),
        (
            "LimitRange",
            limit(json!({"type": "Container", "default": {"a.b/c": "2"}, "defaultRequest": {"a.b/c": "1"}})),
            &["spec.limits[0].defaultRequest[a.b/c]: Invalid value: \"1\": default value 2 must equal to defaultRequest value 1 in a.b/c"],
        ),
        (
            "ResourceQuota",
            json!({"spec": {"hard": {"cpu": "1"}, "scopeSelector": {"matchExpressions": [{"scopeName": "BestEffort", "operator": "Exists"}]}}}),
            &[
                "spec.scopeSelector.matchExpressions: Invalid value: {\"MatchExpressions\":[{\"ScopeName\":\"BestEffort\",\"Operator\":\"Exists\",\"Values\":null}]}: unsupported scope applied to resource",
            ],
        ),
    ]);
}

#[test]
fn what_kubelets_report() {
    let ended = |rules: Value| {
        let mut pod = pod(json!({"restartPolicy": "Never", "restartPolicyRules": rules}), json!({"restartPolicy": "Never"}));
        pod["status"] = json!({"qosClass": "BestEffort", "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 3}}}]});
        pod
    };
    let running = || json!({"status": {"containerStatuses": [{"name": "c", "state": {"running": {}}}]}});
    let stays = "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state";
    let rule = |action: &str, operator: &str| json!([{"action": action, "exitCodes": {"operator": operator, "values": [3]}}]);
    let plain = |status: Value| {
        let mut pod = pod(json!({}), json!({}));
        pod["status"] = status;
        pod
    };
    check_update(vec![
        ("Pod", "status", ended(json!([])), running(), &[stays]),
        ("Pod", "status", ended(rule("Restart", "NotIn")), running(), &[stays]),
        ("Pod", "status", ended(rule("Restart", "In")), running(), &[]),
        ("Pod", "status", ended(rule("RestartAllContainers", "NotIn")), running(), &[]),
        (
            "Pod",
            "status",
            plain(json!({"qosClass": "BestEffort"})),
            json!({"status": {"hostIPs": [{"ip": "10.0.0.1"}]}}),
            &["status.hostIPs[0].ip: Invalid value: \"10.0.0.1\": must be equal to `hostIP`"],
        ),
        (
            "Pod",
            "status",
            plain(json!({"qosClass": "BestEffort"})),
            json!({"status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.2"}]}}),
            &[],
        ),
    ]);
}

#[test]
fn pods_are_resized() {
    let amounts = |key: &str, cpu: &str| json!({"resources": {key: {"cpu": cpu}}});
    check_update(vec![
        (
            "Pod",
            "resize",
            pod(amounts("requests", "1"), json!({})),
            json!({"spec": {"containers": [{"name": "c", "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}]}}),
            &[
                "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
                "spec: Forbidden: only cpu and memory resources are mutable",
            ],
        ),
        (
            "Pod",
            "resize",
            pod(amounts("requests", "1"), amounts("requests", "2")),
            json!({"spec": {"resources": {"requests": {"cpu": null, "memory": "1Gi"}}}}),
            &["spec.resources.requests: Forbidden: pod-level resource requests cannot be removed"],
        ),
    ]);
}

#[test]
fn jobs() {
    let job = |spec: Value| json!({ "spec": spec });
    let many = json!({"completionMode": "Indexed", "completions": 200_000, "backoffLimitPerIndex": 1, "parallelism": 20_000});
    let success = |rule: Value| json!({"completionMode": "Indexed", "completions": 5, "successPolicy": {"rules": [rule]}});
    let exits = |values: Value| json!({"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": values}}]}});
    check_create(vec![
        (
            "Job",
            job(many),
            &[
                "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
                "spec.parallelism: Invalid value: 20000: must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index",
            ],
        ),
        (
            "Job",
            job(success(json!({"succeededIndexes": "0-9-1", "succeededCount": 9}))),
            &[
                "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"0-9-1\": error parsing succeededIndexes: the fragment \"0-9-1\" violates the requirement that an index interval can have at most two parts separated by '-'",
                "spec.successPolicy.rules[0].succeededCount: Invalid value: 9: must be less than or equal to 5 (the number of specified completions)",
                "spec.successPolicy.rules[0].succeededCount: Invalid value: 9: must be less than or equal to 0 (the number of indexes in the specified succeededIndexes field)",
            ],
        ),
        (
            "Job",
            job(exits(json!([3, 3, 2, 2]))),
            &[
                "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Duplicate value: 3",
                "spec.podFailurePolicy.rules[0].onExitCodes.values[3]: Duplicate value: 2",
                "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [3,3,2,2]: must be ordered",
            ],
        ),
        (
            "CronJob",
            job(json!({"timeZone": "local"})),
            &[
                "spec.timeZone: Invalid value: \"local\": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
                "spec.timeZone: Invalid value: \"local\": unknown time zone local",
            ],
        ),
    ]);
    let resources = |cpu: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]}}}});
    let suspended = || json!({"spec": {"suspend": true, "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    check_update(vec![("Job", "", suspended(), resources("2"), &[])]);
    check_update(vec![(
        "CronJob",
        "",
        job(json!({"schedule": "TZ=UTC 1 * * * *"})),
        job(json!({"timeZone": "Etc/UTC"})),
        &["spec.schedule: Invalid value: \"TZ=UTC 1 * * * *\": cannot use both timeZone field and TZ or CRON_TZ in schedule"],
    )]);
}

#[test]
fn secrets() {
    let docker = |content: &str| json!({"type": "kubernetes.io/dockercfg", "data": {".dockercfg": content}});
    check_create(vec![
        ("Secret", docker(""), &["data[.dockercfg]: Invalid value: \"<secret contents redacted>\": unexpected end of JSON input"]),
        (
            "Secret",
            docker("MQ=="),
            &[
                "data[.dockercfg]: Invalid value: \"<secret contents redacted>\": json: cannot unmarshal number into Go value of type map[string]interface {}",
            ],
        ),
        ("Secret", docker("e30="), &[]),
    ]);
}
