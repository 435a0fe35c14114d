#!/usr/bin/env bash
# Runs the conformance suite of the Model Context Protocol against a gateway of this tree, as a
# client of tools and as a server of them, and says of each scenario whether it passes.
#   run.sh --install   only installs what it takes, below target/sdk/mcp
#   run.sh GATEWAY     the gateway's program
# Where it cannot be installed, it says so and ends well; with SWITCHPOINT_TEST_AGENTS=1 it fails.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}/sdk/mcp
mkdir -p "$target"
target=$(cd "$target" && pwd)

stamp=$(sha256sum <"$here/package-lock.json")
if [[ $(cat "$target/stamp" 2>/dev/null) != "$stamp" ]]; then
  cp "$here"/package*.json "$target/"
  if ! npm ci --prefix "$target" --no-audit --no-fund --loglevel=error; then
    echo "n/a  mcp: its packages cannot be installed here"
    [[ ${SWITCHPOINT_TEST_AGENTS:-} != 1 ]] || exit 1
    exit 0
  fi
  echo "$stamp" >"$target/stamp"
fi
[[ ${1:-} != --install ]] || exit 0

python3 -u "$here/conformance.py" "$1" "$target/node_modules"
