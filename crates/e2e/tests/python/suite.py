"""What programs do with the Python client: create, read, update, patch, apply, watch, exec, log, delete.

Run by tests/clients.rs with the cluster's KUBECONFIG. Prints "ok NAME" for each part; the first failure ends it.
"""

import sys
import time

import yaml
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream

NS = "python"


def eventually(what, check, seconds=30):
    end = time.time() + seconds
    while True:
        found = check()
        if found:
            return found
        if time.time() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.1)


def pod(name, command=None):
    container = client.V1Container(name="c", image="skiff/hello", command=command)
    return client.V1Pod(metadata=client.V1ObjectMeta(name=name, labels={"app": name}), spec=client.V1PodSpec(containers=[container]))


def namespaces(core):
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NS)))
    eventually("the default ServiceAccount", lambda: [a for a in core.list_namespaced_service_account(NS).items if a.metadata.name == "default"])
    assert NS in [n.metadata.name for n in core.list_namespace().items]


def crud(core):
    made = core.create_namespaced_config_map(NS, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="m"), data={"a": "1"}))
    assert made.metadata.uid and made.metadata.creation_timestamp
    made.data["b"] = "2"
    replaced = core.replace_namespaced_config_map("m", NS, made)
    assert replaced.data == {"a": "1", "b": "2"}
    try:
        core.replace_namespaced_config_map("m", NS, made)
        raise AssertionError("a stale write was accepted")
    except ApiException as e:
        assert e.status == 409, e
    patched = core.patch_namespaced_config_map("m", NS, {"data": {"a": None, "c": "3"}})
    assert patched.data == {"b": "2", "c": "3"}, patched.data
    listed = core.list_namespaced_config_map(NS, field_selector="metadata.name=m")
    assert [m.metadata.name for m in listed.items] == ["m"]
    core.delete_namespaced_config_map("m", NS)
    try:
        core.read_namespaced_config_map("m", NS)
        raise AssertionError("it is still there")
    except ApiException as e:
        assert e.status == 404, e
    try:
        core.create_namespaced_config_map(NS, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="Bad_Name")))
        raise AssertionError("a bad name was accepted")
    except ApiException as e:
        assert e.status == 422 and "RFC 1123" in e.body, e


def watching(core):
    start = core.list_namespaced_pod(NS).metadata.resource_version
    core.create_namespaced_pod(NS, pod("watched"))
    seen = []
    for event in watch.Watch().stream(core.list_namespaced_pod, NS, resource_version=start, timeout_seconds=30):
        seen.append((event["type"], event["object"].status.phase))
        if event["object"].status.phase == "Running":
            break
    assert seen[0][0] == "ADDED" and seen[-1][1] == "Running", seen


def exec_and_log(core):
    core.create_namespaced_pod(NS, pod("talker", ["sh", "-c", "echo I speak; while true; do sleep 1; done"]))
    eventually("the pod runs", lambda: core.read_namespaced_pod("talker", NS).status.phase == "Running")
    eventually("its log", lambda: "I speak" in core.read_namespaced_pod_log("talker", NS))
    said = stream(core.connect_get_namespaced_pod_exec, "talker", NS, command=["sh", "-c", "echo out; hostname"], stderr=True, stdout=True, stdin=False, tty=False)
    assert said.split() == ["out", "talker"], said
    session = stream(core.connect_get_namespaced_pod_exec, "talker", NS, command=["sh"], stderr=True, stdout=True, stdin=True, tty=False, _preload_content=False)
    session.write_stdin("exit 3\n")
    session.run_forever(timeout=10)
    assert session.returncode == 3, session.returncode
    for line in watch.Watch().stream(core.read_namespaced_pod_log, "talker", NS):
        assert line == "I speak", line
        break


def workloads(core, apps, batch):
    utils.create_from_dict(client.ApiClient(), yaml.safe_load("""
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: python}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: skiff/hello}]}
"""))
    eventually("two replicas", lambda: apps.read_namespaced_deployment("web", NS).status.ready_replicas == 2)
    scale = apps.read_namespaced_deployment_scale("web", NS)
    assert scale.spec.replicas == 2 and scale.status.selector == "app=web", scale
    apps.patch_namespaced_deployment_scale("web", NS, {"spec": {"replicas": 1}})
    eventually("one replica", lambda: len(core.list_namespaced_pod(NS, label_selector="app=web").items) == 1)
    job = client.V1Job(
        metadata=client.V1ObjectMeta(name="once"),
        spec=client.V1JobSpec(template=client.V1PodTemplateSpec(spec=client.V1PodSpec(restart_policy="Never", containers=[client.V1Container(name="c", image="skiff/hello", command=["true"])]))),
    )
    batch.create_namespaced_job(NS, job)
    eventually("the job is done", lambda: batch.read_namespaced_job("once", NS).status.succeeded == 1)
    apps.delete_namespaced_deployment("web", NS, propagation_policy="Foreground")
    eventually("its pods are gone", lambda: not core.list_namespaced_pod(NS, label_selector="app=web").items)


def applying():
    maps = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied", "namespace": NS}, "data": {"owner": "one"}}
    maps.server_side_apply(body, name="applied", namespace=NS, field_manager="one")
    body["data"]["owner"] = "two"
    try:
        maps.server_side_apply(body, name="applied", namespace=NS, field_manager="two")
        raise AssertionError("a conflict went through")
    except ApiException as e:
        assert e.status == 409 and "conflict" in str(e.body), e
    assert maps.server_side_apply(body, name="applied", namespace=NS, field_manager="two", force_conflicts=True).data.owner == "two"


def custom(core):
    group, plural = "example.com", "widgets"
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer", "minimum": 1, "default": 3}}}}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": "widget", "kind": "Widget"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }
    client.ApiextensionsV1Api().create_custom_resource_definition(definition)
    objects = client.CustomObjectsApi()

    def listed():
        try:
            return objects.list_namespaced_custom_object(group, "v1", NS, plural) is not None
        except ApiException:
            return False

    eventually("the resource is served", listed)
    widget = {"apiVersion": f"{group}/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {}}
    assert objects.create_namespaced_custom_object(group, "v1", NS, plural, widget)["spec"]["size"] == 3
    try:
        objects.patch_namespaced_custom_object(group, "v1", NS, plural, "w", {"spec": {"size": 0}})
        raise AssertionError("a value below the minimum was accepted")
    except ApiException as e:
        assert e.status == 422 and "spec.size" in e.body, e
    objects.delete_namespaced_custom_object(group, "v1", NS, plural, "w")
    client.ApiextensionsV1Api().delete_custom_resource_definition(f"{plural}.{group}")


def main():
    config.load_kube_config()
    core, apps, batch = client.CoreV1Api(), client.AppsV1Api(), client.BatchV1Api()
    assert client.VersionApi().get_code().git_version.startswith("v1.36")
    parts = [
        ("namespaces", lambda: namespaces(core)),
        ("crud", lambda: crud(core)),
        ("watching", lambda: watching(core)),
        ("exec_and_log", lambda: exec_and_log(core)),
        ("workloads", lambda: workloads(core, apps, batch)),
        ("applying", applying),
        ("custom", lambda: custom(core)),
    ]
    for name, part in parts:
        try:
            part()
        except BaseException:
            print(f"FAILED {name}", flush=True)
            raise
        print(f"ok {name}", flush=True)
    core.delete_namespace(NS)


if __name__ == "__main__":
    sys.exit(main())
