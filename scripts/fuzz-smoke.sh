#!/usr/bin/env bash
# Runs each fuzz target, or those named, for some seconds: fuzz-smoke.sh [SECONDS [TARGET...]]. Needs cargo-fuzz, nightly.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-5}
shift || true
# The fuzz crate is a workspace of its own; a target directory meant for the main one must not mix with it.
unset CARGO_TARGET_DIR
export CARGO_PROFILE_RELEASE_LTO=off
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  mapfile -t targets < <(cargo +nightly fuzz list --fuzz-dir dataplane/fuzz)
fi
cargo +nightly fuzz build --fuzz-dir dataplane/fuzz
for name in "${targets[@]}"; do
  echo "fuzz $name, $seconds s"
  log=$(mktemp)
  if ! cargo +nightly fuzz run --fuzz-dir dataplane/fuzz "$name" -- \
    -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=5 >"$log" 2>&1; then
    tail -n 60 "$log"
    echo "fuzz $name failed; the input is in dataplane/fuzz/artifacts/$name: make it a case in dataplane/tests/cases"
    exit 1
  fi
  grep -E '^Done|DONE' "$log" | tail -n 1 || true
  rm -f "$log"
done
