#!/usr/bin/env bash
# Replays recorded answers of upstream v1.36.2 against a fresh `skiff kube-apiserver` and prints how many are identical.
#   xtask/parity.sh [GROUP...]        all groups without arguments
#   EXPLAIN=3 xtask/parity.sh           also sorts out what docs/parity.md explains; shows 3 differences of each other case
# More flags for the replay tool go into PARITY_FLAGS, as PARITY_FLAGS="--show 3 --only ^crud/pods/".
set -euo pipefail
cd "$(dirname "$0")/.."
shared=${SKIFF_SHARED:-../shared}/parity
if [ ! -e "$shared/parity.py" ]; then
  echo "no recorded answers in $shared: nothing to replay"
  exit 0
fi
skiff=${SKIFF:-${CARGO_TARGET_DIR:-target}/release/skiff}
[ -x "$skiff" ] || { echo "$skiff is missing: run cargo build --release -p skiff"; exit 1; }
data=$(mktemp -d)
port=${PORT:-16443}
"$skiff" kube-apiserver --data-dir "$data" --secure-port "$port" --service-cluster-ip-range 10.96.0.0/12 >"$data/log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null || true; rm -rf "$data"' EXIT
for _ in $(seq 200); do [ -s "$data/admin.kubeconfig" ] && break; sleep 0.05; done
python3 - "$data" <<'P'
import base64, json, re, sys
d = sys.argv[1]; text = open(d + "/admin.kubeconfig").read()
for key, name in (("certificate-authority-data", "ca.crt"), ("client-certificate-data", "admin.crt"), ("client-key-data", "admin.key")):
    open(f"{d}/{name}", "wb").write(base64.b64decode(re.search(rf'"?{key}"?: *"?([A-Za-z0-9+/=]+)', text).group(1)))
P
golden=()
for group in "$@"; do golden+=("$shared/golden/$group.jsonl.gz"); done
[ ${#golden[@]} -gt 0 ] || golden=("$shared"/golden/*.jsonl.gz)
if [ -n "${EXPLAIN:-}" ]; then
  # shellcheck disable=SC2086
  python3 "$shared/parity.py" replay --base "https://127.0.0.1:$port" --ca "$data/ca.crt" --cert "$data/admin.crt" --key "$data/admin.key" \
    --golden "${golden[@]}" --jobs "${JOBS:-4}" --json ${PARITY_FLAGS:-} >"$data/replay.json" || true
  python3 xtask/parity-explain.py "$data/replay.json" xtask/parity-known.tsv --show "$EXPLAIN" || true
  exit 0
fi
# shellcheck disable=SC2086
python3 "$shared/parity.py" replay --base "https://127.0.0.1:$port" --ca "$data/ca.crt" --cert "$data/admin.crt" --key "$data/admin.key" \
  --golden "${golden[@]}" --jobs "${JOBS:-4}" ${PARITY_FLAGS:-} || true
