//! Starts that cannot succeed say why and what to do, and leave nothing half done.

use std::fs;
use std::net::TcpListener;

use e2e::{Cluster, is_root};

#[test]
fn a_port_in_use_is_named() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::up(1).unwrap();
    cluster.skiff(&["down"]).unwrap().ok().unwrap();
    let taken = cluster.run_async(|_| async { TcpListener::bind(("0.0.0.0", 6443)).unwrap() }).unwrap();
    let answer = cluster.skiff(&["up"]).unwrap();
    assert!(!answer.success && answer.stderr.contains("6443"), "{answer:?}");
    drop(taken);
    cluster.skiff(&["up"]).unwrap().ok().unwrap();
}

#[test]
fn a_damaged_log_is_said_and_nothing_is_overwritten() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::up(1).unwrap();
    cluster.skiff(&["down"]).unwrap().ok().unwrap();
    let store = cluster.data_dir().join("store");
    let largest = fs::read_dir(&store).unwrap().flatten().max_by_key(|e| e.metadata().unwrap().len()).unwrap().path();
    let good = fs::read(&largest).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 0xff;
    fs::write(&largest, &bad).unwrap();
    let answer = cluster.skiff(&["up"]).unwrap();
    assert!(!answer.success && answer.stderr.contains("damaged"), "{answer:?}");
    assert_eq!(fs::read(&largest).unwrap(), bad, "the damaged file was changed");
    fs::write(&largest, &good).unwrap();
    cluster.skiff(&["up"]).unwrap().ok().unwrap();
}

#[test]
fn bad_places_are_refused_in_words() {
    if !is_root() {
        return;
    }
    let cluster = Cluster::place().unwrap();
    let file = cluster.dir().join("file");
    fs::write(&file, "").unwrap();
    let answer = cluster.skiff(&["up", "--data-dir", file.join("below").to_str().unwrap()]).unwrap();
    assert!(!answer.success && answer.stderr.contains("--data-dir"), "{answer:?}");
    fs::create_dir_all(cluster.data_dir()).unwrap();
    fs::write(cluster.data_dir().join("instance.json"), "{").unwrap();
    let answer = cluster.skiff(&["up"]).unwrap();
    assert!(!answer.success && answer.stderr.contains("damaged"), "{answer:?}");
    fs::remove_dir_all(cluster.data_dir()).unwrap();
    let answer = cluster.skiff(&["down"]).unwrap();
    assert!(answer.success && answer.stdout.contains("No cluster"), "{answer:?}");
}
