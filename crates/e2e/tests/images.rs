//! `skiff image`, and what happens to images and starts that are no good.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;

use anyhow::ensure;
use e2e::archive::{Entry, docker, layer, oci};
use e2e::{Cluster, eventually, is_root};
use serde_json::json;

/// A static program that runs anywhere: the sample image's own, out of the build.
fn program(cluster: &Cluster) -> Vec<u8> {
    // Its layer is unpacked below the node's data.
    let mut todo = vec![cluster.data_dir()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.ends_with("bin/hello") {
                return fs::read(path).unwrap();
            }
            if entry.file_type().unwrap().is_dir() {
                todo.push(path);
            }
        }
    }
    panic!("the sample image is not unpacked")
}

#[test]
fn images_are_loaded_listed_run_and_removed() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::up(1).unwrap();
    let listed = |cluster: &Cluster| cluster.skiff(&["image", "ls"]).unwrap().ok().unwrap();
    assert!(listed(&cluster).contains("skiff/hello"), "{}", listed(&cluster));
    let bytes = program(&cluster);
    let made = layer(&[Entry::Program("app", &bytes), Entry::File("etc/greeting", b"hi")]).unwrap();
    let file = cluster.dir().join("image.tar");
    docker(&file, "example.test/one:v1", made.clone(), &["/app", "hello", "81"]).unwrap();
    let said = cluster.skiff(&["image", "load", file.to_str().unwrap()]).unwrap().ok().unwrap();
    assert!(said.contains("example.test/one:v1"), "{said}");
    oci(&file, "example.test/two:v2", made, &["/app"]).unwrap();
    cluster.skiff(&["image", "load", file.to_str().unwrap()]).unwrap().ok().unwrap();
    assert!(listed(&cluster).contains("example.test/one:v1") && listed(&cluster).contains("example.test/two:v2"));
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "one" }, "spec": { "containers": [{ "name": "c", "image": "example.test/one:v1" }] } });
    cluster.request("POST", "/api/v1/namespaces/default/pods", Some(&pod)).unwrap();
    let ip = eventually("the loaded image runs", || {
        let pod = cluster.get("/api/v1/namespaces/default/pods/one")?;
        ensure!(pod["status"]["phase"] == "Running", "{}", pod["status"]);
        Ok(pod["status"]["podIP"].as_str().unwrap().to_owned())
    })
    .unwrap();
    assert_eq!(eventually("it answers", || cluster.fetch(&ip, 81)).unwrap(), "Hello from one");
    cluster.skiff(&["image", "rm", "example.test/two:v2"]).unwrap().ok().unwrap();
    assert!(!listed(&cluster).contains("example.test/two:v2"));
    let missing = cluster.skiff(&["image", "rm", "no.such/image:v1"]).unwrap();
    assert!(!missing.success && missing.stderr.contains("no.such/image:v1"), "{missing:?}");
}

#[test]
fn hostile_and_broken_images_are_refused_whole() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::up(1).unwrap();
    let before = cluster.skiff(&["image", "ls"]).unwrap().ok().unwrap();
    let outside = cluster.dir().join("outside");
    let file = cluster.dir().join("image.tar");
    let up = format!("../../../../../../../../../../..{}", outside.display());
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("dots", layer(&[Entry::File(&up[..up.len().min(99)], b"x")]).unwrap()),
        ("link", layer(&[Entry::Link("out", &cluster.dir().display().to_string()), Entry::File("out/outside", b"x")]).unwrap()),
        ("device", layer(&[Entry::Device("sda")]).unwrap()),
    ];
    for (what, made) in cases {
        docker(&file, "example.test/bad:v1", made, &["/x"]).unwrap();
        let answer = cluster.skiff(&["image", "load", file.to_str().unwrap()]).unwrap();
        assert!(!outside.exists(), "{what}: the host was reached");
        // A link that is followed inside the image's own root harms nobody; all else is refused in words.
        if what != "link" {
            assert!(!answer.success && !answer.stderr.is_empty(), "{what}: {answer:?}");
        } else if answer.success {
            cluster.skiff(&["image", "rm", "example.test/bad:v1"]).unwrap().ok().unwrap();
        }
    }
    fs::write(&file, b"not a tar at all").unwrap();
    let answer = cluster.skiff(&["image", "load", file.to_str().unwrap()]).unwrap();
    assert!(!answer.success && !answer.stderr.is_empty(), "{answer:?}");
    let answer = cluster.skiff(&["image", "load", "/no/such/file.tar"]).unwrap();
    assert!(!answer.success && answer.stderr.contains("/no/such/file.tar"), "{answer:?}");
    assert_eq!(before, cluster.skiff(&["image", "ls"]).unwrap().ok().unwrap());
}

#[test]
fn a_missing_command_and_image_are_said_in_the_status() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::up(1).unwrap();
    let pod = |name: &str, container: serde_json::Value| json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": { "containers": [container] } });
    let command = pod("command", json!({ "name": "c", "image": "skiff/hello", "command": ["/no/such/program"] }));
    let image = pod("image", json!({ "name": "c", "image": "127.0.0.1:1/no/image:v1" }));
    for (object, reasons) in [(command, ["RunContainerError", "CrashLoopBackOff"]), (image, ["ErrImagePull", "ImagePullBackOff"])] {
        cluster.request("POST", "/api/v1/namespaces/default/pods", Some(&object)).unwrap();
        let path = format!("/api/v1/namespaces/default/pods/{}", object["metadata"]["name"].as_str().unwrap());
        eventually("the status says what is wrong", || {
            let pod = cluster.get(&path)?;
            let status = &pod["status"]["containerStatuses"][0];
            let reason = status["state"]["waiting"]["reason"].as_str().unwrap_or("");
            ensure!(reasons.contains(&reason), "{status}");
            Ok(())
        })
        .unwrap();
    }
}
