#!/usr/bin/env bash
# Everything that guards a change, in the order CI runs it; .ci/run adds only the installs. Stops at the first failure.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
began=$SECONDS
limit=(timeout 1500)
if [ -t 0 ]; then limit=(timeout --foreground 1500); fi # so that Ctrl-C reaches the stage

stage() { # NAME COMMAND...: one line before, one after with the duration
  local name=$1 start=$SECONDS
  shift
  echo "== $name: $*"
  if ! "${limit[@]}" "$@"; then
    echo "-- $name: FAILED after $((SECONDS - start)) s"
    exit 1
  fi
  echo "-- $name: ok, $((SECONDS - start)) s"
}

stage format cargo fmt --all --check
stage clippy cargo clippy --workspace --all-targets --locked -- -D warnings
stage test cargo test --locked
if grep -q '^members.*"bench"' Cargo.toml; then # default-members leave it out
  # Each of them keeps every CPU busy: beside another, one may find no time at all in its window.
  stage test-bench cargo test --locked -p bench -- --test-threads=1
fi
stage counts cargo bench --locked -p dataplane --bench counts
stage doc env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked
if [ -f dataplane/tests/loom.rs ]; then
  # Its own target directory: the flag would otherwise rebuild everything twice. Link-time optimisation gains nothing here.
  stage loom env RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="$target/loom" CARGO_PROFILE_RELEASE_LTO=off \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 cargo test --release --locked -p dataplane --test loom
fi
if [ -d dataplane/fuzz ]; then
  stage fuzz scripts/fuzz-smoke.sh 5
fi
echo "-- all: ok, $((SECONDS - began)) s"
