#!/usr/bin/env bash
# Runs fuzz targets: xtask/fuzz.sh [-t SECONDS] [TARGET...]      all of them, a minute each, without arguments.
# Starts from fuzz/corpus/TARGET, adds what it finds there, and prints a line per target: executions, coverage, corpus.
# Coverage counters come from the compiler's own pass, so a stable toolchain and a C++ compiler are all that is needed.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
seconds=60
if [ "${1:-}" = -t ]; then seconds=$2; shift 2; fi
targets=("$@")
[ ${#targets[@]} -gt 0 ] || for file in src/bin/*.rs; do name=${file##*/}; targets+=("${name%.rs}"); done
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target} CARGO_INCREMENTAL=0
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
cargo build --release --target "$(rustc -vV | sed -n 's/^host: //p')" --quiet
binaries="$CARGO_TARGET_DIR/$(rustc -vV | sed -n 's/^host: //p')/release"
failed=0
for target in "${targets[@]}"; do
  mkdir -p "corpus/$target" "artifacts/$target"
  work=$(mktemp -d)
  if "$binaries/$target" -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=10 -max_len=8192 -use_value_profile=1 -print_final_stats=1 \
    -artifact_prefix="artifacts/$target/" "$work" "corpus/$target" >"$work.log" 2>&1; then state=ok; else state=FAILED; failed=1; cp "$work.log" "artifacts/$target/log"; fi
  # Only what adds coverage is kept.
  "$binaries/$target" -merge=1 -max_len=8192 "corpus/$target" "$work" >/dev/null 2>&1 || true
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work.log")
  coverage=$(grep -oE 'cov: [0-9]+' "$work.log" | tail -1)
  printf '%-12s %-7s %12s executions   %-10s %6s corpus files, %s s\n' "$target" "$state" "${executions:-?}" "${coverage:-cov: ?}" "$(find "corpus/$target" -type f | wc -l)" "$seconds"
  rm -rf "$work" "$work.log"
done
exit $failed
