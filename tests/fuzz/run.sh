#!/usr/bin/env bash
# Runs a fuzz target, or all of them: `run.sh TARGET|all SECONDS`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target=$1 seconds=$2 corpus=target/fuzz/corpus findings=target/fuzz/findings

# The same versions of everything as the gateway itself is built with.
cp Cargo.lock tests/fuzz/Cargo.lock
# No sanitizer: no line of `src` is unsafe, and without one a search is several times faster.
fuzz=(--fuzz-dir tests/fuzz --target-dir target/fuzz --sanitizer none)
cargo +nightly fuzz build "${fuzz[@]}"

tests/fuzz/seeds.py "$corpus"
mkdir -p "$findings"
if [[ $target == all ]]; then
  mapfile -t targets < <(cargo +nightly fuzz list --fuzz-dir tests/fuzz)
else
  targets=("$target")
fi
for name in "${targets[@]}"; do
  echo "=== $name"
  # The seeds are read and never written; what is found goes to a folder of its own.
  mkdir -p "$corpus.found/$name"
  cargo +nightly fuzz run "${fuzz[@]}" "$name" "$corpus.found/$name" "$corpus/$name" -- \
    -max_total_time="$seconds" -max_len=20000 -timeout=10 -rss_limit_mb=2048 \
    -artifact_prefix="$findings/$name-"
done
