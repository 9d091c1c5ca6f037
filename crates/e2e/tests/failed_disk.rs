//! A disk that fails under a running API server: the process says which file and why, and ends as etcd's would; the next one
//! reads back what the disk has kept and goes on. The failure is a limit on the size of files, which is an error that is not
//! "disk full".

use std::process::Command;

use e2e::{has_kubectl, skiff};

/// `$1`: the binary, `$2`: an empty directory.
const SCRIPT: &str = r#"
port=$(( 20000 + $$ % 20000 ))
serve() { exec "$1" kube-apiserver --data-dir "$2" --secure-port $port --bind-address 127.0.0.1; }
export KUBECONFIG="$2/admin.kubeconfig"
k() { kubectl --request-timeout=10s "$@" 2>&1; }
ready() { for i in $(seq 600); do [ "$(k get --raw /readyz)" = ok ] && return; sleep 0.1; done; }
# In blocks of 1 KiB. Who ignores the signal gets EFBIG.
(trap '' XFSZ; ulimit -f 4096; serve "$@") >"$2/log" 2>&1 &
server=$!
trap 'kill -9 $server' EXIT
ready
head -c 500000 /dev/zero | tr '\0' x >"$2/value"
last=0
for i in $(seq 20); do k create configmap big-$i --from-file="$2/value" | grep created || break; last=$i; done
wait $server
echo "ended $?"
grep ERROR "$2/log" | tail -1
tail -3 "$2/log"
serve "$@" >"$2/log2" 2>&1 &
server=$!
ready
for i in $(seq $last); do k get configmap big-$i -o name >/dev/null || echo "lost big-$i"; done
k create configmap after && echo "goes on after $last"
"#;

#[test]
fn a_failed_disk_ends_the_server_and_the_next_one_knows_what_is_there() {
    if !has_kubectl() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let out = Command::new("bash").args(["-c", SCRIPT, "bash"]).arg(skiff()).arg(dir.path()).output().expect("bash runs");
    let said = String::from_utf8_lossy(&out.stdout);
    for part in ["ended 1", "failed: File too large (os error 27)", "the datastore has failed", "/store/log-", "goes on after"] {
        assert!(said.contains(part), "{part:?} is not in\n{said}{}", String::from_utf8_lossy(&out.stderr));
    }
    assert!(!said.contains("lost") && !said.contains("goes on after 0"), "{said}");
}
