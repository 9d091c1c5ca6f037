#!/usr/bin/env bash
# Runs fuzz targets: xtask/fuzz.sh [-t SECONDS] [TARGET...]      all of them, a minute each, without arguments.
# Starts from fuzz/corpus/TARGET.tar.gz, packs what adds coverage into it again, and prints a line per target: executions, coverage, corpus.
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
  mkdir -p corpus "artifacts/$target"
  work=$(mktemp -d)
  mkdir "$work/$target" "$work/found" "$work/kept"
  [ ! -e "corpus/$target.tar.gz" ] || tar -xzf "corpus/$target.tar.gz" -C "$work"
  if "$binaries/$target" -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=10 -max_len=8192 -use_value_profile=1 -print_final_stats=1 \
    -artifact_prefix="artifacts/$target/" "$work/found" "$work/$target" >"$work/log" 2>&1; then state=ok; else state=FAILED; failed=1; cp "$work/log" "artifacts/$target/log"; fi
  "$binaries/$target" -merge=1 -max_len=2048 "$work/kept" "$work/$target" "$work/found" >/dev/null 2>&1 || true
  if [ -n "$(ls "$work/kept")" ]; then
    rm -rf "${work:?}/$target" && mv "$work/kept" "$work/$target"
    tar --sort=name --owner=0 --group=0 --mtime=@0 -C "$work" -cf - "$target" | gzip -9n >"corpus/$target.tar.gz"
  fi
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log")
  coverage=$(grep -aoE 'cov: [0-9]+' "$work/log" | tail -1)
  printf '%-12s %-7s %12s executions   %-10s %6s corpus files, %s s\n' "$target" "$state" "${executions:-?}" "${coverage:-cov: ?}" "$(find "$work/$target" -type f | wc -l)" "$seconds"
  rm -rf "$work"
done
exit $failed
