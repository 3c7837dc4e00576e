#!/usr/bin/env bash
# Sweeps simulator seeds for a long time: sim-swarm.sh [FIRST [COUNT]]. Stops at the first seed that fails and names it.
set -euo pipefail
cd "$(dirname "$0")/.."
first=${1:-$(date +%s)000} count=${2:-100000} batch=256 log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --release -p dataplane --test simulation --no-run
for ((seed = first; seed < first + count; seed += batch)); do
  if ! SIM_FIRST=$seed SIM_SEEDS=$batch cargo test -q --release -p dataplane --test simulation >"$log" 2>&1; then
    tail -n 80 "$log"
    echo "a seed of $seed..$((seed + batch)) failed; replay it as docs/recipes/reproduce-a-seed.md says"
    exit 1
  fi
  echo "seeds $seed..$((seed + batch)): ok"
done
