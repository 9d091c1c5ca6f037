//! A disk that fills under a running API server: writes are refused in time and in words, reads and deletions go on, and
//! writing resumes by itself. On a small file system of its own, in a mount namespace of its own.

use std::process::Command;

use e2e::{has_kubectl, is_root, skiff};

/// `$1`: the binary, `$2`: an empty directory. The file system goes with the namespace.
const SCRIPT: &str = r#"
mount -t tmpfs -o size=90m none "$2"
port=$(( 20000 + $$ % 20000 ))
"$1" kube-apiserver --data-dir "$2" --secure-port $port --bind-address 127.0.0.1 >"$2/log" 2>&1 &
server=$!
trap 'kill -9 $server' EXIT
export KUBECONFIG="$2/admin.kubeconfig"
k() { kubectl --request-timeout=10s "$@" 2>&1; }
for i in $(seq 300); do [ "$(k get --raw /readyz)" = ok ] && break; sleep 0.1; done
k create configmap a --from-literal=x=1
dd if=/dev/zero of="$2/filler" bs=1M count=40 2>/dev/null
for i in $(seq 100); do k create configmap filled-$i | grep exceeded && break; sleep 0.1; done
echo "reads $(k get configmap a -o name)"
k delete configmap a
rm "$2/filler"
for i in $(seq 100); do k create configmap b && break; sleep 0.1; done
"#;

#[test]
fn a_full_disk_refuses_writes_in_etcds_words_and_reads_go_on() {
    if !is_root() || !has_kubectl() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let out =
        Command::new("unshare").args(["-m", "bash", "-c", SCRIPT, "bash"]).arg(skiff()).arg(dir.path()).output().expect("unshare runs");
    let said = String::from_utf8_lossy(&out.stdout);
    let wanted = [
        "configmap/a created",
        "etcdserver: mvcc: database space exceeded: only ",
        "writing then resumes by itself",
        "reads configmap/a",
        "configmap \"a\" deleted",
        "configmap/b created",
    ];
    for part in wanted {
        assert!(said.contains(part), "{part:?} is not in\n{said}{}", String::from_utf8_lossy(&out.stderr));
    }
}
