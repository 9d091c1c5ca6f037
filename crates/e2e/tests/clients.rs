//! Programs that use the client libraries: the Python client from PyPI, and kube-rs.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Cluster, is_root};
use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, AttachParams, DeleteParams, LogParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::wait::{await_condition, conditions};
use serde_json::json;
use tokio::io::AsyncReadExt as _;

/// The Python client in an environment of its own, made once; `None` where it cannot be had, which is said.
fn python() -> Option<PathBuf> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-kubernetes");
    let python = home.join("bin/python");
    let works = || Command::new(&python).args(["-c", "import kubernetes"]).output().is_ok_and(|o| o.status.success());
    if works() {
        return Some(python);
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(&home).output().is_ok_and(|o| o.status.success());
    let installed = made
        && Command::new(&python).args(["-m", "pip", "install", "--quiet", "kubernetes>=33"]).output().is_ok_and(|o| o.status.success());
    if installed && works() {
        return Some(python);
    }
    println!("skipped: the Python client cannot be installed");
    None
}

#[test]
fn the_python_client_does_everything() {
    if !is_root() {
        return;
    }
    let Some(python) = python() else { return };
    let cluster = Cluster::up(1).unwrap();
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/suite.py");
    let out = cluster.program(&python.display().to_string(), &[&suite.display().to_string()], &[]).unwrap();
    assert!(out.success, "{}\n{}\n{}", out.stdout, out.stderr, cluster.log());
    assert_eq!(out.stdout.lines().filter(|l| l.starts_with("ok ")).count(), 7, "{}", out.stdout);
}

fn pod(name: &str, command: &[&str]) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "skiff/hello", "command": command}]},
    }))
    .unwrap()
}

#[test]
fn kube_rs_writes_watches_and_applies() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::up(1).unwrap();
    let done = cluster.with_client(|client| async move {
        let maps: Api<ConfigMap> = Api::default_namespaced(client);
        let mut watching = maps.watch(&WatchParams::default().fields("metadata.name=m"), "0").await?.boxed();
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "m"}, "data": {"a": "1"}}))?;
        let made = maps.create(&PostParams::default(), &map).await?;
        let again = maps.create(&PostParams::default(), &map).await.unwrap_err();
        assert!(matches!(again, kube::Error::Api(status) if status.is_already_exists()));
        let patched = maps.patch("m", &PatchParams::default(), &Patch::Merge(json!({"data": {"b": "2"}}))).await?;
        assert_eq!(patched.data.unwrap().len(), 2);
        let stale = maps.replace("m", &PostParams::default(), &made).await.unwrap_err();
        assert!(matches!(stale, kube::Error::Api(status) if status.is_conflict()));
        let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "applied"}});
        let clash = maps.patch("m", &PatchParams::apply("suite"), &Patch::Apply(&wanted)).await.unwrap_err();
        assert!(matches!(clash, kube::Error::Api(status) if status.is_conflict()));
        let applied = maps.patch("m", &PatchParams::apply("suite").force(), &Patch::Apply(&wanted)).await?;
        assert_eq!(applied.data.unwrap()["a"], "applied");
        let metadata = maps.get_metadata("m").await?;
        assert_eq!(metadata.metadata.uid, made.metadata.uid);
        maps.delete("m", &DeleteParams::default()).await?;
        let mut seen = Vec::new();
        while let Some(event) = watching.try_next().await? {
            match event {
                WatchEvent::Added(_) => seen.push("added"),
                WatchEvent::Modified(_) => seen.push("modified"),
                WatchEvent::Deleted(_) => break,
                other => anyhow::bail!("{other:?}"),
            }
        }
        assert_eq!(seen, ["added", "modified", "modified"]);
        Ok(())
    });
    done.unwrap();
}

#[test]
fn kube_rs_runs_programs_in_pods_and_reads_logs() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::up(1).unwrap();
    let done = cluster.with_client(|client| async move {
        let pods: Api<Pod> = Api::default_namespaced(client);
        pods.create(&PostParams::default(), &pod("box", &["sh", "-c", "echo first; while true; do sleep 1; done"])).await?;
        tokio::time::timeout(std::time::Duration::from_secs(30), await_condition(pods.clone(), "box", conditions::is_pod_running()))
            .await??;
        let mut lines = pods.log_stream("box", &LogParams { follow: true, ..LogParams::default() }).await?.lines();
        assert_eq!(lines.try_next().await?.as_deref(), Some("first"));
        let mut run = pods.exec("box", ["sh", "-c", "echo out; exit 4"], &AttachParams::default()).await?;
        let mut said = String::new();
        run.stdout().unwrap().read_to_string(&mut said).await?;
        assert_eq!(said, "out\n");
        let status = run.take_status().unwrap().await.unwrap();
        assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
        run.join().await?;
        let mut forward = pods.portforward("box", &[80]).await;
        assert!(forward.is_ok(), "{:?}", forward.err());
        drop(forward.as_mut().map(|f| f.take_stream(80)));
        Ok(())
    });
    done.unwrap();
}
